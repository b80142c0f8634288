"""One table of servers, kind and unkind, and what two handlers make of their answers."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest
import pytest_twisted
import scrapy
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from scrapy import Request, Spider
from scrapy.core.downloader.handlers.http11 import HTTP11DownloadHandler
from scrapy.http import Response
from scrapy.utils.misc import build_from_crawler
from scrapy.utils.test import get_crawler
from twisted.internet.defer import Deferred

from scrapy_distributed.fast.http_handler import HTTPDownloadHandler

# Scrapy's own handler of 2.14: no address where the body is empty, no answer where a header has no colon, a second
# warning of the size, and its TLS warns of itself.
OLD = scrapy.version_info < (2, 19)
SECONDS = 0.4  # of a server that takes its time: longer than SHORT
SHORT = 0.2
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
Step = bytes | float | str
OLD_TLS_WARNS = pytest.mark.filterwarnings("ignore::DeprecationWarning" if OLD else "error")


def sized(body: bytes, head: bytes = OK) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HEADERS = (
    b"Set-Cookie: a=1\r\nset-cookie: b=2; path=/\r\nX-Latin: caf\xe9\r\nX-Empty:\r\nX-Folded: one\r\n  two\r\n"
    b'WWW-Authenticate: Basic\r\nETag: "x"\r\nKeep-Alive: timeout=5\r\n' + b"no colon here\r\n" * (not OLD)
)
# What a server does when asked: bytes are sent, a number is a pause in seconds.
ANSWERS: dict[str, Sequence[Step]] = {
    "sized": [sized(b"<html>hello</html>")],
    "empty": [sized(b"")],
    "in pieces": [OK[:10], 0.02, OK[10:], 0.02, b"Content-Length: 4\r\n\r", 0.02, b"\nab", 0.02, b"cd"],
    "new lines alone": [b"HTTP/1.1 200 OK\nContent-Length: 4\n\nab\r\n"],
    "chunked": [CHUNKED, b"3\r\nabc\r\n", 0.02, b"2;ext=1\r\nde", 0.02, b"\r\n0\r\nTrailer: x\r\n\r\n"],
    "chunked byte by byte": [bytes([byte]) for byte in CHUNKED + b"a\r\n0123456789\r\n0\r\n\r\n"],
    "chunked with a length": [OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"],
    "gzip": [sized(gzip.compress(b"<html>", mtime=0), OK + b"Content-Encoding: gzip\r\n")],
    "headers": [sized(b"x", OK + HEADERS)],
    "interim": [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + sized(b"after")],
    "no phrase": [b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx"],
    "until close": [OK + b"\r\nall there is", "close"],
    "old": [b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold", "close"],
    "old with a length": [b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", "close"],
    "closes": [sized(b"bye", OK + b"Connection: close\r\n"), "close"],
    "204": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "304 with a length": [b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n"],
    "404": [sized(b"not here", b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\n")],
    "503": [sized(b"", b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n")],
    "302": [sized(b"", b"HTTP/1.1 302 Found\r\nLocation: /sized\r\n")],
    "repeated length": [OK + b"Content-Length: 2, 2\r\nContent-Length: 2\r\n\r\nab"],
    "length written twice": [OK + b"Content-Length: 2, 02\r\n\r\nab"],
    "bad length of chunks": [OK + b"Content-Length: -1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"],
    "bad length of nothing": [b"HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n"],
    "chunked twice": [
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    ],
    "endless length": [OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabc"],
    "two lengths": [OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"],
    "negative length": [OK + b"Content-Length: -2\r\n\r\nabc"],
    "other encoding": [OK + b"Transfer-Encoding: rot13\r\n\r\nabc"],
    "spaced header": [OK + b"Content-Length : 3\r\n\r\nabc"],
    "too short": [OK + b"Content-Length: 30\r\n\r\nabc", "close"],
    "chunk too short": [CHUNKED + b"a\r\nabc", "close"],
    "no last chunk": [CHUNKED + b"3\r\nabc\r\n", "close"],
    "bad chunk": [CHUNKED + b"3\r\nabc\r\nzz\r\n"],
    "chunk extension": [CHUNKED + b"3;a=\"\xe9 ;\t\"\r\nabc\r\n0;last\r\n\r\n"],
    "new line in a chunk extension": [CHUNKED + b"3\r\nabc\r\n2;a\nb\r\nde\r\n0\r\n\r\n"],
    "nul in a chunk extension": [CHUNKED + b"3\r\nabc\r\n2;\0\r\nde\r\n0\r\n\r\n"],
    "return in a chunk extension": [CHUNKED + b"3\r\nabc\r\n2;a\rb\r\nde\r\n0\r\n\r\n"],
    "delete in a chunk extension": [CHUNKED + b"3\r\nabc\r\n0;\x7f\r\n\r\n"],
    "chunk without end": [CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n"],
    "long chunk line": [CHUNKED + b"3;" + b"x" * 3000],
    "too much": [OK + b"Content-Length: 3\r\n\r\nabcdef"],
    "not http": [b"SSH-2.0-OpenSSH_9.6\r\n\r\n"],
    # Nothing more comes.
    "another protocol": [b"220 ftp ready\r\n"],
    "another protocol in pieces": [b"220 ftp", 0.02, b" ready\r", 0.02, b"\n"],
    "another protocol after an interim answer": [b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.02, b"* OK IMAP4 ready\r\n"],
    "a header that is none": [OK, 0.02, b"X: 1\r\nX", 0.02, b" Y: 1\r\nZ: 1\r\n"],
    "interim with a header that is none": [b"HTTP/1.1 103 Early Hints\r\nX Y: 1\r\n\r\n"],
    "bad status": [b"HTTP/1.1 two-hundred OK\r\n\r\n"],
    "long line": [OK + b"X-Long: " + b"x" * 20_000 + b"\r\nContent-Length: 1\r\n\r\nx"],
    "long line without end": [OK + b"X-Long: ", *[b"x" * 9_000] * 3, SECONDS],
    "nothing": ["close"],
    "head byte by byte": [bytes([byte]) for byte in b"HTTP/1.1 102 Processing\r\n\r\n" + sized(b"x")],
    "half a head": [OK, "close"],
    "reset": ["reset"],
    "reset in the body": [OK + b"Content-Length: 30\r\n\r\nabc", 0.05, "reset"],
    "slow head": [OK, SECONDS, b"\r\n"],
    "slow body": [OK + b"Content-Length: 3\r\n\r\na", SECONDS, b"bc"],
    "large": [sized(b"0123456789" * 20_000)],
    "large chunks": [CHUNKED + b"".join(b"1000\r\n" + b"x" * 4096 + b"\r\n" for _ in range(50)) + b"0\r\n\r\n"],
    "image": [sized(b"\x89PNG\r\n\x1a\n\0", b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n")],
    "untyped": [sized(b"<html>x</html>", b"HTTP/1.1 200 OK\r\n")],
}  # fmt: skip

# To HEAD: a length is that of the page, and no body follows.
ANSWERS_TO_HEAD: dict[str, Sequence[Step]] = {
    "sized": [OK + b"Content-Length: 6\r\n\r\n"],
    "no length": [OK + b"\r\n"],
    "length that is none": [OK + b"Content-Length: x\r\n\r\n"],
    "negative length": [OK + b"Content-Length: -1\r\n\r\n"],
    "two lengths": [OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n"],
    "length written otherwise": [OK + b"Content-Length: 2, 02\r\n\r\n"],
    "length and chunks": [OK + b"Content-Length: 007\r\nTransfer-Encoding: chunked\r\n\r\n"],
    "other encoding": [OK + b"Content-Length: 7\r\nTransfer-Encoding: rot13\r\n\r\n"],
    "nothing here": [b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n"],
    "not modified": [b"HTTP/1.1 304 Not Modified\r\nContent-Length: x\r\n\r\n"],
}
ENDLESS_HEAD = [OK, *[b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(20))] * 20]


@dataclass
class Server:
    """Answers by the path of a request; *asked*: requests as method, target, sorted headers and body, and the number of
    the connection that they came over."""

    url: str = ""
    asked: list[tuple[str, str, list[str], bytes]] = field(default_factory=list)
    over: list[int] = field(default_factory=list)
    connections: int = 0
    limits: dict[str, int] = field(default_factory=dict)  # path -> requests after which a connection is closed


class Handler(StreamRequestHandler):
    server: Any
    disable_nagle_algorithm = True

    def handle(self) -> None:
        served: Server = self.server.served
        served.connections += 1
        number, answered = served.connections, 0
        while (line := self.rfile.readline()).strip():
            headers = []
            while header := self.rfile.readline().strip():
                headers.append(header.decode("latin-1"))
            names = {header.partition(":")[0].lower(): header.partition(":")[2].strip() for header in headers}
            body = self.rfile.read(int(names.get("content-length", 0)))
            method, target, _ = line.decode("latin-1").split(" ")
            served.asked.append((method, target, sorted(headers, key=str.lower), body))
            served.over.append(number)
            path = target.partition("?")[0].strip("/").replace("_", " ")
            if answered >= served.limits.get(path, 1_000_000):
                return
            answered += 1
            answers = ANSWERS_TO_HEAD if method == "HEAD" else {**ANSWERS, "endless head": ENDLESS_HEAD}
            for step in answers.get(path, answers["sized"]):
                if not self._take(step):
                    return

    def _take(self, step: Step) -> bool:
        try:
            if isinstance(step, bytes):
                self.wfile.write(step)
            elif isinstance(step, float):
                time.sleep(step)
            elif step == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                return False
            else:
                return False
        except OSError:  # the other side has gone
            return False
        return True

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            return


class Listener(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 100

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


def listening(context: ssl.SSLContext | None = None) -> Iterator[Server]:
    served = Server()
    with Listener(("127.0.0.1", 0), Handler) as listener:
        if context is not None:
            listener.socket = context.wrap_socket(listener.socket, server_side=True)
        listener.served = served  # type: ignore[attr-defined]
        served.url = f"http{'s' if context else ''}://127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield served
        listener.shutdown()
        thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    yield from listening()


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[Server]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    file = tmp_path / "server.pem"
    file.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    yield from listening(context)


def asynchronous(test: Callable[..., Awaitable[None]]) -> Any:
    """Run *test* on the loop of the reactor, as an asyncio task."""

    async def run(*args: Any, **kwargs: Any) -> None:
        await Deferred.fromFuture(asyncio.ensure_future(test(*args, **kwargs)))

    run.__signature__ = __import__("inspect").signature(test)  # type: ignore[attr-defined]
    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return pytest_twisted.ensureDeferred(run)


class Both:
    """The two handlers, with the same settings."""

    def __init__(self, **settings: Any) -> None:
        self.crawler = get_crawler(Spider, settings)
        self.crawler.spider = Spider(name="s")
        self.stock = build_from_crawler(HTTP11DownloadHandler, self.crawler)
        self.lean = build_from_crawler(HTTPDownloadHandler, self.crawler)

    async def close(self) -> None:
        await self.stock.close()
        await self.lean.close()


async def outcome(handler: Any, request: Request) -> tuple[Any, ...]:
    """What becomes of *request*, in what can be compared."""
    try:
        response: Response = await handler.download_request(request)
    except Exception as error:
        return (type(error),)
    assert request.meta["download_latency"] > 0
    return (
        type(response), response.status, response.url, dict(response.headers), response.body, response.flags,
        response.protocol, str(response.ip_address) if response.body or not OLD else "", type(response.certificate),
    )  # fmt: skip


async def compare(server: Server, *requests: Request, **settings: Any) -> list[tuple[Any, ...]]:
    """The outcomes of *requests*, one after the other: the same of both handlers, and the server was asked the same."""
    both = Both(**settings)
    server.asked = []
    try:
        stock = [await outcome(both.stock, request.copy()) for request in requests]
        asked, server.asked, server.over[:] = server.asked, [], []
        lean = [await outcome(both.lean, request.copy()) for request in requests]
    finally:
        await both.close()
    assert lean == stock
    assert server.asked == asked
    return lean


def path_of(name: str) -> str:
    return "/" + name.replace(" ", "_")

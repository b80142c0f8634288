"""One table of servers, kind and unkind: the lean handler gives what Scrapy's own gives, and asks what that asks."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
import struct
import threading
import time
import warnings
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
from scrapy import Request, Spider, signals
from scrapy.core.downloader.handlers.http11 import HTTP11DownloadHandler
from scrapy.exceptions import StopDownload
from scrapy.http import Response
from scrapy.settings import default_settings
from scrapy.utils.misc import build_from_crawler
from scrapy.utils.test import get_crawler
from twisted.internet.defer import Deferred

from scrapy_distributed.fast import http_connection
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


@pytest.mark.parametrize("name", ANSWERS)
@asynchronous
async def test_both_handlers_make_the_same_of_an_answer(name: str, server: Server) -> None:
    timeout = SHORT if "slow" in name or "without end" in name else 10.0
    request = Request(server.url + path_of(name), meta={"download_timeout": timeout})
    again = Request(server.url + "/sized", meta={"download_timeout": 10.0})
    outcomes = await compare(server, request, again)
    assert outcomes[1][1] == 200  # a bad answer spoils nothing
    EXPECTED.get(name, lambda found: None)(outcomes[0])


@pytest.mark.parametrize("name", ANSWERS_TO_HEAD)
@asynchronous
async def test_both_handlers_make_the_same_of_an_answer_to_head(name: str, server: Server) -> None:
    head = Request(server.url + path_of(name), method="HEAD")
    outcomes = await compare(server, head, Request(server.url + "/sized"))
    assert [found[1] for found in outcomes] == [{"nothing here": 204, "not modified": 304}.get(name, 200), 200]
    assert len(set(server.over)) == 1  # its connection goes on


def _is(*expected: Any) -> Callable[[tuple[Any, ...]], None]:
    def check(found: tuple[Any, ...]) -> None:
        assert found[: len(expected)] == expected

    return check


def _body(body: bytes, flags: list[str] | None = None) -> Callable[[tuple[Any, ...]], None]:
    def check(found: tuple[Any, ...]) -> None:
        assert (found[4], found[5]) == (body, flags or [])

    return check


EXPECTED: dict[str, Callable[[tuple[Any, ...]], None]] = {
    "chunked": _body(b"abcde"), "chunked byte by byte": _body(b"0123456789"), "interim": _body(b"after"),
    "until close": _body(b"all there is", ["partial"]), "new lines alone": _body(b"ab\r\n"),
    "too short": _is(http_connection.DataLoss), "no last chunk": _is(http_connection.DataLoss),
    "length written twice": _body(b"ab"), "bad length of chunks": _body(b"ab"), "chunked twice": _body(b"ab"),
    "chunk extension": _body(b"abc"), "new line in a chunk extension": _is(http_connection.DataLoss),
    "nul in a chunk extension": _is(http_connection.DataLoss), "another protocol": _is(http_connection.Failed),
    "a header that is none": _is(http_connection.Failed),
    "bad chunk": _is(http_connection.DataLoss), "not http": _is(http_connection.Failed),
    "two lengths": _is(http_connection.Failed), "long line": _is(http_connection.Failed),
    "nothing": _is(http_connection.NeverReceived), "slow head": _is(http_connection.Timeout),
    "slow body": _is(http_connection.Timeout), "too much": _body(b"abc"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["too short", "no last chunk", "bad chunk", "reset in the body"])
@asynchronous
async def test_what_is_there_is_given_if_a_part_is_enough(name: str, server: Server) -> None:
    [found] = await compare(server, Request(server.url + path_of(name)), DOWNLOAD_FAIL_ON_DATALOSS=False)
    assert (found[4], found[5]) == (b"abc", ["dataloss"])
    [found] = await compare(server, Request(server.url + path_of(name), meta={"download_fail_on_dataloss": False}))
    assert found[5] == ["dataloss"]


@pytest.mark.parametrize(
    "request_",
    [
        Request("http://x/a?b=c&d=%20e#fragment"),
        Request("http://x"),
        Request("http://x?q"),
        Request("http://x/;p?q=1"),
        Request("http://x/café"),
        Request("http://x/sized", method="HEAD"),
        Request("http://x/sized", method="POST", body=b"a=1", headers={"Content-Type": "text/plain"}),
        Request("http://x/sized", method="POST"),
        Request("http://x/sized", method="PUT", body=b"\0\r\n\xff"),
        Request("http://x/sized", method="PATCH", body=b"x"),
        Request("http://x/sized", method="DELETE"),
        Request("http://x/sized", method="OPTIONS"),
        Request("http://x/sized", method="GET", body=b"x"),
        Request("http://x/sized", method="PROPFIND"),
        Request("http://x/sized", headers={"Host": "other.example", "X-Two": ["1", "2"], "Accept": "a"}),
        Request("http://x/sized", headers={"X-Latin": "café".encode("latin-1")}),
        Request("http://x/sized", headers={"X-Bad": b"1\r\nX-Injected: 2"}),
        Request("http://x/sized", headers={"X-Bad\r\nX-Injected": b"2"}),
        Request("http://x/sized", headers={"Connection": "close"}),
        Request("http://x/sized", headers={"Content-Length": "0"}),
        Request("http://x/sized\r\nX-Injected: 1"),
        Request("http://x/sized", method="GET /injected HTTP/1.1\r\n"),
        Request("http://user:secret@x/sized"),
    ],
    ids=lambda request: f"{request.method!r} {request.url} {sorted(request.headers)}",
)  # fmt: skip
@asynchronous
async def test_both_handlers_ask_the_same(request_: Request, server: Server) -> None:
    await compare(
        server, request_.replace(url=request_.url.replace("//x", server.url[5:]).replace("@x", f"@{server.url[7:]}"))
    )
    assert not any("x-injected" in header.lower()[:12] for asked in server.asked for header in asked[2])


@asynchronous
async def test_connections_are_kept_and_used_again(server: Server) -> None:
    outcomes = await compare(server, *[Request(server.url + path) for path in ("/sized", "/chunked", "/204", "/empty")])
    assert [found[1] for found in outcomes] == [200, 200, 204, 200]
    assert len(set(server.over)) == 1


@pytest.mark.parametrize(
    "path", ["/closes", "/old_with_a_length", "/until_close", "/too_much", "/chunked_with_a_length"]
)
@asynchronous
async def test_a_connection_that_can_not_go_on_is_not_used_again(path: str, server: Server) -> None:
    both = Both()
    for _ in range(2):
        assert (await outcome(both.lean, Request(server.url + path)))[1] == 200
    await both.close()
    assert len(set(server.over)) == 2


@pytest.mark.parametrize(("method", "again"), [("GET", True), ("HEAD", True), ("DELETE", True), ("POST", False)])
@asynchronous
async def test_a_kept_connection_that_was_closed_meanwhile_costs_nothing(
    method: str, again: bool, server: Server
) -> None:
    server.limits["sized"] = 1  # the second request over a connection is read, and gets no answer
    outcomes = await compare(server, Request(server.url + "/sized"), Request(server.url + "/sized", method=method))
    assert outcomes[1][:2] == ((outcomes[0][0], 200) if again else (http_connection.NeverReceived,))
    assert len(server.asked) == (3 if again else 2)


@asynchronous
async def test_a_request_is_sent_again_once_and_no_more(server: Server) -> None:
    server.limits["sized"] = 1
    both = Both()
    await outcome(both.lean, Request(server.url + "/sized"))
    server.limits["sized"] = 0
    assert await outcome(both.lean, Request(server.url + "/sized")) == (http_connection.NeverReceived,)
    await both.close()
    assert len(server.asked) == 3


@asynchronous
async def test_no_server_and_no_such_host(unused_port: int, server: Server) -> None:
    url = f"http://127.0.0.1:{unused_port}/"
    assert await compare(server, Request(url)) == [(http_connection.Refused,)]
    nowhere = Request("http://no-such-host.invalid/", meta={"download_timeout": 10.0})
    assert await compare(server, nowhere) == [(http_connection.UnknownHost,)]


@pytest.mark.parametrize("name", ["large", "large chunks"])
@asynchronous
async def test_sizes_have_limits(name: str, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    url = server.url + path_of(name)
    assert await compare(server, Request(url), DOWNLOAD_MAXSIZE=1000) == [(http_connection.Cancelled,)]
    assert await compare(server, Request(url, meta={"download_maxsize": 1000})) == [(http_connection.Cancelled,)]
    caplog.clear()
    [found] = await compare(server, Request(url, meta={"download_warnsize": 1000}))
    assert found[1] == 200
    assert sum("warn size (1000)" in record.message for record in caplog.records) == 2 + (OLD and name == "large")


@pytest.mark.parametrize("signal", [signals.headers_received, signals.bytes_received], ids=["headers", "bytes"])
@pytest.mark.parametrize("fail", [True, False])
@asynchronous
async def test_a_receiver_of_a_signal_may_stop_the_download(signal: Any, fail: bool, server: Server) -> None:
    seen: list[Any] = []
    both = Both()

    def stop(request: Request, **named: Any) -> None:
        seen.append({key: named.get(key) for key in ("body_length", "data")})
        raise StopDownload(fail=fail)

    both.crawler.signals.connect(stop, signal)
    found = []
    for handler in (both.stock, both.lean):
        request = Request(server.url + "/sized")
        try:
            response = await handler.download_request(request)
        except StopDownload as stopped:
            assert fail
            response = stopped.response
        found.append((response.status, response.body, response.flags, dict(response.headers), type(response)))
    both.crawler.signals.disconnect(stop, signal)
    await both.close()
    assert found[0] == found[1]
    assert found[1][2] == ["download_stopped"]
    assert seen[0] == seen[1]


@asynchronous
async def test_an_error_in_a_receiver_does_not_end_the_download(server: Server) -> None:
    both = Both()

    def raises() -> None:
        raise RuntimeError("no")

    both.crawler.signals.connect(raises, signals.headers_received)
    assert (await outcome(both.lean, Request(server.url + "/sized")))[1] == 200
    await both.close()


@OLD_TLS_WARNS
@asynchronous
async def test_https_as_scrapy_does_it_by_default(tls_server: Server) -> None:
    url = tls_server.url.replace("127.0.0.1", "localhost")
    outcomes = await compare(tls_server, Request(url + "/sized"), Request(url + "/chunked"))
    assert [found[1] for found in outcomes] == [200, 200]
    assert len(set(tls_server.over)) == 1


@OLD_TLS_WARNS
@asynchronous
async def test_https_with_a_server_that_speaks_no_tls(server: Server) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        assert await compare(server, Request(f"https://127.0.0.1:{port}/")) == [(http_connection.NeverReceived,)]


@OLD_TLS_WARNS
@asynchronous
async def test_what_is_special_is_left_to_scrapy(server: Server, tls_server: Server) -> None:
    both = Both(DOWNLOADER_CLIENT_TLS_CIPHERS="HIGH")
    assert (await outcome(both.lean, Request("http://127.0.0.1:1/x", meta={"proxy": server.url})))[1] == 200
    assert server.asked[-1][1] == "http://127.0.0.1:1/x"
    assert both.lean._idle == {}
    assert (await outcome(both.lean, Request(tls_server.url + "/sized")))[1] == 200
    assert both.lean._idle == {}
    assert (await outcome(both.lean, Request(server.url + "/sized")))[1] == 200
    assert len(both.lean._idle) == 1
    await both.close()


@asynchronous
async def test_limits_of_the_spider_are_left_to_scrapy(server: Server) -> None:
    both = Both()
    both.crawler.spider.download_maxsize = 5
    lean = build_from_crawler(HTTPDownloadHandler, both.crawler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Scrapy's own, of the attribute
        assert await outcome(lean, Request(server.url + "/sized")) == (http_connection.Cancelled,)
    await lean.close()
    await both.close()


@asynchronous
async def test_what_nobody_here_can_do_is_refused_in_words(server: Server) -> None:
    both = Both(DOWNLOAD_HANDLERS_BASE={**default_settings.DOWNLOAD_HANDLERS_BASE, "http": "no.such.Handler"})
    with pytest.raises(RuntimeError, match=r"needs no\.such\.Handler, which can't run here: No module named 'no'"):
        await both.lean.download_request(Request("http://127.0.0.1/", meta={"proxy": server.url}))
    await both.close()


@asynchronous
async def test_idle_connections_are_few_and_do_not_grow_old(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scrapy_distributed.fast.http_handler.IDLE_SECONDS", 0.1)
    both = Both(CONCURRENT_REQUESTS_PER_DOMAIN=2)
    requests = [Request(server.url + "/in_pieces") for _ in range(5)]
    found = await asyncio.gather(*(outcome(both.lean, request) for request in requests))
    assert [one[1] for one in found] == [200] * 5
    [idle] = both.lean._idle.values()
    assert len(idle) == 2
    await asyncio.sleep(0.3)
    assert both.lean._idle == {}
    await both.close()


@asynchronous
async def test_a_request_that_nobody_waits_for_gives_up_its_connection(server: Server) -> None:
    both = Both()
    task = asyncio.ensure_future(both.lean.download_request(Request(server.url + "/slow_body")))
    while not server.asked:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await outcome(both.lean, Request(server.url + "/sized")))[1] == 200
    assert server.over == [1, 2]
    await both.close()


@asynchronous
async def test_a_connection_is_not_used_again_while_a_body_is_still_sent(server: Server) -> None:
    async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sized(b"early"))
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    both = Both()
    async with await asyncio.start_server(answer_early, "127.0.0.1", 0) as early:
        url = f"http://127.0.0.1:{early.sockets[0].getsockname()[1]}/"
        found = await outcome(both.lean, Request(url, method="POST", body=b"x" * 20_000_000))
    assert found[4] == b"early"
    assert not any(both.lean._idle.values())
    await both.close()


@asynchronous
async def test_a_head_has_a_limit(server: Server) -> None:
    both = Both()
    assert await outcome(both.lean, Request(server.url + "/endless_head")) == (http_connection.Failed,)
    await both.close()


@asynchronous
async def test_a_local_address_is_used(server: Server) -> None:
    both = Both(DOWNLOAD_BIND_ADDRESS="127.0.0.1")
    assert (await outcome(both.lean, Request(server.url + "/sized")))[1] == 200
    assert (await outcome(both.lean, Request(server.url + "/sized", meta={"bindaddress": "127.0.0.2"})))[1] == 200
    assert sorted(origin.local[0] for origin in both.lean._idle if origin.local) == ["127.0.0.1", "127.0.0.2"]
    await both.close()

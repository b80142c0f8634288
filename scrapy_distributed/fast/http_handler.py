"""A lean download handler for http and https: what most requests of a crawl need, on asyncio alone.

Its answers are those of Scrapy's own handler for Twisted's asyncio reactor, and it wants that reactor, too. Whatever it
does not do itself (proxies, unusual methods, URLs and headers, TLS settings of the project, another reactor or none) it
gives to Scrapy's own handler.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections import defaultdict
from functools import lru_cache
from ipaddress import ip_address
from time import monotonic
from typing import Any, NamedTuple, cast
from urllib.parse import urldefrag

from scrapy import Request
from scrapy.core.downloader.handlers.base import BaseDownloadHandler
from scrapy.crawler import Crawler
from scrapy.exceptions import NotConfigured
from scrapy.http import Response
from scrapy.settings import BaseSettings
from scrapy.utils.asyncio import is_asyncio_available
from scrapy.utils.httpobj import urlparse_cached
from scrapy.utils.misc import build_from_crawler, load_object
from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostResolution, IResolutionReceiver
from zope.interface import implementer  # type: ignore[import-untyped]

from scrapy_distributed.fast.http_connection import (
    Connection,
    Exchange,
    NeverReceived,
    Origin,
    Refused,
    Timeout,
    UnknownHost,
    failed,
)

DEFAULT_TIMEOUT = 10.0  # seconds, where the request names none: that of Scrapy's own handler
IDLE_SECONDS = 240.0  # a kept connection is closed after this time: Twisted's
PORTS = {"http": 80, "https": 443}
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
WITH_LENGTH = ("POST", "PUT")  # also without a body
AGAIN = ("GET", "HEAD", "DELETE", "OPTIONS")  # may be sent twice
SPIDER_LIMITS = (
    "download_maxsize",
    "download_warnsize",
)  # attributes that Scrapy's own handler still knows, and warns of
# Whoever sets one of these wants Scrapy's own TLS.
TLS_SETTINGS = (
    "DOWNLOADER_CLIENTCONTEXTFACTORY",
    "DOWNLOADER_CLIENT_TLS_METHOD",
    "DOWNLOADER_CLIENT_TLS_CIPHERS",
    "DOWNLOADER_CLIENT_TLS_VERBOSE_LOGGING",
    "DOWNLOAD_TLS_MIN_VERSION",
    "DOWNLOAD_TLS_MAX_VERSION",
    "DOWNLOAD_VERIFY_CERTIFICATES",
)
_HOST = re.compile(r"[A-Za-z0-9._-]+")
# No header can speak of the length of the body but ours.
_PLAIN = re.compile(
    rb"[A-Z]+ /[\x21-\x7e]* HTTP/1\.1\r\n"
    rb"(?:(?!(?i:content-length|transfer-encoding|connection|expect|upgrade|te|trailer|proxy-authorization):)"
    rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [^\r\n\0]*\r\n)*"
)


class HTTPDownloadHandler(BaseDownloadHandler):
    """Keeps connections of each origin, at most ``CONCURRENT_REQUESTS_PER_DOMAIN`` of them idle."""

    lazy = True

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        settings = crawler.settings
        self._here = (
            is_asyncio_available()
            and settings.getbool("TWISTED_REACTOR_ENABLED", True)  # a setting of Scrapy 2.15 and later
            and not any(hasattr(crawler.spider, name) for name in SPIDER_LIMITS)
        )
        self._https = _default_tls(settings)
        self._max_size = settings.getint("DOWNLOAD_MAXSIZE")
        self._warn_size = settings.getint("DOWNLOAD_WARNSIZE")
        self._fail_on_data_loss = settings.getbool("DOWNLOAD_FAIL_ON_DATALOSS")
        self._kept = settings.getint("CONCURRENT_REQUESTS_PER_DOMAIN")
        self._local = _address(settings.get("DOWNLOAD_BIND_ADDRESS"))
        self._idle: defaultdict[Origin, list[Connection]] = defaultdict(list)
        self._sweep: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None
        self._others: dict[str, Any] = {}  # Scrapy's own handlers, by scheme

    async def download_request(self, request: Request) -> Response:
        exchange = self._exchange(request)
        if exchange is None:
            return cast(Response, await self._other(request).download_request(request))
        timeout = request.meta.get("download_timeout") or DEFAULT_TIMEOUT
        timer = asyncio.get_running_loop().call_later(timeout, _time_out, exchange, timeout)
        try:
            connection = self._take(exchange.origin)
            if connection is not None:
                connection.send(exchange)
            else:
                self._connect(exchange)
            return await exchange.answer
        finally:
            timer.cancel()
            if exchange.connecting is not None:
                exchange.connecting.cancel()
            if exchange.connection is not None:  # it has failed, or nobody wants it any more
                exchange.connection.close()

    async def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        for other in self._others.values():
            await other.close()

    # What is sent

    def _exchange(self, request: Request) -> Exchange | None:
        """*request* as it is to be sent; ``None`` for one that is left to Scrapy's own handler."""
        url, meta, parsed = request.url, request.meta, urlparse_cached(request)
        if not self._here or meta.get("proxy") or (parsed.scheme == "https" and not self._https):
            return None
        target, sent = _target(parsed.scheme, parsed.netloc), None
        if target is not None:
            sent = _sent(request, url[len(parsed.scheme) + 3 + len(parsed.netloc) :], target.header)
        if target is None or sent is None:
            return None
        local = _address(meta["bindaddress"]) if meta.get("bindaddress") else self._local
        return Exchange(
            request=request,
            url=urldefrag(url)[0] if "#" in url else url,
            sent=sent,
            origin=Origin(parsed.scheme, target.host, target.port, local),
            again=request.method in AGAIN and not request.body,
            begun=monotonic(),
            max_size=meta.get("download_maxsize", self._max_size),
            warn_size=meta.get("download_warnsize", self._warn_size),
            fail_on_data_loss=meta.get("download_fail_on_dataloss", self._fail_on_data_loss),
            answer=asyncio.get_running_loop().create_future(),
        )

    def _other(self, request: Request) -> Any:
        """Scrapy's own handler for *request*. Raises ``RuntimeError`` where that one can't run."""
        scheme = urlparse_cached(request).scheme
        if scheme not in self._others:
            path = self.crawler.settings["DOWNLOAD_HANDLERS_BASE"][scheme]
            try:
                self._others[scheme] = build_from_crawler(load_object(path), self.crawler)
            except (ImportError, NotConfigured) as problem:
                raise RuntimeError(
                    f"{request} needs {path}, which can't run here: {problem}. Fast workers do by themselves: http and"
                    " https without a proxy, with Scrapy's default TLS settings, and with usual methods and headers"
                ) from problem
        return self._others[scheme]

    # Connections

    def _take(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
        return None

    def _release(self, connection: Connection) -> None:
        idle = self._idle[connection.origin]
        if len(idle) >= self._kept:
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        idle.append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(IDLE_SECONDS, self._close_old)

    def _close_old(self) -> None:
        """Close what nobody has used for long, and what the other side has closed."""
        loop = asyncio.get_running_loop()
        for origin, connections in list(self._idle.items()):
            young = [one for one in connections if one.usable and loop.time() - one.idle_since < IDLE_SECONDS]
            for connection in set(connections).difference(young):
                connection.close()
            if young:
                self._idle[origin] = young
            else:
                del self._idle[origin]
        self._sweep = loop.call_later(IDLE_SECONDS / 4, self._close_old) if self._idle else None

    def _connect(self, exchange: Exchange) -> None:
        """Send *exchange* over a new connection."""
        exchange.again = False
        exchange.connecting = asyncio.get_running_loop().create_task(self._send_over_new(exchange))

    async def _send_over_new(self, exchange: Exchange) -> None:
        origin = exchange.origin
        try:
            connection = await self._connection(origin)
        except ssl.SSLError as problem:
            exchange.fail(failed(NeverReceived, f"TLS with {origin.host}: {problem}"))
        except (ConnectionRefusedError, ConnectionResetError, ConnectionAbortedError) as problem:
            kind = Refused if isinstance(problem, ConnectionRefusedError) else NeverReceived
            exchange.fail(failed(kind, f"{origin.host}:{origin.port}: {problem}"))
        except socket.gaierror as problem:
            exchange.fail(UnknownHost(f"DNS lookup of {origin.host}: {problem}"))
        except OSError as problem:
            exchange.fail(error.getConnectError(problem))  # type: ignore[no-untyped-call]
        except Exception as problem:  # whatever it is, it is the end of this request alone
            exchange.fail(problem)
        else:
            connection.send(exchange)

    async def _connection(self, origin: Origin) -> Connection:
        """A new connection. Raises ``OSError`` for the last address that was tried."""
        hosts = await self._addresses(origin.host)
        tls: dict[str, Any] = {}
        if origin.scheme == "https":
            self._tls = self._tls or _tls_context()
            tls = {"ssl": self._tls, "server_hostname": origin.host, "ssl_handshake_timeout": 3600.0}
        problem: OSError | None = None
        for host in hosts:
            try:
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self.crawler, origin, released=self._release, lost=self._connect),
                    host,
                    origin.port,
                    local_addr=origin.local,
                    **tls,
                )
            except OSError as failure:
                problem = failure
            else:
                return connection
        raise problem or socket.gaierror(f"no address of {origin.host}")

    async def _addresses(self, host: str) -> list[str]:
        """The addresses of *host*, from the resolver that Scrapy has given to the reactor."""
        if _is_address(host):
            return [host]
        from twisted.internet import reactor

        receiver = _Receiver(asyncio.get_running_loop().create_future())
        cast(Any, reactor).nameResolver.resolveHostName(receiver, host)
        return await receiver.addresses


@implementer(IResolutionReceiver)
class _Receiver:
    """Collects what a resolver of Twisted finds."""

    def __init__(self, addresses: asyncio.Future[list[str]]) -> None:
        self.addresses = addresses
        self._found: list[str] = []

    def resolutionBegan(self, resolution: IHostResolution) -> None:  # noqa: N802
        pass

    def addressResolved(self, address: IPv4Address | IPv6Address) -> None:  # noqa: N802
        self._found.append(address.host)

    def resolutionComplete(self) -> None:  # noqa: N802
        if not self.addresses.done():
            self.addresses.set_result(self._found)


class _Target(NamedTuple):
    """What the network location of a URL says; *header* is the value of ``Host``."""

    host: str
    port: int
    header: bytes


@lru_cache(maxsize=4096)
def _target(scheme: str, netloc: str) -> _Target | None:
    """``None`` for a location that is left to Scrapy's own handler: with a user, an IPv6 address, or no sense."""
    host, colon, port = netloc.partition(":")
    if not _HOST.fullmatch(host) or (colon and not port.isdigit()) or not 0 < int(port or 1) < 65_536:
        return None
    number = int(port or PORTS[scheme])
    header = host if number == PORTS[scheme] else f"{host}:{number}"
    return _Target(host.lower(), number, header.encode())


def _sent(request: Request, path: str, host: bytes) -> bytes | None:
    """The bytes of *request*; ``None`` if one of them is not plain."""
    method, headers, body = request.method, request.headers, request.body
    path = path.partition("#")[0]
    if path[:1] != "/":
        path = "/" + path
    if method not in METHODS or not path.isascii():
        return None
    lines = [f"{method} {path} HTTP/1.1\r\n".encode()]
    if b"Host" not in headers:
        lines.append(b"Host: " + host + b"\r\n")
    elif len(headers.getlist(b"Host")) != 1:
        return None
    for name, values in dict.items(headers):
        for value in values:
            lines.append(name + b": " + value + b"\r\n")
    head = b"".join(lines)
    if not _PLAIN.fullmatch(head) or head.count(b"\n") != len(lines):  # a value may bring lines of its own
        return None
    if body or method in WITH_LENGTH:
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
    return head + b"\r\n"


def _time_out(exchange: Exchange, seconds: float) -> None:
    exchange.fail(Timeout(f"Getting {exchange.url} took longer than {seconds} seconds."))


def _address(value: str | tuple[str, int] | None) -> tuple[str, int] | None:
    return (value, 0) if isinstance(value, str) else value


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _default_tls(settings: BaseSettings) -> bool:
    """Whether TLS is to be what Scrapy does by default, and this is a Scrapy (2.15 or newer) whose default we know."""
    if "DOWNLOAD_TLS_MIN_VERSION" not in settings or os.environ.get("SSLKEYLOGFILE"):
        return False
    return not any(settings.getpriority(name) for name in TLS_SETTINGS)  # 0: nobody has set it


def _tls_context() -> ssl.SSLContext:
    """Scrapy's default: no certificate is verified, the ciphers are OpenSSL's, TLS 1.2 or newer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DEFAULT")
    context.options |= 0x4  # OP_LEGACY_SERVER_CONNECT, which has a name in Python 3.12
    return context

"""Connections to a node: Twisted's, but for what a node, or what stands before it, could do to us with them.

A call that is over before its answer ends its connection at once. A head has an end, a body a limit; nothing is
decoded, no cookie is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, BinaryIO

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (  # type: ignore[attr-defined]  # it has them all, and names some in its documentation
    BrowserLikePolicyForHTTPS,
    HTTP11ClientProtocol,
    HTTPConnectionPool,
    PotentialDataLoss,
    ResponseDone,
)

#: Status line and headers. Scrapyd writes 300 bytes, a proxy adds a few more.
MAX_HEAD_BYTES = 64 * 1024
#: A body may come in as many pieces as its limit has times this: those of a byte cost much more time than their length
#: tells.
PIECE_BYTES = 64
#: And always in so many.
FEW_PIECES = 1024


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How many *bytes* of a body are read, and the *words* for one that has more; none if no Scrapyd has such a one."""

    bytes: int
    words: str = ""


class TooLongError(Exception):
    """The body goes on after its *limit*."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(f"more than {limit.bytes:,} bytes")
        self.limit = limit


class HeadTooLongError(Exception):
    """The head of the answer has no end."""


class EncodedError(Exception):
    """The body is compressed, which nobody has asked for. Small ones can become larger than any memory."""


class OtherBytesError(Exception):
    """The body has ended, or goes on, and is not the one that was asked for."""


class WriteError(Exception):
    """Our own file has not taken the body: *reason*."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Body(Protocol):
    """Reads a body. *whole* fires with what it was to keep of it. No more than its *limit* is read: to go over that
    ends the connection, and so does it to cancel *whole*: treq's own collector would go on reading.

    What may take longer than a call calls *progressed* on its way."""

    transport: Any

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._most_pieces = max(limit.bytes // PIECE_BYTES, FEW_PIECES)
        self._received = self._pieces = 0
        self.whole: Deferred[bytes] = Deferred(lambda _: self._end())
        self.progressed: Callable[[], object] = lambda: None

    def dataReceived(self, data: bytes) -> None:  # noqa: N802  # Twisted's names, here and below
        if self.whole.called:  # what had been read from the line before we ended it
            return
        self._received += len(data)
        self._pieces += 1
        if self._received > self._limit.bytes or self._pieces > self._most_pieces:
            self._end()
            self._over(data)
        else:
            self._take(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        if self.whole.called:
            return
        if isinstance(reason.value, ResponseDone | PotentialDataLoss):  # the latter: nobody has told its length
            self._ended(reason)
        else:
            self.whole.errback(reason)

    def _take(self, data: bytes) -> None:
        """One more piece."""
        raise NotImplementedError

    def _over(self, data: bytes) -> None:
        """The piece with which it is over its limit; none follows."""
        raise NotImplementedError

    def _ended(self, reason: Failure) -> None:
        """It is complete, as far as *reason* can tell."""
        raise NotImplementedError

    def _end(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


class MemoryBody(Body):
    """Keeps a body, or its *last* bytes alone. Of one that is over its *limit* it keeps what has come, if that is
    *enough*; else *whole* fails with ``TooLongError``."""

    def __init__(self, limit: Limit, *, last: int | None = None, enough: bool = False) -> None:
        super().__init__(limit)
        self._last = limit.bytes if last is None else last
        self._enough = enough
        self._kept = bytearray()

    def _take(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > 2 * self._last:
            del self._kept[: -self._last]

    def _over(self, data: bytes) -> None:
        self._kept += data
        if self._enough:
            self.whole.callback(self._tail())
        else:
            self.whole.errback(TooLongError(self._limit))

    def _ended(self, reason: Failure) -> None:
        self.whole.callback(self._tail())

    def _tail(self) -> bytes:
        return bytes(self._kept[-self._last :])


class FileBody(Body):
    """Writes a body of *size* bytes with the SHA-256 *digest* (hexadecimal) to *file* as it comes. It has progressed
    when it begins, and with each *stride* bytes.

    *whole* fires with nothing; it fails with ``OtherBytesError`` for any other body, and with ``WriteError``."""

    def __init__(self, file: BinaryIO, *, size: int, digest: str, stride: int) -> None:
        super().__init__(Limit(bytes=size))
        self._file = file
        self._digest = digest
        self._stride = stride
        self._since = 0  # bytes
        self._sum = sha256()

    def connectionMade(self) -> None:  # noqa: N802
        self.progressed()

    def _take(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except Exception as error:
            self._end()
            self.whole.errback(WriteError(error))
            return
        self._sum.update(data)
        self._since += len(data)
        if self._since >= self._stride:
            self._since = 0
            self.progressed()

    def _over(self, data: bytes) -> None:
        size = self._limit.bytes
        many = TooLongError(self._limit) if self._received <= size else OtherBytesError(f"more than {size:,} bytes")
        self.whole.errback(many)

    def _ended(self, reason: Failure) -> None:
        size, found = self._limit.bytes, self._sum.hexdigest()
        if self._received < size and isinstance(reason.value, PotentialDataLoss):  # it may have been cut
            self.whole.errback(reason)
        elif self._received < size:
            self.whole.errback(OtherBytesError(f"{self._received:,} bytes, expected {size:,}"))
        elif found != self._digest:
            self.whole.errback(OtherBytesError(f"SHA-256 {found:.12}..., expected {self._digest:.12}..."))
        else:
            self.whole.callback(b"")


class Connection(HTTP11ClientProtocol):
    """One of *all_open* while it is open; *lost* fires when it is not any more."""

    transport: Any

    def __init__(self, quiescent: Any, all_open: set[Connection]) -> None:
        super().__init__(quiescent)  # type: ignore[no-untyped-call]
        self._all_open = all_open
        self._head_bytes: int | None = None  # while a head is awaited
        self._endless = False
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:  # noqa: N802
        super().connectionMade()
        self._all_open.add(self)
        # Twisted's client closes politely wherever it does not cancel (its issues 5619, 8930): when the other side has
        # taken all that was written and, with TLS, has agreed. It may never do so, and each call would cost a socket.
        self.transport.loseConnection = self.transport.abortConnection

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        del self.transport.loseConnection  # a TLS connection that is gone can't be aborted, but lost
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self._all_open.discard(self)
        self.lost.callback(None)

    def request(self, request: Any) -> Deferred[Any]:
        # treq, further out, asks for gzip and decodes what says so, layer by layer, each as a whole.
        request.headers.setRawHeaders(b"Accept-Encoding", [b"identity"])
        self._head_bytes = 0
        answer: Deferred[Any] = super().request(request)
        return answer.addCallbacks(self._headed, self._headless)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        super().dataReceived(data)  # type: ignore[no-untyped-call]
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._endless = True
                self.transport.abortConnection()

    def _headed(self, response: Any) -> Any:
        self._head_bytes = None
        response.headers.removeHeader(b"Set-Cookie")  # treq would keep them all, and send them
        encodings = b",".join(response.headers.getRawHeaders(b"Content-Encoding", [])).decode("latin-1")
        if encodings and any(one.strip().lower() not in ("", "identity") for one in encodings.split(",")):
            self.transport.loseConnection()
            raise EncodedError(f"HTTP {response.code}, Content-Encoding {encodings!r:.60}")
        return response

    def _headless(self, failure: Failure) -> Failure:
        self._head_bytes = None
        if self._endless:
            raise HeadTooLongError(f"more than {MAX_HEAD_BYTES:,} bytes")
        return failure


class Endpoints:
    """Where to connect for a URL, which is given up after *seconds*: as Twisted's client does (an
    ``IAgentEndpointFactory``), but an address is no name to be looked up. The resolver that Scrapy installs looks for
    IPv4 addresses alone."""

    def __init__(self, reactor: Any, *, seconds: float) -> None:
        self._reactor = reactor
        self._seconds = seconds
        policy: Any = BrowserLikePolicyForHTTPS
        self._policy = policy()

    def endpointForURI(self, uri: Any) -> Any:  # noqa: N802
        """Raises ``ValueError`` for another scheme than http and https."""
        host = uri.host.decode("ascii").strip("[]")
        kind: Any = HostnameEndpoint
        if isIPAddress(host):
            kind = TCP4ClientEndpoint
        elif isIPv6Address(host):
            kind = TCP6ClientEndpoint
        endpoint = kind(self._reactor, host, uri.port, timeout=self._seconds)
        if uri.scheme == b"http":
            return endpoint
        if uri.scheme == b"https":
            return wrapClientTLS(self._policy.creatorForNetloc(host.encode(), uri.port), endpoint)
        raise ValueError(f"{uri.scheme!r}: expected http or https")


class Pool(HTTPConnectionPool):
    """Kept connections; it knows those in use as well. *idle_seconds*: how long one is kept; *kept*: how many are."""

    def __init__(self, reactor: Any, *, idle_seconds: int, kept: int) -> None:
        super().__init__(reactor, persistent=True)  # type: ignore[no-untyped-call]
        self.cachedConnectionTimeout = idle_seconds
        self.maxPersistentPerHost = kept
        self._open: set[Connection] = set()

    def _factory(self, quiescent: Any, metadata: str) -> Any:  # type: ignore[override]  # a class there
        """Twisted's hook for the connections of a pool."""
        factory: Any = Factory()
        factory.noisy = False
        factory.protocol = lambda: Connection(quiescent, self._open)
        return factory

    async def close(self) -> None:
        """End all connections. Returns when no socket is left."""
        lost = [connection.lost for connection in self._open]
        for connection in tuple(self._open):
            connection.transport.loseConnection()
        await self.closeCachedConnections()  # type: ignore[no-untyped-call]
        await DeferredList(lost)

"""One keep-alive HTTP/1.1 connection: a request goes out, its answer is parsed as it comes in.

Answers are read as Scrapy's own handler (Twisted's client) reads them: the same statuses, headers, bodies, flags and
exceptions. What comes from the network is bounded: a line of the head, the head, the length of a chunk, the trailers.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from time import monotonic
from typing import Any, NamedTuple, cast

from scrapy import Request, exceptions, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import StopDownload
from scrapy.http import Headers, Response
from scrapy.responsetypes import responsetypes
from twisted.internet import defer, error
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed, ResponseNeverReceived
from twisted.web.iweb import UNKNOWN_LENGTH

logger = logging.getLogger(__name__)

MAX_LINE = 16_384  # bytes of one line of a head: Twisted's limit
MAX_HEAD = 131_072  # bytes of all of them together
MAX_CHUNK_LINE = 1_024  # bytes: Twisted's limit
MAX_TRAILERS = 65_536  # bytes: Twisted's limit

_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"([^ /]+/\d+\.\d+) (\d{3})(?: .*)?", re.DOTALL)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")  # no control character
# Headers of the connection, not of the answer: Scrapy's own handler does not show them.
_OF_CONNECTION = frozenset(
    (b"Content-Length", b"Connection", b"Keep-Alive", b"Te", b"Trailers", b"Transfer-Encoding", b"Upgrade",
     b"Proxy-Connection")
)  # fmt: skip
_WITHOUT_BODY = (204, 304)
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def _named(name: str, before: type[Exception]) -> type[Exception]:
    """The exception *name* of Scrapy, or that of Twisted *before* Scrapy had its own (2.15)."""
    found: type[Exception] = getattr(exceptions, name, before)
    return found


Timeout = _named("DownloadTimeoutError", error.TimeoutError)
Refused = _named("DownloadConnectionRefusedError", error.ConnectionRefusedError)
UnknownHost = _named("CannotResolveHostError", error.DNSLookupError)
Cancelled = _named("DownloadCancelledError", defer.CancelledError)
Failed = _named("DownloadFailedError", ResponseFailed)
NeverReceived = _named("DownloadFailedError", ResponseNeverReceived)
DataLoss = _named("ResponseDataLossError", ResponseFailed)


def failed(kind: type[Exception], message: str) -> Exception:
    """An exception of *kind* with *message*, as text or as the list of reasons that Twisted's want."""
    if issubclass(kind, ResponseFailed):
        return kind([Failure(ParseError(message))])  # type: ignore[no-untyped-call]
    return kind(message)


class Origin(NamedTuple):
    """Where a connection leads, and from which local address: connections are kept apart by this."""

    scheme: str
    host: str
    port: int
    local: tuple[str, int] | None


@dataclass(kw_only=True, eq=False, slots=True)
class Exchange:
    """One request, as *sent* in bytes, and what becomes of it: *answer*.

    *again*: it may be sent once more, on a new connection, if a kept one turns out to be closed. *begun*: by the
    monotonic clock, in seconds. Sizes are in bytes, 0 is no limit."""

    request: Request
    url: str
    origin: Origin
    sent: bytes
    again: bool
    begun: float
    max_size: int
    warn_size: int
    fail_on_data_loss: bool
    answer: asyncio.Future[Response]
    connection: Connection | None = None
    connecting: asyncio.Task[None] | None = None

    def fail(self, reason: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(reason)


class ParseError(Exception):
    """What has come is not HTTP/1.1."""


class Sized:
    """A body of *left* bytes."""

    partial = False
    broken: ParseError | None = None

    def __init__(self, left: int) -> None:
        self.left = left
        self.done = not left

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The part of *data* that is of the body, and what follows it."""
        body, rest = data[: self.left], data[self.left :]
        self.left -= len(body)
        self.done = not self.left
        return body, rest


class UntilClose:
    """A body that ends with the connection: nobody can tell whether that was all."""

    partial = True
    done = False
    broken: ParseError | None = None

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """All of *data*, and nothing."""
        return data, b""


class Chunked:
    """A body in chunks, each with its length before it. *broken*: what came after the last good one is no chunk."""

    partial = False

    def __init__(self) -> None:
        self.done = False
        self.broken: ParseError | None = None
        self._pending = b""
        self._left = 0  # bytes of the chunk that is under way, its line end included
        self._in_trailers = False
        self._trailers = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The bytes of the body in *data*, and what follows it."""
        data, pieces = self._pending + data, list[bytes]()
        try:
            position = self._read(data, pieces)
        except ParseError as problem:
            self.broken = problem
            return b"".join(pieces), b""
        rest = data[position:]
        self._pending = b"" if self.done else rest
        return b"".join(pieces), rest if self.done else b""

    def _read(self, data: bytes, pieces: list[bytes]) -> int:
        """Add what is of the body to *pieces*; returns the position of what is not read yet."""
        position = 0
        while not self.done and position < len(data):
            if self._left:
                position += self._take(data[position : position + self._left], pieces)
                continue
            end = data.find(b"\r\n", position)
            if end < 0:
                if len(data) - position > (MAX_TRAILERS if self._in_trailers else MAX_CHUNK_LINE):
                    raise ParseError("a line between chunks is too long")
                break
            self._line(data[position:end])
            position = end + 2
        return position

    def _take(self, piece: bytes, pieces: list[bytes]) -> int:
        """*piece* is of the chunk that is under way, or of the new line after it."""
        inside = max(0, self._left - 2)
        pieces.append(piece[:inside])
        if not b"\r\n"[2 - min(2, self._left) :].startswith(piece[inside:]):
            raise ParseError("a chunk does not end with a new line")
        self._left -= len(piece)
        return len(piece)

    def _line(self, line: bytes) -> None:
        if self._in_trailers:
            self._trailers += len(line)
            if self._trailers > MAX_TRAILERS:
                raise ParseError(f"more than {MAX_TRAILERS} bytes after the last chunk")
            self.done = not line
            return
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None or len(line) > MAX_CHUNK_LINE:
            raise ParseError(f"found {line[:60]!r}, expected the length of a chunk")
        length = int(size[1], 16)
        self._in_trailers = not length
        self._left = length + 2 if length else 0


@dataclass(kw_only=True, eq=False, slots=True)
class Head:
    """The head of an answer. *length* of its body in bytes, if that is known; *kept*: the connection may go on."""

    status: int
    protocol: str
    headers: Headers
    length: int | None
    body: Sized | UntilClose | Chunked
    kept: bool
    pieces: list[bytes] = field(default_factory=list)
    received: int = 0
    warned: bool = False


def parse_head(text: bytes, method: str) -> Head | None:
    """The head *text* of an answer to *method*; ``None`` for an interim one (1xx). Raises ``ParseError``."""
    line, *lines = text.split(b"\n")
    first, fields = _first(line), _fields(lines)
    return None if first[2].startswith(b"1") else _head(first, fields, method)


def check_lines(text: bytes, *, at_start: bool) -> None:
    """Look at some lines of a head that is not complete. Raises ``ParseError`` for one that no head can have."""
    lines = text.split(b"\n")
    if at_start:
        _first(lines.pop(0))
    _fields(lines)


def _first(line: bytes) -> re.Match[bytes]:
    first = _STATUS.fullmatch(line.removesuffix(b"\r"))
    if first is None:
        raise ParseError(f"found {line[:60]!r}, expected an HTTP version and a status")
    return first


def _fields(lines: Sequence[bytes]) -> dict[bytes, list[bytes]]:
    """The values of each header."""
    fields: dict[bytes, list[bytes]] = {}
    previous: list[bytes] | None = None
    for line in lines:
        if len(line) > MAX_LINE:
            raise ParseError(f"a header of {len(line)} bytes, expected at most {MAX_LINE}")
        if line[:1] in (b" ", b"\t"):  # goes on with the line before
            if previous:
                previous[-1] = (previous[-1] + _value(line)).strip()
            continue
        name, colon, value = line.partition(b":")
        if not colon:  # some servers send such lines, and browsers skip them
            previous = None
            continue
        previous = fields.setdefault(_name(name), [])
        previous.append(_value(value).strip())
    return fields


@lru_cache(maxsize=1024)
def _name(name: bytes) -> bytes:
    """*name* as Scrapy writes it."""
    if not _TOKEN.fullmatch(name):
        raise ParseError(f"found {name[:60]!r}, expected the name of a header")
    return name.title()


def _value(value: bytes) -> bytes:
    """*value* of a header without new lines."""
    value = value.removesuffix(b"\r")
    return b" ".join(value.splitlines()) if b"\r" in value else value


def _head(first: re.Match[bytes], fields: dict[bytes, list[bytes]], method: str) -> Head:
    status, encoding = int(first[2]), fields.get(b"Transfer-Encoding")
    # Without a body, or beside chunks, a length says nothing, so it need not make sense.
    length: int | None = None
    kept = first[1] == b"HTTP/1.1" and b"close" not in b",".join(fields.get(b"Connection", ())).lower()
    body: Sized | UntilClose | Chunked
    if method == "HEAD" or status in _WITHOUT_BODY:
        length, body = 0, Sized(0)
    elif encoding is not None:
        if {one.strip().lower() for one in encoding} != {b"chunked"}:
            raise ParseError(f"found the transfer encoding {encoding!r:.60}, expected chunked")
        # Both at once, or twice: the next answer may begin anywhere.
        kept = kept and b"Content-Length" not in fields and len(encoding) == 1
        body = Chunked()
    elif (length := _length(fields)) is None:
        body, kept = UntilClose(), False
    else:
        body = Sized(length)
    headers = Headers()
    if length is not None:
        dict.__setitem__(headers, b"Content-Length", [b"%d" % length])
    for name, values in fields.items():
        if name not in _OF_CONNECTION or (method == "HEAD" and name == b"Content-Length"):  # it is of the page then
            dict.__setitem__(headers, name, values)
    return Head(
        status=status, protocol=first[1].decode("latin-1"), headers=headers, length=length, body=body, kept=kept
    )


def _length(fields: dict[bytes, list[bytes]]) -> int | None:
    found = fields.get(b"Content-Length")
    if found is None:
        return None
    values = [part.strip() for value in found for part in value.split(b",")]
    lengths = {int(value) for value in values if _LENGTH.fullmatch(value)}
    if len(lengths) != 1 or not all(map(_LENGTH.fullmatch, values)):
        raise ParseError(f"found the content length {found!r:.60}, expected one number")
    return lengths.pop()


class Connection(asyncio.Protocol):
    """Takes one ``Exchange`` after the other. *released* is told when it may take the next one, *lost* when an exchange
    that may be sent again has met a connection that was closed."""

    def __init__(
        self, crawler: Crawler, origin: Origin, *, released: Callable[[Connection], None],
        lost: Callable[[Exchange], None],
    ) -> None:  # fmt: skip
        self.origin = origin
        self.idle_since = 0.0  # loop time
        self._crawler = crawler
        self._released = released
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._address: IPv4Address | IPv6Address | None = None
        self._certificate: Any = None
        self._exchange: Exchange | None = None
        self._used = False  # an answer has come over it before
        self._received = bytearray()  # of a head that is not complete
        self._anything = False  # of the answer
        self._head: Head | None = None

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _quiet(self) -> bool:
        """Whether all that was to be sent has been: a server may answer before it has read the request."""
        return self._transport is not None and self.usable and not self._transport.get_write_buffer_size()

    def send(self, exchange: Exchange) -> None:
        assert self._transport is not None
        self._exchange = exchange
        exchange.connection = self
        self._received, self._anything, self._head = bytearray(), False, None
        self._transport.write(exchange.sent)

    def close(self) -> None:
        """Drop the line and whatever is under way."""
        self._exchange = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")  # none if it is gone already
        self._address = ip_address(peer[0].partition("%")[0]) if peer else None
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and (certificate := tls.getpeercert(binary_form=True)) is not None:
            self._certificate = _certificate(certificate)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:  # nobody has asked
            self.close()
            return
        self._anything = True
        try:
            if self._head is None:
                data = self._read_head(exchange, data)
            if self._head is not None and self._exchange is exchange:
                self._read_body(exchange, self._head, data)
        except ParseError as problem:
            self._broken(exchange, problem)
        except Exception as problem:  # in a signal handler, say: the request must end
            exchange.fail(problem)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        exchange, self._exchange = self._exchange, None
        if exchange is None or exchange.answer.done():
            return
        if self._head is not None:
            if self._head.body.partial:
                self._respond(exchange, self._head, ["partial"])
            else:
                self._data_loss(exchange, self._head, str(exc or "the connection was closed"))
        elif self._anything:
            exchange.fail(failed(Failed, f"The connection was closed in the head of the answer: {exc or 'no error'}"))
        elif self._used and exchange.again:
            self._lost(exchange)
        else:
            exchange.fail(failed(NeverReceived, f"The connection was closed without an answer: {exc or 'no error'}"))

    # The answer

    def _read_head(self, exchange: Exchange, data: bytes) -> bytes:
        """Take the head from *data*, if it is complete; returns what follows."""
        text: bytes | bytearray = data
        seen = len(self._received)  # what was searched is not searched again
        if seen:
            self._received += data
            text = self._received
        head = None
        while head is None and (end := _END_OF_HEAD.search(text, max(0, seen - 3))) is not None:
            head = parse_head(bytes(text[: end.start()]), exchange.request.method)
            seen, text = 0, bytes(text[end.end() :])
        if head is None:
            self._keep(text, seen)
            return b""
        self._head = head
        request = exchange.request
        request.meta["download_latency"] = monotonic() - exchange.begun
        length = UNKNOWN_LENGTH if head.length is None else head.length
        if stop := self._stopped(signals.headers_received, exchange, headers=head.headers, body_length=length):
            self._respond(exchange, head, stop=stop)
            return b""
        size = head.length or 0
        if exchange.max_size and size > exchange.max_size:
            self._too_large(exchange, f"Expected to receive {size}")
            return b""
        self._warn(exchange, head, size, "Expected to receive")
        return bytes(text)

    def _keep(self, text: bytes | bytearray, seen: int) -> None:
        """Keep the beginning of a head, of which *seen* bytes were there before: its end may never come, so what can't
        become one is refused as soon as a line tells. Raises ``ParseError``."""
        end = text.rfind(b"\n")
        if end >= seen:
            begin = text.rfind(b"\n", 0, seen) + 1
            check_lines(bytes(text[begin:end]), at_start=not begin)
        if len(text) > MAX_HEAD or len(text) - end > MAX_LINE:
            raise ParseError(f"the head is longer than {MAX_HEAD} bytes, or a line of it than {MAX_LINE}")
        if text is not self._received:
            self._received = bytearray(text)

    def _read_body(self, exchange: Exchange, head: Head, data: bytes) -> None:
        body, rest = head.body.feed(data)
        if body:
            head.pieces.append(body)
            head.received += len(body)
            if stop := self._stopped(signals.bytes_received, exchange, data=body):
                self._respond(exchange, head, stop=stop)
                return
            if exchange.max_size and head.received > exchange.max_size:
                self._too_large(exchange, f"Received {head.received}")
                return
            self._warn(exchange, head, head.received, "Received")
        if head.body.broken is not None:
            raise head.body.broken
        if head.body.done:
            head.kept = head.kept and not rest
            self._respond(exchange, head)

    def _respond(
        self,
        exchange: Exchange,
        head: Head,
        flags: list[str] | None = None,
        stop: StopDownload | None = None,
    ) -> None:
        """The exchange is over: let go of the connection, and give the answer."""
        self._exchange = exchange.connection = None
        if head.kept and stop is None and self._quiet():
            self._used = True
            self._released(self)
        else:
            self.close()
        if stop is not None:
            flags = ["download_stopped"]
        if exchange.answer.done():
            return
        body = head.pieces[0] if len(head.pieces) == 1 else b"".join(head.pieces)
        kind = responsetypes.from_args(headers=head.headers, url=exchange.url, body=body)
        response = kind(
            url=exchange.url, status=head.status, body=body, flags=flags, certificate=self._certificate,
            ip_address=self._address, protocol=head.protocol,
        )  # fmt: skip
        response.headers = head.headers
        if stop is not None and stop.fail:
            stop.response = response
            exchange.fail(stop)
        else:
            exchange.answer.set_result(response)

    def _broken(self, exchange: Exchange, problem: ParseError) -> None:
        """What has come can't be read on."""
        head = self._head
        self.close()
        if head is not None:
            self._data_loss(exchange, head, str(problem))
        else:
            exchange.fail(failed(Failed, f"Not an answer of HTTP/1.1: {problem}"))

    def _data_loss(self, exchange: Exchange, head: Head, problem: str) -> None:
        head.kept = False
        if exchange.fail_on_data_loss:
            exchange.fail(failed(DataLoss, f"Only a part of the answer has come: {problem}"))
        else:
            self._respond(exchange, head, ["dataloss"])

    def _too_large(self, exchange: Exchange, what: str) -> None:
        message = (
            f"{what} bytes which is larger than download max size ({exchange.max_size}) in request {exchange.request}."
        )
        logger.warning("%s", message)
        exchange.fail(failed(Cancelled, message))
        self.close()

    def _warn(self, exchange: Exchange, head: Head, size: int, what: str) -> None:
        if exchange.warn_size and size > exchange.warn_size and not head.warned:
            head.warned = True
            logger.warning(
                "%s %d bytes which is larger than download warn size (%d) in request %s.",
                what, size, exchange.warn_size, exchange.request,
            )  # fmt: skip

    def _stopped(self, signal: object, exchange: Exchange, **named: Any) -> StopDownload | None:
        """The ``StopDownload`` of a receiver of *signal*, if one raised it."""
        results = self._crawler.signals.send_catch_log(
            signal=signal, request=exchange.request, spider=self._crawler.spider, **named
        )
        for handler, result in results:
            if isinstance(result, Failure) and isinstance(result.value, StopDownload):
                name = handler.__qualname__
                logger.debug("Download stopped for %s from signal handler %s", exchange.request, name)
                return result.value
        return None


def _certificate(der: bytes) -> Any:
    from twisted.internet.ssl import Certificate  # only here: its import takes long, and many crawls need none

    with suppress(Exception):  # one that OpenSSL can't read is no reason to lose the page
        return Certificate.load(der)
    return None

"""One keep-alive HTTP/1.1 connection: a request goes out, its answer is parsed as it comes in.

Answers are read as Scrapy's own handler (Twisted's client) reads them: the same statuses, headers, bodies, flags and
exceptions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from time import monotonic
from typing import Any, NamedTuple, cast

from scrapy import Request, exceptions, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import StopDownload
from scrapy.http import Response
from scrapy.responsetypes import responsetypes
from twisted.internet import defer, error
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed, ResponseNeverReceived
from twisted.web.iweb import UNKNOWN_LENGTH

from scrapy_distributed.fast.http_answer import (
    END_OF_HEAD,
    MAX_HEAD,
    MAX_LINE,
    Head,
    ParseError,
    check_lines,
    parse_head,
)

logger = logging.getLogger(__name__)


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


class Connection(asyncio.Protocol):
    """Takes one ``Exchange`` after the other. *released* is told when it may take the next one, *lost* when an exchange
    that may be sent again has met a connection that was closed."""

    def __init__(
        self,
        crawler: Crawler,
        origin: Origin,
        *,
        released: Callable[[Connection], None],
        lost: Callable[[Exchange], None],
    ) -> None:
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
        while head is None and (end := END_OF_HEAD.search(text, max(0, seen - 3))) is not None:
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
            url=exchange.url,
            status=head.status,
            body=body,
            flags=flags,
            certificate=self._certificate,
            ip_address=self._address,
            protocol=head.protocol,
        )
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
                what,
                size,
                exchange.warn_size,
                exchange.request,
            )

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

"""The worker: a batch becomes the start of the crawl, and each request's outcome is noted.

A start request is followed through everything that it leads to by a *ticket* in its meta: redirects and retries keep
it, each request that a page yields gets one of its own that names the same start request. A ticket ends when the
callback (or errback) of its request has run to its end, or when the request is dropped on the way.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from inspect import isasyncgen, isawaitable
from pathlib import Path
from types import MethodType
from typing import Any

from scrapy import Request, Spider, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import CloseSpider
from scrapy.extensions.feedexport import FeedExporter
from scrapy.http import Response
from scrapy.spidermiddlewares.base import BaseSpiderMiddleware
from scrapy.spidermiddlewares.httperror import HttpError
from scrapy.utils.asyncio import create_looping_call
from scrapy.utils.spider import iterate_spider_output
from twisted.python.failure import Failure

from scrapy_distributed import receipt, wire
from scrapy_distributed.config import Config
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.offsite import Offsite
from scrapy_distributed.outcomes import Outcomes, reason_of
from scrapy_distributed.receipt import Receipt

logger = logging.getLogger(__name__)

TICKET = "distributed_ticket"  # meta: (position of the start request, serial number of the ticket)
ERRBACK = "distributed_errback"  # meta: the request's own errback, by name where it is a method of the spider


class Worker(BaseSpiderMiddleware):
    """Spider middleware of a worker. Refuses to start (``ValueError``) if the batch can't be decoded or the feed that
    was asked for can't be written."""

    def __init__(
        self, crawler: Crawler, *, requests: list[Request], receipt_file: Path | None, interval: float
    ) -> None:
        super().__init__(crawler)
        self.spider: Any = crawler.spider
        self.requests = requests
        self.outcomes = Outcomes(len(requests))
        self.receipt_file = receipt_file
        self.interval = interval
        self.offsite = Offsite(crawler)
        self.sequence = 0
        self.items = 0
        self.feeds: list[str] = []
        self.exporter = next((e for e in _extensions(crawler) if isinstance(e, FeedExporter)), None)
        self.unexported: Counter[str] = Counter()  # items that a feed should have and has not yet, by its URI template
        self.exported: Counter[str] = Counter()
        self.finish_reason: str | None = None
        self.feeds_closed = self.exporter is None
        self._heartbeat = create_looping_call(self._write_receipt)
        self._in_chain: set[int] = set()  # serials whose output runs through the spider middlewares just now

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Worker:
        config = Config.from_settings(crawler.settings)
        spider = crawler.spider
        assert spider is not None
        rule = config.target_rule[0] if config.target_rule and hasattr(spider, "rules") else None  # of a bare URL
        callback = config.target_callbacks[0] if config.target_callbacks else None
        requests = wire.decode_requests(config.start_url, spider, rule=rule, callback=callback)
        _check_feeds(crawler)
        _check_stats(crawler, len(requests))
        log_file, job = crawler.settings.get("LOG_FILE"), getattr(spider, "_job", None)
        file = receipt.receipt_path(log_file, job) if log_file and job else None
        worker = cls(crawler, requests=requests, receipt_file=file, interval=config.receipt_interval)
        spider._distributed_errback = MethodType(worker._errback, spider)  # type: ignore[attr-defined]
        connect = crawler.signals.connect
        connect(worker._spider_opened, signals.spider_opened)
        connect(worker._request_scheduled, signals.request_scheduled)
        connect(worker._request_dropped, signals.request_dropped)
        connect(worker._item_scraped, signals.item_scraped)
        connect(worker._item_error, signals.item_error)
        connect(worker._feed_closed, signals.feed_slot_closed)
        connect(worker._feeds_closed, signals.feed_exporter_closed)
        connect(worker._spider_closed, signals.spider_closed)
        return worker

    # The journey of a request

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        if isasyncgen(start):
            await start.aclose()  # the spider's own start has no part in this
        logger.info(
            "Worker of batch %(batch)s: %(count)d requests",
            {"batch": getattr(self.spider, "batch", "(by hand)"), "count": len(self.requests)},
            extra={"spider": self.spider},
        )
        for position, request in enumerate(self.requests):
            request.meta[TICKET] = self.outcomes.start(position)
            yield self._with_errback(request)

    def process_spider_output(
        self, response: Response | None, result: Iterable[Any], spider: Spider | None = None
    ) -> Iterable[Any]:
        ticket = _ticket(response)
        if ticket is None:
            yield from result
            return
        self._in_chain.add(ticket[1])
        try:
            for output in result:
                yield self._passed(output, ticket)
            self.outcomes.end(ticket)
        finally:
            self._in_chain.discard(ticket[1])

    async def process_spider_output_async(
        self, response: Response | None, result: AsyncIterator[Any], spider: Spider | None = None
    ) -> AsyncIterator[Any]:
        ticket = _ticket(response)
        if ticket is None:
            async for output in result:
                yield output
            return
        self._in_chain.add(ticket[1])
        try:
            async for output in result:
                yield self._passed(output, ticket)
            self.outcomes.end(ticket)
        finally:
            self._in_chain.discard(ticket[1])

    def process_spider_exception(self, response: Response, exception: Exception) -> None:
        ticket = _ticket(response)
        if ticket is not None:
            if not isinstance(exception, CloseSpider):  # asked for by the spider: its page is done
                kind = reason_of(exception) if isinstance(exception, HttpError) else None
                self.outcomes.note(ticket, *(kind or ("failed", f"callback {type(exception).__name__}")))
            self.outcomes.end(ticket)

    def _passed(self, output: Any, ticket: tuple[int, int]) -> Any:
        """A request or an item on its way out of the page with *ticket*."""
        if isinstance(output, Request):
            output.meta[TICKET] = self.outcomes.follow(ticket[0])
            return self._with_errback(output)
        if output is not None:
            self.outcomes.item(ticket[0])
        return output

    # Failures: Scrapy tells them to the errback alone

    def _with_errback(self, request: Request) -> Request:
        own = request.errback
        ours = self.spider._distributed_errback
        if own != ours:  # it is ours already where a spider yields a copy of response.request
            request.meta.pop(ERRBACK, None)
            if own is not None:
                name = getattr(own, "__name__", "")
                request.meta[ERRBACK] = name if getattr(self.spider, name, None) == own else own
            request.errback = ours
        return request

    def _errback(self, spider: Spider, failure: Failure) -> Any:
        """Note the failure, and go on as Scrapy would with the request's own errback, or without one."""
        request: Request = failure.request  # type: ignore[attr-defined]
        ticket = _ticket(request)
        own = request.meta.get(ERRBACK)
        if ticket is None:
            return _call(spider, own, failure) if own else failure
        self.outcomes.note(ticket, *reason_of(failure.value))  # type: ignore[arg-type]
        if own is None:
            self.outcomes.end(ticket)
            return failure
        try:
            output = _call(spider, own, failure)
        except Exception:
            self.outcomes.end(ticket)
            raise
        if isinstance(output, Failure) or output is None:
            self.outcomes.end(ticket)
            return output
        if isasyncgen(output) or isawaitable(output):
            return self._errback_output_async(output, ticket)
        return self._errback_output(iterate_spider_output(output), ticket)

    def _errback_output(self, output: Iterable[Any], ticket: tuple[int, int]) -> Iterable[Any]:
        if ticket[1] in self._in_chain:  # a failed input (e.g. HttpError): process_spider_output sees this output
            yield from output
            return
        try:  # a failed download: Scrapy takes this output past the spider middlewares
            for element in output:
                yield self._passed(element, ticket)
        finally:
            self.outcomes.end(ticket)

    async def _errback_output_async(self, output: Any, ticket: tuple[int, int]) -> AsyncIterator[Any]:
        in_chain = ticket[1] in self._in_chain
        try:
            if isawaitable(output):
                output = iterate_spider_output(await output)
            async for element in output if isasyncgen(output) else _aiter(output):
                yield element if in_chain else self._passed(element, ticket)
        finally:
            if not in_chain:
                self.outcomes.end(ticket)

    # Signals

    def _request_scheduled(self, request: Request) -> None:
        ticket = _ticket(request)
        if ticket is not None and self.offsite.filters(request):
            self.outcomes.note(ticket, "filtered", "offsite")
            self.outcomes.end(ticket)

    def _request_dropped(self, request: Request) -> None:
        ticket = _ticket(request)
        if ticket is not None:
            self.outcomes.note(ticket, "filtered", "duplicate")
            self.outcomes.end(ticket)

    def _item_scraped(self, item: Any) -> None:
        self.items += 1
        if self.exporter is not None:
            self.unexported.update(uri for uri, feed in self.exporter.filters.items() if feed.accepts(item))

    def _item_error(self, response: Any, failure: Failure) -> None:
        ticket = _ticket(response)
        if ticket is not None:
            self.outcomes.note(ticket, "failed", f"item {type(failure.value).__name__}")

    def _spider_opened(self) -> None:
        self._heartbeat.start(self.interval, now=True)

    def _feed_closed(self, slot: Any) -> None:
        self.exported[slot.uri_template] += slot.itemcount
        self.unexported[slot.uri_template] -= slot.itemcount
        self.feeds.append(receipt.without_password(slot.uri))

    def _feeds_closed(self) -> None:
        self.feeds_closed = True
        self._finish()

    def _spider_closed(self, reason: str) -> None:
        self.finish_reason = reason
        if reason == "finished":
            self.outcomes.lose_open()
        self._finish()

    # The receipt

    def _finish(self) -> None:
        """The final receipt: after the feeds have been stored, or have failed, and never before."""
        if self.finish_reason is None or not self.feeds_closed:
            return
        if self._heartbeat.running:
            self._heartbeat.stop()
        for reason, count in self.outcomes.followed.items():
            self.crawler.stats.set_value(f"distributed/followed/{reason}", count)
        self._write_receipt(final=True)

    def _write_receipt(self, *, final: bool = False) -> None:
        if self.receipt_file is None:
            return
        try:
            receipt.write(self.receipt_file, self._receipt(final=final))
        except OSError as error:
            log = logger.error if final else logger.warning
            log("Can't write the receipt %s: %s", self.receipt_file, error, extra={"spider": self.spider})

    def _receipt(self, *, final: bool) -> Receipt:
        self.sequence += 1
        stats = self.crawler.stats.get_stats()
        failed = any(key.startswith("feedexport/failed_count/") for key in stats)
        # Scrapy counts no failure where a feed could not even be opened: no item of it is in any file then.
        unopened = any(count > 0 and not self.exported[uri] for uri, count in self.unexported.items())
        outcomes = self.outcomes
        return Receipt(
            job=self.spider._job,
            sequence=self.sequence, final=final, size=outcomes.size, settled=outcomes.settled,
            failed=outcomes.by_reason("failed"), filtered=outcomes.by_reason("filtered"),
            items=self.items, pages=stats.get("response_received_count", 0), clean=outcomes.clean,
            stored=final and not failed and not unopened, feeds=tuple(self.feeds),
            unexported=sum(self.unexported.values()) if final else 0, finish_reason=self.finish_reason or "",
            stats=receipt.numbers(stats) if final else {},
        )  # fmt: skip


def _ticket(source: Any) -> tuple[int, int] | None:
    """The ticket of a response, a request, or a failure that names its request."""
    request = source if isinstance(source, Request) else getattr(source, "request", None)
    ticket = None if request is None else request.meta.get(TICKET)
    return None if ticket is None else (ticket[0], ticket[1])


def _call(spider: Spider, errback: Any, failure: Failure) -> Any:
    return (getattr(spider, errback) if isinstance(errback, str) else errback)(failure)


async def _aiter(output: Iterable[Any]) -> AsyncIterator[Any]:
    for element in output:
        yield element


def _extensions(crawler: Crawler) -> Iterable[Any]:
    return crawler.extensions.middlewares if crawler.extensions is not None else ()


def _check_stats(crawler: Crawler, requests: int) -> None:
    """Only the stats tell that a feed could not be stored."""
    assert crawler.stats is not None
    crawler.stats.set_value("distributed/requests", requests)
    if crawler.stats.get_value("distributed/requests") is None:
        raise ConfigError(
            "STATS_CLASS: found one that keeps nothing, and only the stats tell whether a feed was stored"
        )


def _check_feeds(crawler: Crawler) -> None:
    """A feed with a bad scheme or format is disabled by Scrapy with a line in the log, and its items would be lost."""
    asked = crawler.settings.get("FEED_URI") or crawler.settings.getdict("FEEDS")
    if asked and not any(isinstance(extension, FeedExporter) for extension in _extensions(crawler)):
        where = [asked] if isinstance(asked, str) else list(map(str, asked))
        shown = ", ".join(map(receipt.without_password, where))
        raise ConfigError(
            f"FEED_URI/FEEDS: Scrapy has disabled the feed {shown}, its reason is in this log; expected a scheme and a"
            " format that Scrapy has on this node (FEED_STORAGES, FEED_EXPORTERS). The items would be lost"
        )

"""The worker: a batch becomes the start of the crawl, and each request's outcome is noted.

A start request is followed through everything that it leads to by a *ticket* in its meta: redirects and retries keep
it, each request that a page yields gets one of its own that names the same start request. A ticket ends when the
callback (or errback) of its request has run to its end, or when the request is dropped on the way. A target that a page
yields gets none: it is the coordinator's.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from inspect import isasyncgen
from pathlib import Path
from typing import Any

from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import CloseSpider
from scrapy.http import Response
from scrapy.spidermiddlewares.httperror import HttpError
from scrapy.utils.defer import deferred_from_coro
from twisted.python.failure import Failure

from scrapy_distributed.config.config import Config
from scrapy_distributed.divert.diverter import is_crawl_spider
from scrapy_distributed.divert.duplicates import are_filtered
from scrapy_distributed.divert.fingerprint import fingerprinter_of
from scrapy_distributed.divert.jars import Jars
from scrapy_distributed.divert.offsite import Offsite
from scrapy_distributed.errors import ConfigError, NotSerializableError
from scrapy_distributed.feeds.feeds import Feeds
from scrapy_distributed.feeds.place import PROBE_BATCH
from scrapy_distributed.guard.guard import own_is_open
from scrapy_distributed.items.lines import MAX_PAGE
from scrapy_distributed.wire.hold import hold, lock_path
from scrapy_distributed.wire.job import check_job_id
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.wire.payload import decode_batch
from scrapy_distributed.wire.reasons import DUPLICATE, reason_of
from scrapy_distributed.wire.receipt_file import receipt_path
from scrapy_distributed.wire.request import IS_START, decode_requests
from scrapy_distributed.wire.ticket import Ticket, ticket_of
from scrapy_distributed.words import counted
from scrapy_distributed.worker.errbacks import Errbacks
from scrapy_distributed.worker.example import example_of
from scrapy_distributed.worker.first_delay import FirstDelay
from scrapy_distributed.worker.items_file import ItemsFileWriter
from scrapy_distributed.worker.its_node import ItsNode, of_its_node
from scrapy_distributed.worker.outcomes import Outcomes
from scrapy_distributed.worker.parent import Parent
from scrapy_distributed.worker.reporter import Reporter
from scrapy_distributed.worker.sessions import Sessions
from scrapy_distributed.worker.strays import Strays
from scrapy_distributed.worker.targets import Targets

logger = logging.getLogger(__name__)

OF_SCRAPY = ("finished", "shutdown", "memusage_exceeded", "start_error")  # reasons that are not a spider's own


class Worker:
    """Spider middleware of a worker. Refuses to start (``ValueError``) if the batch can't be decoded, Scrapy does not
    know the feed that was asked for, or another worker has the same job; ends before its first request if that feed
    can't be written."""

    def __init__(
        self, crawler: Crawler, *, requests: list[Request], sessions: Sessions, feeds: Feeds,
        receipt_file: Path | None, config: Config,
    ) -> None:  # fmt: skip
        self.crawler = crawler
        self.spider: Any = crawler.spider
        self.requests = requests
        self.sessions = sessions
        self.outcomes = Outcomes(len(requests), follow_up_fails=config.failed_follow_ups == "fail")
        self.feeds = feeds
        self.strays = Strays(crawler, self.outcomes, self._passed)
        self.errbacks = Errbacks(crawler, outcomes=self.outcomes, passed=self._passed, parsing=self.strays.parsing)
        self.tickets = self.errbacks.tickets
        self.offsite = Offsite(crawler)
        self.fingerprint = fingerprinter_of(crawler)
        self.targets: Targets | None = None  # a batch that is tried by hand has nobody to report to
        if config.worker_targets == "report" and receipt_file is not None:
            self.targets = Targets(crawler, config=config, own=requests, offsite=self.offsite, sessions=sessions)
        # A batch that is tried by hand shows its items, and what else has no receipt has nobody who fetches them.
        self.items_home = config.items == "home" and receipt_file is not None
        self.reporter = Reporter(
            crawler, file=receipt_file, interval=config.receipt_interval, outcomes=self.outcomes, feeds=feeds,
            targets=self.targets, its_node=ItsNode() if config.parent else of_its_node(type(self.spider)),
            with_items=self.items_home, done_jobs=config.done_jobs,
        )  # fmt: skip
        self.parent: Parent | None = None  # on a Scrapyd, which asks for no such thing
        self.first_delay: FirstDelay | None = None  # of a batch that is tried by hand
        self.filters = are_filtered(crawler.settings)
        self._unfiltered: set[int] = set()  # serials of requests that no dupe filter looks at
        self._told = False  # that an item can't come home
        self._ending = False

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Worker:
        config = Config.from_settings(crawler.settings)
        spider = crawler.spider
        assert spider is not None
        rule = config.target_rule[0] if config.target_rule and is_crawl_spider(spider) else None  # of a bare URL
        callback = config.target_callbacks[0] if config.target_callbacks else None
        elements, found = decode_batch(config.start_url)
        requests = decode_requests(elements, spider, rule=rule, callback=callback)
        feeds = Feeds(crawler)
        feeds.check(crawler)
        _check_stats(crawler, len(requests))
        log_file, job = crawler.settings.get("LOG_FILE"), getattr(spider, "_job", None)
        file = receipt_path(log_file, job) if log_file and job else None
        for done in config.done_jobs:
            check_job_id(done)  # a file is removed by its name
        sessions = Sessions(elements, found)
        worker = cls(crawler, requests=requests, sessions=sessions, feeds=feeds, receipt_file=file, config=config)
        if config.parent and file is not None:
            worker.parent = Parent(crawler, config.parent)
            hold(file)  # from here on it is seen to live
            try:
                worker.parent.check()
            except ConfigError:
                lock_path(file).unlink(missing_ok=True)  # whoever would ask for it may have gone, too
                raise
        if file is not None:
            worker.first_delay = FirstDelay(crawler, config.slot_free_since)
        worker.reporter.claim()  # before the first signal: a second worker must touch neither receipt nor feed
        connect = crawler.signals.connect
        connect(worker._spider_opened, signals.spider_opened)
        connect(worker._request_scheduled, signals.request_scheduled)
        connect(worker._spider_idle, signals.spider_idle)
        connect(worker._request_dropped, signals.request_dropped)
        connect(worker._request_reached_downloader, signals.request_reached_downloader)
        connect(worker._item_scraped, signals.item_scraped)
        connect(worker._item_error, signals.item_error)
        connect(feeds.file_closed, signals.feed_slot_closed)
        connect(worker.reporter.feeds_closed, signals.feed_exporter_closed)
        connect(worker._spider_closed, signals.spider_closed)
        return worker

    # The journey of a request

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        if isasyncgen(start):
            await start.aclose()  # the spider's own start has no part in this
        if not await self._feeds_can_be_written():
            return
        logger.info(
            "Worker of batch %(batch)s: %(requests)s",
            {"batch": getattr(self.spider, "batch", "(by hand)"), "requests": counted(len(self.requests), "request")},
            extra=self._extra,
        )
        self.sessions.put(Jars(self.crawler))
        for position, request in enumerate(self.requests):
            if request.dont_filter or not self.filters:
                self._unfiltered.add(position)
            request.meta.setdefault(IS_START, False)  # else Scrapy says that it is one
            yield self.tickets.put(self.tickets.without(request), self.outcomes.start(position))

    async def _feeds_can_be_written(self) -> bool:
        """If not, this job ends before its first request, and its receipt says that nothing is stored."""
        thorough = not self.requests and getattr(self.spider, "batch", None) == PROBE_BATCH
        try:
            trials = await self.feeds.try_places(f"probe-{getattr(self.spider, '_job', '')}"[:150], thorough=thorough)
        except ConfigError as error:
            what = (type(error), error, None)  # where it was raised helps nobody
            logger.error(
                "This job ends at its start, as its feed can't be written; no page was fetched, the batch goes out"
                " again", exc_info=what, extra=self._extra,
            )  # fmt: skip
            self._end_early("feed_refused")
            return False
        for scheme, trial in trials if thorough else ():
            self.crawler.stats.inc_value(f"distributed/probe/{trial.value}/{scheme}")
        return True

    def process_spider_input(self, response: Response) -> None:
        ticket = ticket_of(response)
        if ticket is not None:
            if response.meta.get(IS_START) is False:
                del response.meta[IS_START]
            self.strays.parsing(ticket)

    # Twice: see ``scrapy_distributed.middleware``.

    def process_spider_output(self, response: Response | None, result: Iterable[Any]) -> Iterable[Any]:
        ticket = ticket_of(response)
        if ticket is None:
            yield from result
            return
        with self._output(response, ticket):
            for output in result:
                if (passed := self._passed(output, ticket)) is not None:
                    yield passed

    async def process_spider_output_async(
        self, response: Response | None, result: AsyncIterator[Any]
    ) -> AsyncIterator[Any]:
        ticket = ticket_of(response)
        if ticket is None:
            async for output in result:
                yield output
            return
        with self._output(response, ticket):
            async for output in result:
                if (passed := self._passed(output, ticket)) is not None:
                    yield passed

    def process_spider_exception(self, response: Response, exception: Exception) -> None:
        ticket = ticket_of(response)
        if ticket is not None:
            if isinstance(exception, CloseSpider):  # asked for by the spider: its page is done
                self.errbacks.closes_itself()
            elif isinstance(exception, HttpError):
                self.outcomes.note(ticket, *reason_of(exception))
            else:
                self._note_error(ticket, "callback", exception)
            self.outcomes.end(ticket)

    def _note_error(self, ticket: Ticket, of: str, error: BaseException | None) -> None:
        reason = f"{of} {type(error).__name__}"
        is_first = reason not in self.outcomes.examples
        example = example_of(error, type(self.spider).__module__) if error and is_first else ""
        self.outcomes.note(ticket, Outcome.FAILED, reason, example=example)

    @contextmanager
    def _output(self, response: Any, ticket: Ticket) -> Iterator[None]:
        """While the output of *response* runs. If it breaks off, its *ticket* is for those to end who see the error."""
        self.errbacks.in_chain.add(ticket[1])
        self._note_landing(response, ticket)
        try:
            yield
            self.outcomes.end(ticket)
        finally:
            self.errbacks.in_chain.discard(ticket[1])

    def _note_landing(self, response: Any, ticket: Ticket) -> None:
        """A start request that was redirected has come to a page that may be a request of the run by itself: within
        one crawl Scrapy's dupe filter sees to that, over several only the account can tell."""
        if ticket[0] == ticket[1] and not self.items_home and (key := self._page(response.request, ticket)):
            self.outcomes.landed[ticket[0]] = key

    def _page(self, request: Request, ticket: Ticket) -> str:
        """The key that the page of *request* has as a request of its own, in hexadecimal digits; '' where that is the
        start request itself, or where no dupe filter looks at it."""
        if ticket[1] in self._unfiltered or (ticket[0] == ticket[1] and "redirect_urls" not in request.meta):
            return ""
        key = self.fingerprint(request).hex()
        return key if len(key) <= MAX_PAGE else ""  # one of the project's own may have any length

    def _passed(self, output: Any, ticket: Ticket) -> Any:
        """A request or an item on its way out of the page with *ticket*; ``None`` for a target that is reported."""
        if isinstance(output, Request):
            request = self.tickets.without(output)
            if self.targets is not None and self.targets.is_target(request):
                here = self.targets.take(request, ticket[0])
                if here is None:
                    self.outcomes.found(ticket[0])
                    return None
                request = here
            follow_up = self.outcomes.follow(ticket[0])
            if request.dont_filter or not self.filters:
                self._unfiltered.add(follow_up[1])
            return self.tickets.put(request, follow_up)
        if output is not None:
            self.outcomes.item(ticket[0])
        return output

    @property
    def _extra(self) -> dict[str, Any]:
        return {"spider": self.spider}

    # Signals

    def _request_scheduled(self, request: Request) -> None:
        ticket = ticket_of(request)
        if ticket is None:
            self.strays.scheduled(request)
            ticket = ticket_of(request)
        if ticket is not None and self.offsite.filters(request):
            self.outcomes.note(ticket, Outcome.FILTERED, "offsite")
            self.outcomes.end(ticket)

    def _request_dropped(self, request: Request) -> None:
        ticket = ticket_of(request)
        if ticket is not None:
            self.outcomes.note(ticket, Outcome.FILTERED, DUPLICATE)
            self.outcomes.end(ticket)

    def _item_scraped(self, item: Any, response: Any) -> None:
        self.reporter.items += 1
        ticket = ticket_of(response)
        if ticket is not None:  # the item may be that of a middleware that we do not see
            self.outcomes.item(ticket[0])
        if self.reporter.items_file is not None:
            self._take_home(self.reporter.items_file, item, response, ticket)

    def _take_home(self, file: ItemsFileWriter, item: Any, response: Any, ticket: Ticket | None) -> None:
        position, page = (None, "") if ticket is None else (ticket[0], self._page(response.request, ticket))
        try:
            file.add(item, position=position, page=page)
        except NotSerializableError as error:
            reason = f"item can't come home: {error}"
            if position is not None:
                self.outcomes.fail(position, reason)
            if not self._told:
                self._told = True
                logger.error("An %s, of %s; the next ones are only counted", reason, response, extra=self._extra)
        except OSError as error:
            logger.error(
                "This job ends, as the file of its items can't be written: %s; the batch goes out again", error,
                extra=self._extra,
            )  # fmt: skip
            self._end_early("items_refused")
        else:
            if file.full and not self._ending:
                logger.warning("This job ends, as it has more items than can come home at once; the rest of its batch"
                               " goes out again", extra=self._extra)  # fmt: skip
                self._end_early("items_full")

    def _end_early(self, reason: str) -> None:
        self._ending = True
        deferred_from_coro(self.crawler.engine.close_spider_async(reason=reason))

    def _item_error(self, response: Any, failure: Failure) -> None:
        ticket = ticket_of(response)
        if ticket is not None:
            self._note_error(ticket, "item", failure.value)

    def _request_reached_downloader(self) -> None:
        """The first one: from here on a request may kill this worker, and the receipt tells that it was at work."""
        self.crawler.signals.disconnect(self._request_reached_downloader, signals.request_reached_downloader)
        self.reporter.at_work()

    def _spider_opened(self) -> None:
        if not self.requests and own_is_open():  # the doctor's probe, which nobody waits for
            self.crawler.stats.set_value("distributed/open_scrapyd", 1)
        self.reporter.started()

    def _spider_idle(self) -> None:
        if self.strays.idle():
            logger.info("Every request of the batch has an outcome: this job ends, though a handler of spider_idle"
                        " would go on", extra=self._extra)  # fmt: skip
            self._end_early("finished")

    def _spider_closed(self, reason: str) -> None:
        if not (self._ending or reason in OF_SCRAPY or str(reason).startswith("closespider_")):
            self.errbacks.closes_itself()
        if reason == "finished":
            self.outcomes.lose_open()
        elif self.items_home:
            self.outcomes.reopen_duplicates()
        self.reporter.ended(reason)


def _check_stats(crawler: Crawler, requests: int) -> None:
    """Only the stats tell that a feed could not be stored."""
    assert crawler.stats is not None
    crawler.stats.set_value("distributed/requests", requests)
    if crawler.stats.get_value("distributed/requests") is None:
        raise ConfigError(
            "STATS_CLASS: found one that keeps nothing, and only the stats tell whether a feed was stored"
        )

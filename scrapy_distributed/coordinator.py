"""The coordinator: divert what the fleet is to crawl, and keep the crawl open until the run is settled."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from inspect import isasyncgen
from typing import Any

from scrapy import Request, Spider, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import CloseSpider, DontCloseSpider
from scrapy.http import Response
from scrapy.spidermiddlewares.httperror import HttpError
from scrapy.utils.defer import deferred_from_coro, maybe_deferred_to_future
from scrapy.utils.project import data_path
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from scrapy_distributed import fast, wire
from scrapy_distributed.batch import Batcher
from scrapy_distributed.batch_size import FIRST, BatchSize
from scrapy_distributed.config import AUTO, Config, check_feeds, warn_lease, warn_passwords, warn_unknown, warn_wait
from scrapy_distributed.dispatch import Dispatcher
from scrapy_distributed.divert import Diverter, Entry, check_targets
from scrapy_distributed.errors import ConfigError, DistributedError, FleetUnusableError
from scrapy_distributed.finds import MAX_URL
from scrapy_distributed.fingerprint import fingerprinter_of
from scrapy_distributed.fleet import addresses, project_of, targets_from_cfg
from scrapy_distributed.health import Fleet, Member
from scrapy_distributed.identity import file_name, identity_of
from scrapy_distributed.job_template import JobTemplate
from scrapy_distributed.judge import Judge
from scrapy_distributed.ledger import Finds, Ledger
from scrapy_distributed.node import Node
from scrapy_distributed.offsite import Offsite
from scrapy_distributed.preflight import admit, preflight
from scrapy_distributed.receipt import Receipt
from scrapy_distributed.report import report
from scrapy_distributed.walk import Walk
from scrapy_distributed.words import shortened

logger = logging.getLogger(__name__)

UNMEASURED = 2  # jobs that a node may hold and has not started, while no job has told how long it took
BUFFER = 200  # requests of one page, or of the start, that are taken away before they are diverted
TURN = 0.05  # seconds of CPU, after which what a receipt has found leaves the event loop to others


class Coordinator:
    """Spider middleware of a coordinator. Refuses to start (``ValueError``) where a setting is wrong, another
    coordinator holds the ledger, or no node can be used."""

    def __init__(self, crawler: Crawler, *, config: Config, project: str, nodes: list[Node], clock: Any) -> None:
        self.crawler = crawler
        assert crawler.spider is not None
        self.config = config
        self.spider: Spider = crawler.spider
        self.project = project
        self.clock = clock
        self.fleet = Fleet([Member(node=node, fixed_backlog=config.node_backlog) for node in nodes])
        self.ledger = Ledger(config.ledger or data_path(f"distributed/{file_name(self.spider.name)}.sqlite"))
        self.diverter = Diverter(
            config=config, spider=self.spider, stats=crawler.stats, offsite=Offsite(crawler),
            fingerprint=fingerprinter_of(crawler), occurrence=self.ledger.occurrence,
        )  # fmt: skip
        # Where nobody waits for receipts nothing is ever measured.
        self.batch_size = BatchSize(FIRST if config.batch_size == AUTO and not config.wait else config.batch_size)
        self.batcher = Batcher(
            size=self.batch_size.fixed, max_bytes=wire.MAX_JSON_BYTES // 4, max_age=config.batch_max_age
        )
        self.walk = Walk(crawler, patterns=config.retry_failed, clock=clock)
        self.dispatcher: Dispatcher | None = None
        self._taken: list[Request] = []  # of the pages that are being parsed
        self._walked = False
        self._walked_at = 0.0
        self._walk_failed = False
        self._rest_since = 0.0  # since then something waits for a batch of its own
        self._began = clock.seconds()
        self._slots = self._count_slots()  # as of the last tick: a fleet may be too large to count at each page
        self._closing = False
        self._failing: Callable[[], None] | None = None
        self._more_found: Any = None  # the call that is to divert the rest of what workers have found
        self._ticker: LoopingCall = LoopingCall(self._tick)
        self._ticker.clock = clock

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Coordinator:
        settings, spider = crawler.settings, crawler.spider
        assert spider is not None
        warn_unknown(settings)  # first: a refusal may be of what was meant to be set
        config = Config.from_settings(settings)
        warn_lease(config)
        warn_passwords(config)
        warn_wait(config)
        if not settings.getbool("TWISTED_REACTOR_ENABLED", True):
            raise ConfigError(
                "TWISTED_REACTOR_ENABLED: found False, expected True on the coordinator; workers may go without"
            )
        if settings.get("JOBDIR"):
            raise ConfigError(
                "JOBDIR: a coordinator keeps its state in its ledger, and JOBDIR would skip pages that an interrupted"
                " run had seen and not fetched; leave it out (-s JOBDIR= where the project sets it), the same command"
                " resumes the run"
            )
        _check(config, spider)
        targets = targets_from_cfg()
        nodes = [Node(address=address, deadline_seconds=config.timeout)
                 for address in addresses(config.target_hosts, targets=targets)]  # fmt: skip
        from twisted.internet import reactor

        coordinator = cls(crawler, config=config, project=project_of(targets, settings), nodes=nodes, clock=reactor)
        coordinator._job_template(version="")  # what can't travel is refused before a node is asked
        if config.fast_workers:
            logger.info(fast.NOTICE, fast.ADDON, extra=coordinator._extra)
        crawler.signals.connect(coordinator._spider_idle, signals.spider_idle)
        crawler.signals.connect(coordinator._request_scheduled, signals.request_scheduled)
        crawler.signals.connect(coordinator._spider_closed, signals.spider_closed)
        return coordinator

    # The wiring of the sending side

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Preflight, the run, the dispatcher; then the start of the spider, unless its walk is done already. Not before
        Scrapy asks for the first request: only from then on it can be interrupted, or end without a traceback."""
        self.walk.connect()  # before a component asks for a page
        return self._run(start)

    async def _run(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            to_walk = await self._begin()
        except DistributedError as error:
            if isasyncgen(start):
                await start.aclose()
            self._refuse(error)
            return
        except Exception:
            self._close("start_error")
            raise
        async for output in self._start(start, walk=to_walk):
            yield output

    async def _begin(self) -> bool:
        """Returns whether the spider's start is to be walked. Raises ``DistributedError`` where the run can't begin."""
        nodes = [member.node for member in self.fleet.members]
        known: dict[str, Any] = {
            "project": self.project,
            "spider": self.spider.name,
            "feed": bool(self.config.feed_urls),
        }
        checks = preflight(
            nodes, version=self.config.version, clock=self.clock, wait=self.config.fleet_timeout, **known
        )  # fmt: skip
        version, faults = await maybe_deferred_to_future(Deferred.fromCoroutine(checks))
        if self._closing:  # meanwhile
            return False
        to_walk = self._begin_run(version)
        judge = Judge(
            ledger=self.ledger, fleet=self.fleet, config=self.config, spider=self.spider, stats=self._stats,
            read_targets=self._read, accepted=self._accepted,
        )  # fmt: skip
        self.dispatcher = Dispatcher(
            ledger=self.ledger, fleet=self.fleet, judge=judge, job=self._job_template(version=version),
            config=self.config, spider=self.spider, stats=self._stats, clock=self.clock,
            admit=partial(admit, version=version, **known), all_cut=self._all_cut, changed=self._changed,
            stranded=self._stranded, ledger_failed=self._ledger_failed,
        )  # fmt: skip
        for fault in faults.values():
            self.dispatcher.leave_out(fault)
        self._began = self.clock.seconds()
        self.batcher.add(self.ledger.queued(), self._began)
        self.dispatcher.start()  # before a batch is cut: it knows what is under way
        self._divert_found()
        self._cut()
        self._ticker.start(1.0, now=False)
        return to_walk

    def _begin_run(self, version: str) -> bool:
        identity = identity_of(self.spider, self.project, rules=self.diverter.rules, callbacks=self.diverter.callbacks)
        to_walk = self.ledger.begin(identity, resume=self.config.resume, wait=self.config.wait)
        self.walk.lost.update({} if to_walk else self.ledger.losses().own)  # what is walked again counts again
        if others := self.ledger.others():
            logger.warning(
                "Unfinished in the same ledger, of other spider arguments or targets, or of a spider whose attributes"
                " (text or number) have another value: %s. Only the command that began a run takes it up again",
                shortened(", ".join(others)), extra=self._extra,
            )  # fmt: skip
        logger.info(
            "Run %s of project %s on %d nodes, egg version %s%s", self.ledger.run, self.project,
            len(self.fleet.members), version or "(none)", "" if to_walk else "; its walk is done", extra=self._extra,
        )  # fmt: skip
        return to_walk

    def _refuse(self, error: DistributedError) -> None:
        """Close before anything was begun, with the reason alone in the log."""
        logger.error("The crawl does not start: %s", error, extra=self._extra)

        def fail() -> None:
            self.crawler.spider = None  # with an exception, the one thing that makes Scrapy's exit code 1

        self._failing = fail  # signals hold no reference
        self.crawler.signals.connect(fail, signals.engine_stopped)
        self._close("fleet_unusable" if isinstance(error, FleetUnusableError) else "start_refused")

    async def _start(self, start: AsyncIterator[Any], *, walk: bool) -> AsyncIterator[Any]:
        if not walk:
            return
        try:
            async for output in start:
                if not self._takes(output):
                    yield output
                elif len(self._taken) >= BUFFER:
                    for request in self._divert():
                        yield request
                    # A start of millions must leave time for sending them.
                    await maybe_deferred_to_future(deferLater(self.clock, 0))
        except Exception:
            self._walk_failed = True
            raise
        for request in self._divert():
            yield request

    def _job_template(self, *, version: str) -> JobTemplate:
        return JobTemplate.from_config(
            self.config,
            self.spider,
            settings=self.crawler.settings,
            project=self.project,
            rules=self.diverter.rules,
            version=version,
            nodes=[member.node.address for member in self.fleet.members],
        )

    def _all_cut(self) -> bool:
        """Whether no more batches are to be expected, but for what workers find."""
        return self._walk_over and not self.batcher.bodies

    # Diverting

    def process_spider_output(
        self, response: Response, result: Iterable[Any], spider: Spider | None = None
    ) -> Iterable[Any]:
        try:
            for output in result:
                if not self._takes(output):
                    yield output
                elif len(self._taken) >= BUFFER:
                    yield from self._divert()
        except Exception:
            yield from self._divert()
            raise
        yield from self._divert()

    async def process_spider_output_async(
        self, response: Response, result: AsyncIterator[Any], spider: Spider | None = None
    ) -> AsyncIterator[Any]:
        try:
            async for output in result:
                if not self._takes(output):
                    yield output
                elif len(self._taken) >= BUFFER:
                    for request in self._divert():
                        yield request
        except Exception:
            for request in self._divert():
                yield request
            raise
        for request in self._divert():
            yield request

    def process_spider_exception(self, response: Response, exception: Exception) -> None:
        if isinstance(exception, HttpError):
            self.walk.response_refused(response, exception)

    def _takes(self, output: Any) -> bool:
        """Take *output* away, if it is a request for the fleet. A page's requests are diverted together."""
        if not (isinstance(output, Request) and self.diverter.is_target(output)):
            return False
        self._taken.append(output)
        return True

    def _divert(self) -> list[Request]:
        """What was taken away goes into the ledger, before the next page's callback runs. Returns what is to be
        crawled here."""
        if not self._taken or self.dispatcher is None:  # the run has not begun, and a component has asked for pages
            return []
        taken, self._taken = self._taken, []
        here: list[Request] = []
        try:
            entries, here = self.diverter.entries(taken)
            new = self.ledger.divert(entries)
            self.batcher.add(new, self.clock.seconds())  # at once: it holds what the ledger has as queued
            self._stats.inc_value("distributed/diverted", len(new))
            if len(new) < len(entries):
                self._stats.inc_value("distributed/duplicates", len(entries) - len(new))
            self._cut()
        except sqlite3.Error as error:
            self._ledger_failed(error)
        except Exception:
            self._walk_failed = True
            raise
        return here

    def _ledger_failed(self, error: sqlite3.Error) -> None:
        self._walk_failed = True  # so a resumed run walks again, and finds these again
        logger.critical("The ledger %s can't be written: %s", self.ledger.path, error, extra=self._extra)
        self._close("ledger_failed")

    def _divert_and_crawl(self) -> None:
        """The same between pages."""
        for request in self._divert():
            assert self.crawler.engine is not None
            self.crawler.engine.crawl(request)

    def _cut(self) -> None:
        """Close the batches that are full. Without a fixed size the next one is cut off when those before it have been
        taken: as late as can be, so that what jobs have reported and what is left at the end decide on its size."""
        self._close_batches(self.batcher.take_full())
        if self.batcher.size is not None:
            return
        while self.batcher.bodies and (self.batcher.too_long or self._wanted()):
            uncut, size = len(self.batcher.bodies), self._next_size()
            if uncut < size and not (self.batcher.too_long or self._due()):
                return
            rest_is_little = self._walk_over and uncut < 1.5 * size
            self._close_batches(self.batcher.take(uncut if rest_is_little else size))

    def _close_open(self) -> None:
        """Close the open batch, full or not; without a fixed size what is due of it."""
        if self.batcher.size is None:
            self._cut()
        else:
            self._close_batches(self.batcher.take_all())

    def _wanted(self) -> bool:
        """Whether a node would take one more: nothing is ready but what waits for another node than its last. As long
        as the right size is not known, only few wait on the nodes."""
        if any(last_node is None for _, last_node in self.ledger.ready()):
            return False
        waiting = sum(flight.waiting for _, flight in self.fleet.flights()) if not self.batch_size.measured else 0
        return waiting < UNMEASURED * len(self.fleet.members)

    def _due(self) -> bool:
        """Whether the open batch goes out though it is not full: after the walk only workers may add to it."""
        nothing_added = self._walked and self.batcher.added <= self._walked_at
        return nothing_added or (self._walk_over and self._idle) or self.batcher.overdue(self.clock.seconds())

    @property
    def _idle(self) -> bool:
        return self.dispatcher is not None and self.dispatcher.idle

    def _next_size(self) -> int:
        uncut, diverted = len(self.batcher.bodies), self._stats.get_value("distributed/diverted", 0)
        return self.batch_size.next(
            uncut=uncut, unsettled=max(uncut, diverted - self.batch_size.requests), slots=self._slots,
            elapsed=self._elapsed, walking=not self._walk_over,
        )  # fmt: skip

    def _count_slots(self) -> int:
        """Jobs that the fleet runs at once, as far as is known: a node does not tell how many it would."""
        return max(1, sum(max(1, member.peak_running) for member in self.fleet.members if member.well))

    @property
    def _elapsed(self) -> float:
        return float(self.clock.seconds() - self._began)

    def _close_batches(self, batches: list[list[str]]) -> None:
        if not batches:
            return
        try:
            made = self.ledger.close_batches(batches, self.batcher.bodies)
        except BaseException:  # the ledger has them as queued still, so the open batch has
            self.batcher.put_back(batches)
            raise
        self._stats.inc_value("distributed/batches", made)
        if self.dispatcher is not None:
            self.dispatcher.send_ready()

    def _tick(self) -> None:
        try:
            self._slots = self._count_slots()
            self.walk.go_on()
            self._divert_and_crawl()
            if self.batcher.overdue(self.clock.seconds()):
                self._close_open()
            self._close_the_rest()
            self.batch_size.idle(self._starving, self._elapsed)
        except sqlite3.Error as error:
            self._ledger_failed(error)
        except Exception:  # the next tick is due all the same
            logger.exception("Closing batches failed, trying again", extra=self._extra)

    def _close_the_rest(self) -> None:
        """Send what is to be tried on another node, if that makes a batch; and after the walk, when only workers find
        more, all that there is as soon as a node has nothing to do, or when it has waited for long enough."""
        now = self.clock.seconds()
        self._cut()
        if not self.ledger.has_queued():
            self._rest_since = now
            return
        uncut = self.batcher.size is None and bool(self.batcher.bodies)
        if uncut:  # less than a batch of what is to be tried again waits until all has been tried once
            self._rest_since = now
        overdue = self._walk_over and now - self._rest_since >= self.config.batch_max_age
        all_of_it = not uncut and (self._starving or overdue)
        if all_of_it:
            self._close_open()
        size = self.batcher.size or self._next_size()
        if self.ledger.close_again(size, all_of_it=all_of_it):
            assert self.dispatcher is not None
            self.dispatcher.send_ready()

    @property
    def _starving(self) -> bool:
        """Whether all has been found here, a node has nothing to do, and nothing is ready for it."""
        return self._walk_over and self._idle and not self.ledger.ready()

    # What workers find

    async def _read(self, receipt: Receipt) -> list[Finds]:
        """The targets in *receipt*, by the same rules as for the coordinator's own and by that for finds. Raises
        ``WireError``. Others get their turns while it is at it."""
        finds: list[Finds] = []
        began = time.thread_time()
        for number, elements in enumerate(receipt.found()):
            entries: list[Entry] = []
            for element in elements:
                if time.thread_time() - began > TURN:
                    await deferLater(self.clock, 0)
                    began = time.thread_time()
                requests = wire.decode_requests([element], self.spider, longest=MAX_URL)
                entries += self.diverter.found(requests, f"{receipt.job}/{number}".encode())
            if entries:
                finds.append(Finds.of(entries))
        return finds

    def _accepted(self, node: str, receipt: Receipt) -> None:
        self.batch_size.job_ended(receipt.stats, receipt.settled.bit_count(), self._elapsed, node)
        if receipt.targets and not self._finds_wait:
            self._divert_found()

    def _divert_found(self) -> None:
        """Divert some of what workers have found, and the rest when others have had their turns."""
        if self._closing:  # the ledger keeps it
            return
        try:
            some = self.ledger.divert_found()
            if some is None:
                self._changed()
                return
            self._more_found = self.clock.callLater(0, self._divert_found)
            size, new = some
            self._stats.inc_value("distributed/found_by_workers", len(new))
            if len(new) < size:
                self._stats.inc_value("distributed/duplicates", size - len(new))
            self._found(new)
        except sqlite3.Error as error:
            self._ledger_failed(error)

    @property
    def _finds_wait(self) -> bool:
        return self._more_found is not None and self._more_found.active()

    def _found(self, bodies: Sequence[str]) -> None:
        self.batcher.add(list(bodies), self.clock.seconds())
        self._stats.inc_value("distributed/diverted", len(bodies))
        self._cut()

    # The end

    def _spider_idle(self) -> None:
        """Nothing is left to crawl here: close the open batch, and wait for the run."""
        assert self.crawler.engine is not None
        if self.dispatcher is None:  # the run has not begun, and is not going to
            raise DontCloseSpider
        try:
            self._divert_and_crawl()
            if not self._walk_over:
                self._close_open()
                # Another handler of the signal may have given the engine more to do.
                if self.crawler.engine.spider_is_idle() and not self.walk.waits:
                    self._walked, self._walked_at = True, self.clock.seconds()
                    self.ledger.lost_own(self.walk.lost)
                    self.ledger.walked()
            if self._walk_over and self.dispatcher is not None:
                self._close_the_rest()
        except sqlite3.Error as error:
            self._ledger_failed(error)
        if not self._done():
            raise DontCloseSpider

    @property
    def _walk_over(self) -> bool:
        return self._walked or self._walk_failed

    def _request_scheduled(self) -> None:
        if self._walked:  # it goes on: a spider may have more to crawl when it is idle
            self._walked = False
            self.ledger.walk_on()

    def _done(self) -> bool:
        if self.batcher.bodies or self._taken or self.walk.waits:
            return False
        return self.ledger.settled() if self.config.wait else self.ledger.posted()

    def _changed(self) -> None:
        """A batch was taken or settled: close at once if that was the last, the engine's heartbeat may be 5 s away."""
        engine = self.crawler.engine
        if self._closing or not self._walked or engine is None or not engine.spider_is_idle():
            return
        self._close_the_rest()
        if not self._done():
            return
        answers = self.crawler.signals.send_catch_log(
            signals.spider_idle, spider=self.spider, dont_log=(DontCloseSpider, CloseSpider)
        )
        raised = [answer.value for _, answer in answers if isinstance(answer, Failure)]
        if not any(isinstance(error, DontCloseSpider) for error in raised):
            asked = next((error.reason for error in raised if isinstance(error, CloseSpider)), None)
            self._close(asked or "finished")

    def _stranded(self) -> None:
        logger.error(
            "No node could be used for %d s (DISTRIBUTED_FLEET_TIMEOUT): giving up for now", self.config.fleet_timeout,
            extra=self._extra,
        )  # fmt: skip
        self._close("fleet_unusable")

    def _close(self, reason: str) -> None:
        if not self._closing and self.crawler.engine is not None:
            self._closing = True
            deferred_from_coro(self.crawler.engine.close_spider_async(reason=reason))

    async def _spider_closed(self, reason: str) -> None:
        await maybe_deferred_to_future(Deferred.fromCoroutine(self._shut_down(reason)))

    async def _shut_down(self, reason: str) -> None:
        self._closing = True
        if self._ticker.running:
            self._ticker.stop()
        if self._finds_wait:  # in the ledger, for the same command
            self._more_found.cancel()
        try:
            if self.dispatcher is not None:
                self._divert()
                self._close_open()
                elapsed = self._elapsed
                self.batch_size.idle(False, elapsed)
                await self.dispatcher.drain(self.config.shutdown_timeout)
                self.ledger.lost_own(self.walk.lost)
                report(
                    self.ledger, self.crawler, reason, targets=str(self.diverter), wait=self.config.wait,
                    batch_size=self.batch_size, slots=self._slots, elapsed=elapsed,
                )  # fmt: skip
        except sqlite3.Error as error:
            logger.critical("The ledger %s can't be written: %s", self.ledger.path, error, extra=self._extra)
        finally:
            self.ledger.close()

    @property
    def _stats(self) -> Any:
        return self.crawler.stats

    @property
    def _extra(self) -> dict[str, Any]:
        return {"spider": self.spider}


def _check(config: Config, spider: Spider) -> None:
    """Refuse what can be seen to be wrong before a node is asked."""
    if not config.target_hosts:
        raise ConfigError(
            "DISTRIBUTED_TARGET_HOSTS: found nothing, expected the Scrapyd nodes of the fleet, e.g. ['scrapyd1:6800'];"
            " to crawl this spider on this machine alone set DISTRIBUTED_ENABLED = False"
        )
    check_targets(config, spider)
    check_feeds(config)

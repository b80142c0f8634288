"""The coordinator: divert what the fleet is to crawl, and keep the crawl open until the run is settled."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable
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

from scrapy_distributed.config.advice import check_feeds, warn_lease, warn_passwords, warn_unknown, warn_wait
from scrapy_distributed.config.config import Config
from scrapy_distributed.coordinator.cutter import Cutter
from scrapy_distributed.coordinator.discoveries import Discoveries
from scrapy_distributed.coordinator.identity import file_name, identity_of
from scrapy_distributed.coordinator.summary import report
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.dispatch.dispatcher import Dispatcher
from scrapy_distributed.dispatch.job_template import JobTemplate
from scrapy_distributed.dispatch.judge import Judge
from scrapy_distributed.dispatch.members import Fleet, Member
from scrapy_distributed.divert.diverter import Diverter, check_targets
from scrapy_distributed.divert.fingerprint import fingerprinter_of
from scrapy_distributed.divert.offsite import Offsite
from scrapy_distributed.errors import ConfigError, DistributedError, FleetUnusableError, LedgerUnavailableError
from scrapy_distributed.fast import preset
from scrapy_distributed.fleet.addresses import addresses, project_of, targets_from_cfg
from scrapy_distributed.fleet.node import Node
from scrapy_distributed.fleet.preflight import admit, preflight
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.wire.receipt import Receipt
from scrapy_distributed.words import shortened

logger = logging.getLogger(__name__)

BUFFER = 200  # requests of one page, or of the start, that are taken away before they are diverted


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
            fingerprint=fingerprinter_of(crawler), occurrence=self.ledger.intake.occurrence,
        )  # fmt: skip
        self.walk = Walk(crawler, patterns=config.retry_failed, clock=clock)
        judge = Judge(
            ledger=self.ledger, fleet=self.fleet, config=config, spider=self.spider, stats=self._stats,
            read_targets=lambda receipt: self.discoveries.read(receipt), accepted=self._accepted,
        )  # fmt: skip
        self.dispatcher = Dispatcher(
            ledger=self.ledger, fleet=self.fleet, judge=judge, config=config, spider=self.spider, stats=self._stats,
            clock=clock, admit=self._admit, all_cut=lambda: self.cutter.all_cut, changed=self._changed,
            stranded=self._stranded, ledger_failed=self._ledger_failed,
        )  # fmt: skip
        self.cutter = Cutter(
            intake=self.ledger.intake, bookings=self.ledger.bookings, fleet=self.fleet, config=config, walk=self.walk,
            stats=self._stats, clock=clock, idle=lambda: self.dispatcher.idle,
            send=lambda: self.dispatcher.send_ready(),
        )  # fmt: skip
        self.discoveries = Discoveries(
            intake=self.ledger.intake, diverter=self.diverter, cutter=self.cutter, spider=self.spider,
            stats=self._stats, clock=clock, all_diverted=self._changed, ledger_failed=self._ledger_failed,
        )  # fmt: skip
        self._taken: list[Request] = []  # of the pages that are being parsed
        self._closing = False
        self._failing: Callable[[], None] | None = None
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
            logger.info(preset.NOTICE, preset.ADDON, extra=coordinator._extra)
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
            if isinstance(error, LedgerUnavailableError):  # the dispatcher may be at work already
                self._ledger_failed(error)
            else:
                self._refuse(error)
            return
        except Exception:
            self._close("start_error")
            raise
        async for output in self._start(start, walk=to_walk):
            yield output

    async def _begin(self) -> bool:
        """Returns whether the spider's start is to be walked. Raises ``DistributedError`` where the run can't begin."""
        checks = preflight(
            [member.node for member in self.fleet.members], version=self.config.version, clock=self.clock,
            wait=self.config.fleet_timeout, **self._wanted_of_nodes,
        )  # fmt: skip
        version, faults = await maybe_deferred_to_future(Deferred.fromCoroutine(checks))
        if self._closing:  # meanwhile
            return False
        to_walk = self._begin_run(version)
        for fault in faults.values():
            self.dispatcher.leave_out(fault)
        self.cutter.start()
        # Before a batch is cut: it knows what is under way.
        self.dispatcher.start(self._job_template(version=version))
        self.discoveries.divert()
        self.cutter.cut()
        self._ticker.start(1.0, now=False)
        return to_walk

    @property
    def _wanted_of_nodes(self) -> dict[str, Any]:
        return {"project": self.project, "spider": self.spider.name, "feed": bool(self.config.feed_urls)}

    async def _admit(self, node: Node) -> None:
        await admit(node, version=self.dispatcher.job.version, **self._wanted_of_nodes)

    def _begin_run(self, version: str) -> bool:
        identity = identity_of(self.spider, self.project, rules=self.diverter.rules, callbacks=self.diverter.callbacks)
        to_walk = self.ledger.begin(identity, resume=self.config.resume, wait=self.config.wait)
        self.walk.lost.update({} if to_walk else self.ledger.account.losses().own)  # what is walked again counts again
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
            self.walk.failed = True
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
        if not self._taken or not self.dispatcher.started:  # the run has not begun, and a component has asked for pages
            return []
        taken, self._taken = self._taken, []
        here: list[Request] = []
        try:
            entries, here = self.diverter.entries(taken)
            new = self.ledger.intake.divert(entries)
            self.cutter.add(new)
            self._stats.inc_value("distributed/diverted", len(new))
            if len(new) < len(entries):
                self._stats.inc_value("distributed/duplicates", len(entries) - len(new))
            self.cutter.cut()
        except LedgerUnavailableError as error:
            self._ledger_failed(error)
        except Exception:
            self.walk.failed = True
            raise
        return here

    def _ledger_failed(self, error: LedgerUnavailableError) -> None:
        self.walk.failed = True  # so a resumed run walks again, and finds these again
        logger.critical("The ledger %s can't be written: %s", self.ledger.path, error, extra=self._extra)
        self._close("ledger_failed")

    def _divert_and_crawl(self) -> None:
        """The same between pages."""
        for request in self._divert():
            assert self.crawler.engine is not None
            self.crawler.engine.crawl(request)

    def _tick(self) -> None:
        try:
            self.walk.go_on()
            self._divert_and_crawl()
            self.cutter.tick()
        except LedgerUnavailableError as error:
            self._ledger_failed(error)
        except Exception:  # the next tick is due all the same
            logger.exception("Closing batches failed, trying again", extra=self._extra)

    # The end

    def _accepted(self, node: str, receipt: Receipt) -> None:
        self.cutter.size.job_ended(receipt.stats, receipt.settled.bit_count(), self.cutter.elapsed, node)
        if receipt.targets:
            self.discoveries.divert()

    def _spider_idle(self) -> None:
        """Nothing is left to crawl here: close the open batch, and wait for the run."""
        assert self.crawler.engine is not None
        if not self.dispatcher.started:  # the run has not begun, and is not going to
            raise DontCloseSpider
        try:
            self._divert_and_crawl()
            if not self.walk.over:
                self.cutter.cut_all()
                # Another handler of the signal may have given the engine more to do.
                if self.crawler.engine.spider_is_idle() and not self.walk.waits:
                    self.walk.is_done()
                    self.ledger.intake.lost_own(self.walk.lost)
                    self.ledger.intake.walked()
            if self.walk.over:
                self.cutter.cut_rest()
        except LedgerUnavailableError as error:
            self._ledger_failed(error)
        if not self._done():
            raise DontCloseSpider

    def _request_scheduled(self) -> None:
        if self.walk.done:  # it goes on: a spider may have more to crawl when it is idle
            self.walk.done = False
            self.ledger.intake.walk_on()

    def _done(self) -> bool:
        if self.cutter.open.count or self._taken or self.walk.waits:
            return False
        return self.ledger.account.settled() if self.config.wait else self.ledger.account.posted()

    def _changed(self) -> None:
        """A batch was taken or settled: close at once if that was the last, the engine's heartbeat may be 5 s away."""
        engine = self.crawler.engine
        if self._closing or not self.walk.done or engine is None or not engine.spider_is_idle():
            return
        self.cutter.cut_rest()
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
            self.discoveries.stop()
            deferred_from_coro(self.crawler.engine.close_spider_async(reason=reason))

    async def _spider_closed(self, reason: str) -> None:
        await maybe_deferred_to_future(Deferred.fromCoroutine(self._shut_down(reason)))

    async def _shut_down(self, reason: str) -> None:
        self._closing = True
        if self._ticker.running:
            self._ticker.stop()
        self.discoveries.stop()
        try:
            if self.dispatcher.started:
                self._divert()
                self.cutter.cut_all()
                elapsed = self.cutter.elapsed
                self.cutter.size.idle(False, elapsed)
                await self.dispatcher.drain(self.config.shutdown_timeout)
                self.ledger.intake.lost_own(self.walk.lost)
                report(
                    self.ledger, self.crawler, reason, targets=str(self.diverter), wait=self.config.wait,
                    batch_size=self.cutter.size, slots=self.cutter.slots, elapsed=elapsed,
                )  # fmt: skip
        except LedgerUnavailableError as error:
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

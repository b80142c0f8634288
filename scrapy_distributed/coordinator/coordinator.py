"""The coordinator: divert what the fleet is to crawl, and keep the crawl open until the run is settled."""

from __future__ import annotations

import logging
from typing import Any

from scrapy import Spider
from scrapy.crawler import Crawler
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from scrapy_distributed.config.advice import warn_lease, warn_passwords, warn_unknown, warn_wait
from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import ItemsGo, feeds_of_workers, where_items_go
from scrapy_distributed.config.prior import Prior
from scrapy_distributed.config.told import block, tell
from scrapy_distributed.coordinator import chain
from scrapy_distributed.coordinator.arguments import arguments_of
from scrapy_distributed.coordinator.cutter import Cutter
from scrapy_distributed.coordinator.discoveries import Discoveries
from scrapy_distributed.coordinator.diversion import Diversion
from scrapy_distributed.coordinator.ending import Ending
from scrapy_distributed.coordinator.homecoming import Homecoming
from scrapy_distributed.coordinator.identity import identity_of, ledger_of
from scrapy_distributed.coordinator.keeper import Keeper
from scrapy_distributed.coordinator.nodes import Nodes
from scrapy_distributed.coordinator.own_feed import OwnFeed
from scrapy_distributed.coordinator.pages import Pages
from scrapy_distributed.coordinator.progress import Figures, Progress, figures_of
from scrapy_distributed.coordinator.refused import check_config, check_settings
from scrapy_distributed.coordinator.sessions import Sessions
from scrapy_distributed.coordinator.showing import Showing
from scrapy_distributed.coordinator.steering import Steering
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.coordinator.warm_start import WarmStart
from scrapy_distributed.dispatch.dispatcher import Dispatcher
from scrapy_distributed.dispatch.harvest import Harvest
from scrapy_distributed.dispatch.job_template import job_template
from scrapy_distributed.dispatch.judge import Judge
from scrapy_distributed.divert.diverter import Diverter
from scrapy_distributed.divert.duplicates import are_filtered, warn_of_others
from scrapy_distributed.divert.fingerprint import fingerprinter_of
from scrapy_distributed.divert.jars import Jars
from scrapy_distributed.divert.offsite import Offsite
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.fleet.addresses import elsewhere
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.password import without_password
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.wire.receipt import Receipt
from scrapy_distributed.words import shortened

logger = logging.getLogger(__name__)


class Coordinator(Pages):
    """Spider middleware of a coordinator. Refuses to start (``ValueError``) where a setting is wrong, another
    coordinator holds the ledger, or no node can be used."""

    ending: Ending

    def __init__(
        self, crawler: Crawler, *, config: Config, command: CommandLine, nodes: Nodes, items_go: ItemsGo, clock: Any
    ) -> None:
        self.crawler = crawler
        assert crawler.spider is not None
        self.config = config
        self.command = command
        self.spider: Spider = crawler.spider
        self.clock = clock
        self.nodes = nodes
        self.items_go = items_go
        self.ledger = Ledger(config.ledger or ledger_of(self.spider.name))
        self.fleet = nodes.fleet(self.ledger.path, config, crawler.settings)
        self.sessions = Sessions(Jars(crawler))
        self.diverter = self._diverting_side()
        self.walk = Walk(crawler, patterns=config.retry_failed, clock=clock)
        self.spool = Spool(self.ledger.path, type(self.spider))
        self.homecoming = self._receiving_side() if items_go is ItemsGo.HOME else None
        self.own_pages = self.homecoming.own_pages if self.homecoming is not None else None
        self.keeper: Keeper | None = self.homecoming or self._own_feed()
        self.dispatcher = self._sending_side()
        self.cutter = Cutter(
            intake=self.ledger.intake, bookings=self.ledger.bookings, fleet=self.fleet, config=config, walk=self.walk,
            stats=crawler.stats, idle=lambda: self.dispatcher.idle, send=lambda: self.dispatcher.send_ready(),
            renewed=self.sessions.renewed, clock=clock,
            prior=Prior.of(crawler.settings, config.worker_settings, self.spider),
        )  # fmt: skip
        self.discoveries = self._finding_side()
        self.diversion = Diversion(
            crawler, diverter=self.diverter, enter=self.cutter.divert, walk=self.walk, sessions=self.sessions,
            begun=lambda: self.dispatcher.started, ledger_failed=lambda error: self.ending.ledger_failed(error),
        )  # fmt: skip
        self.ending = Ending(
            crawler, config=config, ledger=self.ledger, walk=self.walk, diversion=self.diversion, cutter=self.cutter,
            discoveries=self.discoveries, dispatcher=self.dispatcher, keeper=self.keeper, clock=clock,
        )  # fmt: skip
        self.showing = self._telling_side()
        self.steering = Steering(crawler, dispatcher=self.dispatcher, closing=self.ending.why)
        self._ticker: LoopingCall = LoopingCall(self._tick)
        self._ticker.clock = clock

    def _diverting_side(self) -> Diverter:
        crawler = self.crawler
        return Diverter(
            config=self.config, spider=self.spider, stats=crawler.stats, offsite=Offsite(crawler),
            fingerprint=fingerprinter_of(crawler), occurrence=self.ledger.intake.occurrence,
            filters=are_filtered(crawler.settings), session_of=self.sessions.of,
        )  # fmt: skip

    def _telling_side(self) -> Showing:
        interval = self.crawler.settings.getfloat("LOGSTATS_INTERVAL")
        progress = Progress(figures=self._figures, spider=self.spider, interval=interval, clock=self.clock)
        return Showing(self.ledger.path, fleet=self.fleet, progress=progress, spider=self.spider, clock=self.clock)

    def _figures(self) -> Figures:
        return figures_of(self.ledger.account, self.fleet, self.walk, paused=self.dispatcher.handover.paused)

    def _finding_side(self) -> Discoveries:
        return Discoveries(
            intake=self.ledger.intake, diverter=self.diverter, cutter=self.cutter, spider=self.spider,
            stats=self.crawler.stats, clock=self.clock, all_diverted=lambda: self.ending.changed(),
            ledger_failed=lambda error: self.ending.ledger_failed(error),
        )  # fmt: skip

    def _receiving_side(self) -> Homecoming:
        return Homecoming(
            self.crawler, spool=self.spool, ledger=self.ledger.harvest, pipelines=self.config.pipelines_at_home,
            clock=self.clock, changed=lambda: self.ending.changed(),
            ledger_failed=lambda error: self.ending.ledger_failed(error),
        )  # fmt: skip

    def _own_feed(self) -> OwnFeed | None:
        if self.items_go is not ItemsGo.FEEDS or not self.config.feed_urls:
            return None
        return OwnFeed(self.crawler, config=self.config, spool=self.spool, ledger=self.ledger.harvest)

    def _harvest(self) -> Harvest:
        return Harvest(
            spool=self.spool, ledger=self.ledger.harvest, spider=self.spider,
            fingerprint=fingerprinter_of(self.crawler), clock=self.clock,
        )  # fmt: skip

    def _sending_side(self) -> Dispatcher:
        """Sends batches and looks after them; what it asks of the others is asked later, when they are there."""
        stats: Any = self.crawler.stats
        judge = Judge(
            ledger=self.ledger,
            fleet=self.fleet,
            config=self.config,
            spider=self.spider,
            stats=stats,
            read_targets=lambda attempt, receipt: self.discoveries.read(attempt, receipt),
            harvest=self._harvest() if self.homecoming is not None else None,
            accepted=self._accepted,
            stopped_by=lambda receipt: self.ending.stopped_by(receipt),
            no_job_starts=lambda why: self.ending.no_job_starts(why),
        )
        return Dispatcher(
            ledger=self.ledger,
            fleet=self.fleet,
            judge=judge,
            config=self.config,
            spider=self.spider,
            stats=stats,
            clock=self.clock,
            all_cut=lambda: self.cutter.all_cut,
            changed=lambda: self.ending.changed(),
            stranded=lambda: self.ending.stranded(),
            ledger_failed=lambda error: self.ending.ledger_failed(error),
        )

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Coordinator:
        settings, spider = crawler.settings, crawler.spider
        assert spider is not None
        warn_unknown(settings)  # first: a refusal may be of what was meant to be set
        config = Config.from_settings(settings)
        warn_lease(config)
        warn_passwords(config)
        warn_wait(config)
        warn_of_others(settings)
        command = CommandLine.read(settings, config, arguments_of(crawler))
        check_settings(settings)
        check_config(config, spider)
        from twisted.internet import reactor

        nodes = Nodes.of_crawl(
            config, settings=settings, spider=spider, private=command.private, warm=crawler.get_extension(WarmStart),
            clock=reactor,
        )  # fmt: skip
        coordinator = cls(
            crawler, config=config, command=command, nodes=nodes, items_go=where_items_go(config, settings),
            clock=reactor,
        )  # fmt: skip
        coordinator.steering.begin()  # what is wished while the nodes are asked is done then
        coordinator._job_template(version="")  # what can't travel is refused before a node is asked
        coordinator._open()
        return coordinator

    # The start: see ``pages``

    async def _begin(self) -> bool:
        if self.homecoming is not None:
            await self.homecoming.check_places()
        checks = self.nodes.check(version=self.config.version, wait=self.config.fleet_timeout)
        version, faults = await maybe_deferred_to_future(Deferred.fromCoroutine(checks))
        if self.ending.closing:  # meanwhile
            return False
        to_walk = self._begin_run(version)
        for fault in faults.values():
            self.dispatcher.leave_out(fault)
        self.sessions.jars.warn()
        job = self._job_template(version=version)
        tell(block(
            self.config, self.crawler.settings, command=self.command, job=job.settings, spider=self.spider,
            nodes=len(self.nodes.scrapyds), slots=self.nodes.slots, targets=str(self.diverter),
            items_go=self.items_go, place=str(self.spool.folder),
            elsewhere=elsewhere(node.address for node in self.nodes.scrapyds),
        ))  # fmt: skip
        self.cutter.start()
        # Before a batch is cut: it knows what is under way.
        self.dispatcher.start(job)
        self.discoveries.divert()
        self.cutter.cut()
        self._ticker.start(1.0, now=False)
        self.showing.begin(self.ledger.run)
        return to_walk

    def _begin_run(self, version: str) -> bool:
        identity = identity_of(
            self.spider.name, self.nodes.project, args=self.command.args, rules=self.diverter.rules,
            callbacks=self.diverter.callbacks, items=self.items_go.value,
        )  # fmt: skip
        to_walk = self.ledger.begin(identity, resume=self.config.resume, wait=self.config.wait)
        self.fleet.were_told(self.ledger.bookings.told())
        if self.keeper is not None:
            self.keeper.begin(self.ledger.run, walk=to_walk)
        if self.items_go is ItemsGo.FEEDS:
            urls = feeds_of_workers(self.config, self.crawler.settings)
            self.ledger.harvest.workers_write(map(without_password, urls))
        self.walk.lost.update({} if to_walk else self.ledger.account.losses().own)  # what is walked again counts again
        if others := self.ledger.others():
            logger.warning(
                "Unfinished in the same ledger, of other spider arguments, rules or callbacks: %s. Only the command"
                " that began a run takes it up again",
                shortened(", ".join(others)), extra=self._extra,
            )  # fmt: skip
        logger.info(
            "Run %s of project %s on %s, egg version %s%s", self.ledger.run, self.nodes.project, self.nodes,
            version or "(none)", "" if to_walk else "; the coordinator's own crawl is done", extra=self._extra,
        )  # fmt: skip
        return to_walk

    def _job_template(self, *, version: str) -> JobTemplate:
        return job_template(
            self.config,
            spider=self.spider.name,
            command=self.command,
            settings=self.crawler.settings,
            project=self.nodes.project,
            rules=self.diverter.rules,
            version=version,
            items_go=self.items_go,
            nodes=[node.address for node in self.nodes.scrapyds],
        )

    # While it goes on

    def _tick(self) -> None:
        try:
            self.walk.go_on()
            self.diversion.divert_and_crawl()
            self.cutter.tick()
            self.steering.look()
            self.showing.look()
        except LedgerUnavailableError as error:
            self.ending.ledger_failed(error)
        except Exception:  # the next tick is due all the same
            logger.exception("Closing batches failed, trying again", extra=self._extra)

    def _accepted(self, node: str, attempt: Attempt, receipt: Receipt, trip: float | None) -> None:
        if self.homecoming is not None:
            self.homecoming.came(attempt)
        if self.cutter.job_ended(node, receipt, trip):
            logger.warning("%s", chain.WORDS, extra=self._extra)
        if receipt.targets:
            self.discoveries.divert()
        self.ending.job_counts(node, receipt)

    # The end: see ``ending``

    async def _spider_closed(self, reason: str) -> None:
        if self._ticker.running:
            self._ticker.stop()
        self.showing.end()
        await self.ending.shut_down(reason)

    @property
    def _extra(self) -> dict[str, Any]:
        return {"spider": self.spider}

"""The coordinator of a shared run: what its spider finds for workers goes into Redis, and their items come home."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scrapy import Spider, signals
from scrapy.crawler import Crawler
from scrapy.utils.project import get_project_settings
from scrapy.utils.reactor import is_asyncio_reactor_installed
from twisted.internet.task import LoopingCall

from scrapy_distributed.config.advice import warn_lease, warn_passwords, warn_unknown
from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import ItemsGo, settings_of_workers, where_items_go
from scrapy_distributed.config.told import block, tell
from scrapy_distributed.coordinator.arguments import arguments_of
from scrapy_distributed.coordinator.buffer import MOST, Buffer
from scrapy_distributed.coordinator.diversion import Diversion
from scrapy_distributed.coordinator.home_book import HomeBook
from scrapy_distributed.coordinator.homecoming import Homecoming
from scrapy_distributed.coordinator.identity import identity_of, ledger_of
from scrapy_distributed.coordinator.into_stream import IntoStream, OwnStream
from scrapy_distributed.coordinator.keeper import Keeper
from scrapy_distributed.coordinator.local_command import local_command
from scrapy_distributed.coordinator.own_feed import OwnFeed
from scrapy_distributed.coordinator.own_worker import OwnWorker
from scrapy_distributed.coordinator.pages import Pages
from scrapy_distributed.coordinator.progress import Progress
from scrapy_distributed.coordinator.refused import check_config, check_settings
from scrapy_distributed.coordinator.sessions import Sessions
from scrapy_distributed.coordinator.shared_ending import SharedEnding
from scrapy_distributed.coordinator.shared_entrance import Entrance
from scrapy_distributed.coordinator.shared_figures import SharedFigures
from scrapy_distributed.coordinator.shared_harvest import Destination, IntoSpool, SharedHarvest
from scrapy_distributed.coordinator.shared_hosts import SharedHosts, shared_hosts
from scrapy_distributed.coordinator.shared_run import SharedRun
from scrapy_distributed.coordinator.shared_words import WhoHasJoined, not_asked
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.dispatch.job_template import job_template
from scrapy_distributed.divert.diverter import Diverter, Entry
from scrapy_distributed.divert.duplicates import are_filtered, warn_of_others
from scrapy_distributed.divert.fingerprint import fingerprinter_of
from scrapy_distributed.divert.jars import Jars
from scrapy_distributed.divert.offsite import Offsite
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.addresses import project_of, targets_from_cfg
from scrapy_distributed.fleet.node import NodeAddress
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.shared.account import Account
from scrapy_distributed.shared.code_version import version_here
from scrapy_distributed.shared.harvest import Harvest
from scrapy_distributed.shared.intake import Intake
from scrapy_distributed.shared.keys import Keys
from scrapy_distributed.shared.refusal import refusal
from scrapy_distributed.shared.run_rules import RunRules
from scrapy_distributed.shared.server import Server
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.wire.session import Session

logger = logging.getLogger(__name__)


class SharedCoordinator(Pages):
    """Spider middleware of the coordinator of a shared run. Refuses to start (``ValueError``) where a setting is
    wrong."""

    ending: SharedEnding
    server: Server | None = None
    run: SharedRun | None = None
    joined: WhoHasJoined | None = None

    def __init__(
        self, crawler: Crawler, *, config: Config, command: CommandLine, hosts: SharedHosts, items_go: ItemsGo,
        project: str, clock: Any,
    ) -> None:  # fmt: skip
        self.crawler = crawler
        assert crawler.spider is not None
        self.spider = crawler.spider
        self.config = config
        self.command = command
        self.hosts = hosts
        self.items_go = items_go
        self.project = project
        self.clock = clock
        self.buffer = Buffer()
        beside = Path(os.path.realpath(config.ledger or ledger_of(self.spider.name)))
        self.spool = Spool(beside, type(self.spider))
        self.book = HomeBook(self.spool.beside, entered=self.buffer.put_pages)
        self.sessions = Sessions(Jars(crawler))
        self.walk = Walk(crawler, patterns=config.retry_failed, clock=clock)
        self.diverter = self._diverting_side()
        self.diversion = Diversion(
            crawler, diverter=self.diverter, enter=self._enter, walk=self.walk, sessions=self.sessions,
            begun=lambda: self.book.begun, ledger_failed=lambda error: self.ending.failed(error),
        )  # fmt: skip
        self.homecoming = self._receiving_side() if items_go is ItemsGo.HOME else None
        at_once = self.homecoming or (self._own_stream() if items_go is ItemsGo.STREAM else None)
        self.own_pages = at_once.own_pages if at_once is not None else None
        self.keeper: Keeper | None = at_once or self._own_feed()
        self.ending = SharedEnding(
            crawler, config=config, walk=self.walk, diversion=self.diversion, keeper=self.keeper, book=self.book,
            clock=clock,
        )  # fmt: skip
        self.worker = OwnWorker(hosts.address, slots=hosts.slots, log=beside.with_name(f"{beside.name}.worker.log"))
        self.figures = SharedFigures(self.walk)
        self.progress = self._telling_side()
        self._paused = False  # the engine
        self._ticker: LoopingCall = LoopingCall(self._tick)
        self._ticker.clock = clock

    def _diverting_side(self) -> Diverter:
        crawler = self.crawler
        return Diverter(
            config=self.config, spider=self.spider, stats=crawler.stats, offsite=Offsite(crawler),
            fingerprint=fingerprinter_of(crawler), occurrence=lambda key: self.book.seen.occurrence(key),
            filters=are_filtered(crawler.settings), session_of=self.sessions.of,
        )  # fmt: skip

    def _telling_side(self) -> Progress:
        interval = self.crawler.settings.getfloat("LOGSTATS_INTERVAL")
        return Progress(figures=self.figures.now, spider=self.spider, interval=interval, clock=self.clock)

    def _receiving_side(self) -> Homecoming:
        return Homecoming(
            self.crawler, spool=self.spool, ledger=self.book, pipelines=self.config.pipelines_at_home,
            clock=self.clock, changed=lambda: self.ending.changed(),
            ledger_failed=lambda error: self.ending.failed(error),
        )  # fmt: skip

    def _own_stream(self) -> OwnStream:
        return OwnStream(
            self.crawler, keep=self._keep, book=self.book, spool=self.spool, walk=self.walk,
            ledger_failed=lambda error: self.ending.failed(error),
        )  # fmt: skip

    def _own_feed(self) -> OwnFeed | None:
        if self.items_go is not ItemsGo.FEEDS or not self.config.feed_urls:
            return None
        return OwnFeed(self.crawler, config=self.config, spool=self.spool, ledger=self.book)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> SharedCoordinator:
        settings, spider = crawler.settings, crawler.spider
        assert spider is not None
        warn_unknown(settings)  # first: a refusal may be of what was meant to be set
        config = Config.from_settings(settings)
        warn_lease(config)
        warn_passwords(config, seen="it lies in Redis, and ps shows it where workers run")
        warn_of_others(settings)
        command = CommandLine.read(settings, config, arguments_of(crawler))
        check_settings(settings)
        check_config(config, spider)
        hosts = shared_hosts(config.target_hosts)
        _check(config, spider)
        from twisted.internet import reactor

        coordinator = cls(
            crawler, config=config, command=command, hosts=hosts,
            items_go=where_items_go(config, settings, shared=True),
            project=project_of(targets_from_cfg(), (), settings), clock=reactor,
        )  # fmt: skip
        _check_template(coordinator._job_template(version=""))
        coordinator.server = Server(hosts.address)
        coordinator._open()
        crawler.signals.connect(coordinator._hold_back, signals.request_scheduled)
        return coordinator

    # The start: see ``pages``

    async def _begin(self) -> bool:
        if self.homecoming is not None:
            await self.homecoming.check_places()
        assert self.server is not None
        entrance = Entrance(self.server, self.book, ending=self.ending, extra=self._extra)
        await entrance.reach(self.config.fleet_timeout)
        if self.ending.closing:  # meanwhile
            return False
        await entrance.check()
        entrance.check_folder(new=not self.config.resume)
        job = self._job_template(version=version_here(self.crawler.settings))
        identity = identity_of(
            self.spider.name, self.project, args=self.command.args, rules=self.diverter.rules,
            callbacks=self.diverter.callbacks, items=self.items_go.value,
        )  # fmt: skip
        intake = Intake(self.server, self.project, owner=f"{self.book.place.name()}@{socket.gethostname()}")
        begun = await intake.begin(
            identity, spider=self.spider.name, template=json.dumps(asdict(job)), version=job.version,
            rules=self._rules(), resume=self.config.resume,
        )  # fmt: skip
        entrance.check_folder(new=begun.is_new)
        harvest = Harvest(self.server, self.project, begun.run, owner=intake.owner)
        run = self.run = self.ending.run = self._shared_run(intake, harvest)
        self.joined = WhoHasJoined(
            self.hosts.address, spider=self.spider.name, version=begun.version, extra=self._extra
        )
        state = run.state = await run.sure(intake.state)
        self._tell_settings(job, run=begun.run, joined=state.slots)
        if self.hosts.slots:
            self.worker.start()
        if not await entrance.owns(run, identity, home=self.homecoming is not None):
            return False
        return await self._begin_walk(run, is_new=begun.is_new)

    def _shared_run(self, intake: Intake, harvest: Harvest) -> SharedRun:
        assert self.crawler.stats is not None
        return SharedRun(
            intake, harvest, buffer=self.buffer, spider=self.spider, stats=self.crawler.stats,
            walk_is_done=self.ending.walk_is_done, own_is_safe=self.ending.own_is_safe, changed=self._changed,
            failed=self.ending.failed,
        )  # fmt: skip

    def _tell_settings(self, job: JobTemplate, *, run: str, joined: int) -> None:
        self.sessions.jars.warn()
        tell(block(
            self.config, self.crawler.settings, command=self.command, job=job.settings, spider=self.spider, nodes=0,
            targets=str(self.diverter), items_go=self.items_go, place=self._place(run), joined=joined,
        ))  # fmt: skip
        tell(not_asked(self.crawler.settings))

    def _place(self, run: str) -> str:
        """Where the items of *run* go, if they do not go to feeds of workers."""
        return Keys(self.project).of(run, "items") if self.items_go is ItemsGo.STREAM else str(self.spool.beside / run)

    def _rules(self) -> RunRules:
        config = self.config
        return RunRules(
            max_attempts=config.max_attempts, lease_seconds=config.lease, stall_seconds=config.stall,
            retry_failed=config.retry_failed,
        )  # fmt: skip

    async def _begin_walk(self, run: SharedRun, *, is_new: bool) -> bool:
        state = run.state
        assert state is not None
        to_walk = state.walked is None and state.ended is None
        if self.items_go is ItemsGo.STREAM:
            await run.own.begin(anew=to_walk)
        if self.keeper is not None:
            self.keeper.begin(run.intake.run, walk=to_walk)
        if to_walk:
            self.book.know_pages(self.spool.own_pages(self.book.files()))
            await run.sure(run.intake.walk_on)
        else:
            losses = await run.sure(Account(run.intake.server, self.project, run.intake.run).losses)
            self.walk.lost.update(losses.own)
            if state.unadded:
                self.walk.is_cut_off()
        self.walk.done = run.walked = not to_walk
        logger.info(
            "Run %s of project %s on %s%s%s", run.intake.run, self.project, self.hosts.address,
            "" if is_new else ", taken up again", "" if to_walk else "; the coordinator's own crawl is done",
            extra=self._extra,
        )  # fmt: skip
        harvest = self.ending.harvest = SharedHarvest(
            run, run.harvest, destination=self._destination(run), spool=self.spool, book=self.book, spider=self.spider,
            fingerprint=fingerprinter_of(self.crawler), counts=self.ending.counts, clock=self.clock,
        )  # fmt: skip
        run.start(harvest.bring(), self.figures.hear(run))
        self._ticker.start(1.0)
        self.progress.start()
        return to_walk

    def _destination(self, run: SharedRun) -> Destination | None:
        if self.items_go is ItemsGo.STREAM:
            return IntoStream(run, spider=self.spider, settings=self.crawler.settings)
        return IntoSpool(self.book, self.homecoming.came) if self.homecoming is not None else None

    def _job_template(self, *, version: str) -> JobTemplate:
        return job_template(
            self.config, spider=self.spider.name, command=self.command, settings=self.crawler.settings,
            project=self.project, rules=self.diverter.rules, version=version, items_go=self.items_go,
            nodes=self._not_to_be_crawled(),
        )  # fmt: skip

    def _not_to_be_crawled(self) -> list[NodeAddress]:
        """Pages may link to where the server is."""
        host, port = self.hosts.address.host, self.hosts.address.port
        return [NodeAddress(name=host, url=f"http://{f'[{host}]' if ':' in host else host}:{port}")] if host else []

    # While it goes on

    def _enter(self, entries: list[Entry], sessions: Mapping[str, Session]) -> None:
        self.book.know_pages(key for key, _ in entries)
        self.buffer.put(entries, sessions)
        self._filled()

    def _filled(self) -> None:
        """There is more in the buffer."""
        assert self.run is not None
        self.run.filled()
        self._hold_back()

    def _hold_back(self) -> None:
        """No further page is asked for while much is to be added, and none before the server knows that the walk goes
        on: who takes up a run whose walk is done does not find what such a page has led to."""
        engine: Any = self.crawler.engine
        enough = MOST // 2 if self._paused else MOST
        wanted = self.buffer.size >= enough or (self.run is not None and self.run.goes_on_untold)
        if wanted and not self._paused:
            engine.pause()
        elif self._paused and not wanted:
            engine.unpause()
            if engine._slot is not None:
                engine._slot.nextcall.schedule()  # its heartbeat may be 5 s away
        self._paused = wanted

    def _keep(self, lines: bytes) -> None:
        self.buffer.put_item(lines)
        self._filled()

    async def _leave_time(self) -> None:
        while self.buffer.full and not self.ending.closing:
            await asyncio.sleep(0.1)

    def _tick(self) -> None:
        try:
            self.walk.go_on()
            self.diversion.divert_and_crawl()
            if self.worker.has_ended():
                logger.error("The worker on this machine has ended, %s tells why", self.worker.log, extra=self._extra)
        except Exception:  # the next tick is due all the same
            logger.exception("Looking after the crawl failed, trying again", extra=self._extra)

    def _changed(self) -> None:
        if self.run is not None and self.run.state is not None and self.joined is not None:
            self.joined.look(self.run.state)
        self._hold_back()
        self.ending.changed()

    # The end: see ``shared_ending``

    async def _spider_closed(self, reason: str) -> None:
        if self._ticker.running:
            self._ticker.stop()
        self.progress.stop()
        try:
            await self.ending.shut_down(reason)
        finally:
            await self.worker.end()
            self.book.close()
            if self.server is not None:
                await self.server.close()

    @property
    def _extra(self) -> dict[str, Any]:
        return {"spider": self.spider}


def _check(config: Config, spider: Spider) -> None:
    """Raises ``ConfigError`` for what a shared run can't be."""
    if not is_asyncio_reactor_installed():
        raise ConfigError(
            "TWISTED_REACTOR: found another one than asyncio's, expected"
            " twisted.internet.asyncioreactor.AsyncioSelectorReactor on the coordinator of a shared run"
        )
    if not config.wait:
        raise ConfigError(
            "DISTRIBUTED_WAIT: found False, and the coordinator of a shared run writes its result; expected True."
            " Ctrl-C leaves the run to its workers, and the same command goes on"
        )
    if local_command(type(spider))[0] == "runspider":
        raise ConfigError(
            f"DISTRIBUTED_TARGET_HOSTS: found a Redis, and the spider {spider.name!r} of a file: workers join with a"
            " project and know its spiders by name; expected 'scrapy crawl' in a project"
        )


def _check_template(template: JobTemplate) -> None:
    """Raises ``ConfigError`` for settings that workers of this project do not take from a run."""
    own = settings_of_workers(get_project_settings())
    if why := refusal(template.settings, own, Config.from_settings(own).worker_settings):
        raise ConfigError(f"workers refuse the jobs of this run: {why}")

"""How the coordinator's crawl ends: when nothing is left to crawl here and the run is settled, or early."""

from __future__ import annotations

import logging
from typing import Any

from scrapy.crawler import Crawler
from scrapy.exceptions import DontCloseSpider
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from scrapy_distributed.config.config import Config
from scrapy_distributed.coordinator.closing import END_OF_WALK, NO_JOB_STARTS, Means
from scrapy_distributed.coordinator.curtain import LOOK_SECONDS, Curtain
from scrapy_distributed.coordinator.cutter import Cutter
from scrapy_distributed.coordinator.discoveries import Discoveries
from scrapy_distributed.coordinator.diversion import Diversion
from scrapy_distributed.coordinator.exit_code import ends_with_1
from scrapy_distributed.coordinator.keeper import Keeper
from scrapy_distributed.coordinator.limits import Limits, closed_itself
from scrapy_distributed.coordinator.summary import report
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.dispatch.dispatcher import Dispatcher
from scrapy_distributed.errors import DistributedError, FleetUnusableError, LedgerUnavailableError
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.wire.receipt import Receipt

logger = logging.getLogger(__name__)

UNABLE = ("ledger_failed", "fleet_unusable")  # nothing comes home then, however long one waits


class Ending(Curtain):
    """Closes the crawl of *crawler*, once. *keeper*: what has items to be stored before the run is over, if anything
    has. *why* it closes, if it does."""

    def __init__(
        self,
        crawler: Crawler,
        *,
        config: Config,
        ledger: Ledger,
        walk: Walk,
        diversion: Diversion,
        cutter: Cutter,
        discoveries: Discoveries,
        dispatcher: Dispatcher,
        keeper: Keeper | None,
        clock: Any,
    ) -> None:
        super().__init__(crawler, walk=walk, keeper=keeper, clock=clock)
        self.config = config
        self.ledger = ledger
        self.diversion = diversion
        self.cutter = cutter
        self.discoveries = discoveries
        self.dispatcher = dispatcher
        self.limits = Limits(crawler.settings, items=ledger.account.items, walk=walk)
        self._unwritten = False
        self._says_walked = False  # the ledger says that the walk is done, and has not been told yet that it goes on

    # When all is done

    def idle(self) -> None:
        """Nothing is left to crawl here: close the open batch, and wait for the run."""
        assert self.crawler.engine is not None
        if not self.dispatcher.started:  # the run has not begun, and is not going to
            raise DontCloseSpider
        try:
            self.diversion.divert_and_crawl()
            if not self.walk.over:
                self.cutter.cut_all()
                # Another handler of the signal may have given the engine more to do.
                if self.crawler.engine.spider_is_idle() and not self.walk.waits:
                    self.walk.is_done()
                    self._note_walked()
                    self.dispatcher.send_ready()  # which sees that what is on the nodes is the last
            if self.walk.over:
                self.cutter.cut_rest()
        except LedgerUnavailableError as error:
            self.ledger_failed(error)
        if not self.done:
            raise DontCloseSpider

    def request_scheduled(self) -> None:
        """The walk goes on: a spider may have more to crawl when it is idle. Not where it is over with the crawl."""
        if self.walk.done and self.why.means in (None, Means.PAUSE):
            self.walk.done, self._says_walked = False, True
            try:
                self._walk_on()
            except LedgerUnavailableError as error:
                self.ledger_failed(error)

    def _walk_on(self) -> None:
        self.ledger.intake.walk_on()
        self._says_walked = False

    @property
    def done(self) -> bool:
        if self.cutter.open_batch.count or self.diversion.taken or self.walk.waits:
            return False
        if self.keeper is not None and not self.keeper.idle:
            return False
        return self.ledger.account.settled() if self.config.wait else self.ledger.account.posted()

    def changed(self) -> None:
        """A batch was taken or settled: close at once if that was the last, the engine's heartbeat may be 5 s away."""
        engine = self.crawler.engine
        if self.closing or not self.walk.done or engine is None or not engine.spider_is_idle():
            return
        self.cutter.cut_rest()
        if self.done:
            self._close_if_nothing_is_left()

    # Early

    def cannot_begin(self, error: DistributedError) -> None:
        """Before anything was begun the reason stands alone in the log."""
        if isinstance(error, LedgerUnavailableError):  # the dispatcher may be at work already
            self.ledger_failed(error)
            return
        logger.error("The crawl does not start: %s", error, extra=self._extra)
        self.close("fleet_unusable" if isinstance(error, FleetUnusableError) else "start_refused")

    def ledger_failed(self, error: LedgerUnavailableError) -> None:
        self.walk.failed = True  # so a resumed run walks again, and finds these again
        logger.critical("The ledger %s can't be written: %s", self.ledger.path, error, extra=self._extra)
        self.close("ledger_failed")

    def stranded(self) -> None:
        logger.error(
            "No node could be used for %d s (DISTRIBUTED_FLEET_TIMEOUT): giving up for now", self.config.fleet_timeout,
            extra=self._extra,
        )  # fmt: skip
        self.close("fleet_unusable")

    def no_job_starts(self, why: str) -> None:
        if not self.closing or self.why.settles:
            logger.error(
                "No job of this run can start: %s. When that is mended, and deployed where there are Scrapyds (scrapy"
                " fleet deploy), the same command goes on", why, extra=self._extra,
            )  # fmt: skip
            self.close(NO_JOB_STARTS)

    def job_counts(self, node: str, receipt: Receipt) -> None:
        """Close where *receipt*, which counts, says that a limit is reached, or the spider has closed itself."""
        if closed_itself(receipt):
            logger.info("The spider has closed itself on %s: %s", node, receipt.finish_reason, extra=self._extra)
        if reason := self.limits.reached(receipt):
            self.close(reason)

    def stopped_by(self, receipt: Receipt) -> str:
        """Why the run is stopped when *receipt*, a final one, is accepted, if it is not yet. '' if it goes on."""
        if self.why.stops:
            return self.why.reason
        return self.limits.of_job(receipt) if self.why.means is not Means.PAUSE else ""

    def _closes_for(self, reason: object) -> None:
        super()._closes_for(reason)
        if reason in UNABLE:
            self._unable = True
        if not self.why.settles:
            self.discoveries.stop()
        if self.why.ends_jobs:  # not one more, until those under way are told to end
            self.dispatcher.send_no_more()

    # Either way

    async def _bring_home(self) -> None:
        try:
            if self._says_walked:
                self._walk_on()
            if self.dispatcher.started:
                await maybe_deferred_to_future(Deferred.fromCoroutine(self._land()))
        except LedgerUnavailableError as error:
            self._tell_unwritten(error)
        except Exception:  # what has come home goes into the feeds all the same
            logger.exception("Looking after the run failed at its end", extra=self._extra)
        finally:
            self.discoveries.stop()

    async def _land(self) -> None:
        try:
            cut_off = self.diversion.divert()  # what can't travel, and nobody crawls any more
            if cut_off and self.why.reason != END_OF_WALK:
                self.walk.failed = True
            if self.why.settles:
                await self._settle()
            self.why.lands = True
            self.discoveries.stop()
            self.cutter.cut_all()
            self.cutter.note_slots()
            if self.why.ends_jobs:
                logger.info("The crawl ends (%s): its jobs are told to, and what they have done is waited for",
                            self.why.reason, extra=self._extra)  # fmt: skip
                await self.dispatcher.dismiss(hurried=lambda: self._hurried)
            elif not self.done:
                await self.dispatcher.recall(hurried=lambda: self._unable)
        finally:  # also where the ledger can't be written: who looks after the nodes is not to outlive the crawl
            await self.dispatcher.drain(self.config.shutdown_timeout)

    async def _settle(self) -> None:
        """The walk is over, and what it has found is crawled: nearly always that is so already where the crawl has
        finished, but for what a handler of ``spider_idle`` has found that was asked after ours."""
        self.walk.give_up()
        self.cutter.cut_all()
        if not self.walk.failed:
            self.walk.is_done()
            self._note_walked()
        if not self.done:
            logger.info("The crawl on this machine ends (%s): what it has found is crawled", self.why.reason,
                        extra=self._extra)  # fmt: skip
        while self.why.settles and not self._hurried and not self.done:
            self.cutter.cut_rest()
            await deferLater(self.clock, LOOK_SECONDS)

    async def shut_down(self, reason: str) -> None:
        """The spider is closed: the feeds are stored, and the run ends, if it is over."""
        self.why.asked(reason, idle=True)
        well = False
        try:
            await self._wind_up()
            stored = self.keeper is None or await self.keeper.close()
            if self.dispatcher.started and not self._unwritten:
                self._note_end(stored=stored)
                over = report(
                    self.ledger, self.crawler, reason, targets=str(self.diversion.diverter), wait=self.config.wait,
                    stored=stored, walked=self.walk.done, cutter=self.cutter,
                )  # fmt: skip
                handed_over = not self.config.wait and self.walk.done and self.done  # this command was to do no more
                well = over or (stored and handed_over)
                if over:
                    # Of an earlier one as well: a worker that had outlived it may have ended since.
                    self.dispatcher.fleet.forget([*self.ledger.harvest.earlier_runs(), self.ledger.run])
                    if self.keeper is not None:
                        self.keeper.ended()
        except LedgerUnavailableError as error:
            self._tell_unwritten(error)
        finally:
            if not well:
                ends_with_1(self.crawler)
            self._over = True
            self.ledger.close()

    def _note_walked(self) -> None:
        self.ledger.intake.lost_own(self.walk.lost)
        if self.keeper is None or self.keeper.own_is_safe():
            self.ledger.intake.walked()

    def _note_end(self, *, stored: bool) -> None:
        self.ledger.intake.lost_own(self.walk.lost)
        safe = self.keeper is None or self.keeper.own_is_safe()
        if self.why.stops and (stored or safe):
            while self.ledger.intake.divert_found() is not None:  # so that each is counted once
                pass
            self.ledger.account.stop(self.why.reason)
        elif stored and safe and self.walk.done:
            self.ledger.intake.walked()

    def _tell_unwritten(self, error: LedgerUnavailableError) -> None:
        self._unwritten = True
        logger.critical("The ledger %s can't be written: %s", self.ledger.path, error, extra=self._extra)
        if self._says_walked:
            logger.critical(
                "It says that the coordinator's own crawl is done, which went on: what that has found since is lost."
                " Begin a new run: the same command with -s DISTRIBUTED_RESUME=False",
                extra=self._extra,
            )

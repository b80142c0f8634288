"""When and why the crawl of a shared run's coordinator closes. Workers go on without it, unless the run is stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from scrapy.crawler import Crawler
from scrapy.exceptions import DontCloseSpider

from scrapy_distributed.config.config import Config
from scrapy_distributed.coordinator.closing import END_OF_WALK, SUPERSEDED, Means
from scrapy_distributed.coordinator.curtain import LOOK_SECONDS, Curtain
from scrapy_distributed.coordinator.diversion import Diversion
from scrapy_distributed.coordinator.exit_code import ends_with_1
from scrapy_distributed.coordinator.home_book import HomeBook
from scrapy_distributed.coordinator.keeper import Keeper
from scrapy_distributed.coordinator.limits import Limits, closed_itself
from scrapy_distributed.coordinator.shared_harvest import SharedHarvest
from scrapy_distributed.coordinator.shared_run import SharedRun
from scrapy_distributed.coordinator.shared_words import tell_end
from scrapy_distributed.coordinator.summary import tell_account
from scrapy_distributed.coordinator.walk import CUT_OFF, DROPPED, Walk
from scrapy_distributed.errors import DistributedError, FleetUnusableError, LedgerError, LedgerUnavailableError
from scrapy_distributed.shared.account import Account
from scrapy_distributed.shared.control import Control
from scrapy_distributed.shared.harvest import Home
from scrapy_distributed.shared.intake import LostWalkError
from scrapy_distributed.words import counted, listed

logger = logging.getLogger(__name__)


class SharedEnding(Curtain):
    """*run* is there once it has begun: ``None`` before. *harvest* brings home what its attempts have brought, *book*
    knows it. *passive*: another coordinator has brought the run to its end."""

    def __init__(
        self, crawler: Crawler, *, config: Config, walk: Walk, diversion: Diversion, keeper: Keeper | None,
        book: HomeBook, clock: Any,
    ) -> None:  # fmt: skip
        super().__init__(crawler, walk=walk, keeper=keeper, clock=clock)
        self.config = config
        self.diversion = diversion
        self.book = book
        self.run: SharedRun | None = None
        self.harvest: SharedHarvest | None = None
        self.passive = False
        self.limits = Limits(crawler.settings, items=self._items, walk=walk)

    def _items(self) -> int:
        return self.run.state.items if self.run is not None and self.run.state is not None else 0

    # When all is done

    def idle(self) -> None:
        """Nothing is left to crawl here: wait for the run."""
        assert self.crawler.engine is not None
        if self.run is None or not self.run.owned:
            raise DontCloseSpider
        self.diversion.divert_and_crawl()
        # Another handler of the signal may have given the engine more to do.
        if not self.walk.over and self.crawler.engine.spider_is_idle() and not self.walk.waits:
            self.walk.is_done()
            self.run.filled()
        if not self.done:
            raise DontCloseSpider

    def request_scheduled(self) -> None:
        """The walk goes on: a spider may have more to crawl when it is idle. Not where it is over with the crawl."""
        if self.walk.done and self.why.means in (None, Means.PAUSE):
            self.walk.done = False
            if self.run is not None:
                self.run.walks_on()

    def walk_is_done(self) -> bool:
        """Whether nothing more is found here, and all that was is in the buffer."""
        return self.walk.done and not (self.diversion.taken or self.walk.failed)

    def own_is_safe(self) -> bool:
        """Whether a later command has what was scraped here."""
        return self.keeper is None or self.keeper.own_is_safe()

    @property
    def done(self) -> bool:
        if self.run is None or self.diversion.taken or self.walk.waits or not self.run.settled:
            return False
        if self.harvest is not None and not self.harvest.idle:
            return False
        return self.keeper is None or self.keeper.idle

    def changed(self) -> None:
        """Something was seen of the run: close at once if nothing is left."""
        engine = self.crawler.engine
        if engine is None:
            return
        if self.run is not None and self.run.superseded:
            self._is_superseded()
        elif self.closing:
            return
        elif self.run is not None and self.run.state is not None and self.run.state.stored:
            logger.error(
                "Another command has begun this crawl anew (DISTRIBUTED_RESUME=False): that one writes the result",
                extra=self._extra,
            )  # fmt: skip
            self.run.owned = False
            self.close(SUPERSEDED)
        elif self.run is not None and self.run.state is not None and self.run.state.stopped:
            self.close(self.run.state.stopped)
        elif self.walk.done and engine.spider_is_idle() and self.done:
            self._close_if_nothing_is_left()

    def _is_superseded(self) -> None:
        """Whoever waits is not to wait any more, also where the crawl is closing: nothing comes home here."""
        if not self._unable:
            self._unable = True
            logger.error(
                "Another coordinator has taken this crawl over, as the server had not heard of this one for too long:"
                " that one writes the result", extra=self._extra,
            )  # fmt: skip
            self.close(SUPERSEDED)

    # Early

    def cannot_begin(self, error: DistributedError) -> None:
        logger.error("The crawl does not start: %s", error, extra=self._extra)
        away = isinstance(error, FleetUnusableError | LedgerUnavailableError)
        self.close("fleet_unusable" if away else "start_refused")

    def failed(self, error: BaseException) -> None:
        """A loop has ended that was to look after the run."""
        self.walk.failed = True  # so a resumed run walks again, and finds these again
        self._unable = True
        trace = None if isinstance(error, DistributedError) else error
        logger.critical("The run can't be looked after any more: %s", error, exc_info=trace, extra=self._extra)
        self.close("ledger_failed")

    def counts(self, home: Home) -> None:
        """Close where the receipt of an attempt says that a limit is reached, or the spider has closed itself."""
        if closed_itself(home):
            logger.info("The spider has closed itself on %s: %s", home.worker, home.finish_reason,
                        extra=self._extra)  # fmt: skip
        if reason := self.limits.reached(home):
            self.close(reason)

    # Either way

    async def _bring_home(self) -> None:
        run = self.run
        if run is None:
            return
        if not run.owned:
            await run.stop()
            return
        try:
            if self.diversion.divert() and self.why.reason != END_OF_WALK:
                self.walk.failed = True  # what can't travel, and nobody crawls any more
            if self.why.settles:
                await self._settle(run)
            if self.why.stops:
                await self._stop(run)
            elif run.owned and not self.why.settles:
                await self._hand_over(run)
            if run.own.begun and (self.why.stops or (self.why.settles and self.walk_is_done())):
                await self._settle_own(run)
            self.why.lands = True
        except (LedgerError, LedgerUnavailableError) as error:
            self.failed(error)
        finally:
            await run.stop()

    async def _settle(self, run: SharedRun) -> None:
        """The walk is over, and what it has found is crawled."""
        self.walk.give_up()
        if not self.walk.failed:
            self.walk.is_done()
        run.filled()
        if not self.done:
            logger.info("The crawl on this machine ends (%s): what it has found is crawled", self.why.reason,
                        extra=self._extra)  # fmt: skip
        await self._wait(lambda: not self.why.settles or self.done)

    async def _stop(self, run: SharedRun) -> None:
        """Nothing more of it is begun; what is under way is told to end, and comes home."""
        self.own_is_safe()  # a run that was stopped is not walked again
        await self._wait(lambda: run.all_added)
        logger.info("The crawl ends (%s): its jobs are told to, and what they have done is waited for",
                    self.why.reason, extra=self._extra)  # fmt: skip
        stop = asyncio.ensure_future(run.sure(partial(self._say_stopped, run)))
        await self._wait(stop.done)
        if not stop.done():
            stop.cancel()
            if run.state is not None and run.state.stopped and not run.all_added:
                self.walk.is_cut_off()
            return
        stop.result()
        await self._wait(lambda: self.done)

    async def _say_stopped(self, run: SharedRun) -> None:
        """All that was found is added."""
        await Control(run.intake.server, run.intake.keys.project, run.intake.run).stop(self.why.reason)
        await run.intake.walked()

    async def _settle_own(self, run: SharedRun) -> None:
        """What was scraped here is not scraped again: where the server keeps it, it counts, as the last of all."""
        await self._wait(lambda: run.all_added)
        settling = asyncio.ensure_future(run.own.settle(walked=not self.why.stops))
        await self._wait(settling.done)
        if not settling.done():
            settling.cancel()
            return
        settling.result()
        await self._wait(lambda: self.done)

    async def _hand_over(self, run: SharedRun) -> None:
        """What is buffered is added; workers go on with it."""
        if run.buffer.size:
            logger.info("%d requests are still to be added to the run", run.buffer.size, extra=self._extra)
        deadline = self.clock.seconds() + self.config.shutdown_timeout
        while not (run.all_added or self._unable or self.clock.seconds() > deadline):
            await asyncio.sleep(LOOK_SECONDS)
        if not run.all_added:
            logger.warning("%d requests could not be added: the same command finds them again", run.buffer.size,
                           extra=self._extra)  # fmt: skip

    async def _wait(self, over: Callable[[], bool]) -> None:
        while not (over() or self._hurried):
            await asyncio.sleep(LOOK_SECONDS)

    async def shut_down(self, reason: str) -> None:
        """The spider is closed: the feeds are stored, and the run ends, if it is over."""
        self.why.asked(reason, idle=True)
        well = False
        try:
            await self._wind_up()
            stored = self.keeper is None or await self.keeper.close()
            well = await self._report(reason, stored=stored)
        except (LedgerError, LedgerUnavailableError) as error:
            logger.critical("%s", error, extra=self._extra)
        finally:
            if not well:
                ends_with_1(self.crawler)
            self._over = True

    async def _report(self, reason: str, *, stored: bool) -> bool:
        """End the run if it is over, and tell how it stands; returns whether this command has done what it was to
        do."""
        run = self.run
        if run is None or not run.owned:
            return self.passive
        try:
            return await asyncio.wait_for(self._end(run, reason, stored=stored), self.config.shutdown_timeout)
        except LostWalkError as error:
            logger.error("%s: that one writes the result", error, extra=self._extra)
            return False
        except (asyncio.TimeoutError, LedgerUnavailableError):
            logger.error("Run %s: the server could not be told that the crawl is over; the same command does that",
                         run.intake.run, extra=self._extra)  # fmt: skip
            return False

    async def _end(self, run: SharedRun, reason: str, *, stored: bool) -> bool:
        intake = run.intake
        if run.own.dropped and not self.walk_is_done():
            self.walk.lost[DROPPED] = 1
        await run.sure(partial(intake.lost_own, self.walk.lost))
        await self._tell_walked(run, stored=stored)
        state = await run.sure(intake.state)
        begun = self.harvest is not None  # else what is home already is not in the feeds
        over = begun and stored and not self._unable and state.ended is not None and not (state.home or state.own)
        if over:
            await run.sure(intake.stored)
            self.book.ended()
            if self.keeper is not None:
                self.keeper.ended()
        await run.sure(partial(intake.leave_walk, added=begun and run.all_added and not self._unable))
        account = Account(intake.server, intake.keys.project, intake.run)
        tell_account(
            self.crawler, intake.run, state.balance, worker_stats=await run.sure(account.worker_stats),
            losses=await run.sure(account.losses),
            raised=await run.sure(account.raised), targets=str(self.diversion.diverter), over=over,
        )  # fmt: skip
        tell_end(intake.run, state, reason, over=over, stored=stored, extra=self._extra)
        if self.book.unreadable:
            logger.error("Items are missing in the result, those of %s that can't be read: %s",
                         counted(len(self.book.unreadable), "attempt"), listed(self.book.unreadable),
                         extra=self._extra)  # fmt: skip
        return over and not self.book.unreadable and CUT_OFF not in self.walk.lost

    async def _tell_walked(self, run: SharedRun, *, stored: bool) -> None:
        """What the loop that does so may not have come to. A later command does not scrape again what was scraped here,
        so the walk of a run that goes on is not done before that is kept."""
        if not self.walk_is_done():
            if run.walked:
                await run.sure(partial(run.say_walked, False))
        elif stored and run.all_added and (self.own_is_safe() or run.settled):
            await run.sure(partial(run.say_walked, True))

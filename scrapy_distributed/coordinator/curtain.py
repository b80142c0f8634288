"""How a crawl is brought to its end, once, and not before what is under way has come home."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.exceptions import CloseSpider, DontCloseSpider
from scrapy.utils.defer import deferred_from_coro, maybe_deferred_to_future
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from scrapy_distributed.coordinator.closing import FINISHED, Closing
from scrapy_distributed.coordinator.keeper import Keeper
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.errors import DistributedError

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2


class Curtain(ABC):
    """Closes the crawl of *crawler*, whose own pages are *walk*. *keeper*: what has items to be stored before the run
    is over, if anything has. *why* it closes, if it does."""

    def __init__(self, crawler: Crawler, *, walk: Walk, keeper: Keeper | None, clock: Any) -> None:
        self.crawler = crawler
        self.spider = crawler.spider
        self.walk = walk
        self.keeper = keeper
        self.clock = clock
        self.why = Closing()
        self._extra = {"spider": self.spider}
        self._engine_closes = self._winds_up = self._wound_up = self._over = False
        self._unable = False

    @property
    def closing(self) -> bool:
        """Whether the crawl is closing already."""
        return self.why.begun

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether nothing is left to do, for this crawl and for its run."""

    @abstractmethod
    async def _bring_home(self) -> None:
        """What is under way comes home as far as it is waited for, then nothing more is begun; and what has come home
        goes where items go."""

    # When all is done

    @abstractmethod
    def idle(self) -> None:
        """Nothing is left to crawl here. Raises ``DontCloseSpider`` where the run is not over."""

    @abstractmethod
    def request_scheduled(self) -> None:
        """The walk goes on, if it was done."""

    def _close_if_nothing_is_left(self) -> None:
        """Close at once where no handler of the engine's signal has more: its heartbeat may be 5 s away."""
        engine = self.crawler.engine
        assert engine is not None
        answers = self.crawler.signals.send_catch_log(
            signals.spider_idle, spider=self.spider, dont_log=(DontCloseSpider, CloseSpider)
        )
        raised = [answer.value for _, answer in answers if isinstance(answer, Failure)]
        if not any(isinstance(error, DontCloseSpider) for error in raised):
            if not (engine.spider_is_idle() and self.walk.done and self.done):
                return  # a handler has given the engine more to do
            asked = next((error.reason for error in raised if isinstance(error, CloseSpider)), None)
            self.close(asked or FINISHED)

    # Early

    @abstractmethod
    def cannot_begin(self, error: DistributedError) -> None:
        """Close, since the run can't begin."""

    def close(self, reason: str) -> None:
        first = not self.closing
        if self.crawler.engine is not None:
            self._closes_for(reason)  # the engine hears of it later
            if first:
                deferred_from_coro(self.crawler.engine.close_spider_async(reason=self.why.reason))

    def _closes_for(self, reason: object) -> None:
        assert self.crawler.engine is not None
        self.why.asked(reason, idle=self.crawler.engine.spider_is_idle())

    # Either way

    def connect(self) -> None:
        """To be called when the engine is there: what is under way is to come home before anybody who takes items has
        closed, and Scrapy waits for pipelines before it tells them. It tells them why only when they have closed."""
        engine: Any = self.crawler.engine
        engine.scraper.itemproc.methods["close_spider"].append(self._wind_up)
        close = engine.close_spider_async

        async def close_spider_async(*, reason: Any = "cancelled") -> None:
            self._closes_for(reason)
            if self._engine_closes:  # Scrapy would not wait for a crawl that is closing, but stop the reactor under it
                await self._until(lambda: self._over)
                return
            self._engine_closes = True
            try:
                await close(reason=reason)
            finally:
                self._over = True

        engine.close_spider_async = close_spider_async

    async def _until(self, over: Callable[[], bool]) -> None:
        while not over():
            await maybe_deferred_to_future(deferLater(self.clock, LOOK_SECONDS))

    async def _wind_up(self) -> None:
        """``_bring_home``, once. Whoever asks for it waits until it is done."""
        if self._winds_up:
            await self._until(lambda: self._wound_up)
            return
        self._winds_up = True
        try:
            await self._bring_home()
        finally:
            try:
                if self.keeper is not None:
                    await self.keeper.finish()
            finally:
                self._wound_up = True

    @property
    def _hurried(self) -> bool:
        """Whether nobody is to wait any more: by Ctrl-C while the crawl is closing, or since nothing can come."""
        return self._unable or not self.crawler.crawling

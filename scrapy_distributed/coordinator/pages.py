"""Scrapy's hooks on the start and the pages of a coordinator's own crawl: what is the fleet's is taken away."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from inspect import isasyncgen
from typing import Any

from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.spidermiddlewares.httperror import HttpError
from scrapy.utils.defer import maybe_deferred_to_future
from twisted.internet.task import deferLater

from scrapy_distributed.config.config import Config
from scrapy_distributed.coordinator.curtain import Curtain
from scrapy_distributed.coordinator.diversion import Diversion
from scrapy_distributed.coordinator.homecoming import Homecoming
from scrapy_distributed.coordinator.own_pages import OwnPages
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.errors import DistributedError
from scrapy_distributed.fast import preset
from scrapy_distributed.wire.request import IS_START

logger = logging.getLogger(__name__)


class Pages(ABC):
    """The part of a coordinator's spider middleware that sees what its spider yields."""

    crawler: Crawler
    config: Config
    walk: Walk
    diversion: Diversion
    homecoming: Homecoming | None
    own_pages: OwnPages | None
    ending: Curtain
    clock: Any

    @abstractmethod
    async def _begin(self) -> bool:
        """Returns whether the spider's start is to be walked. Raises ``DistributedError`` where the run can't begin."""

    @abstractmethod
    async def _spider_closed(self, reason: str) -> None: ...

    def _open(self) -> None:
        """From now on Scrapy's signals are heard. Raises ``ConfigError`` for a feed that Scrapy has disabled."""
        if self.homecoming is not None:
            self.homecoming.check()
        if self.config.fast_workers:
            logger.info(preset.NOTICE, preset.ADDON, extra={"spider": self.crawler.spider})
        connect = self.crawler.signals.connect
        connect(self.ending.idle, signals.spider_idle)
        connect(self.ending.request_scheduled, signals.request_scheduled)
        connect(self.diversion.request_scheduled, signals.request_scheduled)
        connect(self._spider_closed, signals.spider_closed)

    # The start

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Preflight, the run, the dispatcher; then the start of the spider, unless its walk is done already. Not before
        Scrapy asks for the first request: only from then on it can be interrupted, or end without a traceback."""
        self.walk.connect()  # before a component asks for a page
        self.ending.connect()
        return self._run(start)

    async def _run(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            to_walk = await self._begin()
        except DistributedError as error:
            if isasyncgen(start):
                await start.aclose()
            self.ending.cannot_begin(error)
            return
        except Exception:
            self.ending.close("start_error")
            raise
        async for output in self._start(start, walk=to_walk):
            yield output

    async def _leave_time(self) -> None:
        """A start of millions must leave time for sending them."""
        await maybe_deferred_to_future(deferLater(self.clock, 0))

    async def _start(self, start: AsyncIterator[Any], *, walk: bool) -> AsyncIterator[Any]:
        if not walk:
            return
        try:
            async for output in start:
                if isinstance(output, Request):
                    output.meta.setdefault(IS_START, True)  # Scrapy's middleware does not see what is diverted
                if not self.diversion.takes(output):
                    yield output
                elif self.diversion.full:
                    for request in self.diversion.divert():
                        yield request
                    await self._leave_time()
        except Exception:
            self.walk.failed = True
            raise
        for request in self.diversion.divert():
            yield request
        self.walk.start_read = True

    # Its pages

    def process_spider_input(self, response: Response) -> None:
        self.diversion.answered(response)

    # Twice: see ``scrapy_distributed.middleware``.

    def process_spider_output(self, response: Response, result: Iterable[Any]) -> Iterable[Any]:
        try:
            for output in result:
                yield from self._passed(output, response)
        except Exception:
            yield from self.diversion.divert()
            raise
        yield from self.diversion.divert()

    async def process_spider_output_async(self, response: Response, result: AsyncIterator[Any]) -> AsyncIterator[Any]:
        try:
            async for output in result:
                for passed in self._passed(output, response):
                    yield passed
        except Exception:
            for request in self.diversion.divert():
                yield request
            raise
        for request in self.diversion.divert():
            yield request

    def _passed(self, output: Any, response: Response) -> Iterable[Any]:
        if self.own_pages is not None and not self.own_pages.takes(output, response):
            return ()
        return self.diversion.passed(output)

    def process_spider_exception(self, response: Response, exception: Exception) -> None:
        if isinstance(exception, HttpError):
            self.walk.response_refused(response, exception)

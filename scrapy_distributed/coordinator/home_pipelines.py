"""Item pipelines that run once, at home: those that write one file, or keep what they have seen of all items."""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Collection
from typing import Any

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.exceptions import DropItem
from scrapy.utils.log import logformatter_adapter
from scrapy.utils.misc import load_object
from twisted.python.failure import Failure

logger = logging.getLogger(__name__)


class HomePipelines:
    """Those pipelines of *crawler* that have one of these *names*, in Scrapy's order. To be made when its engine is
    there."""

    def __init__(self, crawler: Crawler, names: Collection[str]) -> None:
        self.crawler = crawler
        self.spider: Any = crawler.spider
        kinds = {load_object(name) for name in names}
        assert crawler.engine is not None
        every: Any = crawler.engine.scraper.itemproc
        self._manager = copy.copy(every)  # with the same pipelines, of which it asks some
        chosen = [one for one in every.methods["process_item"] if type(getattr(one, "__self__", None)) in kinds]
        self._manager.methods = {**every.methods, "process_item": deque(chosen)}

    async def process(self, item: Any) -> Any:
        """What they make of *item*, which has come home; ``None`` where one has dropped it or failed: then log and
        signals tell, as Scrapy's do."""
        try:
            return await self._manager.process_item_async(item)
        except DropItem as error:
            words = self.crawler.logformatter.dropped(item, error, None, self.spider)
            self._log(words, item)
            await self._signal(signals.item_dropped, item, exception=error)
        except Exception as error:
            words = self.crawler.logformatter.item_error(item, error, None, self.spider)
            self._log(words, item, exc_info=error)
            failure = Failure(error)  # type: ignore[no-untyped-call]
            await self._signal(signals.item_error, item, failure=failure)
        return None

    def _log(self, words: Any, item: Any, **more: Any) -> None:
        if words is not None:
            logger.log(*logformatter_adapter(words), extra={"spider": self.spider, "item": item}, **more)

    async def _signal(self, signal: object, item: Any, **more: Any) -> None:
        signals_of = self.crawler.signals
        await signals_of.send_catch_log_async(signal=signal, item=item, response=None, spider=self.spider, **more)

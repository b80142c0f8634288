"""The process that has started this one: when it is gone nobody is there who would end this one."""

from __future__ import annotations

import logging
import os
import signal
import time
from threading import Thread

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.utils.asyncio import create_looping_call
from scrapy.utils.defer import deferred_from_coro

from scrapy_distributed.errors import ConfigError

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
LAST_SECONDS = 30  # for pages that are under way, and the final receipt


class Parent:
    """Ends *crawler*, as Ctrl-C does, when the process *pid* is its parent no longer. What is not done by
    ``LAST_SECONDS`` later does not count: then it is killed, also where a callback holds up the event loop."""

    def __init__(self, crawler: Crawler, pid: int) -> None:
        self.crawler = crawler
        self.pid = pid
        self._check = create_looping_call(self._end_if_gone)
        crawler.signals.connect(self._spider_opened, signals.spider_opened)
        crawler.signals.connect(self._spider_closed, signals.spider_closed)

    @property
    def gone(self) -> bool:
        return os.getppid() != self.pid

    def check(self) -> None:
        """Raises ``ConfigError`` if it is gone: its successor may have given the batch to another job."""
        if self.gone:
            raise ConfigError(
                f"DISTRIBUTED_PARENT: found process {os.getppid()} as the parent of this one, expected {self.pid},"
                " which has started it: that has ended, and whoever comes after it sends the batch again"
            )

    def _spider_opened(self) -> None:
        Thread(target=self._kill_late, daemon=True).start()
        self._check.start(CHECK_SECONDS, now=False)

    def _kill_late(self) -> None:
        while not self.gone:
            time.sleep(CHECK_SECONDS)
        signal.alarm(LAST_SECONDS)

    def _spider_closed(self) -> None:
        if self._check.running:
            self._check.stop()

    def _end_if_gone(self) -> None:
        if not self.gone:
            return
        self._check.stop()
        logger.warning("The process %d, which has started this job, is gone: the job ends", self.pid)
        assert self.crawler.engine is not None
        deferred_from_coro(self.crawler.engine.close_spider_async(reason="shutdown"))

"""The warm process of workers on this machine, started before it is needed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from scrapy.exceptions import NotConfigured
from scrapy.utils.reactor import is_reactor_installed

from scrapy_distributed.role import is_borrowed

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings

    from scrapy_distributed.agent.warm_process import WarmProcess

ORDER = -1
"""Before the extensions of Scrapy: each takes a while to import."""
UNTAKEN_SECONDS = 60.0
"""If nobody has taken it by then the crawl has not begun."""


class WarmStart:
    """Extension of a crawl whose workers are on this machine: what they have in common is imported in another process
    while Scrapy builds the engine in this one."""

    def __init__(self, reactor: Any) -> None:
        from scrapy_distributed.agent.warm_process import WarmProcess

        self._process: WarmProcess | None = WarmProcess(reactor, detached=True)
        self._process.start()
        self._timer = reactor.callLater(UNTAKEN_SECONDS, self._end)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> WarmStart:
        """Raises ``NotConfigured`` for any other crawl."""
        if is_borrowed(crawler) or not is_reactor_installed() or not _has_workers_here(crawler.settings):
            raise NotConfigured
        from twisted.internet import reactor

        try:
            return cls(reactor)
        except OSError:  # who needs it starts one itself, and tells
            raise NotConfigured from None

    def take(self) -> WarmProcess | None:
        """The process, which is the caller's now; ``None`` if it is somebody's already."""
        process, self._process = self._process, None
        if self._timer.active():
            self._timer.cancel()
        return process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()


def _has_workers_here(settings: BaseSettings) -> bool:
    """Whether it is a coordinator's crawl, with workers on this machine. What is wrong in *settings* others tell."""
    from scrapy_distributed.config.config import Config
    from scrapy_distributed.coordinator.shared_hosts import is_shared
    from scrapy_distributed.fleet.local_slots import is_local

    with suppress(ValueError):
        config = Config.from_settings(settings)
        here = any(map(is_local, config.target_hosts)) and not is_shared(config.target_hosts)
        return config.enabled and config.start_url is None and here
    return False

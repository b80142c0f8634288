"""The Scrapy border: which role has this crawl? Then hand over.

A command of Scrapy that borrows a spider (``shell``, ``fetch``, ``parse``, ``check``) has none: nothing is distributed.

Both roles have ``process_spider_output`` twice, synchronous and asynchronous. Were it asynchronous alone, Scrapy 2.14
would drop the items that a middleware of the project makes of an error, and those of a failed page before a
synchronous one; Scrapy 2.19 calls the asynchronous one alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy import signals
from scrapy.exceptions import NotConfigured

from scrapy_distributed.config.config import Config
from scrapy_distributed.errors import ConfigError, DistributedError
from scrapy_distributed.role import is_borrowed

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

    from scrapy_distributed.coordinator.coordinator import Coordinator
    from scrapy_distributed.coordinator.shared_coordinator import SharedCoordinator
    from scrapy_distributed.worker.worker import Worker


class DistributedSpiderMiddleware:
    """Spreads a crawl over the Scrapyd nodes in ``DISTRIBUTED_TARGET_HOSTS``; with ``DISTRIBUTED_START_URL`` set it is
    the worker of one batch. All settings: ``scrapy_distributed.config.config.SETTINGS`` and the README."""

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Coordinator | SharedCoordinator | Worker:
        """The middleware of this crawl's role.

        Raises ``NotConfigured`` where nothing is to be distributed, and ``ValueError`` where a setting is wrong: the
        crawl does not start then.
        """
        try:
            return _role_of(crawler)
        except NotConfigured:
            raise
        except Exception as error:
            crawler.spider = None  # without it Scrapy 2.14 ends with 0, as if there had been a crawl
            if isinstance(error, DistributedError) and crawler.settings.get("DISTRIBUTED_START_URL") is None:
                from scrapy_distributed.coordinator.refused import say_alone

                say_alone(error)  # a job's log keeps the way as well
            raise


def _role_of(crawler: Crawler) -> Coordinator | SharedCoordinator | Worker:
    if is_borrowed(crawler):
        raise NotConfigured
    from scrapy_distributed.guard.guard import stand_by

    crawler.signals.connect(stand_by, signals.spider_opened)
    config = Config.from_settings(crawler.settings)
    if config.start_url is not None:
        from scrapy_distributed.worker.worker import Worker

        return Worker.from_crawler(crawler)
    if not config.enabled:
        raise NotConfigured
    # Only here: a worker needs no treq, and must run where no Twisted reactor is.
    from scrapy_distributed.coordinator.shared_hosts import is_shared

    try:
        if is_shared(config.target_hosts):
            from scrapy_distributed.coordinator.shared_coordinator import SharedCoordinator

            return SharedCoordinator.from_crawler(crawler)
        from scrapy_distributed.coordinator.coordinator import Coordinator

        return Coordinator.from_crawler(crawler)
    except NotConfigured as error:  # Scrapy would go on without us: a crawl on one machine that nobody has asked for
        raise ConfigError(f"found NotConfigured: {error}, expected a crawl that can be distributed") from error

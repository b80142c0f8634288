"""What a coordinator refuses before a node is asked, and how that is said."""

from __future__ import annotations

import logging
import weakref

from scrapy import Spider
from scrapy.settings import BaseSettings

from scrapy_distributed.config.advice import check_feeds
from scrapy_distributed.config.config import Config
from scrapy_distributed.divert.diverter import check_targets
from scrapy_distributed.errors import ConfigError, DistributedError


def check_settings(settings: BaseSettings) -> None:
    if not settings.getbool("TWISTED_REACTOR_ENABLED", True):
        raise ConfigError(
            "TWISTED_REACTOR_ENABLED: found False, expected True on the coordinator; workers may go without"
        )
    if settings.get("JOBDIR"):
        raise ConfigError(
            "JOBDIR: a coordinator keeps its state in its ledger, and JOBDIR would skip pages that an interrupted"
            " run had seen and not fetched; leave it out (-s JOBDIR= where the project sets it), the same command"
            " resumes the run"
        )


def check_config(config: Config, spider: Spider) -> None:
    """Refuse what can be seen to be wrong before a node is asked."""
    if not config.target_hosts:
        raise ConfigError(
            "DISTRIBUTED_TARGET_HOSTS: found nothing, expected ['local'], for workers on all cores of this machine, or"
            " the Scrapyd nodes of the fleet, e.g. ['scrapyd1:6800']; DISTRIBUTED_ENABLED = False crawls this spider"
            " in one process"
        )
    check_targets(config, spider)
    check_feeds(config)


class _Alone(logging.Filter):
    """In place of *error*, and the way that it took, its words alone."""

    def __init__(self, error: DistributedError) -> None:
        super().__init__()
        self._error = weakref.ref(error)  # a Deferred that nobody looks at tells of its own when it is collected

    def filter(self, record: logging.LogRecord) -> bool:
        error = self._error()
        if record.exc_info and error is not None and record.exc_info[1] is error:
            record.name, record.msg, record.args = __name__, f"The crawl does not start: {error}", ()
            record.exc_info = record.exc_text = None
        return True


def say_alone(error: DistributedError) -> None:
    """*error* is about to end a crawl that has not begun: then it stands alone in the log. Scrapy leaves it to the
    event loop to log what a task or a Deferred has ended with, and that shows the way that it took."""
    alone = _Alone(error)
    for log in map(logging.getLogger, ("asyncio", "twisted")):
        log.addFilter(alone)
        weakref.finalize(error, log.removeFilter, alone).atexit = False  # a Deferred may be collected after that

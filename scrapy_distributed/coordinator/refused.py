"""What a coordinator refuses before a node is asked."""

from __future__ import annotations

from scrapy import Spider
from scrapy.settings import BaseSettings

from scrapy_distributed.config.advice import check_feeds
from scrapy_distributed.config.config import Config
from scrapy_distributed.divert.diverter import check_targets
from scrapy_distributed.errors import ConfigError


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

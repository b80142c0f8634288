"""What the command exits with."""

from __future__ import annotations

from scrapy import signals
from scrapy.crawler import Crawler


def ends_with_1(crawler: Crawler) -> None:
    """Scripts see by the exit code that the run of *crawler* is not settled. That there is no spider is, with an
    exception, the one thing that makes Scrapy's 1; when the engine has stopped nobody asks for it any more."""

    def fail() -> None:
        crawler.spider = None

    crawler.signals.connect(fail, signals.engine_stopped, weak=False)

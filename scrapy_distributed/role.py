"""Whose crawl is this?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scrapy.crawler import Crawler


def is_borrowed(crawler: Crawler) -> bool:
    """Whether a command of Scrapy has borrowed the spider.

    ``scrapy shell`` makes the engine without one; the others put a start of their own into the spider class."""
    return crawler.spider is None or getattr(crawler.spider.start, "__module__", "").startswith("scrapy.commands")

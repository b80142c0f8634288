"""A diverter without a crawl, and a spider for it."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from scrapy import Spider
from scrapy.downloadermiddlewares.offsite import OffsiteMiddleware
from scrapy.settings import Settings
from scrapy.statscollectors import MemoryStatsCollector

from scrapy_distributed.config.config import Config
from scrapy_distributed.divert.diverter import Diverter
from scrapy_distributed.divert.fingerprint import quick_fingerprint
from scrapy_distributed.divert.offsite import Offsite


class Plain(Spider):
    name = "plain"
    allowed_domains = ["a.example"]

    def parse_page(self, response: Any) -> None:
        """A callback."""

    def parse(self, response: Any) -> None:
        """The default callback."""


def diverter(
    spider: Spider, *, offsite: type[OffsiteMiddleware] | None = OffsiteMiddleware, filters: bool = True,
    **settings: Any,
) -> Diverter:  # fmt: skip
    stats = MemoryStatsCollector(SimpleNamespace(settings=Settings()))  # type: ignore[arg-type]
    crawler = SimpleNamespace(spider=spider, stats=stats)
    rule = None
    if offsite is not None:
        rule = offsite(stats)
        rule.crawler = crawler  # type: ignore[assignment]
        rule.spider_opened(spider)
    crawler.get_downloader_middleware = lambda cls: rule
    occurrences: Counter[bytes] = Counter()

    def occurrence(key: bytes) -> int:
        occurrences[key] += 1
        return occurrences[key]

    config = Config.from_settings(Settings({f"DISTRIBUTED_{name.upper()}": value for name, value in settings.items()}))
    return Diverter(
        config=config, spider=spider, stats=stats, offsite=Offsite(crawler),  # type: ignore[arg-type]
        fingerprint=quick_fingerprint, occurrence=occurrence, filters=filters, session_of=lambda request: None,
    )  # fmt: skip

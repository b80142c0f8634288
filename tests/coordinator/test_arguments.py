"""The arguments of a crawl are those that its spider was given, whatever the spider has made of them."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from scrapy import Spider
from scrapy.crawler import AsyncCrawlerRunner, Crawler, CrawlerRunner
from scrapy.exceptions import NotConfigured
from twisted.internet.defer import Deferred

from scrapy_distributed.coordinator.arguments import arguments_of
from scrapy_distributed.errors import ConfigError


class Keeping(Spider):
    name = "keeping"
    start_urls: list[str] = []


class Forgetting(Spider):
    name = "forgetting"
    start_urls: list[str] = []

    def __init__(self, category: str = "all", *args: Any, **kwargs: Any) -> None:
        super().__init__(name=self.name)
        self.page = 7


class Making(Forgetting):
    name = "making"

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> Any:
        kwargs.clear()
        return super().from_crawler(crawler, *args, own="1")


class Asking:
    """Spider middleware, made where a coordinator is."""

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Any:
        found.append((crawler, arguments_of(crawler)))
        raise NotConfigured


found: list[tuple[Crawler, dict[str, Any]]] = []
SETTINGS = {"SPIDER_MIDDLEWARES": {Asking: 100}, "TELNETCONSOLE_ENABLED": False, "LOG_ENABLED": False}


def crawl(way: str, spider: type[Spider], *args: Any, **kwargs: Any) -> Any:
    if way == "Crawler":
        return Crawler(spider, SETTINGS).crawl(*args, **kwargs)
    if way == "CrawlerRunner":
        return CrawlerRunner(SETTINGS).crawl(spider, *args, **kwargs)
    runner = AsyncCrawlerRunner(SETTINGS)
    return Deferred.fromFuture(runner.crawl(Crawler(spider, SETTINGS), *args, **kwargs))


@pytest.mark.parametrize("way", ["Crawler", "CrawlerRunner", "AsyncCrawlerRunner"])
@pytest.mark.parametrize("spider", [Keeping, Forgetting, Making])
@pytest_twisted.ensureDeferred
async def test_all_that_the_spider_was_given(way: str, spider: type[Spider]) -> None:
    found.clear()
    given = {"category": "tea", "pages": 3, "self_service": "x"}
    await crawl(way, spider, **given)
    assert [arguments for _, arguments in found] == [given]


@pytest_twisted.ensureDeferred
async def test_each_crawl_of_a_process_has_its_own() -> None:
    found.clear()
    runner = CrawlerRunner(SETTINGS)
    crawls = [runner.crawl(Keeping, category=category) for category in ("tea", "coffee")]
    for one in crawls:
        await one
    assert [(crawler.spider.category, arguments) for crawler, arguments in found if crawler.spider] == [  # type: ignore[attr-defined]
        ("tea", {"category": "tea"}), ("coffee", {"category": "coffee"})
    ]  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_arguments_without_a_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="found 1 without a name, expected all of them with one"):
        await crawl("Crawler", Forgetting, "tea")


class Runner:
    def crawl(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return arguments_of(Crawler(Keeping, SETTINGS))


def test_a_call_of_another_says_nothing() -> None:
    with pytest.raises(ConfigError, match="nobody knows those of this crawl"):
        Runner().crawl(category="tea")


def test_without_a_call_nobody_knows_them() -> None:
    with pytest.raises(ConfigError, match="nobody knows those of this crawl"):
        arguments_of(Crawler(Keeping, SETTINGS))

"""Pipelines that run once, at home."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from scrapy import Spider, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import DropItem
from scrapy.pipelines import ItemPipelineManager
from scrapy.utils.defer import deferred_from_coro
from scrapy.utils.test import get_crawler

from scrapy_distributed.coordinator.home_pipelines import HomePipelines

# A pipeline may still take the spider.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*requires a spider argument:scrapy.exceptions.ScrapyDeprecationWarning"
)


class Doubles:
    def process_item(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "n": 2 * item["n"]}


class Picky:
    """Takes each item once."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    async def process_item(self, item: dict[str, Any], spider: Spider) -> dict[str, Any]:
        assert spider.name == "s"
        if item["n"] in self.seen:
            raise DropItem("seen")
        if item["n"] < 0:
            raise ValueError("below 0")
        self.seen.add(item["n"])
        return item


class Elsewhere:
    def process_item(self, item: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("it runs on workers")


@pytest.fixture
def crawler() -> Crawler:
    pipelines = {Doubles: 300, Elsewhere: 200, Picky: 100}
    crawler = get_crawler(Spider, {"ITEM_PIPELINES": pipelines})
    crawler.spider = Spider.from_crawler(crawler, name="s")
    manager = ItemPipelineManager.from_crawler(crawler)
    crawler.engine = SimpleNamespace(scraper=SimpleNamespace(itemproc=manager))  # type: ignore[assignment]
    return crawler


def told(crawler: Crawler) -> list[tuple[str, Any]]:
    calls: list[tuple[str, Any]] = []
    crawler.told = calls  # type: ignore[attr-defined]

    def dropped(item: Any, response: Any, exception: Exception) -> None:
        calls.append(("dropped", (item, response, str(exception))))

    def failed(item: Any, response: Any, failure: Any) -> None:
        calls.append(("failed", (item, response, str(failure.value))))

    crawler.signals.connect(dropped, signals.item_dropped, weak=False)
    crawler.signals.connect(failed, signals.item_error, weak=False)
    return calls


@pytest_twisted.ensureDeferred
async def test_those_that_are_named_run_in_scrapys_order(crawler: Crawler) -> None:
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in (Doubles, Picky)]
    pipelines = HomePipelines(crawler, names)
    calls = told(crawler)
    passed = [await deferred_from_coro(pipelines.process({"n": n})) for n in (1, 2, 1)]
    assert passed == [{"n": 2}, {"n": 4}, None]
    assert calls == [("dropped", ({"n": 1}, None, "seen"))]
    assert crawler.engine is not None
    assert len(crawler.engine.scraper.itemproc.methods["process_item"]) == 3  # what is scraped here passes all of them


@pytest_twisted.ensureDeferred
async def test_an_item_that_one_fails_with_is_an_item_error(crawler: Crawler, caplog: pytest.LogCaptureFixture) -> None:
    pipelines = HomePipelines(crawler, [f"{Picky.__module__}.{Picky.__qualname__}"])
    calls = told(crawler)
    with caplog.at_level(logging.ERROR):
        assert await deferred_from_coro(pipelines.process({"n": -1})) is None
    assert calls == [("failed", ({"n": -1}, None, "below 0"))]
    assert "Error processing {'n': -1}" in caplog.text

"""The coordinator of a shared run, without its server: when it asks for no further page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scrapy import Request, Spider, signals
from scrapy.utils.test import get_crawler
from twisted.internet.task import Clock

from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import ItemsGo
from scrapy_distributed.coordinator.buffer import MOST
from scrapy_distributed.coordinator.shared_coordinator import SharedCoordinator
from scrapy_distributed.coordinator.shared_hosts import shared_hosts


class Plain(Spider):
    name = "plain"


class Walking:
    """*calls*: what the engine was told."""

    def __init__(self, folder: Path, items_go: ItemsGo = ItemsGo.NOWHERE) -> None:
        settings = {"DISTRIBUTED_LEDGER": str(folder / "l"), "DISTRIBUTED_TARGET_HOSTS": "redis://queue"}
        self.crawler = get_crawler(Plain, settings)
        self.crawler.spider = Plain.from_crawler(self.crawler)
        self.calls: list[str] = []
        self.crawler.engine = SimpleNamespace(  # type: ignore[assignment]
            pause=lambda: self.calls.append("pause"), unpause=lambda: self.calls.append("unpause"),
            spider_is_idle=lambda: False, _slot=None,
            downloader=SimpleNamespace(middleware=SimpleNamespace(middlewares=[])),
        )  # fmt: skip
        config = Config.from_settings(self.crawler.settings)
        self.coordinator = SharedCoordinator(
            self.crawler, config=config, command=CommandLine(), hosts=shared_hosts(config.target_hosts),
            items_go=items_go, project="p", clock=Clock(),
        )  # fmt: skip
        self.coordinator.book.begin("r", {})
        run: Any = SimpleNamespace(filled=lambda: None, superseded=False, state=None, goes_on_untold=False)
        self.coordinator.run = run

    def find(self, numbers: range) -> None:
        for number in numbers:
            request = Request(f"http://a.example/{number}", meta={"distributed": True})
            list(self.coordinator.diversion.passed(request))


@pytest.fixture
def walking(tmp_path: Path) -> Iterator[Walking]:
    walking = Walking(tmp_path)
    yield walking
    walking.coordinator.book.close()


def test_no_page_is_asked_for_while_much_is_to_be_added(walking: Walking) -> None:
    walking.find(range(MOST - 1))
    walking.coordinator.diversion.divert()
    assert walking.calls == []
    walking.find(range(MOST, MOST + 400))
    assert walking.calls == ["pause"]
    while walking.coordinator.buffer.size >= MOST // 2:
        assert walking.calls == ["pause"]
        walking.coordinator.buffer.leave()
        walking.coordinator._changed()
    assert walking.calls == ["pause", "unpause"]


@pytest.fixture
def streaming(tmp_path: Path) -> Iterator[Walking]:
    walking = Walking(tmp_path, ItemsGo.STREAM)
    keeper = walking.coordinator.keeper
    assert keeper is not None
    keeper.begin("r", walk=True)
    yield walking
    walking.coordinator.book.close()


def scrape(walking: Walking, item: Any) -> None:
    walking.crawler.signals.send_catch_log(
        signals.item_scraped, item=item, response=None, spider=walking.crawler.spider
    )


def test_nor_while_many_items_are_to_go_into_a_stream(streaming: Walking) -> None:
    for number in range(MOST - 1):
        scrape(streaming, {"n": number})
    assert streaming.calls == []
    scrape(streaming, {"n": MOST})
    assert streaming.calls == ["pause"]
    first = streaming.coordinator.buffer.first()
    assert first is not None
    assert first.items == [b'[null,0,{"n":0}]\n']


def test_an_item_that_can_not_go_into_a_stream_is_one_that_the_walk_has_lost(
    streaming: Walking, caplog: pytest.LogCaptureFixture
) -> None:
    scrape(streaming, {"n": object()})
    assert streaming.coordinator.buffer.size == 0
    assert dict(streaming.coordinator.walk.lost) == {"item can't be kept: n object": 1}
    assert "An item that was scraped here is not in the stream: n object" in caplog.text


def test_what_is_diverted_is_no_page_of_which_items_are_taken_here(walking: Walking) -> None:
    walking.find(range(1))
    walking.coordinator.diversion.divert()
    key = walking.coordinator.diverter.fingerprint(Request("http://a.example/0"))
    assert not walking.coordinator.book.enter_pages([key])

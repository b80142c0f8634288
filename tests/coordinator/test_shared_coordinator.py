"""The coordinator of a shared run, without its server: when it asks for no further page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scrapy import Request, Spider
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

    def __init__(self, folder: Path) -> None:
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
            items_go=ItemsGo.NOWHERE, project="p", clock=Clock(),
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


def test_what_is_diverted_is_no_page_of_which_items_are_taken_here(walking: Walking) -> None:
    walking.find(range(1))
    walking.coordinator.diversion.divert()
    key = walking.coordinator.diverter.fingerprint(Request("http://a.example/0"))
    assert not walking.coordinator.book.enter_pages([key])

"""A coordinator whose engine is not there, nor its fleet: what it would do with them is noted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ledgers import IDENTITY
from scrapy import Request, Spider
from scrapy.utils.test import get_crawler
from taker import Taker
from treq.client import HTTPClient
from twisted.internet.task import Clock

from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import ItemsGo
from scrapy_distributed.coordinator.coordinator import Coordinator
from scrapy_distributed.coordinator.nodes import Nodes
from scrapy_distributed.fleet.node import Node, NodeAddress


class Plain(Spider):
    name = "plain"


class Stopped:
    """*idle*: what the engine says; *crawled*, *closed*: the requests and reasons that it was given."""

    def __init__(self, path: Path, *, items_go: ItemsGo = ItemsGo.FEEDS, **settings: Any) -> None:
        given = {"LEDGER": path, "BATCH_SIZE": 3, **settings}
        self.crawler = get_crawler(Plain, {f"DISTRIBUTED_{name}": str(value) for name, value in given.items()})
        self.crawler.spider = Plain.from_crawler(self.crawler)
        self.idle = True
        self.crawled: list[Request] = []
        self.closed: list[str] = []
        self.crawler.engine = SimpleNamespace(  # type: ignore[assignment]
            spider_is_idle=lambda: self.idle, crawl=self.crawled.append, close_spider_async=self._close,
            downloader=SimpleNamespace(middleware=SimpleNamespace(middlewares=[])),
            scraper=SimpleNamespace(itemproc=SimpleNamespace(methods={"close_spider": []})),
        )  # fmt: skip
        self.clock = Clock()
        node = Node(address=NodeAddress(name="n1", url="http://n1:6800"), client=HTTPClient(None), clock=self.clock)
        nodes = Nodes([node], project="p", spider=self.crawler.spider, feed=True, clock=self.clock)
        self.coordinator = Coordinator(
            self.crawler, command=CommandLine(), config=Config.from_settings(self.crawler.settings), nodes=nodes,
            items_go=items_go, clock=self.clock,
        )  # fmt: skip
        self.ledger = self.coordinator.ledger

    async def _close(self, *, reason: str) -> None:
        self.closed.append(reason)

    def begin(self) -> Taker:
        """The run begins."""
        self.ledger.begin(IDENTITY, resume=True)
        taker = Taker(self.ledger)
        self.coordinator.dispatcher = self.coordinator.ending.dispatcher = taker  # type: ignore[assignment]
        self.coordinator.cutter.start()
        return taker


def target(number: int, **meta: Any) -> Request:
    """One for the fleet."""
    return Request(f"http://a.example/{number}", meta={"distributed": True, **meta})

"""A minimal stand-in for the tutorial's design: batches of URLs go to Scrapyd nodes in turn, and nobody looks after
them. No ledger, no receipts, no retries: what it costs to send URLs at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import cycle
from typing import Any

import treq
from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.link import Link
from scrapy.spidermiddlewares.base import BaseSpiderMiddleware


class Distributed(BaseSpiderMiddleware):
    """On the coordinator: takes away the requests of one rule. On a worker: its URLs are the start."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self.spider: Any = crawler.spider
        self.settings = crawler.settings
        self.rule = self.settings.getint("TUTORIAL_RULE")
        self.size = self.settings.getint("TUTORIAL_BATCH_SIZE")
        self.hosts = cycle(self.settings.getlist("TUTORIAL_HOSTS"))
        self.is_worker = self.settings["TUTORIAL_URLS"] is not None
        self.urls: list[str] = []
        self.posts: list[asyncio.Future[None]] = []
        crawler.signals.connect(self.closed, signals.spider_closed)

    async def process_start(self, start: AsyncIterator[Any]) -> AsyncIterator[Any]:
        if self.is_worker:
            for url in json.loads(self.settings["TUTORIAL_URLS"]):
                yield self.spider._build_request(self.rule, Link(url))
        else:
            async for request in start:
                yield request

    def get_processed_request(self, request: Request, response: Response | None) -> Request | None:
        if self.is_worker or request.meta.get("rule") != self.rule:
            return request
        self.urls.append(request.url)
        if len(self.urls) == self.size:
            self.send()
        return None

    def send(self) -> None:
        urls, self.urls = self.urls, []
        self.posts.append(asyncio.ensure_future(self.post(next(self.hosts), len(self.posts) + 1, urls)))

    async def post(self, host: str, number: int, urls: list[str]) -> None:
        feed = f"{self.settings['TUTORIAL_FEEDS']}/{number}.jl"
        settings = self.settings.getdict("TUTORIAL_WORKER_SETTINGS") | {
            "FEEDS": json.dumps({feed: {"format": "jsonlines"}}),
            "TUTORIAL_URLS": json.dumps(urls),
        }
        form = [("project", "tutorial"), ("spider", self.spider.name), ("site", self.spider.site)]
        form += [("setting", f"{name}={value}") for name, value in settings.items()]
        deferred = treq.post(f"http://{host}/schedule.json", data=form).addCallback(treq.json_content)
        answer = await deferred.asFuture(asyncio.get_running_loop())
        if answer["status"] != "ok":
            raise RuntimeError(f"{host} did not take batch {number}: {answer}")

    async def closed(self) -> None:
        if self.urls:
            self.send()
        await asyncio.gather(*self.posts)

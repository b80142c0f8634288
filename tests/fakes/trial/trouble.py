"""Spiders whose requests make trouble on workers, and one whose targets are found there."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from scrapy import Request
from scrapy.http import Response

from trial.spiders import MARK, TrialSpider


class TroubleSpider(TrialSpider):
    """*count* properties; *trouble* are the numbers of those that make it."""

    custom_settings = {"CONCURRENT_REQUESTS": 2}

    def __init__(self, site: str = "", count: str = "0", trouble: str = "", marks: str = "", **kwargs: Any) -> None:
        super().__init__(site, **kwargs)
        self.count = count
        self.trouble = trouble
        self.marks = marks

    async def start(self) -> AsyncIterator[Any]:
        for number in range(int(self.count)):
            yield Request(f"{self.site}/property_{number:06d}.html", self.parse, meta=dict(MARK))

    def is_trouble(self, response: Response) -> bool:
        return str(number_of(response)) in self.trouble.split(",")

    def first_time(self, response: Response) -> bool:
        """Whether no worker has come to this page yet; *marks* is a folder."""
        try:
            (Path(self.marks) / str(number_of(response))).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class PoisonSpider(TroubleSpider):
    """Some pages kill their worker."""

    name = "poison"

    def parse(self, response: Response) -> Iterator[Any]:
        if self.is_trouble(response):
            os.kill(os.getpid(), signal.SIGKILL)
        yield {"url": response.url}


class StuckSpider(TroubleSpider):
    """Some pages are never done with when a worker comes to them for the first time: it goes on writing receipts."""

    name = "stuck"

    async def parse(self, response: Response) -> AsyncIterator[Any]:
        if self.is_trouble(response) and self.first_time(response):
            await asyncio.Event().wait()
        yield {"url": response.url}


class BlockedSpider(TroubleSpider):
    """The same, and nothing else goes on in that worker."""

    name = "blocked"

    def parse(self, response: Response) -> Iterator[Any]:
        if self.is_trouble(response) and self.first_time(response):
            while True:
                time.sleep(1)
        yield {"url": response.url}


class BrokenStartSpider(TrialSpider):
    """Its walk ends with an error."""

    name = "broken_start"
    custom_settings = {"RETRY_ENABLED": False}

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.site}/", self.parse, meta=dict(MARK))
        raise ValueError("no more")

    def parse(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url}


class ForgedSpider(TrialSpider):
    """A start request for each job of a node that lies; ``wipe`` leaves a file at *mark*."""

    name = "forged"
    allowed_domains = ["127.0.0.1"]
    custom_settings = {"DISTRIBUTED_TARGET_CALLBACKS": ["parse_page"]}

    def __init__(self, count: str, mark: str, **kwargs: Any) -> None:
        super().__init__("http://127.0.0.1:1", **kwargs)
        self.count = int(count)
        self.mark = mark

    async def start(self) -> AsyncIterator[Any]:
        for number in range(self.count):
            yield Request(f"{self.site}/{number}", self.parse_page)

    def parse_page(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url}

    def wipe(self, response: Any) -> None:
        Path(self.mark).touch()


class DeepSpider(TroubleSpider):
    """Each page leads to two others and back to the first, so most are found on workers."""

    name = "deep"
    custom_settings = {"DISTRIBUTED_TARGET_CALLBACKS": ["parse"]}

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.site}/property_000000.html")

    def parse(self, response: Response) -> Iterator[Any]:
        number = number_of(response)
        yield {"url": response.url, "depth": response.meta["depth"], "batch": self.batch}
        for following in (0, 2 * number + 1, 2 * number + 2):
            if following < int(self.count):
                yield response.follow(f"/property_{following:06d}.html", self.parse)


def number_of(response: Response) -> int:
    found = re.search(r"property_(\d+)", response.url)
    assert found is not None
    return int(found[1])

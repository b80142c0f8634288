"""The spider of ``schedules``: pages that lead to nothing, or to more pages, or that are found second by second."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from scrapy import Request, Spider
from scrapy.http import Response


class PagesSpider(Spider):
    """*pages* of the *crawl* of that name on *site*. Found all at its start; or one after the other by workers, where
    each page *leads_to* so many more; or *at_once* on each of the index pages that this crawl walks."""

    name = "pages"

    def __init__(self, site: str, pages: str, crawl: str, leads_to: str = "0", at_once: str = "0", **kwargs: Any):
        super().__init__(**kwargs)
        self.site = site
        self.pages = int(pages)
        self.crawl = crawl
        self.leads_to = int(leads_to)
        self.at_once = int(at_once)

    async def start(self) -> AsyncIterator[Any]:
        if self.at_once:
            yield self.index(0)
            return
        for number in range(1 if self.leads_to else self.pages):
            yield self.page(number)

    def index(self, number: int) -> Request:
        return Request(f"{self.site}/index/{number}", callback=self.parse_index)

    def page(self, number: int) -> Request:
        # The clock is the same for all processes of a machine: so the site can tell how long it took.
        url = f"{self.site}/page/{self.crawl}/{number}?found={time.monotonic():.3f}"
        return Request(url, callback=self.parse_page)

    def parse_index(self, response: Response) -> Iterator[Request]:
        number = int(response.url.rpartition("/")[2])
        first, following = number * self.at_once, (number + 1) * self.at_once
        for page in range(first, following):
            yield self.page(page)
        if following < self.pages:
            yield self.index(number + 1)

    def parse_page(self, response: Response) -> Iterator[Request]:
        number = int(response.url.partition("?")[0].rpartition("/")[2])
        first = number * self.leads_to + 1
        for page in range(first, min(first + self.leads_to, self.pages)):
            yield self.page(page)

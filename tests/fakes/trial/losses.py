"""A spider that loses what no balance of requests shows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from scrapy import Request
from scrapy.http import Response

from trial.spiders import MARK, TrialSpider


class LossySpider(TrialSpider):
    """Of the fleet's pages one is a redirect to another of them, two are redirects to a third page, one leads to a page
    that is gone, and one has an item that no feed can express. Three of its own pages fail."""

    name = "lossy"
    custom_settings = {"RETRY_ENABLED": False}

    async def parse(self, response: Response) -> AsyncIterator[Any]:
        for path in (
            "/property_000000.html",
            "/redirect?to=/property_000000.html",
            "/redirect?a&to=/property_000009.html",
            "/redirect?b&to=/property_000009.html",
        ):
            yield Request(f"{self.site}{path}", self.parse_page, meta=dict(MARK))
        yield Request(f"{self.site}/property_000001.html", self.parse_leading, meta=dict(MARK))
        yield Request(f"{self.site}/property_000002.html", self.parse_odd_item, meta=dict(MARK))
        for path in ("/status/503?a", "/status/503?b"):
            yield Request(f"{self.site}{path}", self.parse_page)
        yield Request(f"{self.site}/echo?own", self.parse_raising)

    def parse_page(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url}

    def parse_leading(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url}
        yield Request(f"{self.site}/status/410", self.parse_page)

    def parse_odd_item(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url}
        yield {"url": response.url, "thing": object()}

    def parse_raising(self, response: Response) -> Iterator[Any]:
        raise ValueError("this page is not as expected")

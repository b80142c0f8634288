"""aio-scrapy: all workers share one queue and one duplicate filter in Redis.

    python crawl.py SETTINGS        (a JSON object)

The same pages and the same items as the example's spider. aio-scrapy has no LinkExtractor and no feeds: links come from
a bare XPath (a third of LinkExtractor's price), items go into a file of JSON lines by the pipeline below.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aioscrapy import Request, Spider
from aioscrapy.crawler import CrawlerProcess
from aioscrapy.http import HtmlResponse
from aioscrapy.settings import Settings


class SharedSpider(Spider):
    """Walks from index page to index page and takes every property."""

    name = "shared"

    async def start_requests(self) -> AsyncIterator[Request]:
        """Nothing: what there is to do comes from the queue."""
        for url in ():
            yield Request(url)

    async def parse(self, response: HtmlResponse) -> AsyncIterator[Request]:
        for link in response.xpath('//a[@class="next"]/@href').getall():
            yield Request(response.urljoin(link))
        for link in response.xpath('//ul[@class="properties"]//a/@href').getall():
            yield Request(response.urljoin(link), callback=self.parse_item)

    async def parse_item(self, response: HtmlResponse) -> AsyncIterator[dict[str, Any]]:
        def text(name: str) -> str:
            return response.css(f'[itemprop="{name}"]::text').get(default="").strip()

        yield {
            "url": response.url,
            "title": text("name"),
            "price": float(text("price").replace(",", "")),
            "description": text("description"),
            "address": text("address"),
            "image_urls": [
                response.urljoin(source) for source in response.css('[itemprop="image"]::attr(src)').getall()
            ],
        }


class JsonLines:
    """Writes every item into the file of this process, in the folder that the setting FEEDS_FOLDER names, and leaves
    the time of the last one there."""

    def __init__(self, folder: str) -> None:
        self.path = Path(folder, str(os.getpid()))
        self.file = self.path.with_suffix(".jl").open("w", encoding="utf-8")
        self.last = 0.0

    @classmethod
    def from_settings(cls, settings: Settings) -> JsonLines:
        return cls(settings["FEEDS_FOLDER"])

    async def process_item(self, item: dict[str, Any], spider: Spider) -> dict[str, Any]:
        self.file.write(json.dumps(item) + "\n")
        self.last = time.monotonic()
        return item

    async def close_spider(self, spider: Spider) -> None:
        self.file.close()
        self.path.with_suffix(".last").write_text(str(self.last))


if __name__ == "__main__":
    process = CrawlerProcess(Settings(json.loads(sys.argv[1])))
    process.crawl(SharedSpider)
    process.start()

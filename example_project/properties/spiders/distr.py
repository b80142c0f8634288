"""The same crawl, spread over a fleet: this process walks the index pages, the nodes take the properties."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from scrapy import Request

from properties.spiders.easy import EasySpider

SHARDS = 20


class DistrSpider(EasySpider):
    """Starts at up to 20 index pages at once and sends what rule 1 finds to the workers.

    scrapy crawl distr -a site=http://localhost:9312 -a pages=100
    """

    name = "distr"
    custom_settings = {"DISTRIBUTED_TARGET_RULE": 1}

    def __init__(self, pages: str = "100", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        step = -(-int(pages) // SHARDS)
        self.start_urls = [f"{self.site}/index_{page:05d}.html" for page in range(0, int(pages), step)]

    async def start(self) -> AsyncIterator[Any]:
        """Start requests that the duplicate filter knows: a shard ends where the next one began."""
        for url in self.start_urls:
            yield Request(url)

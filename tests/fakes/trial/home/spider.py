"""What the spiders of the shop have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from scrapy import Request, Spider

TARGETS = {"DISTRIBUTED_TARGET_CALLBACKS": ["parse_product"]}


class ShopSpider(Spider):
    """Walks from list to list, and sends out the products."""

    batch: str | None = None  # on a worker it has one
    custom_settings: Any = TARGETS

    def __init__(self, site: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.site = site

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.site}/list/0")

    def parse(self, response: Any) -> Iterator[Any]:
        yield from response.follow_all(css="a.product", callback=self.parse_product)
        yield from response.follow_all(css="a.next")

    def parse_product(self, response: Any) -> Any:
        raise NotImplementedError


def number_of(response: Any) -> int:
    return int(response.url.rpartition("/")[2])


def product(response: Any) -> dict[str, Any]:
    """What a page says: number, name and price."""
    return {
        "number": number_of(response),
        "name": response.css("h1::text").get(),
        "price": float(response.css(".price::text").get()),
    }

"""Spiders whose requests hold more than JSON knows, or call methods by other names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any

from scrapy import Field, Item, Request

from trial.home.spider import ShopSpider, number_of, product


class Shade(str, Enum):
    LIGHT = "light"
    DARK = "dark"


@dataclass
class Seen:
    when: datetime
    price: Decimal
    shades: list[Shade] = field(default_factory=list)


class Half(Item):
    listed = Field()
    name = Field()


class MetaItem(ShopSpider):
    """An item begun on a list, handed on in ``meta``, and completed on another page."""

    name = "meta_item"

    def parse(self, response: Any) -> Iterator[Any]:
        for link in response.css("a.product"):
            item = Half(listed=link.css("::text").get())
            yield response.follow(link, self.parse_product, meta={"item": item})
        yield from response.follow_all(css="a.next")

    def parse_product(self, response: Any) -> Iterator[Any]:
        item = response.meta["item"]
        item["name"] = product(response)["name"]
        yield item


class Typed(ShopSpider):
    """Values of many types in ``cb_kwargs``."""

    name = "typed"
    now = datetime(2026, 11, 28, 10, 30, tzinfo=timezone.utc)

    def parse(self, response: Any) -> Iterator[Any]:
        seen = Seen(self.now, Decimal("1.50"), [Shade.DARK])
        values = {"seen": seen, "place": (1, "a"), "tags": {"x"}, "raw": b"\0", "shade": Shade.LIGHT, "by": {1: None}}
        yield from response.follow_all(css="a.product", callback=self.parse_product, cb_kwargs=values)

    def parse_product(self, response: Any, **values: Any) -> Iterator[Any]:
        seen, shade = values["seen"], values["shade"]
        assert seen.shades[0].name == "DARK"
        yield {"number": number_of(response), "shade": shade.name, "year": seen.when.year, "values": repr(values)}


def noted(callback: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(self: Any, response: Any, **values: Any) -> Any:
        for item in callback(self, response, **values):
            yield {**item, "noted": True}

    return wrapper


class OtherNames(ShopSpider):
    """Callbacks that a decorator, Python or a ``partial`` have named otherwise."""

    name = "other_names"
    custom_settings = {"DISTRIBUTED_TARGET_CALLBACKS": ["parse_product", "_OtherNames__parse_maker"]}

    def parse(self, response: Any) -> Iterator[Any]:
        for link in response.css("a.product"):
            yield response.follow(link, partial(self.parse_product, page="list"))
        yield Request(f"{self.site}/p/11", self.parse_product, cb_kwargs={"page": "none"})
        for number in range(3):
            yield Request(f"{self.site}/maker/{number}", self.__parse_maker)

    @noted
    def parse_product(self, response: Any, page: str) -> Iterator[Any]:
        yield {**product(response), "page": page}

    def __parse_maker(self, response: Any) -> Iterator[Any]:
        yield {"maker": response.css("h1::text").get()}


class FoundValues(ShopSpider):
    """Products that products lead to: with data they are reported, with an object each worker crawls them itself."""

    name = "found_values"

    def parse(self, response: Any) -> Iterator[Any]:
        for number in (0, 1):
            yield Request(f"{self.site}/p/{number}", self.parse_product, cb_kwargs={"way": (number,)})

    def parse_product(self, response: Any, way: tuple[int, ...], day: Any = None, seen: Any = None) -> Iterator[Any]:
        yield {"number": number_of(response), "way": repr(way), "day": repr(day), "seen": repr(seen)}
        number = number_of(response) + 2
        if number < 12:
            more = {"day": date(2026, 1, number)} if number % 4 else {"seen": Seen(Typed.now, Decimal(number))}
            yield Request(f"{self.site}/p/{number}", self.parse_product, cb_kwargs={"way": (*way, number), **more})

"""Each spider yields items of another kind."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

import attrs
from itemloaders.processors import Compose, Join, MapCompose, TakeFirst
from scrapy import Field, Item
from scrapy.loader import ItemLoader

from trial.home.spider import TARGETS, ShopSpider, product


def in_cents(price: float) -> str:
    return f"{round(price * 100)} c"


def as_hexadecimal(data: bytes) -> str:
    return data.hex()


class Plain(ShopSpider):
    name = "plain_dict"

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)


class ShopItem(Item):
    number = Field()
    name = Field(serializer=str.upper)
    price = Field(serializer=in_cents)
    code = Field(serializer=as_hexadecimal)
    unused = Field()


class Fields(ShopSpider):
    name = "item_fields"

    def parse_product(self, response: Any) -> Iterator[Any]:
        found = product(response)
        yield ShopItem(found, code=bytes([found["number"], 255, 0]))


@dataclass
class Price:
    amount: Decimal
    currency: str = "EUR"


@dataclass
class Priced:
    number: int
    name: str = field(metadata={"serializer": str.title})
    price: Price | None = None
    tags: list[str] = field(default_factory=list)
    label: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.label = f"{self.name}!"


class DataClass(ShopSpider):
    name = "data_class"

    def parse_product(self, response: Any) -> Any:
        found = product(response)
        price = Price(Decimal(str(found["price"]))) if found["number"] % 2 else None
        return Priced(found["number"], found["name"], price, tags=["a", "b"][: found["number"] % 3])


@attrs.frozen
class Sold:
    """Once more through the validator, *name* would be refused."""

    number: int
    name: str = attrs.field(converter=lambda name: name + "?", validator=attrs.validators.max_len(15))
    parts: tuple[int, ...] = attrs.field(factory=tuple, metadata={"serializer": len})


class Attrs(ShopSpider):
    name = "attrs_class"

    async def parse_product(self, response: Any) -> AsyncIterator[Any]:
        found = product(response)
        yield Sold(number=found["number"], name=found["name"], parts=(1, 2))


class Nested(ShopSpider):
    """All in one another."""

    name = "nested"

    def parse_product(self, response: Any) -> Iterator[Any]:
        found = product(response)
        shown = ShopItem(number=found["number"], name=found["name"])
        yield {
            "number": found["number"],
            "shown": shown,
            "prices": [Price(Decimal(n), "USD") for n in range(3)],
            "deep": {"one": {"two": [{"three": shown}, [], {}, [[1], [2, [3]]]]}},
            "sold": Sold(number=1, name="x"),
        }


class Loader(ItemLoader):
    default_output_processor = TakeFirst()
    name_in = MapCompose(str.strip, str.lower)
    name_out = Join(" & ")
    price_in = MapCompose(float)
    tags_out = Compose(sorted)


class LoadedItem(Item):
    number = Field()
    name = Field()
    price = Field()
    tags = Field()
    missing = Field()


class Loaded(ShopSpider):
    name = "item_loader"

    def parse_product(self, response: Any) -> Iterator[Any]:
        loader = Loader(LoadedItem(), response=response)
        loader.add_value("number", int(response.url.rpartition("/")[2]))
        loader.add_css("name", "h1::text")
        loader.add_value("name", "more")
        loader.add_css("price", ".price::text")
        loader.add_css("tags", "a::text")
        loader.add_css("missing", "u::text")
        yield loader.load_item()


class Colour(str, Enum):
    RED = "red"


class Place(NamedTuple):
    row: int
    shelf: str


class Values(ShopSpider):
    """What an item may hold, beside text and numbers."""

    name = "values"

    def parse_product(self, response: Any) -> Iterator[Any]:
        found = product(response)
        east = timezone(timedelta(hours=5, minutes=30))
        yield {
            **found,
            "moment": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=east),
            "naive": datetime(1999, 12, 31),
            "day": date(2026, 2, 28),
            "hour": time(23, 59),
            "exact": Decimal("1.10"),
            "nothing": None,
            "yes": True,
            "none": [],
            "pair": (1, "two"),
            "one": {"only"},
            "by_number": {1: "a", 2.5: "b", None: "c"},
            "ordered": OrderedDict(z=1, a=2),
            "large": 10**40,
            "small": -0.0,
            "endless": float("inf"),
            "text": "\u2028 \x7f é \U0001f600 \ufeff <&>\"'\\",
            "colour": Colour.RED,
            "place": Place(1, "top"),
            "~": "~",
            "children": response.css("a::text").getall(),
        }


class Uneven(ShopSpider):
    """Fields differ, and their order, and what the feed asks for is given."""

    name = "uneven"
    custom_settings = {**TARGETS, "FEED_EXPORT_FIELDS": ["price", "number", "extra", "never"]}

    def parse_product(self, response: Any) -> Iterator[Any]:
        found = product(response)
        yield {"extra": "x", **found} if found["number"] % 2 else dict(reversed(found.items()))


class Bytes(ShopSpider):
    """No JSON for them."""

    name = "bytes"

    def parse_product(self, response: Any) -> Iterator[Any]:
        found = product(response)
        yield {"number": found["number"], "name": found["name"].encode(), "raw": [b"\x00\xff"]}


class Second(Item):
    number = Field()
    good = Field()


class Third(ShopItem):
    """Of the class *ShopItem* as well."""


class Several(ShopSpider):
    """Items of several classes, for feeds that take some of them."""

    name = "several"

    def parse_product(self, response: Any) -> Iterator[Any]:
        found = product(response)
        yield ShopItem(found)
        yield Second(number=found["number"], good=found["price"] > 10)
        yield Third(number=found["number"])
        yield Priced(found["number"], found["name"])
        yield {"number": found["number"], "kind": "dict"}

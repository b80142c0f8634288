"""Pages below products that many of them link, and that are no targets by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scrapy import Field, Item

from trial.home.pages import Rules, Shared
from trial.home.spider import number_of, product


class Named(Shared):
    """Their callback is named beside that of the products."""

    name = "named"
    custom_settings = {**Shared.custom_settings, "DISTRIBUTED_TARGET_CALLBACKS": ["parse_product", "parse_maker"]}


class NamedBesideRule(Rules):
    """The same, beside a rule; each tells which product led to it."""

    name = "named_beside_rule"
    custom_settings = {
        "DISTRIBUTED_TARGET_RULE": 1, "DISTRIBUTED_TARGET_CALLBACKS": ["parse_maker"],
        "FEED_EXPORT_FIELDS": ["list", "number", "name", "price"],
    }  # fmt: skip

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)
        said = {"list": "of makers"}
        yield from response.follow_all(css="a.maker", callback=self.parse_maker, cb_kwargs={"said": said})

    def parse_maker(self, response: Any, said: dict[str, Any]) -> Iterator[Any]:
        yield {**said, "number": number_of(response), "name": response.css("h1::text").get()}


class EachOfThem(Named):
    """Each product has an item of its maker's page, so the page is asked for each time."""

    name = "each_of_them"

    def parse_product(self, response: Any) -> Iterator[Any]:
        found = product(response)
        yield from response.follow_all(
            css="a.maker", callback=self.parse_maker, cb_kwargs={"found": found}, dont_filter=True
        )

    def parse_maker(self, response: Any, found: Any = None) -> Iterator[Any]:
        yield {"maker": response.css("h1::text").get(), "number": found["number"], "name": found["name"]}


class Product(Item):
    number: Any = Field()
    name: Any = Field()


class Carried(EachOfThem):
    """The product goes along as an item, which no find may hold."""

    name = "carried"

    def parse_product(self, response: Any) -> Iterator[Any]:
        found = product(response)
        item = Product(number=found["number"], name=found["name"])
        yield from response.follow_all(
            css="a.maker", callback=self.parse_maker, cb_kwargs={"found": item}, dont_filter=True
        )

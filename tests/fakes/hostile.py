"""What hostile input is made of: spiders and requests that are traps, values of every kind, forged receipts."""

from __future__ import annotations

import base64
import json
import sys
import zlib
from functools import cached_property
from typing import Any

from hypothesis import strategies as st
from scrapy import Request
from scrapy.spiders import CrawlSpider, Rule

from scrapy_distributed.wire.payload import PREFIX
from scrapy_distributed.wire.receipt import Receipt

SECRET = "s3cr3t-Pa55"
ran: list[str] = []  # what a hostile value has made the spider do


class Trap(CrawlSpider):
    name = "trap"
    rules = (Rule(callback="item"),)
    items = 3
    thing = dict

    def item(self, response: Any) -> None:
        """A callback."""

    def failed(self, failure: Any) -> None:
        """An errback."""

    def closed(self, reason: str) -> None:
        ran.append("closed")

    def __private(self, response: Any) -> None:
        """A callback whose name Python mangles."""

    def private(self) -> Any:
        return self.__private

    @staticmethod
    def static(response: Any) -> None:
        """A callback."""

    @property
    def prop(self) -> Any:
        ran.append("prop")
        return self.item

    @cached_property
    def cached(self) -> Any:
        ran.append("cached")
        return self.item


TRAP = Trap()


def element(**values: Any) -> str:
    return json.dumps([{"url": "http://a/", **values}])


def packed(data: bytes) -> str:
    return PREFIX + base64.b85encode(zlib.compress(data)).decode()


def is_fit_to_print(message: str) -> bool:
    """A log can have it: one line, not too long, nothing that a terminal carries out, and UTF-8 knows it."""
    return message.isprintable() and len(message) < 800


characters = st.characters()  # lone surrogates as well
texts = st.text(characters, max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


class Raising(Request):
    """A class of the project's own, whose constructor raises what no one expects."""

    attributes = (*Request.attributes, "how")

    def __init__(self, *args: Any, how: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.how = how
        if how in ("AssertionError", "ArithmeticError", "RecursionError", "OSError"):
            raise getattr(sys.modules["builtins"], how)("no\nsuch \x1b thing")


class Restless(Request):
    """Each making changes it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.meta["made"] = self.meta.get("made", 0) + 1


# Receipts


def forged(**values: Any) -> str:
    usual = {"job": "j", "sequence": 1, "final": True, "size": 4, "settled": 0b1111, "stored": True}
    return json.dumps(json.loads(Receipt(**usual).to_json()) | values)  # type: ignore[arg-type]

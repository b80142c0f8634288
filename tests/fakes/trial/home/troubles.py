"""Spiders with whom something is wrong, the same in every crawl."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trial.home.spider import TARGETS, ShopSpider, number_of, product


class Piped(ShopSpider):
    """Pipelines change, drop and fail items."""

    name = "piped"
    custom_settings = {**TARGETS, "ITEM_PIPELINES": {"trial.home.parts.Choose": 1, "trial.home.parts.Change": 2}}

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)


class Raising(ShopSpider):
    """Callbacks fail: before an item, after one, and in the page after."""

    name = "raising"

    def parse_product(self, response: Any) -> Iterator[Any]:
        found = product(response)
        if found["number"] % 4 == 0:
            raise ValueError("before")
        yield found
        if found["number"] % 4 == 1:
            raise ValueError("after")
        if found["number"] % 4 == 2:
            yield response.follow(f"/reviews/{found['number']}", self.parse_reviews)

    def parse_reviews(self, response: Any) -> Iterator[Any]:
        yield {"number": -number_of(response), "name": "reviews", "price": 0.0}
        raise ValueError("below")


class Locked(ShopSpider):
    """Some items hold what can't travel."""

    name = "locked"

    def parse_product(self, response: Any) -> Iterator[Any]:
        found = product(response)
        if found["number"] in (3, 7):
            found["part"] = {"lock": threading.Lock()}
        yield found


class Killed(ShopSpider):
    """Its first worker kills itself after some items; *mark*: a file that tells that it has."""

    name = "killed"
    custom_settings = {
        **TARGETS,
        "CONCURRENT_REQUESTS": 1,
        "DISTRIBUTED_BATCH_SIZE": 6,
    }
    mark = ""

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)
        if self.batch and number_of(response) in (3, 9):
            try:
                Path(self.mark).touch(exist_ok=False)
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGKILL)

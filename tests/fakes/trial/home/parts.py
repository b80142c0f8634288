"""Pipelines, an item filter and a feed storage of the shop's project."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from scrapy.exceptions import DropItem
from scrapy.extensions.feedexport import BlockingFeedStorage, ItemFilter


class Change:
    """A new item in the place of each."""

    def process_item(self, item: Any) -> Any:
        return {**item, "price": item["price"] * 2, "changed": True}


class Choose:
    """Drops every third, fails at one in six."""

    async def process_item(self, item: Any) -> Any:
        if item["number"] % 3 == 0:
            raise DropItem("a third")
        if item["number"] % 6 == 5:
            raise KeyError("a sixth")
        return item


class Cheap(ItemFilter):
    """Remembers what it has seen: one of each number."""

    def __init__(self, feed_options: dict[str, Any]) -> None:
        super().__init__(feed_options)
        self.seen: set[int] = set()

    def accepts(self, item: Any) -> bool:
        new = item["number"] not in self.seen
        self.seen.add(item["number"])
        return bool(new and item["price"] < 30)


class KeptStorage(BlockingFeedStorage):
    """Keeps a feed in a file when it is whole, with ``.kept`` behind its name."""

    def __init__(self, uri: str, *, feed_options: dict[str, Any] | None = None) -> None:
        self.path = Path(urlsplit(uri).path + ".kept")

    def _store_in_thread(self, file: IO[bytes]) -> None:
        file.seek(0)
        with self.path.open("wb") as kept:
            shutil.copyfileobj(file, kept)

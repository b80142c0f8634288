"""Which of the items in a file that a worker has written count: goes through it once, line by line."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Collection
from typing import IO, Any

from scrapy import Spider

from scrapy_distributed.errors import WireError
from scrapy_distributed.items.lines import Line
from scrapy_distributed.items.spool import lines_of

TURN = 0.02  # seconds after which a file leaves the event loop to others


class Gleaning:
    """One file of an attempt with *size* requests, gone through. *settled*: bitmap of those that are; *last*: nothing
    of it goes out again. *is_new* tells of the key of a page whether it is new to the run, *left_out* the keys of
    requests of the attempt that its worker has left out, as it had come to their pages by another way: then that brings
    the items. *give_way* lets others have the event loop.

    In numbers of items: *found*, *kept*, left out as their page had brought them before (*twice*). *bytes* and *digest*
    are those of what is kept. *pages*: keys of those that are new, none of which is entered yet: others are at work
    meanwhile."""

    def __init__(
        self, spider: Spider, *, size: int, settled: int, last: bool, is_new: Callable[[bytes], bool],
        left_out: Callable[[], Collection[bytes]], give_way: Callable[[], Awaitable[Any]],
    ) -> None:  # fmt: skip
        self.found = self.kept = self.twice = self.bytes = 0
        self.digest = hashlib.sha256()
        self.pages: list[bytes] = []
        self.spider = spider
        self.size = size
        self.settled = settled
        self.is_new = is_new
        self.left_out = left_out
        self.give_way = give_way
        self._all_count = last or settled.bit_count() == size
        self._welcome: dict[str, bool] = {}  # page -> whether its items are
        self._left_out: Collection[bytes] | None = None

    async def glean(self, fetched: IO[bytes], kept: IO[bytes]) -> None:
        """What counts of *fetched* goes into *kept*. Raises ``WireError`` for what no worker writes."""
        began = time.monotonic()
        for text, line in lines_of(fetched, type(self.spider)):
            if line is None or self._counts(line):
                kept.write(text)
                self.bytes += len(text)
                self.digest.update(text)
            if time.monotonic() - began > TURN:
                await self.give_way()
                began = time.monotonic()

    def takes(self, position: int | None) -> bool:
        """Whether items of the request at *position* count; ``None``: of no request, so of all of them."""
        return self._all_count or (position is not None and bool(self.settled >> position & 1))

    def _counts(self, line: Line) -> bool:
        self.found += 1
        if line.position is not None and line.position >= self.size:
            raise WireError(f"found an item of the request at {line.position}, sent were {self.size}")
        if not self.takes(line.position):
            return False
        welcome = not line.page or self._is_welcome(line.page)
        self.kept += welcome
        self.twice += not welcome
        return welcome

    def _is_welcome(self, page: str) -> bool:
        if page not in self._welcome:
            key = bytes.fromhex(page)
            new = self.is_new(key)
            if new:
                self.pages.append(key)
            self._welcome[page] = new or key in self._left_out_there()
        return self._welcome[page]

    def _left_out_there(self) -> Collection[bytes]:
        if self._left_out is None:
            self._left_out = self.left_out()
        return self._left_out

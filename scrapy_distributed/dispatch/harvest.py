"""Brings the items of an attempt home: from its node into the spool, before the ledger accepts it.

Of an attempt that ended early only the items of settled requests come home. A page that the dupe filter of one crawl
would have seen, and that several workers have come upon, brings its items once: by the first that counts.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import IO, Any

from scrapy import Request, Spider
from twisted.internet.task import deferLater

from scrapy_distributed.dispatch.carrier import Carrier
from scrapy_distributed.dispatch.room import Room
from scrapy_distributed.errors import WireError
from scrapy_distributed.items.lines import Line
from scrapy_distributed.items.spool import Spool, lines_of
from scrapy_distributed.ledger.rules import Haul
from scrapy_distributed.ledger.sqlite_harvest import Harvest as Ledger
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.reasons import DUPLICATE
from scrapy_distributed.wire.receipt import ItemsFile, Receipt
from scrapy_distributed.wire.request import decode_requests

TURN = 0.02  # seconds of CPU, after which a file leaves the event loop to others


class Harvest:
    """Fills *spool*, where there is *room*. *ledger*: what it knows of the run's pages; *fingerprint* gives the key of
    a request."""

    def __init__(
        self, *, spool: Spool, ledger: Ledger, spider: Spider, fingerprint: Callable[[Request], bytes], clock: Any
    ) -> None:
        self.spool = spool
        self.ledger = ledger
        self.spider = spider
        self.fingerprint = fingerprint
        self.clock = clock
        self.room = Room(spider=spider, clock=clock)

    async def bring(
        self, carrier: Carrier, attempt: Attempt, receipt: Receipt, file: ItemsFile, *, last: bool = False
    ) -> Haul:
        """Those of the items in *file*, which lies beside the final *receipt*, that count if *attempt* does: of
        requests that are settled, or, where nothing goes out again (*last*), all of them.

        The verdict is to follow at once: from the return on their pages are entered, and others leave them out. Raises
        ``NodeItemsError`` or ``WireError`` where what comes is not what the receipt says, another
        ``NodeError`` where its node can't give it just now, and ``OSError`` where it can't be kept here: *room* is told
        of that."""
        try:
            haul = await self._bring(carrier, attempt, receipt, file, last=last)
        except OSError as error:
            self.room.refused(error)
            raise
        self.room.took()
        return haul

    async def _bring(
        self, carrier: Carrier, attempt: Attempt, receipt: Receipt, file: ItemsFile, *, last: bool
    ) -> Haul:
        with self.spool.draft() as fetched, self.spool.draft() as kept:
            await carrier.items(attempt, fetched.file, size=file.size, digest=file.digest)
            gleaning = await self._gleaned(attempt, receipt, file, fetched.file, kept.file, last=last)
            while not self.ledger.enter_pages(gleaning.pages):  # meanwhile another has brought one
                gleaning = await self._gleaned(attempt, receipt, file, fetched.file, kept.file, last=last)
            try:
                kept.keep(attempt.spool_name)
            except BaseException:
                self.ledger.leave_pages(gleaning.pages)
                raise
        return Haul(
            items=gleaning.kept, size=gleaning.size, digest=gleaning.digest.hexdigest(), twice=gleaning.twice,
            pages=gleaning.pages,
        )  # fmt: skip

    async def _gleaned(
        self,
        attempt: Attempt,
        receipt: Receipt,
        file: ItemsFile,
        fetched: IO[bytes],
        kept: IO[bytes],
        *,
        last: bool,
    ) -> _Gleaning:
        fetched.seek(0)
        kept.seek(0)
        kept.truncate()
        gleaning = _Gleaning(self, attempt, receipt, last=last)
        await gleaning.glean(fetched, kept)
        if gleaning.found != file.items:
            raise WireError(f"found {gleaning.found:,} items, its receipt speaks of {file.items:,}")
        return gleaning

    def undo(self, attempt: Attempt, haul: Haul) -> None:
        """It does not count after all."""
        self.ledger.leave_pages(haul.pages)
        self.spool.remove(attempt.spool_name)


class _Gleaning:
    """One file, gone through. In numbers of items: *found*, *kept*, left out as their page had brought them before
    (*twice*). *size* and *digest* are those of what is kept. *pages*: keys of those that are new, none of which is
    entered yet: others are at work meanwhile."""

    def __init__(self, harvest: Harvest, attempt: Attempt, receipt: Receipt, *, last: bool) -> None:
        self.found = self.kept = self.twice = self.size = 0
        self.digest = hashlib.sha256()
        self.pages: list[bytes] = []
        self._harvest = harvest
        self._attempt = attempt
        self._receipt = receipt
        self._all_count = last or receipt.settled.bit_count() == receipt.size
        self._welcome: dict[str, bool] = {}  # page -> whether its items are
        self._left_out: set[bytes] | None = None

    async def glean(self, fetched: IO[bytes], kept: IO[bytes]) -> None:
        began = time.thread_time()
        for text, line in lines_of(fetched, type(self._harvest.spider)):
            if line is None or self._counts(line):
                kept.write(text)
                self.size += len(text)
                self.digest.update(text)
            if time.thread_time() - began > TURN:
                await deferLater(self._harvest.clock, 0)
                began = time.thread_time()

    def _counts(self, line: Line) -> bool:
        self.found += 1
        if line.position is None:  # of no request, so of all of them
            counts = self._all_count
        elif line.position < self._receipt.size:
            counts = self._all_count or bool(self._receipt.settled >> line.position & 1)
        else:
            raise WireError(f"found an item of the request at {line.position}, sent were {self._receipt.size}")
        if not counts:
            return False
        welcome = not line.page or self._is_welcome(line.page)
        self.kept += welcome
        self.twice += not welcome
        return welcome

    def _is_welcome(self, page: str) -> bool:
        if page not in self._welcome:
            key = bytes.fromhex(page)
            new = self._harvest.ledger.is_new_page(key)
            if new:
                self.pages.append(key)
            self._welcome[page] = new or key in self._left_out_there()
        return self._welcome[page]

    def _left_out_there(self) -> set[bytes]:
        """The keys of requests of the attempt that its worker has left out, as it had come to their pages by another
        way: then that brings the items."""
        if self._left_out is None:
            positions = self._receipt.filtered.get(DUPLICATE, ())
            requests = self._requests() if positions else []
            self._left_out = {self._harvest.fingerprint(requests[position]) for position in positions}
        return self._left_out

    def _requests(self) -> list[Request]:
        return decode_requests(self._harvest.ledger.payload(self._attempt), self._harvest.spider)

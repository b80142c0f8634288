"""Brings the items of an attempt home: from its node into the spool, before the ledger accepts it.

Of an attempt that ended early only the items of settled requests come home. A page that the dupe filter of one crawl
would have seen, and that several workers have come upon, brings its items once: by the first that counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

from scrapy import Request, Spider
from twisted.internet.task import deferLater

from scrapy_distributed.dispatch.carrier import Carrier
from scrapy_distributed.dispatch.room import Room
from scrapy_distributed.errors import WireError
from scrapy_distributed.items.gleaning import Gleaning
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.rules import Haul
from scrapy_distributed.ledger.sqlite_harvest import Harvest as Ledger
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.reasons import DUPLICATE
from scrapy_distributed.wire.receipt import ItemsFile, Receipt
from scrapy_distributed.wire.request import decode_requests


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
            items=gleaning.kept, size=gleaning.bytes, digest=gleaning.digest.hexdigest(), twice=gleaning.twice,
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
    ) -> Gleaning:
        fetched.seek(0)
        kept.seek(0)
        kept.truncate()
        gleaning = Gleaning(
            self.spider, size=receipt.size, settled=receipt.settled, last=last, is_new=self.ledger.is_new_page,
            left_out=lambda: self._left_out(attempt, receipt), give_way=lambda: deferLater(self.clock, 0),
        )  # fmt: skip
        await gleaning.glean(fetched, kept)
        if gleaning.found != file.items:
            raise WireError(f"found {gleaning.found:,} items, its receipt speaks of {file.items:,}")
        return gleaning

    def undo(self, attempt: Attempt, haul: Haul) -> None:
        """It does not count after all."""
        self.ledger.leave_pages(haul.pages)
        self.spool.remove(attempt.spool_name)

    def _left_out(self, attempt: Attempt, receipt: Receipt) -> set[bytes]:
        """The keys of requests of *attempt* that its worker has left out: see ``Gleaning``."""
        positions = receipt.filtered.get(DUPLICATE, ())
        requests = decode_requests(self.ledger.payload(attempt), self.spider) if positions else []
        return {self.fingerprint(requests[position]) for position in positions}

"""Brings what the accepted attempts of a shared run have scraped to where it goes, in the order in which they were
accepted."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import IO, Any, NamedTuple, Protocol

from scrapy import Request, Spider

from scrapy_distributed.coordinator.home_book import HomeBook
from scrapy_distributed.coordinator.shared_run import SharedRun
from scrapy_distributed.dispatch.room import Room
from scrapy_distributed.errors import WireError
from scrapy_distributed.items.gleaning import TURN, Gleaning
from scrapy_distributed.items.lines import MAX_LINE, head
from scrapy_distributed.items.spool import Draft, Spool
from scrapy_distributed.ledger.states import Attempt, AttemptState
from scrapy_distributed.shared.harvest import Harvest, Home
from scrapy_distributed.wire.receipt import ItemsFile
from scrapy_distributed.wire.request import decode_requests
from scrapy_distributed.words import counted

logger = logging.getLogger(__name__)

UNREADABLE = ".unreadable"  # ends the name of a file whose items nobody can read
PART = 1_000  # keys that are asked in one call


class Kept(NamedTuple):
    """What counts of an attempt: number of *items*; *size* (bytes) and *digest* of their file, if they are in one; and
    how many items can't be written where they go (*lost*)."""

    items: int
    size: int = 0
    digest: str = ""
    lost: int = 0


class Destination(Protocol):
    """Where items go."""

    def found(self, attempt: Attempt) -> Kept | None:
        """What of *attempt* is there, if it is there as a whole: of an earlier command, whose end nobody has heard
        of."""

    def knows(self, page: bytes) -> bool:
        """Whether somebody else has brought the items of the page of that key, as far as it is known here."""

    async def keep(self, attempt: Attempt, home: Home, draft: Draft, gleaning: Gleaning) -> Kept:
        """*draft* has all that counts of *attempt*: it is to survive all that may come. Raises ``OSError`` where it
        can't be written."""


class IntoSpool:
    """Items come home into *spool*, and *book* knows it before the server forgets them; *came* is told then."""

    def __init__(self, book: HomeBook, came: Callable[[Attempt], None]) -> None:
        self.book = book
        self.came = came

    def found(self, attempt: Attempt) -> Kept | None:
        file = self.book.found(attempt)
        return None if file is None else Kept(*file)

    def knows(self, page: bytes) -> bool:
        return page in self.book.seen

    async def keep(self, attempt: Attempt, home: Home, draft: Draft, gleaning: Gleaning) -> Kept:
        draft.keep(attempt.spool_name)
        file = ItemsFile(gleaning.kept, gleaning.bytes, gleaning.digest.hexdigest())
        self.book.has_come(attempt, file)
        self.book.know_pages(gleaning.pages)
        self.came(attempt)
        return Kept(*file)


class SharedHarvest:
    """Takes from *harvest* what attempts of *run* have brought. Their items go to *destination* (``None``: they do not
    come here), by way of files in *spool*; *book* knows which can't be read. *counts* is told of each attempt.
    *fingerprint* gives the key of a request."""

    def __init__(
        self, run: SharedRun, harvest: Harvest, *, destination: Destination | None, spool: Spool, book: HomeBook,
        spider: Spider, fingerprint: Callable[[Request], bytes], counts: Callable[[Home], None], clock: Any,
    ) -> None:  # fmt: skip
        self.run = run
        self.harvest = harvest
        self.destination = destination
        self.spool = spool
        self.book = book
        self.spider = spider
        self.fingerprint = fingerprint
        self.counts = counts
        self.room = Room(spider=spider, clock=clock)
        self._extra = {"spider": spider}
        self._busy = False

    @property
    def idle(self) -> bool:
        """Whether all is here that was accepted, as of the last look at the run."""
        return not self._busy and self.run.state is not None and not self.run.state.home

    async def bring(self) -> None:
        """Whatever comes, until it is cancelled."""
        while True:
            home = await self.run.sure(self.harvest.first)
            self._busy = home is not None
            if home is None:
                self.run.changed()
                await self.run.news()
                continue
            try:
                kept = await self._take(home)
            except OSError as error:  # it is asked again how far that has come
                self.room.refused(error)
                await asyncio.sleep(self.room.pause)
                continue
            await self.run.sure(partial(self.harvest.taken, home, **kept))
            self.run.has_taken()
            self.run.look_again()
            self.counts(home)

    async def _take(self, home: Home) -> dict[str, Any]:
        """Its items are where they go. Returns what the server keeps of that. Raises ``OSError`` where they can't be
        written."""
        attempt = _attempt_of(home, self.harvest.run)
        if self.destination is None or not home.parts:
            self._tell(home)
            return {}
        kept = self.destination.found(attempt)
        if kept is not None:
            return kept._asdict()
        try:
            kept, twice = await self._bring(self.destination, home, attempt)
        except WireError as error:
            self._is_unreadable(home, f"{attempt.spool_name}{UNREADABLE}", error)
            return {"lost": home.items}
        self.room.took()
        self._tell(home)
        return {**kept._asdict(), "twice": twice}

    async def _bring(self, destination: Destination, home: Home, attempt: Attempt) -> tuple[Kept, int]:
        """What counts, and how many items do not, as their pages have brought them before."""
        with self.spool.draft() as fetched, self.spool.draft() as kept:
            for index in range(home.parts):
                fetched.file.write(await self.run.sure(partial(self.harvest.part, home, index)))
            left_out = await self._left_out(home)
            new: set[bytes] = set()
            gleaning = Gleaning(
                self.spider, size=home.size, settled=home.settled, last=home.last, is_new=new.__contains__,
                left_out=lambda: left_out, give_way=lambda: asyncio.sleep(0),
            )  # fmt: skip
            pages = await self._pages(fetched.file, gleaning.takes)
            new |= await self._new_of([key for key in pages if not destination.knows(key)], home)
            fetched.file.seek(0)
            try:
                await gleaning.glean(fetched.file, kept.file)
                if gleaning.found != home.items:
                    raise WireError(f"found {gleaning.found:,} items, its receipt speaks of {home.items:,}")
            except WireError:
                fetched.keep(f"{attempt.spool_name}{UNREADABLE}")
                raise
            return await destination.keep(attempt, home, kept, gleaning), gleaning.twice

    async def _new_of(self, pages: Sequence[bytes], home: Home) -> set[bytes]:
        """Those of *pages* of which nobody else has brought items. A second time the answer is the same."""
        new: set[bytes] = set()
        for start in range(0, len(pages), PART):
            some = pages[start : start + PART]
            entered = await self.run.sure(partial(self.harvest.enter_pages, home.source, some))
            new.update(key for key, is_new in zip(some, entered, strict=True) if is_new)
        return new

    async def _left_out(self, home: Home) -> set[bytes]:
        """The keys of requests of its that its worker has left out: see ``Gleaning``."""
        bodies = await self.run.sure(partial(self.harvest.duplicates, home))
        return set(map(self.fingerprint, decode_requests(list(map(json.loads, bodies)), self.spider)))

    async def _pages(self, file: IO[bytes], takes: Callable[[int | None], bool]) -> Collection[bytes]:
        """The keys of the pages that lines of *file* name, each once. Of requests that go out again, as *takes* tells,
        there are none: the attempt that settles them is to bring these pages."""
        pages: dict[bytes, None] = {}
        began = time.monotonic()
        for position, key in _pages_in(file):
            if takes(position):
                pages[key] = None
            if time.monotonic() - began > TURN:
                await asyncio.sleep(0)
                began = time.monotonic()
        return pages

    def _tell(self, home: Home) -> None:
        logger.info(
            "Batch %s from %s accepted (%s): %d of %s settled, %s", home.label, home.worker, home.finish_reason,
            home.settled.bit_count(), counted(home.size, "request"), counted(home.items, "item"), extra=self._extra,
        )  # fmt: skip

    def _is_unreadable(self, home: Home, name: str, error: WireError) -> None:
        self.book.is_unreadable(name)
        logger.error(
            "Items of batch %s from %s can't be read, and are in no feed: %s. What came is kept in %s", home.label,
            home.worker, error, self.book.folder / name, extra=self._extra,
        )  # fmt: skip


def _attempt_of(home: Home, run: str) -> Attempt:
    return Attempt(
        run=run, batch=home.batch, number=home.number, node=home.worker, token=home.secret,
        state=AttemptState.ACCEPTED, positions=(1 << home.size) - 1,
    )  # fmt: skip


def _pages_in(file: IO[bytes]) -> Iterator[tuple[int | None, bytes]]:
    """Position, and the key of the page, of each line of *file* that names one."""
    file.seek(0)
    while text := file.readline(MAX_LINE + 1):
        found = head(text)
        if found is not None and found[1]:
            yield found[0], bytes.fromhex(found[1])

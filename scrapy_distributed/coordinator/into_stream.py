"""Where the results of a shared run are a stream in Redis: what puts items there, and what is scraped here among them.

Each item of an accepted attempt is there once: the server counts with them how many of an attempt were gone through,
which count is told by the same steps whoever takes them, and whether one can be written is asked once. What is scraped
here is kept by the server as well, and counts when nobody scrapes it again, at the end of the crawl. So another
coordinator, from another folder or machine, goes on where this one ends.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from scrapy import Spider, signals
from scrapy.crawler import Crawler
from scrapy.exporters import JsonLinesItemExporter
from scrapy.settings import BaseSettings

from scrapy_distributed.coordinator.home_book import HomeBook
from scrapy_distributed.coordinator.own_pages import OwnPages
from scrapy_distributed.coordinator.shared_harvest import Kept
from scrapy_distributed.coordinator.shared_run import SharedRun
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.errors import LedgerUnavailableError, NotSerializableError
from scrapy_distributed.items.gleaning import Gleaning
from scrapy_distributed.items.lines import ItemWriter
from scrapy_distributed.items.spool import Draft, Spool, lines_of
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.shared.harvest import UNWRITTEN, Entry, Home
from scrapy_distributed.words import counted

logger = logging.getLogger(__name__)

PART = 250  # entries in one call: a script that takes a millisecond holds up everybody
PART_BYTES = 512 * 1024


class IntoStream:
    """Puts items into the stream of *run*, as a ``jl`` feed of the crawl with *settings* would have them."""

    def __init__(self, run: SharedRun, *, spider: Spider, settings: BaseSettings) -> None:
        self.run = run
        self.spider = spider
        self._texts = _Texts(settings)

    def found(self, attempt: Attempt) -> Kept | None:
        """As that of a ``Destination``. How many of its items are there is told by the server."""
        return None

    def knows(self, page: bytes) -> bool:
        """As that of a ``Destination``. What the server does not know, another coordinator would not know either."""
        return False

    async def keep(self, attempt: Attempt, home: Home, draft: Draft, gleaning: Gleaning) -> Kept:
        """As that of a ``Destination``."""
        draft.file.seek(0)
        streamed, size = home.streamed, 0
        entries: list[Entry] = []
        lost: list[str] = []
        for item in islice(self._items(draft), streamed.place, None):
            entries.append(self._entry(item, lost))
            size += len(entries[-1].item)
            if len(entries) == PART or size > PART_BYTES:
                streamed = await self.run.publish(home, streamed.place, entries)
                entries, size = [], 0
        if entries:
            streamed = await self.run.publish(home, streamed.place, entries)
        if lost:
            logger.error(
                "%s of batch %s can't be written as JSON, and are not in the stream; the first one: %s",
                counted(len(lost), "item"), home.label, lost[0], extra={"spider": self.spider},
            )  # fmt: skip
        return Kept(streamed.place - streamed.unwritten, lost=streamed.unwritten)

    def _items(self, draft: Draft) -> Iterator[Any]:
        """All that count."""
        return (line.item for _, line in lines_of(draft.file, type(self.spider)) if line is not None)

    def _entry(self, item: Any, lost: list[str]) -> Entry:
        """Why it can't be written is added to *lost*."""
        try:
            return Entry(self._texts.of(item), _name(type(item)))
        except Exception as error:  # of a serializer, which is the project's code
            lost.append(f"{type(error).__name__}: {error}")
            return UNWRITTEN


class _Texts:
    """Items as lines of a ``jl`` feed with *settings*."""

    def __init__(self, settings: BaseSettings) -> None:
        self._file = io.BytesIO()
        self._exporter = JsonLinesItemExporter(
            self._file, encoding=settings["FEED_EXPORT_ENCODING"],
            fields_to_export=settings.getdictorlist("FEED_EXPORT_FIELDS") or None,
        )  # fmt: skip

    def of(self, item: Any) -> bytes:
        self._file.seek(0)
        self._file.truncate()
        self._exporter.export_item(item)
        return self._file.getvalue()[:-1]


class OwnStream:
    """Keeper of what *crawler* scrapes itself: *keep* takes the lines of each item on their way to the server, where
    they count in the end. What can't travel is an item that *walk* has lost."""

    idle = True  # it goes up with what the walk finds

    def __init__(
        self, crawler: Crawler, *, keep: Callable[[bytes], None], book: HomeBook, spool: Spool, walk: Walk,
        ledger_failed: Callable[[LedgerUnavailableError], None],
    ) -> None:  # fmt: skip
        self.crawler = crawler
        self.keep = keep
        self.book = book
        self.spool = spool
        self.walk = walk
        self.own_pages = OwnPages(crawler, book, begun=lambda: self._begun, ledger_failed=ledger_failed)
        self._writer = ItemWriter()
        self._begun = False
        crawler.signals.connect(self._item_scraped, signals.item_scraped)

    def begin(self, run: str, *, walk: bool) -> None:
        """As that of a ``Keeper``."""
        self.spool.begin(run, ())
        self._begun = True

    def own_is_safe(self) -> bool:
        """As that of a ``Keeper``: the server has it, or it is on its way, and the walk is not done before."""
        return True

    async def finish(self) -> None:
        """Nothing is on its way."""

    async def close(self) -> bool:
        """As that of a ``Keeper``: there are no feeds."""
        return True

    def ended(self) -> None:
        """As that of a ``Keeper``."""
        self.spool.forget(self.book.earlier_runs())

    def _item_scraped(self, item: Any, response: Any) -> None:
        if not self._begun:
            return
        try:
            lines = self._writer.lines(item, position=None, page=self.own_pages.page(response))
        except NotSerializableError as error:
            self.walk.lost[f"item can't be kept: {error}"] += 1
            logger.error("An item that was scraped here is not in the stream: %s", error,
                         extra={"spider": self.crawler.spider})  # fmt: skip
        else:
            self.keep(b"".join(lines))


def _name(kind: type) -> str:
    return "dict" if kind is dict else f"{kind.__module__}.{kind.__qualname__}"

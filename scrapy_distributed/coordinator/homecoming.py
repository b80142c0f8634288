"""Puts the items that have come home into the feeds of the coordinator, as if they had been scraped here.

All of it is in the spool: what workers have brought, and what the coordinator has scraped itself, from the moment when
its walk is said to be done. So a run that is taken up again writes its feeds anew, each item once.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.extensions.feedexport import FeedExporter
from scrapy.utils.defer import deferred_from_coro, ensure_awaitable, maybe_deferred_to_future
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from scrapy_distributed.coordinator.home_pipelines import HomePipelines
from scrapy_distributed.coordinator.item_signal import ItemSignal
from scrapy_distributed.coordinator.keeper import HomeLedger, OwnSpooled
from scrapy_distributed.coordinator.own_pages import OwnPages
from scrapy_distributed.errors import LedgerUnavailableError, WireError
from scrapy_distributed.feeds.appending import Appending
from scrapy_distributed.feeds.feeds import Feeds
from scrapy_distributed.feeds.place import in_thread
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.spooled import lost_words
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.password import without_password
from scrapy_distributed.wire.receipt import ItemsFile

logger = logging.getLogger(__name__)

TURN = 0.02  # seconds after which items leave the event loop to others


class Homecoming:
    """The feeds of *crawler*, and what is on its way into them from *spool*. *ledger* tells what counts; *pipelines*:
    names of those that run here alone. *changed* is called when nothing is on its way any more, *ledger_failed* if the
    ledger can't be written.

    To be made before Scrapy opens the feeds."""

    def __init__(
        self, crawler: Crawler, *, spool: Spool, ledger: HomeLedger, pipelines: Collection[str], clock: Any,
        changed: Callable[[], None], ledger_failed: Callable[[LedgerUnavailableError], None],
    ) -> None:  # fmt: skip
        self.crawler = crawler
        self.spider: Any = crawler.spider
        self.spool = spool
        self.ledger = ledger
        self.names_of_pipelines = pipelines
        self.clock = clock
        self.changed = changed
        self.exporter: FeedExporter | None = crawler.get_extension(FeedExporter)
        self.feeds = Feeds(crawler)
        self._signal = ItemSignal(crawler)
        self.appending = Appending(self.exporter) if self.exporter is not None else None
        self.pipelines: HomePipelines | None = None
        self.own_pages = OwnPages(crawler, ledger, begun=lambda: self.own.begun, ledger_failed=ledger_failed)
        self.own = OwnSpooled(spool=spool, ledger=ledger, spider=self.spider)
        self._waiting: deque[tuple[str, ItemsFile, bool]] = deque()  # what is in the spool, and whether it is new
        self._lost: dict[str, str] = {}  # names in the spool, and what is wrong with them
        self._missed = False  # what has come home is not on its way into the feeds
        self._current: Any = None  # the item that is told of just now
        self._exporting = False
        self._work: Deferred[None] = succeed(None)
        self._given_up = False  # a feed lacks something
        crawler.signals.connect(self._item_scraped, signals.item_scraped)
        crawler.signals.connect(self.feeds.file_closed, signals.feed_slot_closed)
        if self.exporter is not None:  # not before all is in: see ``close``
            crawler.signals.disconnect(self.exporter.close_spider, signals.spider_closed)

    def check(self) -> None:
        """Raises ``ConfigError`` for a feed that Scrapy has disabled."""
        self.feeds.check(self.crawler)

    async def check_places(self) -> None:
        """Raises ``ConfigError`` for a feed that can't be written, as far as that can be known before there is an
        item."""
        await self.feeds.try_places(f"probe-{secrets.token_hex(4)}", thorough=False)

    def begin(self, run: str, *, walk: bool) -> None:
        """As that of a ``Keeper``: all of it goes into the feeds once more."""
        home = self.ledger.files()
        self.own.begin(run, walk=walk, home=home)
        files = self.own.earlier | home
        if self.names_of_pipelines:
            self.pipelines = HomePipelines(self.crawler, self.names_of_pipelines)
        if self.appending is not None:
            self.appending.before, self.appending.kept = self.ledger.appended(), self.spool.folder
            self.appending.note = self.ledger.appends_to
            self.appending.begin(slot.storage for slot in self._slots)
        if files:
            self._warn_of_appending()
            self._waiting += [(name, file, False) for name, file in files.items()]
            self._go_on()

    def _warn_of_appending(self) -> None:
        for slot in self._slots:
            if getattr(slot.storage, "overwrite", True) is False:  # no local file, which is cut back
                logger.warning(
                    "%s is appended to, and all items of the run are written there again: those of an earlier command"
                    " may be there already", without_password(slot.uri), extra=self._extra,
                )  # fmt: skip

    @property
    def _slots(self) -> Sequence[Any]:
        """The feeds that are written at the same time, as Scrapy has them."""
        return self.exporter.slots if self.exporter is not None else ()

    def ended(self) -> None:
        """As that of a ``Keeper``."""
        self.spool.forget(self.ledger.earlier_runs())

    def came(self, attempt: Attempt) -> None:
        """*attempt* counts: what it has brought is in the spool."""
        try:
            file = self.ledger.file(attempt)
        except LedgerUnavailableError:
            self._missed = True  # else the run could end without it
            raise
        self._waiting.append((attempt.spool_name, file, True))
        self._go_on()

    @property
    def idle(self) -> bool:
        """Whether all that has come home is with the feeds."""
        return not self._exporting

    def own_is_safe(self) -> bool:
        """As that of a ``Keeper``."""
        return self.own.is_safe()

    async def finish(self) -> None:
        """Wait until it is ``idle``."""
        while self._exporting:
            await maybe_deferred_to_future(self._work)

    async def close(self) -> bool:
        """As that of a ``Keeper``. Where the run has not begun, what is in the place of a feed from earlier stays."""
        self.own.close()
        if len(self._lost) > 1:
            logger.error("%s", lost_words(self.spool.folder, self._lost, self.ledger.advice), extra=self._extra)
        if self.exporter is None:
            return not (self._lost or self._missed)
        if not self.own.begun:
            for slot in self.exporter.slots:
                slot.store_empty = False
        try:
            await ensure_awaitable(self.exporter.close_spider(self.spider))
        except Exception:
            logger.exception("Closing the feeds failed", extra=self._extra)
            return False
        finally:
            self._note_written()
        self.feeds.close()
        self.ledger.set_unexported(self.feeds.unexported)
        assert self.crawler.stats is not None
        return self.feeds.stored(self.crawler.stats.get_stats()) and not (self._lost or self._missed)

    # One after the other

    def _go_on(self) -> None:
        if not self._exporting:
            self._exporting = True
            self._work = deferred_from_coro(self._export_all())  # it may be over by now

    async def _export_all(self) -> None:
        try:
            while self._waiting:
                name, file, is_new = self._waiting.popleft()
                await self._export(name, file, is_new=is_new)
                self._note_written()
        except Exception:
            self.feeds.damaged = True
            logger.exception("Not all that has come home is in the feeds", extra=self._extra)
        finally:
            self._exporting = False
        self.changed()

    async def _export(self, name: str, file: ItemsFile, *, is_new: bool) -> None:
        if fault := await in_thread(self.spool.fault, name, file):  # before anything of it is in a feed
            self._is_lost(name, fault)
            return
        tell = self._signal.send if is_new else self._export_again
        began = time.monotonic()
        try:
            for line in self.spool.lines(name, file):
                item = line.item if self.pipelines is None else await self.pipelines.process(line.item)
                if item is not None:
                    self._current = item
                    if (answer := tell(item)) is not None:
                        await answer
                    self._check_feeds()
                if time.monotonic() - began > TURN:
                    await maybe_deferred_to_future(deferLater(self.clock, 0))
                    began = time.monotonic()
        except (OSError, WireError) as error:  # of a class that the project does not have any more, say
            self._is_lost(name, f"can't be read any more: {error}")
        finally:
            self._current = None

    def _note_written(self) -> None:
        """What the run has written to files that it appends to is nobody else's."""
        if self.appending is not None and (written := self.appending.written()):
            with suppress(LedgerUnavailableError):  # then a copy of it is kept, if it is cut off
                self.ledger.has_appended(written)

    def _is_lost(self, name: str, fault: str) -> None:
        self._lost[name] = fault
        if len(self._lost) == 1:  # all are told in the end
            logger.error("%s", lost_words(self.spool.folder, self._lost, self.ledger.advice), extra=self._extra)

    def _export_again(self, item: Any) -> None:
        """An earlier command has told all others of it."""
        if self.exporter is None or self._given_up:
            return
        try:
            self.exporter.item_scraped(item, self.spider)
        except Exception:
            logger.exception("An item is not in all feeds", extra=self._extra)

    def _check_feeds(self) -> None:
        """Where a feed lacks an item, the rest is of no use: it is written anew, from the spool."""
        if not self._given_up and self.exporter is not None and self.feeds.lacks_items:
            self._given_up = True
            self.crawler.signals.disconnect(self.exporter.item_scraped, signals.item_scraped)
            logger.error(
                "A feed can't be written, the error above tells why: it gets no more items, and neither do others. They"
                " come home all the same, and the same command writes the feeds anew", extra=self._extra,
            )  # fmt: skip

    def _item_scraped(self, item: Any, response: Any) -> None:
        if item is self._current or not self.own.begun:
            return
        self._check_feeds()
        self.own.keep(item, page=self.own_pages.page(response))

    @property
    def _extra(self) -> dict[str, Any]:
        return {"spider": self.spider}

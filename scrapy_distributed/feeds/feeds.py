"""The feeds of a worker: the files, what each should have got and has, and whether all of it is stored.

Scrapy opens a feed again at the next item if it could not be opened, or written, at this one; and says of a feed that
lacks items that it has stored it. So each feed has a balance, which must hold at the end: the items that it was to get
are those in its files and those that its format can't express. An item that is missing for any other reason (its place
was full, away, closed) is lost with all that this attempt has done.
"""

from __future__ import annotations

import csv
import io
import pickle
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from scrapy.crawler import Crawler
from scrapy.extensions.feedexport import FeedExporter, ItemFilter
from scrapy.utils.misc import build_from_crawler, load_object

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.feeds.place import Trial, in_thread, try_place
from scrapy_distributed.password import QUOTE, is_ambiguous, without_password, without_passwords
from scrapy_distributed.wire.receipt import FeedFile

#: What an exporter raises for an item that its format can't express, or that a serializer of the project can't take.
OF_AN_ITEM = (
    TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, csv.Error, pickle.PickleError,
)  # fmt: skip


class Feeds:
    """Watches *exporter*, or else the crawl's ``FeedExporter``, if it has one; to be made before that opens its feeds.
    *files*: those that are closed."""

    def __init__(self, crawler: Crawler, exporter: FeedExporter | None = None) -> None:
        self.exporter = exporter or crawler.get_extension(FeedExporter)
        self.files: list[FeedFile] = []
        self.closed = self.exporter is None
        self.written = 0  # items, once for each feed that has taken one; it may be that its file is not closed
        self.damaged = False  # a file has refused something, or was not stored
        self._crawler = crawler
        self._balances: dict[str, _Balance] = {}  # by URI template, in Scrapy's order
        self._exporters: dict[str, Any] = {}  # the classes, by format
        if self.exporter is not None:
            self._balances = {uri: _Balance(own, self) for uri, own in self.exporter.filters.items()}
            self.exporter.filters.update(self._balances)
            self._exporters = dict(self.exporter.exporters)
            watched: dict[str, Any] = {name: _Exporters(own, self) for name, own in self._exporters.items()}
            self.exporter.exporters.update(watched)

    def check(self, crawler: Crawler) -> None:
        """A feed with a bad scheme or format is disabled by Scrapy with a line in the log, and its items would be
        lost; and no coordinator has read the URLs of a project's own feeds. Raises ``ConfigError``."""
        asked = crawler.settings.get("FEED_URI") or crawler.settings.getdict("FEEDS")
        where = list(map(str, asked if isinstance(asked, Mapping) else [asked]))
        if any(map(is_ambiguous, where)):
            raise ConfigError(f"FEED_URI/FEEDS: expected {QUOTE}")
        if asked and self.exporter is None:
            shown = ", ".join(map(without_password, where))
            raise ConfigError(
                f"FEED_URI/FEEDS: Scrapy has disabled the feed {shown}, its reason is in this log; expected a scheme"
                " and a format that Scrapy has on this node (FEED_STORAGES, FEED_EXPORTERS). The items would be lost"
            )

    async def try_places(self, name: str, *, thorough: bool) -> list[tuple[str, Trial]]:
        """Whether each feed can be written, as far as that can be known: scheme and what was found, for each. To be
        asked when Scrapy has opened the spider. Raises ``ConfigError``."""
        slots = self.exporter.slots if self.exporter is not None else []
        if missing := [uri for uri in self._balances if uri not in {slot.uri_template for slot in slots}]:
            raise self._refusal(missing[0], "it has a placeholder that nothing fills in", "attributes of the spider")
        trials = []
        for slot in slots:
            try:
                self._try_format(slot)
            except Exception as error:  # whatever the modules of the project raise
                raise self._refusal(slot.uri, _shown(error), "options that Scrapy has on this node") from None
            try:
                trial = await in_thread(
                    try_place, slot.storage, f"{name}-{secrets.token_hex(3)}", options=slot.feed_options,
                    spider=slot.spider, thorough=thorough,
                )  # fmt: skip
            except Exception as error:  # OSError, and what FTP and its TLS raise
                expected = "a place that this node can write to: create, mount or free it, or start its server"
                raise self._refusal(slot.uri, _shown(error), expected) from None
            trials.append((slot.uri.partition(":")[0] if ":" in slot.uri else "file", trial))
        return trials

    def _try_format(self, slot: Any) -> None:
        for plugin in slot.feed_options.get("postprocessing", ()):
            load_object(plugin)
        own = self._exporters[slot.format]
        if own.__module__ == "scrapy.exporters":  # one of the project may do anything when it is made
            options = slot.feed_options
            build_from_crawler(
                own, self._crawler, io.BytesIO(), fields_to_export=options["fields"], encoding=options["encoding"],
                indent=options["indent"], **options["item_export_kwargs"],
            )  # fmt: skip

    def _refusal(self, uri: str, found: str, expected: str) -> ConfigError:
        self.damaged = True
        for slot in self.exporter.slots if self.exporter is not None else ():
            slot.store_empty = False  # else Scrapy would try to store it all the same
        shown = without_password(uri)
        place = shown.rpartition("/")[0] or shown  # the same for each attempt, so it is told once
        return ConfigError(f"FEED_URI/FEEDS: the feed in {place} can't be written here: {found}; expected {expected}")

    def file_closed(self, slot: Any) -> None:
        if slot.uri_template not in self._balances:  # of another exporter
            return
        self._balances[slot.uri_template].exported += slot.itemcount
        self._add(slot)

    def close(self) -> None:
        """All files are closed. Scrapy says nothing of a feed without items that was not to be stored, nor of one that
        it could not begin or end."""
        self.closed = True
        if self.exporter is not None:
            has_file = {file.feed for file in self.files}
            for slot in self.exporter.slots:
                if self._number(slot) not in has_file and not slot.itemcount:
                    self._add(slot)
                    self.damaged = self.damaged or (slot.store_empty and slot.batch_id == 1)

    def stored(self, stats: dict[str, Any]) -> bool:
        """Whether every file that was to be written is stored, with all that it could hold. To be asked when all are
        closed."""
        failed = any(key.startswith("feedexport/failed_count/") for key in stats)
        # Scrapy has no slot for a feed whose URL has a placeholder that nothing fills in.
        slots = {slot.uri_template for slot in self.exporter.slots} if self.exporter is not None else set()
        balanced = all(balance.holds for balance in self._balances.values())
        return not failed and not self.damaged and balanced and slots.issuperset(self._balances)

    @property
    def lacks_items(self) -> bool:
        """Whether a feed lacks an item already that it could hold: more of them are of no use."""
        to_be = sum(balance.accepted for balance in self._balances.values())
        return self.damaged or to_be != self.written + self.unexported

    @property
    def unexported(self) -> int:
        """Items that are in no file since they can't be expressed there; one that two feeds lack counts twice."""
        return sum(balance.unexported for balance in self._balances.values())

    def failed(self, item: Any, error: Exception) -> None:
        """A feed did not take *item*, and Scrapy does not come to those after it. Where *error* is not the item's own,
        nothing is noted, and the balance will not hold."""
        if not _is_of_an_item(error):
            return
        balances = list(self._balances.values())
        asked = [balance for balance in balances if balance.asked == balances[0].asked]
        asked[-1].unexported += 1
        for later in balances[len(asked) :]:
            later.miss(item)

    def _add(self, slot: Any) -> None:
        self.files.append(FeedFile(without_password(slot.uri), slot.itemcount, self._number(slot)))

    def _number(self, slot: Any) -> int:
        return list(self._balances).index(slot.uri_template)


class _Balance(ItemFilter):
    """Of one feed. Stands in the place of its item filter and asks that once for each item: it may remember what it has
    seen. In numbers of items: *accepted* are to be in the feed, *exported* are in its closed files."""

    def __init__(self, own: ItemFilter, feeds: Feeds) -> None:
        super().__init__(None)
        self.asked = self.accepted = self.exported = self.unexported = 0
        self._own = own
        self._feeds = feeds

    @property
    def holds(self) -> bool:
        return self.accepted == self.exported + self.unexported

    def accepts(self, item: Any) -> bool:
        """For Scrapy."""
        try:
            return self._ask(item)
        except Exception as error:
            self._feeds.failed(item, error)
            raise

    def miss(self, item: Any) -> None:
        """Scrapy does not ask for *item*, as a feed before this one has failed."""
        try:
            missed = self._ask(item)
        except Exception as error:
            missed = _is_of_an_item(error)
        self.unexported += missed

    def _ask(self, item: Any) -> bool:
        self.asked += 1
        self.accepted += 1  # also where the filter fails: nobody knows that the item should not be in the feed
        accepted = bool(self._own.accepts(item))
        self.accepted -= not accepted
        return accepted


class _Exporters:
    """Makes exporters, as the class *own* does, that tell *feeds* what they did not take."""

    def __init__(self, own: Any, feeds: Feeds) -> None:
        self._own = own
        self._feeds = feeds

    def from_crawler(self, crawler: Crawler, file: Any, *args: Any, **kwargs: Any) -> _Exporter:
        """For Scrapy."""
        own = build_from_crawler(self._own, crawler, _File(file, self._feeds), *args, **kwargs)
        return _Exporter(own, self._feeds)


class _Exporter:
    def __init__(self, own: Any, feeds: Feeds) -> None:
        self._own = own
        self._feeds = feeds

    def export_item(self, item: Any) -> None:
        try:
            self._own.export_item(item)
        except Exception as error:
            self._feeds.failed(item, error)
            raise
        self._feeds.written += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


class _File:
    """The file of an exporter. What it refuses is no fault of an item, whatever the exporter makes of it: a part of the
    item may be in there."""

    def __init__(self, own: Any, feeds: Feeds) -> None:
        self._own = own
        self._feeds = feeds
        self._may_write_less = isinstance(own, io.RawIOBase)

    def write(self, data: Any) -> Any:
        try:
            written = self._own.write(data)
        except BaseException:
            self._feeds.damaged = True
            raise
        if self._may_write_less and written != len(data):
            self._feeds.damaged = True
        return written

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._own.flush()
        except BaseException:
            self._feeds.damaged = True
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


def _is_of_an_item(error: BaseException) -> bool:
    """Whether *error* is the item's own, and not one that something else has led to."""
    if not isinstance(error, OF_AN_ITEM):
        return False
    chain: BaseException | None = error
    for _ in range(20):  # one that names itself as its cause has no end
        if isinstance(chain, OSError):  # also one that is a ValueError, too
            return False
        chain = chain and (chain.__cause__ or chain.__context__)
    return True


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {without_passwords(str(error))}"

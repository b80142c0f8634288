"""The feeds of a worker: the files, what each should have got and has, and whether all of it is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from scrapy.crawler import Crawler
from scrapy.extensions.feedexport import FeedExporter, ItemFilter

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.password import QUOTE, is_ambiguous, without_password
from scrapy_distributed.receipt import FeedFile


class Feeds:
    """Watches the crawl's ``FeedExporter``, if it has one; to be made before that opens its feeds. *files*: those that
    are closed."""

    def __init__(self, crawler: Crawler) -> None:
        extensions: Iterable[Any] = crawler.extensions.middlewares if crawler.extensions is not None else ()
        self.exporter = next((extension for extension in extensions if isinstance(extension, FeedExporter)), None)
        self.files: list[FeedFile] = []
        self.closed = self.exporter is None
        self._missing: Counter[str] = Counter()  # items that a feed should have and has not yet, by its URI template
        self._exported: Counter[str] = Counter()
        self._filters: dict[str, _Filter] = {}
        if self.exporter is not None:
            self._filters = {uri: _Filter(own) for uri, own in self.exporter.filters.items()}
            self.exporter.filters.update(self._filters)

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

    def item_scraped(self, item: Any) -> None:
        """To be called after the ``FeedExporter`` has had *item*."""
        self._missing.update(uri for uri, own in self._filters.items() if own.has_accepted(item))

    def file_closed(self, slot: Any) -> None:
        self._exported[slot.uri_template] += slot.itemcount
        self._missing[slot.uri_template] -= slot.itemcount
        self._add(slot)

    def close(self) -> None:
        """All files are closed. Scrapy says nothing of a feed without items that was not to be stored."""
        self.closed = True
        if self.exporter is not None:
            has_file = {file.feed for file in self.files}
            for slot in self.exporter.slots:
                if self._number(slot) not in has_file and not slot.itemcount:
                    self._add(slot)

    def stored(self, stats: dict[str, Any]) -> bool:
        """Whether every file that was to be written is stored. To be asked when all are closed."""
        failed = any(key.startswith("feedexport/failed_count/") for key in stats)
        # Scrapy counts no failure where a feed could not even be opened: it has no slot then (a placeholder that
        # nothing fills in), or no item of it is in any file.
        slots = {slot.uri_template for slot in self.exporter.slots} if self.exporter is not None else set()
        unopened = any(count > 0 and not self._exported[uri] for uri, count in self._missing.items())
        return not failed and not unopened and slots.issuperset(self._filters)

    @property
    def unexported(self) -> int:
        """Items that are in no file and should be, when all are closed; one that two feeds lack counts twice."""
        return self._missing.total()

    def _add(self, slot: Any) -> None:
        self.files.append(FeedFile(without_password(slot.uri), slot.itemcount, self._number(slot)))

    def _number(self, slot: Any) -> int:
        return list(self._filters).index(slot.uri_template)


class _Filter(ItemFilter):
    """Stands in the place of a feed's item filter and asks it once for each item: it may remember what it has seen."""

    def __init__(self, own: ItemFilter) -> None:
        super().__init__(None)
        self._own = own
        self._answer: tuple[Any, bool] | None = None

    def accepts(self, item: Any) -> bool:
        """For Scrapy."""
        self._answer = (item, bool(self._own.accepts(item)))
        return self._answer[1]

    def has_accepted(self, item: Any) -> bool:
        """Whether *item* should be in the feed, also where Scrapy has not come to asking since another feed failed."""
        answer, self._answer = self._answer, None
        try:
            return answer[1] if answer is not None and answer[0] is item else bool(self._own.accepts(item))
        except Exception:  # logged by Scrapy; the item is in no file, and nobody knows that it should not be
            return True

"""The feeds of a worker: the files, what each should have got and has, and whether all of it is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from scrapy.crawler import Crawler
from scrapy.extensions.feedexport import FeedExporter

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.receipt import without_password


class Feeds:
    """Watches the crawl's ``FeedExporter``, if it has one. *files*: (URL without password, items) of closed files."""

    def __init__(self, crawler: Crawler) -> None:
        extensions: Iterable[Any] = crawler.extensions.middlewares if crawler.extensions is not None else ()
        self.exporter = next((extension for extension in extensions if isinstance(extension, FeedExporter)), None)
        self.files: list[tuple[str, int]] = []
        self.closed = self.exporter is None
        self._missing: Counter[str] = Counter()  # items that a feed should have and has not yet, by its URI template
        self._exported: Counter[str] = Counter()

    def check(self, crawler: Crawler) -> None:
        """A feed with a bad scheme or format is disabled by Scrapy with a line in the log, and its items would be
        lost. Raises ``ConfigError``."""
        asked = crawler.settings.get("FEED_URI") or crawler.settings.getdict("FEEDS")
        if asked and self.exporter is None:
            where = [asked] if isinstance(asked, str) else list(map(str, asked))
            shown = ", ".join(map(without_password, where))
            raise ConfigError(
                f"FEED_URI/FEEDS: Scrapy has disabled the feed {shown}, its reason is in this log; expected a scheme"
                " and a format that Scrapy has on this node (FEED_STORAGES, FEED_EXPORTERS). The items would be lost"
            )

    def item_scraped(self, item: Any) -> None:
        if self.exporter is not None:
            self._missing.update(uri for uri, feed in self.exporter.filters.items() if feed.accepts(item))

    def file_closed(self, slot: Any) -> None:
        self._exported[slot.uri_template] += slot.itemcount
        self._missing[slot.uri_template] -= slot.itemcount
        self.files.append((without_password(slot.uri), slot.itemcount))

    def stored(self, stats: dict[str, Any]) -> bool:
        """Whether every file that was to be written is stored. To be asked when all are closed."""
        failed = any(key.startswith("feedexport/failed_count/") for key in stats)
        # Scrapy counts no failure where a feed could not even be opened: no item of it is in any file then.
        unopened = any(count > 0 and not self._exported[uri] for uri, count in self._missing.items())
        return not failed and not unopened

    @property
    def unexported(self) -> int:
        """Items that are in no file and should be, when all are closed."""
        return sum(self._missing.values())

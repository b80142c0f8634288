"""Feeds that append to a file, in a crawl that may be taken up again: what an earlier command of it has written there
is written once more, so it is cut off before."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from scrapy import Spider
from scrapy.crawler import Crawler
from scrapy.extensions.feedexport import FeedExporter, FileFeedStorage
from scrapy.utils.misc import build_from_crawler

logger = logging.getLogger(__name__)

MAX_NAME = 60  # characters of the name of a file in that of what was cut off from it: of four bytes each at most


class Appending:
    """Watches the files of *exporter*; to be made before that opens its feeds.

    *before*: path to the bytes that were there before an earlier command, for those of which that is known; *note* is
    told it of each that is new. What is cut off is kept in the folder *kept*, as nobody knows who has written it."""

    def __init__(self, exporter: FeedExporter) -> None:
        self.before: Mapping[str, int] = {}
        self.note: Callable[[str, int], None] = lambda path, size: None
        self.kept = Path()
        self._opened: set[str] = set()
        storages: dict[str, Any] = exporter.storages
        storages.update({scheme: _Storages(own, self) for scheme, own in storages.items()})

    def begins(self, storage: FileFeedStorage) -> None:
        """*storage* is about to be opened. Raises ``OSError``."""
        path = os.path.abspath(storage.path)
        if storage.write_mode != "ab" or path in self._opened:
            return
        size = os.path.getsize(path) if os.path.exists(path) else 0
        if path not in self.before:
            self.note(path, size)
        elif size > self.before[path]:
            self._cut(path, self.before[path], size)
        self._opened.add(path)

    def _cut(self, path: str, length: int, size: int) -> None:
        with open(path, "r+b") as file:
            kept = self.kept / f"{os.path.basename(path)[:MAX_NAME]}-{secrets.token_hex(4)}.cut"
            file.seek(length)
            with kept.open("xb") as copy:
                shutil.copyfileobj(file, copy)
            file.truncate(length)
        logger.info(
            "%s had %d bytes when this run began, and has %d: cut back, as all items of the run are written there now;"
            " what was cut off is kept in %s until the next run",
            path, length, size, kept,
        )  # fmt: skip


class _Storages:
    """Makes storages, as the class *own* does, and has *appending* see those of files."""

    def __init__(self, own: Any, appending: Appending) -> None:
        self._own = own
        self._appending = appending

    def from_crawler(self, crawler: Crawler, uri: str, **kwargs: Any) -> Any:
        """For Scrapy."""
        storage = build_from_crawler(self._own, crawler, uri, **kwargs)
        if type(storage) is not FileFeedStorage:
            return storage
        opened: Callable[[Spider], IO[bytes]] = storage.open

        def watched(spider: Spider) -> IO[bytes]:
            self._appending.begins(storage)
            return opened(spider)

        storage.open = watched  # type: ignore[method-assign]
        return storage

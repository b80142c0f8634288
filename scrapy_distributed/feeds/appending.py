"""Feeds that append to a file, in a crawl that may be taken up again: what an earlier command of it has written there
is written once more, so it is cut off before. Of that only what the run has written itself, byte for byte, is not
kept."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
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

    *before*: path to the number of bytes that were there before the run, and the number and digest of those that its
    last command has written behind them, as far as that has said. *note* is told the first of them of a path that is
    new. What else is cut off is kept in the folder *kept*, as nobody knows who has written it."""

    def __init__(self, exporter: FeedExporter) -> None:
        self.before: Mapping[str, tuple[int, int, str]] = {}
        self.note: Callable[[str, int], None] = lambda path, size: None
        self.kept = Path()
        self._noted: set[str] = set()  # by this command
        self._written: dict[str, _Written] = {}  # by this command
        storages: dict[str, Any] = exporter.storages
        storages.update({scheme: _Storages(own, self) for scheme, own in storages.items()})

    def begin(self, storages: Iterable[Any]) -> None:
        """Note the lengths of those files of *storages* that are new, before anything counts: so a copy of the ledger
        that is put back later knows them, too."""
        for storage in storages:
            if type(storage) is FileFeedStorage and storage.write_mode == "ab":
                path = os.path.abspath(storage.path)
                if path not in self.before:
                    self._note(path)

    def written(self) -> dict[str, tuple[int, str]]:
        """Path to the number of bytes that this command has written there so far, and their digest."""
        return {path: written.known() for path, written in self._written.items()}

    def open(self, storage: FileFeedStorage, opened: Callable[[Spider], IO[bytes]], spider: Spider) -> Any:
        """What *opened*, that of *storage*, gives. Raises ``OSError``."""
        if storage.write_mode != "ab":
            return opened(spider)
        path = os.path.abspath(storage.path)
        if path not in self._written:
            self._begin(path)
        return _Watched(opened(spider), self._written[path])

    def _begin(self, path: str) -> None:
        if path not in self.before:
            if path not in self._noted:  # a part of a feed, whose name was not known before
                self._note(path)
        elif (size := _size(path)) > self.before[path][0]:
            self._cut(path, *self.before[path], size)
        self._written[path] = _Written()

    def _note(self, path: str) -> None:
        self.note(path, _size(path))
        self._noted.add(path)

    def _cut(self, path: str, length: int, own: int, digest: str, size: int) -> None:
        """*own* bytes of that *digest* behind *length* are the run's."""
        kept = "nothing else was there"
        with open(path, "r+b") as file:
            file.seek(length)
            if _digest(file, own) != digest:
                file.seek(length)
            if file.tell() < size:
                copy = self.kept / f"{os.path.basename(path)[:MAX_NAME]}-{secrets.token_hex(4)}.cut"
                with copy.open("xb") as target:
                    shutil.copyfileobj(file, target)
                kept = f"what somebody else may have written is kept in {copy} until the next run"
            file.truncate(length)
        logger.info(
            "%s had %d bytes when this run began, and has %d: cut back, as all items of the run are written there now;"
            " %s", path, length, size, kept,
        )  # fmt: skip


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _digest(file: IO[bytes], size: int) -> str:
    """Of the next *size* bytes of *file*."""
    digest = hashlib.sha256()
    while size and (data := file.read(min(size, 1 << 18))):
        digest.update(data)
        size -= len(data)
    return digest.hexdigest()


class _Written:
    """What has gone to one file, through one *file* after the other."""

    def __init__(self) -> None:
        self.file: Any = None
        self._size = 0
        self._digest = hashlib.sha256()
        self._known = (0, self._digest.hexdigest())

    def add(self, data: Any) -> None:
        self._size += len(data)
        self._digest.update(data)

    def known(self) -> tuple[int, str]:
        """How many bytes are there for sure, and their digest."""
        with suppress(OSError):  # of a full disk; that is told to who writes more, or closes it
            if self.file is not None and not self.file.closed:
                self.file.flush()
            self._known = (self._size, self._digest.hexdigest())
        return self._known


class _Watched:
    """The file *own*; *written* notes what goes to it."""

    def __init__(self, own: Any, written: _Written) -> None:
        self._own = own
        self._written = written
        written.file = own

    def write(self, data: Any) -> Any:
        count = self._own.write(data)
        self._written.add(data)
        return count

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


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

        def watched(spider: Spider) -> Any:
            return self._appending.open(storage, opened, spider)

        storage.open = watched  # type: ignore[method-assign]
        return storage

"""The feeds that count, as one file.

A feed is a file in a folder that the user names, found by the last part of the feed's URL. The URL itself comes from a
worker and is never opened: neither ``file:///etc/passwd`` nor ``../secrets.jl`` leads out of these folders.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.ledger.records import AcceptedAttempt
from scrapy_distributed.results.draft import draft, put, remove_dead
from scrapy_distributed.results.formats import MAX_ITEM_BYTES, TOO_LITTLE_MEMORY, FeedError, Source, Writer, format_of
from scrapy_distributed.words import counted


class FaultKind(Enum):
    """Why the merged file is not all of the run."""

    UNSETTLED = "unsettled"
    """The run is not over."""
    NO_FEED = "no feed"
    """A job scraped items, and no feed of it is known."""
    TOO_MANY = "too many feeds"
    """A job has several feeds, or one with more items than it scraped."""
    MISSING = "missing"
    """No file of this name is in the folders."""
    TWICE = "found twice"
    """Nobody knows which file is the feed."""
    UNREADABLE = "unreadable"
    """It is damaged, of another format, or has other columns."""
    COUNT = "count differs"
    """It has more or fewer items than its receipt says."""
    UNEXPORTED = "not exported"
    """Its job scraped items that its format can't express."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    kind: FaultKind
    message: str


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What ``merge`` did. *feeds*: files that were read, also those that do not exist since they have no items."""

    items: int
    feeds: int
    written: bool
    faults: tuple[Fault, ...]


def merge(
    attempts: Iterable[AcceptedAttempt],
    folders: Sequence[Path],
    output: Path,
    *,
    pattern: str = "*",
    unsettled: str = "",
    partial: bool = False,
    max_item_bytes: int = MAX_ITEM_BYTES,
) -> Merged:
    """Write the feeds of *attempts*, in their order, to *output*: as a whole, in place of what was there, and only if
    there is no fault or *partial* is true. *pattern*: of the URLs of feeds. *unsettled*: what the run still lacks.
    *max_item_bytes*: a feed with an item that is larger is a fault.

    Leaves nothing else in that folder, also if it is killed: the next one there removes what it had written.

    Raises ``ConfigError`` if a folder can't be read or *output* can't be written.
    """
    output = Path(os.path.realpath(output))
    if output.exists() and not output.is_file():
        raise ConfigError(f"{output}: found something that is no file, expected a file or nothing")
    faults = [Fault(kind=FaultKind.UNSETTLED, message=unsettled)] if unsettled else []
    feeds = list(_feeds(attempts, pattern, faults))
    files = list(_files(feeds, _locate(feeds, folders), faults))
    if output.exists() and any(path.samefile(output) for path, _ in files if path):
        raise ConfigError(f"{output}: this is one of the feeds, expected another file to merge them into")
    remove_dead(output.parent)
    writing = partial or not faults  # else the feeds are only read, so that all faults are told at once
    try:
        with draft(output.parent) if writing else Path(os.devnull).open("wb") as file:
            items = _copy(files, file, faults, max_item_bytes)
            written = partial or not faults
            if written:
                put(file, output)
    except OSError as error:
        raise ConfigError(f"{output}: can't be written: {error.strerror or error}") from None
    return Merged(items=items, feeds=len(files), written=written, faults=tuple(faults))


@dataclass(frozen=True, kw_only=True)
class _Feed:
    label: str
    url: str
    items: int

    @property
    def names(self) -> set[str]:
        """What its file may be called: storages differ in whether they undo the quoting of a URL."""
        try:
            path = urlsplit(self.url).path
        except ValueError:
            path = self.url
        return {text.rpartition("/")[2] for text in (path, unquote(path), self.url)} - {""}

    def __str__(self) -> str:
        return f"feed {self.url} of batch {self.label}"


def _feeds(attempts: Iterable[AcceptedAttempt], pattern: str, faults: list[Fault]) -> Iterator[_Feed]:
    for attempt in attempts:
        files = [file for file in attempt.feeds if fnmatchcase(file.url, pattern)]
        first_of_each = {file.feed: file.url for file in reversed(files)}
        total = sum(file.items for file in files)
        if attempt.unexported:
            missing = counted(attempt.unexported, "item")
            message = f"batch {attempt.label}: {missing} missing in its feeds: their format can't express them"
            faults.append(Fault(kind=FaultKind.UNEXPORTED, message=message))
        if attempt.home is not None:
            message = f"batch {attempt.label}: its items came home: scrapy batches export writes them"
            faults.append(Fault(kind=FaultKind.NO_FEED, message=message))
        elif attempt.items and not files:
            scraped = f"batch {attempt.label}: its job scraped {counted(attempt.items, 'item')}"
            message = f"{scraped}, found no feed of it" + (f" that fits {pattern!r}" if attempt.feeds else "")
            faults.append(Fault(kind=FaultKind.NO_FEED, message=message))
        elif len(first_of_each) > 1:  # nobody knows which items are in both
            found = " and ".join(url for _, url in sorted(first_of_each.items()))
            message = (
                f"batch {attempt.label}: its job has {len(first_of_each)} feeds, found {found}, expected one: choose it"
                " with --feeds PATTERN, and merge the others into files of their own"
            )
            faults.append(Fault(kind=FaultKind.TOO_MANY, message=message))
        elif total > attempt.items:
            scraped = f"batch {attempt.label}: its job scraped {counted(attempt.items, 'item')}"
            message = f"{scraped}, found {total:,} in its feed"
            faults.append(Fault(kind=FaultKind.TOO_MANY, message=message))
        else:
            yield from (_Feed(label=attempt.label, url=file.url, items=file.items) for file in files)


def _locate(feeds: Iterable[_Feed], folders: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Where files with the names of *feeds* are: name to real path to path as found. Links are not followed."""
    found: dict[str, dict[str, Path]] = {name: {} for feed in feeds for name in feed.names}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: found no folder there, expected one with feeds in it")
        for where, _, names in os.walk(folder, onerror=_refuse):
            for path in (Path(where, name) for name in found.keys() & set(names)):
                if path.is_file() and not path.is_symlink():
                    found[path.name].setdefault(os.path.realpath(path), path)
    return found


def _refuse(error: OSError) -> None:
    raise ConfigError(f"{error.filename}: can't be read: {error.strerror}") from None


def _files(
    feeds: Iterable[_Feed], found: dict[str, dict[str, Path]], faults: list[Fault]
) -> Iterator[tuple[Path | None, _Feed]]:
    """The file of each feed, ``None`` for one that need not exist."""
    owners: dict[str, _Feed] = {}
    for feed in feeds:
        places = {real: path for name in sorted(feed.names) for real, path in found[name].items()}
        if not places and not feed.items:  # with FEED_STORE_EMPTY=False there is no file
            yield None, feed
        elif not places:
            names = " or ".join(sorted(feed.names)) or "its file"
            message = f"{feed}: found no file {names}, expected {counted(feed.items, 'item')}"
            faults.append(Fault(kind=FaultKind.MISSING, message=message))
        elif len(places) > 1:
            message = f"{feed}: found {' and '.join(map(str, places.values()))}, expected one of them"
            faults.append(Fault(kind=FaultKind.TWICE, message=message))
        else:
            ((real, path),) = places.items()
            owner = owners.setdefault(real, feed)
            if owner is feed:
                yield path, feed
            else:
                message = f"{feed}: its file {path} is that of the {owner} too; %(batch)s must be in the name of a feed"
                faults.append(Fault(kind=FaultKind.TWICE, message=message))


def _copy(files: Iterable[tuple[Path | None, _Feed]], file: BinaryIO, faults: list[Fault], max_item_bytes: int) -> int:
    """Copy all *files* to *file*; returns the number of items."""
    writer: Writer | None = None
    for path, feed in files:
        if path is None:
            continue
        before = writer.items if writer else 0
        try:
            with Source(path, max_item_bytes) as source:
                kind = format_of(source.head())
                if kind and writer is None:
                    writer = kind(file)
                if kind and writer:
                    if kind.name != writer.name:
                        raise FeedError(f"it is {kind.name}, the feeds before it are {writer.name}")
                    writer.copy(source)
        except (FeedError, MemoryError) as error:
            why = str(error) if isinstance(error, FeedError) else f"an item of it {TOO_LITTLE_MEMORY}"
            faults.append(Fault(kind=FaultKind.UNREADABLE, message=f"{path}, {feed}: {why}"))
            continue
        found = (writer.items if writer else 0) - before
        if found != feed.items:
            message = f"{path}, {feed}: found {counted(found, 'item')}, its receipt says {feed.items:,}"
            faults.append(Fault(kind=FaultKind.COUNT, message=message))
    if writer is None:
        return 0
    writer.finish()
    return writer.items

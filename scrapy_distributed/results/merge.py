"""The feeds that count, as one file.

A feed is a file in a folder that the user names, found by the last part of the feed's URL. The URL itself comes from a
worker and is never opened: neither ``file:///etc/passwd`` nor ``../secrets.jl`` leads out of these folders.

The bytes of an item are copied as they are; of the three formats only what says where an item ends is looked at. An
item is all that is in memory at a time, and its size is limited: what a feed holds, a node says.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from scrapy_distributed.errors import ConfigError, DistributedError
from scrapy_distributed.ledger.reader import AcceptedAttempt
from scrapy_distributed.results.draft import draft, put, remove_dead
from scrapy_distributed.words import counted

MAX_ITEM_BYTES = 4 * 1024 * 1024  # to look at an item as JSON takes up to 25 times as much
CHUNK_BYTES = 256 * 1024
HEAD_BYTES = 4096
BOM = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"
FORMATS = "JSON lines, CSV or a JSON array, plain or by gzip"
# What Scrapy can write besides, by its first bytes. CSV has none of its own: it is any other text.
REFUSED = {
    b"<": "XML",
    b"\x80\x04": "pickle",
    b"\xfb\xda": "marshal",
    b"{": "something with braces that is no JSON",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"PAR1": "Parquet",
}
NO_TEXT = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
IN_NUMBER = ("", *"0123456789+-.eE")  # what a number may go on with, or the end of what has come
JSON_SPACE = re.compile(r"[ \t\n\r]*")
TOO_LITTLE_MEMORY = "takes more memory than there is; a smaller --max-item refuses it at once"
NO_ARRAY = "it is no JSON array to its end; is the feed cut off, or written by two jobs?"


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


class FeedError(DistributedError):
    """A feed can't be read to its end. What was read before is written."""


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


# Which files


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
        if attempt.items and not files:
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


# What is in them


class _Source:
    """An open feed. *limit*: bytes of an item. Everything raises ``FeedError`` for a file that can't be read."""

    def __init__(self, path: Path, limit: int) -> None:
        self.limit = limit
        with self._reading():
            self._file: BufferedReader | gzip.GzipFile = path.open("rb")
            if self._file.peek(2)[:2] == GZIP:
                self._file.close()
                self._file = gzip.GzipFile(path)

    def __enter__(self) -> _Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def head(self) -> bytes:
        with self._reading():
            return bytes(self._file.peek(HEAD_BYTES)[:HEAD_BYTES])

    def read(self, size: int) -> bytes:
        with self._reading():
            return self._file.read(size)

    def lines(self) -> Iterator[bytes]:
        """Its lines, with their ends."""
        number = 0
        with self._reading():
            while line := self._file.readline(self.limit + 1):
                number += 1
                if len(line) > self.limit and not line.endswith(b"\n"):
                    raise self.too_large(f"line {number}")
                yield line

    def too_large(self, what: str) -> FeedError:
        return FeedError(f"{what} has more than {self.limit:,} bytes; --max-item takes larger ones")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, zlib.error) as error:
            raise FeedError(f"can't be read: {error}") from None


class _Writer(Protocol):
    """Copies feeds of one format into a file. *items*: how many so far."""

    name: str
    items: int

    def __init__(self, file: BinaryIO) -> None: ...

    def copy(self, source: _Source) -> None:
        """Raises ``FeedError`` where *source* is not of this format."""

    def finish(self) -> None: ...


class _JsonLines:
    name = "JSON lines"

    def __init__(self, file: BinaryIO) -> None:
        self.items = 0
        self._file = file

    def copy(self, source: _Source) -> None:
        for number, line in enumerate(source.lines(), 1):
            item = line.strip().removeprefix(BOM)
            if not item:
                continue
            if not isinstance(_json(item), dict):
                raise FeedError(f"line {number} is no JSON object; is the feed cut off?")
            self._file.write(item + b"\n")
            self.items += 1

    def finish(self) -> None:
        pass


class _JsonArray:
    name = "a JSON array"

    def __init__(self, file: BinaryIO) -> None:
        self.items = 0
        self._file = file

    def copy(self, source: _Source) -> None:
        for item in _Array(source).items():
            self._file.write((b",\n" if self.items else b"[\n") + item)
            self.items += 1

    def finish(self) -> None:
        self._file.write(b"\n]\n" if self.items else b"[]\n")


class _Array:
    """The text of a JSON array as it is read: what of it has come and is not passed yet. In any encoding that is ASCII
    where it matters."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._text = source.read(CHUNK_BYTES).removeprefix(BOM).decode("latin-1")
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def items(self) -> Iterator[bytes]:
        """Raises ``FeedError`` where it is no array, with nothing after it."""
        self._pass("[")
        number = 0
        if self._next() != "]":
            number += 1
            yield self._item(number)
            while self._next() == ",":
                self._at += 1
                self._next()
                number += 1
                yield self._item(number)
        self._pass("]")
        self._pass("")

    def _pass(self, expected: str) -> None:
        if self._next() != expected:
            raise FeedError(NO_ARRAY)
        self._at += 1

    def _next(self) -> str:
        """The next character that is no white space; '' at the end."""
        while True:
            found = JSON_SPACE.match(self._text, self._at)
            assert found
            self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read():
                return ""

    def _read(self) -> bool:
        """Read on, ever more at a time, as the item in hand is looked at from its start again; not far beyond the limit
        of an item. Whether there was something."""
        kept = self._text[self._at :]
        chunk = self._source.read(CHUNK_BYTES + min(len(kept), max(0, self._source.limit - len(kept))))
        self._text, self._at = kept + chunk.decode("latin-1"), 0
        return bool(chunk)

    def _item(self, number: int) -> bytes:
        """The JSON value that begins here."""
        while True:
            end = self._end_of_value()
            if (end or len(self._text)) - self._at > self._source.limit:
                raise self._source.too_large(f"item {number}, if it is JSON,")
            if end is not None and self._text[end : end + 1] not in IN_NUMBER:  # else 1 may be the beginning of 1.5e3
                item = self._text[self._at : end].encode("latin-1")
                self._at = end
                return item
            if not self._read():
                raise FeedError(NO_ARRAY)

    def _end_of_value(self) -> int | None:
        """``None`` where it is no JSON value, or only the beginning of one."""
        try:
            return self._decode(self._text, self._at)[1]
        except RecursionError:
            raise FeedError(NO_ARRAY) from None
        except ValueError:
            return None


class _Csv:
    name = "CSV"

    def __init__(self, file: BinaryIO) -> None:
        self.items = 0
        self._file = file
        self._columns: bytes | None = None

    def copy(self, source: _Source) -> None:
        columns: bytes | None = None
        for record in self._records(source):
            bare = record.rstrip(b"\r\n")
            if columns is None:
                columns = bare.removeprefix(BOM)
                if self._columns is None:
                    self._columns = columns
                    self._file.write(bare + b"\r\n")
                elif columns != self._columns:
                    raise FeedError(
                        f"found the columns {_shown(columns)}, in the feeds before it {_shown(self._columns)}; set"
                        " FEED_EXPORT_FIELDS, so that every job writes the same"
                    )
                continue
            if bare == record and _width(bare) != _width(columns):
                raise FeedError("its last record has too few columns; is the feed cut off?")
            self._file.write(record if bare != record else record + b"\r\n")
            self.items += 1

    def finish(self) -> None:
        pass

    def _records(self, source: _Source) -> Iterator[bytes]:
        """Lines, and as one those that belong together because a newline is in quotes. Empty ones are left out."""
        begun = bytearray()
        quotes = 0
        for line in source.lines():
            quotes += line.count(b'"')
            if begun or quotes % 2:
                begun += line
                if len(begun) > source.limit:
                    raise source.too_large("a record, whose quote may not be closed,")
            if quotes % 2:
                continue
            if begun or line.strip():
                yield bytes(begun) or line
            begun.clear()
            quotes = 0
        if begun:
            raise FeedError("a quote is not closed at its end; is the feed cut off?")


def _copy(files: Iterable[tuple[Path | None, _Feed]], file: BinaryIO, faults: list[Fault], max_item_bytes: int) -> int:
    """Copy all *files* to *file*; returns the number of items."""
    writer: _Writer | None = None
    for path, feed in files:
        if path is None:
            continue
        before = writer.items if writer else 0
        try:
            with _Source(path, max_item_bytes) as source:
                kind = _format(source.head())
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


def _format(head: bytes) -> type[_Writer] | None:
    """The format of a feed that begins like this; ``None`` for an empty one. The name of a feed says nothing: Scrapy
    goes by ``FEED_FORMAT``. Raises ``FeedError`` for one that can't be merged."""
    text = head.removeprefix(BOM).lstrip()
    if not text:
        return None
    if re.match(rb'\{\s*["}]', text):
        return _JsonLines
    if text.startswith(b"["):
        return _JsonArray
    for start, name in REFUSED.items():
        if text.startswith(start):
            raise FeedError(f"it is {name}, expected {FORMATS}")
    if NO_TEXT.search(text):
        raise FeedError(f"it is no text, or of an encoding like UTF-16; expected {FORMATS}")
    return _Csv


def _json(text: bytes) -> object:
    """The value of a JSON text in any encoding that is ASCII where it matters; ``None`` if it is none."""
    try:
        return json.loads(text.decode("latin-1"))
    except (ValueError, RecursionError):
        return None


def _width(record: bytes) -> int:
    """How many columns it has."""
    before = csv.field_size_limit(len(record))  # Python's own is 128 KiB
    try:
        return len(next(csv.reader(io.StringIO(record.decode("latin-1"), newline="")), []))
    except csv.Error as error:
        raise FeedError(f"its last record can't be read: {error}") from None
    finally:
        csv.field_size_limit(before)


def _shown(columns: bytes) -> str:
    return ascii(columns.decode("latin-1")[:200])

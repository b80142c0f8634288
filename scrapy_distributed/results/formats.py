"""The formats of feeds, read and written an item after the other.

The bytes of an item are copied as they are; of the three formats only what says where an item ends is looked at. An
item is all that is in memory at a time, and its size is limited: what a feed holds, a node says.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from scrapy_distributed.errors import DistributedError

MAX_ITEM_BYTES = 4 * 1024 * 1024  # to look at an item as JSON takes up to 25 times as much
CHUNK_BYTES = 256 * 1024
MAX_EMPTY = 10_000  # lines of a feed
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


class FeedError(DistributedError):
    """A feed can't be read to its end. What was read before is written."""


class Source:
    """An open feed. *limit*: bytes of an item. Everything raises ``FeedError`` for a file that can't be read."""

    def __init__(self, path: Path, limit: int) -> None:
        self.limit = limit
        with self._reading():
            self._file: BufferedReader | gzip.GzipFile = path.open("rb")
            if self._file.peek(2)[:2] == GZIP:
                self._file.close()
                self._file = gzip.GzipFile(path)

    def __enter__(self) -> Source:
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


class Writer(Protocol):
    """Copies feeds of one format into a file. *items*: how many so far."""

    name: str
    items: int

    def __init__(self, file: BinaryIO) -> None: ...

    def copy(self, source: Source) -> None:
        """Raises ``FeedError`` where *source* is not of this format."""

    def finish(self) -> None: ...


class _JsonLines:
    name = "JSON lines"

    def __init__(self, file: BinaryIO) -> None:
        self.items = 0
        self._file = file

    def copy(self, source: Source) -> None:
        empty = 0
        for number, line in enumerate(source.lines(), 1):
            item = line.strip().removeprefix(BOM)
            if not item:
                empty += 1
                if empty > MAX_EMPTY:  # a few kilobytes, by gzip, may be millions of them
                    raise FeedError(f"more than {MAX_EMPTY:,} empty lines before line {number}; is it a feed?")
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

    def copy(self, source: Source) -> None:
        for item in _Array(source).items():
            self._file.write((b",\n" if self.items else b"[\n") + item)
            self.items += 1

    def finish(self) -> None:
        self._file.write(b"\n]\n" if self.items else b"[]\n")


class _Array:
    """The text of a JSON array as it is read: what of it has come and is not passed yet. In any encoding that is ASCII
    where it matters."""

    def __init__(self, source: Source) -> None:
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

    def copy(self, source: Source) -> None:
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

    def _records(self, source: Source) -> Iterator[bytes]:
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


def format_of(head: bytes) -> type[Writer] | None:
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

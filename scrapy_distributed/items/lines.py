"""Item <-> line of a file. The only file that knows the format of a line.

A line is JSON in ASCII, and ends in a newline. One for an item holds the position of its start request in the batch
(null: it has none), the fingerprint of the request whose page it is of (left out for the page of the start request
itself), the number of its class (0: a dict) and what it is made of (``wire.values``)::

    [12,0,{"name":"tea","price":3}]
    ["class",1,"shop.items","Book"]
    [12,"0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33",1,{"title":"Emma"}]

A class is named before the first object of it, and counted from 1. Pickle is never used: a file comes from a worker,
and may be forged or damaged.
"""

from __future__ import annotations

import json
import re
from collections import Counter, OrderedDict, defaultdict
from typing import Any, NamedTuple

from scrapy_distributed.errors import NotSerializableError, WireError
from scrapy_distributed.wire.classes import Classes, Shapes
from scrapy_distributed.wire.leaves import MAX_DIGITS, StuckError
from scrapy_distributed.wire.payload import found_text
from scrapy_distributed.wire.values import MAX_DEPTH, MAX_VALUES, PLAIN, TAG, TEXTS, Decoder, Encoder
from scrapy_distributed.words import shortened

MAX_LINE = 16 * 1024 * 1024  # bytes, with the newline
MAX_PAGE = 128  # hexadecimal digits
# In the JSON: an object or a mapping of one is three levels, the line itself is one.
_MAX_JSON_DEPTH = 3 * MAX_DEPTH + 10
_MAX_NAME = 100  # characters of the fields in the words for what can't travel
_DICTS = (dict, OrderedDict, defaultdict, Counter)
_CLASS = b'["class",'
_dumps = json.JSONEncoder(ensure_ascii=True, check_circular=False, allow_nan=False, separators=(",", ":")).encode
_head = re.compile(rb'\[(null|[0-9]{1,10}),(?:"([0-9a-f]{1,128})",)?').match
_DIGITS = b"0123456789"


class Line(NamedTuple):
    """An item, with the position of its start request (None: it has none) and the fingerprint of the request that gave
    its page ('': the start request)."""

    position: int | None
    page: str
    item: Any


class ItemWriter:
    """Makes the lines of one file."""

    def __init__(self) -> None:
        self._classes = Classes()
        self._encoder = Encoder(self._classes.of)

    def lines(self, item: Any, *, position: int | None, page: str = "") -> list[bytes]:
        """The lines of *item*: one, and before it one for each class that the file has not named. All of them must be
        written, in that order. *page* is hexadecimal.

        Raises ``NotSerializableError`` with the field and type of what can't travel, and is as it was before.
        """
        named = len(self._classes)
        try:
            body = self._flat(item) or self._nested(item)
            start = "null" if position is None else str(position)
            line = f'[{start},"{page}",{body}]\n' if page else f"[{start},{body}]\n"
            lines = [_class_line(number, kind) for number, kind in enumerate(self._classes, 1) if number > named]
            lines.append(line.encode("ascii"))
            for one in lines:
                _check(one)
        except StuckError as stuck:
            self._classes.forget(named)
            where = shortened(".".join(reversed(stuck.names)), _MAX_NAME)
            raise NotSerializableError(f"{where} {stuck.words}".strip()) from None
        except ValueError as error:
            self._classes.forget(named)
            raise NotSerializableError(f"{type(item).__name__} with {error}") from None
        except RecursionError:
            self._classes.forget(named)
            raise NotSerializableError(f"{type(item).__name__} nested too deep") from None
        except Exception as error:  # an item may be of a class that does as it likes
            self._classes.forget(named)
            raise NotSerializableError(f"{type(item).__name__} ({found_text(repr(error))})") from error
        return lines

    def _flat(self, item: Any) -> str:
        """The number and the JSON of a flat item of plain values, which is nearly every one; '' for any other."""
        kind = type(item)
        number, fields = 0, item
        if kind is not dict:
            if kind not in self._classes:
                return ""
            number, shape = self._classes.of(kind)
            if not shape.is_item:
                return ""
            fields, *more = shape.parts(item)
            if more:
                return ""
        if TAG in fields or not (PLAIN.issuperset(map(type, fields.values())) and TEXTS.issuperset(map(type, fields))):
            return ""
        try:
            body = _dumps(fields)
        except ValueError:  # not a number, or infinite, or of many digits
            return ""
        return "" if "\\ud" in body else f"{number},{body}"  # perhaps half a character

    def _nested(self, item: Any) -> str:
        kind = type(item)
        number, parts = 0, [item]
        if kind not in _DICTS:
            number, shape = self._classes.of(kind)
            if not shape.is_item:
                raise StuckError(kind.__name__)
            parts = shape.parts(item)
        return _dumps([number, *self._encoder.encode_parts(parts)])[1:-1]


class ItemReader:
    """Reads the lines of one file in order. *spider* is the spider's class or the name of its module: classes are
    looked for in what is imported, and in the modules of its top-level package."""

    def __init__(self, spider: type | str) -> None:
        module = spider if isinstance(spider, str) else spider.__module__
        self._shapes = Shapes(module.split(".")[0])
        self._decoder = Decoder(self._shapes.of)

    def read(self, line: bytes) -> Line | None:
        """The item of a line, None for one that names a class. No code of its class runs, but for what tells the
        elements of a set apart.

        Raises ``WireError`` for a line that no ``ItemWriter`` writes, and for a class that is not there.
        """
        start = head(line)
        try:
            if line[-1:] != b"\n":
                raise ValueError("a line that is cut off")
            _check(line)
            text = line.decode("ascii")
            parts, end = self._decoder.decode(text)
            if end != len(text) - 1:
                raise ValueError("something behind the end")
            if start is not None:
                return self._line(*start, parts)
            self._name(*parts[1:])
            return None
        except (Exception, SystemExit) as error:  # of what is forged, or of a module that is imported for it
            found = found_text(f"{type(error).__name__}: {error}")
            raise WireError(f"found {found_text(repr(line[:60]))}, expected the line of an item ({found})") from None

    def _line(self, position: int | None, page: str, parts: Any) -> Line:
        number, *rest = parts[2:] if page else parts[1:]
        if type(number) is int and number == 0:
            (item,) = rest
            if type(item) not in _DICTS:
                raise TypeError(f"found {type(item).__name__}, expected a dict")
        else:
            shape = self._shapes.of(number)
            if not shape.is_item:
                raise TypeError("expected the class of an item")
            item = shape.made(*rest)
        return Line(position, page, item)

    def _name(self, number: Any, module: Any, qualname: Any) -> None:
        if type(number) is not int or number != len(self._shapes) + 1:
            raise TypeError("expected the next number of a class")
        self._shapes.name(module, qualname)


def head(line: bytes) -> tuple[int | None, str] | None:
    """The position and the page of a line, without a look at its item; None for one that names a class.

    Raises ``WireError`` for a line that starts as none does.
    """
    if line.startswith(_CLASS):
        return None
    found = _head(line)
    if found is None:
        raise WireError(f"found {found_text(repr(line[:60]))}, expected the line of an item")
    position, page = found.groups(b"")
    return None if position == b"null" else int(position), page.decode("ascii")


def _class_line(number: int, kind: type) -> bytes:
    return f"{_dumps(['class', number, kind.__module__, kind.__qualname__])}\n".encode("ascii")


def _check(line: bytes) -> None:
    """Raises ``ValueError`` for a line that would take a reader long, or much memory."""
    if len(line) > MAX_LINE:
        raise ValueError(f"{len(line):,} bytes, where {MAX_LINE:,} can travel")
    if _brackets(line) <= MAX_DEPTH and (
        len(line) <= MAX_DIGITS or not (_has_many_values(line) or _has_long_int(line))
    ):
        return  # whatever of that is in quotes
    bare = line.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    if bare.count(b'"') > 4 * MAX_VALUES:  # a name and a text for each value
        raise ValueError(f"more than {MAX_VALUES:,} values")
    bare = re.sub(rb'"[^"]*"', b"", bare)
    if _has_many_values(bare):
        raise ValueError(f"more than {MAX_VALUES:,} values")
    if _has_long_int(bare):
        raise ValueError(f"a number of more than {MAX_DIGITS:,} digits")
    if _deepest(bare) > _MAX_JSON_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} values in one another")


def _brackets(line: bytes) -> int:
    return line.count(b"[") + line.count(b"{")


def _has_many_values(line: bytes) -> bool:
    return line.count(b",") + _brackets(line) > MAX_VALUES


def _has_long_int(line: bytes) -> bool:
    """A run of that many digits has one at a place that is looked at."""
    for place in range(0, len(line), MAX_DIGITS):
        if line[place] in _DIGITS:
            before, after = line[max(0, place - MAX_DIGITS) : place], line[place : place + MAX_DIGITS + 1]
            run = len(before) - len(before.rstrip(_DIGITS)) + len(after) - len(after.lstrip(_DIGITS))
            if run > MAX_DIGITS:
                return True
    return False


def _deepest(bare: bytes) -> int:
    deepest = depth = 0
    for byte in re.sub(rb"[^][{}]+", b"", bare):
        depth += 1 if byte in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest

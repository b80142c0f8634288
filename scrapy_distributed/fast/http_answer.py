"""The answer to a request, read from its bytes: the head, and the three kinds of body.

No network here, and no clock: *feed* takes what has come, in pieces of any size. What comes is bounded: a line of the
head, the head, the length of a chunk, the trailers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from scrapy.http import Headers

MAX_LINE = 16_384  # bytes of one line of a head: Twisted's limit
MAX_HEAD = 131_072  # bytes of all of them together
MAX_CHUNK_LINE = 1_024  # bytes: Twisted's limit
MAX_TRAILERS = 65_536  # bytes: Twisted's limit

END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"([^ /]+/\d+\.\d+) (\d{3})(?: .*)?", re.DOTALL)
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")  # no control character
# Headers of the connection, not of the answer: Scrapy's own handler does not show them.
_OF_CONNECTION = frozenset(
    (
        b"Content-Length",
        b"Connection",
        b"Keep-Alive",
        b"Te",
        b"Trailers",
        b"Transfer-Encoding",
        b"Upgrade",
        b"Proxy-Connection",
    )
)
_WITHOUT_BODY = (204, 304)
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class ParseError(Exception):
    """What has come is not HTTP/1.1."""


class Sized:
    """A body of *left* bytes."""

    partial = False
    broken: ParseError | None = None

    def __init__(self, left: int) -> None:
        self.left = left
        self.done = not left

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The part of *data* that is of the body, and what follows it."""
        body, rest = data[: self.left], data[self.left :]
        self.left -= len(body)
        self.done = not self.left
        return body, rest


class UntilClose:
    """A body that ends with the connection: nobody can tell whether that was all."""

    partial = True
    done = False
    broken: ParseError | None = None

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """All of *data*, and nothing."""
        return data, b""


class Chunked:
    """A body in chunks, each with its length before it. *broken*: what came after the last good one is no chunk."""

    partial = False

    def __init__(self) -> None:
        self.done = False
        self.broken: ParseError | None = None
        self._pending = b""
        self._left = 0  # bytes of the chunk that is under way, its line end included
        self._in_trailers = False
        self._trailers = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The bytes of the body in *data*, and what follows it."""
        data, pieces = self._pending + data, list[bytes]()
        try:
            position = self._read(data, pieces)
        except ParseError as problem:
            self.broken = problem
            return b"".join(pieces), b""
        rest = data[position:]
        self._pending = b"" if self.done else rest
        return b"".join(pieces), rest if self.done else b""

    def _read(self, data: bytes, pieces: list[bytes]) -> int:
        """Add what is of the body to *pieces*; returns the position of what is not read yet."""
        position = 0
        while not self.done and position < len(data):
            if self._left:
                position += self._take(data[position : position + self._left], pieces)
                continue
            end = data.find(b"\r\n", position)
            if end < 0:
                if len(data) - position > (MAX_TRAILERS if self._in_trailers else MAX_CHUNK_LINE):
                    raise ParseError("a line between chunks is too long")
                break
            self._line(data[position:end])
            position = end + 2
        return position

    def _take(self, piece: bytes, pieces: list[bytes]) -> int:
        """*piece* is of the chunk that is under way, or of the new line after it."""
        inside = max(0, self._left - 2)
        pieces.append(piece[:inside])
        if not b"\r\n"[2 - min(2, self._left) :].startswith(piece[inside:]):
            raise ParseError("a chunk does not end with a new line")
        self._left -= len(piece)
        return len(piece)

    def _line(self, line: bytes) -> None:
        if self._in_trailers:
            self._trailers += len(line)
            if self._trailers > MAX_TRAILERS:
                raise ParseError(f"more than {MAX_TRAILERS} bytes after the last chunk")
            self.done = not line
            return
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None or len(line) > MAX_CHUNK_LINE:
            raise ParseError(f"found {line[:60]!r}, expected the length of a chunk")
        length = int(size[1], 16)
        self._in_trailers = not length
        self._left = length + 2 if length else 0


@dataclass(kw_only=True, eq=False, slots=True)
class Head:
    """The head of an answer. *length* of its body in bytes, if that is known; *kept*: the connection may go on."""

    status: int
    protocol: str
    headers: Headers
    length: int | None
    body: Sized | UntilClose | Chunked
    kept: bool
    pieces: list[bytes] = field(default_factory=list)
    received: int = 0
    warned: bool = False


def parse_head(text: bytes, method: str) -> Head | None:
    """The head *text* of an answer to *method*; ``None`` for an interim one (1xx). Raises ``ParseError``."""
    if len(text) > MAX_HEAD:
        raise ParseError(f"the head has {len(text)} bytes, expected at most {MAX_HEAD}")
    line, *lines = text.split(b"\n")
    first, fields = _first(line), _fields(lines)
    return None if first[2].startswith(b"1") else _head(first, fields, method)


def check_lines(text: bytes, *, at_start: bool) -> None:
    """Look at some lines of a head that is not complete. Raises ``ParseError`` for one that no head can have."""
    lines = text.split(b"\n")
    if at_start:
        _first(lines.pop(0))
    _fields(lines)


def _first(line: bytes) -> re.Match[bytes]:
    first = _STATUS.fullmatch(line.removesuffix(b"\r"))
    if first is None:
        raise ParseError(f"found {line[:60]!r}, expected an HTTP version and a status")
    return first


def _fields(lines: Sequence[bytes]) -> dict[bytes, list[bytes]]:
    """The values of each header."""
    fields: dict[bytes, list[bytes]] = {}
    previous: list[bytes] | None = None
    for line in lines:
        if len(line) > MAX_LINE:
            raise ParseError(f"a header of {len(line)} bytes, expected at most {MAX_LINE}")
        if line[:1] in (b" ", b"\t"):  # goes on with the line before
            if previous:
                previous[-1] = (previous[-1] + _value(line)).strip()
            continue
        name, colon, value = line.partition(b":")
        if not colon:  # some servers send such lines, and browsers skip them
            previous = None
            continue
        previous = fields.setdefault(_name(name), [])
        previous.append(_value(value).strip())
    return fields


@lru_cache(maxsize=1024)
def _name(name: bytes) -> bytes:
    """*name* as Scrapy writes it."""
    if not _TOKEN.fullmatch(name):
        raise ParseError(f"found {name[:60]!r}, expected the name of a header")
    return name.title()


def _value(value: bytes) -> bytes:
    """*value* of a header without new lines."""
    value = value.removesuffix(b"\r")
    return b" ".join(value.splitlines()) if b"\r" in value else value


def _head(first: re.Match[bytes], fields: dict[bytes, list[bytes]], method: str) -> Head:
    status, encoding = int(first[2]), fields.get(b"Transfer-Encoding")
    # Without a body, or beside chunks, a length says nothing, so it need not make sense.
    length: int | None = None
    kept = first[1] == b"HTTP/1.1" and b"close" not in b",".join(fields.get(b"Connection", ())).lower()
    body: Sized | UntilClose | Chunked
    if method == "HEAD" or status in _WITHOUT_BODY:
        length, body = 0, Sized(0)
    elif encoding is not None:
        if {one.strip().lower() for one in encoding} != {b"chunked"}:
            raise ParseError(f"found the transfer encoding {encoding!r:.60}, expected chunked")
        # Both at once, or twice: the next answer may begin anywhere.
        kept = kept and b"Content-Length" not in fields and len(encoding) == 1
        body = Chunked()
    elif (length := _length(fields)) is None:
        body, kept = UntilClose(), False
    else:
        body = Sized(length)
    headers = Headers()
    if length is not None:
        dict.__setitem__(headers, b"Content-Length", [b"%d" % length])
    for name, values in fields.items():
        if name not in _OF_CONNECTION or (method == "HEAD" and name == b"Content-Length"):  # it is of the page then
            dict.__setitem__(headers, name, values)
    return Head(
        status=status, protocol=first[1].decode("latin-1"), headers=headers, length=length, body=body, kept=kept
    )


def _length(fields: dict[bytes, list[bytes]]) -> int | None:
    found = fields.get(b"Content-Length")
    if found is None:
        return None
    values = [part.strip() for value in found for part in value.split(b",")]
    lengths = {int(value) for value in values if _LENGTH.fullmatch(value)}
    if len(lengths) != 1 or not all(map(_LENGTH.fullmatch, values)):
        raise ParseError(f"found the content length {found!r:.60}, expected one number")
    return lengths.pop()

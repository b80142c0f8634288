"""Values that hold no others, and that JSON does not know: each is a name and a few simpler values, and back.

Each is of exactly the type that is named here: what derives from one may mean more. What is read may be forged, so
every reading function checks what it is given; it may raise anything.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

MAX_DIGITS = 4_300  # of an int, as in Python: the time to read one grows with the square of its length
MAX_TEXT = MAX_DIGITS + 100  # characters that a number, a time or an address is written with
MAX_RANGE = 1_000_000  # elements: some exporters go through them
_STRICT = Context(traps=[InvalidOperation])


class StuckError(Exception):
    """A value can't travel. *words* begin with its type; *names* are those of the fields around it, the inner first."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words
        self.names: list[str] = []


class Leaf(NamedTuple):
    """One type. *write* gives values that are simpler, *read* takes them and returns what they were made of."""

    write: Callable[[Any], tuple[Any, ...]]
    read: Callable[..., Any]


def _taking(*kinds: type | tuple[type, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function that is called only with values of exactly these types. Later ones may be left out."""
    allowed = [kind if isinstance(kind, tuple) else (kind,) for kind in kinds]

    def of(make: Callable[..., Any]) -> Callable[..., Any]:
        def read(*parts: Any) -> Any:
            if len(parts) > len(allowed):
                raise TypeError(f"found {len(parts)} parts, expected {len(allowed)}")
            for part, one_of in zip(parts, allowed, strict=False):
                if type(part) not in one_of:
                    raise TypeError(f"found {type(part).__name__}, expected {one_of[0].__name__}")
            return make(*parts)

        return read

    return of


def _short(make: Callable[[str], Any]) -> Callable[..., Any]:
    @_taking(str)
    def read(text: str) -> Any:
        if len(text) > MAX_TEXT:
            raise ValueError(f"a text of {len(text):,} characters")
        return make(text)

    return read


def _write_text(value: Any) -> tuple[str]:
    text = str(value)
    if len(text) > MAX_TEXT:
        raise StuckError(f"{type(value).__name__} of more than {MAX_DIGITS:,} digits")
    return (text,)


def _write_moment(value: datetime | time) -> tuple[Any, ...]:
    zone = value.tzinfo
    if zone is not None and type(zone) not in (timezone, ZoneInfo):
        raise StuckError(f"{type(value).__name__} with a time zone of type {type(zone).__name__}")
    text = value.replace(tzinfo=None, fold=0).isoformat()
    return (text,) if zone is None and not value.fold else (text, value.fold, zone)


def _moment(kind: Any) -> Callable[..., Any]:
    @_taking(str, int, (timezone, ZoneInfo, type(None)))
    def read(text: str, fold: int = 0, zone: Any = None) -> Any:
        if len(text) > MAX_TEXT:
            raise ValueError("a long text")
        return kind.fromisoformat(text).replace(fold=fold, tzinfo=zone)

    return read


def _write_zone(value: ZoneInfo) -> tuple[str]:
    if value.key is None:
        raise StuckError("ZoneInfo without a key")
    return (value.key,)


def _write_timezone(value: timezone) -> tuple[Any, ...]:
    offset, name = value.utcoffset(None), value.tzname(None)
    return (offset,) if name == timezone(offset).tzname(None) else (offset, name)


def _write_range(value: range) -> tuple[int, int, int]:
    if _is_long(value):
        raise StuckError(f"range of more than {MAX_RANGE:,} elements")
    return value.start, value.stop, value.step


@_taking(int, int, int)
def _read_range(start: int, stop: int, step: int) -> range:
    found = range(start, stop, step)
    if _is_long(found):
        raise ValueError("a long range")
    return found


def _is_long(value: range) -> bool:
    return bool(value[MAX_RANGE : MAX_RANGE + 1])


def _decimal(text: str) -> Decimal:
    return Decimal(text, _STRICT)


def _write_bytes(value: bytes | bytearray) -> tuple[str]:
    return (base64.b64encode(value).decode("ascii"),)


def _read_bytes(kind: type) -> Callable[..., Any]:
    @_taking(str)
    def read(text: str) -> Any:
        return kind(base64.b64decode(text, validate=True))

    return read


def _as_texts(kinds: Iterable[type]) -> dict[type, Leaf]:
    return {kind: Leaf(_write_text, _short(kind)) for kind in kinds}


LEAVES: dict[type, Leaf] = {
    bytes: Leaf(_write_bytes, _read_bytes(bytes)),
    bytearray: Leaf(_write_bytes, _read_bytes(bytearray)),
    complex: Leaf(lambda value: (value.real, value.imag), _taking(float, float)(complex)),
    range: Leaf(_write_range, _read_range),
    datetime: Leaf(_write_moment, _moment(datetime)),
    time: Leaf(_write_moment, _moment(time)),
    date: Leaf(lambda value: (value.isoformat(),), _short(date.fromisoformat)),
    timedelta: Leaf(lambda value: (value.days, value.seconds, value.microseconds), _taking(int, int, int)(timedelta)),
    timezone: Leaf(_write_timezone, _taking(timedelta, str)(timezone)),
    ZoneInfo: Leaf(_write_zone, _short(ZoneInfo)),
    Decimal: Leaf(_write_text, _short(_decimal)),
    Fraction: Leaf(lambda value: (value.numerator, value.denominator), _taking(int, int)(Fraction)),
    UUID: Leaf(lambda value: (value.hex,), _short(UUID)),
    # The path of a system is one of that system: a Path can't be made for another.
    **{
        kind: Leaf(lambda value: (str(value),), _taking(str)(kind))
        for kind in (PurePosixPath, PureWindowsPath, type(Path()))
    },
    **_as_texts((IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network)),
}

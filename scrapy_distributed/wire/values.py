"""The values of items and of requests <-> JSON.

What JSON would change is an object with the one name ``~``, and a list: a name and what the value is made of::

    {"~": ["datetime", "2026-11-28T10:00:00"]}    {"~": ["tuple", 1, 2]}    {"~": ["float", "nan"]}
    {"~": ["dict", [1, "a"], ["~", "b"]]}         a dict with a key that is no text, or that is "~"
    {"~": ["str", "\\ud83d", "\\ude00"]}            a text that JSON would join
    {"~": ["class", 1, {"name": "tea"}]}          an object of the first class that is named

A set arrives with its elements in an order of its own, as in every process. A ``default_factory`` that is no built-in
class stays behind.
"""

from __future__ import annotations

import json
import re
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterable
from math import copysign, isfinite, isnan
from typing import Any

from lxml.etree import _ElementUnicodeResult  # type: ignore[import-untyped]

from scrapy_distributed.wire.classes import Shape
from scrapy_distributed.wire.leaves import LEAVES, MAX_DIGITS, StuckError

TAG = "~"
MAX_DEPTH = 200
MAX_VALUES = 300_000  # in one item; and commas and brackets in its JSON
MAX_ALIKE = 100  # keys with the same hash: the time to tell them apart grows with the square of their number
# The text of a link, as parsel may give it, is lxml's own kind, and nothing more than a text.
TEXTS = frozenset({str, _ElementUnicodeResult})
PLAIN = frozenset({*TEXTS, int, bool, float, type(None)})
_FACTORIES = {
    kind.__name__: kind for kind in (list, dict, set, int, str, float, bool, tuple, frozenset, bytes, Counter)
}
_SEQUENCES = {kind.__name__: kind for kind in (tuple, set, frozenset)}
_LEAVES = {kind.__name__: leaf for kind, leaf in LEAVES.items()}
_MANY_BITS = 14_000  # of an int with a little fewer than MAX_DIGITS digits
_joins = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")


class Encoder:
    """Makes what JSON knows of values, up to *depth* of them in one another. *shape_of* gives the number and the shape
    of a class. *whole*: an object with attributes that are no fields, which stay behind, can't travel."""

    def __init__(
        self, shape_of: Callable[[type], tuple[int, Shape]], *, depth: int = MAX_DEPTH, whole: bool = False
    ) -> None:
        self._shape_of = shape_of
        self._depth = depth
        self._whole = whole
        self._open: set[int] = set()
        self._left = MAX_VALUES

    def encode_parts(self, parts: Iterable[Any]) -> list[Any]:
        """What the parts of one item are made of. Raises ``StuckError``."""
        self._open.clear()
        self._left = MAX_VALUES
        return [self.encode(part) for part in parts]

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if kind in PLAIN:
            return _plain(kind, value)
        leaf = LEAVES.get(kind)
        if leaf is not None:
            return {TAG: [kind.__name__, *(self.encode(part) for part in leaf.write(value))]}
        if id(value) in self._open:
            raise StuckError(f"{kind.__name__} that holds itself")
        if len(self._open) >= self._depth:
            raise StuckError(f"{kind.__name__} nested too deep")
        self._open.add(id(value))
        self._left -= len(value) if kind in _CONTAINERS else 1
        if self._left < 0:
            raise StuckError(f"{kind.__name__} after {MAX_VALUES:,} values")
        found = _CONTAINERS.get(kind, Encoder._classed)(self, value)
        self._open.discard(id(value))
        return found

    def _dict(self, value: dict[Any, Any]) -> Any:
        if TAG in value or not TEXTS.issuperset(map(type, value)) or any(map(_is_joined, value)):
            return self._tagged_pairs(value)
        found = {}
        for name, one in value.items():
            try:
                found[name] = self.encode(one)
            except StuckError as stuck:
                stuck.names.append(name)
                raise
        return found

    def _pairs(self, value: dict[Any, Any]) -> list[Any]:
        found = []
        for key, one in value.items():
            try:
                found.append([self.encode(key), self.encode(one)])
            except StuckError as stuck:
                stuck.names.extend([key] if isinstance(key, str) else [])
                raise
        return found

    def _tagged_pairs(self, value: dict[Any, Any]) -> Any:
        _check_alike(value)
        return {TAG: [type(value).__name__, *self._pairs(value)]}

    def _defaultdict(self, value: defaultdict[Any, Any]) -> Any:
        _check_alike(value)
        factory: Any = value.default_factory
        name = getattr(factory, "__name__", None)
        known = isinstance(name, str) and _FACTORIES.get(name) is factory
        return {TAG: ["defaultdict", name if known else None, *self._pairs(value)]}

    def _list(self, value: list[Any]) -> Any:
        return [self.encode(one) for one in value]

    def _sequence(self, value: Collection[Any]) -> Any:
        if not isinstance(value, tuple):
            _check_alike(value)
        return {TAG: [type(value).__name__, *[self.encode(one) for one in value]]}

    def _deque(self, value: deque[Any]) -> Any:
        return {TAG: ["deque", value.maxlen, *[self.encode(one) for one in value]]}

    def _classed(self, value: Any) -> Any:
        number, shape = self._shape_of(type(value))
        if self._whole and (others := shape.left_behind(value)):
            raise StuckError(f"{type(value).__name__} with {min(others)}, which is no field of it")
        found: list[Any] = ["class", number]
        for part in shape.parts(value):
            found.append(self._dict(part) if type(part) is dict else self.encode(part))
        return {TAG: found}


_CONTAINERS: dict[type, Callable[[Encoder, Any], Any]] = {
    dict: Encoder._dict,
    OrderedDict: Encoder._tagged_pairs,
    Counter: Encoder._tagged_pairs,
    defaultdict: Encoder._defaultdict,
    list: Encoder._list,
    tuple: Encoder._sequence,
    set: Encoder._sequence,
    frozenset: Encoder._sequence,
    deque: Encoder._deque,
}


def _plain(kind: type, value: Any) -> Any:
    if kind is float:
        if isfinite(value):
            return value
        sign = "-" if copysign(1, value) < 0 else ""
        return {TAG: ["float", f"{sign}{'nan' if isnan(value) else 'inf'}"]}
    if kind is int and value.bit_length() > _MANY_BITS and abs(value) >= 10**MAX_DIGITS:
        raise StuckError(f"int of more than {MAX_DIGITS:,} digits")
    if kind in TEXTS and _is_joined(value):
        return {TAG: ["str", *_joins.split(value)]}
    return value


def _is_joined(text: str) -> bool:
    """Whether JSON makes one character of two halves in *text*."""
    return not text.isascii() and _joins.search(text) is not None


def _check_alike(keys: Collection[Any]) -> None:
    if len(keys) > MAX_ALIKE and max(Counter(map(hash, keys)).values()) > MAX_ALIKE:
        raise StuckError(f"{type(keys).__name__} with more than {MAX_ALIKE} keys of the same hash")


class Decoder:
    """Makes values of what an ``Encoder`` has made. *shape* gives the shape of a class by its number."""

    def __init__(self, shape: Callable[[Any], Shape]) -> None:
        self._shape = shape
        self.decode = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=_no_number).raw_decode
        """The value at the start of a text, and where it ends. Raises anything for what is forged."""
        self._tags: dict[str, Callable[..., Any]] = {
            "class": self._classed,
            "dict": _dict,
            "OrderedDict": lambda *pairs: OrderedDict(_dict(*pairs)),
            "Counter": _counter,
            "defaultdict": _defaultdict,
            "deque": _deque,
            "float": _float,
            "str": _joined,
            **{name: _sequence(kind) for name, kind in _SEQUENCES.items()},
            **{name: leaf.read for name, leaf in _LEAVES.items()},
        }

    def _object(self, pairs: list[tuple[str, Any]]) -> Any:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("two values for one name")
        if TAG not in found:
            return found
        (parts,) = found.values()
        if type(parts) is not list:
            raise TypeError(f"found {type(parts).__name__}, expected a name and parts")
        return self._tags[parts[0]](*parts[1:])

    def _classed(self, number: Any, *parts: Any) -> Any:
        return self._shape(number).made(*parts)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _dict(*pairs: Any) -> dict[Any, Any]:
    if not all(type(pair) is list and len(pair) == 2 for pair in pairs):
        raise TypeError("expected pairs")
    _check_alike([key for key, _ in pairs])
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("two values for one key")
    return found


def _counter(*pairs: Any) -> Counter[Any]:
    found: Counter[Any] = Counter()
    dict.update(found, _dict(*pairs))
    return found


def _defaultdict(factory: Any, *pairs: Any) -> defaultdict[Any, Any]:
    return defaultdict(None if factory is None else _FACTORIES[factory], _dict(*pairs))


def _sequence(kind: Any) -> Callable[..., Any]:
    def read(*elements: Any) -> Any:
        if kind is not tuple:
            _check_alike(elements)
        found = kind(elements)
        if len(found) < len(elements):
            raise ValueError("an element twice")
        return found

    return read


def _deque(longest: Any, *elements: Any) -> deque[Any]:
    if longest is not None and (type(longest) is not int or longest < len(elements)):
        raise ValueError("a deque of more elements than it may have")
    return deque(elements, longest)


def _float(text: Any) -> float:
    if text not in ("nan", "-nan", "inf", "-inf"):
        raise ValueError("expected no finite number")
    return float(text)


def _joined(*parts: Any) -> str:
    return "".join(parts)

"""What a line of a feed says, what a word is, and how far a word moves the price: the rules that both engines share.

**An item** is a line of a JSON lines file: an object with a ``title`` (a string) and a ``price`` (a number, or a
string that is nothing but a number as JSON spells it; from 0 to below 10 ** 12, and rounded to 12 decimal places).
Any other line is *malformed*, also an object that is nested deeper than 100 levels. A line of white space is nothing,
and so is a byte order mark before a line: an export as ``utf-8-sig`` has one on each. An item whose ``url`` has been
seen before is the same listing, crawled once more: the one in the file with the smallest name counts, and in a file the
first. Items without a ``url`` count line by line.

**A word** is a maximal run of letters and digits of any script (`str.isalnum`), in lower case, and counts once a title.

**The shift** of a word is (mean price with it - mean price without it) / mean price of all. The means run over the
words of all titles, each with the price of its title: "Split Business Split" at 1.0 and "Need business" at 2.0 are
four words, of 1.0, 1.0, 2.0 and 2.0. So "need" is at (2 - 4/3) / 1.5 = +0.4444 and "business" at
(1.5 - 1.5) / 1.5 = 0. Where one of these means does not exist, or all prices are 0, the shift is 0.

**Sums are exact**: prices are added as integers, so that the order of files and machines does not matter, and each
shift is rounded to floating point once, at the end.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from decimal import Context, Decimal, InvalidOperation
from itertools import accumulate
from math import sqrt
from sys import intern

PRICE_LIMIT = Decimal(10**12)
PRICE_UNIT = Decimal("1e-12")
EXACT = Context(prec=40)
"""Wide enough for every price below the limit, whatever the caller's own context is."""

NESTING_LIMIT = 100
"""Python's own is what its stack has left, which is not the same in a worker of Spark."""

STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
"""A string of a JSON text; one without an end goes on to the end of the text, so that this never looks twice."""

BRACKET = re.compile(r"[\[\]{}]")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
WORD = re.compile(r"[^\W_]+")


class MalformedError(ValueError):
    """A line is no item; the message is the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """What counts of an item: its words, each once, and its price in `PRICE_UNIT`."""

    url: str | None
    words: tuple[str, ...]
    price: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Malformed:
    """A line that is no item: where it stands (lines are counted from 1), why, and its text."""

    file: str
    line: int
    reason: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"

    def as_json(self) -> str:
        """How it is set aside: one line of ASCII."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How far a word moves the price, as a fraction of the mean price, and how many titles have it.

    ``error`` is a standard error: how far a word that means nothing would be shifted if it stood in as many titles,
    drawn at random. For a word in every title it is 0: there is nothing to draw.
    """

    word: str
    shift: float
    count: int
    error: float


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Of all items: how many there are, their prices in `PRICE_UNIT`, and the squares of these. Of each word: in how
    many titles it is, and their prices."""

    items: int
    price: int
    squares: int
    words: Mapping[str, tuple[int, int]]


class Literal(str):
    """A number of a JSON text, spelled as it stands there: a float would have rounded it."""

    __slots__ = ()


DECODER = json.JSONDecoder(parse_float=Literal, parse_int=Literal)


def is_feed(name: str) -> bool:
    """Whether a file with this name has items; Spark leaves out most of what begins with a dot or an underscore."""
    return name.endswith((".jl", ".jsonl")) and not name.startswith((".", "_"))


def read_feed(name: str, lines: Iterable[bytes]) -> Iterator[tuple[int, Item | Malformed]]:
    """What each line of the file with this name says, with its number."""
    for number, line in enumerate(lines, start=1):
        content = line.removeprefix(BOM_UTF8)
        if content and not content.isspace():
            try:
                yield number, read_item(content)
            except MalformedError as error:
                text = line.rstrip(b"\r\n").decode(errors="backslashreplace")
                yield number, Malformed(file=name, line=number, reason=str(error), text=text)


def read_item(line: bytes) -> Item:
    """The item in a line; raises `MalformedError`."""
    try:
        text = line.decode()
        if nesting(text) > NESTING_LIMIT:
            raise MalformedError(f"nested deeper than {NESTING_LIMIT} levels")
        fields = DECODER.decode(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise MalformedError(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise MalformedError("not a JSON object")
    title, url = fields.get("title"), fields.get("url")
    if type(title) is not str:
        raise MalformedError("no title that is a string")
    return Item(url=url if url and type(url) is str else None, words=words_of(title), price=read_price(fields))


def nesting(text: str) -> int:
    """At most how deep the decoder would go into a text, JSON or not. It calls itself for each level, so this can't be
    left to it."""
    if (most := text.count("[") + text.count("{")) <= NESTING_LIMIT:  # nearly every line
        return most
    steps = (1 if bracket in "[{" else -1 for bracket in BRACKET.findall(STRING.sub("", text)))
    return max(accumulate(steps), default=0)


def words_of(title: str) -> tuple[str, ...]:
    """The words of a title, each once, in the order in which they come."""
    return tuple(dict.fromkeys(intern(word.lower()) for word in WORD.findall(title)))


def read_price(fields: Mapping[str, object]) -> int:
    """The price in `PRICE_UNIT`; raises `MalformedError`."""
    if "price" not in fields:
        raise MalformedError("no price")
    value = fields["price"]
    try:
        if isinstance(value, str) and NUMBER.fullmatch(value):
            price = Decimal(value)
            if 0 <= price < PRICE_LIMIT:
                return int(price.quantize(PRICE_UNIT, context=EXACT).scaleb(12, context=EXACT))
    except InvalidOperation:  # an exponent beyond all bounds
        pass
    raise MalformedError(f"price {json.dumps(value):.50} is not a number from 0 to below {PRICE_LIMIT:,}")


def shifts_of(sums: Sums) -> tuple[Shift, ...]:
    """The shift of every word: the largest first, equal ones by word."""
    count = sum(titles for titles, _ in sums.words.values())
    price = sum(prices for _, prices in sums.words.values())
    # Of the price of an item: variance = spread / (items * (items - 1)).
    spread = sums.items * sums.squares - sums.price**2

    def shift(word: str, titles: int, prices: int) -> Shift:
        others = count - titles
        share = ratio(count * (prices * count - titles * price), titles * others * price)
        # Mean of so many titles, drawn from all without putting back, as a fraction of the mean price of all words.
        chance = ratio(spread * (sums.items - titles) * count**2, sums.items**2 * (sums.items - 1) * titles * price**2)
        return Shift(word=word, shift=share, count=titles, error=sqrt(chance))

    shifts = (shift(word, *of_word) for word, of_word in sums.words.items())
    return tuple(sorted(shifts, key=lambda shift: (-shift.shift, shift.word)))


def ratio(numerator: int, denominator: int) -> float:
    """The float that is nearest to the fraction; 0 where there is none."""
    return numerator / denominator if denominator else 0.0

"""Items arrive as what they were, of every kind and with every value; what can't is named."""

from __future__ import annotations

import math
import pickle
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import item_kinds as kinds
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml.etree import fromstring

from scrapy_distributed.errors import NotSerializableError
from scrapy_distributed.items.lines import MAX_LINE, ItemReader, ItemWriter, Line, head


def travelled(item: Any, writer: ItemWriter | None = None) -> Any:
    lines = (writer or ItemWriter()).lines(item, position=3)
    reader = ItemReader("item_kinds")
    assert [reader.read(line) for line in lines[:-1]] == [None] * (len(lines) - 1)
    assert all(line.isascii() and line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    found = reader.read(lines[-1])
    assert found is not None
    assert found[:2] == (3, "")
    return found.item


def same(one: Any, other: Any) -> bool:
    """Equal, of the same types, in the same order, also where a value equals not even itself."""
    return bool(essence(one) == essence(other))


def essence(value: Any) -> Any:
    """The types and the leaves of a value, as what can be compared."""
    if isinstance(value, dict):
        return type(value), tuple((essence(key), essence(one)) for key, one in value.items())
    if isinstance(value, tuple | list | deque):
        return type(value), tuple(map(essence, value)), getattr(value, "maxlen", None)
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(essence, value))
    if isinstance(value, complex):
        return complex, essence(value.real), essence(value.imag)
    names = names_of(value)
    if names is not None:
        return type(value), tuple((name, essence(getattr(value, name))) for name in names if hasattr(value, name))
    return type(value), leaf(value)


def names_of(value: Any) -> Any:
    if isinstance(value, kinds.Item):
        return ["_values"]
    if isinstance(value, kinds.BaseModel):
        return ["__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__"]
    if hasattr(value, "__attrs_attrs__"):
        return [field.name for field in value.__attrs_attrs__]
    return getattr(value, "__dataclass_fields__", None)


def leaf(value: Any) -> Any:
    match value:
        case float():
            return str(value), math.copysign(1, value)
        case Decimal():
            return value.as_tuple()
        case datetime() | time():
            return value.isoformat(), value.fold, value.tzinfo
    return value


ZONES = st.one_of(
    st.none(),
    st.sampled_from([timezone.utc, ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), timezone(timedelta(hours=1), "CET")]),
    st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23))),
)
TEXTS = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["~", "\ud83d\ude00", "\ude00\ud83d", "😀\ud83d"]
)
HASHABLE = st.one_of(
    TEXTS,
    st.integers() | st.integers(10**4000, 10**4300 - 1),
    st.booleans() | st.none(),
    st.floats(allow_nan=False),
    st.binary(max_size=20),
    st.decimals(allow_nan=False) | st.sampled_from(list(map(Decimal, ("-0.00", "1E+999999", "-Infinity", "1.10")))),
    st.fractions(),
    st.datetimes(timezones=ZONES, allow_imaginary=True) | st.datetimes().map(lambda found: found.replace(fold=1)),
    st.dates(),
    st.times(timezones=ZONES),
    st.timedeltas(),
    st.uuids(),
    st.ip_addresses(),
    st.sampled_from(
        [ip_network("10.0.0.0/8"), ip_network("fe80::/64"), ip_interface("10.1.2.3/8"), ip_address("::1%e")]
    ),
    st.sampled_from([PurePosixPath("/a/b"), PurePosixPath(), PureWindowsPath("c:\\a"), Path("a/../b"), Path("\udcff")]),
    st.sampled_from(
        [*kinds.Kind, *kinds.Word, *kinds.Rank, kinds.Right(0), kinds.Right(5), kinds.Bits(3), kinds.Bits(9)]
    ),
    st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3)),
    st.complex_numbers(allow_nan=False),
)
KEYS = st.recursive(
    HASHABLE,
    lambda inner: st.one_of(
        st.tuples(inner, inner),
        st.frozensets(inner, max_size=3),
        st.builds(kinds.Point, inner, inner),
        st.builds(kinds.Frozen, inner, inner),
        st.builds(kinds.FrozenAttrs, inner, inner),
        st.builds(kinds.OldAttrs, inner, inner),
    ),
    max_leaves=4,
)
ODD = st.one_of(
    st.floats() | st.complex_numbers(),
    st.sampled_from([Decimal("NaN"), Decimal("-sNaN12")]),
    st.binary(max_size=9).map(bytearray),
)


def models(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def private(title: Any, hidden: Any) -> kinds.Model:
        model = kinds.Model(title=title)
        model._private = hidden
        return model

    return st.one_of(
        st.builds(private, inner, inner),
        st.builds(kinds.Plain, title=inner),
        st.builds(kinds.Plain, title=inner, price=inner),
        st.builds(kinds.Open, title=inner, **{"~": inner, "äö": inner}),
        st.builds(kinds.Root, st.lists(st.integers(), max_size=3)),
        st.builds(lambda price: kinds.Plain.model_construct({"price"}, price=price), inner),
    )


def items(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.dictionaries(TEXTS, inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
        st.dictionaries(TEXTS, inner, max_size=3).map(lambda found: defaultdict(list, found)),
        st.dictionaries(KEYS, inner, max_size=3).map(lambda found: Counter(found)),
        st.dictionaries(st.sampled_from(["title", "price", "other"]), inner).map(kinds.Book),
        st.builds(kinds.Offer, inner, inner, start=st.just(1)),
        st.builds(kinds.Frozen, inner, inner),
        st.builds(kinds.Slotted, inner),
        st.builds(kinds.Attrs, inner, inner, inner),
        st.builds(kinds.FrozenAttrs, inner, inner),
        st.builds(kinds.OldAttrs, inner, inner),
        st.builds(kinds.Outer.Inner, inner),
        models(inner),
    )


VALUES = st.recursive(
    KEYS | ODD,
    lambda inner: st.one_of(
        items(inner),
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(KEYS, max_size=3),
        st.builds(deque, st.lists(inner, max_size=3), st.none() | st.integers(3, 5)),
        st.builds(kinds.Pair, inner, inner),
    ),
    max_leaves=10,
)


@given(items(VALUES))
def test_items_arrive_as_what_they_were(item: Any) -> None:
    back = travelled(item)
    assert same(back, item), back
    assert same(travelled(back), item)


@given(st.lists(items(KEYS), max_size=4))
def test_a_class_is_named_once_a_file(several: list[Any]) -> None:
    writer, reader = ItemWriter(), ItemReader(kinds.Book)
    lines = [line for position, item in enumerate(several) for line in writer.lines(item, position=position)]
    found = [line for line in map(reader.read, lines) if line is not None]
    assert [line.position for line in found] == list(range(len(several)))
    assert all(same(line.item, item) for line, item in zip(found, several, strict=True))
    named = [line for line in lines if head(line) is None]
    assert len(set(named)) == len(named)


def test_a_line_says_where_its_item_is_from() -> None:
    writer, reader = ItemWriter(), ItemReader("item_kinds")
    assert writer.lines({"name": "tea", "price": 3}, position=12) == [b'[12,0,{"name":"tea","price":3}]\n']
    lines = writer.lines(kinds.Plain(title="Emma"), position=None, page="00ff")
    assert lines == [
        b'["class",1,"item_kinds","Plain"]\n',
        b'[null,"00ff",1,{"title":"Emma","price":0},["title"],null,null]\n',
    ]
    assert [reader.read(line) for line in lines] == [None, Line(None, "00ff", kinds.Plain(title="Emma"))]
    assert [head(line) for line in lines] == [None, (None, "00ff")]
    assert head(b'[12,0,{"name":"tea","price":3}]\n') == (12, "")


def test_the_text_of_a_link_arrives_as_a_text() -> None:
    (text,) = fromstring("<a>tea</a>").xpath("text()")
    back = travelled({text: text, "more": [text, (text,)]})
    assert back == {"tea": "tea", "more": ["tea", ("tea",)]}
    assert {type(one) for one in (*back, back["tea"], *back["more"][0:1], *back["more"][1])} == {str}


def test_fields_that_were_never_set_are_not_there() -> None:
    item = kinds.Below("a", [1])
    back = travelled(item)
    assert same(back, item)
    assert not hasattr(back, "late")
    back.late = 3
    assert same(travelled(back), back)


def test_nothing_of_a_class_runs() -> None:
    sent = [kinds.Guarded(name="a"), kinds.Offer("a"), kinds.Model(title="a"), kinds.OldAttrs("a")]
    kinds.RAN.clear()
    back = [travelled(item) for item in sent]
    assert kinds.RAN == []
    assert back == sent
    assert hash(back[3]) == hash(sent[3])
    assert "cached" not in vars(back[1])


def test_caches_and_factories_stay_behind() -> None:
    offer = kinds.Offer("a")
    assert offer.cached == 5
    assert "cached" not in vars(travelled(offer))
    back = travelled({"a": defaultdict(lambda: 3, x=1), "b": defaultdict(set, x=1)})
    assert (back["a"].default_factory, back["b"].default_factory) == (None, set)


def test_a_time_zone_is_the_same_one() -> None:
    back = travelled({"a": datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")), "b": timezone.utc})
    assert (back["a"].tzinfo.key, back["a"].utcoffset(), back["b"]) == (
        "Europe/Berlin",
        timedelta(hours=1),
        timezone.utc,
    )
    assert travelled({"a": timezone(timedelta(hours=1), "CET")})["a"].tzname(None) == "CET"


def test_what_is_nested_deep_arrives() -> None:
    for wrap in (lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: {1: inner}, kinds.Offer):
        item: Any = {}
        for _ in range(198):
            item = wrap(item)
        found = travelled({"a": item})["a"]
        for _ in range(198):
            found = (
                found[0]
                if isinstance(found, list)
                else found.title
                if hasattr(found, "title")
                else next(iter(found.values()))
            )
        assert found == {}


# What can't travel


def local_class() -> Any:
    @kinds.dataclass
    class Local:
        title: Any = None

    return Local()


def cycle() -> Any:
    item: dict[str, Any] = {"name": 1}
    item["children"] = [(item,)]
    return item


def deep(wrap: Any, number: int) -> Any:
    item: Any = 1
    for _ in range(number):
        item = wrap(item)
    return {"a": item}


def many() -> Any:
    item: Any = [1] * 10
    for _ in range(30):
        item = [item] * 10
    return {"a": item}


class Script(kinds.Offer):
    """Of the file that was started."""


Script.__module__ = "__main__"

STUCK = [
    ({"price": kinds.Money()}, "price Money"),
    ({"seller": {"address": threading.Lock()}}, "seller.address lock"),
    (kinds.Book(other=[kinds.Offer(price={"x": {kinds.Number(3)}})]), "other.price.x Number"),
    ({"a": kinds.Text("x")}, "a Text"),
    ({"a": kinds.Mapping()}, "a Mapping"),
    (kinds.Mapping(a=1), "Mapping"),
    ({"a": {1: object()}}, "a object"),
    ({"a": {Ellipsis: 1}}, "a ellipsis"),
    (dict.fromkeys([kinds.Text("k")], 1), "k Text"),
    (kinds.Locked("a"), "lock lock"),
    ([1], "list"),
    (None, "NoneType"),
    (kinds.Point(1), "Point"),
    (kinds.Kind.TEA, "Kind"),
    (kinds.Money, "type"),
    ({"a": kinds.Leaving("a")}, "a Leaving with a __del__"),
    (kinds.OfDict("a"), "OfDict"),
    ({"a": kinds.Other()}, "a Renamed that can't be found by its name"),
    (local_class(), "Local that can't be found by its name"),
    (Script(), "Script that can't be found by its name"),
    (kinds.WithProperty(), "WithProperty whose title is no plain attribute"),
    (cycle(), "children dict that holds itself"),
    ({"a": 10**4300}, "a int of more than 4,300 digits"),
    ({"a": Decimal("1" * 5000)}, "a Decimal of more than 4,300 digits"),
    ({"a": range(10**30)}, "a range of more than 1,000,000 elements"),
    ({"a": {number * (2**61 - 1) for number in range(101)}}, "a set with more than 100 keys of the same hash"),
    (
        {"a": datetime(2026, 1, 1, tzinfo=type("Far", (type(ZoneInfo("UTC")),), {}).no_cache("UTC"))},
        "a datetime with a time zone of type Far",
    ),
    (deep(lambda inner: [inner], 300), "a list nested too deep"),
    (deep(lambda inner: {"x": inner}, 5000), "a" + ".x" * 48 + "... dict nested too deep"),
    (many(), "a list after 300,000 values"),
    ({"a": "x" * MAX_LINE}, "dict with 16,777,231 bytes, where 16,777,216 can travel"),
    ({"a": [1] * 299_999}, "dict with more than 300,000 values"),
    ({"\x1b" * 500: object()}, "?" * 97 + "... object"),
]


@pytest.mark.parametrize(("item", "words"), STUCK, ids=[words[:40] for _, words in STUCK])
def test_what_can_not_travel_is_named(item: Any, words: str) -> None:
    writer = ItemWriter()
    with pytest.raises(NotSerializableError) as caught:
        writer.lines(item, position=0)
    assert str(caught.value) == words
    assert writer.lines(kinds.Book(), position=0)[0] == b'["class",1,"item_kinds","Book"]\n'


def test_a_class_that_was_not_written_is_named_again() -> None:
    writer = ItemWriter()
    writer.lines(kinds.Book(), position=0)
    with pytest.raises(NotSerializableError, match="other Money"):
        writer.lines(kinds.Offer(title=kinds.Frozen(1), other=kinds.Money()), position=0)
    lines = writer.lines(kinds.Frozen(kinds.Offer()), position=0)
    assert lines[:2] == [b'["class",2,"item_kinds","Frozen"]\n', b'["class",3,"item_kinds","Offer"]\n']
    assert writer.lines({"a": kinds.Book()}, position=0) == [b'[0,0,{"a":{"~":["class",1,{}]}}]\n']


def test_an_item_that_fails_when_it_is_looked_at_can_not_travel() -> None:
    book = kinds.Book()
    del book.__dict__["_values"]
    with pytest.raises(NotSerializableError, match="Book"):
        ItemWriter().lines(book, position=0)


def test_digits_are_counted_whatever_python_allows() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        with pytest.raises(NotSerializableError, match="more than 4,300 digits"):
            ItemWriter().lines({"a": 10**4300}, position=0)
    finally:
        sys.set_int_max_str_digits(before)


def test_a_long_text_of_digits_and_brackets_travels() -> None:
    item = {"a": "7" * 5000, "b": '[{,\\"' * 300_000, "c": UUID(int=3), "d": date.max, "e": Fraction(1, 3), "f": "\\"}
    assert travelled(item) == item
    assert pickle.loads(pickle.dumps(travelled(item))) == item
    assert SimpleNamespace(**travelled({"a": 1})).a == 1

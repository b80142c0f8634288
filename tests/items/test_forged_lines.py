"""A line that no writer writes is refused with ``WireError`` alone, soon, and without running what it names."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import item_kinds as kinds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrapy_distributed.errors import NotSerializableError, WireError
from scrapy_distributed.items.lines import MAX_LINE, ItemReader, ItemWriter, head

TREE = {"a": [1, (2, {3}), {"~": 1, 4: b"5"}, kinds.Kind.TEA, kinds.Right(5)], "b": [1.5, float("inf"), 1 + 2j]}
SENT = [
    {"name": "tea", "price": 3},
    TREE,
    kinds.Book(title=TREE, price=kinds.Frozen(kinds.Slotted(kinds.Attrs(kinds.Plain(title="a"))))),
    kinds.Open(title=kinds.Point(1), extra=kinds.Offer()),
]


def valid() -> list[bytes]:
    writer = ItemWriter()
    return [line for item in SENT for line in writer.lines(item, position=3, page="ab")]


VALID = valid()


def reader_after(number: int) -> ItemReader:
    """One that has read so many lines of the valid file."""
    reader = ItemReader("item_kinds")
    for line in VALID[:number]:
        reader.read(line)
    return reader


def refused(line: bytes, reader: ItemReader | None = None) -> str:
    with pytest.raises(WireError) as caught:
        (reader or reader_after(len(VALID))).read(line)
    assert not isinstance(caught.value, NotSerializableError)
    assert len(str(caught.value)) < 600
    return str(caught.value)


WORDS = rb'"~" [ ] { } , : 1 -1 null "" "class" "a" 1e999 NaN'.split()
PIECES = st.sampled_from([b"\n", *WORDS, *sorted(set(re.findall(rb'"[A-Za-z]+"', b"".join(VALID))))])


@given(st.data())
def test_a_damaged_line_is_read_or_refused(data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(VALID) - 1))
    line = VALID[number]
    for _ in range(data.draw(st.integers(1, 3))):
        tokens = re.findall(rb'"(?:[^"\\]|\\.)*"|[0-9.]+|.|\n', line)
        place = data.draw(st.integers(0, len(tokens) - 1))
        tokens[place : place + data.draw(st.integers(0, 3))] = [data.draw(PIECES | st.binary(max_size=2))]
        line = b"".join(tokens)
    try:
        found = reader_after(number).read(line)
    except WireError:
        return
    if found is not None:  # then it is an item as any other
        try:
            again = ItemWriter().lines(found.item, position=found.position, page=found.page)
        except NotSerializableError:  # a model without a field, which it needs to tell its hash
            return
        assert head(line) == found[:2]
        assert len(again) >= 1


@given(st.recursive(st.integers() | st.text() | st.none() | st.floats(), lambda inner: st.lists(inner) | st.builds(
    lambda tag, parts: {"~": [tag, *parts]},
    st.sampled_from(sorted(ItemReader("x")._decoder._tags)), st.lists(inner, max_size=4),
), max_leaves=8))  # fmt: skip
def test_every_tag_with_anything_in_it_is_read_or_refused(value: Any) -> None:
    try:
        found = reader_after(len(VALID)).read(b'[0,0,{"a":%b}]\n' % json.dumps(value).encode("ascii"))
    except WireError:
        return
    assert found is not None
    ItemWriter().lines(found.item, position=0)


def tagged(*parts: Any) -> bytes:
    return json.dumps([0, 0, {"a": {"~": parts}}], separators=(",", ":")).encode("ascii") + b"\n"


def number_of(name: str) -> int:
    found = [json.loads(line)[1:] for line in VALID if head(line) is None]
    return next(number for number, _, qualname in found if qualname == name)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"[]\n",
        b"{}\n",
        b"[1,0,{}]",
        b"[1,0,{}]\r\n ",
        b"[1,0,{}] []\n",
        b'[1,0,{"a":"\xc3\xa4"}]\n',
        b"[1,0,{},{}]\n",
        b"[1,0]\n",
        b"[1,0,[]]\n",
        b"[1,false,{}]\n",
        b"[true,0,{}]\n",
        b"[-1,0,{}]\n",
        b"[1.0,0,{}]\n",
        b'[1,"",0,{}]\n',
        b'[1,"AB",0,{}]\n',
        b'[1,"ab\\n",0,{}]\n',
        b"[1,99,{}]\n",
        b"[1,-1,{}]\n",
        b"[1,true,{}]\n",
        b'[1,0,{"a":1,"a":2}]\n',
        b'[1,0,{"a":NaN}]\n',
        b'[1,0,{"~":1}]\n',
        b'[1,0,{"~":["dict"],"a":1}]\n',
        b'[1,0,{"~":{"~":["tuple","dict"]}}]\n',
        b'[1,0,{"~":["tuple"]}]\n',
        b'[1,1,{"unknown":1}]\n',
        b'[1,1,{"~":["dict",[1,2]]}]\n',
        b"[1,1,[]]\n",
        b"[1,1]\n",
        tagged(),
        tagged("os.system", "true"),
        tagged(["tuple"]),
        tagged("set", [1]),
        tagged("set", 1, 1),
        tagged("set", *[number * (2**61 - 1) for number in range(101)]),
        tagged("dict", *[[number * (2**61 - 1), 0] for number in range(101)]),
        tagged("set", {"~": ["Decimal", "sNaN"]}),
        tagged("dict", [1, 2], [1, 3]),
        tagged("dict", [[], 2]),
        tagged("dict", [1]),
        tagged("dict", "ab"),
        tagged("Counter", 1),
        tagged("defaultdict", "object"),
        tagged("deque", 1, 2, 3),
        tagged("deque", -1),
        tagged("deque", 10**30),
        tagged("float", "1"),
        tagged("float", 1),
        tagged("str", 1),
        tagged("bytes", "!"),
        tagged("bytes", "ä"),
        tagged("bytes", 5),
        tagged("range", 0, 10**12, 1),
        tagged("range", 0, 1, 0),
        tagged("timedelta", 10**10, 0, 0),
        tagged("timedelta", 1.5, 0, 0),
        tagged("datetime", "2026-11-28T10:00:00", 2),
        tagged("datetime", "2026-11-28T10:00:00", 0, "UTC"),
        tagged("datetime", "tomorrow"),
        tagged("datetime", "2026-11-28" + "0" * 5000),
        tagged("date", None),
        tagged("ZoneInfo", "../../../etc/passwd"),
        tagged("ZoneInfo", "/etc/passwd"),
        tagged("ZoneInfo", "Europe/Nowhere"),
        tagged("timezone", {"~": ["timedelta", 2, 0, 0]}),
        tagged("Decimal", "x"),
        tagged("Decimal", "1E9999999999999999999"),
        tagged("Decimal", "1" * 5000),
        tagged("Fraction", 1, 0),
        tagged("Fraction", "1", 2),
        tagged("complex", "1", 2.0),
        tagged("UUID", "x"),
        tagged("IPv4Address", 3),
        tagged("IPv4Network", "10.0.0.1/8"),
        tagged("PurePosixPath", 3),
        tagged("class", 99),
        tagged("class", number_of("Point"), [1]),
        tagged("class", number_of("Point"), "ab"),
        tagged("class", number_of("Kind"), "NONE"),
        tagged("class", number_of("Kind"), "_missing_"),
        tagged("class", number_of("Kind"), 1),
        tagged("class", number_of("Right"), 2**70),
        tagged("class", number_of("Right"), 64),
        tagged("class", number_of("Frozen"), {"x": 1}),
        tagged("set", {"~": ["class", number_of("Frozen"), {}]}),
        tagged("class", number_of("Plain"), {"x": 1}),
        tagged("class", number_of("Plain"), {}, [1], None, None),
        tagged("class", number_of("Plain"), {}, [], {"x": 1}, None),
        tagged("class", number_of("Plain"), {}, [], None, {"_x": 1}),
        tagged("class", number_of("Plain"), {}, []),
        b'[1,%d,["a",1]]\n' % number_of("Point"),
        b'[1,0,{"a":%b}]\n' % (b"[" * 900 + b"]" * 900),
        b'[1,0,{"a":%b}]\n' % (b"[" * 5_000_000),
        b'[1,0,{"a":%b}]\n' % (b"1" * 4301),
        b'[1,0,{"a":"\\\\",%b}]\n' % (b"1" * 4301),
        b'[1,0,{"a":[%b]}]\n' % (b"{}," * 1_000_000),
        b'[1,0,{"a":[%b]}]\n' % (b'"",' * 5_000_000),
        b'[1,0,{"a":"%b"}]\n' % (b"a" * MAX_LINE),
        b'[1,0,{"a":[%b]}]\n' % (b"1" * 16_000_000),
        b'["class"]\n',
        b'["class",1,"item_kinds","Book"]\n',
    ],
    ids=lambda line: line[:40].decode("ascii", "replace"),
)  # fmt: skip
def test_a_forged_line_is_refused_soon(line: bytes) -> None:
    start = time.process_time()
    refused(line)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("module", "qualname"),
    [
        ("item_kinds", "Nothing"),
        ("item_kinds", "Money"),
        ("item_kinds", "Leaving"),
        ("item_kinds", "OfDict"),
        ("item_kinds", "WithProperty"),
        ("item_kinds", "Text"),
        ("item_kinds", "Other"),
        ("item_kinds", "shout"),
        ("item_kinds", "RAN.append"),
        ("item_kinds", "Item"),
        ("item_kinds", "Book.fields"),
        ("item_kinds", "Offer.__init__"),
        ("item_kinds", ""),
        ("item_kinds", "Offer."),
        ("os", "system"),
        ("subprocess", "Popen"),
        ("builtins", "dict"),
        ("__main__", "Book"),
        ("antigravity", "fly"),
        ("item_kinds.__main__", "Book"),
        ("item_kinds..x", "Book"),
        ("", "Book"),
        ("a" * 100_000, "Book"),
    ],
)
def test_a_class_that_is_no_items_or_not_there_is_refused(module: str, qualname: str) -> None:
    kinds.RAN.clear()
    before = set(sys.modules)
    refused(json.dumps(["class", 1, module, qualname]).encode("ascii") + b"\n", ItemReader("item_kinds"))
    assert kinds.RAN == []
    assert set(sys.modules) - before <= {"item_kinds"}


@pytest.mark.parametrize("number", [0, 2, -1, True, "1", None, 1.0])
def test_classes_are_counted_from_one(number: Any) -> None:
    refused(json.dumps(["class", number, "item_kinds", "Book"]).encode("ascii") + b"\n", ItemReader("item_kinds"))


def test_only_modules_of_the_project_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for package in ("ownshop", "othershop"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
        (tmp_path / package / "things.py").write_text(
            "import dataclasses\n@dataclasses.dataclass\nclass Thing:\n    name: str = ''\n"
        )
        (tmp_path / package / "exits.py").write_text("raise SystemExit(3)\n")

    def line(module: str) -> bytes:
        return json.dumps(["class", 1, module, "Thing"]).encode("ascii") + b"\n"

    reader = ItemReader("ownshop.spiders.shop")
    assert "LookupError" in refused(line("othershop.things"), reader)
    assert "othershop.things" not in sys.modules
    assert "SystemExit" in refused(line("ownshop.exits"), reader)
    assert reader.read(line("ownshop.things")) is None
    found = reader.read(b'[1,1,{"name":"tea"}]\n')
    assert found is not None
    assert found.item == sys.modules["ownshop.things"].Thing("tea")
    for name in [name for name in sys.modules if name.startswith(("ownshop", "othershop"))]:
        monkeypatch.delitem(sys.modules, name)


def test_nothing_of_a_class_runs_for_a_forged_line() -> None:
    reader = ItemReader("item_kinds")
    for number, name in enumerate(["Guarded", "Offer", "Model"], 1):
        reader.read(b'["class",%d,"item_kinds","%b"]\n' % (number, name.encode("ascii")))
    kinds.RAN.clear()
    read: Callable[[bytes], Any] = reader.read
    assert read(b'[1,1,{"name":1}]\n').item["name"] == 1
    assert read(b'[1,2,{"title":1}]\n').item.title == 1
    assert read(b'[1,3,{"title":1},["title"],null,{"_private":5}]\n').item._private == 5
    assert kinds.RAN == []


@pytest.mark.parametrize(
    "line", [b"", b"[", b"[1]\n", b"[1.5,0,{}]\n", b"[12345678901,0,{}]\n", b'{"a":1}\n', b"x" * 100]
)
def test_a_head_that_none_has_is_refused(line: bytes) -> None:
    with pytest.raises(WireError):
        head(line)

"""What a local crawl exports of an item, to the byte, is what is exported of the item that came home."""

from __future__ import annotations

import marshal
import pickle
from collections import OrderedDict, deque
from datetime import date, datetime, timezone
from decimal import Decimal
from io import BytesIO
from typing import Any

import item_kinds as kinds
import pytest
from scrapy import exporters

from scrapy_distributed.items.lines import ItemReader, ItemWriter

PLAIN = {"name": "tea", "price": 3, "weight": -0.0, "none": None, "sold": True, "ä\ud800": "\ud83d\ude00"}
NESTED = {
    "when": datetime(2026, 11, 28, 10, 0, 0, 5, timezone.utc),
    "day": date(2026, 11, 28),
    "sum": Decimal("1.10"),
    "sizes": (1, 2, [3]),
    "names": ["a", "b"],
    "seller": kinds.Book(title="a", price={"x": kinds.Frozen(1)}),
    "offers": [kinds.Offer("a"), kinds.Attrs("b"), kinds.Plain(title="c"), OrderedDict(b=1, a=2)],
    "set": {5},
    "word": kinds.Word.A,
    "rank": kinds.Rank.LOW,
    "point": kinds.Point(1),
    "raw": b"bytes",
    "nan": float("nan"),
}
ITEMS: list[Any] = [
    PLAIN,
    {**PLAIN, "~": "x"},
    {1: "a", None: 2},
    OrderedDict(b="x", a="y"),
    NESTED,
    kinds.Book(price=1, title="Emma"),
    kinds.Book(other=NESTED),
    kinds.Guarded(name=[1, 2]),
    kinds.Offer("a", [1, "x"]),
    kinds.Offer(other=NESTED),
    kinds.Frozen("a"),
    kinds.Slotted("a"),
    kinds.Attrs("a", hidden=["x"]),
    kinds.OldAttrs("a"),
    kinds.Model(title="a", cost=3),
    kinds.Open(title="a", more=NESTED),
    kinds.Root([1]),
    {"a": deque([1])},
]
KINDS = {
    "json lines": exporters.JsonLinesItemExporter,
    "json": exporters.JsonItemExporter,
    "csv": exporters.CsvItemExporter,
    "xml": exporters.XmlItemExporter,
    "marshal": exporters.MarshalItemExporter,
    "pprint": exporters.PprintItemExporter,
    "pickle": exporters.PickleItemExporter,
}
# Their bytes depend on what is one object, and on how often it is referred to.
LOADS: dict[str, Any] = {"marshal": marshal.loads, "pickle": pickle.loads}


def exported(kind: Any, items: list[Any], **options: Any) -> Any:
    """The bytes; what was raised where an exporter can't do with such items."""
    file = BytesIO()
    try:
        exporter = kind(file, **options)
        exporter.start_exporting()
        for item in items:
            exporter.export_item(item)
        exporter.finish_exporting()
    except Exception as error:
        return type(error), str(error)
    return file.getvalue()


def home(items: list[Any]) -> list[Any]:
    writer, reader = ItemWriter(), ItemReader("item_kinds")
    lines = [line for item in items for line in writer.lines(item, position=0)]
    return [found.item for found in map(reader.read, lines) if found is not None]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("number", range(len(ITEMS)))
def test_what_is_exported_is_the_same(name: str, number: int) -> None:
    items = ITEMS[number : number + 1]
    local = exported(KINDS[name], items)
    came = exported(KINDS[name], home(items))
    if name in LOADS and isinstance(local, bytes):
        assert repr(LOADS[name](came)) == repr(LOADS[name](local))
    else:
        assert came == local


@pytest.mark.parametrize("name", ["json lines", "json", "csv", "xml"])
def test_a_feed_of_many_kinds_is_the_same(name: str) -> None:
    items = [item for item in ITEMS if isinstance(exported(KINDS[name], [item]), bytes)]
    assert len(items) > 8
    options: dict[str, Any] = (
        {"fields_to_export": {"title": "Title", "name": "Name"}} if name == "csv" else {"indent": 2}
    )
    local = exported(KINDS[name], items, **options)
    assert isinstance(local, bytes)
    assert exported(KINDS[name], home(items), **options) == local


def test_the_serializers_of_fields_are_called() -> None:
    (back,) = home([kinds.Book(title="Emma")])
    assert exported(exporters.JsonLinesItemExporter, [back]) == b'{"title": "Emma!"}\n'

"""Values in ``meta`` and ``cb_kwargs`` that JSON does not know arrive as what they were."""

from __future__ import annotations

import json
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import pytest
from scrapy import Field, Item, Request, Spider

from scrapy_distributed.errors import NotSerializableError, WireError
from scrapy_distributed.wire.request import decode_requests, encode_request


class Shade(str, Enum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Book(Item):
    title = Field()
    price = Field(serializer=str)


@dataclass
class Tea:
    name: str
    picked: date | None = None
    leaves: list[int] = field(default_factory=list)


@attrs.define
class Cup:
    volume: Decimal


class Point(NamedTuple):
    x: int
    y: int


class Own(Spider):
    """Of the same top-level package as these classes."""

    name = "own"


SPIDER = Own()
VALUES: list[Any] = [
    datetime(2026, 11, 28, 10, 30, tzinfo=timezone(timedelta(hours=1))), date(2026, 11, 28), time(10, 30, 0, 5),
    timedelta(days=1, seconds=2), Decimal("10.50"), (1, "a", (2,)), {1, 2}, frozenset({"a"}), b"\0\xff",
    bytearray(b"a"), Shade.RED, Size.LARGE, Path("a/b"), UUID(int=5), Tea("green", date(2026, 4, 1), [1]),
    Cup(Decimal(2)), Point(1, 2), {1: "a", None: "b", (1, 2): "c"}, {"~": 1}, {"~": ["class", 1, {}]},
    Book(title="Emma", price=Decimal(3)), Counter("aab"), OrderedDict(b=1, a=2), defaultdict(list, a=[1]),
    deque([1, 2], 5), float("inf"), 1j, range(3), [{"deep": [Tea("black")]}],
]  # fmt: skip


def travelled(request: Request, **options: Any) -> Request:
    body = encode_request(request, SPIDER)
    assert body.isascii()
    (arrived,) = decode_requests(f"[{body}]", SPIDER, **options)
    return arrived


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("holder", ["meta", "cb_kwargs"])
def test_it_arrives_as_it_left(holder: str, value: Any) -> None:
    came = getattr(travelled(Request("http://a/", **{holder: {"key": value, "plain": [1]}})), holder)
    assert came == {"key": value, "plain": [1]}
    assert type(came["key"]) is type(value)
    assert repr(came) == repr({"key": value, "plain": [1]})


def test_both_name_their_classes_in_one_list() -> None:
    request = Request("http://a/", meta={"cup": Cup(Decimal(1)), "tea": Tea("a")}, cb_kwargs={"tea": Tea("b"), "~": 1})
    arrived = travelled(request)
    assert (arrived.meta, arrived.cb_kwargs) == (request.meta, request.cb_kwargs)
    classes = json.loads(encode_request(request, SPIDER))["_classes"]
    assert [qualname for _, qualname in classes] == ["Cup", "Tea"]


def test_what_json_knows_is_written_as_before() -> None:
    request = Request("http://a/", meta={"~": ["tuple", 1]}, cb_kwargs={"a": {"b": [1.5, None]}})
    body = json.loads(encode_request(request, SPIDER))
    assert body == {"url": "http://a/", "meta": {"~": ["tuple", 1]}, "cb_kwargs": {"a": {"b": [1.5, None]}}}
    assert travelled(request).meta == request.meta


class Unlike:
    """No item, and nothing that says how to make it again."""


def test_what_can_not_travel_is_named() -> None:
    class Local(Item):
        title = Field()

    for value, words in (
        (Unlike(), r"meta\['key'\] holds what can't travel: Unlike"),
        ({"a": [Unlike()]}, r"meta\['key'\]\['a'\] holds what can't travel: Unlike"),
        (Local(title="a"), r"meta\['key'\] holds what can't travel: Local that can't be found by its name"),
    ):
        with pytest.raises(NotSerializableError, match=words):
            encode_request(Request("http://a/", meta={"key": value}), SPIDER)


def test_what_is_nested_too_deep_does_not_travel() -> None:
    value: Any = (1,)
    for _ in range(40):
        value = [value]
    assert travelled(Request("http://a/", meta={"key": value})).meta == {"key": value}
    for _ in range(40):
        value = [value]
    with pytest.raises(NotSerializableError, match="nested too deep"):
        encode_request(Request("http://a/", meta={"key": value}), SPIDER)


@dataclass
class Counted:
    """It holds more than its fields."""

    name: str

    def __post_init__(self) -> None:
        self._seen = 1

    @cached_property
    def length(self) -> int:
        return len(self.name)


def test_an_object_with_more_than_its_fields_does_not_travel_but_for_what_is_made_anew() -> None:
    with pytest.raises(NotSerializableError, match="Counted with _seen, which is no field of it"):
        encode_request(Request("http://a/", cb_kwargs={"key": [Counted("a")]}), SPIDER)
    whole = Counted("abc")
    del whole._seen
    assert whole.length == 3
    assert travelled(Request("http://a/", cb_kwargs={"key": whole})).cb_kwargs["key"].length == 3


def test_a_class_that_the_project_does_not_name_does_not_travel() -> None:
    """A worker has imported no more than what the project's modules import."""
    unnamed, named = ModuleType("elsewhere"), ModuleType("others")
    for module in (unnamed, named):
        exec("from enum import Enum\nclass Shade(Enum):\n    RED = 1\n", vars(module))
    package = SPIDER.__module__.split(".")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "elsewhere", unnamed)
        patch.setitem(sys.modules, "others", named)
        patch.setattr(sys.modules[package], "others", named, raising=False)
        assert travelled(Request("http://a/", meta={"key": named.Shade.RED})).meta["key"] is named.Shade.RED
        with pytest.raises(NotSerializableError, match=f"Shade of elsewhere, which no module of {package} names"):
            encode_request(Request("http://a/", meta={"key": unnamed.Shade.RED}), SPIDER)


# From a worker


@pytest.mark.parametrize("value", [Tea("a"), Cup(Decimal(1)), Point(1, 2), Shade.RED, Book(title="a")], ids=repr)
def test_objects_of_classes_do_not_go_from_a_worker_to_the_fleet(value: Any) -> None:
    request = Request("http://a/", cb_kwargs={"key": [value]})
    with pytest.raises(NotSerializableError, match=f"objects of {type(value).__name__}"):
        encode_request(request, SPIDER, data_only=True)
    with pytest.raises(WireError, match="found objects of classes"):
        decode_requests(f"[{encode_request(request, SPIDER)}]", SPIDER, data_only=True)


def test_data_do() -> None:
    request = Request("http://a/", cb_kwargs={"when": date(2026, 1, 1), "where": (1, 2)})
    body = encode_request(request, SPIDER, data_only=True)
    (arrived,) = decode_requests(f"[{body}]", SPIDER, data_only=True)
    assert arrived.cb_kwargs == request.cb_kwargs


@pytest.mark.parametrize(
    "changed",
    [
        {"_classes": [["os", "system"]]}, {"_classes": [["subprocess", "Popen"]]},
        {"_classes": [["builtins", "object"]]}, {"_classes": [["no.such.module", "Class"]]}, {"_classes": "ab"},
        {"_classes": None}, {"_classes": [["os"]]}, {"_classes": [[1, 2]]}, {"_classes": [["__main__", "X"]]},
        {"meta": {"~": ["class", 1, {}]}}, {"meta": [1]}, {"meta": {"~": ["tuple", 1]}},
        {"meta": {"a": {"~": ["eval", "1"]}}}, {"meta": {"a": {"~": ["Decimal", "x" * 9000]}}},
        {"meta": {"~": ["dict", ["distributed_ticket", [0, 0]]]}}, {"cb_kwargs": {"~": ["dict", [1]]}},
        {"cb_kwargs": "a"},
    ],
    ids=lambda changed: str(changed)[:50],
)  # fmt: skip
def test_what_is_forged_is_refused(changed: dict[str, Any]) -> None:
    element = {"url": "http://a/", "meta": {}, "cb_kwargs": {}, "_classes": []} | changed
    with pytest.raises(WireError, match="DISTRIBUTED_START_URL"):
        decode_requests(json.dumps([element]), SPIDER)


# Requests of the project's own class


class Paged(Request):
    """*page* is not among its ``attributes``."""

    page = 0


def test_what_a_request_holds_besides_its_attributes_is_seen() -> None:
    request = Paged("http://a/", meta={"when": date(2026, 1, 1)})
    assert type(travelled(request)) is Paged
    request.page = 5
    with pytest.raises(NotSerializableError, match="page of a Paged would change"):
        encode_request(request, SPIDER)

"""The warning of objects that requests share."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest
from diverting import Plain
from scrapy import Field, Item, Request

from scrapy_distributed.divert.shared import LOOKED_AT, Shared


class Book(Item):
    title = Field()


@dataclass
class Tea:
    name: str


def requests(count: int, **values: Any) -> list[Request]:
    return [Request(f"http://a/{number}", **values) for number in range(count)]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("value", [{}, [1], {1}, Book(title="a"), Tea("a")], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("holder", ["meta", "cb_kwargs"])
def test_an_object_that_two_requests_share_is_told_once(
    caplog: pytest.LogCaptureFixture, holder: str, value: Any
) -> None:
    shared = Shared(Plain())
    for _ in range(2):
        shared.look(requests(3, **{holder: {"so": value}}))
    (warning,) = told(caplog)
    kind = type(value).__name__
    assert f"the same {kind} is in {holder}['so'] of <GET http://a/0> and <GET http://a/1>" in warning


def test_what_nobody_can_change_or_scrapy_copies_itself_is_no_matter(caplog: pytest.LogCaptureFixture) -> None:
    meta = {"a": "text", "b": (1, 2), "c": frozenset({1}), "redirect_urls": ["http://a/"], "d": Tea}
    Shared(Plain()).look(requests(3, meta=meta))
    Shared(Plain()).look([Request("http://a/", cb_kwargs={"a": [1]}), Request("http://b/", cb_kwargs={"a": [1]})])
    assert told(caplog) == []


def test_twice_in_one_request_is_not_shared(caplog: pytest.LogCaptureFixture) -> None:
    one = [1]
    Shared(Plain()).look([Request("http://a/", cb_kwargs={"a": one, "b": one})])
    assert told(caplog) == []


def test_only_the_first_requests_are_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    shared = Shared(Plain())
    shared.look(requests(LOOKED_AT))
    shared.look(requests(3, meta={"so": [1]}))
    assert told(caplog) == []

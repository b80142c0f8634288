"""Tickets are put on requests, and taken off again without a trace. Pure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scrapy import Request, Spider
from scrapy.http import Response
from scrapy.utils.request import request_from_dict

from scrapy_distributed.wire.ticket import ERRBACK, TICKET, Tickets, ticket_of


class Plain(Spider):
    name = "plain"

    read = 0  # how often a property was

    def own(self, failure: Any) -> str:
        return "own"

    @property
    def prop(self) -> Any:
        type(self).read += 1
        return self.own


def noticed(spider: Spider, failure: Any) -> str:
    return "ours"


def test_a_request_without_one_is_left_as_it_is() -> None:
    request = Request("http://a/", meta={"a": 1})
    assert Tickets(Plain(), noticed).without(request) is request
    assert ticket_of(request) is None


@given(meta=st.dictionaries(st.sampled_from("ab"), st.integers()), errback=st.sampled_from(["own", "other", None]))
def test_what_is_put_on_is_taken_off(meta: dict[str, int], errback: str | None) -> None:
    spider = Plain()
    tickets = Tickets(spider, noticed)
    own = {"own": spider.own, "other": lambda failure: None, None: None}[errback]
    request = tickets.put(Request("http://a/", meta=meta, errback=own), (3, 7))
    assert ticket_of(request) == (3, 7)
    assert tickets.own_errback(request) == own
    for copied in (request, request.copy(), request.replace(url="http://b/")):
        off = tickets.without(copied)
        assert (off.meta, off.errback, off.url) == (meta, own, copied.url)
        assert ticket_of(copied) == (3, 7)  # it may be the page's own request
        again = tickets.put(off, (3, 8))
        assert tickets.own_errback(again) == own


def test_a_copy_of_meta_keeps_its_own_errback() -> None:
    spider = Plain()
    tickets = Tickets(spider, noticed)
    meta = tickets.put(Request("http://a/", meta={"a": 1}, errback=spider.own), (0, 0)).meta
    for errback in (None, spider.own):
        off = tickets.without(Request("http://b/", meta=meta, errback=errback))
        assert (off.meta, off.errback) == ({"a": 1}, errback)


@pytest.mark.parametrize("named", ["prop", "gone", "name", "", 5, None, ["own"]])
def test_what_is_no_errback_is_none_and_no_property_is_read(named: Any) -> None:
    tickets = Tickets(Plain(), noticed)
    request = Request("http://a/", meta={TICKET: [0, 0], ERRBACK: named}, errback=tickets.errback)
    assert tickets.own_errback(request) is None
    assert tickets.without(request).errback is None
    assert Plain.read == 0


def test_it_goes_through_a_queue_on_disk() -> None:
    spider = Plain()
    tickets = Tickets(spider, noticed)
    request = tickets.put(Request("http://a/", errback=spider.own), (0, 5))
    back = request_from_dict(request.to_dict(spider=spider), spider=spider)
    assert (ticket_of(back), back.errback, tickets.own_errback(back)) == ((0, 5), tickets.errback, spider.own)


@pytest.mark.parametrize("holder", [Response("http://a/", request=Request("http://a/", meta={TICKET: [1, 2]})),
                                    SimpleNamespace(request=Request("http://a/", meta={TICKET: (1, 2)}))])  # fmt: skip
def test_responses_and_failures_have_that_of_their_request(holder: Any) -> None:
    assert ticket_of(holder) == (1, 2)


def test_what_has_no_request_has_none() -> None:
    assert ticket_of(None) is ticket_of(Response("http://a/")) is ticket_of(object()) is None

"""Hostile input at the borders: a batch that a worker is given, links of pages, answers of nodes, addresses, job
arguments, receipts, ledgers and names. Each is refused in clear words, or arrives as it left; nothing of it is run, and
nothing is lost with it. And what an honest worker sends is never refused."""

from __future__ import annotations

import base64
import json
import os
import random
import sqlite3
import string
import sys
import time
import zlib
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import IDENTITY, a_batch, divert, receipt
from scrapy import Request, Spider
from scrapy.http import JsonRequest
from scrapy.settings import Settings
from scrapy.spiders import CrawlSpider, Rule
from scrapy.utils.test import get_crawler
from test_divert import Plain as OnSite
from test_divert import diverter
from test_judge import Court
from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from scrapy_distributed.commands.batches import Command
from scrapy_distributed.coordinator.identity import file_name
from scrapy_distributed.errors import (
    ConfigError,
    LedgerError,
    LedgerUnavailableError,
    NodeAmbiguousError,
    NodeError,
    NodeRefusedError,
    NotSerializableError,
    WireError,
)
from scrapy_distributed.fleet import node as node_module
from scrapy_distributed.fleet.addresses import Target, addresses
from scrapy_distributed.fleet.answer import Answer, parsed
from scrapy_distributed.fleet.node import Node, NodeAddress
from scrapy_distributed.fleet.post_mortem import cause_of_death
from scrapy_distributed.fleet.versions import choose_version
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.middleware import DistributedSpiderMiddleware
from scrapy_distributed.wire.job import MAX_ARGUMENTS_BYTES, check_job
from scrapy_distributed.wire.payload import MAX_ARGUMENT_BYTES, MAX_JSON_BYTES, PREFIX, decode_payload, encode_payload
from scrapy_distributed.wire.reasons import reason_of
from scrapy_distributed.wire.receipt import MAX_FEEDS, MAX_STATS, Receipt, receipt_path
from scrapy_distributed.wire.request import decode_requests, encode_request
from scrapy_distributed.words import last_line
from scrapy_distributed.worker.outcomes import Outcomes
from scrapy_distributed.worker.worker import Worker

SECRET = "s3cr3t-Pa55"
ran: list[str] = []  # what a hostile value has made the spider do


class Trap(CrawlSpider):
    name = "trap"
    rules = (Rule(callback="item"),)
    items = 3
    thing = dict

    def item(self, response: Any) -> None:
        """A callback."""

    def failed(self, failure: Any) -> None:
        """An errback."""

    def closed(self, reason: str) -> None:
        ran.append("closed")

    def __private(self, response: Any) -> None:
        """A callback whose name Python mangles."""

    def private(self) -> Any:
        return self.__private

    @staticmethod
    def static(response: Any) -> None:
        """A callback."""

    @property
    def prop(self) -> Any:
        ran.append("prop")
        return self.item

    @cached_property
    def cached(self) -> Any:
        ran.append("cached")
        return self.item


TRAP = Trap()


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def element(**values: Any) -> str:
    return json.dumps([{"url": "http://a/", **values}])


def packed(data: bytes) -> str:
    return PREFIX + base64.b85encode(zlib.compress(data)).decode()


def is_fit_to_print(message: str) -> bool:
    """A log can have it: one line, not too long, nothing that a terminal carries out, and UTF-8 knows it."""
    return message.isprintable() and len(message) < 800


characters = st.characters()  # lone surrogates as well
texts = st.text(characters, max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


# The batch of a worker


@pytest.mark.parametrize("attribute", ["callback", "errback"])
@pytest.mark.parametrize(
    "name",
    ["__init__", "__class__", "__dict__", "__repr__", "__reduce_ex__", "__call__", "__getattribute__", "__new__",
     "start", "close", "closed", "from_crawler", "update_settings", "handles_request", "log", "logger",
     "_set_crawler", "prop", "cached", "items", "thing", "rules", "name", "item.__func__", "gone", "", "\0", "\ud800"],
)  # fmt: skip
def test_only_a_method_that_takes_responses_is_a_callback(name: str, attribute: str) -> None:
    with pytest.raises(WireError) as caught:
        decode_requests(element(**{attribute: name}), TRAP)
    assert is_fit_to_print(str(caught.value))
    assert ran == []


def test_the_callbacks_that_scrapy_and_spiders_use_are_callbacks() -> None:
    functions = [TRAP.parse, TRAP._parse, TRAP.item, TRAP.static, TRAP.private(), TRAP.parse_with_rules, TRAP._callback]
    for function in functions:
        body = encode_request(Request("http://a/", callback=function, errback=TRAP.failed), TRAP)
        (request,) = decode_requests(f"[{body}]", TRAP)
        assert (request.callback, request.errback) == (function, TRAP.failed)


def test_what_is_no_callback_for_a_worker_does_not_go_to_one() -> None:
    """One request that a worker refuses would take the whole batch with it."""
    for function in (TRAP.start, TRAP.closed, TRAP.__init__, TRAP.from_crawler, Spider.close):
        for attribute in ("callback", "errback"):
            arguments: dict[str, Any] = {"callback": TRAP.item, attribute: function}
            with pytest.raises(NotSerializableError):
                encode_request(Request("http://a/", **arguments), TRAP)


REFUSED: dict[str, tuple[str, str]] = {
    "NaN in meta": ('[{"url": "http://a/", "meta": {"a": NaN}}]', "NaN is no JSON"),
    "infinity": ('[{"url": "http://a/", "cb_kwargs": {"a": -Infinity}}]', "-Infinity is no JSON"),
    "two URLs": ('[{"url": "http://a/", "url": "http://b/"}]', "two values for url"),
    "two of one name in meta": ('[{"url": "http://a/", "meta": {"\\n": 1, "\\n": 2}}]', r"two values for \\n"),
    "two of many names": ("[{" + ",".join(f'"{n}":0' for n in [*range(10**5), 99_999]) + "}]", "for 99999"),
    "header of characters": (element(headers={"A": "bc"}), "header 'A': found str, expected a list"),
    "header of an object": (element(headers={"A": {"b": 1}}), "header 'A': found dict"),
    "header of numbers": (element(headers={"A": [1]}), "no attribute 'encode'"),
    "header not Latin-1": (element(headers={"\u20ac": ["a"]}), "latin-1"),
    "headers as pairs": (element(headers=[["A", ["b"]]]), "headers: found list, expected dict"),
    "method is null": (element(method=None), "method: found NoneType, expected str"),
    "method is a list": (element(method=[1]), "method: found list"),
    "body is an object": (element(body={}), "body: found dict, expected str"),
    "meta as pairs": (element(meta=[["a", 1]]), "meta: found list, expected dict"),
    "meta is null": (element(meta=None), "meta: found NoneType"),
    "cb_kwargs as pairs": (element(cb_kwargs=[["a", 1]]), "cb_kwargs: found list"),
    "cookies is a number": (element(cookies=1), "cookies: found int, expected dict or list"),
    "cookies is a text": (element(cookies="abc"), "cookies: found str"),
    "flags is a text": (element(flags="abc"), "flags: found str, expected list"),
    "encoding is null": (element(encoding=None), "encoding: found NoneType"),
    "priority is a float": (element(priority=1e308), "not an integer"),
    "priority is infinite": ('[{"url": "http://a/", "priority": 1e999}]', "not an integer"),
    "a file": ('["file:///etc/passwd"]', "found the URL file:///etc/passwd, expected http or https"),
    "a file in an object": (element(url="FILE:///etc/passwd"), "expected http or https"),
    "data": ('["data:text/html,<script>"]', "expected http or https"),
    "ftp": ('["ftp://user@a/"]', "expected http or https"),
    "s3": ('["s3://bucket/key"]', "expected http or https"),
    "javascript": ('["javascript:alert(1)"]', "Missing scheme"),
    "an URL of surrogates": ('["http://a/\\ud800"]', "surrogates not allowed"),
    "a host of surrogates": ('["http://\\ud800/"]', "surrogates not allowed"),
    "a port that is none": ('["http://a:99999/"]', "Port out of range"),
    "a long URL that is none": (json.dumps(["x" * 100_000]), "Missing scheme"),
    "a long unknown name": (element(**{"x" * 100_000: 1}), "unknown xxx"),
    "an unknown name of controls": (element(**{"x\n\x1b[31m\ud800": 1}), r"unknown x\\n\\x1b\[31m\\ud800"),
    "a long class": (element(_class="x" * 100_000), "TypeError: 'xxx"),
    "a long callback": (element(callback="x" * 100_000), "no attribute 'xxx"),
    "the class of an attribute": (element(_class="test_hostile.Trap"), "no Request class"),
    "our ticket": (element(meta={"distributed_ticket": [0, 0]}), "a worker's own"),
    "our errback": (element(meta={"distributed_errback": "prop"}), "a worker's own"),
    "a slow query": (element(url="http://a/?" + "\u4e00\u4e01" * 50_000, encoding="Punycode"), "encoding Punycode"),
    "the same in IDNA": (element(url="http://a/?" + "\u4e00\u4e01" * 50_000, encoding="IDNA"), "encoding IDNA"),
    "an encoding that is none": (element(encoding="x" * 1000), "unknown encoding"),
    "a host that takes minutes": (element(url=" ht\ntp:/\t/" + "\u4e00\u4e01" * 50_000), "a host of more than 300"),
    "the same before a query": (element(url="http://" + "\u4e00\u4e01" * 50_000 + "?a"), "a host of more than 300"),
    "something behind its end": (packed(b'["http://a/"]') + base64.b85encode(b"more").decode(), "behind its end"),
    "many empty lists": (packed(b"[" + b"[]," * 8_000_000 + b"[]]"), "larger than"),  # 0.6 GB as Python's lists
}  # fmt: skip


@pytest.mark.parametrize(("value", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_hostile_batch_is_refused_in_clear_words(value: str, words: str) -> None:
    began = time.process_time()
    with pytest.raises(WireError, match=words) as caught:
        decode_requests(value, TRAP)
    assert time.process_time() - began < 1
    assert is_fit_to_print(str(caught.value))
    assert ran == []


def test_a_batch_that_is_refused_starts_no_crawl() -> None:
    for value in ('["file:///etc/passwd"]', element(callback="__init__"), "", "{}", PREFIX):
        crawler = get_crawler(Trap, {"DISTRIBUTED_START_URL": value, "DISTRIBUTED_TARGET_HOSTS": "a"})
        crawler.spider = TRAP
        with pytest.raises(ValueError, match="DISTRIBUTED_START_URL"):  # NotConfigured would be a crawl without us
            DistributedSpiderMiddleware.from_crawler(crawler)


class Raising(Request):
    """A class of the project's own, whose constructor raises what no one expects."""

    attributes = (*Request.attributes, "how")

    def __init__(self, *args: Any, how: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.how = how
        if how in ("AssertionError", "ArithmeticError", "RecursionError", "OSError"):
            raise getattr(sys.modules["builtins"], how)("no\nsuch \x1b thing")


@pytest.mark.parametrize("how", ["AssertionError", "ArithmeticError", "RecursionError", "OSError"])
def test_whatever_a_class_raises_is_the_fault_of_its_element(how: str) -> None:
    value = json.dumps(["http://a/", {"url": "http://b/", "_class": f"{Raising.__module__}.Raising", "how": how}])
    with pytest.raises(WireError, match=rf"element 1 is no request: {how}: no\\nsuch \\x1b thing"):
        decode_requests(value, TRAP)


def test_what_a_worker_refuses_is_not_sent_to_it() -> None:
    for request in (
        Request("http://a/", meta={"distributed_ticket": 1}),
        Request("http://a/", meta={"distributed_errback": "item"}),
        Request("http://a/?\u4e00", encoding="punycode"),
        Request(f"http://{chr(0x4E00) * 301}/"),
    ):
        with pytest.raises(NotSerializableError):
            encode_request(request, TRAP)


RICH = [
    encode_request(request, TRAP)
    for request in (
        Request("http://a/?b=1#c"),
        Request("http://b/", meta={"rule": 0, "link_text": "x"}, callback=TRAP._callback, errback=TRAP._errback),
        Request("http://c/", method="POST", headers={"A": [b"1", b"\xff"]}, body=b"\0\xff", cookies={"a": "b"}, meta={
            "deep": [1, {"a": None}]}, cb_kwargs={"n": 1}, priority=-3, dont_filter=True, flags=["f"],
            encoding="cp1251", callback=TRAP.item, errback=TRAP.failed),
        JsonRequest("http://d/", data={"a": [1]}, dumps_kwargs={"indent": 1}),
    )
]  # fmt: skip
PLAIN_VALUE = f"[{','.join(RICH)}]"
PACKED_VALUE = packed(PLAIN_VALUE.encode())
paths = st.sampled_from([
    (position, name) for position, body in enumerate(RICH) if body.startswith("{")
    for name in [*json.loads(body), "callback", "errback", "_class", "url"]
])  # fmt: skip


def is_decoded_or_refused(value: str) -> None:
    try:
        requests = decode_requests(value, TRAP)
    except WireError as error:
        refusal = str(error)
    else:
        refusal = ""
        for request in requests:
            assert request.url.startswith(("http://", "https://"))
            for function in (request.callback, request.errback):
                assert function is None or function.__name__ not in {"__init__", "start", "closed", "log", "prop"}
    assert is_fit_to_print(refusal)
    assert ran == []


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.sampled_from([PLAIN_VALUE, PACKED_VALUE]), st.integers(0, len(PLAIN_VALUE)), st.integers(0, 4),
    st.text(characters, max_size=4) | st.sampled_from(list('[]{}",:\\0')),
)  # fmt: skip
def test_a_mutated_batch_is_decoded_or_refused(value: str, start: int, length: int, new: str) -> None:
    is_decoded_or_refused(value[:start] + new + value[start + length :])


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    paths,
    json_values | st.sampled_from([
        "__init__", "start", "closed", "prop", "log", "item", "scrapy.http.request.Request",
        "scrapy.http.request.form.FormRequest", "file:///etc/passwd", "utf-16", "idna", "http://a\r\n/\0",
        {"A\r\nB": ["c\r\nd"]}, "GET\r\nX: y", 10**4000,
    ]),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::scrapy.exceptions.ScrapyDeprecationWarning")
def test_a_batch_with_one_strange_value_is_decoded_or_refused(path: tuple[int, str], value: Any) -> None:
    elements = json.loads(PLAIN_VALUE)
    elements[path[0]][path[1]] = value
    is_decoded_or_refused(json.dumps(elements))


# What travels must arrive: a worker refuses a batch as a whole


class Needy(Request):
    """It can't be made from its attributes: ``page`` is not among them."""

    def __init__(self, *args: Any, page: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.page = page


class OwnClass(Request):
    """As a project has it."""


class Restless(Request):
    """Each making changes it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.meta["made"] = self.meta.get("made", 0) + 1


def test_a_request_that_can_not_be_made_again_does_not_travel() -> None:
    class Local(Request):
        """A worker does not have it before the callback that makes it has run."""

    class Script(Request):
        """Of the file that was started: on a worker that is another one."""

    Script.__qualname__, Script.__module__ = "Script", "__main__"
    for request, words in (
        (Needy("http://a/", page=1), "can't be made again: TypeError"),
        (Restless("http://a/"), "meta of a Restless would change"),
        (Local("http://a/"), "can't be found by its name on a worker"),
        (Script("http://a/"), "Script of __main__ can't be found"),
        (Request("http://a/?b", encoding="utf-16"), "url of a Request would change"),
    ):
        with pytest.raises(NotSerializableError, match=words):
            encode_request(request, TRAP)


def test_none_in_place_of_a_default_is_no_change() -> None:
    body = encode_request(OwnClass("http://a/", dont_filter=None), TRAP)  # type: ignore[arg-type]
    (arrived,) = decode_requests(f"[{body}]", TRAP)
    assert (type(arrived), arrived.dont_filter) == (OwnClass, False)


def test_a_method_that_is_empty_arrives_as_such() -> None:
    (arrived,) = decode_requests(f"[{encode_request(Request('http://a/', method=''), TRAP)}]", TRAP)
    assert arrived.method == ""


def test_a_batch_that_is_packed_by_hand_may_be_utf_8() -> None:
    (arrived,) = decode_requests(packed('["http://a/\u00fc"]'.encode()), TRAP)
    assert arrived.url == "http://a/%C3%BC"


@pytest.mark.parametrize("cookies", ["a=b", 1, True])
def test_cookies_that_a_worker_would_refuse_do_not_travel(cookies: Any) -> None:
    with pytest.raises(NotSerializableError, match="cookies: found"):
        encode_request(Request("http://a/", cookies=cookies), TRAP)


hosts = st.sampled_from([
    "a", "a:81", "user:pass@a", "b\u00fccher.de", "xn--bcher-kva.de", "\u2603.net", "a..b", "a" * 70 + ".de",
    "\u00fc" * 70 + ".de", "[::1]", "[::1", "a\\b", "a b", "a\nb", "a%00b", "", "\u2100.com", "%zz@a", "a:", "1.2.3",
])  # fmt: skip
links = st.builds(
    "{}{}/{}".format, st.sampled_from(["http://", "https://", "HTTP://", "//", "http:", "file://", "ftp://", "x:"]),
    hosts, st.text(characters, max_size=20),
)  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    url=links, method=texts | st.sampled_from(["GET\r\nX: y", ""]),
    headers=st.dictionaries(st.binary(max_size=6), st.lists(st.binary(max_size=6), max_size=2), max_size=2),
    body=st.binary(max_size=10), cookies=json_values | st.just({"a": b"b"}), meta=st.dictionaries(texts, json_values),
    cb_kwargs=st.dictionaries(texts, json_values), flags=st.lists(json_values, max_size=2),
    encoding=st.sampled_from(["utf-8", "utf-16", "cp1251", "utf-7", "rot13", "idna", "punycode"]),
    dont_filter=json_values, kind=st.sampled_from([Request, JsonRequest, Restless, Raising]),
    callback=st.sampled_from([None, TRAP.item, TRAP.start, TRAP.static, ran.append]),
)  # fmt: skip
def test_each_request_of_a_page_arrives_or_stays(kind: type[Request], **values: Any) -> None:
    try:
        request = kind(**values)
    except Exception:  # the spider's own callback fails then
        return
    targets = diverter(OnSite(), offsite=None)
    targets.spider = TRAP
    dropped = not request.url.startswith(("http://", "https://"))
    entries, here = targets.entries([request])
    assert len(entries) + len(here) + dropped == 1
    for _, body in entries:
        (arrived,) = decode_requests(encode_payload([body]), TRAP)
        assert type(arrived) is kind
        for name in kind.attributes:
            sent, came = getattr(request, name), getattr(arrived, name)
            assert sent == came or not (sent or came), name  # None and False are the same for Scrapy


@pytest.mark.parametrize(
    "link",
    ["http://a.example/\0", "http://a.example/\r\nX: y", "http://a.example\n/", "http://user:pa%3Ass@a.example/",
     "http://b\u00fccher.a.example/\u2603", "http://a.example/?" + "%00" * 30_000, "http://a.example/" + "x" * 100_000,
     "http://a.example/\x7f\x80\u2028", "http://a.example/%2e%2e/%2e%2e/etc/passwd", "HTTP://A.EXAMPLE"],
    ids=lambda link: ascii(link)[:40],
)  # fmt: skip
def test_the_link_of_a_page_is_diverted_as_scrapy_has_it(link: str) -> None:
    request = Request(link)
    ((_, body),), here = diverter(OnSite()).entries([request])
    assert here == []
    (arrived,) = decode_requests(encode_payload([body]), OnSite())
    assert arrived.url == request.url
    assert not {"\0", "\r", "\n"} & set(arrived.url)


def test_a_link_that_is_too_long_stays_and_is_counted() -> None:
    path = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=300_000))
    targets = diverter(OnSite())
    requests = [Request(f"http://a.example/{path}"), Request("http://a.example/2")]
    entries, here = targets.entries(requests)
    assert ([body for _, body in entries], here) == (['"http://a.example/2"'], requests[:1])
    assert targets.stats.get_value("distributed/local/too_large") == 1


# What nodes answer


KEYS = ("pending", "running", "finished", "node_name", "jobid", "prevstate", "currstate", "spiders", "projects",
        "versions", "id", "project", "spider", "pid", "start_time", "end_time")  # fmt: skip
bodies = (
    st.dictionaries(st.sampled_from(KEYS), json_values | st.lists(st.dictionaries(st.sampled_from(KEYS), json_values)))
    .map(lambda values: json.dumps({"status": "ok", **values}).encode())
    | st.builds(lambda message: json.dumps({"status": "error", "message": message}).encode(), json_values)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=60)
)  # fmt: skip


class Saying(Resource):
    """Answers *body* to everything."""

    isLeaf = True  # noqa: N815  # Twisted's name

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body

    def render(self, request: Any) -> bytes:
        return self.body


def outcomes_of(body: bytes) -> dict[str, Any]:
    """What each call of a node makes of *body*: a value, or the exception."""
    address = NodeAddress(name="n", url="http://node.invalid:6800", username="user-x", password=SECRET)
    stub = StubTreq(Saying(body))
    node = Node(address=address, client=cast(HTTPClient, stub), clock=Clock())
    found: dict[str, Any] = {}
    for name, call in {
        "daemonstatus": node.daemonstatus(), "schedule": node.schedule("p", "s", jobid="j"),
        "cancel": node.cancel("p", "j"), "status": node.status("j"), "addversion": node.addversion("p", "1", b""),
        "listprojects": node.listprojects(), "listversions": node.listversions("p"),
        "listspiders": node.listspiders("p"), "listjobs": node.listjobs(), "delproject": node.delproject("p"),
    }.items():  # fmt: skip
        deferred = Deferred.fromCoroutine(call)
        stub.flush()
        results: list[Any] = []
        deferred.addBoth(results.append)
        assert results, "no answer"
        found[name] = results[0].value if isinstance(results[0], Failure) else results[0]
    return found


@settings(derandomize=True, deadline=None, max_examples=60)
@given(bodies)
def test_any_answer_is_a_value_of_its_shape_or_an_error_of_the_node(body: bytes) -> None:
    for name, found in outcomes_of(body).items():
        if isinstance(found, BaseException):
            assert isinstance(found, NodeError), (name, found)
            assert is_fit_to_print(str(found)), name
            assert SECRET not in str(found)
            assert "user-x" not in str(found)
        elif name in ("schedule", "listprojects", "listversions", "listspiders"):
            assert isinstance(found, str if name == "schedule" else list)
        elif name == "daemonstatus":
            assert all(type(count) is int and count >= 0 for count in (found.pending, found.running, found.finished))


ODD_ANSWERS: dict[str, tuple[bytes, type[NodeError], str]] = {
    "deep": (b"[" * 100_000, NodeAmbiguousError, "bytes that are no JSON"),
    "deep objects": (b'{"a":' * 100_000, NodeAmbiguousError, "bytes that are no JSON"),
    "deep and closed": (b'{"status":"ok","pending":' + b"[" * 900 + b"]" * 900 + b"}", NodeAmbiguousError, "a list"),
    "a deep message": (
        b'{"status":"error","message":' + b"[" * 900 + b"]" * 900 + b"}", NodeRefusedError, "without a message",
    ),
    "a long list": (b'{"status":"ok","pending":[' + b"1," * 10**6 + b"1]}", NodeAmbiguousError, "600,000 values"),
    "an object": (b'{"status":"ok","pending":{"a":1}}', NodeAmbiguousError, "answered an object for 'pending'"),
    "a boolean": (b'{"status":"ok","pending":true}', NodeAmbiguousError, "answered True for 'pending', expected a num"),
    "a negative": (b'{"status":"ok","pending":-5}', NodeAmbiguousError, "answered -5 for 'pending'"),
    "too many": (b'{"status":"ok","pending":' + b"9" * 4000 + b"}", NodeAmbiguousError, "answered 999"),
    "far too many": (b'{"status":"ok","pending":' + b"9" * 5000 + b"}", NodeAmbiguousError, "no JSON"),
    "controls": (b'{"status":"error","message":"a\\u001b[31m\\ud800\\u0000b"}', NodeRefusedError, r"n: a\?\[31m\?\?b"),
    "a long message": (b'{"status":"error","message":"' + b"x" * 10**6 + b'"}', NodeRefusedError, r"xxx\.\.\."),
    "no UTF-8": (b'{"status":"ok","pending":"\xff"}', NodeAmbiguousError, "no JSON"),
    "nothing": (b"", NodeAmbiguousError, "0 bytes that are no JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "kind", "words"), ODD_ANSWERS.values(), ids=ODD_ANSWERS.keys())
def test_an_odd_answer_is_an_error_in_clear_words(body: bytes, kind: type[NodeError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        parsed("n", "http://node.invalid:6800", "e.json", 200, body).integer("pending")
    assert is_fit_to_print(str(caught.value))


def test_a_number_is_a_count() -> None:
    answer = Answer(node="n", endpoint="e", values={"none": 0, "most": 10**9, "more": 10**9 + 1})
    assert (answer.integer("none"), answer.integer("most")) == (0, 10**9)
    with pytest.raises(NodeAmbiguousError):
        answer.integer("more")


def test_a_line_that_a_log_quotes_has_no_controls() -> None:
    assert last_line("one\ntwo \x1b[2J\x07\x9b \u00fc\n\n") == "two ?[2J?? \u00fc"


# Addresses of nodes


@pytest.mark.parametrize("entry", [
    "http://ho\nst:6800", "a\0b", "a\x7fb", "http://a/\0b", f"user:{SECRET[:3]}\n{SECRET[3:]}@host", "\ud800",
    f"http://user:{SECRET}\0@host", f"http://user:{SECRET}@b\ud800:1", f"http://user:{SECRET}\t@host", "http://a/\u2028b",
])  # fmt: skip
def test_a_control_character_is_not_dropped_without_a_word(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"control character|can't be read") as caught:
        addresses([entry], targets={})
    assert is_fit_to_print(str(caught.value))
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError):
        addresses(["t"], targets={"t": Target(name="t", url=entry)})


@settings(derandomize=True, deadline=None)
@given(
    st.sampled_from(["", "http://", "https://", "ftp://", "x:", "//"]), st.text(characters, max_size=6),
    st.text(characters, max_size=6), st.sampled_from(["a", "a:1", "a:99999", "[::1", "", "a b", "a/b?c#d", "\u2100"]),
)  # fmt: skip
def test_no_refusal_tells_a_password(scheme: str, before: str, after: str, host: str) -> None:
    entry = f"{scheme}user:{before}{SECRET}{after}@{host}"
    try:
        (address,) = addresses([entry], targets={})
        told = address.url + address.name + repr(address)
    except ConfigError as error:
        told = str(error)
    assert SECRET not in told
    assert is_fit_to_print(told)


# Arguments of a job


@settings(derandomize=True, deadline=None)
@given(
    st.sampled_from(["j", "1-2.3_x"]) | texts | st.sampled_from(["../x", "/x", "a/b", "a\0", "x" * 300, "", "a\n"]),
    st.dictionaries(texts, texts | st.sampled_from(["x" * 140_000, "\0", "\ud800", "x" * 131_071]), max_size=3),
    st.dictionaries(texts | st.sampled_from(["a=b", "project", "name"]), texts, max_size=3),
)
def test_a_job_is_refused_or_a_command_line_can_carry_it(
    job: str, job_settings: dict[str, str], args: dict[str, str]
) -> None:
    try:
        check_job(job, job_settings, args)
        refusal = ""
    except ConfigError as error:
        refusal = str(error)
    assert is_fit_to_print(refusal)
    if refusal:
        return
    assert job.isascii()
    assert 0 < len(job) <= 200
    assert not set(job) & set("/\\\0\n %")
    assert all(key and "=" not in key for key in (*job_settings, *args))
    assert not {"project", "name"} & set(args)
    encoded = [f"{key}={value}".encode() for key, value in [*job_settings.items(), *args.items()]]
    assert all(b"\0" not in argument and len(argument) <= MAX_ARGUMENT_BYTES for argument in encoded)
    assert sum(map(len, encoded)) <= MAX_ARGUMENTS_BYTES


def test_the_ceiling_of_a_batch_is_the_ceiling_of_a_worker() -> None:
    """What a coordinator may send a worker unpacks."""
    assert len(decode_payload(packed(b'["' + b"x" * (MAX_JSON_BYTES - 4) + b'"]'))) == 1
    with pytest.raises(WireError, match="larger than"):
        decode_payload(packed(b'["' + b"x" * (MAX_JSON_BYTES + 2048) + b'"]'))


# Receipts


def forged(**values: Any) -> str:
    usual = {"job": "j", "sequence": 1, "final": True, "size": 4, "settled": 0b1111, "stored": True}
    return json.dumps(json.loads(Receipt(**usual).to_json()) | values)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [None, 10**15, 4])
def test_a_bitmap_and_positions_of_a_lie_cost_no_time(size: int | None) -> None:
    """4 MB of bits and 5,000 positions would be 20 GB of shifting, on the event loop of the coordinator."""
    bitmap = base64.b64encode(b"\xff" * 4_000_000).decode()
    text = forged(size=10**15, settled=bitmap, failed={"http 404": [*range(5_000), 0]})
    began = time.process_time()
    with pytest.raises(
        WireError, match="sent were 4" if size == 4 else "position 0 is not settled, or has two"
    ) as caught:
        Receipt.from_json(text, size=size)
    assert time.process_time() - began < 0.5
    assert is_fit_to_print(str(caught.value))


@pytest.mark.parametrize("name", ["items", "pages", "size", "sequence", "unexported", "activity"])
def test_a_count_that_no_database_holds_is_refused(name: str) -> None:
    for count in (2**53 + 1, 10**30):
        with pytest.raises(WireError, match=f"{name} is "):
            Receipt.from_json(forged(**{name: count}))
    with pytest.raises(WireError, match="items of 'a' is "):
        Receipt.from_json(forged(feeds=[["a", 10**30]]))


def test_the_largest_counts_and_stats_that_are_read_can_be_settled_and_summed(tmp_path: Path) -> None:
    values = {"items": 2**53, "pages": 2**53, "sequence": 2**53, "unexported": 2**53, "feeds": [["a", 2**53]]}
    with closing(Ledger(tmp_path / "l.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        for number, stat in enumerate((2**63 - 1, -(2**63) + 1, 9.2e18, 1.5)):
            attempt = a_batch(ledger, number)
            text = forged(job=attempt.job, size=1, settled="AQ==", stats={"a": stat, "max": stat}, **values)
            ledger.verdicts.settle(attempt, Receipt.from_json(text, size=1), max_attempts=3)
        assert set(ledger.account.worker_stats()) == {"a", "max"}
        assert ledger.account.balance().settled


@pytest.mark.parametrize("value", [2**63, -(2**63), 10**400, 1e19])
def test_a_stat_that_no_sum_holds_is_refused(value: float) -> None:
    with pytest.raises(WireError, match="numbers below"):
        Receipt.from_json(forged(stats={"elapsed_time_seconds": value}))


TOO_MUCH: dict[str, dict[str, Any]] = {
    "a reason": {"failed": {"x" * 201: [0, 1, 2, 3]}},
    "a reason of the filtered": {"filtered": {"x" * 100_000: [0]}},
    "a finish reason": {"finish_reason": "x" * 100_000},
    "controls": {"failed": {"a\n2026 ERROR: \x1b[2J": [0]}},
    "controls in the finish reason": {"finish_reason": "a\nb"},
    "stats": {"stats": {f"stat{number}": 1 for number in range(100_000)}},
    "the name of a stat": {"stats": {"x" * 501: 1}},
    "feeds": {"feeds": [[f"file:///{number}", 0] for number in range(100_000)]},
    "the URL of a feed": {"feeds": [["x" * 5_000, 0]]},
    "a job": {"job": "x" * 300},
    "a field": {"x" * 100_000: 1},
    "a format": {"format": "x" * 100_000},
    "all of it": {"targets": ["x" * 17_000_000]},
}


@pytest.mark.parametrize("values", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_texts_of_a_receipt_are_few_and_short_and_printable(values: dict[str, Any]) -> None:
    """A reason is stored with each of its positions: 1 MB for 1,000 requests would make the ledger 1 GB larger."""
    with pytest.raises(WireError) as caught:
        Receipt.from_json(forged(**values))
    assert is_fit_to_print(str(caught.value))


def test_many_payloads_of_targets_are_no_bomb() -> None:
    """Each is 16 MB unpacked and 16 KB here, and a receipt has room for a thousand."""
    payload = packed(b'["' + b"x" * 16_000_000 + b'"]')
    began = time.process_time()
    found = Receipt.from_json(forged(targets=[payload] * 800)).found()
    for _ in range(4):
        assert len(next(found)) == 1
    with pytest.raises(WireError, match="more than 67,108,864 bytes of them, unpacked"):
        next(found)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("job", ["../../x", "..", "/x", "a/b", "a\0b", "x" * 300, "", ".", "\u00fc", "a\n"])
def test_a_receipt_is_written_in_its_folder_or_refused(job: str, tmp_path: Path) -> None:
    """``-a _job=../../x`` is a spider argument like any other."""
    folder = tmp_path / "logs" / "p"
    if job not in ("..", "."):  # with the ending of the file they are plain names
        with pytest.raises(ConfigError, match="job id") as caught:
            receipt_path(str(folder / "s" / "j.log"), job)
        assert is_fit_to_print(str(caught.value))
        return
    path = receipt_path(str(folder / "s" / "j.log"), job)
    assert path.resolve().parent == folder / "s.receipts"
    assert len(path.name) < 256


def test_a_receipt_that_no_worker_writes_is_the_fault_of_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "MAX_RECEIPT_BYTES", 1000)
    for size, kind in ((1000, bytes), (1001, NodeRefusedError)):
        stub = StubTreq(Saying(b"x" * size))
        address = NodeAddress(name="n", url="http://node.invalid:6800")
        node = Node(address=address, client=cast(HTTPClient, stub), clock=Clock())
        results: list[Any] = []
        Deferred.fromCoroutine(node.receipt("p", "s", "j")).addBoth(results.append)
        stub.flush()
        found = results[0].value if isinstance(results[0], Failure) else results[0]
        assert isinstance(found, kind)
    assert "larger than any worker writes it" in str(found)


# An honest worker, whatever its project does


def a_worker(folder: Path, **arguments: Any) -> Worker:
    crawler = get_crawler(Trap, {"DISTRIBUTED_START_URL": '["http://a/"]', "LOG_FILE": str(folder / "s" / "j.log")})
    crawler.spider = Trap(**{"_job": "j"} | arguments)
    return Worker.from_crawler(crawler)


def written(worker: Worker) -> Receipt:
    assert worker.reporter.file is not None
    return Receipt.from_json(worker.reporter.file.read_bytes(), size=1)


@pytest.mark.parametrize("job", ["../../x", "/x", "a/b", "a\0"])
def test_a_worker_writes_nothing_outside_of_its_folder(job: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    with pytest.raises(ConfigError, match="job id"):
        a_worker(folder, _job=job)
    assert list(tmp_path.iterdir()) == []


def test_what_exceptions_and_spiders_say_travels() -> None:
    for name in ("x" * 5_000, "a\n\x1b[2J"):
        outcomes = Outcomes(2)
        first, second = outcomes.start(0), outcomes.start(1)
        outcomes.note(first, *reason_of(type(name, (Exception,), {})()))
        outcomes.end(first)
        outcomes.note(outcomes.follow(1), "failed", f"callback {name}")
        outcomes.end(second)
        text = forged(size=2, settled="AQ==", failed=outcomes.by_reason("failed"))
        ((reason, positions),) = Receipt.from_json(text).failed.items()
        assert (reason[:10], positions) == (f"download {name[0]}", [0])
        assert all(len(reason) < 300 and reason.isprintable() for _, reason in outcomes.followed)


def test_an_answer_of_many_values_is_refused_before_they_are_made() -> None:
    body = b'{"status":"ok","pending":[' + b"{}," * 2_000_000 + b"{}]}"
    began = time.process_time()
    with pytest.raises(NodeAmbiguousError, match=r"listjobs.json answered more than 600,000 values"):
        parsed("n", "http://n", "listjobs.json", 200, body)
    assert time.process_time() - began < 0.5


def test_the_receipt_of_an_honest_worker_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """100,000 items in files of 100 each, a stat for each of 10,000 things, and a spider that closes with a story."""
    worker = a_worker(tmp_path)
    worker.crawler.stats.set_value("\ud800", 1)
    worker.crawler.stats.set_value("inf", float("inf"))
    worker.crawler.stats.set_value("text", "abc")
    for number in range(10_000):
        worker.crawler.stats.inc_value(f"price/{number}")
    worker.feeds.files = [(f"file:///shared/items/{number}.jl", 100) for number in range(1000)]
    worker._spider_closed("asked for:\n\ud800" + "x" * 5_000)
    report = written(worker)
    assert (report.final, report.stored, len(report.feeds), len(report.stats)) == (True, True, 1000, MAX_STATS)
    assert report.finish_reason.startswith("asked for:??xxx")
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "stats are not in the receipt" in warning


def test_what_does_not_fit_is_told_and_does_not_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is left out without a word: a feed that is not in the receipt would be missing in the merged items."""
    worker = a_worker(tmp_path)
    worker.feeds.files = [(f"file:///{number}", 1) for number in range(MAX_FEEDS + 1)]
    worker.reporter.at_work()
    assert not written(worker).final
    worker._spider_closed("finished")
    report = written(worker)
    assert (report.final, report.stored, report.feeds, report.finish_reason) == (True, False, (), "finished")
    assert "so it does not count: no receipt: expected at most 50,000 feeds (set FEED_EXPORT_BATCH" in caplog.text


# What can't be settled


@pytest.mark.parametrize("error", [OverflowError("int too large"), UnicodeError("surrogates"), ValueError("a\n\x1bb")])
def test_a_receipt_that_can_not_be_settled_is_rejected(
    error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next look at it would raise the same, and so on for ever."""
    court = Court(tmp_path / "s.sqlite")
    court.batch(0, 1)
    flight = court.send(court.members[0])

    async def fail(report: Receipt) -> Any:
        raise error

    court.judge.read_targets = fail
    court.final(court.members[0], flight, targets=("[]",))
    ((state, reason),) = court.attempts()
    assert (state, court.members[0].flights) == ("rejected", {})
    assert reason.startswith(f"its receipt can't be settled: {type(error).__name__}: ")
    assert is_fit_to_print(reason)
    assert court.balance() == {"diverted": 2, "queued": 2}
    assert f"Receipt of job {flight.attempt.job} on n0" in caplog.text
    court.ledger.close()


def test_a_ledger_that_can_not_be_written_is_no_fault_of_a_receipt(tmp_path: Path) -> None:
    court = Court(tmp_path / "s.sqlite")
    court.batch(0, 1)
    flight = court.send(court.members[0])
    court.ledger.store.db.execute("PRAGMA query_only = 1")
    with pytest.raises(LedgerUnavailableError):
        court.final(court.members[0], flight)
    court.ledger.store.db.execute("PRAGMA query_only = 0")
    assert court.members[0].flights
    court.final(court.members[0], flight)
    assert court.balance() == {"diverted": 2, "crawled": 2}
    court.ledger.close()


# Ledgers


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A ledger with a settled batch, one in flight, one ready, and an open one."""
    path = tmp_path_factory.mktemp("sound") / "s.sqlite"
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger)
        report = receipt(attempt, failed={"http 404": [1]}, filtered={"offsite": [2]}, items=2, stats={"a": 1},
                         feeds=(("ftp://h/1.jl", 2),))  # fmt: skip
        ledger.verdicts.settle(attempt, report, max_attempts=1)
        divert(ledger, *range(10, 20))
        ledger.intake.cut([4, 4])
        ledger.bookings.bind(2, "n1")
    return path.read_bytes()


def use(path: Path) -> None:
    """What a coordinator does with a ledger that it takes up."""
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        ledger.others()
        count, _ = ledger.intake.open_batch()
        with suppress(LedgerUnavailableError):  # from here on such an error closes the crawl, as ledger_failed
            ledger.bookings.live()
            ledger.account.balance()
            ledger.account.settled()
            ledger.account.posted()
            ledger.account.worker_stats()
            ledger.intake.cut([count])
            for batch, *_ in ledger.bookings.ready():
                ledger.bookings.bind(batch, "n1")


def read(path: Path) -> None:
    """What the commands do."""
    with closing(LedgerReader(path)) as reader:
        for run in reader.runs():
            reader.balance(run.id)
            reader.batches(run.id)
            list(reader.outcomes(run.id))
            reader.feeds(run.id)


def commanded(path: Path, *words: str) -> int:
    command = Command()
    command.settings = Settings({})
    parser = ArgumentParser()
    command.add_options(parser)
    options, args = parser.parse_known_args([*words, "--ledger", str(path)])
    command.run(args, options)
    return int(command.exitcode or 0)


def damaged(sound: bytes) -> dict[str, bytes]:
    """Cut off and with one byte changed, at places spread over the whole file and all over its header."""
    cuts = [*range(1, 120, 13), *range(120, len(sound), 1021)]
    flips = [*range(100), *range(100, len(sound), 199)]
    return {f"cut at {at}": sound[:at] for at in cuts} | {
        f"byte {at}": sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :] for at in flips
    }


def complaints(sound: bytes, path: Path, action: Callable[[Path], Any]) -> list[str]:
    """The damages for which *action* raises anything but ``LedgerError``, or changes the file that it refuses."""
    found = []
    for name, data in damaged(sound).items():
        for old in path.parent.iterdir():
            old.unlink()
        path.write_bytes(data)
        try:
            action(path)
        except LedgerError as error:
            if not str(error).startswith(str(path)) or path.read_bytes() != data:
                found.append(f"{name}: changed, or without its path: {error}")
        except Exception as error:
            found.append(f"{name}: {type(error).__name__}: {error}")
    return found


def test_a_damaged_ledger_is_refused_by_the_coordinator(sound: bytes, tmp_path: Path) -> None:
    """Not to be seen without checksums: a changed key or URL. To be seen: what is malformed, or not our types."""
    assert complaints(sound, tmp_path / "l.sqlite", use) == []


def test_a_damaged_ledger_is_refused_by_the_reader(sound: bytes, tmp_path: Path) -> None:
    assert complaints(sound, tmp_path / "l.sqlite", read) == []


@pytest.mark.parametrize("words", [(), ("check",), ("failed",), ("list", "--json"), ("check", "--json")])
@pytest.mark.usefixtures("capsys")
def test_commands_say_that_a_ledger_is_damaged(sound: bytes, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert complaints(sound, tmp_path / "l.sqlite", lambda path: commanded(path, *words)) == []


@pytest.mark.usefixtures("capsys")
def test_another_format_or_program_is_refused_and_left_alone(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    others: dict[str, bytes] = {"noise": os.urandom(5000), "text": b"hello", "a page of zeros": bytes(4096)}
    for number in (0, 99):
        path.write_bytes(sound)
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {number}")
        others[f"format {number}"] = path.read_bytes()
        path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (a)")
    others["theirs"] = path.read_bytes()
    for data in others.values():
        for action in (use, read):
            path.write_bytes(data)
            with pytest.raises(LedgerError):
                action(path)
            assert path.read_bytes() == data
        assert commanded(path, "check") == 2


def test_an_empty_file_is_not_silently_a_new_ledger(tmp_path: Path) -> None:
    """What is left of a ledger after a full disk or a bad copy. A new ledger starts where there is no file."""
    path = tmp_path / "l.sqlite"
    path.write_bytes(b"")
    with pytest.raises(LedgerError):
        use(path)
    assert path.read_bytes() == b""


def test_a_place_that_can_not_be_written_is_no_other_coordinator(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "l.sqlite.lock").mkdir()
    for path in (tmp_path / "file" / "l.sqlite", tmp_path / "file" / "f" / "l.sqlite", tmp_path / "l.sqlite"):
        with pytest.raises(LedgerError, match=str(path)) as caught:
            Ledger(path)
        assert "another coordinator" not in str(caught.value)


def test_a_lock_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "l.sqlite.lock").write_bytes(b"x" * 5000)
    with pytest.raises(LedgerError, match=r"\.lock"):
        Ledger(tmp_path / "l.sqlite")


# Names


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "a\0b", "x" * 300, "\u00fc" * 200, "a/b", ".", "\ud800"])
def test_the_file_of_a_spiders_ledger_is_in_its_folder(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{file_name(name)}.sqlite"
    assert path.resolve().parent == tmp_path
    with closing(Ledger(path)):
        assert path.name != ".sqlite"


def test_two_spiders_do_not_share_a_ledger() -> None:
    assert len({file_name(name) for name in ("a/b", "a_b", "a b", ".a_b")}) == 4


@pytest.mark.parametrize("version", ["9" * 5000, "\u00b2", "1\u00b2", "r\u0662", "\ud800", "", "0" * 5000])
def test_any_version_of_a_node_can_be_compared(version: str) -> None:
    assert choose_version({"n": [version, "1"]}, "", "p") in (version, "1")
    for versions in ({"n": [version], "m": ["1"]}, {"n": [version, "\x1b[2J"] * 1000, "m": []}):
        with pytest.raises(ConfigError) as caught:
            choose_version(versions, "", "p")
        assert is_fit_to_print(str(caught.value))


@pytest.mark.parametrize(
    "log",
    [
        "a.b.MyError: \x1b[2J\x9b\x07" + "x" * 5000,
        "\x1b[31mno error\x00",
        "2026 ERROR: a\x1b[2J\nValueError: \ud800\x85b",
    ],
)
def test_the_log_of_a_job_is_quoted_without_controls(log: str) -> None:
    assert is_fit_to_print(cause_of_death(log))

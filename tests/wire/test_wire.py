"""Requests arrive as they left, no argument is ever as long as the one that wedges a node, and a hostile value is
refused with ``WireError`` alone."""

from __future__ import annotations

import base64
import enum
import json
import random
import string
import sys
import time
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scrapy import Request, Spider
from scrapy.http import HtmlResponse, JsonRequest, XmlRpcRequest
from scrapy.linkextractors import LinkExtractor
from scrapy.spiders import CrawlSpider, Rule

from scrapy_distributed.errors import NotSerializableError, TooLargeError, WireError
from scrapy_distributed.wire import payload as module
from scrapy_distributed.wire.payload import (
    MAX_VALUE_BYTES,
    PREFIX,
    START_URL,
    check_size,
    decode_payload,
    encode_payload,
    fits,
    split,
)
from scrapy_distributed.wire.request import decode_requests, encode_request

ARGUMENT_LIMIT = 131_072  # MAX_ARG_STRLEN: an argument of this many bytes wedges the node


class Plain(Spider):
    name = "plain"
    attribute = "no method"

    def parse(self, response: Any) -> None: ...

    def own(self, response: Any) -> None: ...

    def failed(self, failure: Any) -> None: ...

    def __private(self, response: Any) -> None: ...

    def private_request(self) -> Request:
        return Request("http://a/", callback=self.__private, errback=self.__private)

    async def asynchronous(self, response: Any) -> None: ...

    alias = own


class Crawling(CrawlSpider):
    name = "crawling"
    rules = (Rule(callback="item"), Rule())

    def item(self, response: Any) -> None: ...


class OwnRequest(Request):
    pass


PLAIN = Plain()
CRAWLING = Crawling()


def travelled(request: Request, spider: Spider = PLAIN) -> Request:
    body = encode_request(request, spider)
    assert body.isascii()
    (arrived,) = decode_requests(encode_payload([body]), spider)
    return arrived


# What arrives

characters = st.characters(exclude_categories=("Cs",))
texts = st.text(characters, max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
bags = st.dictionaries(texts, json_values, max_size=3)
urls = st.builds(
    "{}://{}/{}?{}#{}".format,
    st.sampled_from(["http", "https", "HTTP"]), st.sampled_from(["a.example", "b:81", "ü.de"]),
    st.text(characters, max_size=20), st.text(characters, max_size=20), texts,
)  # fmt: skip
header_names = st.text(string.ascii_letters + "-", min_size=1, max_size=10)
headers = st.dictionaries(header_names, st.lists(st.binary(max_size=10), max_size=3), max_size=3)
cookies = st.dictionaries(texts, texts, max_size=3) | st.lists(
    st.fixed_dictionaries({"name": texts, "value": texts, "domain": texts, "path": texts}), max_size=2
)
callbacks = st.sampled_from([None, PLAIN.parse, PLAIN.own, PLAIN.asynchronous])


@given(
    url=urls, method=st.sampled_from(["GET", "POST", "put", "DELETE", "X-OWN"]), headers=headers,
    body=st.binary(max_size=50), cookies=cookies, meta=bags, cb_kwargs=bags, flags=st.lists(texts, max_size=2),
    priority=st.integers(-(10**6), 10**6), dont_filter=st.booleans(),
    encoding=st.sampled_from(["utf-8", "latin-1", "cp1251", "shift_jis"]), callback=callbacks,
    errback=st.sampled_from([None, PLAIN.failed]), kind=st.sampled_from([Request, OwnRequest]),
)  # fmt: skip
def test_a_request_arrives_as_it_left(kind: type[Request], **values: Any) -> None:
    try:
        request = kind(**values)
    except UnicodeError:  # a query that its encoding does not know
        return
    arrived = travelled(request)
    assert type(arrived) is kind
    for attribute in kind.attributes:
        assert getattr(arrived, attribute) == getattr(request, attribute), attribute
    assert arrived.to_dict(spider=PLAIN) == request.to_dict(spider=PLAIN)


@given(meta=bags, cb_kwargs=bags)
def test_types_arrive_as_they_left(meta: dict[str, Any], cb_kwargs: dict[str, Any]) -> None:
    arrived = travelled(Request("http://a/", meta=meta, cb_kwargs=cb_kwargs))
    assert repr(arrived.meta) == repr(meta)  # 1, 1.0 and True are equal
    assert repr(arrived.cb_kwargs) == repr(cb_kwargs)


def test_a_plain_get_is_its_url() -> None:
    assert encode_request(Request("http://a/?b=1"), PLAIN) == '"http://a/?b=1"'


def test_a_header_with_many_values_and_every_byte_arrives() -> None:
    every_byte = bytes(range(256))
    request = Request("http://a/", method="POST", headers={"X": [every_byte, b"2"], "Empty": b""}, body=every_byte)
    arrived = travelled(request)
    assert arrived.headers.getlist("X") == [every_byte, b"2"]
    assert arrived.headers.getlist("Empty") == [b""]
    assert arrived.body == every_byte


def test_callbacks_of_the_spider_arrive_by_name() -> None:
    request = PLAIN.private_request()
    arrived = travelled(request)
    assert arrived.callback == request.callback
    assert arrived.errback == request.errback
    assert travelled(Request("http://a/", callback=PLAIN.alias)).callback == PLAIN.own


def test_a_request_of_a_rule_gets_the_callbacks_of_crawl_spider_back() -> None:
    request = Request("http://a/", meta={"rule": 0, "link_text": ""}, callback=CRAWLING._callback,
                      errback=CRAWLING._errback)  # fmt: skip
    body = encode_request(request, CRAWLING)
    assert "back" not in body  # their names may change
    arrived = travelled(request, CRAWLING)
    assert (arrived.callback, arrived.errback) == (CRAWLING._callback, CRAWLING._errback)
    assert arrived.meta == request.meta


@pytest.mark.parametrize(("callback", "errback"), [(None, None), (CRAWLING.item, None), (None, CRAWLING._errback)])
def test_a_request_of_a_rule_may_have_callbacks_of_its_own(callback: Any, errback: Any) -> None:
    arrived = travelled(Request("http://a/", meta={"rule": 1}, callback=callback, errback=errback), CRAWLING)
    assert (arrived.callback, arrived.errback) == (callback, errback)


def test_a_bare_url_becomes_a_request_of_the_rule_or_the_callback() -> None:
    (arrived,) = decode_requests('["http://a/"]', CRAWLING, rule=1, callback="item")
    assert (arrived.meta, arrived.callback, arrived.errback) == ({"rule": 1}, CRAWLING._callback, CRAWLING._errback)
    (arrived,) = decode_requests('["http://a/"]', PLAIN, callback="own")
    assert (arrived.meta, arrived.callback) == ({}, PLAIN.own)
    (arrived,) = decode_requests('["http://a/"]', PLAIN)
    assert (arrived.meta, arrived.callback) == ({}, None)
    (arrived,) = decode_requests(["http://a/"], PLAIN)  # set in Python
    assert arrived.url == "http://a/"


def test_request_classes_come_back() -> None:
    json_request = JsonRequest("http://a/", data={"b": [1, "ü"]}, headers={"X": "1"}, dumps_kwargs={"indent": 1})
    xml_request = XmlRpcRequest("http://a/", methodname="do", params=(1,))
    for request in (json_request, xml_request, OwnRequest("http://a/")):
        arrived = travelled(request)
        assert type(arrived) is type(request)
        assert (arrived.method, arrived.body, arrived.headers) == (request.method, request.body, request.headers)
    assert travelled(json_request).dumps_kwargs == json_request.dumps_kwargs  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore::scrapy.exceptions.ScrapyDeprecationWarning")
def test_form_requests_come_back() -> None:
    from scrapy.http import FormRequest

    request = FormRequest("http://a/", formdata={"b": ["1", "2"], "c": "ü"})
    arrived = travelled(request)
    assert type(arrived) is FormRequest
    assert (arrived.method, arrived.body, arrived.headers) == (request.method, request.body, request.headers)


# What can't travel


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class Text(str):
    pass


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value",
    [object(), {"a": [{"b": object()}]}, CIRCLE, 10**5000, Text("a"), open, Text, {Text("a"): 1}],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_would_not_arrive_as_it_left_does_not_travel(value: Any) -> None:
    does_not_travel(value)


def test_what_is_nested_too_deep_does_not_travel() -> None:
    does_not_travel(nested(100_000))


def does_not_travel(value: Any) -> None:
    for name in ("meta", "cb_kwargs"):
        with pytest.raises(NotSerializableError):
            encode_request(Request("http://a/", **{name: {"key": value}}), PLAIN)  # type: ignore[arg-type]


def test_the_text_of_a_link_travels() -> None:
    page = HtmlResponse("http://a/", body=b"<a href='/b'>to <b>b</b></a>")
    (link,) = LinkExtractor().extract_links(page)
    arrived = travelled(Request(link.url, meta={"link_text": link.text, "raw": page.xpath("//a/text()")[0].root}))
    assert arrived.meta == {"link_text": "to b", "raw": "to "}


class Kind(str, enum.Enum):
    SALE = "sale"
    NONE = ""
    METHOD = "GET"
    CODE = "utf-8"


class Number(enum.IntEnum):
    NONE = 0
    ONE = 1


class Own(dict[str, Any]):
    """A dict that a spider has made more of."""


@pytest.mark.parametrize(
    "arguments",
    [
        {"cb_kwargs": {Text("kind"): 1}}, {"meta": {"a": {Text("b"): 1}}},
        {"cookies": {"a": Kind.SALE}}, {"cookies": {Kind.SALE: "a"}}, {"cookies": [{"name": Text("a"), "value": "b"}]},
        {"cookies": Own(a="b")}, {"meta": {"own": Own()}}, {"flags": [Kind.SALE]}, {"flags": [Text("a")]},
        {"encoding": Kind.CODE}, {"encoding": Text("latin-1")}, {"priority": Number.ONE}, {"priority": Number.NONE},
        {"meta": {"number": type("Price", (float,), {})(1.5)}},
        {"body": type("Body", (bytes,), {})(b"a")},
    ],
    ids=str,
)  # fmt: skip
def test_what_would_arrive_as_another_type_does_not_travel(arguments: dict[str, Any]) -> None:
    with pytest.raises(NotSerializableError):
        encode_request(Request("http://a/", **arguments), PLAIN)


def test_what_scrapy_makes_a_text_of_arrives_as_it_left() -> None:
    request = Request(Text("http://a/"), method=Text("put"), headers={Text("X"): [Text("1"), Kind.SALE]})
    arrived = travelled(request)
    assert (arrived.url, arrived.method, arrived.headers) == (request.url, "PUT", request.headers)
    assert {type(arrived.url), type(request.url), type(request.method)} == {str}


def test_what_a_request_class_calls_itself_is_looked_at() -> None:
    for value in (Kind.SALE, Kind.NONE, Text()):
        with pytest.raises(NotSerializableError):
            encode_request(Render("http://a/", render=value), PLAIN)  # type: ignore[arg-type]


def elsewhere(response: Any) -> None: ...


@pytest.mark.parametrize("function", [lambda response: None, elsewhere, CRAWLING.item, print, Plain])
def test_a_callback_that_is_no_method_of_the_spider_does_not_travel(function: Any) -> None:
    for name in ("callback", "errback"):
        arguments: dict[str, Any] = {"callback": PLAIN.own, name: function}
        with pytest.raises(NotSerializableError):
            encode_request(Request("http://a/", **arguments), PLAIN)


def test_a_cookie_of_bytes_does_not_travel() -> None:
    with pytest.raises(NotSerializableError, match="cookies holds a bytes"):
        encode_request(Request("http://a/", cookies={"a": b"b"}), PLAIN)


# The ceiling


def arrive_in_order(bodies: list[str]) -> int:
    return len(payloads_of(bodies))


def payloads_of(bodies: list[str]) -> list[str]:
    """What ``split`` makes of *bodies*, checked."""
    arrived: list[str] = []
    parts = list(split(bodies))
    for part, payload in parts:
        assert payload.isascii()
        assert "\0" not in payload
        assert len(f"{START_URL}={payload}".encode()) < ARGUMENT_LIMIT
        elements = decode_payload(payload)
        assert len(elements) == len(part) > 0
        arrived += [json.dumps(element, separators=(",", ":")) for element in elements]
    assert arrived == bodies
    return [payload for _, payload in parts]


@st.composite
def many_bodies(draw: st.DrawFn) -> list[str]:
    """Up to thousands of requests, between repetitive and incompressible."""
    generator = random.Random(draw(st.integers(0, 2**32)))
    alphabet = draw(st.sampled_from(["a", "ab", string.ascii_letters + string.digits + "-_~"]))
    longest = draw(st.sampled_from([10, 300, 3000]))
    number = draw(st.integers(0, 3000 if longest < 3000 else 300))
    return [
        json.dumps("http://a/" + "".join(generator.choices(alphabet, k=generator.randint(0, longest))))
        for _ in range(number)
    ]


@settings(max_examples=settings.default.max_examples // 4)
@given(many_bodies())
def test_no_argument_ever_has_the_size_that_wedges_a_node(bodies: list[str]) -> None:
    arrive_in_order(bodies)


def test_many_long_incompressible_urls_arrive_in_order() -> None:
    generator = random.Random(1)
    paths = ["".join(generator.choices(string.ascii_letters + string.digits, k=1500)) for _ in range(500)]
    requests = [Request(f"http://shop.example/{path}", headers={"X": path[:20]}) for path in paths]
    bodies = [encode_request(request, PLAIN) for request in requests]
    assert sum(map(len, bodies)) > 5 * ARGUMENT_LIMIT
    payloads = payloads_of(bodies)
    assert len(payloads) > 5
    arrived_in = [decode_requests(payload, PLAIN) for payload in payloads]
    assert max(map(len, arrived_in)) > 50
    arrived = [request for requests in arrived_in for request in requests]
    assert [request.url for request in arrived] == [request.url for request in requests]


def test_five_thousand_sequential_urls_need_one_job() -> None:
    assert arrive_in_order([f'"http://shop.example/properties/property_{n:06d}.html"' for n in range(5000)]) == 1


@pytest.mark.parametrize("fill", [0, 1, 62, 63])
def test_sizes_at_the_edge(fill: int) -> None:
    """Incompressible texts around the ceiling: each is either sent whole or refused, never cut and never over."""
    generator = random.Random(fill)
    accepted = refused = 0
    for size in range(MAX_VALUE_BYTES - 4000 - fill, MAX_VALUE_BYTES + 6000, 1999):
        body = json.dumps("".join(generator.choices(string.printable[:94], k=size * 13 // 16)))
        try:
            check_size(body)
        except TooLargeError:
            refused += 1
            with pytest.raises(TooLargeError):
                list(split([body]))
        else:
            accepted += 1
            assert arrive_in_order([body]) == 1
    assert accepted


def test_a_request_over_the_ceiling_is_refused_and_a_compressible_one_is_not() -> None:
    incompressible = "".join(random.Random(0).choices(string.ascii_letters + string.digits, k=300_000))
    with pytest.raises(TooLargeError, match="a request of 300,0"):
        check_size(encode_request(Request("http://a/", method="POST", body=incompressible), PLAIN))
    body = encode_request(Request("http://a/", method="POST", body="a" * 3_000_000), PLAIN)
    check_size(body)
    assert arrive_in_order([body]) == 1


def test_the_limit_counts_the_name_of_the_setting() -> None:
    assert fits("a" * MAX_VALUE_BYTES)
    assert not fits("a" * (MAX_VALUE_BYTES + 1))
    assert len(f"{START_URL}=") + MAX_VALUE_BYTES == ARGUMENT_LIMIT - 1


def test_no_batch_is_sent_that_a_worker_would_not_unpack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_JSON_BYTES", 20_000)
    assert arrive_in_order(['""'] * 19_000) > 1  # the commas count
    assert arrive_in_order(["1"] * 30_000) > 1
    assert arrive_in_order(["1"] * 9_999) == 1
    with pytest.raises(TooLargeError):
        check_size(json.dumps("a" * 200_000))


def test_short_values_stay_readable() -> None:
    assert encode_payload(['"http://a/"', '"http://b/"']) == '["http://a/","http://b/"]'
    assert encode_payload([]) == "[]"
    assert decode_requests("[]", PLAIN) == []
    assert encode_payload(['"http://a/"'] * 1000).startswith(PREFIX)
    assert list(split([])) == []


# Hostile values


def packed(data: bytes) -> str:
    return PREFIX + base64.b85encode(zlib.compress(data, 9)).decode()


GOOD = packed(json.dumps(["http://a/"] * 100).encode())
HOSTILE: dict[str, Any] = {
    "nothing": "", "a word": "http://a/", "an object": "{}", "a string": '"http://a/"', "null": "null", "NaN": "NaN",
    "numbers": "[1]", "lists": "[[]]", "nulls": "[null]", "NaNs": "[NaN]", "no scheme": '["a"]', "no url": '["' + '"]',
    "a dict": {"url": "http://a/"}, "bytes": b"[]", "none": None, "a number in Python": 1, "a list in Python": [1],
    "no object with url": "[{}]", "url is a number": '[{"url": 1}]', "url is null": '[{"url": null}]',
    "unknown field": '[{"url": "http://a/", "evil": 1}]', "deep": "[" * 100_000,
    "deep and closed": "[" * 9999 + "]" * 9999,
    "deep in meta": '[{"url": "http://a/", "meta": ' + "[" * 9999 + "]" * 9999 + "}]",
    "a long number": "[" + "9" * 5000 + "]", "surrogate": '["http://a/\\ud800"]', "a truncated JSON": '["http://a/", ',
    "class unknown": '[{"url": "http://a/", "_class": "os.system"}]',
    "class not imported": '[{"url": "http://a/", "_class": "wsgiref.simple_server.WSGIServer"}]',
    "class is a list": '[{"url": "http://a/", "_class": ["scrapy.Request"]}]',
    "callback unknown": '[{"url": "http://a/", "callback": "gone"}]',
    "callback is no method": '[{"url": "http://a/", "callback": "attribute"}]',
    "callback is the class": '[{"url": "http://a/", "callback": "__class__"}]',
    "callback is the dict": '[{"url": "http://a/", "callback": "__dict__"}]',
    "callback is a list": '[{"url": "http://a/", "callback": ["own"]}]',
    "callback is dotted": '[{"url": "http://a/", "callback": "own.__func__"}]',
    "errback unknown": '[{"url": "http://a/", "errback": "gone"}]',
    "errback is the class": '[{"url": "http://a/", "errback": "__class__"}]',
    "encoding unknown": '[{"url": "http://a/?\\u00fc", "encoding": "no-such-code"}]',
    "encoding is no text codec": '[{"url": "http://a/?\\u00fc", "encoding": "zlib_codec"}]',
    "encoding is a number": '[{"url": "http://a/", "encoding": 1, "body": "a"}]',
    "priority": '[{"url": "http://a/", "priority": "1"}]', "body": '[{"url": "http://a/", "body": [1]}]',
    "body not Latin-1": '[{"url": "http://a/", "body": "\\u20ac"}]',
    "headers is a list": '[{"url": "http://a/", "headers": [1]}]',
    "headers is null": '[{"url": "http://a/", "headers": null}]',
    "header is a number": '[{"url": "http://a/", "headers": {"A": 1}}]',
    "meta is a list": '[{"url": "http://a/", "meta": [1]}]', "meta is a number": '[{"url": "http://a/", "meta": 1}]',
    "cb_kwargs is a number": '[{"url": "http://a/", "cb_kwargs": 1}]',
    "flags is a number": '[{"url": "http://a/", "flags": 1}]',
    "prefix alone": PREFIX, "no base85": PREFIX + "\x7f\x7f\x7f", "no ASCII": PREFIX + "ü", "no zlib": PREFIX + "abcde",
    "an overflow of base85": PREFIX + "~~~~~", "truncated": GOOD[:-5], "truncated in a group": GOOD[:-3],
    "packed rubbish": packed(b"rubbish"), "packed not UTF-8": packed(b"\xff\xfe"), "packed nothing": packed(b""),
}  # fmt: skip
BOMBS: dict[str, tuple[bytes, int]] = {"a bomb": (b" ", 100_000_000), "a deep bomb": (b"[", 60_000_000)}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_value_is_refused(value: Any) -> None:
    refused(value)


@pytest.mark.parametrize(("what", "times"), BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_refused(what: bytes, times: int) -> None:
    refused(packed(b"[" + what * times))


def refused(value: Any) -> None:
    modules = set(sys.modules)
    began = time.process_time()
    with pytest.raises(WireError) as caught:
        decode_requests(value, PLAIN)
    assert time.process_time() - began < 2
    assert START_URL in str(caught.value)
    assert len(str(caught.value)) < 500
    assert {name for name in set(sys.modules) - modules if not name.startswith("encodings")} == set()


def test_every_truncated_payload_is_refused() -> None:
    for end in range(len(GOOD)):
        with pytest.raises(WireError):
            decode_requests(GOOD[:end], PLAIN)


@given(
    st.text(max_size=50)
    | st.text(max_size=50).map(lambda text: PREFIX + text)
    | st.binary(max_size=50).map(lambda data: PREFIX + base64.b85encode(data).decode())
    | st.binary(max_size=50).map(packed)
    | json_values.map(lambda value: json.dumps([value]))
)
def test_a_fuzzed_value_is_decoded_or_refused(value: str) -> None:
    try:
        requests = decode_requests(value, PLAIN)
    except WireError:
        return
    assert all(isinstance(request, Request) for request in requests)


@given(
    st.dictionaries(
        st.sampled_from([*Request.attributes, "_class", "data", "__class__"]),
        json_values | st.sampled_from(["parse", "attribute", "__init__", "scrapy.Request", "http://a/", "utf-7"]),
        max_size=4,
    ),
    st.booleans(),
)
def test_a_fuzzed_request_is_decoded_or_refused(element: dict[str, Any], with_url: bool) -> None:
    element |= {"url": "http://a/?\xfc"} if with_url else {}
    try:
        (request,) = decode_requests(json.dumps([element]), PLAIN)
    except WireError:
        return
    assert isinstance(request, Request)


class Render(Request):
    """A request of a plugin: its own attribute is true unless it says otherwise."""

    attributes = (*Request.attributes, "render")

    def __init__(self, *args: Any, render: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.render = render


@pytest.mark.parametrize("render", [True, False])
def test_an_attribute_of_a_subclass_that_is_false(render: bool) -> None:
    value = encode_payload([encode_request(Render("http://a/", render=render), PLAIN)])
    (request,) = decode_requests(value, PLAIN)
    assert isinstance(request, Render)
    assert request.render is render

"""A batch from anywhere, as a worker is given one: refused in clear words, or decoded; nothing of it is run."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hostile import TRAP, Raising, characters, element, is_fit_to_print, json_values, packed, ran
from hypothesis import given, settings
from hypothesis import strategies as st
from scrapy import Request, Spider
from scrapy.http import JsonRequest

from scrapy_distributed.errors import NotSerializableError, WireError
from scrapy_distributed.wire.payload import MAX_JSON_BYTES, decode_payload
from scrapy_distributed.wire.request import decode_requests, encode_request


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


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
    "the class of an attribute": (element(_class="hostile.Trap"), "no Request class"),
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


@settings(derandomize=True, max_examples=3 * settings.default.max_examples)
@given(
    st.sampled_from([PLAIN_VALUE, PACKED_VALUE]), st.integers(0, len(PLAIN_VALUE)), st.integers(0, 4),
    st.text(characters, max_size=4) | st.sampled_from(list('[]{}",:\\0')),
)  # fmt: skip
def test_a_mutated_batch_is_decoded_or_refused(value: str, start: int, length: int, new: str) -> None:
    is_decoded_or_refused(value[:start] + new + value[start + length :])


@settings(derandomize=True, max_examples=3 * settings.default.max_examples)
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


def test_a_batch_that_is_packed_by_hand_may_be_utf_8() -> None:
    (arrived,) = decode_requests(packed('["http://a/\u00fc"]'.encode()), TRAP)
    assert arrived.url == "http://a/%C3%BC"


def test_the_ceiling_of_a_batch_is_the_ceiling_of_a_worker() -> None:
    """What a coordinator may send a worker unpacks."""
    assert len(decode_payload(packed(b'["' + b"x" * (MAX_JSON_BYTES - 4) + b'"]'))) == 1
    with pytest.raises(WireError, match="larger than"):
        decode_payload(packed(b'["' + b"x" * (MAX_JSON_BYTES + 2048) + b'"]'))

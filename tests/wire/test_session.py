"""Cookies arrive as they left, each set of them once a batch; what is no cookie is refused, and none is shown."""

from __future__ import annotations

import json
import math
import random
from http.cookiejar import Cookie
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scrapy import Request, Selector, Spider

from scrapy_distributed.errors import NotSerializableError, TooLargeError, WireError
from scrapy_distributed.wire.payload import (
    MAX_VALUE_BYTES,
    check_size,
    decode_batch,
    decode_payload,
    encode_payload,
    fits,
    split,
)
from scrapy_distributed.wire.request import decode_requests, encode_request
from scrapy_distributed.wire.session import (
    MAX_SESSION,
    Session,
    decode_session,
    encode_session,
    in_session,
    session_of,
    sessions_of,
    with_session,
)

SPIDER = Spider(name="s")
USUAL: dict[str, Any] = {
    "version": 0, "name": "sid", "value": "secret", "port": None, "port_specified": False, "domain": "a.example",
    "domain_specified": False, "domain_initial_dot": False, "path": "/", "path_specified": False, "secure": False,
    "expires": None, "discard": True, "comment": None, "comment_url": None, "rest": {},
}  # fmt: skip


def cookie(**values: Any) -> Cookie:
    return Cookie(**(USUAL | values))


texts = st.text(max_size=5)
flags = st.booleans()
cookies = st.builds(
    cookie, name=texts, value=st.none() | texts, domain=texts, path=texts, secure=flags, domain_initial_dot=flags,
    expires=st.none() | st.integers(0, 2**60), discard=flags, version=st.none() | st.integers(0, 2), port=texts,
    domain_specified=flags, path_specified=flags, port_specified=flags, comment=st.none() | texts, rfc2109=flags,
    rest=st.dictionaries(texts, st.none() | texts, max_size=2),
)  # fmt: skip
jars = st.none() | texts | st.integers() | flags


@given(jars, st.lists(cookies, max_size=3))
def test_cookies_arrive_as_they_left(jar: Any, sent: list[Cookie]) -> None:
    session = encode_session(jar, sent)
    key, arrived = decode_session(json.loads(session.text))
    assert (type(key), key) == (type(jar), jar)
    assert [vars(one) for one in arrived] == [vars(one) for one in sent]
    assert session.text.isascii()
    assert encode_session(jar, arrived) == session


def test_what_is_usual_takes_no_place_and_a_flag_by_hand_is_one() -> None:
    assert encode_session(None, [cookie()]).text == '[null,[{"name":"sid","value":"secret","domain":"a.example"}]]'
    assert '"secure":true' in encode_session(None, [cookie(secure=1, discard=1)]).text


@pytest.mark.parametrize("jar", [(1,), b"a", object()])
def test_the_key_of_a_jar_that_json_would_change_does_not_travel(jar: Any) -> None:
    with pytest.raises(NotSerializableError, match="meta\\['cookiejar'\\] is a"):
        encode_session(jar, [cookie()])


@pytest.mark.parametrize(
    "values", [{"value": b"secret"}, {"comment": ["secret"]}, {"rest": {"a": object()}}, {"rest": {"a": math.nan}}]
)
def test_a_cookie_that_json_does_not_know_does_not_travel(values: dict[str, Any]) -> None:
    with pytest.raises(NotSerializableError) as caught:
        encode_session(None, [cookie(**values)])
    assert "secret" not in str(caught.value)


def test_the_ceiling() -> None:
    with pytest.raises(TooLargeError, match=f"those of a request may have {MAX_SESSION:,}"):
        encode_session(None, [cookie(value="a" * MAX_SESSION)])


# With requests

A, B = (encode_session(jar, [cookie(value=value)]) for jar, value in ((None, "1"), ("b", "2")))
BODIES = [
    encode_request(request, SPIDER)
    for request in (Request("http://a/1"), Request("http://a/2", meta={"_session": "0" * 16}), Request("http://a/3"))
]


@pytest.mark.parametrize("body", BODIES)
def test_a_request_names_its_session_and_stays_what_it_is(body: str) -> None:
    assert session_of(body) is None
    named = with_session(body, A.id)
    assert session_of(named) == A.id
    assert session_of(json.dumps(json.loads(named), separators=(",", ":"))) == A.id
    assert in_session(named, B.id) == with_session(body, B.id)
    (before,), (after,) = (decode_requests(f"[{text}]", SPIDER) for text in (body, named))
    assert (before.to_dict(), before.meta) == (after.to_dict(), after.meta)


@given(st.dictionaries(texts | st.just("_session"), texts | st.just("0" * 16), max_size=3), st.text(max_size=20))
def test_only_a_session_is_taken_for_one(meta: dict[str, str], path: str) -> None:
    body = encode_request(Request(f'http://a/{path}","_session":"{A.id}"', meta=meta), SPIDER)
    assert session_of(body) is None


def test_each_session_once_a_batch_and_none_where_there_is_none() -> None:
    bodies = [with_session(BODIES[0], A.id), BODIES[1], with_session(BODIES[2], A.id)]
    assert list(sessions_of(bodies)) == [A.id]
    payload = encode_payload(bodies, {A.id: A.text})
    assert payload.count('"sid"') == 1
    elements, sessions = decode_batch(payload)
    assert [json.dumps(element, separators=(",", ":")) for element in elements] == bodies
    assert decode_session(sessions[A.id])[0] is None
    assert encode_payload(BODIES, {}) == f"[{','.join(BODIES)}]"
    assert decode_batch(encode_payload(BODIES)) == (decode_payload(encode_payload(BODIES)), {})


def test_a_batch_is_split_with_the_sessions_of_each_part() -> None:
    """Each request has a jar of its own."""
    noise = random.Random(1)
    sessions = [encode_session(jar, [cookie(value=f"{noise.getrandbits(8000):x}")]) for jar in range(200)]
    texts = {session.id: session.text for session in sessions}
    bodies = [with_session(f'"http://a/{number}"', session.id) for number, session in enumerate(sessions)]
    arrived: list[Any] = []
    parts = list(split(bodies, texts))
    assert len(parts) > 1
    for part, payload in parts:
        elements, found = decode_batch(payload)
        assert fits(payload)
        assert list(found) == [element["_session"] for element in elements] == [session_of(body) for body in part]
        assert [json.dumps(one, separators=(",", ":")) for one in found.values()] == [texts[id_] for id_ in found]
        arrived += elements
    assert len(arrived) == 200


NOISE = "".join(random.Random(3).choices([chr(code) for code in range(35, 91)], k=2 * MAX_VALUE_BYTES))


def test_a_request_that_passes_alone_passes_with_any_session() -> None:
    session = Session("0" * 16, json.dumps([None, [{"value": NOISE[-MAX_SESSION + 60 :].replace("\\", "")}]]))
    assert MAX_SESSION - 1000 < len(session.text) <= MAX_SESSION
    passes, too_long = 1, len(NOISE)
    while too_long - passes > 1:
        middle = (passes + too_long) // 2
        try:
            check_size(f'"{NOISE[:middle]}"', session=True)
            passes = middle
        except TooLargeError:
            too_long = middle
    ((_, payload),) = split([with_session(f'"{NOISE[:passes]}"', session.id)], {session.id: session.text})
    assert fits(payload)
    assert passes < too_long < len(NOISE)
    check_size(f'"{NOISE[:too_long]}"')


# From anywhere

GOOD: dict[str, Any] = {"name": "sid", "value": "secret", "domain": "a"}


@pytest.mark.parametrize(
    "value",
    [
        None, 1, "secret", {}, [], [None], [None, {}], [None, [], "secret"], [[], []], [{}, []], [None, ["secret"]],
        [None, [GOOD | {"secret": 1}]], [None, [GOOD | {"value": 1}]], [None, [GOOD | {"secure": 1}]],
        [None, [GOOD | {"expires": "secret"}]], [None, [GOOD | {"expires": True}]], [None, [GOOD | {"rest": []}]],
        [None, [GOOD | {"port_specified": True}]], [None, [GOOD | {"domain": None}]], [None, [GOOD | {"_rest": {}}]],
    ],
)  # fmt: skip
def test_what_is_no_session_is_refused_and_not_shown(value: Any) -> None:
    with pytest.raises(WireError, match="cookies of requests can't be read") as caught:
        decode_session(value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '{"sessions":{"0":[null,[{"value":"secret"}]]}}', '{"requests":[],"sessions":["secret"]}', '{"a":"secret"',
        '{"requests":{},"sessions":{}}', '{"requests":[],"sessions":{},"secret":1}', '{"sessions":{"a":"secret"}',
        '{"requests":[],"requests":[],"sessions":"secret"}', '{"secret":NaN}', "{" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_batch_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(WireError, match="an object that is no batch") as caught:
        decode_batch(text)
    assert "secret" not in str(caught.value)


def test_any_text_in_the_place_of_a_session_is_left_alone() -> None:
    """It is of the batch: the request has no such attribute."""
    (request,) = decode_requests([{"url": "http://a/", "_session": ["x"]}], SPIDER)
    assert request.to_dict() == Request("http://a/").to_dict()


def test_the_key_of_a_jar_may_be_the_text_of_a_link() -> None:
    key = Selector(text="<a>one</a>").xpath("//a/text()").getall()[0]
    raw = Selector(text="<a>one</a>").root.xpath("//a/text()")[0]
    for text in (key, raw):
        session = encode_session(text, [cookie()])
        assert session == encode_session("one", [cookie()])
        assert decode_session(json.loads(session.text))[0] == "one"

"""What nodes may answer: a value of its shape, or an error in clear words."""

from __future__ import annotations

import json
import time
from typing import Any, cast

import pytest
from hostile import SECRET, is_fit_to_print, json_values
from hypothesis import given, settings
from hypothesis import strategies as st
from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from scrapy_distributed.agent.post_mortem import cause_of_death
from scrapy_distributed.errors import ConfigError, NodeAmbiguousError, NodeError, NodeRefusedError
from scrapy_distributed.fleet import node as node_module
from scrapy_distributed.fleet.answer import Answer, parsed
from scrapy_distributed.fleet.node import Node, NodeAddress
from scrapy_distributed.fleet.versions import choose_version
from scrapy_distributed.words import last_line

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


@settings(derandomize=True, max_examples=settings.default.max_examples * 3 // 5)
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


def test_an_answer_of_many_values_is_refused_before_they_are_made() -> None:
    body = b'{"status":"ok","pending":[' + b"{}," * 2_000_000 + b"{}]}"
    began = time.process_time()
    with pytest.raises(NodeAmbiguousError, match=r"listjobs.json answered more than 600,000 values"):
        parsed("n", "http://n", "listjobs.json", 200, body)
    assert time.process_time() - began < 0.5


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

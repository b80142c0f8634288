"""One table of servers, kind and unkind: the lean handler gives what Scrapy's own gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from answering import ANSWERS, ANSWERS_TO_HEAD, SHORT, Server
from both_handlers import asynchronous, compare, path_of
from scrapy import Request

from scrapy_distributed.fast import http_connection


@pytest.mark.parametrize("name", ANSWERS)
@asynchronous
async def test_both_handlers_make_the_same_of_an_answer(name: str, server: Server) -> None:
    timeout = SHORT if "slow" in name or "without end" in name else 10.0
    request = Request(server.url + path_of(name), meta={"download_timeout": timeout})
    again = Request(server.url + "/sized", meta={"download_timeout": 10.0})
    outcomes = await compare(server, request, again)
    assert outcomes[1][1] == 200  # a bad answer spoils nothing
    EXPECTED.get(name, lambda found: None)(outcomes[0])


@pytest.mark.parametrize("name", ANSWERS_TO_HEAD)
@asynchronous
async def test_both_handlers_make_the_same_of_an_answer_to_head(name: str, server: Server) -> None:
    head = Request(server.url + path_of(name), method="HEAD")
    outcomes = await compare(server, head, Request(server.url + "/sized"))
    assert [found[1] for found in outcomes] == [{"nothing here": 204, "not modified": 304}.get(name, 200), 200]
    assert len(set(server.over)) == 1  # its connection goes on


def _is(*expected: Any) -> Callable[[tuple[Any, ...]], None]:
    def check(found: tuple[Any, ...]) -> None:
        assert found[: len(expected)] == expected

    return check


def _body(body: bytes, flags: list[str] | None = None) -> Callable[[tuple[Any, ...]], None]:
    def check(found: tuple[Any, ...]) -> None:
        assert (found[4], found[5]) == (body, flags or [])

    return check


EXPECTED: dict[str, Callable[[tuple[Any, ...]], None]] = {
    "chunked": _body(b"abcde"), "chunked byte by byte": _body(b"0123456789"), "interim": _body(b"after"),
    "until close": _body(b"all there is", ["partial"]), "new lines alone": _body(b"ab\r\n"),
    "too short": _is(http_connection.DataLoss), "no last chunk": _is(http_connection.DataLoss),
    "length written twice": _body(b"ab"), "bad length of chunks": _body(b"ab"), "chunked twice": _body(b"ab"),
    "chunk extension": _body(b"abc"), "new line in a chunk extension": _is(http_connection.DataLoss),
    "nul in a chunk extension": _is(http_connection.DataLoss), "another protocol": _is(http_connection.Failed),
    "a header that is none": _is(http_connection.Failed),
    "bad chunk": _is(http_connection.DataLoss), "not http": _is(http_connection.Failed),
    "two lengths": _is(http_connection.Failed), "long line": _is(http_connection.Failed),
    "nothing": _is(http_connection.NeverReceived), "slow head": _is(http_connection.Timeout),
    "slow body": _is(http_connection.Timeout), "too much": _body(b"abc"),
}  # fmt: skip

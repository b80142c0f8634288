"""Answers kind and unkind: the lean handler gives what Scrapy's own gives, but for one table of differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from answering import ANSWERS, ANSWERS_TO_HEAD, CHUNKED, OK, OLD, SHORT, Server, sized
from both_handlers import Both, asynchronous, compare, outcome, path_of
from scrapy import Request, signals

from scrapy_distributed.fast import http_connection

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


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


# Where they differ


GET = Request("http://x")


@dataclass(kw_only=True)
class Seen:
    """One exchange: its outcome, the names of the headers that were sent, in order, and how many bytes each signal
    ``bytes_received`` had."""

    found: tuple[Any, ...]
    names: list[str]
    pieces: list[int]


def said(seen: Seen) -> str:
    """The outcome in the words of the table."""
    words = {
        http_connection.DataLoss: "data loss", http_connection.Failed: "failed", http_connection.Timeout: "timed out",
        http_connection.Cancelled: "too large", UnicodeDecodeError: "`UnicodeDecodeError`",
    }  # fmt: skip
    return words.get(seen.found[0], "taken")


def told(words: str) -> str:
    """*words* as they can be told apart: Scrapy 2.14 has one exception for both."""
    return "failed" if words == "data loss" and http_connection.DataLoss is http_connection.Failed else words


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A row of the README's table: a *case*, what Scrapy's handler makes of it, and what the lean one.

    *say* makes these words of what is seen, with each of *answers* to *request*."""

    case: str
    scrapys: str
    lean: str
    answers: Sequence[bytes] = (sized(b"x"),)
    request: Request = GET
    say: Callable[[Seen], str] = said
    old: bool = False  # of Scrapy 2.14 alone


def with_first_line(line: bytes) -> bytes:
    return sized(b"x", line + b"\r\n")


def with_chunk_size(line: bytes) -> bytes:
    return CHUNKED + line + b"\r\nabc\r\n0\r\n\r\n"


def with_length(value: bytes) -> bytes:
    return OK + b"Content-Length: " + value + b"\r\n\r\nx"


DIFFERENCES = [
    Difference(
        case="status that is not of three digits: `20`, `2000`, `+200`, `2_00`",
        scrapys="taken",
        lean="failed",
        answers=[with_first_line(b"HTTP/1.1 " + status + b" OK") for status in (b"20", b"2000", b"+200", b"2_00")],
    ),
    Difference(
        case="version without a name, or with more than digits in its numbers: `/1.1`, `HTTP/+1.1`, `HTTP/1.1_0`",
        scrapys="taken",
        lean="failed",
        answers=[with_first_line(version + b" 200 OK") for version in (b"/1.1", b"HTTP/+1.1", b"HTTP/1.1_0")],
    ),
    Difference(
        case="zeros before a number of the version",
        scrapys="`response.protocol` is `HTTP/1.1`",
        lean="`response.protocol` is `HTTP/01.1`",
        answers=[with_first_line(b"HTTP/01.1 200 OK")],
        say=lambda seen: f"`response.protocol` is `{seen.found[6]}`",
    ),
    Difference(
        case="bytes beyond ASCII in the version",
        scrapys="`UnicodeDecodeError`",
        lean="taken",
        answers=[with_first_line(b"HTT\xe9/1.1 200 OK")],
    ),
    Difference(
        case="folded line with no header before it",
        scrapys="failed",
        lean="taken",
        answers=[with_first_line(b"HTTP/1.1 200 OK\r\n X: 1"), with_first_line(b"HTTP/1.1 200 OK\r\nnone\r\n X: 1")],
    ),
    Difference(
        case="blanks at the end of a header's line that a folded one follows",
        scrapys="in the value",
        lean="dropped",
        answers=[sized(b"x", OK + b"X: a   \r\n b\r\n")],
        say=lambda seen: {b"a    b": "in the value", b"a b": "dropped"}[seen.found[3][b"X"][0]],
    ),
    Difference(
        case="line that no head can have, and nothing after it",
        scrapys="timed out",
        lean="failed",
        answers=[OK + b"X Y: 1\r\n"],
    ),
    Difference(
        case="more than 128 KiB of headers",
        scrapys="taken",
        lean="failed",
        answers=[sized(b"x", OK + b"X: y\r\n" * count) for count in (22_000, 80_000)],
    ),
    Difference(
        case="`Content-Length` of 19 digits or more that is not too large",
        scrapys="taken",
        lean="failed",
        answers=[with_length(b"1".zfill(19))],
    ),
    Difference(
        case="`Content-Length` of 19 digits or more that is larger than `DOWNLOAD_MAXSIZE`",
        scrapys="too large",
        lean="failed",
        answers=[with_length(b"9" * 19)],
    ),
    Difference(
        case="blank after the size of a chunk",
        scrapys="data loss",
        lean="taken",
        answers=[with_chunk_size(line) for line in (b"3 ", b"3\t", b"3 ;a=b")],
    ),
    Difference(
        case="size of a chunk in 17 digits or more",
        scrapys="taken",
        lean="data loss",
        answers=[with_chunk_size(b"3".zfill(17))],
    ),
    Difference(
        case="chunks that come together",
        scrapys="a signal `bytes_received` for each",
        lean="one for all",
        answers=[CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"],
        say=lambda seen: {2: "a signal `bytes_received` for each", 1: "one for all"}[len(seen.pieces)],
    ),
    Difference(
        case="order of the headers that are sent",
        scrapys="`Content-Length` first, `Host` last",
        lean="`Host` first, `Content-Length` last",
        request=Request("http://x", method="POST", body=b"x", headers={"Accept": "a"}),
        say=lambda seen: f"`{seen.names[0]}` first, `{seen.names[-1]}` last",
    ),
    Difference(
        case="names of headers that are sent",
        scrapys="`Content-MD5`, `DNT`, `ETag`, `WWW-Authenticate`, `X-XSS-Protection`",
        lean="`Content-Md5`, `Dnt`, `Etag`, `Www-Authenticate`, `X-Xss-Protection`",
        request=Request("http://x", headers=dict.fromkeys(
            ("Content-MD5", "DNT", "ETag", "WWW-Authenticate", "X-XSS-Protection"), "x"
        )),
        say=lambda seen: ", ".join(f"`{name}`" for name in sorted(seen.names) if name != "Host"),
    ),
    Difference(
        case="Scrapy 2.14: line of a head without a colon",
        scrapys="failed",
        lean="taken",
        answers=[sized(b"x", OK + b"none\r\n")],
        old=True,
    ),
    Difference(
        case="Scrapy 2.14: empty body",
        scrapys="no `response.ip_address`",
        lean="`response.ip_address` of the server",
        answers=[sized(b"")],
        say=lambda seen: {
            "None": "no `response.ip_address`", "127.0.0.1": "`response.ip_address` of the server"
        }[seen.found[7]],
        old=True,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    "difference", [one for one in DIFFERENCES if OLD or not one.old], ids=lambda difference: difference.case
)
@asynchronous
async def test_where_the_handlers_differ_each_does_what_the_table_says(difference: Difference, server: Server) -> None:
    both = Both()
    pieces: list[int] = []

    def receive(data: bytes) -> None:
        pieces.append(len(data))

    both.crawler.signals.connect(receive, signals.bytes_received)
    meta = {"download_timeout": SHORT if "timed out" in (difference.scrapys, difference.lean) else 10.0}
    for number, answer in enumerate(difference.answers):
        server.answers[str(number)] = [answer]
        request = difference.request.replace(url=f"{server.url}/{number}", meta=meta)
        for handler, words in ((both.stock, difference.scrapys), (both.lean, difference.lean)):
            pieces.clear()
            found = await outcome(handler, request.copy())
            assert difference.say(Seen(found=found, names=server.names[-1], pieces=pieces)) == told(words)
    await both.close()


def test_the_readme_has_each_difference_and_no_other() -> None:
    table = README.partition("\n| case | Scrapy's handler | a fast worker's |\n|---|---|---|\n")[2].partition("\n\n")[0]
    assert [line.strip("| ").split(" | ") for line in table.splitlines()] == [
        [difference.case, difference.scrapys, difference.lean] for difference in DIFFERENCES
    ]

"""The parser alone: what it makes of an answer does not depend on where the network has cut it."""

from __future__ import annotations

import pytest

from scrapy_distributed.fast.http_answer import Chunked, ParseError, Sized, UntilClose, check_lines, parse_head

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX: a\r\n b\r\n"
CHUNKS = b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"


def read(body: Sized | UntilClose | Chunked, *pieces: bytes) -> tuple[bytes, bytes, bool, bool]:
    """What is of the body, what is not, whether it is done and whether it is broken."""
    taken, rest = b"", b""
    for piece in pieces:
        if body.done or body.broken:
            rest += piece
            continue
        more, rest = body.feed(piece)
        taken += more
    return taken, rest, body.done, body.broken is not None


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (lambda: Sized(5), b"abcdeHTTP/1.1", (b"abcde", b"HTTP/1.1", True, False)),
        (UntilClose, b"abcde", (b"abcde", b"", False, False)),
        (Chunked, CHUNKS + b"HTTP/1.1", (b"abc0123456789", b"HTTP/1.1", True, False)),
        (Chunked, CHUNKS[:-2], (b"abc0123456789", b"", False, False)),
    ],
    ids=["sized", "until close", "chunked", "not at its end"],
)  # fmt: skip
def test_a_body_is_the_same_wherever_it_is_cut(
    kind: type[Chunked], data: bytes, expected: tuple[bytes, bytes, bool, bool]
) -> None:
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            assert read(kind(), data[:first], data[first:second], data[second:]) == expected


@pytest.mark.parametrize("data", [b"3\r\nabcd\r\n", b"zz\r\n", b"3 3\r\nabc\r\n", b"-3\r\n", b"\r\n", b"3;\x00\r\n"])
def test_a_broken_chunk_is_found_wherever_it_is_cut(data: bytes) -> None:
    for cut in range(len(data) + 1):
        assert read(Chunked(), data[:cut], data[cut:])[3]


@pytest.mark.parametrize("line", [b"X Y: 1", b": 1", b"X : 1", b"X\x00: 1", b"X: " + b"x" * 16_384])
def test_a_line_that_no_head_has_is_refused_before_the_head_ends(line: bytes) -> None:
    check_lines(HEAD[:-2], at_start=True)
    with pytest.raises(ParseError):
        check_lines(line, at_start=False)
    with pytest.raises(ParseError):
        parse_head(HEAD + line, "GET")


def test_the_head_says_how_the_body_ends() -> None:
    def body(lines: bytes, method: str = "GET") -> object:
        head = parse_head(HEAD + lines, method)
        assert head is not None
        assert head.headers[b"X"] == b"a b"
        return type(head.body), head.length, head.kept

    assert body(b"Content-Length: 3") == (Sized, 3, True)
    assert body(b"Content-Length: 3", "HEAD") == (Sized, 0, True)
    assert body(b"Transfer-Encoding: chunked") == (Chunked, None, True)
    assert body(b"Transfer-Encoding: chunked\r\nContent-Length: 3") == (Chunked, None, False)
    assert body(b"Connection: close\r\nContent-Length: 3") == (Sized, 3, False)
    assert body(b"Y: 1") == (UntilClose, None, False)
    assert parse_head(b"HTTP/1.1 103 Early Hints\r\nLink: </a>", "GET") is None

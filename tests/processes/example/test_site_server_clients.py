"""What clients can't do to the example's site."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from crawling import SiteChild, site, wait_for
from http_messages import MAX_BODY_BYTES, MAX_HEAD_BYTES


@pytest.fixture(scope="module")
def running() -> Iterator[SiteChild]:
    with site(31) as child:
        yield child


def connect(child: SiteChild) -> socket.socket:
    host, port = child.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def all_of(line: socket.socket) -> bytes:
    """What comes until the server closes the connection, or resets it after its answer."""
    received = b""
    while chunk := line.recv(65536):
        received += chunk
    return received


def memory(child: SiteChild) -> int:
    """Bytes that the server takes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{child.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def processor_seconds(child: SiteChild) -> float:
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_answers(child: SiteChild) -> None:
    with connect(child) as line:
        line.sendall(b"GET /property_000000.html HTTP/1.1\r\n\r\n")
        assert line.recv(20).startswith(b"HTTP/1.1 200 OK")


def headers(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in ("GET /echo HTTP/1.1", *lines, "")).encode()


LENGTHS = ["-55", "-1", "+5", "", "5 5", "5, 5", "0x5", "1_0", "5.0", "1e1", "\u0665", "999999999", "0" * 9]


@pytest.mark.parametrize(
    ("request_", "status", "found"),
    [
        *((headers(f"Content-Length: {text}"), 400, "found Content-Length") for text in LENGTHS),
        (headers("Content-Length: 5", "Content-Length: 6"), 400, "found Content-Length more than once"),
        (headers(f"Content-Length: {MAX_BODY_BYTES + 1}"), 413, f"expected {MAX_BODY_BYTES} at most"),
        (headers("Transfer-Encoding: chunked"), 411, "expected a Content-Length"),
        (headers(f"A: {'x' * MAX_HEAD_BYTES}"), 431, f"a head of more than {MAX_HEAD_BYTES} bytes"),
        (b"\x16\x03\x01\r\n\r\n", 400, "found the request line '\\x16"),
        (b"GET / HTTP/2\r\n\r\n", 400, "found the request line 'GET / HTTP/2'"),
        (b"\r\n\r\n\r\n", 400, "found the request line ''"),
    ],
    ids=lambda value: ascii(value[20:45]) if isinstance(value, bytes) else "",
)
def test_what_is_no_request_is_refused_in_words(running: SiteChild, request_: bytes, status: int, found: str) -> None:
    """And the connection is closed, so that nothing of it is taken for the next request."""
    with connect(running) as line:
        line.sendall(request_)
        head, _, body = all_of(line).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close" in head
    assert found in body.decode()
    assert_answers(running)


def test_a_head_without_end(running: SiteChild) -> None:
    """It is refused at the limit, and its sender can read that although it has sent more."""
    before, used = memory(running), processor_seconds(running)
    with connect(running) as line:
        line.sendall(b"GET / HTTP/1.1\r\nA: " + bytes(MAX_HEAD_BYTES // 2))
        for _ in range(MAX_HEAD_BYTES // 2):
            line.sendall(b"x")
        line.sendall(bytes(8 * MAX_HEAD_BYTES))
        assert all_of(line).startswith(b"HTTP/1.1 431 ")
    assert memory(running) - before < 4 * 1024 * 1024
    assert processor_seconds(running) - used < 5
    assert_answers(running)


def test_a_request_in_pieces(running: SiteChild) -> None:
    sent = headers("Content-Length: 300", "B: c") + b"x" * 300
    with connect(running) as line:
        for index in range(len(sent)):
            line.sendall(sent[index : index + 1])
        large = headers("Content-Length: 0", f"A: {'x' * (MAX_HEAD_BYTES - 100)}")
        line.sendall(large * 2 + headers("Content-Length: x"))
        received = all_of(line)
    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert b'"body": "' + b"x" * 300 in received
    assert received.count(b"HTTP/1.1 400 ") == 1


def test_many_requests_at_once_do_not_keep_others_waiting() -> None:
    """All of them are answered, in their order, and one of another client in between."""
    count = 100
    with site(200_000) as child, connect(child) as line:
        began = time.monotonic()
        for _ in range(count):
            line.sendall(b"GET /stats.json HTTP/1.1\r\n\r\n")
        assert_answers(child)
        waited = time.monotonic() - began
        line.sendall(headers("Content-Length: x"))
        received = all_of(line)
        assert waited < (time.monotonic() - began) / 3
    asked = [json.loads(body)["requests"] for body in re.findall(rb"{.*}", received)]
    assert len(asked) == count
    assert asked[0] == {}
    assert asked[-1] == {"property": 1}


def test_a_client_that_does_not_read_its_answers(running: SiteChild) -> None:
    """No more is read of it, so neither its requests nor their answers are kept."""
    before = memory(running)
    with connect(running) as line:
        line.settimeout(2)
        with pytest.raises(TimeoutError):
            line.sendall(b"GET /index_00000.html HTTP/1.1\r\n\r\n" * 2_000_000)
        assert memory(running) - before < 8 * 1024 * 1024
        assert_answers(running)
        used = processor_seconds(running)
        time.sleep(0.5)  # nothing is to be seen while it waits, so that it waits is what is measured
        assert processor_seconds(running) - used < 0.3
    wait_for(lambda: memory(running) - before < 8 * 1024 * 1024)


def test_a_redirect_to_any_text(running: SiteChild) -> None:
    with connect(running) as line:
        line.sendall(b"GET /redirect?to=http://a/%E2%82%AC%0d%0aX:1%20?b=%25c#d HTTP/1.1\r\n\r\nx\r\n\r\n")
        assert b"\r\nLocation: http://a/%E2%82%AC%0D%0AX:1%20?b=%c#d\r\n\r\n" in all_of(line)

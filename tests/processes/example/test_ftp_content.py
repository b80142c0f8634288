"""What the example's FTP server finds in a file before it lands it, and who has to wait meanwhile."""

from __future__ import annotations

import ftplib
import time
from collections.abc import Callable

import pytest
from crawling import wait_for
from ftp_child import FtpChild
from ftp_clients import (
    LINE,
    LINES,
    Upload,
    abort,
    assert_set_aside,
    client,
    close_both,
    opened,
    say_quit,
    upload,
    zipped,
)
from landing import END_BYTES, HARMLESS_BYTES


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("1.jl", LINES[:-1], "as last line"),
        ("1.jl", LINES[:-10], "as last line"),
        ("1.jl", LINES[:-10] + b"\n\n", "as last line"),
        ("1.jl", LINE + bytes(100), "as last line"),
        ("1.jl", b"\xef\xbb\xbf" + LINE[:-10], "as last line"),
        ("1.jsonl", b"title,price\r\n", "as last line"),
        ("1.jl", b"17\n", "as last line"),
        ("1.jl", b"\xff\n", "as last line"),
        ("1.jl", b"[" * 100_000 + b"\n", "as last line"),
        ("1.jl.gz", zipped(LINES)[:-1], "cut off or damaged"),
        ("1.jl.gz", zipped(LINES)[:-9], "cut off or damaged"),
        ("1.jl.gz", zipped(LINES)[:5], "cut off or damaged"),
        ("1.csv.gz", zipped(LINES)[:-9], "cut off or damaged"),
        ("1.csv.gz", zipped(LINES)[:-8] + bytes(8), "cut off or damaged"),
        ("1.jl.gz", zipped(LINES[:-10]), "as last line"),
        ("1.jl", LINE + b'{"a": "' + b"x" * 3 * END_BYTES, "as last line"),
        ("1.jl", LINE + b'{"a": "' + b"x" * 3 * END_BYTES + b"\n", "as last line"),
        ("1.jl", LINE + b'{"a": "' + b"x" * 3 * END_BYTES + b'"}', "as last line"),
        ("1.jl.gz", zipped(LINES * 3 + LINE[:-10]), "as last line"),
        ("1.jl.gz", zipped(LINES) * 2 + zipped(LINES)[:-1], "cut off or damaged"),
        ("1.jl.gz", zipped(LINES) + b"more", "cut off or damaged"),
        ("1.jl.gz", zipped(LINES) + zipped(LINES)[:1], "cut off or damaged"),
        ("1.jl.gz", zipped(LINES) + bytes(50_000) + zipped(LINES)[:-1], "cut off or damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_content_that_shows_a_cut_does_not_land(server: FtpChild, name: str, content: bytes, found: str) -> None:
    with pytest.raises(ftplib.error_perm, match=rf"^554 .*{found}"):
        upload(server, name, content)
    assert assert_set_aside(server, name, "damaged").read_bytes() == content


@pytest.mark.parametrize("name", ["1.jl.gz", "1.csv", "1.jl"])
def test_a_gzip_file_that_holds_far_more_than_a_feed_is_refused(server: FtpChild, name: str) -> None:
    """Before much of it is unpacked, and nothing is left of it."""
    half = zipped(bytes(HARMLESS_BYTES // 2 + 1))
    with pytest.raises(
        ftplib.error_perm, match=r"^554 .* holds more than 67,108,864 bytes, expected at most 100 times"
    ):
        upload(server, name, half * 2)
    assert server.landed() == list(server.staging.iterdir()) == []
    assert "removed 1." in server.log
    assert upload(server, name, zipped(LINES)).startswith("226")


MEMBERS = zipped(b"") * 500_000 + zipped(LINES)
"""As a feed whole and small, and it takes seconds to look at."""


def test_other_clients_are_served_while_a_file_is_examined(server: FtpChild) -> None:
    with client(server) as other, Upload(server, "1.jl.gz") as one:
        one.data.sendall(MEMBERS)
        one.data.close()
        wait_for(lambda: len(opened(server)) > 1)
        began = time.monotonic()
        assert other.sendcmd("NOOP").startswith("200")
        assert time.monotonic() - began < 1
        assert upload(server, "2.jl", LINES).startswith("226")
        assert server.landed() == ["2.jl"]
        wait_for(lambda: server.landed() == ["1.jl.gz", "2.jl"])
        assert one.ftp.voidresp().startswith("226")


@pytest.mark.parametrize("cut", [close_both, say_quit, abort])
def test_a_client_that_goes_while_its_file_is_examined(server: FtpChild, cut: Callable[[Upload], None]) -> None:
    with Upload(server, "1.jl.gz") as one:
        one.data.sendall(MEMBERS)
        one.data.close()
        wait_for(lambda: len(opened(server)) > 1)
        cut(one)
        assert_set_aside(server, "1.jl.gz", "cut")


def test_a_server_that_ends_while_it_examines(server: FtpChild) -> None:
    with Upload(server, "1.jl.gz") as one:
        one.data.sendall(MEMBERS)
        one.data.close()
        wait_for(lambda: len(opened(server)) > 1)
        assert server.end() == 0
    assert [path.suffix for path in server.staging.iterdir()] == [".cut"]
    server.restart()

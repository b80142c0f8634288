"""The example's FTP server, with Python's ftplib and Scrapy's feed storage as its clients."""

from __future__ import annotations

import ftplib
import gzip
import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from crawling import wait_for
from file_limit import file_limit
from ftp_child import FtpChild
from ftp_clients import (
    BROKEN_OFF,
    LINE,
    LINES,
    Upload,
    abort,
    arrives,
    assert_set_aside,
    client,
    close_both,
    say_quit,
    upload,
    watched,
    zipped,
)
from landing import END_BYTES, HARMLESS_BYTES


@pytest.mark.parametrize("verb", ["STOR", "APPE"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("1_distr_2026-11-21T20-00-00+00-00.jl", LINES),
        ("empty.jl", b""),
        ("1.2_distr.jl.gz", zipped(LINES)),
        ("zipped.jl", zipped(LINE)),
        ("table.csv", b"title,price\r\nflat,1"),
        ("é ü.jsonl", LINE),
        ("latin.jl", '{"title": "é"}\n'.encode("latin-1")),
        ("blank.jl", LINE + b"\n \r\n  "),
        ("blank.jl.gz", zipped(LINE + b"\n")),
        ("signed.jl", b"".join(f"{text}\n".encode("utf-8-sig") for text in ('{"a": 1}', '{"b": 2}'))),
        ("signed.jsonl", b"\xef\xbb\xbf" + LINE),
        ("wide.jl", b"".join(f"{text}\n".encode("utf-16") for text in ('{"a": 1}', '{"b": 2}'))),
        ("wide.jl.gz", zipped('{"a": 1}\n'.encode("utf-16-le"))),
        ("long.jl", b'{"a": "' + b"x" * 3 * END_BYTES + b'"}\n'),
        ("two.jl", LINE * 2 + b'{"a": "' + b"x" * 3 * END_BYTES + b'"}\n' + LINE),
        ("long.jl.gz", zipped(LINE + b'{"a": "' + b"x" * 3 * END_BYTES + b'"}\n')),
        ("blanks.jl", LINE + b"\n" * 2 * END_BYTES),
        ("many.jl.gz", zipped(LINES) * 20),
        ("filled.jl.gz", zipped(LINES) + bytes(50_000) + zipped(LINE) + bytes(700)),
        ("hardly.jl.gz", zipped(b"\n" * HARMLESS_BYTES)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_whole_upload_lands(server: FtpChild, name: str, content: bytes, verb: str) -> None:
    assert upload(server, name, content, verb).startswith("226")
    assert server.landed() == [name]
    assert (server.items / name).read_bytes() == content
    assert list(server.staging.iterdir()) == []
    assert server.log.count("\n") == 1
    assert f"landed {name}: {len(content):,} bytes" in server.log


def test_nothing_is_to_be_seen_while_it_arrives(server: FtpChild) -> None:
    with Upload(server, "1.jl") as one:
        one.data.sendall(LINES)
        arrives(server, len(LINES))
        assert server.landed() == []
        one.data.close()
        assert one.ftp.voidresp().startswith("226")
    assert (server.items / "1.jl").read_bytes() == LINES


def close_data_first(one: Upload) -> None:
    one.data.close()
    one.ftp.close()


def reset(one: Upload) -> None:
    """An end that is none: RST in place of FIN, and the client still waits for its answer."""
    one.data.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.data.close()
    with pytest.raises(ftplib.error_temp, match=BROKEN_OFF):
        one.ftp.voidresp()


@pytest.mark.parametrize("name", ["1.jl", "1.csv"])
@pytest.mark.parametrize("cut", [close_both, close_data_first, say_quit, abort, reset])
def test_an_upload_that_is_cut_off_does_not_land(server: FtpChild, cut: Callable[[Upload], None], name: str) -> None:
    """Although what has come is whole lines."""
    with Upload(server, name) as one:
        one.data.sendall(LINES)
        arrives(server, len(LINES))
        cut(one)
        path = assert_set_aside(server, name, "cut")
    assert path.read_bytes() == LINES
    assert upload(server, name, LINES).startswith("226")


def test_an_upload_whose_data_never_comes(server: FtpChild) -> None:
    with Upload(server, "first.jl") as one:
        one.data.close()
        one.ftp.voidresp()
        one.ftp.makepasv()
        one.ftp.sendcmd("STOR 1.jl")
        with pytest.raises(ftplib.error_temp, match=BROKEN_OFF):
            one.ftp.sendcmd("PWD")
    assert server.landed() == ["first.jl"]
    assert [path.suffix for path in server.staging.iterdir()] == [".cut"]


@pytest.mark.parametrize("opened", [False, True])
def test_a_client_that_is_gone_when_it_is_to_hear_that_it_may_send(server: FtpChild, opened: bool) -> None:
    """The answer to NOOP tells the server so."""
    with client(server) as ftp:
        ftp.voidcmd("TYPE I")
        address = ftp.makepasv()
        data = socket.create_connection(address, timeout=10) if opened else None
        assert ftp.sock is not None
        ftp.sock.sendall(b"NOOP\r\nSTOR 1.jl\r\nPWD\r\nSTOR 2.jl\r\n")
        ftp.close()
        wait_for(lambda: list(server.staging.iterdir()))
        wait_for(lambda: not server.staged())
        if data:
            data.close()
    assert server.landed() == []
    assert "Traceback" not in server.log


SLOW_CLIENT = """
import ftplib, io, sys

class Slow(io.BytesIO):
    def read(self, size):
        block = super().read(size)
        if not block:
            print("sent", flush=True)
            sys.stdin.read()
        return block

ftp = ftplib.FTP()
ftp.connect("127.0.0.1", int(sys.argv[1]))
ftp.login()
ftp.storbinary("STOR 1.jl", Slow(sys.argv[2].encode() * 20_000))
"""


def test_a_client_that_is_killed_between_two_lines(server: FtpChild) -> None:
    """To the end of the data this is the same as a client that has sent all."""
    args = [sys.executable, "-c", SLOW_CLIENT, str(server.port), LINE.decode()]
    with subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sent\n"
        arrives(server, len(LINES))
        process.kill()
    assert assert_set_aside(server, "1.jl", "cut").read_bytes() == LINES


def test_a_server_that_was_busy_looks_again_before_it_lands_a_file(server: FtpChild) -> None:
    """It is stopped while it waits for a word on the control connection, and for longer than it wants to wait."""
    for number in range(20):  # one that is landed before it can be stopped proves nothing
        with Upload(server, f"{number}.jl") as one:
            before = watched(server)
            one.data.close()
            wait_for(lambda before=before: watched(server) < before)
            server.send(signal.SIGSTOP)
            stopped = bool(server.staged())
            one.ftp.close()
            time.sleep(0.3)  # as long as it would have waited, and more: nothing is to be seen from here
            server.send(signal.SIGCONT)
            if stopped:
                break
    wait_for(lambda: server.staged("cut"))
    assert f"{number}.jl" not in server.landed()


@pytest.mark.parametrize("verb", ["STOR", "APPE"])
def test_a_name_that_is_taken_is_refused_before_the_transfer(server: FtpChild, verb: str) -> None:
    upload(server, "1.jl", LINES)
    with client(server) as ftp, pytest.raises(ftplib.error_perm, match=r"^553 .* has landed before"):
        ftp.sendcmd(f"{verb} 1.jl")
    assert (server.items / "1.jl").read_bytes() == LINES
    assert list(server.staging.iterdir()) == []
    assert "refused '1.jl': a file of this name" in server.log


def test_of_two_at_once_the_first_to_end_lands_and_the_other_is_kept(server: FtpChild) -> None:
    with Upload(server, "1.jl") as one, Upload(server, "1.jl") as other:
        one.data.sendall(LINE)
        other.data.sendall(LINES)
        other.data.close()
        assert other.ftp.voidresp().startswith("226")
        one.data.close()
        with pytest.raises(ftplib.error_perm, match=r"^553 .* has landed meanwhile"):
            one.ftp.voidresp()
    assert (server.items / "1.jl").read_bytes() == LINES
    (kept,) = server.staged("taken")
    assert kept.read_bytes() == LINE
    assert f"set aside {kept.name}: " in server.log


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_that_ends_in_the_middle_and_starts_again(server: FtpChild, signum: int) -> None:
    upload(server, "0.jl", LINE)
    with Upload(server, "1.jl") as one:
        one.data.sendall(LINES)
        arrives(server, len(LINES))
        killed = signum == signal.SIGKILL
        assert server.end(signum) == (-signum if killed else 0)
        assert len(server.staged()) == (1 if killed else 0)
        server.restart()
        assert len(server.staged("left" if killed else "cut")) == 1
        assert server.landed() == ["0.jl"]
    assert upload(server, "1.jl", LINES).startswith("226")
    assert (server.items / "1.jl").read_bytes() == LINES


def test_a_disk_that_is_full(server: FtpChild) -> None:
    server.end()
    with file_limit(len(LINES) // 2):
        server.restart()
    with pytest.raises(ftplib.error_temp, match=r"^452 can't be stored: File too large"):
        upload(server, "1.jl", LINES)
    assert_set_aside(server, "1.jl", "cut")
    assert "can't be stored: File too large" in server.log
    server.end()
    server.restart()
    assert upload(server, "1.jl", LINES).startswith("226")


def test_a_server_that_was_killed_right_after_a_file_has_landed(server: FtpChild) -> None:
    upload(server, "1.jl", LINE)
    server.end(signal.SIGKILL)
    (server.staging / "1.jl.0123abcd.part").hardlink_to(server.items / "1.jl")
    server.restart()
    assert list(server.staging.iterdir()) == []
    assert (server.items / "1.jl").read_bytes() == LINE


CRAWL = """
import json
import sys

import scrapy
from scrapy.crawler import CrawlerProcess

class Items(scrapy.Spider):
    name = "items"

    async def start(self):
        for number in range(1000):
            yield {"number": number}

url, options = sys.argv[1:]
process = CrawlerProcess({"LOG_LEVEL": "INFO", "TELNETCONSOLE_ENABLED": False, "FEEDS": {url: json.loads(options)}})
crawler = process.create_crawler(Items)
process.crawl(crawler)
process.start()
print({key: value for key, value in crawler.stats.get_stats().items() if key.startswith("feedexport/")})
"""


def crawl(url: str, **options: object) -> str:
    """The stats of the feed of a crawl with 1,000 items."""
    args = [sys.executable, "-c", CRAWL, url, json.dumps({"format": "jsonlines", **options})]
    return subprocess.run(args, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize(
    ("name", "user", "options"),
    [
        ("%(name)s_%(time)s.jl", "", {}),
        ("%(name)s.jl", "anonymous@", {"overwrite": False}),
        ("%(name)s.jl.gz", "anonymous:x@", {"postprocessing": ["scrapy.extensions.postprocessing.GzipPlugin"]}),
    ],
)
def test_scrapy_stores_its_feed_once(server: FtpChild, name: str, user: str, options: dict[str, object]) -> None:
    url = f"{server.url.replace('//', f'//{user}')}/{name}"
    assert "'feedexport/success_count/FTPFeedStorage': 1" in crawl(url, **options)
    (path,) = server.items.iterdir()
    content = path.read_bytes()
    lines = (gzip.decompress(content) if options.get("postprocessing") else content).splitlines()
    assert len(lines) == 1000
    if "time" not in name:
        assert "'feedexport/failed_count/FTPFeedStorage': 1" in crawl(url, **options)
        assert path.read_bytes() == content


def test_scrapy_is_told_that_there_are_no_folders(server: FtpChild) -> None:
    assert "'feedexport/failed_count/FTPFeedStorage': 1" in crawl(f"{server.url}/a/b.jl")
    assert server.landed() == []
    assert "refused the folder '/a': there are none here" in server.log

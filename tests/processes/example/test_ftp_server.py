"""The example's FTP server, with Python's ftplib as its client."""

from __future__ import annotations

import ftplib
import gzip
import io
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from crawling import wait_for
from file_limit import file_limit
from ftp_child import PROGRAM, FtpChild
from landing import END_BYTES, HARMLESS_BYTES

LINE = b'{"title": "2 bed flat, pool", "price": 1000.0}\n'
LINES = LINE * 20_000
"""More than sockets hold: a client that is cut off in it has not sent all."""
SESSIONS, SESSIONS_OF_ADDRESS = 512, 256
"""Of the server, whose module can't be imported here: what it imports warns."""
BROKEN_OFF = r"^426 The upload was broken off"


def zipped(content: bytes) -> bytes:
    """Without the time, since content names tests, and pytest-xdist expects the same names of all its processes."""
    return gzip.compress(content, mtime=0)


@contextmanager
def client(landing: FtpChild) -> Iterator[ftplib.FTP]:
    with ftplib.FTP(timeout=10) as ftp:
        ftp.connect("127.0.0.1", landing.port)
        ftp.login()
        yield ftp


def upload(landing: FtpChild, name: str, content: bytes, verb: str = "STOR") -> str:
    with client(landing) as ftp:
        return ftp.storbinary(f"{verb} {name}", io.BytesIO(content))


class Upload:
    """One by hand: data goes and connections end when the test says so."""

    def __init__(self, landing: FtpChild, name: str) -> None:
        self.ftp = ftplib.FTP(timeout=10)
        self.ftp.connect("127.0.0.1", landing.port)
        self.ftp.login()
        self.ftp.voidcmd("TYPE I")
        self.data = self.ftp.transfercmd(f"STOR {name}")

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self.data.close()
        self.ftp.close()


def arrives(landing: FtpChild, size: int) -> None:
    """Wait until *size* bytes of one file are in the staging folder, but for what its writer has in its buffer."""
    wait_for(lambda: [path for path in landing.staged() if path.stat().st_size > size - io.DEFAULT_BUFFER_SIZE])


def assert_set_aside(landing: FtpChild, name: str, reason: str) -> Path:
    (path,) = wait_for(lambda: landing.staged(reason))
    assert path.name.startswith(f"{name}.")
    assert landing.staged() == []
    assert landing.landed() == []
    assert f"set aside {path.name}: " in landing.log
    return path


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
def test_a_whole_upload_lands(landing: FtpChild, name: str, content: bytes, verb: str) -> None:
    assert upload(landing, name, content, verb).startswith("226")
    assert landing.landed() == [name]
    assert (landing.items / name).read_bytes() == content
    assert list(landing.staging.iterdir()) == []
    assert landing.log.count("\n") == 1
    assert f"landed {name}: {len(content):,} bytes" in landing.log


def test_nothing_is_to_be_seen_while_it_arrives(landing: FtpChild) -> None:
    with Upload(landing, "1.jl") as one:
        one.data.sendall(LINES)
        arrives(landing, len(LINES))
        assert landing.landed() == []
        one.data.close()
        assert one.ftp.voidresp().startswith("226")
    assert (landing.items / "1.jl").read_bytes() == LINES


def close_both(one: Upload) -> None:
    one.ftp.close()
    one.data.close()


def close_data_first(one: Upload) -> None:
    one.data.close()
    one.ftp.close()


def say_quit(one: Upload) -> None:
    """As ftplib does, whatever the error, at the end of its with block."""
    one.data.close()
    with pytest.raises(ftplib.error_temp, match=BROKEN_OFF):
        one.ftp.sendcmd("QUIT")
    assert one.ftp.voidresp().startswith("221")


def abort(one: Upload) -> None:
    with pytest.raises(ftplib.error_temp, match=BROKEN_OFF):
        one.ftp.sendcmd("ABOR")
    assert one.ftp.voidresp().startswith("225")


def reset(one: Upload) -> None:
    """An end that is none: RST in place of FIN, and the client still waits for its answer."""
    one.data.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.data.close()
    with pytest.raises(ftplib.error_temp, match=BROKEN_OFF):
        one.ftp.voidresp()


@pytest.mark.parametrize("name", ["1.jl", "1.csv"])
@pytest.mark.parametrize("cut", [close_both, close_data_first, say_quit, abort, reset])
def test_an_upload_that_is_cut_off_does_not_land(landing: FtpChild, cut: Callable[[Upload], None], name: str) -> None:
    """Although what has come is whole lines."""
    with Upload(landing, name) as one:
        one.data.sendall(LINES)
        arrives(landing, len(LINES))
        cut(one)
        path = assert_set_aside(landing, name, "cut")
    assert path.read_bytes() == LINES
    assert upload(landing, name, LINES).startswith("226")


def test_an_upload_whose_data_never_comes(landing: FtpChild) -> None:
    with Upload(landing, "first.jl") as one:
        one.data.close()
        one.ftp.voidresp()
        one.ftp.makepasv()
        one.ftp.sendcmd("STOR 1.jl")
        with pytest.raises(ftplib.error_temp, match=BROKEN_OFF):
            one.ftp.sendcmd("PWD")
    assert landing.landed() == ["first.jl"]
    assert [path.suffix for path in landing.staging.iterdir()] == [".cut"]


@pytest.mark.parametrize("opened", [False, True])
def test_a_client_that_is_gone_when_it_is_to_hear_that_it_may_send(landing: FtpChild, opened: bool) -> None:
    """The answer to NOOP tells the server so."""
    with client(landing) as ftp:
        ftp.voidcmd("TYPE I")
        address = ftp.makepasv()
        data = socket.create_connection(address, timeout=10) if opened else None
        assert ftp.sock is not None
        ftp.sock.sendall(b"NOOP\r\nSTOR 1.jl\r\nPWD\r\nSTOR 2.jl\r\n")
        ftp.close()
        wait_for(lambda: list(landing.staging.iterdir()))
        wait_for(lambda: not landing.staged())
        if data:
            data.close()
    assert landing.landed() == []
    assert "Traceback" not in landing.log


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


def test_a_client_that_is_killed_between_two_lines(landing: FtpChild) -> None:
    """To the end of the data this is the same as a client that has sent all."""
    args = [sys.executable, "-c", SLOW_CLIENT, str(landing.port), LINE.decode()]
    with subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sent\n"
        arrives(landing, len(LINES))
        process.kill()
    assert assert_set_aside(landing, "1.jl", "cut").read_bytes() == LINES


def watched(landing: FtpChild) -> int:
    """How many sockets its loop looks at."""
    count = 0
    for path in Path(f"/proc/{landing.process.pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # it is no socket any more
            count += path.read_text().count("tfd:")
    return count


def test_a_server_that_was_busy_looks_again_before_it_lands_a_file(landing: FtpChild) -> None:
    """It is stopped while it waits for a word on the control connection, and for longer than it wants to wait."""
    for number in range(20):  # one that is landed before it can be stopped proves nothing
        with Upload(landing, f"{number}.jl") as one:
            before = watched(landing)
            one.data.close()
            wait_for(lambda before=before: watched(landing) < before)
            landing.send(signal.SIGSTOP)
            stopped = bool(landing.staged())
            one.ftp.close()
            time.sleep(0.3)  # as long as it would have waited, and more: nothing is to be seen from here
            landing.send(signal.SIGCONT)
            if stopped:
                break
    wait_for(lambda: landing.staged("cut"))
    assert f"{number}.jl" not in landing.landed()


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
def test_content_that_shows_a_cut_does_not_land(landing: FtpChild, name: str, content: bytes, found: str) -> None:
    with pytest.raises(ftplib.error_perm, match=rf"^554 .*{found}"):
        upload(landing, name, content)
    assert assert_set_aside(landing, name, "damaged").read_bytes() == content


@pytest.mark.parametrize("name", ["1.jl.gz", "1.csv", "1.jl"])
def test_a_gzip_file_that_holds_far_more_than_a_feed_is_refused(landing: FtpChild, name: str) -> None:
    """Before much of it is unpacked, and nothing is left of it."""
    half = zipped(bytes(HARMLESS_BYTES // 2 + 1))
    with pytest.raises(
        ftplib.error_perm, match=r"^554 .* holds more than 67,108,864 bytes, expected at most 100 times"
    ):
        upload(landing, name, half * 2)
    assert landing.landed() == list(landing.staging.iterdir()) == []
    assert "removed 1." in landing.log
    assert upload(landing, name, zipped(LINES)).startswith("226")


MEMBERS = zipped(b"") * 500_000 + zipped(LINES)
"""As a feed whole and small, and it takes seconds to look at."""


def test_other_clients_are_served_while_a_file_is_examined(landing: FtpChild) -> None:
    with client(landing) as other, Upload(landing, "1.jl.gz") as one:
        one.data.sendall(MEMBERS)
        one.data.close()
        wait_for(lambda: len(opened(landing)) > 1)
        began = time.monotonic()
        assert other.sendcmd("NOOP").startswith("200")
        assert time.monotonic() - began < 1
        assert upload(landing, "2.jl", LINES).startswith("226")
        assert landing.landed() == ["2.jl"]
        wait_for(lambda: landing.landed() == ["1.jl.gz", "2.jl"])
        assert one.ftp.voidresp().startswith("226")


@pytest.mark.parametrize("cut", [close_both, say_quit, abort])
def test_a_client_that_goes_while_its_file_is_examined(landing: FtpChild, cut: Callable[[Upload], None]) -> None:
    with Upload(landing, "1.jl.gz") as one:
        one.data.sendall(MEMBERS)
        one.data.close()
        wait_for(lambda: len(opened(landing)) > 1)
        cut(one)
        assert_set_aside(landing, "1.jl.gz", "cut")


def test_a_server_that_ends_while_it_examines(landing: FtpChild) -> None:
    with Upload(landing, "1.jl.gz") as one:
        one.data.sendall(MEMBERS)
        one.data.close()
        wait_for(lambda: len(opened(landing)) > 1)
        assert landing.end() == 0
    assert [path.suffix for path in landing.staging.iterdir()] == [".cut"]
    landing.restart()


def opened(landing: FtpChild) -> list[str]:
    """The files on their way that it has open: more than once while it examines them."""
    links = Path(f"/proc/{landing.process.pid}/fd").iterdir()
    return [target for target in map(os.path.realpath, links) if target.startswith(f"{landing.staging.resolve()}/")]


@contextmanager
def waiting(landing: FtpChild, count: int, *commands: str) -> Iterator[None]:
    """*count* clients that have said *commands* and wait then."""
    with ExitStack() as stack:
        for _ in range(count):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", landing.port), timeout=10))
            assert line.recv(100).startswith(b"220 ")
            for command_ in commands:
                line.sendall(f"{command_}\r\n".encode())
                assert line.recv(100)[:1] in (b"2", b"3", b"1")
        yield


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param([], id="nothing"),
        pytest.param(["USER anonymous", "PASS x", "PASV"], id="PASV"),
        pytest.param(["USER anonymous", "PASS x", "EPSV", "STOR a.jl"], id="STOR"),
    ],
)
def test_connections_that_only_wait_keep_nobody_out(landing: FtpChild, commands: list[str]) -> None:
    """More of them than there may be, of one address: from there and from elsewhere uploads land all the same."""
    with waiting(landing, SESSIONS + 50, *commands):
        assert upload(landing, "1.jl", LINES).startswith("226")
        with ftplib.FTP(timeout=10, source_address=("127.0.0.2", 0)) as ftp:
            ftp.connect("127.0.0.1", landing.port)
            ftp.login()
            assert ftp.storbinary("STOR 2.jl", io.BytesIO(LINES)).startswith("226")
    assert landing.landed() == ["1.jl", "2.jl"]
    wait_for(lambda: not landing.staged())
    assert "ended a session of 127.0.0.1 that was silent" in landing.log


def test_a_server_without_a_descriptor_for_a_connection_takes_it_later(landing: FtpChild) -> None:
    had = len(os.listdir(f"/proc/{landing.process.pid}/fd"))
    before = resource.prlimit(
        landing.process.pid, resource.RLIMIT_NOFILE, (had, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    with socket.create_connection(("127.0.0.1", landing.port), timeout=10) as line:
        wait_for(lambda: "can't take a connection, and will try again: Too many open files" in landing.log)
        resource.prlimit(landing.process.pid, resource.RLIMIT_NOFILE, before)
        assert line.recv(100).startswith(b"220 ")
    assert upload(landing, "1.jl", LINES).startswith("226")


def test_a_port_that_is_opened_for_a_client_that_is_gone_is_closed(landing: FtpChild) -> None:
    had = watched(landing)
    for _ in range(20):
        with client(landing) as ftp:
            assert ftp.sock is not None
            ftp.sock.sendall(b"NOOP\r\nPASV\r\n")
            ftp.close()
    wait_for(lambda: watched(landing) <= had, 10)


def test_a_fleet_behind_one_address(landing: FtpChild) -> None:
    """Uploads are left alone, also by those who only wait."""
    count = SESSIONS_OF_ADDRESS - 5
    with ExitStack() as stack:
        uploads = [stack.enter_context(Upload(landing, f"{number:03}.jl")) for number in range(count)]
        with waiting(landing, 50):
            for one in uploads:
                one.data.sendall(LINE)
                one.data.close()
            assert all(one.ftp.voidresp().startswith("226") for one in uploads)
    assert len(landing.landed()) == count


def test_an_address_that_has_all_its_sessions_at_work(landing: FtpChild) -> None:
    """It has to wait, others need not."""
    with ExitStack() as stack:
        for number in range(SESSIONS_OF_ADDRESS):
            stack.enter_context(Upload(landing, f"{number:03}.jl"))
        with ftplib.FTP(timeout=10) as ftp, pytest.raises(ftplib.error_temp, match=r"^421 Too many connections"):
            ftp.connect("127.0.0.1", landing.port)
        with ftplib.FTP(timeout=10, source_address=("127.0.0.2", 0)) as ftp:
            ftp.connect("127.0.0.1", landing.port)
            ftp.login()
            assert ftp.storbinary("STOR 2.jl", io.BytesIO(LINES)).startswith("226")
    wait_for(lambda: not landing.staged())


@pytest.mark.parametrize("verb", ["STOR", "APPE"])
def test_a_name_that_is_taken_is_refused_before_the_transfer(landing: FtpChild, verb: str) -> None:
    upload(landing, "1.jl", LINES)
    with client(landing) as ftp, pytest.raises(ftplib.error_perm, match=r"^553 .* has landed before"):
        ftp.sendcmd(f"{verb} 1.jl")
    assert (landing.items / "1.jl").read_bytes() == LINES
    assert list(landing.staging.iterdir()) == []
    assert "refused '1.jl': a file of this name" in landing.log


def test_of_two_at_once_the_first_to_end_lands_and_the_other_is_kept(landing: FtpChild) -> None:
    with Upload(landing, "1.jl") as one, Upload(landing, "1.jl") as other:
        one.data.sendall(LINE)
        other.data.sendall(LINES)
        other.data.close()
        assert other.ftp.voidresp().startswith("226")
        one.data.close()
        with pytest.raises(ftplib.error_perm, match=r"^553 .* has landed meanwhile"):
            one.ftp.voidresp()
    assert (landing.items / "1.jl").read_bytes() == LINES
    (kept,) = landing.staged("taken")
    assert kept.read_bytes() == LINE
    assert f"set aside {kept.name}: " in landing.log


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_that_ends_in_the_middle_and_starts_again(landing: FtpChild, signum: int) -> None:
    upload(landing, "0.jl", LINE)
    with Upload(landing, "1.jl") as one:
        one.data.sendall(LINES)
        arrives(landing, len(LINES))
        killed = signum == signal.SIGKILL
        assert landing.end(signum) == (-signum if killed else 0)
        assert len(landing.staged()) == (1 if killed else 0)
        landing.restart()
        assert len(landing.staged("left" if killed else "cut")) == 1
        assert landing.landed() == ["0.jl"]
    assert upload(landing, "1.jl", LINES).startswith("226")
    assert (landing.items / "1.jl").read_bytes() == LINES


DROPPED = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from ftp_server import end_at_signals

class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

end_at_signals()
Dying()
print("goes on", flush=True)
time.sleep(30)
"""


def test_an_end_that_comes_while_python_finalizes_an_object_comes_once_more() -> None:
    command = [sys.executable, "-c", DROPPED, str(PROGRAM.parent)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout) == (0, "goes on\n"), ended.stderr


def test_a_disk_that_is_full(landing: FtpChild) -> None:
    landing.end()
    with file_limit(len(LINES) // 2):
        landing.restart()
    with pytest.raises(ftplib.error_temp, match=r"^452 can't be stored: File too large"):
        upload(landing, "1.jl", LINES)
    assert_set_aside(landing, "1.jl", "cut")
    assert "can't be stored: File too large" in landing.log
    landing.end()
    landing.restart()
    assert upload(landing, "1.jl", LINES).startswith("226")


def test_a_server_that_was_killed_right_after_a_file_has_landed(landing: FtpChild) -> None:
    upload(landing, "1.jl", LINE)
    landing.end(signal.SIGKILL)
    (landing.staging / "1.jl.0123abcd.part").hardlink_to(landing.items / "1.jl")
    landing.restart()
    assert list(landing.staging.iterdir()) == []
    assert (landing.items / "1.jl").read_bytes() == LINE


@pytest.mark.parametrize(
    "line",
    [
        *("RETR 1.jl", "DELE 1.jl", "RNFR 1.jl", "RNTO 2.jl", "REST 1", "SIZE 1.jl", "MDTM 1.jl", "STOU", "RMD /"),
        *("LIST", "NLST", "MLSD", "MLST", "STAT", "STAT /", "SITE CHMOD 777 1.jl", "FEAT", "CDUP", "XMKD a"),
    ],
)
def test_all_else_is_refused(landing: FtpChild, line: str) -> None:
    upload(landing, "1.jl", LINE)
    with client(landing) as ftp:
        ftp.makepasv()
        with pytest.raises(ftplib.error_perm, match=r"^50[02] "):
            ftp.sendcmd(line)
    assert (landing.items / "1.jl").read_bytes() == LINE


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *((".1.jl", 553), ("/", 553), ("..", 553), ("a\0b.jl", 553), ("a\tb.jl", 553), ("x" * 201, 553)),
        *(("a/1.jl", 550), ("/a/b/1.jl", 550), ("../../a/1.jl", 550)),
    ],
)
def test_names_that_are_refused(landing: FtpChild, name: str, code: int) -> None:
    with client(landing) as ftp, pytest.raises(ftplib.error_perm, match=rf"^{code} "):
        ftp.sendcmd(f"STOR {name}")
    assert landing.landed() == list(landing.staging.iterdir()) == []
    assert landing.log.count("refused") == 1


def test_a_name_that_is_not_utf_8(landing: FtpChild) -> None:
    with client(landing) as ftp:
        ftp.encoding = "latin-1"
        with pytest.raises(ftplib.error_perm, match=r"^553 "):
            ftp.sendcmd("STOR é.jl")


def test_only_anonymous_users(landing: FtpChild) -> None:
    with ftplib.FTP(timeout=10) as ftp:
        ftp.connect("127.0.0.1", landing.port)
        with pytest.raises(ftplib.error_perm, match=r"^530 "):
            ftp.login("root", "x")

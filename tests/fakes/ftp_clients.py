"""The example's FTP server, what clients send it, and what can be seen of it from outside."""

from __future__ import annotations

import ftplib
import gzip
import io
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from crawling import wait_for
from ftp_child import FtpChild, ftp_server

LINE = b'{"title": "2 bed flat, pool", "price": 1000.0}\n'
LINES = LINE * 20_000
"""More than sockets hold: a client that is cut off in it has not sent all."""
SESSIONS, SESSIONS_OF_ADDRESS = 512, 256
"""Of the server, whose module can't be imported here: what it imports warns."""
BROKEN_OFF = r"^426 The upload was broken off"


def zipped(content: bytes) -> bytes:
    """Without the time, since content names tests, and pytest-xdist expects the same names of all its processes."""
    return gzip.compress(content, mtime=0)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FtpChild]:
    with ftp_server(tmp_path_factory.mktemp("ftp")) as child:
        yield child


@pytest.fixture
def server(running: FtpChild) -> FtpChild:
    """The one that runs, with empty folders and an empty log."""
    running.clear()
    return running


@contextmanager
def client(server: FtpChild) -> Iterator[ftplib.FTP]:
    with ftplib.FTP(timeout=10) as ftp:
        ftp.connect("127.0.0.1", server.port)
        ftp.login()
        yield ftp


def upload(server: FtpChild, name: str, content: bytes, verb: str = "STOR") -> str:
    with client(server) as ftp:
        return ftp.storbinary(f"{verb} {name}", io.BytesIO(content))


class Upload:
    """One by hand: data goes and connections end when the test says so."""

    def __init__(self, server: FtpChild, name: str) -> None:
        self.ftp = ftplib.FTP(timeout=10)
        self.ftp.connect("127.0.0.1", server.port)
        self.ftp.login()
        self.ftp.voidcmd("TYPE I")
        self.data = self.ftp.transfercmd(f"STOR {name}")

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, *_: object) -> None:
        self.data.close()
        self.ftp.close()


def arrives(server: FtpChild, size: int) -> None:
    """Wait until *size* bytes of one file are in the staging folder, but for what its writer has in its buffer."""
    wait_for(lambda: [path for path in server.staged() if path.stat().st_size > size - io.DEFAULT_BUFFER_SIZE])


def assert_set_aside(server: FtpChild, name: str, reason: str) -> Path:
    (path,) = wait_for(lambda: server.staged(reason))
    assert path.name.startswith(f"{name}.")
    assert server.staged() == []
    assert server.landed() == []
    assert f"set aside {path.name}: " in server.log
    return path


def close_both(one: Upload) -> None:
    one.ftp.close()
    one.data.close()


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


def watched(server: FtpChild) -> int:
    """How many sockets its loop looks at."""
    count = 0
    for path in Path(f"/proc/{server.process.pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # it is no socket any more
            count += path.read_text().count("tfd:")
    return count


def opened(server: FtpChild) -> list[str]:
    """The files on their way that it has open: more than once while it examines them."""
    links = Path(f"/proc/{server.process.pid}/fd").iterdir()
    return [target for target in map(os.path.realpath, links) if target.startswith(f"{server.staging.resolve()}/")]


@contextmanager
def waiting(server: FtpChild, count: int, *commands: str) -> Iterator[None]:
    """*count* clients that have said *commands* and wait then."""
    with ExitStack() as stack:
        for _ in range(count):
            line = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            assert line.recv(100).startswith(b"220 ")
            for command_ in commands:
                line.sendall(f"{command_}\r\n".encode())
                assert line.recv(100)[:1] in (b"2", b"3", b"1")
        yield

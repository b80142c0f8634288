"""The example's FTP server as a child process, for tests: killed and started again on the same port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "example_project" / "landing" / "ftp_server.py"


def command(port: int, staging: Path, items: Path) -> list[str]:
    return [sys.executable, str(PROGRAM), "--port", str(port), "--staging", str(staging), "--items", str(items)]


class FtpChild:
    """A server that runs, with its two folders in *folder*."""

    def __init__(self, folder: Path) -> None:
        self.staging, self.items = folder / "staging", folder / "items"
        self.staging.mkdir()
        self.items.mkdir()
        self.port = 0
        self._log = folder / "ftp_server.log"
        self.restart()

    @property
    def url(self) -> str:
        return f"ftp://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def restart(self) -> None:
        """Start it, on the port that it had."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command(self.port, self.staging, self.items), stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        address = self.process.stdout.readline().strip()
        assert address.startswith("listening at ftp://127.0.0.1:"), self.log
        self.port = int(address.rpartition(":")[2])

    def clear(self) -> None:
        """Empty its folders and its log."""
        os.truncate(self._log, 0)
        for path in (*self.staging.iterdir(), *self.items.iterdir()):
            path.unlink()

    def send(self, signum: int) -> None:
        os.kill(self.process.pid, signum)

    def end(self, signum: int = signal.SIGTERM) -> int:
        self.send(signum)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(10)

    def kill(self) -> None:
        """kill -9; ``restart`` brings it back."""
        self.end(signal.SIGKILL)

    def landed(self) -> list[str]:
        return sorted(path.name for path in self.items.iterdir())

    def staged(self, ending: str = "part") -> list[Path]:
        """Files on their way, or those that were set aside for the reason *ending*."""
        return list(self.staging.glob(f"*.{ending}"))


@contextmanager
def ftp_server(folder: Path) -> Iterator[FtpChild]:
    child = FtpChild(folder)
    try:
        yield child
    finally:
        if child.process.poll() is None:
            child.send(signal.SIGCONT)
            child.end()

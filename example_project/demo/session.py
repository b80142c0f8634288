"""The processes of one demo: each is started in a session of its own, and all of them end when the demo does."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
SCRAPY = (sys.executable, "-m", "scrapy")
START_SECONDS = 60.0
GRACE_SECONDS = 15.0
POLL_SECONDS = 0.1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(Exception):
    """The demo can't go on; the message says why."""


class SignalledError(DemoError):
    """Somebody wants the demo to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"ended by {signal.Signals(signum).name}")
        self.signum = signum


@dataclass(frozen=True, kw_only=True)
class Child:
    """A process of the demo, and the files that take its standard output and error. The others can't go on without it
    if it is *vital*."""

    name: str
    process: subprocess.Popen[bytes]
    out: Path
    log: Path
    vital: bool = True

    def how_it_ended(self) -> str:
        """With which exit code or by which signal, and the last lines that it wrote."""
        code = self.process.returncode
        how = f"by signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"with exit code {code}"
        return f"{how}; {self.last_words()}"

    def last_words(self, lines: int = 15) -> str:
        """The last lines that it wrote, if there are any."""
        text = self.out.read_text(errors="replace") + self.log.read_text(errors="replace")
        written = text.splitlines()[-lines:]
        return "\n".join(["it wrote:", *written]) if written else "it wrote nothing"


class Session:
    """The processes of one demo: all of them end when the ``with`` block does, the youngest first.

    A signal is only noted, and raised by the next `pause`, so that none can come between the start of a
    process and the line that remembers it, or cut the ending short.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self._children: list[Child] = []
        self._signum: int | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Session:
        for signum in SIGNALS:
            # What our parent told us to ignore (nohup, a background job) stays ignored.
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._handlers[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._children:
            end(self._children.pop())
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum

    def start(self, name: str, *argv: str, vital: bool = True) -> Child:
        """Start a process in the project's folder, in a session of its own: Ctrl-C reaches only us."""
        out, log = self.work / f"{name}.out", self.work / f"{name}.log"
        with out.open("wb") as stdout, log.open("wb") as stderr:
            process = subprocess.Popen(
                argv,
                cwd=PROJECT,
                env=without_proxy(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        child = Child(name=name, process=process, out=out, log=log, vital=vital)
        self._children.append(child)
        return child

    def pause(self) -> None:
        """Wait for a moment; raises `SignalledError` after a signal."""
        time.sleep(POLL_SECONDS)
        if self._signum is not None:
            raise SignalledError(self._signum)

    def read(self, child: Child, pattern: str, *, in_log: bool = False) -> list[str]:
        """Wait until a child that goes on running has printed ``pattern``, or written it to its log; the lines that it
        has printed there."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            ended = child.process.poll() is not None
            printed = (child.log if in_log else child.out).read_text()
            if re.search(pattern, printed, re.MULTILINE):
                return printed.splitlines()
            if ended:
                raise DemoError(f"{child.name} did not start, it ended {child.how_it_ended()}")
            if time.monotonic() > deadline:
                raise DemoError(f"{child.name} is not ready after {START_SECONDS:.0f} s; {child.last_words()}")
            self.pause()

    def finish(self, child: Child, *, tick: Callable[[], None] | None = None) -> int:
        """Wait until a child has ended while the others run; its exit code. ``tick`` is called meanwhile."""
        while child.process.poll() is None:
            for other in self._children:
                if other is not child and other.vital and other.process.poll() is not None:
                    raise DemoError(
                        f"{other.name} ended too early, {child.name} can't go on without it: "
                        f"it ended {other.how_it_ended()}"
                    )
            if tick is not None:
                tick()
            self.pause()
        self._children.remove(child)
        return child.process.returncode

    def run(self, name: str, *argv: str) -> Child:
        """Start a child and wait for its end; an exit code other than 0 is an error."""
        child = self.start(name, *argv)
        if self.finish(child):
            raise DemoError(f"{name} failed, it ended {child.how_it_ended()}")
        return child


def without_proxy(environ: os._Environ[str]) -> dict[str, str]:
    """The environment, with this machine excepted from any proxy."""
    local = "127.0.0.1,localhost"
    return {**environ, "no_proxy": local, "NO_PROXY": local}


def end(child: Child) -> None:
    """Ask a process to end, then make it, and what is left of its group."""
    child.process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.process.wait(GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()

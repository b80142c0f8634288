"""Processes of a measurement: started with a role, ended whatever happens, their CPU time by role. Linux only.

CPU time is read from ``/proc/<pid>/stat``: of a process itself, and of those children of it that have ended and were
waited for, with all theirs. So the workers of a daemon are exact, however short they live. A process that was started
here stays a zombie until the end of the measurement: what it used can still be read when it is over.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

_TICKS = os.sysconf("SC_CLK_TCK")
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: an orphan of ours becomes our child, not that of process 1
_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.05

Value = TypeVar("Value")


class MeasurementError(Exception):
    """This measurement can't go on; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """What the CPU time of a process counts as: its *own*, and that of its children that have *ended*."""

    own: str
    ended: str


SITE = Role(own="site", ended="site")
BROKER = Role(own="broker", ended="broker")
COORDINATOR = Role(own="coordinator", ended="coordinator")
PARENT = Role(own="coordinator", ended="workers")  # a coordinator that starts its workers itself
WORKER = Role(own="workers", ended="workers")
DAEMON = Role(own="daemons", ended="workers")
ROLES = ("site", "coordinator", "daemons", "workers", "broker")


@dataclass(frozen=True, kw_only=True)
class Stat:
    """What the kernel says about a process. CPU times in seconds: its *own*, and of its children that have *ended*."""

    pid: int
    parent: int
    zombie: bool
    own: float
    ended: float


@dataclass(frozen=True, kw_only=True)
class Child:
    """A process that was started here; *log* takes its standard output and error."""

    name: str
    role: Role
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def tail(self, lines: int = 12) -> str:
        """The last lines that it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Processes:
    """The processes of one measurement. All of them, and all that they have started, end with the ``with`` block."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._may_end: set[int] = set()
        self._before: frozenset[int] = frozenset()

    def __enter__(self) -> Processes:
        self._before = frozenset(stat.pid for stat in stats() if stat.parent == os.getpid())
        _adopt_orphans(True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        impatient = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._end()
        finally:
            _adopt_orphans(False)
            signal.signal(signal.SIGINT, impatient)

    def start(self, name: str, role: Role, argv: Sequence[object], *, cwd: Path, env: Mapping[str, str]) -> Child:
        """Start a process in a session of its own (Ctrl-C reaches only us), with its output in ``<cwd>/<name>.log``."""
        log = cwd / f"{name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [str(word) for word in argv],
                cwd=cwd,
                env=environment(env),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        child = Child(name=name, role=role, popen=popen, log=log)
        self._children.append(child)
        return child

    def exit_code(self, child: Child) -> int | None:
        """Of a process that has ended, negative after a signal; ``None`` while it runs. It is left as a zombie."""
        ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def finish(self, child: Child, deadline: float) -> None:
        """Wait until a process has ended well, while all others run."""
        self.finish_all([child], deadline)

    def finish_all(self, children: Sequence[Child], deadline: float) -> list[float]:
        """Wait until processes have ended well, while all others run. Returns when, as ``time.monotonic()``."""
        self._may_end.update(child.pid for child in children)
        ended: dict[int, float] = {}

        def look() -> bool | None:
            for child in children:
                if child.pid not in ended and self.exit_code(child) is not None:
                    ended[child.pid] = time.monotonic()
            return True if len(ended) == len(children) else None

        self.until(look, deadline, f"{', '.join(child.name for child in children)}: not done")
        for child in children:
            if code := self.exit_code(child):
                raise MeasurementError(f"{child.name} failed with exit code {code}:\n{child.tail()}")
        return [ended[child.pid] for child in children]

    def kill(self, child: Child) -> None:
        """End it at once, with all that it has started in its session."""
        self._may_end.add(child.pid)
        os.killpg(child.pid, signal.SIGKILL)

    def wait_for(self, child: Child, pattern: str, deadline: float) -> re.Match[str]:
        """Wait until a process has written *pattern*."""
        return self.until(
            lambda: re.search(pattern, child.log.read_text(errors="replace")), deadline, f"{child.name} is not ready"
        )

    def until(self, look: Callable[[], Value | None], deadline: float, problem: str) -> Value:
        """Wait until *look* finds something, and return it. Raises if *deadline* (a ``time.monotonic()``) passes, or
        a process ends that nobody has waited for."""
        while (found := look()) is None:
            for child in self._children:
                if child.pid not in self._may_end and self.exit_code(child) is not None:
                    raise MeasurementError(f"{child.name} ended too early:\n{child.tail()}")
            if time.monotonic() > deadline:
                raise MeasurementError(f"{problem}, and the time is up")
            time.sleep(_POLL_SECONDS)
        return found

    def stop(self, children: Sequence[Child], deadline: float) -> None:
        """Ask processes to end, as Ctrl-C does, and wait until they have."""
        for child in children:
            os.kill(child.pid, signal.SIGINT)
        for child in children:
            while self.exit_code(child) is None:
                if time.monotonic() > deadline:
                    raise MeasurementError(f"{child.name} does not end after SIGINT:\n{child.tail()}")
                time.sleep(_POLL_SECONDS)

    def cpu(self) -> dict[str, float]:
        """CPU seconds by role, from the start of each process until now.

        What runs below a process counts as that process's own: when all jobs are done, only what belongs to a daemon
        (a launcher that forks workers) is left there. Raises if a process has left its parent: it would not count."""
        known = {stat.pid: stat for stat in stats()}
        roles = {child.pid: child.role for child in self._children}
        seconds = dict.fromkeys(ROLES, 0.0)
        for stat in self._descendants(known):
            role = next((roles[pid] for pid in _line(stat.pid, known) if pid in roles), None)
            if role is None:
                raise MeasurementError(f"process {stat.pid} has left its parent: its CPU time can't be told")
            seconds[role.own] += stat.own
            seconds[role.ended] += stat.ended
        return seconds

    def _descendants(self, known: Mapping[int, Stat]) -> Iterator[Stat]:
        """Processes below this one, those apart that it had before."""
        for pid, stat in known.items():
            line = _line(pid, known)
            if os.getpid() in line[1:] and not self._before.intersection(line):
                yield stat

    def _end(self) -> None:
        for number, patience in ((signal.SIGTERM, _GRACE_SECONDS), (signal.SIGKILL, _GRACE_SECONDS)):
            deadline = time.monotonic() + patience
            told: set[int] = set()
            while alive := [stat.pid for stat in self._descendants({s.pid: s for s in stats()}) if not stat.zombie]:
                if time.monotonic() > deadline:
                    break
                for pid in set(alive) - told:  # also what appears meanwhile
                    _kill(pid, number)
                    told.add(pid)
                time.sleep(_POLL_SECONDS)
        for child in self._children:
            child.popen.poll()
        for stat in self._descendants({s.pid: s for s in stats()}):
            if stat.zombie and stat.parent == os.getpid():
                os.waitpid(stat.pid, os.WNOHANG)
        self._children.clear()


def stats() -> list[Stat]:
    """All processes of this machine."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                text = Path(entry.path, "stat").read_text(errors="replace")
            except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                continue
            # The name of the program, in brackets, may hold anything.
            state, parent, *rest = text.rpartition(")")[2].split()
            user, system, ended_user, ended_system = (int(ticks) / _TICKS for ticks in rest[9:13])
            found.append(
                Stat(
                    pid=int(entry.name),
                    parent=int(parent),
                    zombie=state in "ZX",
                    own=user + system,
                    ended=ended_user + ended_system,
                )
            )
    return found


def environment(additions: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what would configure Scrapy or Scrapyd, with this machine excepted from any proxy."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SCRAPY", "PYTHON"))}
    return kept | {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"} | dict(additions)


def _line(pid: int, known: Mapping[int, Stat]) -> list[int]:
    """A process, its parent, the parent of that, and so on."""
    line = [pid]
    while (stat := known.get(line[-1])) is not None:
        line.append(stat.parent)
    return line


def _kill(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
        os.kill(pid, number)


def _adopt_orphans(adopt: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, int(adopt), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed: Linux is needed")

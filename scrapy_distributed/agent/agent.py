"""Jobs on this machine: who wants one run submits it, asks for its state, and may end it.

submitted -> pending -> running -> finished

A job is a process of its own, in a session apart from ours: a terminal's Ctrl-C reaches us alone, and the job gets what
we send it. It is told which process has started it, and ends by itself when that is gone; so does the warm process,
with us.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.agent.job_process import DETACHED, payload, without_secrets
from scrapy_distributed.agent.warm_process import WarmProcess, WarmProcessError
from scrapy_distributed.wire.payload import NEVER_USED, SLOT_FREE_SINCE

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0  # until a job that could not be started is tried again
RESTART_SECONDS = (1.0, 60.0)  # until the warm process is, the first time and at most; each is twice the one before
_RUNNER = "scrapy"


class Agent:
    """Runs at most *slots* jobs at once, in the order in which they are submitted; their files are *files*.

    *news* is called whenever a job has started or ended, *starts* with its id before one starts. A job is ``scrapy
    ARGUMENTS`` in the folder, with the environment and the ``sys.path`` that this process has when the agent is made.
    It is told when the job before it in its slot has ended.
    """

    def __init__(self, files: JobFiles, *, slots: int, reactor: Any) -> None:
        self.files = files
        self.slots = slots
        self.news: Callable[[], None] = lambda: None
        self.starts: Callable[[str], None] = lambda job: None
        self.finished = 0  # jobs that have ended since then
        self._reactor = reactor
        self._folder = os.getcwd()
        self._path = [str(Path(entry).absolute()) for entry in sys.path]
        self._environment = without_secrets(os.environ)
        self._pending: dict[str, Sequence[str]] = {}  # job -> its arguments
        self._running: dict[str, _Process] = {}
        self._free = deque([float(NEVER_USED)] * slots)  # slots: when the job of each has ended, by time.time()
        self._warm: WarmProcess | None = None
        self._pause = RESTART_SECONDS[0]
        self._again: Any = None  # the call that tries again
        self._told = ""  # why the last job could not be started
        self._closed = False

    def open(self, warm: WarmProcess | None = None) -> None:
        """Have a warm process, which is ready in a second: *warm*, if one was started before. Raises ``OSError`` where
        no files can be made."""
        self.files.make()
        if warm is None or warm.ended:
            self._start_warm()
        else:
            self._warm, warm.listener = warm, self

    # What is asked of it

    def submit(self, job: str, arguments: Sequence[str]) -> None:
        """Run *job* when a slot is free: *arguments* of ``scrapy``, to which its log, and who it is, are added."""
        self._pending[job] = arguments
        self._reactor.callLater(0, self._start_jobs)  # what it leads to is no part of the call

    @property
    def pending(self) -> int:
        return len(self._pending)

    @property
    def running(self) -> int:
        return len(self._running)

    def state(self, job: str) -> str | None:
        """``"pending"``, ``"running"``, also where another agent has started it, ``"finished"``; ``None`` if it has
        never begun."""
        if job in self._pending:
            return "pending"
        if job in self._running or self.files.is_held(job):
            return "running"
        return "finished" if self.files.has_begun(job) else None

    def end(self, job: str, number: signal.Signals) -> str | None:
        """Send *number* to its process, and return ``"running"``; or take it back, and return ``"pending"``; else
        return ``None``."""
        if self._pending.pop(job, None) is not None:
            self.news()
            return "pending"
        process = self._running.get(job)
        if process is None:
            return None
        with suppress(ProcessExitedAlready):
            process.transport.signalProcess(number)
        return "running"

    async def close(self) -> None:
        """Kill what runs, and return when it has ended."""
        self._closed = True
        self._pending.clear()
        for process in list(self._running.values()):
            with suppress(ProcessExitedAlready):
                process.transport.signalProcess(signal.SIGKILL)
        for process in list(self._running.values()):
            await process.over
        if self._warm is not None:
            self._warm.kill()

    # Its jobs

    def _start_jobs(self) -> None:
        started = False
        while self._pending and len(self._running) < self.slots and self._can_start():
            job = next(iter(self._pending))
            try:
                self._running[job] = self._start(job, self._pending[job])
            except OSError as error:
                self._start_later(job, error)
                break
            del self._pending[job]
            self._free.popleft()
            started = True
        if started:
            self.news()

    def _start_later(self, job: str, error: OSError) -> None:
        """Try again until it can be started, and say it once."""
        if str(error) != self._told:
            self._told = str(error)
            logger.error("Job %s can't be started now, trying again: %s", job, error)
        if self._again is None or not self._again.active():
            self._again = self._reactor.callLater(RETRY_SECONDS, self._start_jobs)

    def _start(self, job: str, arguments: Sequence[str]) -> _Process:
        """Raises ``OSError``."""
        process = _Process(lambda: self._ends(job))
        with self.files.open_log(job) as log:
            self.starts(job)
            if self._warm is not None:
                with suppress(WarmProcessError):
                    self._warm.fork(process, self._payload(job, arguments, self._warm.pid), output=log.fileno())
                    return process
            logger.warning("Job %s starts cold: there is no warm process", job)
            self._reactor.spawnProcess(
                process, sys.executable, [sys.executable, "-m", "scrapy_distributed.agent.job_process", DETACHED],
                env=self._environment, path=str(self.files.folder),
                childFDs={0: "w", 1: log.fileno(), 2: log.fileno()},
            )  # fmt: skip
        process.transport.write(self._payload(job, arguments, os.getpid()))
        process.transport.closeStdin()
        return process

    def _payload(self, job: str, arguments: Sequence[str], parent: int) -> bytes:
        ours = [
            "-a", f"_job={job}", "-s", f"LOG_FILE={self.files.log(job)}", "-s", f"DISTRIBUTED_PARENT={parent}", "-s",
            f"{SLOT_FREE_SINCE}={self._free[0]:.3f}",
        ]  # fmt: skip
        return payload(_RUNNER, [*arguments, *ours], self._environment, folder=self._folder, path=self._path)

    def _ends(self, job: str) -> None:
        del self._running[job]
        self._free.append(time.time())
        self.finished += 1
        if not self._closed:
            self.news()
            self._start_jobs()

    # The warm process

    def _start_warm(self) -> None:
        if self._closed:
            return
        self._warm = warm = WarmProcess(self._reactor, listener=self, detached=True)
        try:
            warm.start()
        except OSError as error:
            logger.error("The warm process can't be started: %s", error)
            self.warm_ended(warm)

    def warm_ready(self) -> None:
        self._pause = RESTART_SECONDS[0]
        self._start_jobs()

    def warm_ended(self, warm: WarmProcess) -> None:
        if warm is not self._warm or self._closed:
            return
        self._warm = None
        self._reactor.callLater(self._pause, self._start_warm)
        self._pause = min(2 * self._pause, RESTART_SECONDS[1])
        self._start_jobs()

    def _can_start(self) -> bool:
        """A mixture of two versions of a package must not run; and a warm process that is not ready yet soon is."""
        if self._warm is not None and self._warm.ready and self._warm.stale:
            logger.warning("Packages were installed or removed: jobs that start from now on have the new ones")
            self._warm.retire()
            self._start_warm()
        return not self._closed and (self._warm is None or self._warm.ready)


class _Process(ProcessProtocol):
    """A job's. *over* fires when it has ended."""

    transport: Any

    def __init__(self, on_end: Callable[[], None]) -> None:
        self.over: Deferred[None] = Deferred()
        self._on_end = on_end

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        self._on_end()
        self.over.callback(None)

"""The warm process as whoever starts it sees it: start it, let it fork a job, retire it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, Protocol

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from scrapy_distributed.agent.fork_server import FORK, PING, READY, RETIRE
from scrapy_distributed.agent.forked_job import ForkedJob
from scrapy_distributed.agent.job_process import DETACHED, without_secrets

log = Logger()

START_SECONDS = 60.0
"""A warm process that has not imported everything by then is killed."""
ANSWER_SECONDS = 5.0
"""A warm process that does not answer by then is killed. Who asks waits for the pid of a job, which takes some
milliseconds, so that a job is always in one of Scrapyd's lists."""
PING_SECONDS = 5.0


class WarmProcessError(Exception):
    """The warm process has not done what it was asked for; nothing of the job has run, or will."""


class Listener(Protocol):
    """Whoever has a warm process."""

    def warm_ready(self) -> None:
        """It can fork jobs."""

    def warm_ended(self, warm: WarmProcess) -> None:
        """*warm* has ended, or could not be started."""


class WarmProcess(ProcessProtocol):
    """A child that forks jobs, and has imported *modules* beside what every job imports. *listener* is told when it
    can, and when it has ended.

    *detached*: it is in a session of its own, so a terminal's Ctrl-C does not reach its jobs; and in a folder where no
    module of a project lies."""

    transport: Any

    def __init__(
        self,
        reactor: Any,
        *,
        listener: Listener | None = None,
        modules: Sequence[str] = (),
        detached: bool = False,
    ) -> None:
        self.ready = self.ended = False
        self.listener = listener
        self._reactor = reactor
        self._arguments = [*([DETACHED] if detached else []), *modules]
        self._folder = os.path.dirname(os.__file__) if detached else None
        self._installed = installed()
        self._deadline: Any = None
        self._watch = LoopingCall(self._ping)
        self._control, self._theirs = socket.socketpair()
        self._control.settimeout(ANSWER_SECONDS)

    def start(self) -> None:
        command = [sys.executable, "-m", "scrapy_distributed.agent.fork_server", *self._arguments]
        pipes: Any = {0: self._theirs.fileno(), 1: "r", 2: "r"}
        self._reactor.spawnProcess(
            self, sys.executable, command, env=without_secrets(os.environ), childFDs=pipes, path=self._folder
        )
        self._theirs.close()
        self._deadline = self._reactor.callLater(START_SECONDS, self.kill)

    @property
    def pid(self) -> int:
        return int(self.transport.pid)

    @property
    def stale(self) -> bool:
        """Whether packages were installed or removed since it has imported them."""
        return self._installed != installed()

    def fork(self, protocol: Any, job: bytes, *, output: int | None = None) -> None:
        """Make a process for *job*, a ``job_process.payload``, and connect *protocol* to it. *output*: the descriptor
        for what it prints, which stays the caller's; ``None``: *protocol* is told.

        Raises ``WarmProcessError``, and ``OSError`` if there is no descriptor left."""
        with ExitStack() as opened:

            def pipe() -> tuple[int, int]:
                ends = os.pipe()
                for end in ends:
                    opened.callback(os.close, end)
                return ends

            stdin, to_stdin = pipe()
            from_status, status = pipe()
            printed = [pipe() for _ in ("stdout", "stderr")] if output is None else []
            theirs = [stdin, *(write for _, write in printed), status]
            # Should it fork and not answer: the new process finds its standard input at its end, and ends.
            pid = self._ask(FORK, theirs if output is None else [stdin, output, output, status])
            if not pid:
                raise WarmProcessError
            opened.pop_all()
        for descriptor in theirs:
            os.close(descriptor)
        from_output = {name: read for name, (read, _) in enumerate(printed, start=1)}
        ForkedJob(self._reactor, protocol, pid, job, stdin=to_stdin, output=from_output, status=from_status)

    def retire(self) -> None:
        """Fork no more; it ends with the last of its jobs."""
        self.ready = False
        with suppress(OSError):
            self._control.sendall(RETIRE)

    def kill(self) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def _ping(self) -> None:
        """It alone knows when a job has ended: were it stopped, that job would keep its slot."""
        with suppress(WarmProcessError):
            self._ask(PING)

    def _ask(self, request: bytes, descriptors: Sequence[int] = ()) -> int:
        try:
            socket.send_fds(self._control, [request], descriptors)
            answer = b""
            while not answer.endswith(b"\n"):
                part = self._control.recv(32)
                if not part:
                    raise ConnectionError("it has ended")
                answer += part
            return int(answer)
        except (OSError, ValueError) as error:
            log.error("The warm process is killed, as it did not answer: {error!r}", error=error)
            self.ready = False
            self.kill()
            raise WarmProcessError from error

    def outReceived(self, data: bytes) -> None:  # noqa: N802
        if data.endswith(READY):  # an import may print something
            self._deadline.cancel()
            self._watch.start(PING_SECONDS, now=False)
            self.ready = True
            if self.listener is not None:
                self.listener.warm_ready()

    def errReceived(self, data: bytes) -> None:  # noqa: N802
        log.error("{text}", text=data.decode(errors="replace").rstrip(), log_system="Launcher,warm/stderr")

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        if self._deadline.active():
            self._deadline.cancel()
        if self._watch.running:
            self._watch.stop()
        self.ready, self.ended = False, True
        self._control.close()
        if self.listener is not None:
            self.listener.warm_ended(self)


def installed() -> dict[str, int]:
    """When something was last installed to or removed from each folder of ``sys.path``, in nanoseconds. Not those where
    a crawl may write: that of the script, the working directory, and a project's."""
    here = os.getcwd()
    folders = [path for path in sys.path[1:] if path and os.path.isdir(path) and not os.path.samefile(path, here)]
    return {path: os.stat(path).st_mtime_ns for path in folders if not os.path.exists(os.path.join(path, "scrapy.cfg"))}

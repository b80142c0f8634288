"""A job that the warm process has forked, as whoever asked for it sees it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.process import ProcessReader, ProcessWriter
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()

_STATUS = 3  # the pipe for it, beside the standard three


class ForkedJob:
    """What Scrapyd uses of a process transport: the ``pid``, ``signalProcess``, and the calls of *protocol*. *output*:
    the pipes of what it prints, by descriptor number (1, 2)."""

    def __init__(
        self, reactor: Any, protocol: Any, pid: int, job: bytes, *, stdin: int, output: Mapping[int, int], status: int
    ) -> None:
        self.pid = pid
        self._protocol = protocol
        self._status = b""
        writer: Any = ProcessWriter(reactor, self, 0, stdin, forceReadHack=True)  # type: ignore[no-untyped-call]
        self._pipes: dict[int, Any] = {0: writer}
        for name, descriptor in (*output.items(), (_STATUS, status)):
            self._pipes[name] = ProcessReader(reactor, self, name, descriptor)  # type: ignore[no-untyped-call]
        protocol.makeConnection(self)
        writer.write(job)
        writer.loseConnection()  # when all is written

    def signalProcess(self, signal_id: str | int) -> None:  # noqa: N802
        """Send a signal, by number or by a name like ``INT``. Raises ``ProcessExitedAlready``."""
        number = getattr(signal, f"SIG{signal_id}") if isinstance(signal_id, str) else signal_id
        if self._status or _STATUS not in self._pipes:  # its end tells that of the job: another may have the pid by now
            raise ProcessExitedAlready
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            raise ProcessExitedAlready from None

    # Called by the pipes

    def childDataReceived(self, name: int, data: bytes) -> None:  # noqa: N802
        if name == _STATUS:
            self._status += data
        else:
            self._protocol.childDataReceived(name, data)

    def childConnectionLost(self, name: int, reason: Failure) -> None:  # noqa: N802
        os.close(self._pipes.pop(name).fileno())
        if not self._pipes:
            self._protocol.processEnded(Failure(self._end()))  # type: ignore[no-untyped-call]

    def _end(self) -> Exception:
        if not self._status:
            log.warn("The warm process ended before pid {pid}: its exit status is unknown", pid=self.pid)
            return ProcessTerminated()  # type: ignore[no-untyped-call]
        code = os.waitstatus_to_exitcode(int(self._status))
        if not code:
            return ProcessDone(0)  # type: ignore[no-untyped-call]
        exit_code, number = (code, None) if code > 0 else (None, -code)
        return ProcessTerminated(exit_code, number)  # type: ignore[no-untyped-call]

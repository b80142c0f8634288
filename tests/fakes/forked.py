"""``python -m scrapy``, and the like, as a process of its own that need not import Scrapy: it is forked from one that
has.

That is most of the CPU of a short command, and the suite starts a thousand of them. The fork server is the one that
starts jobs; what a forked process does, and how it ends, is the same but for the time.
"""

from __future__ import annotations

import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock

from scrapy_distributed.agent.fork_server import FORK, READY
from scrapy_distributed.agent.job_process import DETACHED, payload

SCRAPY = ("-m", "scrapy")
FAKES = str(Path(__file__).parent)
STANDARD_LIBRARY = str(Path(os.__file__).parent)
# What a coordinator imports beside what a worker does.
COORDINATOR = ("scrapy_distributed.coordinator.coordinator", "scrapy_distributed.commands.doctor", "treq")


class Forked:
    """What tests use of a ``subprocess.Popen``: ``python`` *program* *args* in *folder*, with *environment*, in a
    session of its own. What it prints goes to the descriptor *output*, and its errors to *errors* where that is another
    one."""

    def __init__(
        self,
        args: Sequence[str],
        *,
        program: Sequence[str] = SCRAPY,
        folder: Path,
        environment: Mapping[str, str],
        output: int,
        errors: int | None = None,
    ) -> None:
        self.args = args
        self.returncode: int | None = None
        # As of ``python -m`` there, without what the tests have put into it.
        first = str(folder) if program[0] == "-m" else str(Path(program[0]).parent)
        path = [first, *(entry for entry in _clean_path() if entry), FAKES]
        told = payload("forked", [*program, *args], environment, folder=str(folder), path=path)
        stdin, to_stdin = os.pipe()
        self._status, status = os.pipe()
        with _one_at_a_time:
            self.pid = _server().fork([stdin, output, output if errors is None else errors, status])
        os.close(stdin)
        os.close(status)
        with os.fdopen(to_stdin, "wb") as file:
            file.write(told)

    def poll(self) -> int | None:
        return self._end(0)

    def wait(self, timeout: float | None = None) -> int:
        if (code := self._end(timeout)) is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _end(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(os.read(self._status, 32)))
            os.close(self._status)
        return self.returncode


class _Server:
    """The fork server of this process. It ends with it."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        command = [sys.executable, "-m", "scrapy_distributed.agent.fork_server", DETACHED, *COORDINATOR]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SCRAPY", "PYTHONPATH"))}
        self._process = subprocess.Popen(
            command, cwd=STANDARD_LIBRARY, env=kept, stdin=theirs, stdout=subprocess.PIPE, bufsize=0
        )
        theirs.close()
        assert self._process.stdout is not None
        said = b""
        while not said.endswith(READY):
            part = self._process.stdout.read(1000)
            assert part, "the fork server of the tests has ended"
            said += part

    def fork(self, descriptors: list[int]) -> int:
        socket.send_fds(self._control, [FORK], descriptors)
        answer = b""
        while not answer.endswith(b"\n"):
            part = self._control.recv(32)
            assert part, "the fork server of the tests has ended"
            answer += part
        assert int(answer), "the fork server of the tests has no room for a process"
        return int(answer)


_server = cache(_Server)
_one_at_a_time = Lock()


@cache
def _clean_path() -> tuple[str, ...]:
    """``sys.path`` of a Python that was not told any."""
    code = "import sys; print(*sys.path, sep='\\n')"
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], env=kept, capture_output=True, text=True, check=True)
    return tuple(done.stdout.splitlines())


if __name__ == "__main__":
    os.setsid()
    sys.path.remove(FAKES)
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    if sys.argv[1] == "-m":
        module = sys.argv[2]
        del sys.argv[1:3]  # the first one is set by runpy
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        del sys.argv[0]
        runpy.run_path(sys.argv[0], run_name="__main__")

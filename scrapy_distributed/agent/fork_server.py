"""The warm process: it has imported what every worker imports, and forks one process per job. What few need it imports
when it has nothing else to do.

It never sees a job: settings, arguments and environment go straight into the forked process. It imports nothing of a
project, installs no Twisted reactor, starts no event loop and no thread. ``warm_process`` is the other end: requests
come in at standard input, a socket, and pids go back there. Its arguments are more modules to import.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import platform
import re
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points, version
from pkgutil import iter_modules
from typing import Any

from scrapy_distributed.agent import job_process

FORK = b"f"
"""With the descriptors of a job: fork. The answer is the pid and a newline; 0 if there is no room for a process."""
PING = b"p"
"""The answer is 0 and a newline."""
RETIRE = b"r"
"""End as soon as no forked process is left."""
DESCRIPTORS = 4
"""Of a job: standard input, output and error, and the pipe that its wait status goes to, as decimal digits."""
READY = b"ready\n"
"""On standard output, when all is imported."""

# What a worker imports on its way from the command line to its last page, beside the components of Scrapy's settings.
_MODULES = (
    "scrapy.cmdline",
    "scrapy.linkextractors",
    "scrapy.loader",
    "scrapy.spiders",
    "scrapy_distributed.addon",
    "scrapy_distributed.coordinator.shared_hosts",
    "scrapy_distributed.fast.http_handler",
    "scrapy_distributed.fast.meta_refresh",
    "scrapy_distributed.fast.preset",
    "scrapy_distributed.worker.worker",
    "scrapy_distributed.commands.batches",
    "scrapy_distributed.commands.fleet",
    "scrapy_distributed.commands.monitor",
    "scrapy_distributed.commands.worker",
    "encodings.charmap",
    "encodings.cp437",
    "resource",
)
# What few jobs use, without a reactor the one, no fast workers the other, and what takes a sixth of all the time: the
# first ones need not wait for it.
_FURTHER_MODULES = (
    "scrapy.core.downloader.handlers._aiohttp",
    "scrapy.extensions.remote_control",
)
QUIET_SECONDS = 1.0
"""Without a request, after which the rest is imported."""
_COMPONENT = re.compile(r"(scrapy|twisted)(\.\w+)+")


def main() -> None:
    ending = Ending()
    atexit.register(ending)  # the first to be registered is the last to be called
    # Ctrl-C is meant for who has started this, and its end is ours. A forked process lets it in as soon as it can.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    modules = sys.argv[1:]
    if modules[:1] == [job_process.DETACHED]:
        os.setsid()
        modules = modules[1:]
    warm_up(modules)
    server = ForkServer(socket.socket(fileno=0))
    os.write(1, READY)
    descriptors = server.serve()
    if descriptors is not None:
        with ending:
            job_process.run(_job(descriptors))


def warm_up(modules: Sequence[str]) -> None:
    """Import what a worker needs, and *modules*. Raises ``RuntimeError`` if the process is not fit for forking then."""
    from scrapy.settings import default_settings
    from scrapy.utils.misc import load_object

    for name in (*modules, *_MODULES, *_commands()):
        import_module(name)
    with suppress(ImportError):  # not every environment has it
        import_module("uvloop")
    for path in _components(vars(default_settings)):
        with suppress(ImportError, NameError):  # it wants an optional package
            load_object(path)
    # What Scrapy asks for at each start: these import more, or remember what they have found.
    platform.platform()
    version("Scrapy")
    entry_points(group="scrapy.commands")
    if "twisted.internet.reactor" in sys.modules:
        raise RuntimeError("found a Twisted reactor after the imports, expected none: each job installs its own")
    if threading.active_count() > 1:
        raise RuntimeError(f"found the threads {threading.enumerate()} after the imports, expected one: it has to fork")
    _freeze()


def warm_up_further() -> None:
    """Import what few workers need."""
    for name in _FURTHER_MODULES:
        with suppress(ImportError, NameError):  # not every environment has it
            import_module(name)
    _freeze()


def _freeze() -> None:
    """A collection in a forked process would write to each object, and so copy each page."""
    gc.collect()
    gc.freeze()


class ForkServer:
    """Forks for each request that comes from *control*, and tells how the processes have ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._running: dict[int, int] = {}  # pid -> the pipe for its status
        self._patience: float | None = QUIET_SECONDS  # ``None``: all is imported
        self._awake, self._wake = socket.socketpair()  # readable after a SIGCHLD
        for end in (self._awake, self._wake):
            end.setblocking(False)

    def serve(self) -> list[int] | None:
        """Return ``None`` when the other end is gone, or has asked for that; in a forked process, its descriptors."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake.fileno())
        retired = False
        while self._running or not retired:
            ready, _, _ = select.select([self._control, self._awake], [], [], self._patience)
            if not ready:
                self._patience = None
                warm_up_further()
            if self._awake in ready:
                self._awake.recv(4096)
                self._report()
            if self._control in ready:
                request, descriptors, _, _ = socket.recv_fds(self._control, 1, DESCRIPTORS)
                if not request:
                    return None
                if request == FORK and self._fork(descriptors):
                    return descriptors
                if request == PING:
                    self._control.sendall(b"0\n")
                retired = retired or request == RETIRE
        return None

    def _fork(self, descriptors: list[int]) -> bool:
        """Whether this is the forked process, which then has nothing of the other ones."""
        if len(descriptors) != DESCRIPTORS:  # at the limit of open files some do not arrive
            print("too many open files", file=sys.stderr, flush=True)
            for descriptor in descriptors:
                os.close(descriptor)
            self._control.sendall(b"0\n")
            return False
        *standard, status = descriptors
        try:
            pid = os.fork()
        except OSError as error:
            print(error, file=sys.stderr, flush=True)
            pid = 0
            os.close(status)
        else:
            if not pid:
                self._leave()
                return True
            self._running[pid] = status
        for descriptor in standard:
            os.close(descriptor)
        self._control.sendall(b"%d\n" % pid)
        return False

    def _leave(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in self._running.values():
            os.close(descriptor)
        self._awake.close()
        self._wake.close()
        self._control.detach()  # its descriptor becomes standard input

    def _report(self) -> None:
        """Tell the status of each process that has ended."""
        for pid, pipe in list(self._running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with suppress(BrokenPipeError):
                    os.write(pipe, b"%d" % status)
                os.close(self._running.pop(pid))


def _job(descriptors: list[int]) -> bytes:
    """In a forked process: what was sent. Raises ``SystemExit`` if this process was given up."""
    *standard, status = descriptors
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # It stays: its end tells that of the job, should the warm process end before. Nobody else has it.
    os.set_inheritable(status, False)
    os.register_at_fork(after_in_child=io.FileIO(status, "w").close)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    job = sys.stdin.buffer.read()
    if not job:
        raise SystemExit("This process was given up before it was told its job")
    return job


class Ending:
    """The end of a job: take down what it has made, as the interpreter does, and let alone what the warm process has.
    That would copy each page, for 40 % of the CPU of a short job.

    Called by ``atexit`` as the last: threads have been waited for, a traceback has been printed."""

    def __init__(self) -> None:
        self._code: int | None = None

    def __enter__(self) -> None:
        self._warm = frozenset(sys.modules)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, SystemExit):
            self._code = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif not isinstance(error, KeyboardInterrupt):  # the interpreter ends by a signal then
            self._code = int(error is not None)

    def __call__(self) -> None:
        if self._code is None:
            return
        modules = [sys.modules.pop(name) for name in set(sys.modules) - self._warm]
        namespaces = [vars(module) for module in modules if hasattr(module, "__dict__")]
        del modules
        gc.collect()
        for namespace in namespaces:
            namespace.update(dict.fromkeys(namespace.keys() - {"__builtins__"}))
        gc.collect()
        # What is still open is held by the state of a module that stays.
        kinds = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
        files = [one for one in gc.get_objects() if issubclass(type(one), kinds)]
        for kind in kinds:
            for file in files:
                if issubclass(type(file), kind):
                    with suppress(OSError, ValueError):
                        file.flush()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(self._code)


def _commands() -> Iterator[str]:
    """The modules of Scrapy's commands, all of which it imports for each."""
    import scrapy.commands

    return (f"scrapy.commands.{module.name}" for module in iter_modules(scrapy.commands.__path__))


def _components(settings: Mapping[str, Any]) -> Iterator[str]:
    """The paths of objects of Scrapy and Twisted in *settings*."""
    for value in settings.values():
        names = (*value, *value.values()) if isinstance(value, dict) else (value,)
        found = (name for name in names if isinstance(name, str) and _COMPONENT.fullmatch(name))
        yield from (name for name in found if name.rpartition(".")[0] not in _FURTHER_MODULES)


if __name__ == "__main__":
    main()

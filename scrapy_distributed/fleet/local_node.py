"""Scrapyd nodes on this machine: child processes in folders of their own, which end with whoever started them."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from functools import cache
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from scrapy_distributed.errors import ConfigError, NodeUnreachableError
from scrapy_distributed.fleet.local_credentials import make_own, write_private
from scrapy_distributed.words import shortened

HOST = "127.0.0.1"
_POLL_SECONDS = 0.05
_BIND_ATTEMPTS = 5
_SCRAPYD_CONF = """\
[scrapyd]
bind_address = {host}
http_port = {port}
node_name = {node_name}
max_proc = {max_proc}
poll_interval = {poll_interval:g}
jobs_to_keep = 100
"""
_WARM = "launcher = scrapy_distributed.warm.launcher.WarmLauncher\n"
_SCRAPY_CFG = """\
# Scrapyd reads the nearest scrapy.cfg: this one keeps it from the project around this folder. It reads it last, also
# after ~/.scrapyd.conf, so the node asks for this password. (From the environment each job would get it.)
[settings]
[scrapyd]
username = {username}
password = {password}
"""


class LocalNode:
    """One Scrapyd child, reachable from this machine only, with everything it writes in *folder*.

    *port* 0 finds a free one. *max_proc* is the number of workers at once, *poll_interval* the seconds between two
    looks at its queue; with *warm* it has the launcher of ``scrapy_distributed.warm``. Pending jobs stay in *folder*
    and start when a node is started there again.
    """

    def __init__(
        self,
        *,
        name: str,
        folder: Path,
        port: int = 0,
        max_proc: int = 2,
        poll_interval: float = 1.0,
        warm: bool = False,
        username: str = "",
        password: str = "",
    ) -> None:
        self.name = name
        self.folder = folder
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self._any_port = port == 0
        self._spawned = 0
        self._groups: set[int] = set()
        self._log_begins = 0  # of this child, in bytes
        self._node_name = ""
        self._max_proc = max_proc
        self._poll_interval = poll_interval
        self._warm = warm
        self._username = username
        self._password = password

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """What Scrapyd prints; the logs of jobs are in ``logs/`` beside it."""
        return self.folder / "scrapyd.log"

    def spawn(self) -> None:
        """Start the child; ``wait`` tells when it answers.

        Raises ``ConfigError`` if Scrapyd is not installed, the port is taken, or its folder is not ours alone."""
        require_scrapyd()
        self.port = _free_port(0 if self._any_port else self.port)
        self._spawned += 1
        # Tells this child from another Scrapyd that got the port first.
        self._node_name = f"{self.name}-{secrets.token_hex(3)}"
        make_own(self.folder)
        conf = _SCRAPYD_CONF.format(
            host=HOST,
            port=self.port,
            node_name=self._node_name,
            max_proc=self._max_proc,
            poll_interval=self._poll_interval,
        )
        (self.folder / "scrapyd.conf").write_text(conf + _WARM if self._warm else conf)
        write_private(self.folder / "scrapy.cfg", self._scrapy_cfg())
        with self.log.open("ab") as log:
            self._log_begins = log.seek(0, os.SEEK_END)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scrapy_distributed.fleet.local_scrapyd", "--pidfile="],
                cwd=self.folder,
                env=self._environment(),
                stdin=_lifeline(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # its workers are in its process group, and outlive it: see end()
            )
        self._groups.add(self.process.pid)

    def wait(self, deadline: float, pause: Callable[[float], None] = time.sleep) -> None:
        """Return when the node answers; *deadline* is a ``time.monotonic()``, *pause* sleeps for some seconds.

        Raises ``NodeUnreachableError`` with the tail of its log if it ends, or does not answer in time."""
        while not (self._listens() and self._answers()):
            if self.exited is not None:
                if not (self._any_port and self._port_was_taken() and self._spawned < _BIND_ATTEMPTS):
                    raise NodeUnreachableError(self.name, f"Scrapyd did not start: {self.log_tail()}")
                self.spawn()
            if time.monotonic() > deadline:
                raise NodeUnreachableError(self.name, f"Scrapyd does not answer at {self.url}: {self.log_tail()}")
            pause(_POLL_SECONDS)
        self._any_port = False  # others know it now

    @property
    def exited(self) -> int | None:
        """The exit status of the child, ``None`` while it runs or was not started."""
        return self.process.poll() if self.process else None

    def log_tail(self, max_bytes: int = 2000) -> str:
        """The end of Scrapyd's own output, and where the rest is."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - max_bytes))
            tail = log.read().decode("utf-8", "replace").strip()
        return f"see {self.log}\n{tail}"

    def signal(self, number: int) -> bool:
        """Send *number* (0: nothing) to the node and its workers, also those that an earlier node of this object left;
        ``False`` if none is left."""
        if self.process is not None:
            self.process.poll()  # reaps it: a zombie would count as alive
        for group in tuple(self._groups):
            try:
                os.killpg(group, number)
            except (ProcessLookupError, PermissionError):  # macOS answers the latter for a group of zombies
                self._groups.discard(group)
        return bool(self._groups)

    def _environment(self) -> dict[str, str]:
        """Ours, without what a Scrapy command set for itself and what would override ``scrapyd.conf``."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SCRAPY_", "SCRAPYD_"))}
        # ~/.scrapyd.conf is read after scrapyd.conf; the environment wins over both.
        return kept | {"SCRAPYD_BIND_ADDRESS": HOST, "SCRAPYD_HTTP_PORT": str(self.port)}

    def _scrapy_cfg(self) -> str:
        """Raises ``ConfigError`` for a username or password that Scrapyd would read as another one."""
        text = _SCRAPY_CFG.format(
            username=self._username.replace("%", "%%"), password=self._password.replace("%", "%%")
        )
        parser = ConfigParser()
        try:
            parser.read_string(text)
            read = [parser.get("scrapyd", name) for name in ("username", "password")]
        except ConfigParserError:
            read = []
        if read != [self._username, self._password]:
            raise ConfigError(
                "the username or the password can't stand in Scrapyd's configuration: expected one line, and no blank"
                " at its ends"
            )
        return text

    def _listens(self) -> bool:
        """Whether it says that it has the port: whoever was faster would get the password with the first question."""
        with self.log.open("rb") as log:
            log.seek(self._log_begins)
            return f"Site starting on {self.port}\n".encode() in log.read()

    def _answers(self) -> bool:
        connection = HTTPConnection(HOST, self.port, timeout=2)
        headers = {}
        if self._username:
            headers["Authorization"] = "Basic " + b64encode(f"{self._username}:{self._password}".encode()).decode()
        try:
            connection.request("GET", "/daemonstatus.json", headers=headers)
            answer = json.loads(connection.getresponse().read())
        except (OSError, ValueError, HTTPException):
            return False
        finally:
            connection.close()
        return isinstance(answer, dict) and answer.get("node_name") == self._node_name

    def _port_was_taken(self) -> bool:
        return "CannotListenError" in self.log_tail(4000)


def start(
    nodes: Sequence[LocalNode], *, deadline_seconds: float = 60, pause: Callable[[float], None] = time.sleep
) -> None:
    """Start all *nodes* at once and return when every one answers; raises what ``spawn``, ``wait`` and *pause* raise.
    *pause* sleeps for some seconds."""
    deadline = time.monotonic() + deadline_seconds
    for node in nodes:
        node.spawn()
    for node in nodes:
        node.wait(deadline, pause)


def end(nodes: Sequence[LocalNode], *, grace_seconds: float = 10) -> list[str]:
    """End all *nodes* and their workers: TERM, and KILL after *grace_seconds*. Return the names of those that could not
    be ended.

    Scrapyd does not stop its workers when it ends, so the whole process group is signalled until it is empty."""
    for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
        left = [node for node in nodes if node.signal(number)]
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            left = [node for node in left if node.signal(0)]
        if not left:
            return []
    return [node.name for node in left]


@cache
def _lifeline() -> int:
    """The standard input of every node: a pipe whose other end this process has until it is gone, however it ends."""
    return os.pipe()[0]


def require_scrapyd() -> None:
    """Raise ``ConfigError`` if Scrapyd, or the ``pkg_resources`` that it needs, can't be imported here."""
    for module in ("scrapyd", "pkg_resources"):
        if importlib.util.find_spec(module) is None:
            advice = 'pip install "scrapy-distributed-batches[nodes]"'
            raise ConfigError(f"a local node needs {module}, which is not installed: {advice}")


def _free_port(port: int) -> int:
    """*port* if it is free, for 0 any that is. It may be taken before the child binds it: ``wait`` copes."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Twisted binds
        try:
            probe.bind((HOST, port))
        except OSError as error:
            advice = "end what listens there, or choose another --port (0: any that is free)"
            raise ConfigError(f"port {port} can't be used ({shortened(str(error))}): {advice}") from None
        return int(probe.getsockname()[1])

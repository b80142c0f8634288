"""A real Scrapyd as a child process, for tests: started in a folder of its own, ended with its workers."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scrapy_distributed.fleet.local_node import LocalNode, end
from scrapy_distributed.fleet.local_node import start as start_nodes
from scrapy_distributed.fleet.node import NodeAddress


class ScrapydChild:
    """``url``, ``port``, ``dir`` and ``process`` of a running node, and ways to end it."""

    def __init__(self, node: LocalNode, username: str, password: str) -> None:
        self._node = node
        self.name = node.name
        self.dir = node.folder
        self.url = node.url
        self.port = node.port
        self.address = NodeAddress(name=node.name, url=node.url, username=username, password=password)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._node.process is not None
        return self._node.process

    def log_text(self) -> str:
        """What Scrapyd itself printed."""
        return self._node.log.read_text(errors="replace")

    def stop(self) -> None:
        """End the node and its workers."""
        assert end([self._node], grace_seconds=5) == []

    def kill(self) -> None:
        """kill -9 the node alone: its workers live on, as they do for real. ``stop`` ends them."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        """Start a node in the same folder and on the same port again, after ``stop`` or ``kill``."""
        start_nodes([self._node])


@contextmanager
def start(
    tmp_path: Path,
    max_proc: int = 2,
    poll_interval: float = 0.1,
    username: str | None = None,
    password: str | None = None,
    name: str = "scrapyd1",
    port: int = 0,
    warm: bool = False,
) -> Iterator[ScrapydChild]:
    """A Scrapyd on a free port (or *port*) of 127.0.0.1 in the folder *tmp_path*/*name*, which answers."""
    node = LocalNode(
        name=name,
        folder=tmp_path / name,
        port=port,
        max_proc=max_proc,
        poll_interval=poll_interval,
        username=username or "",
        password=password or "",
        warm=warm,
    )
    try:
        start_nodes([node])
        child = ScrapydChild(node, username or "", password or "")
        yield child
    finally:
        assert end([node], grace_seconds=5) == []

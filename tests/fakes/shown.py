"""A snapshot in the words of ``scrapy monitor``."""

from __future__ import annotations

from scrapy_distributed.monitor.node_state import line
from scrapy_distributed.monitor.snapshot import Snapshot


def plain(snapshot: Snapshot) -> list[str]:
    """One line per node."""
    return [line(node, snapshot.project) for node in snapshot.nodes]

"""The streams of a Valkey into which shared runs put their items."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis import Redis
from valkey_child import ValkeyChild


class Entry(NamedTuple):
    """One of a stream: its item as JSON, the job that has brought it, and which entry of that job it is."""

    item: bytes
    kind: str
    run: str
    spider: str
    batch: str
    job: str
    number: int

    @property
    def fields(self) -> Any:
        return json.loads(self.item)


def entries(queue: ValkeyChild) -> list[Entry]:
    """Those of all streams of *queue*, in their order, as any client reads them."""
    with Redis(unix_socket_path=str(queue.path)) as client:
        keys: Any = client.keys("*:items")
        found: Sequence[Any] = [row for key in sorted(keys) for _, row in client.xrange(key)]
    return [
        Entry(
            item=row[b"item"], kind=row[b"class"].decode(), run=row[b"run"].decode(), spider=row[b"spider"].decode(),
            batch=row[b"batch"].decode(), job=row[b"job"].decode(), number=int(row[b"number"]),
        ) for row in found
    ]  # fmt: skip


def each_once(found: Sequence[Entry]) -> Sequence[Entry]:
    """*found*, none of which is there twice, and none of a job is missing before another one."""
    names = Counter((entry.job, entry.number) for entry in found)
    assert not [name for name, times in names.items() if times > 1]
    of_job = Counter(entry.job for entry in found)
    assert all({number for job, number in names if job == one} == set(range(1, of_job[one] + 1)) for one in of_job)
    return found

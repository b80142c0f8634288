"""What is read of a ledger. Texts of attempts and outcomes may be a node's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scrapy_distributed.ledger.states import label
from scrapy_distributed.wire.receipt import FeedFile


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run. *identity*: project, spider and what else tells it from others. *started*, *walked* (when the crawl on the
    coordinator had found all) and *ended* are seconds since the epoch."""

    id: int
    name: str
    identity: Mapping[str, Any]
    started: float
    walked: float | None
    ended: float | None


@dataclass(frozen=True, kw_only=True)
class BatchRecord:
    """A closed batch: numbers of requests by what has become of them, and node, state and reason of its last attempt.
    *parent*: the batch that it was made of alone; *avoid*: the node where its requests failed before."""

    number: int
    parent: int | None
    state: str
    size: int
    avoid: str | None
    crawled: int
    failed: int
    filtered: int
    dead: int
    moved: int
    attempts: int
    node: str | None
    attempt_state: str | None
    reason: str | None
    items: int | None


@dataclass(frozen=True, kw_only=True)
class AttemptRecord:
    """An attempt. Times are seconds since the epoch; *size* is in requests; *log*: where the node serves the log of the
    job, ``None`` if it never ran or nobody knows."""

    number: int
    label: str
    job: str
    node: str
    url: str
    state: str
    reason: str | None
    size: int
    bound: float
    ended: float | None
    items: int | None
    feeds: tuple[FeedFile, ...]
    unexported: int
    followed: Mapping[str, int]
    log: str | None


@dataclass(frozen=True, kw_only=True)
class OutcomeRecord:
    """A request that failed, was filtered or is dead. *again*: nothing of it is in a feed, so it may be tried again."""

    batch: int
    position: int
    state: str
    reason: str
    url: str
    again: bool


@dataclass(frozen=True, kw_only=True)
class AcceptedAttempt:
    """What an attempt that counts has brought: *items* that its job scraped, the files of its *feeds*, and how many
    items are missing in these (*unexported*). All are a worker's words."""

    batch: int
    number: int
    items: int
    feeds: tuple[FeedFile, ...]
    unexported: int = 0

    @property
    def label(self) -> str:
        return label(self.batch, self.number)

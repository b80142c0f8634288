"""What is read of a ledger. Texts of attempts and outcomes may be a node's words, and the whole file somebody else's:
SQLite keeps any value in any column. So each record raises ``ValueError`` for what can't be told or counted with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scrapy_distributed.ledger.states import label
from scrapy_distributed.wire.receipt import FeedFile

MAX_COUNT = 2**100  # also of sums of what receipts may hold
LAST_TIME = 253_402_300_799  # the end of the year 9999, in seconds since the epoch


def check_counts(*values: Any) -> None:
    """Raise ``ValueError`` for what is no count."""
    for value in values:
        if type(value) is not int or not 0 <= value < MAX_COUNT:
            raise ValueError(f"found {value!r:.60}, expected a whole number of at least 0")


def check_times(*values: Any) -> None:
    """Raise ``ValueError`` for what is no time."""
    for value in values:
        if type(value) not in (int, float) or not 0 <= value <= LAST_TIME:
            raise ValueError(f"found {value!r:.60}, expected a time, in seconds since 1970")


def check_amounts(*values: Any) -> None:
    """Raise ``ValueError`` for what is no amount."""
    for value in values:
        if type(value) not in (int, float) or not 0 <= value < MAX_COUNT:
            raise ValueError(f"found {value!r:.60}, expected a number of at least 0")


def check_texts(*values: Any) -> None:
    """Raise ``ValueError`` for what is no text."""
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"found {value!r:.60}, expected a text")


def _given(*values: Any) -> list[Any]:
    """Those that are not left out."""
    return [value for value in values if value is not None]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run. *identity*: project, spider and what else tells it from others. *started*, *walked* (when the crawl on the
    coordinator had found all) and *ended* are seconds since the epoch; *stopped*: why nothing more of it is crawled,
    where a limit or the spider has ended it early."""

    id: int
    name: str
    identity: Mapping[str, Any]
    started: float
    walked: float | None
    ended: float | None
    stopped: str | None

    def __post_init__(self) -> None:
        check_counts(self.id)
        check_texts(self.name, *_given(self.stopped))
        check_times(self.started, *_given(self.walked, self.ended))


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

    def __post_init__(self) -> None:
        check_counts(self.number, self.size, self.attempts, *_given(self.parent, self.items))
        check_counts(self.crawled, self.failed, self.filtered, self.dead, self.moved)
        check_texts(self.state, *_given(self.avoid, self.node, self.attempt_state, self.reason))


@dataclass(frozen=True, kw_only=True)
class AttemptRecord:
    """An attempt. Times are seconds since the epoch; *size* is in requests; *home*: how many of its items came home,
    ``None`` where they do not; *twice*: how many did not, as their page had brought them before; *log*: where its
    Scrapyd serves the log of the job, ``None`` if it never ran, ran elsewhere, or nobody knows."""

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
    home: int | None
    twice: int
    log: str | None

    def __post_init__(self) -> None:
        check_counts(self.number, self.size, self.unexported, self.twice, *self.followed.values())
        check_counts(*_given(self.items, self.home))
        check_texts(self.node, self.url, self.state, *_given(self.reason), *self.followed)
        check_times(self.bound, *_given(self.ended))


@dataclass(frozen=True, kw_only=True)
class OutcomeRecord:
    """A request that failed, was filtered, is dead or was not crawled. *batch*: 0 where it was in none yet. *again*:
    nothing of it is in a feed, so it may be tried again."""

    batch: int
    position: int
    state: str
    reason: str
    url: str
    again: bool

    def __post_init__(self) -> None:
        check_counts(self.batch, self.position)
        check_texts(self.state, self.reason)


@dataclass(frozen=True, kw_only=True)
class AcceptedAttempt:
    """What an attempt that counts has brought: *items* that its job scraped, the files of its *feeds*, how many items
    are missing in these (*unexported*), and how many are in the spool (*home*, ``None`` where they do not come home),
    in a file of that *size* (bytes) and *digest*.
    But for these, and the *token* of the attempt, all are a worker's words."""

    batch: int
    number: int
    token: str = ""
    items: int
    feeds: tuple[FeedFile, ...]
    unexported: int = 0
    home: int | None = None
    size: int | None = None
    digest: str | None = None

    def __post_init__(self) -> None:
        check_counts(self.batch, self.number, self.items, self.unexported, *_given(self.home))
        check_texts(self.token)
        if self.home is not None and not (self.token.isascii() and self.token.isalnum()):
            raise ValueError(f"found the token {self.token!r:.60}, expected letters and digits: it names a file")

    @property
    def label(self) -> str:
        return label(self.batch, self.number)

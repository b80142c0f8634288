"""What a coordinator shows of its run while it runs: one file of JSON beside its ledger, replaced as a whole every few
seconds. Other processes read it: no signal, no port, no lock."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.balance import Balance
from scrapy_distributed.ledger.count import Count
from scrapy_distributed.ledger.records import check_amounts, check_counts, check_texts, check_times
from scrapy_distributed.ledger.sqlite_schema import check_owner
from scrapy_distributed.words import shortened

FORMAT = 1
MAX_BYTES = 256 * 1024 * 1024


CHECKS: Mapping[str, Callable[..., None]] = {
    **dict.fromkeys(("name", "url", "state", "why", "next", "job", "node", "what", "words"), check_texts),
    **dict.fromkeys(("since", "next_at", "sent", "heard", "time"), check_times),
    **dict.fromkeys(("slots", "running", "started", "waiting", "batch", "attempt", "size"), check_counts),
    **dict.fromkeys(("settled", "items", "pages"), check_counts),
    "rate": check_amounts,
}


class NodeRow(NamedTuple):
    """A node of the run. *state*: ``well``, ``trouble``, ``doubt``, ``drained`` or ``closing``; *why* ('' where that
    needs no word) and since when; what is *next*, and when, ``None`` where nobody knows. *slots*: that it has, as far
    as is known; *running*: jobs there, whosever; *started* and *waiting*: jobs of the run."""

    name: str
    url: str
    state: str
    why: str
    since: float
    next: str
    next_at: float | None
    slots: int
    running: int
    started: int
    waiting: int


class JobRow(NamedTuple):
    """An attempt under way: its *state* in a word, and as its last receipt says how many of *size* requests it has
    *settled*, *items*, *pages*, and requests settled a minute (*rate*). *sent*, *heard* (its last sign of life)."""

    job: str
    batch: int
    attempt: int
    node: str
    state: str
    size: int
    settled: int
    items: int
    pages: int
    rate: float
    sent: float
    heard: float


class Event(NamedTuple):
    """Something that has happened to *what*, a node or a batch, in *words*."""

    time: float
    what: str
    words: str

    def check(self) -> None:
        """Raise ``ValueError`` for what is no event."""
        check_times(self.time)
        check_texts(self.what, self.words)


@dataclass(frozen=True, kw_only=True)
class Board:
    """What was under way of *run* when it was *written*. Times are seconds since 1970."""

    run: str
    written: float
    count: Count
    nodes: tuple[NodeRow, ...]
    jobs: tuple[JobRow, ...]
    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        check_texts(self.run)
        check_times(self.written)
        for rows in (self.nodes, self.jobs, self.events):
            for name, values in _columns(rows).items():
                CHECKS[name](*values)


def _columns(rows: Sequence[Any]) -> Mapping[str, Sequence[Any]]:
    """The values of each field of *rows*, as far as they are given: so they are checked in a tenth of the time."""
    if not rows:
        return {}
    columns = dict(zip(rows[0]._fields, zip(*rows, strict=True), strict=True))
    if "next_at" in columns:
        columns["next_at"] = tuple(value for value in columns["next_at"] if value is not None)
    return columns


def board_path(ledger: Path) -> Path:
    return ledger.with_name(f"{ledger.name}.board")


def write_board(ledger: Path, board: Board) -> None:
    """In the place of the one before, for its owner's eyes alone. Raises ``OSError``."""
    path = board_path(ledger)
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)  # a link would be followed
    data = {**vars(board), "count": asdict(board.count), "format": FORMAT}
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(json.dumps(data, separators=(",", ":")))
    draft.replace(path)


def read_board(ledger: Path) -> Board | None:
    """The last one; ``None`` where there is none. Raises ``LedgerError`` for what is none of ours."""
    path = board_path(ledger)
    try:
        check_owner(path)
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES)
        data = json.loads(text)
        found = data.pop("format")
        if found != FORMAT:
            raise ValueError(f"found format {found!r:.60}, expected {FORMAT}")
        rows = {"nodes": NodeRow, "jobs": JobRow, "events": Event}
        data.update({name: tuple(kind(*row) for row in data[name]) for name, kind in rows.items()})
        count = data["count"]
        data["count"] = Count(**count | {"balance": Balance(**count["balance"])})
        return Board(**data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise LedgerError(f"{path}: can't be read: {shortened(str(error))}; delete it, it is made anew") from None

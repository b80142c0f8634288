"""What the last run of a ledger is doing, as the ledger and what lies beside it tell: also while no crawl runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.balance import Balance
from scrapy_distributed.ledger.board import Board, Event, read_board
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.records import RunRecord
from scrapy_distributed.ledger.sqlite_schema import is_held
from scrapy_distributed.ledger.wishes import Wishes
from scrapy_distributed.words import escaped, shortened

RUNNING = "running"
REASONS = 20
EVENTS = 20


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run at one moment. *ledger*: where it is. *state*: ``running``, ``interrupted`` (the same command goes on with
    it), ``stopped`` or ``over``. *balance*: of the ledger. *reasons*: of what failed, was filtered or is dead:
    ``failed: http 404`` to the number of requests, the most frequent ones. *board*: what its coordinator showed last,
    of nodes, jobs and how far it was; ``None`` where it has shown nothing. *events*: what has happened last, oldest
    first. *problem*: why the rest is not there."""

    ledger: str
    run: RunRecord | None = None
    state: str = ""
    balance: Balance | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    board: Board | None = None
    events: tuple[Event, ...] = ()
    problem: str | None = None

    @property
    def line(self) -> str:
        """In words; what a ledger holds can't control a terminal."""
        name = escaped(Path(self.ledger).stem if self.run is None else self.run.identity["spider"])
        if self.problem is not None:
            return f"crawl {name} failing: {escaped(self.problem)}"
        assert self.balance is not None
        count = "begun" if self.board is None else str(self.board.count)
        return f"crawl {name}: {count if self.state == RUNNING else f'{self.state}, {self.balance}'}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON. Times are UTC, in ISO 8601; in rows of nodes, jobs and events, of which there may be thousands,
        seconds since 1970."""
        run, board = self.run, self.board
        return {
            "ledger": self.ledger,
            "problem": self.problem,
            "run": None if run is None else run.name,
            "project": None if run is None else run.identity["project"],
            "spider": None if run is None else run.identity["spider"],
            "state": self.state or None,
            "started": None if run is None else _iso(run.started),
            "ended": None if run is None else _iso(run.ended),
            "stopped": None if run is None else run.stopped,
            "requests": None if self.balance is None else _states(self.balance),
            "reasons": self.reasons,
            "progress": None if board is None else _progress(board),
            "nodes": [] if board is None else [node._asdict() for node in board.nodes],
            "jobs": [] if board is None else [job._asdict() for job in board.jobs],
            "events": [event._asdict() for event in self.events],
        }


def run_states(ledgers: Sequence[Path], project: str | None) -> list[RunState]:
    """Of the last run of each of *ledgers* that is there, if it is one of *project* (``None``: of any)."""
    return [run for path in ledgers if path.is_file() and (run := _run_state(path, project)) is not None]


def _run_state(ledger: Path, project: str | None) -> RunState | None:
    """What can't be read is its problem; nothing is raised for it."""
    try:
        with closing(LedgerReader(ledger)) as reader:
            runs = reader.runs()
            if not runs:
                return None
            board = read_board(reader.path)
            held = is_held(reader.path)
            # Of several unfinished runs the command that began it goes on with one: the board names it.
            shown = [run for run in runs if held and board is not None and run.name == board.run]
            run = (shown or runs)[-1]
            return _read(reader, run, board, held=held) if project in (None, run.identity["project"]) else None
    except (LedgerError, OSError) as error:
        return RunState(ledger=str(ledger), problem=shortened(str(error)))


def _read(reader: LedgerReader, run: RunRecord, board: Board | None, *, held: bool) -> RunState:
    if board is not None and board.run != run.name:  # an earlier one's
        board = None
    shown = () if board is None else board.events
    wished = [
        Event(asked, f"wish {what} {'' if about.startswith('{') else about}".rstrip(), answer or "not answered yet")
        for asked, what, about, answer in Wishes(reader.path).last(EVENTS)
        if asked >= run.started
    ]
    events = sorted([*shown, *wished, *reader.failed_attempts(run.id, EVENTS)])[-EVENTS:]
    state = _state(run, held)
    return RunState(
        ledger=reader.place,
        run=run,
        state=state,
        balance=board.count.balance if board is not None and state == RUNNING else reader.states(run.id),
        reasons={f"{state}: {reason}": number for state, reason, number in reader.reasons(run.id, REASONS)},
        board=board,
        events=tuple(events),
    )


def _state(run: RunRecord, held: bool) -> str:
    if run.ended is not None:
        return "stopped" if run.stopped is not None else "over"
    return RUNNING if held else "interrupted"


def _states(balance: Balance) -> dict[str, int]:
    return {name: number for name, number in balance.as_dict().items() if name != "difference"}


def _progress(board: Board) -> dict[str, Any]:
    count = board.count
    return {
        "time": _iso(count.time), "settled": count.settled, "items": count.items, "rate": count.rate,
        "seconds_left": count.seconds_left, "rests_on": count.rests_on, "at_work": count.at_work, "slots": count.slots,
        "walked": count.walked, "paused": count.paused, "shown": _iso(board.written),
    }  # fmt: skip


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")

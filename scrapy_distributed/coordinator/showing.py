"""What is under way, put on the board for who looks on: a row of each node and of each attempt, and what changed."""

from __future__ import annotations

import logging
import time
from collections import deque
from pathlib import Path
from typing import Any

from scrapy import Spider

from scrapy_distributed.coordinator.progress import Progress
from scrapy_distributed.dispatch.flight import Flight
from scrapy_distributed.dispatch.members import Fleet, Member
from scrapy_distributed.fleet.trust import Proof
from scrapy_distributed.ledger.board import Board, Event, JobRow, NodeRow, write_board
from scrapy_distributed.words import shortened

logger = logging.getLogger(__name__)

OFTEN = 2.0  # seconds
SELDOM = 200  # times as long as it takes: a large fleet is shown less often
KEPT = 50  # events
NEXT = {
    Proof.TAKES: "then it gets one job, to see whether it takes it",
    Proof.STARTS: "then it gets one job, to see whether it starts it",
    Proof.DELIVERS: "then it gets one job, to see whether its receipt counts",
}


class Showing:
    """Of the nodes of *fleet* and of how far the run is by *progress*, beside *ledger*."""

    def __init__(self, ledger: Path, *, fleet: Fleet, progress: Progress, spider: Spider, clock: Any) -> None:
        self.ledger = ledger
        self.fleet = fleet
        self.progress = progress
        self.clock = clock
        self._run = ""
        self._due = 0.0
        self._states: dict[str, tuple[str, str, float]] = {}  # of a node by URL: state, why, since when
        self._lost: set[str] = set()  # jobs
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._failed = False  # that is said once
        self._extra = {"spider": spider}

    def begin(self, run: str) -> None:
        self._run = run
        self.progress.start()

    def end(self) -> None:
        self.progress.stop()
        self.show()

    def look(self) -> None:
        """Show what has changed, if it is time to."""
        began = self.clock.seconds()
        if began >= self._due:
            self.show()
            self._due = began + max(OFTEN, SELDOM * (self.clock.seconds() - began))

    def show(self) -> None:
        count = self.progress.last
        if count is None or not self._run:
            return
        ahead = time.time() - self.clock.seconds()  # what the clock lacks to the time of day
        board = Board(
            run=self._run,
            written=time.time(),
            count=count,
            nodes=tuple(self._node(member, ahead) for member in self.fleet.members),
            jobs=tuple(self._job(member, flight, ahead) for member, flight in self.fleet.flights()),
            events=tuple(self._events),
        )
        try:
            write_board(self.ledger, board)
        except OSError as error:
            if not self._failed:
                self._failed = True
                logger.warning(
                    "What is under way can't be shown to other processes (scrapy monitor): %s. The crawl goes on",
                    error, extra=self._extra,
                )  # fmt: skip

    def _node(self, member: Member, ahead: float) -> NodeRow:
        trust = member.trust
        state, why = _standing(member)
        before = self._states.get(member.carrier.url)
        since = time.time() if before is None or before[:2] != (state, why) else before[2]
        if before is not None and before[0] != state:
            self._events.append(Event(since, member.name, f"{state}{why and ': '}{shortened(why)}"))
        self._states[member.carrier.url] = (state, why, since)
        ours = [flight for flight in member.flights.values() if flight.counts]
        return NodeRow(
            name=member.name, url=member.carrier.url, state=state, why=why, since=since, next=_next(member),
            next_at=trust.again_at + ahead if trust.trouble else None, slots=member.pace.slots,
            running=member.pace.running, started=sum(flight.started for flight in ours),
            waiting=sum(flight.waiting for flight in ours),
        )  # fmt: skip

    def _job(self, member: Member, flight: Flight, ahead: float) -> JobRow:
        attempt = flight.attempt
        if flight.lost and flight.job not in self._lost:
            self._lost.add(flight.job)
            words = f"no sign of life on {member.name}: its requests go to another attempt"
            self._events.append(Event(time.time(), f"batch {attempt.label}", words))
        return JobRow(
            job=flight.job, batch=attempt.batch, attempt=attempt.number, node=member.name, state=_state(flight),
            size=attempt.size, settled=flight.settled, items=flight.items, pages=flight.pages,
            rate=round(60 * flight.rate, 3), sent=flight.sent_at + ahead, heard=flight.evidence + ahead,
        )  # fmt: skip


def _state(flight: Flight) -> str:
    """In a word."""
    if flight.lost or flight.fenced:
        return "lost" if flight.lost else "superseded"
    if flight.dismissed or flight.stalled:
        return "ending"
    if flight.started:
        return "at work" if flight.at_work else "starting"
    return "waiting" if flight.confirmed else "sending"


def _standing(member: Member) -> tuple[str, str]:
    """Its state, and why."""
    if member.closing:
        return "closing", "the crawl ends"
    if member.trust.trouble:
        return "trouble", member.trust.trouble
    if member.drained:
        return "drained", "by an operator's wish"
    return ("doubt", member.trust.reported) if member.trust.doubt else ("well", "")


def _next(member: Member) -> str:
    """What happens there by itself."""
    if member.trust.trouble:
        return f"it is asked again; {NEXT[member.trust.needs]}"
    if member.drained:
        return "nothing, until scrapy fleet undrain"
    if member.trust.doubt:
        return NEXT[member.trust.needs].removeprefix("then ")
    return ""

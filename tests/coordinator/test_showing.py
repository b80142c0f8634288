"""What other processes see of a crawl's nodes and jobs."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from carriers import idle_member
from scrapy import Spider
from twisted.internet.task import Clock

from scrapy_distributed.coordinator.showing import OFTEN, SELDOM, Showing
from scrapy_distributed.dispatch.flight import Flight
from scrapy_distributed.dispatch.members import Fleet, Member
from scrapy_distributed.fleet.trust import Proof
from scrapy_distributed.ledger.balance import Balance
from scrapy_distributed.ledger.board import Board, NodeRow, board_path, read_board
from scrapy_distributed.ledger.count import Count
from scrapy_distributed.ledger.states import Attempt, AttemptState
from scrapy_distributed.wire.receipt import Receipt

BALANCE = Balance(diverted=20, duplicates=0, queued=8, in_flight=8, crawled=4, failed=0, filtered=0, dead=0)
COUNT = Count(
    time=9.0, balance=BALANCE, reported=1, items=4, rate=2.5, at_work=1, slots=4, walked=True, paused=False
)  # fmt: skip


class Shown:
    """Two nodes, n0 and n1."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.fleet = Fleet([idle_member(number) for number in range(2)])
        self.counting: list[bool] = []
        self.progress = SimpleNamespace(
            last=COUNT, start=lambda: self.counting.append(True), stop=lambda: self.counting.append(False)
        )
        self.ledger = folder / "s.sqlite"
        progress: Any = self.progress
        self.showing = Showing(self.ledger, fleet=self.fleet, progress=progress, spider=Spider("s"), clock=self.clock)

    def board(self) -> Board:
        self.showing.show()
        board = read_board(self.ledger)
        assert board is not None
        return board

    def node(self) -> NodeRow:
        return self.board().nodes[0]


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    shown = Shown(tmp_path)
    shown.showing.begin("r")
    return shown


def flies(member: Member, batch: int, now: float = 0.0) -> Flight:
    attempt = Attempt(run="r", batch=batch, number=1, token="ab", node="n0", state=AttemptState.SENT, positions=0b111)
    member.add(flight := Flight(attempt=attempt, sent_at=now, evidence=now))
    return flight


def test_before_the_run_there_is_nothing_to_show(tmp_path: Path) -> None:
    shown = Shown(tmp_path)
    shown.showing.look()
    shown.showing.begin("r")
    shown.progress.last = None
    shown.showing.show()
    assert list(tmp_path.iterdir()) == []


def test_the_last_of_a_crawl_stays(shown: Shown) -> None:
    shown.fleet.members[0].closing = True
    shown.showing.end()
    board = read_board(shown.ledger)
    assert board is not None
    assert (board.run, board.nodes[0].state, shown.counting) == ("r", "closing", [True, False])


def test_a_node_that_fails_and_what_comes_then(shown: Shown) -> None:
    trust = shown.fleet.members[0].trust
    assert shown.node()[2:4] == ("well", "")
    trust.fail("connection refused", 0.0)
    node = shown.node()
    assert node[2:4] == ("trouble", "connection refused")
    assert node.next == "it is asked again; then it gets one job, to see whether it takes it"
    assert node.next_at == pytest.approx(time.time() + 1, abs=0.5)
    trust.fail("its jobs come to nothing", 2.0, needs=Proof.DELIVERS)
    trust.recover(9.0)
    node = shown.node()
    assert node[2:4] == ("doubt", "its jobs come to nothing")
    assert (node.next, node.next_at) == ("it gets one job, to see whether its receipt counts", None)
    trust.worked(Proof.DELIVERS)
    assert shown.node()[2:4] == ("well", "")
    shown.fleet.members[0].drained = True
    assert shown.node()[2:4] == ("drained", "by an operator's wish")
    shown.fleet.members[0].closing = True
    assert shown.node().state == "closing"
    assert [(event.what, event.words) for event in shown.board().events] == [
        ("n0", "trouble: connection refused"),
        ("n0", "doubt: its jobs come to nothing"),
        ("n0", "well"),
        ("n0", "drained: by an operator's wish"),
        ("n0", "closing: the crawl ends"),
    ]


def test_since_when_a_node_is_so(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    assert shown.node().since == now
    first, now = now, now + 10
    assert shown.node().since == first
    shown.fleet.members[0].trust.fail("gone", 0.0)
    assert shown.node().since == now


def test_a_job_and_what_it_has_done(shown: Shown) -> None:
    flight = flies(shown.fleet.members[0], 1)
    fields = ("state", "settled", "items", "pages", "rate")

    def job() -> tuple[Any, ...]:
        (row,) = shown.board().jobs
        assert (row.job, row.batch, row.attempt, row.node, row.size) == ("r-000001-1-ab", 1, 1, "n0", 3)
        return tuple(getattr(row, name) for name in fields)

    assert job() == ("sending", 0, 0, 0, 0)
    flight.arrived()
    assert job()[0] == "waiting"
    assert shown.node()[-2:] == (0, 1)
    flight.runs(1.0)
    assert job()[0] == "starting"
    for now, settled in ((2.0, 0b1), (4.0, 0b11)):
        receipt = Receipt(
            job=flight.job, size=3, settled=settled, sequence=int(now), activity=int(now), final=False, items=4, pages=5
        )  # fmt: skip
        flight.reports(receipt)
        flight.acts(receipt, now, stall=100.0)
    assert job() == ("at work", 2, 4, 5, 30.0)
    assert shown.node()[-2:] == (1, 0)
    flight.dismiss()
    assert job()[0] == "ending"
    flight.lose()
    assert job()[0] == "lost"
    assert [(event.what, event.words) for event in shown.board().events] == [
        ("batch 1", "no sign of life on n0: its requests go to another attempt")
    ]
    flight.lost = False
    flight.fence()
    assert job()[0] == "superseded"


def test_times_are_those_of_the_day(shown: Shown) -> None:
    shown.clock.advance(1000)
    flies(shown.fleet.members[0], 1, now=990.0)
    (job,) = shown.board().jobs
    assert (job.sent, job.heard) == pytest.approx((time.time() - 10, time.time() - 10), abs=1)


def test_it_is_shown_often_and_less_so_where_that_takes_long(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    shows: list[float] = []
    took = 0.0

    def show() -> None:
        shows.append(shown.clock.seconds())
        shown.clock.rightNow += took

    monkeypatch.setattr(shown.showing, "show", show)
    for _ in range(5):
        shown.showing.look()
        shown.clock.advance(OFTEN / 2)
    assert shows == [0.0, OFTEN, 2 * OFTEN]
    took = 1.0
    shown.clock.advance(OFTEN)
    shown.showing.look()
    shown.clock.advance(SELDOM - 2)
    shown.showing.look()
    assert len(shows) == 4
    shown.clock.advance(1)
    shown.showing.look()
    assert len(shows) == 5


def test_where_it_can_not_be_written_the_crawl_goes_on(shown: Shown, caplog: pytest.LogCaptureFixture) -> None:
    board_path(shown.ledger).mkdir()
    shown.showing.show()
    shown.showing.show()
    (said,) = caplog.messages
    assert said.startswith("What is under way can't be shown to other processes (scrapy monitor): ")
    board_path(shown.ledger).rmdir()
    assert shown.board().run == "r"

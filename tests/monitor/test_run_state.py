"""What ``scrapy monitor`` shows of runs, as their ledgers and what lies beside them tell."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ledgers import IDENTITY, a_batch, receipt

from scrapy_distributed.ledger.balance import Balance
from scrapy_distributed.ledger.board import Board, Event, JobRow, NodeRow, board_path, write_board
from scrapy_distributed.ledger.count import Count
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.wishes import Wishes
from scrapy_distributed.monitor.node_state import NodeState
from scrapy_distributed.monitor.run_state import EVENTS, REASONS, RunState, run_states
from scrapy_distributed.monitor.snapshot import Snapshot, as_json

BALANCE = Balance(diverted=200, duplicates=3, queued=100, in_flight=40, crawled=58, failed=1, filtered=1, dead=0)
NODE = NodeRow("n1", "http://n1:6800", "trouble", "gone", 5.0, "it is asked again", 12.5, 4, 2, 1, 1)
JOB = JobRow("r-000001-1-ab", 1, 1, "n1", "at work", 20, 5, 4, 6, 2.5, 3.0, 8.0)


def board(ledger: Ledger, **values: Any) -> Board:
    count = Count(
        time=10.0, balance=BALANCE, reported=13, items=70, rate=48.0, at_work=3, slots=4, walked=True, paused=False
    )
    usual = {"run": ledger.run, "written": 11.0, "count": count, "nodes": (NODE,), "jobs": (JOB,), "events": ()}
    return Board(**{**usual, **values})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "shop.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        yield ledger


def state(path: Path) -> RunState:
    (found,) = run_states([path], "p")
    return found


def test_without_a_run_there_is_nothing_to_show(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "new.sqlite")):
        pass
    assert run_states([tmp_path / "new.sqlite", tmp_path / "gone.sqlite"], None) == []


def test_of_the_project_alone(ledger: Ledger) -> None:
    assert [len(run_states([ledger.path], project)) for project in ("p", None, "other")] == [1, 1, 0]


def test_one_that_runs(ledger: Ledger) -> None:
    begun = state(ledger.path)
    assert (begun.state, begun.board, begun.line) == ("running", None, "crawl s: begun")
    write_board(ledger.path, board(ledger))
    found = state(ledger.path)
    assert found.line == (
        "crawl s: 73 of 200 requests settled (36 %), 48/min, about 3 min left, 70 items, 3 of 4 slots at work"
    )
    assert found.balance == BALANCE
    shown = found.as_dict()
    assert shown.pop("started") == datetime.fromtimestamp(begun.run.started, timezone.utc).isoformat(  # type: ignore[union-attr]
        timespec="milliseconds"
    )
    assert shown == {
        "ledger": str(ledger.path), "problem": None, "run": ledger.run, "project": "p", "spider": "s",
        "state": "running", "ended": None, "stopped": None,
        "requests": {"diverted": 200, "duplicates": 3, "queued": 100, "in_flight": 40, "crawled": 58, "failed": 1,
                     "filtered": 1, "dead": 0, "not_crawled": 0},
        "reasons": {},
        "progress": {"time": "1970-01-01T00:00:10.000+00:00", "settled": 73, "items": 70, "rate": 48.0,
                     "seconds_left": 158.75, "rests_on": "left", "at_work": 3, "slots": 4, "walked": True,
                     "paused": False, "shown": "1970-01-01T00:00:11.000+00:00"},
        "nodes": [NODE._asdict()], "jobs": [JOB._asdict()], "events": [],
    }  # fmt: skip


def test_of_several_unfinished_ones_that_which_runs(ledger: Ledger) -> None:
    first = ledger.run
    ledger.close()
    with closing(Ledger(ledger.path)) as again:
        again.begin({**IDENTITY, "arguments": "others"}, resume=True)
    with closing(Ledger(ledger.path)) as again:
        again.begin(IDENTITY, resume=True)
        assert again.run == first
        write_board(ledger.path, board(again))
        found = state(ledger.path)
        assert found.run is not None
        assert (found.run.name, found.state) == (first, "running")


def test_what_a_ledger_holds_does_not_control_the_terminal(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        ledger.begin({**IDENTITY, "spider": "a\x1b[2Jb"}, resume=True)
        assert state(ledger.path).line == "crawl a\\x1b[2Jb: begun"


def test_one_that_does_not_run_any_more(ledger: Ledger) -> None:
    attempt = a_batch(ledger)
    ledger.verdicts.settle(
        attempt, receipt(attempt, failed={"http 404": [1, 2]}, filtered={"robots": [3]}), max_attempts=1
    )
    write_board(ledger.path, board(ledger))
    ledger.close()
    found = state(ledger.path)
    assert (found.state, found.line) == ("interrupted", f"crawl s: interrupted, {found.balance}")
    assert found.balance is not None
    assert (found.balance.diverted, found.balance.crawled) == (4, 1)  # by the ledger: what was shown is old
    assert found.reasons == {"failed: http 404": 2, "filtered: robots": 1}
    with closing(Ledger(ledger.path)) as again:
        again.begin(IDENTITY, resume=True)
        assert again.account.end(walked=True)
    assert state(ledger.path).state == "over"


def test_one_that_was_stopped(ledger: Ledger) -> None:
    a_batch(ledger)
    ledger.account.stop("closespider_pagecount")
    assert ledger.account.end(walked=True)
    found = state(ledger.path)
    assert (found.state, found.as_dict()["stopped"]) == ("stopped", "closespider_pagecount")
    assert found.as_dict()["requests"]["not_crawled"] == 4


def test_what_an_earlier_run_has_shown_is_not_of_this_one(ledger: Ledger) -> None:
    write_board(ledger.path, board(ledger, run="another"))
    assert state(ledger.path).board is None


def test_what_has_happened_last(ledger: Ledger) -> None:
    ledger.verdicts.reject(a_batch(ledger), "no receipt: killed", counts=True, max_attempts=3)
    now = time.time()
    write_board(ledger.path, board(ledger, events=(Event(1.0, "n1", "trouble: gone"), Event(now + 9, "n1", "well"))))
    wishes = Wishes(ledger.path)
    wishes.ask("drain", "n1")
    wishes.ask("retry", '{"run": "r"}')  # it is for programs
    wishes.answer(wishes.unanswered()[0], "n1 gets no more batches")
    assert [(event.what, event.words) for event in state(ledger.path).events] == [
        ("n1", "trouble: gone"),
        ("batch 1", "does not count, on n1: no receipt: killed"),
        ("wish drain n1", "n1 gets no more batches"),
        ("wish retry", "not answered yet"),
        ("n1", "well"),
    ]
    for _ in range(2 * EVENTS):
        wishes.ask("pause")
    assert len(state(ledger.path).events) == EVENTS


def test_wishes_of_earlier_runs_are_none_of_this_one(tmp_path: Path) -> None:
    Wishes(tmp_path / "s.sqlite").ask("pause")
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        assert state(ledger.path).events == ()


def test_what_can_not_be_read_is_its_problem(ledger: Ledger, tmp_path: Path) -> None:
    board_path(ledger.path).write_text("{}")
    found = state(ledger.path)
    assert found.problem is not None
    assert found.line.startswith("crawl shop failing: ")
    assert not Snapshot(time=datetime.now(timezone.utc), project="p", nodes=(), runs=(found,)).healthy
    assert json.loads(json.dumps(found.as_dict()))["problem"] == found.problem
    (tmp_path / "bad.sqlite").write_text("x" * 1000)
    assert "can't be read as ledger" in str(state(tmp_path / "bad.sqlite").problem)


def test_a_large_fleet_and_a_large_ledger_take_no_time(ledger: Ledger) -> None:
    """Less than 50 ms of CPU; on a slow machine less than a loop that takes as long on others."""
    batches, nodes = 10_000, 1_000
    db = ledger.store.db
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO batch (run, number, size, state, crawled, failed, attempts, payload)"
        " VALUES (1, ?, 100, 'settled', 99, 1, 1, ?)",
        [(number, "x" * 3000) for number in range(1, batches + 1)],
    )
    db.executemany(
        "INSERT INTO attempt (run, batch, number, token, node, url, state, positions, bound, ended, reason)"
        " VALUES (1, ?, 1, 'ab', 'n1', 'http://n1:6800', ?, x'', 1, 2, '')",
        [(number, "accepted" if number % 10 else "rejected") for number in range(1, batches + 1)],
    )
    db.executemany(
        "INSERT INTO outcome VALUES (1, ?, 3, 'failed', ?, 0)",
        [(number, f"http {400 + number % 30}") for number in range(1, batches + 1)],
    )
    db.execute("COMMIT")
    shown = board(ledger, nodes=(NODE,) * nodes, jobs=(JOB,) * nodes)
    write_board(ledger.path, shown)
    asked = (NodeState(name="n1", url="http://n1:6800", running=1, finished=2, pending=3),) * nodes
    best = float("inf")
    for _ in range(5):
        before = time.process_time()
        (found,) = run_states([ledger.path], "p")
        assert found.board == shown
        as_json(Snapshot(time=datetime.now(timezone.utc), project="p", nodes=asked, runs=(found,)))
        best = min(best, time.process_time() - before)
    assert len(found.reasons) == REASONS
    before = time.process_time()
    for _ in range(2_500_000):
        pass
    assert best < max(0.05, time.process_time() - before)

"""A run: begun, taken up again, over; and what is asked of it at every look."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from ledgers import IDENTITY, a_batch, body, cut, divert, queued, receipt
from ledgers import states as counts

from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.sqlite_account import UNPOSTED, UNSETTLED
from scrapy_distributed.ledger.sqlite_bookings import READY


def test_the_same_identity_resumes_and_another_is_another_run(ledger: Ledger, path: Path) -> None:
    name = ledger.run
    attempt = a_batch(ledger)
    divert(ledger, 7)
    ledger.close()
    with closing(Ledger(path)) as again:
        assert again.begin(dict(reversed(IDENTITY.items())), resume=True)  # not walked: the start runs again
        assert again.run == name
        assert [(a.job, a.node, a.positions) for a in again.bookings.live()] == [(attempt.job, "n1", attempt.positions)]
        assert queued(again) == [body(7)]
        assert divert(again, 7, 8) == [body(8)]
        assert counts(again) == {"diverted": 6, "duplicates": 1, "queued": 2, "in_flight": 4}
        again.intake.walked()
    with closing(Ledger(path)) as other:
        assert other.begin(IDENTITY | {"arguments": "x"}, resume=True)
        assert other.run != name
        assert divert(other, 7) == [body(7)]
        assert counts(other) == {"diverted": 1, "queued": 1}
        assert other.bookings.live() == []
        assert other.bookings.ready() == []
    with closing(Ledger(path)) as again:
        assert not again.begin(IDENTITY, resume=True)  # walked
        assert again.run == name


def test_a_run_that_is_over_is_not_resumed(ledger: Ledger, path: Path) -> None:
    attempt = a_batch(ledger)
    ledger.intake.walked()
    assert not ledger.account.end()
    ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=1)
    assert ledger.account.end()
    ledger.close()
    with closing(Ledger(path)) as again:
        assert again.begin(IDENTITY, resume=True)
        assert again.run != ledger.run
        assert divert(again, 0) == [body(0)]


def test_what_jobs_tell_of_nodes_is_kept_for_other_runs(ledger: Ledger, path: Path) -> None:
    ledger.bookings.keep_told("http://n1:6800", 2, 5.0)
    ledger.bookings.keep_told("http://n2:6800", None, 0.5)
    ledger.bookings.keep_told("http://n1:6800", 4, None)
    ledger.close()
    with closing(Ledger(path)) as other:
        other.begin(IDENTITY | {"arguments": "x"}, resume=True)
        assert other.bookings.told() == {"http://n1:6800": (4, None), "http://n2:6800": (None, 0.5)}


@pytest.mark.parametrize(("slots", "poll"), [(0, 1.0), ("many", 1.0), (1, -1.0), (1, "soon")])
def test_what_no_job_could_tell_of_a_node_is_not_kept(ledger: Ledger, slots: object, poll: object) -> None:
    with pytest.raises(LedgerUnavailableError):
        ledger.bookings.keep_told("http://n1:6800", slots, poll)  # type: ignore[arg-type]
    assert ledger.bookings.told() == {}


def test_resume_false_starts_afresh(ledger: Ledger, path: Path) -> None:
    divert(ledger, 1)
    ledger.close()
    with closing(Ledger(path)) as again:
        assert again.begin(IDENTITY, resume=False)
        assert again.run != ledger.run
        assert divert(again, 1) == [body(1)]


def test_a_run_that_nobody_waits_for_is_over_when_all_is_posted(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        assert ledger.begin(IDENTITY, resume=True, wait=False)
        attempt = a_batch(ledger)
        ledger.intake.walked()
        first = ledger.run
        assert not ledger.begin(IDENTITY, resume=True, wait=False)  # the job may not have been posted
        ledger.bookings.sent(attempt)
        assert ledger.begin(IDENTITY, resume=True, wait=False)
        assert ledger.run != first


def test_a_walk_that_goes_on_is_walked_again(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        ledger.intake.walked()
        assert not ledger.begin(IDENTITY, resume=True)
        ledger.intake.walk_on()
        assert ledger.begin(IDENTITY, resume=True)
        assert ledger.others() == []


def test_other_unfinished_runs_are_named(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        first = ledger.run
        ledger.begin({**IDENTITY, "arguments": "other"}, resume=True)
        assert ledger.others() == [first]


def test_stats_of_workers_are_summed_and_maxima_are_not(ledger: Ledger) -> None:
    for number in range(2):
        cut(ledger, divert(ledger, number))
        attempt, _ = ledger.bookings.bind(number + 1, "n")
        stats = {"pages": 2 + number, "request_depth_max": 3 - number, "memusage/max": 10 * (number + 1)}
        stats |= {"items_per_minute": 120.0, "responses_per_minute": 60.0}
        ledger.verdicts.settle(attempt, receipt(attempt, stats=stats), max_attempts=1)
    assert ledger.account.worker_stats() == ({"pages": 5, "request_depth_max": 3, "memusage/max": 20}, 0)


@pytest.mark.parametrize("statement", [READY, UNSETTLED, UNPOSTED])
def test_what_is_asked_at_every_look_does_not_walk_through_what_is_settled(ledger: Ledger, statement: str) -> None:
    plan = [row[3] for row in ledger.store.db.execute(f"EXPLAIN QUERY PLAN {statement}", {"run": 1})]
    assert [line for line in plan if "batch" in line and "INDEX batch_open" not in line] == []
    assert [line for line in plan if "attempt" in line and "INDEX attempt_live" not in line] == []
    assert any("batch_open" in line for line in plan)

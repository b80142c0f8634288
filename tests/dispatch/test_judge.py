"""What becomes of attempts, and what that says of their nodes and batches. A real ledger, no network, no clock."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from court import NOW, Court
from twisted.internet.defer import CancelledError, Deferred

from scrapy_distributed.dispatch.members import Flight, Proof
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.states import AttemptState


@pytest.fixture
def court(tmp_path: Path) -> Iterator[Court]:
    court = Court(tmp_path / "s.sqlite")
    yield court
    court.ledger.close()


# One attempt


def test_a_final_receipt_is_accepted_and_proves_the_node(court: Court) -> None:
    court.batch(0, 1, 2)
    n0 = court.members[0]
    flight = court.send(n0)
    n0.trust.bad_jobs = 1
    n0.trust.fail("no receipt", 0, needs=Proof.DELIVERS)
    court.final(n0, flight, items=3, unexported=1)
    assert court.balance() == {"diverted": 3, "crawled": 3}
    assert n0.flights == {}
    assert (n0.trust.well, n0.trust.bad_jobs) == (True, 0)
    assert court.count("attempts/accepted") == 1
    assert court.ledger.account.losses().unexported == 1


def test_where_nothing_goes_out_again_items_of_unfinished_requests_count_as_well(court: Court) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    flight = court.send(n0)
    court.stopped_by = "closespider_itemcount"
    court.final(n0, flight, 1, clean=False, items=2, finish_reason="closespider_itemcount")
    assert court.balance() == {"diverted": 2, "crawled": 1, "not_crawled": 1}
    assert court.count("attempts/rejected") == 0


def test_how_long_an_attempt_took_is_told_unless_it_had_to_wait_for_another(court: Court) -> None:
    court.batch(0)
    court.batch(1)
    n0 = court.members[0]
    for queued in (False, True):
        flight = court.send(n0, queued=queued)
        flight.sent_at -= 7
        court.final(n0, flight)
    assert court.trips == [7, None]


def test_an_attempt_that_settles_nothing_is_no_proof(court: Court) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    flight = court.send(n0)
    n0.trust.fail("no receipt", 0, needs=Proof.DELIVERS)
    court.final(n0, flight, 0, finish_reason="shutdown")
    assert not n0.trust.well
    assert court.balance() == {"diverted": 2, "queued": 2}


@pytest.mark.parametrize(
    ("values", "reason", "bad_jobs"),
    [
        ({"stored": False}, "its feed was not stored", 1),
        ({"size": 5}, "its receipt speaks of 5 requests, sent were 2", 1),
        ({"targets": ("rubbish",)}, "what it has found for the fleet can't be read: no payload", 1),
        ({"clean": False}, "it ended early (finished) with items of unfinished requests in its feed", 1),
    ],
)
def test_a_receipt_that_cannot_count_is_rejected_and_says_who_is_to_blame(
    court: Court, values: dict[str, Any], reason: str, bad_jobs: int
) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    court.targets = [(b"k", '"http://a/k"')]
    court.final(n0, court.send(n0), **({"targets": ("[]",)} | values))
    assert court.attempts() == [("rejected", reason)]
    assert court.balance() == {"diverted": 2, "queued": 2}
    assert (n0.trust.bad_jobs, n0.flights, court.count("attempts/rejected")) == (bad_jobs, {}, 1)
    assert court.found == []


def test_what_the_ledger_can_not_write_is_tried_again(court: Court) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    flight = court.send(n0)
    court.targets = [(b"k", '"http://a/k"')]
    court.ledger.store.db.execute("CREATE TEMP TRIGGER no BEFORE UPDATE ON batch BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(LedgerUnavailableError):
        court.final(n0, flight, targets=("[]",))
    assert list(n0.flights.values()) == [flight]
    assert (court.found, court.count("attempts/accepted")) == ([], 0)
    court.ledger.store.db.execute("DROP TRIGGER no")
    court.final(n0, flight, targets=("[]",))
    assert court.found == ['"http://a/k"']
    assert court.balance() == {"diverted": 3, "crawled": 2, "queued": 1}


def test_targets_that_are_new_are_told_once(court: Court) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    court.targets = [(b"k", '"http://a/k"'), ((1).to_bytes(20, "big"), '"http://a/1"')]
    court.final(n0, court.send(n0), targets=("[]",))
    assert court.found == ['"http://a/k"']
    court.batch(7)
    court.final(n0, court.send(n0), targets=("[]",))
    assert court.found == ['"http://a/k"']
    assert court.told == ["n0", "n0"]


@pytest.mark.parametrize("meanwhile", ["nothing", "another is accepted", "it was settled", "the run ends"])
def test_targets_are_read_while_others_have_their_turns(court: Court, meanwhile: str) -> None:
    """Nothing of a receipt counts before all of it can be read, and then it is asked again whether it may count."""
    orphan, replacement = orphan_and_replacement(court)
    n0, n1 = court.members
    court.targets = [(b"k", '"http://a/k"')]
    court.reading = Deferred()
    result = court.begin(n0, orphan, targets=("[]",))
    assert (court.found, court.told, court.balance()) == ([], [], {"diverted": 3, "in_flight": 3})
    if meanwhile == "another is accepted":
        court.final(n1, replacement)
    elif meanwhile == "it was settled":
        court.judge.unsent(n0, orphan, "taken back")
    elif meanwhile == "the run ends":
        result.cancel()
        assert isinstance(result.addErrback(lambda failure: failure.value).result, CancelledError)
        assert (n0.flights, court.told) == ({orphan.attempt.job: orphan}, [])
        return
    court.reading.callback(None)
    assert result.result is None
    assert n0.flights == {}
    counts = meanwhile == "nothing"
    assert court.found == (['"http://a/k"'] if counts else [])
    assert court.told == {"nothing": ["n0"], "another is accepted": ["n1"], "it was settled": []}[meanwhile]


def test_a_job_that_never_ran_is_no_failure(court: Court) -> None:
    court.batch(0)
    for member in court.members * 3:
        court.judge.unsent(member, court.send(member), "taken back")
        assert member.flights == {}
        assert member.trust.bad_jobs == 0
    assert court.balance() == {"diverted": 1, "queued": 1}


# Blame


def test_a_job_that_died_at_work_is_its_batchs_failure_and_one_that_never_began_its_nodes(court: Court) -> None:
    court.batch(0, 1)
    n0, n1 = court.members
    court.judge.died(n0, court.send(n0, at_work=True), "no receipt: MemoryError", NOW)
    assert (n0.trust.bad_jobs, court.attempts()) == (
        1,
        [("rejected", "no receipt: MemoryError")],
    )
    court.judge.died(n1, court.send(n1), "no log", NOW)
    assert n1.trust.bad_jobs == 1
    assert court.count("batches_halved") == 1  # both count while a node is well
    assert court.ready() == [2, 3]


def test_what_nodes_are_to_blame_for_kills_no_batch_while_none_is_well(court: Court) -> None:
    court.batch(0, 1)
    n0, n1 = court.members
    n1.trust.fail("down", NOW)
    n0.trust.fail("down", NOW)
    for _ in range(5):
        court.judge.died(n0, court.send(n0), "no log", NOW)
    assert court.balance() == {"diverted": 2, "queued": 2}
    assert court.ledger.bookings.ready() == [(1, "n0")]
    for _ in range(2):  # at work: these are the batch's own
        court.judge.died(n0, court.send(n0, at_work=True), "MemoryError", NOW)
    assert court.ready() == [2, 3]
    court.judge.died(n0, court.send(n0, 2), "no log", NOW)  # one that is alone may have died too soon to tell
    court.judge.died(n0, court.send(n0, 2), "no log", NOW)
    assert court.balance() == {"diverted": 2, "queued": 1, "dead": 1}


def test_a_fault_that_all_jobs_have_at_their_start_is_told_and_no_batch_is_to_blame(court: Court) -> None:
    for number in range(3):
        court.batch(number)
    n0, n1 = court.members
    court.judge.died(n0, court.send(n0, 1), "TypeError: at n0", NOW, fault="TypeError")
    court.judge.died(n0, court.send(n0, 1), "TypeError: at n0", NOW, fault="TypeError")
    court.judge.died(n0, court.send(n0, 1), "TypeError: at n0", NOW, fault="TypeError")
    assert court.no_job_starts == []  # the other node has not had its turn
    court.judge.died(n1, court.send(n1, 2), "TypeError: at n1", NOW, fault="TypeError")
    assert court.no_job_starts == ["the first 4 jobs, on n0, n1, died of the same. TypeError: at n1"]
    assert court.ready() == [1, 2, 3]
    assert court.count("batches_halved") == 0


@pytest.mark.parametrize("why", ["it is away", "it is spared"])
def test_a_node_that_is_spared_has_no_turn_and_one_that_is_away_is_waited_for(court: Court, why: str) -> None:
    court.batch(0)
    court.batch(1)
    n0, n1 = court.members
    if why == "it is away":
        n1.trust.fail("no answer", NOW)
    else:
        n1.drained = True
    for batch in (1, 2):
        court.judge.died(n0, court.send(n0, batch), "TypeError", NOW, fault="TypeError")
    assert len(court.no_job_starts) == (why == "it is spared")


@pytest.mark.parametrize("how", ["under way", "came home", "died", "was told to end"])
def test_where_a_job_has_done_something_its_start_is_not_what_is_wrong(court: Court, how: str) -> None:
    for number in range(0, 6, 2):
        court.batch(number, number + 1)
    n0, n1 = court.members
    flight = court.send(n0, 1, at_work=True)
    if how == "came home":
        court.final(n0, flight, activity=9)
    elif how == "died":
        court.judge.died(n0, flight, "killed", NOW)
    elif how == "was told to end":
        flight.dismiss()
        court.judge.died(n0, flight, "INT", NOW)
    for member, batch in ((n0, 2), (n1, 3)):
        court.judge.died(member, court.send(member, batch), "TypeError", NOW, fault="TypeError")
    assert court.no_job_starts == []
    assert court.count("batches_halved") == 0
    court.judge.died(n1, court.send(n1, 2), "TypeError", NOW, fault="TypeError")  # it is the batch's, as ever
    assert court.count("batches_halved") == 1


@pytest.mark.parametrize("inherited", [True, False])
@pytest.mark.parametrize("end", ["without a receipt", "with nothing done", "with a feed in disorder"])
def test_who_cancels_a_job_that_nobody_looks_after_blames_no_batch(court: Court, end: str, inherited: bool) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    for _ in range(2):
        flight = court.send(n0, 1, inherited=inherited, at_work=True)
        if end == "without a receipt":
            court.judge.died(n0, flight, "Received SIGINT", NOW, cancelled=inherited)
        else:
            court.final(n0, flight, 0, finish_reason="shutdown", clean=end == "with nothing done")
    assert court.ready() == ([1] if inherited else [2, 3])


def test_a_feed_that_was_not_stored_is_its_batchs_failure_where_others_have_delivered_meanwhile(
    tmp_path: Path,
) -> None:
    """Else a place that refuses all nodes for a while would use up the attempts of a batch, one node after another."""
    court = Court(tmp_path / "l.sqlite", members=9)
    for number in (0, 1):
        court.batch(number)
    for member in court.members:
        court.final(member, court.send(member, 1), stored=False)
    assert court.balance() == {"diverted": 2, "queued": 2}
    n0, n1 = court.members[:2]
    for _ in range(court.judge.config.max_attempts):
        flight = court.send(n0, 1)
        flight.sent_at = NOW - 1
        if n1.trust.bad_jobs:
            court.final(n1, court.send(n1, 2))
        court.final(n0, flight, stored=False)
    assert court.balance() == {"diverted": 2, "crawled": 1, "dead": 1}
    court.ledger.close()


def test_two_bad_jobs_in_a_row_and_a_node_is_doubted_until_one_is_accepted(
    court: Court, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(6):
        court.batch(number)
    n0, n1 = court.members
    court.judge.died(n0, court.send(n0), "ImportError", NOW)
    court.final(n0, court.send(n0, 2))
    court.judge.died(n0, court.send(n0, 3), "ImportError", NOW)
    assert n0.trust.well  # not in a row
    court.judge.died(n0, court.send(n0, 4), "ImportError", NOW)
    assert (n0.trust.well, n0.trust.needs) == (False, Proof.DELIVERS)
    assert "its jobs come to nothing" in caplog.text
    assert n1.trust.well
    court.judge.worked(n0, Proof.STARTS)
    assert not n0.trust.well
    caplog.clear()
    with caplog.at_level(logging.INFO):
        court.final(n0, court.send(n0, 5))
    assert n0.trust.well
    assert "is used again" in caplog.text


@pytest.mark.parametrize(
    ("silent", "at_work", "bad_jobs", "failures"),
    [(True, True, 0, 1), (False, True, 1, 1), (True, False, 0, 0), (False, False, 1, 1)],
)
def test_a_lost_job_is_the_batchs_failure_if_it_was_at_work_else_the_nodes_if_that_is_not_gone(
    court: Court, silent: bool, at_work: bool, bad_jobs: int, failures: int
) -> None:
    court.batch(0)
    n0 = court.members[0]
    flight = court.send(n0, at_work=at_work, confirmed=True)
    n0.trust.silent = silent
    court.judge.lost(n0, flight, "no sign of life", NOW)
    assert (flight.lost, flight.attempt.state) == (True, AttemptState.UNKNOWN)
    assert list(n0.flights.values()) == [flight]  # its receipt is welcome
    assert n0.trust.bad_jobs == bad_jobs
    assert court.ledger.store.db.execute("SELECT failures FROM batch").fetchone() == (failures,)
    assert court.count("attempts/lost") == 1


# Orphans and replacements


def orphan_and_replacement(court: Court, **values: Any) -> tuple[Flight, Flight]:
    """A lost attempt on n0 and the next one on n1, at the same three requests."""
    court.batch(0, 1, 2)
    n0, n1 = court.members
    orphan = court.send(n0, at_work=True, started=True)
    court.judge.lost(n0, orphan, "no sign of life", NOW)
    return orphan, court.send(n1, **values)


@pytest.mark.parametrize("started", [True, False])
def test_an_orphan_with_everything_wins_and_its_replacement_is_fenced(court: Court, started: bool) -> None:
    orphan, replacement = orphan_and_replacement(court, started=started)
    n0, n1 = court.members
    court.final(n0, orphan)
    assert court.balance() == {"diverted": 3, "crawled": 3}
    assert replacement.fenced
    assert [state for state, _ in court.attempts()] == ["accepted", "rejected"]
    assert list(n1.flights.values()) == [replacement]  # to be ended
    court.final(n1, replacement)
    assert n1.flights == {}
    assert n1.trust.bad_jobs == 0
    assert court.balance() == {"diverted": 3, "crawled": 3}


def test_an_orphan_with_a_part_is_not_worth_a_replacement_that_is_at_work(court: Court) -> None:
    orphan, replacement = orphan_and_replacement(court, started=True)
    n0, n1 = court.members
    court.final(n0, orphan, 0b011, finish_reason="shutdown")
    assert not replacement.fenced
    assert court.attempts()[0] == ("rejected", "no sign of life; it ended early, and another attempt is at work")
    assert n0.trust.bad_jobs == 1  # as it was lost
    assert court.balance() == {"diverted": 3, "in_flight": 3}
    court.final(n1, replacement)
    assert court.balance() == {"diverted": 3, "crawled": 3}


def test_an_orphan_with_a_part_is_worth_a_replacement_that_still_waits(court: Court) -> None:
    orphan, replacement = orphan_and_replacement(court)
    court.final(court.members[0], orphan, 0b011, finish_reason="shutdown")
    assert replacement.fenced
    assert court.balance() == {"diverted": 3, "crawled": 2, "queued": 1}
    assert court.ledger.bookings.ready() == [(1, "n1")]


def test_a_replacement_with_a_part_is_accepted_while_the_orphan_may_live(court: Court) -> None:
    """Else a job that always ends early would be sent again for as long as nobody knows what became of the orphan."""
    orphan, replacement = orphan_and_replacement(court, started=True)
    court.final(court.members[1], replacement, 0b011, finish_reason="memusage_exceeded")
    assert [state for state, _ in court.attempts()] == ["rejected", "accepted"]  # the orphan can't count any more
    assert orphan.fenced
    assert court.balance() == {"diverted": 3, "crawled": 2, "queued": 1}


def test_a_fenced_one_that_never_ran_stays_rejected(court: Court) -> None:
    orphan, replacement = orphan_and_replacement(court)
    n0, n1 = court.members
    court.final(n0, orphan)
    court.judge.unsent(n1, replacement, "refused")
    assert (n1.flights, [state for state, _ in court.attempts()]) == ({}, ["accepted", "rejected"])


def test_an_orphan_whose_batch_was_halved_is_fenced_itself_too(court: Court) -> None:
    orphan, replacement = orphan_and_replacement(court, at_work=True)
    court.judge.lost(court.members[1], replacement, "no sign of life", NOW)
    assert (orphan.fenced, replacement.fenced) == (True, True)
    assert court.count("batches_halved") == 1
    assert [state for state, _ in court.attempts()] == ["rejected", "rejected"]
    court.final(court.members[0], orphan)
    assert court.balance() == {"diverted": 3, "queued": 3}


def test_an_orphan_that_dies_leaves_its_replacement_alone(court: Court) -> None:
    orphan, replacement = orphan_and_replacement(court, started=True)
    court.judge.died(court.members[0], orphan, "Killed", NOW)
    assert not replacement.fenced
    assert court.balance() == {"diverted": 3, "in_flight": 3}
    court.final(court.members[1], replacement)
    assert court.balance() == {"diverted": 3, "crawled": 3}


# Another node


FAILED = {"failed": {"dns": [0], "http 404": [1]}, "again": 0b11}


def test_failed_requests_are_tried_elsewhere_where_the_reason_is_listed(court: Court) -> None:
    court.batch(0, 1, 2)
    n0, n1 = court.members
    court.final(n0, court.send(n0), **FAILED)
    assert court.balance() == {"diverted": 3, "crawled": 1, "failed": 1, "queued": 1}
    assert court.count("tried_again") == 1
    court.ledger.intake.cut_again(1, all_of_it=True)
    assert court.ledger.bookings.ready() == [(2, "n0")]
    court.final(n1, court.send(n1), failed={"dns": [0]}, again=0b1)
    assert court.balance() == {"diverted": 3, "crawled": 1, "failed": 2}  # once


@pytest.mark.parametrize(("others", "tried"), [("well", 1), ("in doubt", 0), ("none", 0)])
def test_failed_requests_are_tried_elsewhere_only_if_another_node_is_well(
    tmp_path: Path, others: str, tried: int
) -> None:
    court = Court(tmp_path / "s.sqlite", members=1 if others == "none" else 2)
    with closing(court.ledger):
        court.batch(0, 1, 2)
        if others == "in doubt":
            court.members[1].trust.fail("down", 0)
            court.members[1].trust.recover(NOW)
        court.final(court.members[0], court.send(court.members[0]), **FAILED)
        assert court.count("tried_again") == tried
        assert court.balance().get("queued", 0) == tried


@pytest.mark.parametrize(("patterns", "tried"), [("http *", 1), ("*", 2), ("", 0), ("DNS", 0), ("dns,http 40?", 2)])
def test_reasons_to_try_again_are_patterns(tmp_path: Path, patterns: str, tried: int) -> None:
    court = Court(tmp_path / "s.sqlite", DISTRIBUTED_RETRY_FAILED=patterns)
    with closing(court.ledger):
        court.batch(0, 1, 2)
        court.final(court.members[0], court.send(court.members[0]), **FAILED)
        assert court.count("tried_again") == tried


def test_a_request_that_may_have_left_items_is_not_tried_again(court: Court) -> None:
    court.batch(0, 1, 2)
    n0 = court.members[0]
    court.final(n0, court.send(n0), failed={"dns": [0, 1]}, again=0b10)
    assert court.balance() == {"diverted": 3, "crawled": 1, "failed": 1, "queued": 1}


# The end of a batch


def test_what_is_dead_is_told_with_the_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    court = Court(tmp_path / "s.sqlite", DISTRIBUTED_MAX_ATTEMPTS=1)
    with closing(court.ledger):
        court.batch(0, 1)
        n0 = court.members[0]
        court.judge.died(n0, court.send(n0, at_work=True), "MemoryError", NOW)
        assert court.balance() == {"diverted": 2, "dead": 2}
        assert "what is left is dead: MemoryError" in caplog.text

"""What becomes of a flight by what its node and its worker say, without either."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from scrapy_distributed.dispatch.flight import KILL_AFTER, Flight, Signal
from scrapy_distributed.ledger.states import Attempt, AttemptState
from scrapy_distributed.wire.receipt import Receipt

STALL = 100.0


def flight(**values: Any) -> Flight:
    attempt = Attempt(run="r", batch=1, number=1, token="ab", node="n0", state=AttemptState.SENT, positions=0b111)
    return Flight(attempt=attempt, **{"sent_at": 0.0, "evidence": 0.0, **values})


def running(sequence: int, activity: int, **values: Any) -> Receipt:
    return Receipt(job="r-000001-1-ab", size=3, settled=0, sequence=sequence, activity=activity, final=False, **values)


def test_that_it_has_arrived_is_news_once_and_none_of_one_that_does_not_count() -> None:
    one = flight()
    assert (one.arrived(), one.arrived()) == (True, False)
    for ended in (Flight.lose, Flight.fence):
        other = flight()
        ended(other)
        assert not other.arrived()
        assert other.confirmed


def test_its_pace_tells_when_it_should_be_over() -> None:
    one = flight()
    settled = [(100.0, 0b0), (101.0, 0b0), (102.0, 0b001), (104.0, 0b011)]
    due = []
    for now, bitmap in settled:
        one.acts(replace(running(1, 1), settled=bitmap), now, stall=STALL)
        due.append(one.due_in(now))
    assert due == [float("inf"), float("inf"), 4.0, 2.0]
    assert [one.due_in(now) for now in (105.0, 106.0, 107.0, 108.0, 110.0)] == [1.0, 0.0, 1.0, 2.0, 4.0]


def test_of_a_job_that_was_heard_of_late_the_pace_is_that_of_what_was_heard() -> None:
    one = flight()
    for now, bitmap in ((500.0, 0b011), (500.0, 0b011), (502.0, 0b111)):
        one.acts(replace(running(1, 1), settled=bitmap), now, stall=STALL)
    assert one.due_in(502.0) == 0.0


def test_to_wait_is_a_sign_of_life_and_undoes_what_was_to_end_it() -> None:
    one = flight()
    one.lose()
    one.signalled(Signal.KILL, 5)
    one.queues(10)
    assert (one.evidence, one.pending, one.signalled_at, one.killed) == (10, True, None, False)
    assert one.signal_due(11) is Signal.INT  # it is lost all the same
    one.left_the_queue()
    assert not one.pending


def test_to_have_started_is_a_sign_of_life_and_to_run_is_none() -> None:
    one = flight(pending=True)
    assert one.waiting
    assert one.runs(10)
    assert not one.runs(20)
    assert (one.evidence, one.pending, one.waiting, one.starting) == (10, False, False, True)
    assert one.reports(running(1, 0))
    assert not one.starting


def test_a_receipt_is_news_once_and_tells_whether_it_is_at_work() -> None:
    one = flight()
    assert one.reports(running(2, 0))
    assert not one.at_work
    assert not one.reports(running(2, 5))
    assert not one.at_work
    assert one.reports(running(3, 5))
    assert one.at_work


def test_a_receipt_is_a_sign_of_life_while_what_was_done_grows() -> None:
    one = flight()
    assert one.acts(running(1, 0), 10, stall=STALL)
    assert one.acts(running(2, 0), 10 + STALL - 1, stall=STALL)
    assert not one.acts(running(3, 0), 10 + STALL, stall=STALL)
    assert (one.stalled, one.evidence) == (True, 10 + STALL - 1)
    assert one.signal_due(10 + STALL) is Signal.INT
    assert one.acts(running(4, 0, finish_reason="finished"), 300, stall=STALL)  # it stores its feed
    assert (one.stalled, one.evidence, one.signal_due(300)) == (False, 300, None)


@pytest.mark.parametrize("why", [Flight.lose, Flight.fence], ids=["lost", "fenced"])
def test_what_is_not_wanted_is_told_to_end_and_killed_once_if_it_does_not(why: Any) -> None:
    one = flight()
    assert one.signal_due(5) is None
    why(one)
    assert one.signal_due(5) is Signal.INT
    one.signalled(Signal.INT, 5)
    assert one.signal_due(5 + KILL_AFTER - 1) is None
    assert one.signal_due(5 + KILL_AFTER) is Signal.KILL
    one.signalled(Signal.KILL, 5 + KILL_AFTER)
    assert one.signal_due(5 + 9 * KILL_AFTER) is None


def test_one_that_is_dismissed_is_told_to_end_and_never_killed_while_it_counts() -> None:
    one = flight()
    one.dismiss()
    assert one.signal_due(5) is Signal.INT
    one.signalled(Signal.INT, 5)
    assert one.signal_due(5 + 9 * KILL_AFTER) is None  # its feed may take its time
    one.lose()
    assert one.signal_due(5 + KILL_AFTER) is Signal.KILL


def test_one_that_is_dismissed_with_a_time_is_killed_after_it() -> None:
    one = flight()
    one.dismiss(kill_after=5)
    one.dismiss()  # nor does a second dismissal give it more
    one.signalled(Signal.INT, 5)
    assert one.signal_due(9) is None
    assert one.signal_due(10) is Signal.KILL
    one.signalled(Signal.KILL, 10)
    assert one.signal_due(99) is None


def test_what_its_node_has_not_got_is_told_again() -> None:
    one = flight()
    one.dismiss()
    one.signalled(Signal.INT, 5)
    one.unsignalled()
    assert one.signal_due(6) is Signal.INT


def test_one_never_ran_if_nobody_has_it_or_it_was_told_to_end_before_it_started() -> None:
    one = flight()
    assert one.never_ran
    one.arrived()
    assert not one.never_ran
    one.signalled(Signal.INT, 5)
    assert one.never_ran
    one.runs(6)
    assert not one.never_ran


def test_a_lost_one_is_unknown_to_the_ledger_as_well() -> None:
    one = flight()
    one.lose()
    assert (one.counts, one.waiting, one.attempt.state) == (False, False, AttemptState.UNKNOWN)


def test_what_is_told_once_is_told_once() -> None:
    one = flight()
    assert [one.refuses() for _ in range(3)] == [True, False, False]
    assert [one.confuses() for _ in range(4)] == [False, True, False, False]  # one may come cut


def test_only_those_that_were_sent_later_overtake() -> None:
    one = flight(sent_at=10)
    one.falls_behind(flight(sent_at=9))
    assert one.overtaken == 0
    one.falls_behind(flight(sent_at=11))
    assert one.overtaken == 1


class AnyNews(RuleBasedStateMachine):
    """A node and a worker may say anything in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.flight = flight()
        self.now = 0.0
        self.killed = 0

    @rule(seconds=st.floats(0, 60))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(said=st.sampled_from(["posted", "queues", "runs"]))
    def node(self, said: str) -> None:
        getattr(self.flight, said)(self.now)

    @rule(said=st.sampled_from(["arrived", "left_the_queue", "lose", "fence", "dismiss", "unsignalled"]))
    def other(self, said: str) -> None:
        getattr(self.flight, said)()

    @rule(sequence=st.integers(1, 9), activity=st.integers(0, 9))
    def worker(self, sequence: int, activity: int) -> None:
        report = running(sequence, activity)
        if self.flight.reports(report):
            self.flight.runs(self.now)
            self.flight.acts(report, self.now, stall=STALL)

    @rule()
    def end(self) -> None:
        signal = self.flight.signal_due(self.now)
        if signal is not None:
            wanted = self.flight.counts and not self.flight.stalled
            assert not wanted or (self.flight.dismissed and signal is Signal.INT)
            if signal is Signal.KILL:
                assert self.flight.signalled_at is not None
                assert self.now - self.flight.signalled_at >= KILL_AFTER
            self.flight.signalled(signal, self.now)

    @invariant()
    def holds(self) -> None:
        one = self.flight
        assert one.evidence <= self.now
        assert not (one.pending and one.starting and one.stalled)
        assert one.waiting <= one.counts
        assert one.starting <= one.started
        assert not (one.killed and one.signalled_at is None)


def test_any_news_in_any_order() -> None:
    run_state_machine_as_test(AnyNews)

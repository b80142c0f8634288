"""A job of a worker: what is known of it, and when it is told to end."""

from __future__ import annotations

from signal import SIGINT, SIGKILL

from scrapy_distributed.joining.watch import KILL_AFTER, START_SECONDS, Watch
from scrapy_distributed.wire.receipt import Receipt

STALL = 100.0


def receipt(activity: int, finish_reason: str = "") -> Receipt:
    return Receipt(job="j", sequence=1, final=False, size=1, settled=0, activity=activity, finish_reason=finish_reason)


def test_one_that_does_something_goes_on() -> None:
    watch = Watch(0.0, stall=STALL)
    for number in range(1, 10):
        assert watch.reports(receipt(number), 90.0 * number)
        assert not watch.stalled(90.0 * number)
        assert watch.signal_due(90.0 * number + 1) is None


def test_one_that_has_done_something_has_begun() -> None:
    watch = Watch(0.0, stall=STALL)
    watch.reports(receipt(0), 1.0)
    assert not watch.begun
    watch.reports(receipt(1), 2.0)
    watch.reports(receipt(2), 3.0)
    assert (watch.begun, watch.began_at) == (True, 2.0)


def test_one_that_stands_still_is_told_to_end_and_then_killed() -> None:
    watch = Watch(0.0, stall=STALL)
    watch.reports(receipt(1), 10.0)
    assert not watch.reports(receipt(1), 109.0)
    assert watch.signal_due(109.0) is None
    assert (watch.stalled(110.0), watch.still_for(110.0)) == (True, STALL)
    assert [watch.signal_due(110.0 + wait) for wait in (0, 1, KILL_AFTER - 1, KILL_AFTER, KILL_AFTER + 1)] == [
        SIGINT, None, None, SIGKILL, None
    ]  # fmt: skip


def test_one_that_never_starts_has_stalled_as_well_after_a_while() -> None:
    for stall, seconds in ((STALL, START_SECONDS), (1.0, START_SECONDS), (2 * START_SECONDS, 2 * START_SECONDS)):
        watch = Watch(5.0, stall=stall)
        assert watch.signal_due(4.0 + seconds) is None
        assert watch.signal_due(5.0 + seconds) is SIGINT


def test_for_storing_its_feed_the_time_begins_anew() -> None:
    watch = Watch(0.0, stall=STALL)
    watch.reports(receipt(1), 10.0)
    assert watch.reports(receipt(1, "finished"), 105.0)
    assert not watch.reports(receipt(1, "finished"), 200.0)
    assert not watch.stalled(204.0)
    assert watch.stalled(205.0)


def test_one_that_is_dismissed_has_as_long_as_its_dismissal_says() -> None:
    watch = Watch(0.0, stall=STALL)
    watch.dismiss()
    assert watch.signal_due(1.0) is SIGINT
    assert watch.signal_due(90.0) is None
    watch.dismiss(kill_after=95.0)
    assert watch.signal_due(95.0) is None
    assert watch.signal_due(96.0) is SIGKILL

"""How much a worker asks for, and when it asks for nothing."""

from __future__ import annotations

from scrapy_distributed.joining.bench import FIRST_PAUSE, LONGEST_PAUSE, Bench
from scrapy_distributed.shared.pace import GROWTH, MOST, SECONDS, Pace


def test_a_batch_is_what_a_job_does_in_half_a_minute() -> None:
    pace = Pace()
    assert pace.size_of("a") == 0
    pace.took("a", 10, 10.0)
    pace.took("b", 10, 20.0)
    assert [pace.size_of(spider) for spider in "abc"] == [SECONDS, SECONDS / 2, 0]
    pace.took("a", 30, 120.0)
    assert pace.size_of("a") == round(SECONDS / 4)


def test_it_grows_step_by_step_and_shrinks_at_once() -> None:
    pace = Pace()
    sizes = []
    for _ in range(6):
        pace.took("a", 10, 0.0)
        sizes.append(pace.size_of("a"))
    assert sizes == [10 * GROWTH, 10 * GROWTH**2, 10 * GROWTH**3, MOST, MOST, MOST]
    pace.took("a", 1, 3_000.0)
    assert pace.size_of("a") == 1


def test_a_job_that_has_settled_nothing_tells_nothing() -> None:
    pace = Pace()
    pace.took("a", 0, 60.0)
    assert pace.size_of("a") == 0


def test_what_was_much_by_what_others_knew_is_not_much_less_by_what_this_one_knows() -> None:
    pace = Pace()
    pace.took("a", 300, 20.0)
    assert pace.size_of("a") == 450


def test_one_bad_job_is_no_reason_to_stand_aside_and_two_in_a_row_are() -> None:
    bench = Bench()
    assert not bench.bad("no disk", 0.0)
    assert bench.well
    assert not bench.good()
    assert not bench.bad("no disk", 1.0)
    assert bench.bad("still no disk", 2.0)
    assert (bench.well, bench.why, bench.seconds(2.0)) == (False, "still no disk", FIRST_PAUSE)


def test_the_pause_grows_until_a_job_counts() -> None:
    bench = Bench()
    bench.bad("x", 0.0)
    now, pauses = 0.0, []
    while not pauses or pauses[-1] < LONGEST_PAUSE:
        assert bench.bad("x", now)
        assert not bench.bad("x", now), "one that was under way already"
        pauses.append(bench.seconds(now))
        now += bench.seconds(now)
        assert bench.seconds(now) == 0.0
        assert not bench.well, "it is on trial"
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert bench.good()
    assert bench.well
    assert not bench.bad("x", now)

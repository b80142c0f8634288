"""What the slots have done with their time, and the one sentence about it."""

from __future__ import annotations

import pytest
from scrapy.settings import Settings

from scrapy_distributed.config.prior import Prior
from scrapy_distributed.coordinator.batch_size import BatchSize
from scrapy_distributed.coordinator.slot_time import SlotTime
from scrapy_distributed.dispatch.members import Slots

FOUR = Slots(all=4, free=0, poll=5.0)


def measured(setting: int | str, *jobs: int, pace: float = 0.5, startup: float = 1.0, wait: float = 2.5) -> BatchSize:
    """*jobs*: the requests of each."""
    size = BatchSize(setting, Prior.of(Settings(), {}, None))
    for requests in jobs:
        seconds = startup + requests * pace
        stats = {"distributed/startup_seconds": startup, "distributed/job_seconds": seconds}
        size.job_ended(stats, requests, 1e6, "n1", seconds + wait)
    return size


def test_what_is_lost_is_told_by_its_cause() -> None:
    time = SlotTime()
    time.passed(10, FOUR, nothing_left=False)
    time.passed(3, FOUR._replace(idle=2, polls=1), nothing_left=False)
    time.passed(5, FOUR._replace(idle=3), nothing_left=True)
    time.found()
    time.passed(2, FOUR._replace(idle=3), nothing_left=True)
    time.passed(4, FOUR._replace(idle=2, polls=1), nothing_left=True)
    assert (time.total, time.polls, time.links, time.tail, time.alone) == (96, 7, 15, 10, 2)


def test_of_nothing_there_are_no_shares() -> None:
    assert SlotTime().share(0) == 0
    assert SlotTime().advice(measured("auto"), FOUR, 0) is None


# The sentence: of 100 requests of half a second each on four slots


def advice(
    size: BatchSize, *, idle: int = 0, polls: int = 0, unused: int = 0, links: bool = False, first: int = 4
) -> str:
    """20 seconds of work, and 10 at the end of which this is true."""
    time, slots = SlotTime(), FOUR._replace(unused=unused)
    time.passed(0, slots._replace(all=first), nothing_left=False)
    time.passed(20, slots, nothing_left=False)
    time.passed(10, slots._replace(idle=idle, polls=polls), nothing_left=True)
    if links:
        time.found()
    return time.advice(size, slots, 30) or ""


EVEN = (25, 25, 25, 25)


def test_where_all_is_well_nothing_is_said() -> None:
    assert advice(measured("auto", *EVEN)) == ""
    assert advice(measured(25, *EVEN)) == ""
    assert advice(measured("auto", *EVEN), idle=1, polls=1) == ""  # 10 seconds of 120


def test_waits_for_polls() -> None:
    assert advice(measured("auto", *EVEN), idle=2, polls=2) == (
        "Jobs waited 20 s for polls of their nodes: set poll_interval = 0.5 in scrapyd.conf, or use the warm launcher"
    )


def test_where_jobs_start_at_once_they_wait_for_no_poll() -> None:
    """We see late that they have begun, and do not know it of the first ones."""
    time, slots = SlotTime(), FOUR._replace(poll=0.0)
    time.passed(10, slots._replace(idle=4, polls=4, poll=None), nothing_left=False)
    assert time.advice(measured("auto", *EVEN), slots, 10) is None


def test_slots_that_nobody_knew_of() -> None:
    assert advice(measured("auto", 50, 50), unused=2, first=2) == (
        "2 of 4 slots never had a job: nobody knew of them before; the next run does"
    )


def test_where_the_size_is_set_it_does_not_matter_who_knew_of_them() -> None:
    assert "nobody" not in advice(measured(50, 50, 50), unused=2, first=2)


def test_slots_that_never_had_a_job_as_batches_are_too_large() -> None:
    assert advice(measured(50, 50, 50), unused=2) == (
        "2 of 4 slots never had a job: try DISTRIBUTED_BATCH_SIZE = 25, or 'auto'"
    )


def test_slots_that_little_work_leaves_without_a_job() -> None:
    assert advice(measured("auto", 2), unused=3, idle=3) == ""


def test_one_slot_that_works_alone() -> None:
    jobs = (10, 10, 10, 70)
    assert advice(measured(70, *jobs), idle=3) == (
        "One slot worked alone for 10 s: try DISTRIBUTED_BATCH_SIZE = 25, or 'auto'"
    )
    assert advice(measured("auto", *jobs), idle=3) == "One slot worked alone for 10 s: try DISTRIBUTED_BATCH_SIZE = 25"
    assert advice(measured("auto", *jobs), idle=2) == (
        "Slots had nothing left to do for 20 s while others worked: try DISTRIBUTED_BATCH_SIZE = 25"
    )


def test_one_that_another_size_would_not_help() -> None:
    assert advice(measured("auto", *EVEN), idle=3) == ""


def test_workers_that_wait_for_links() -> None:
    assert advice(measured("auto", *EVEN), idle=3, links=True) == (
        'Slots waited 30 s for what workers had to bring home first: try DISTRIBUTED_WORKER_TARGETS = "follow"'
    )


@pytest.mark.parametrize("polls", [0, 3])
def test_batches_that_are_too_small(polls: int) -> None:
    """Each start, and each wait for a poll: 3.5 seconds for ten jobs."""
    assert advice(measured(10, *[10] * 10), idle=polls, polls=polls) == (
        "Batches are too small: starts and waits of 10 jobs took 35 s: try DISTRIBUTED_BATCH_SIZE = 25, or 'auto'"
    )


def test_the_cause_that_costs_most_is_told() -> None:
    many = measured(70, 10, 10, 10, 70)
    assert "polls" in advice(many, idle=4, polls=3)
    assert "alone" in advice(many, idle=3)

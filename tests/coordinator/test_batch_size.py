"""The size of batches: long runs on a clock of their own, what is shared at once, and what receipts may claim. How
close whole runs come to the best one: ``test_schedules``."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scrapy.settings import Settings

from scrapy_distributed.config.prior import Prior
from scrapy_distributed.coordinator.batch_size import (
    LARGEST,
    LONG,
    POLL,
    ROUND,
    ROUND_ALIKE,
    START,
    START_WARM,
    WAITS,
    BatchSize,
)
from scrapy_distributed.dispatch.members import Slots

COLD, WARM = 1.1, 0.1  # seconds of start-up
FAST, SLOW = 0.002, 0.25 / 16  # seconds a request
AT_ONCE = 0.0  # between two polls
PACE = 0.1 / 8  # seconds a request, while nothing is known


def sized(setting: int | str = "auto", **settings: object) -> BatchSize:
    return BatchSize(setting, Prior.of(Settings(settings), {}, None))


def job(startup: float, seconds: float) -> dict[str, float]:
    """What a receipt says of its job's time."""
    return {"distributed/startup_seconds": startup, "distributed/job_seconds": seconds}


class Run:
    """A run as the coordinator does it: *slots* that start a batch at once, and as many batches that wait for them. A
    job takes up to *jitter* more or less than its share of the time."""

    def __init__(
        self, setting: int | str, *, startup: float, request: float, slots: int, requests: int, walk: float,
        jitter: float = 0.1,
    ) -> None:  # fmt: skip
        self.size = sized(setting)
        self.sizes: list[int] = []
        random, now, cut, settled = Random(1), 0.0, 0, 0
        waiting: deque[int] = deque()
        running: list[tuple[float, float, float, int]] = []
        self.idle = 0.0  # seconds of slots for which nothing is left
        while settled < requests:
            now += 0.25
            found = min(requests, int(walk * now))
            while running and running[0][0] <= now:
                _, began, seconds, count = heappop(running)
                settled += count
                self.size.job_ended(job(began, seconds), count, now, "n1", seconds)
            while (uncut := found - cut) and len(waiting) < slots:
                sizes = self.size.next(
                    uncut=uncut, unsettled=found - settled, elapsed=now, walking=found < requests,
                    left=[max(0.0, end - now) for end, *_ in running] + [size * request for size in waiting],
                    slots=Slots(slots, max(0, slots - len(running) - len(waiting)), poll=AT_ONCE),
                )  # fmt: skip
                if uncut < sizes[0] and found < requests:
                    break
                sizes = [min(uncut, size) for size in sizes]
                self.sizes += sizes
                waiting += sizes
                cut += sum(sizes)
            while waiting and len(running) < slots:
                count = waiting.popleft()
                began = startup * random.uniform(1 - jitter, 1 + jitter)
                seconds = began + count * request * random.uniform(1 - jitter, 1 + jitter)
                heappush(running, (now + seconds, began, seconds, count))
            self.idle += 0.25 * (slots - len(running)) * (cut == requests)
        self.seconds = now
        share = self.size.startup_share()
        assert share is not None
        self.startup, self.tail = share, self.idle / slots / now


LONG_RUNS = [
    (COLD, FAST, 2, 500_000, 20_000), (COLD, FAST, 12, 10_000_000, 20_000), (COLD, SLOW, 2, 50_000, 2_000),
    (COLD, SLOW, 2, 50_000, 20_000), (COLD, SLOW, 12, 500_000, 2_000), (COLD, SLOW, 12, 500_000, 20_000),
    (COLD, SLOW, 1000, 10_000_000, 20_000), (WARM, FAST, 2, 50_000, 2_000), (WARM, FAST, 2, 500_000, 20_000),
    (WARM, FAST, 12, 500_000, 2_000), (WARM, FAST, 12, 500_000, 20_000), (WARM, FAST, 1000, 10_000_000, 20_000),
    (WARM, SLOW, 12, 50_000, 2_000), (WARM, SLOW, 12, 50_000, 20_000), (WARM, SLOW, 1000, 10_000_000, 20_000),
]  # fmt: skip


@pytest.mark.parametrize(("startup", "request_time", "slots", "requests", "walk"), LONG_RUNS)
@pytest.mark.parametrize("jitter", [0, 0.1, 0.4])
def test_a_long_run_wastes_little_on_starts_and_at_its_end(
    startup: float, request_time: float, slots: int, requests: int, walk: float, jitter: float
) -> None:
    run = Run(
        "auto", startup=startup, request=request_time, slots=slots, requests=requests, walk=walk, jitter=jitter
    )  # fmt: skip
    assert sum(run.sizes) == requests
    assert run.startup <= 0.05
    assert run.tail <= (0.10 if jitter < 0.4 else 0.15)
    assert run.seconds <= 1.15 * max(requests * request_time / slots, requests / walk) + 5


@pytest.mark.parametrize(
    ("startup", "request_time", "slots", "requests", "walk"),
    [
        (COLD, FAST, 2, 5_000, 2_000), (COLD, FAST, 2, 50_000, 2_000), (COLD, FAST, 12, 500_000, 20_000),
        (COLD, SLOW, 2, 5_000, 2_000), (COLD, SLOW, 12, 5_000, 20_000), (COLD, SLOW, 12, 50_000, 20_000),
        (WARM, FAST, 2, 5_000, 20_000), (WARM, FAST, 12, 5_000, 20_000), (WARM, FAST, 12, 50_000, 20_000),
        (WARM, SLOW, 2, 5_000, 2_000), (WARM, SLOW, 12, 5_000, 20_000),
    ],
)  # fmt: skip
def test_a_short_run_is_not_slower_than_with_a_thousand(
    startup: float, request_time: float, slots: int, requests: int, walk: float
) -> None:
    what = {"startup": startup, "request": request_time, "slots": slots, "requests": requests, "walk": walk}
    automatic, default = Run("auto", **what), Run(1000, **what)
    assert automatic.seconds <= 1.06 * default.seconds


def test_with_a_walk_that_fills_the_fleet_batches_grow_and_then_shrink() -> None:
    """No swinging, whatever the jitter does to single jobs."""
    sizes = Run("auto", startup=COLD, request=SLOW, slots=12, requests=500_000, walk=20_000, jitter=0.4).sizes
    middle = sizes.index(max(sizes))
    for part in (sizes[:middle], sizes[:middle:-1]):
        assert all(after >= before * 0.7 for before, after in pairwise(part))


def test_the_same_measurements_give_the_same_sizes() -> None:
    first, second = (Run("auto", startup=COLD, request=FAST, slots=12, requests=50_000, walk=2_000) for _ in range(2))
    assert first.sizes == second.sizes


# What a job costs


def measured(*jobs: tuple[float, float, int], setting: int | str = "auto", wait: float = 0.0) -> BatchSize:
    """*jobs*: start-up seconds, seconds, requests."""
    size = sized(setting)
    for startup, seconds, requests in jobs:
        size.job_ended(job(startup, seconds), requests, 3600.0, "n1", seconds + wait)
    return size


SCRAPYD = Slots(4, 4)


def test_what_a_job_costs_is_guessed_until_one_was_measured() -> None:
    assert sized().cost(SCRAPYD) == START + POLL / 2 == 3.5
    assert sized().cost(SCRAPYD._replace(poll=0.5)) == 3.5
    assert sized().cost(SCRAPYD._replace(poll=20.0)) == START + 10
    assert sized().cost(SCRAPYD._replace(at_once=True)) == START_WARM
    assert sized(AUTOTHROTTLE_ENABLED=True).cost(SCRAPYD._replace(at_once=True)) == START_WARM + 10


def test_the_delay_before_a_job_costs_where_several_sites_wait_for_it_at_once() -> None:
    one, two = sized(DOWNLOAD_DELAY=2), sized(DOWNLOAD_DELAY=2)
    one.prior.note(['"http://a.example/"'])
    two.prior.note(['"http://a.example/"', '"http://b.example/"'])
    assert one.cost(SCRAPYD) == 3.5
    assert two.cost(SCRAPYD) == 3.5 + 2 - two.pace


def test_jobs_of_one_request_do_not_tell_that_delays_are_none() -> None:
    """The first job in a slot has waited for none."""
    size = sized(DOWNLOAD_DELAY=5)
    for node in ("n1", "n2"):
        size.job_ended(job(0.06, 0.12), 1, 3600.0, node, 0.2)
    assert size.pace == 5
    slots = Slots(4, 4, at_once=True)
    assert max(size.next(uncut=20, unsettled=20, slots=slots, left=(), elapsed=1.0, walking=False)) <= 20 / 4


def test_then_it_is_its_start_and_the_least_that_one_has_waited_of_late() -> None:
    """Others may have waited behind jobs of others. But no less than half of the time between two polls."""
    size = measured(*[(1, 11, 100)] * 3, wait=0.1)
    assert size.cost(SCRAPYD) == pytest.approx(1.1)
    assert size.cost(SCRAPYD._replace(poll=5.0)) == 3.5
    for _ in range(WAITS):
        size.job_ended(job(1, 11), 100, 3600.0, "n1", 17.0)
    assert size.cost(SCRAPYD) == 7


@pytest.mark.parametrize("trip", [None, 4.0], ids=["it was queued", "it was sent before this coordinator has begun"])
def test_not_every_job_tells_how_long_one_waits(trip: float | None) -> None:
    size = sized()
    size.job_ended(job(1, 11), 100, 3600.0, "n1", trip)
    assert size.cost(SCRAPYD) == 1 + POLL / 2


# One round


def following(
    size: BatchSize, *, walking: bool = True, left: Sequence[float] = (25.0,) * 4, **known: float
) -> list[int]:
    """The next sizes in the middle of a run that is an hour old, with plenty to do on four slots that are busy."""
    free, at_once = int(known.pop("free", 0)), bool(known.pop("at_once", False))
    slots = Slots(4, free, poll=known.pop("poll", None), at_once=at_once)
    usual = {"uncut": 10**6, "unsettled": 10**6, "elapsed": 3600.0}
    return size.next(**(usual | known), left=left, walking=walking, slots=slots)  # type: ignore[arg-type]


def test_a_fixed_size_is_what_it_is() -> None:
    assert following(measured((1, 2, 10), setting=7)) == [7]
    assert following(sized(7), walking=False, uncut=20, free=4) == [7]


@given(uncut=st.integers(1, 1000), free=st.integers(1, 4))
def test_what_is_short_is_shared_evenly_by_the_slots_that_are_free(uncut: int, free: int) -> None:
    sizes = following(sized(), walking=False, uncut=uncut, free=free, elapsed=1.0)
    assert sum(sizes) == uncut
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == min(free, max(1, int(uncut * PACE / START)))


def test_no_share_is_smaller_than_a_start_is_worth() -> None:
    """A start costs as much as crawling so many pages; where it is cheap a batch may be one request."""
    assert following(sized(), walking=False, uncut=100, free=4) == [100]
    assert following(sized(), walking=False, uncut=160, free=4) == [80, 80]
    assert following(sized(DOWNLOAD_DELAY=2), walking=False, uncut=4, free=4) == [1, 1, 1, 1]
    assert following(measured((0.05, 1.05, 10)), walking=False, uncut=4, free=4) == [1, 1, 1, 1]


def test_what_is_long_is_not_shared_at_once() -> None:
    just = int(ROUND * 3.5 * 4 / PACE)
    assert following(sized(), walking=False, uncut=just - 4, free=4, poll=POLL) == [(just - 4) // 4] * 4
    assert len(following(sized(), walking=False, uncut=just, free=4, poll=POLL)) == 1


def test_slots_of_one_machine_are_alike_and_start_at_once() -> None:
    """So more is shared at once, and by smaller shares."""
    just = int(ROUND_ALIKE * START_WARM * 4 / PACE)
    assert following(sized(), walking=False, uncut=just - 4, free=4, at_once=1) == [(just - 4) // 4] * 4
    assert len(following(sized(), walking=False, uncut=just, free=4, at_once=1)) == 1
    assert following(sized(), walking=False, uncut=100, free=4, at_once=1) == [25] * 4


def test_all_slots_end_together_those_that_are_at_work_now_included() -> None:
    """Three of four are busy, for ten seconds each, and then their next jobs cost 3.5 seconds."""
    until = int(13.5 / PACE)
    assert following(sized(), walking=False, uncut=until, free=1, left=[10.0] * 3, elapsed=10.0) == [until]
    more = int(4 * 3 / PACE)  # three seconds more for each
    assert following(sized(), walking=False, uncut=until + more, free=1, left=[10.0] * 3, elapsed=10.0) == [
        pytest.approx(until + more / 4, abs=1)
    ]


def test_a_slot_that_has_much_to_do_yet_takes_no_part() -> None:
    """One is free, one has ten seconds to go, two have a minute: what takes 30 seconds is for the first two."""
    left, work = [60.0, 10.0, 60.0], int(30 / PACE)
    first = following(sized(), walking=False, uncut=work, free=1, left=left, elapsed=10.0)
    assert first == [pytest.approx((30 + 13.5) / 2 / PACE, abs=1)]


def test_where_no_slot_is_free_the_part_is_that_of_the_one_that_is_free_first() -> None:
    left, work = [60.0, 10.0, 12.0, 60.0], int(20 / PACE)
    assert following(sized(), walking=False, uncut=work, free=0, left=left, elapsed=10.0) == [
        pytest.approx(11 / PACE, abs=1)
    ]
    assert following(sized(), walking=False, uncut=1, free=0, left=left, elapsed=10.0) == [1]
    one_waits = [30.0, 30.0, 5.0, 7.0, 6.0]  # the slots have 7 and 11 seconds to go, and two 30
    assert following(sized(), walking=False, uncut=work, free=0, left=one_waits, elapsed=10.0) == [
        pytest.approx((20 + 4) / 2 / PACE, abs=1)
    ]


def test_what_a_walk_has_found_is_shared_by_free_slots_while_all_is_guessed() -> None:
    """In jobs of at least twice what one costs, and none larger than usual."""
    usual, twice = 1252, 2 * 3.5 / PACE
    assert following(sized(), uncut=usual, unsettled=usual, free=4, elapsed=0.0) == [626, 626]
    assert following(sized(), uncut=int(2 * twice) - 1, unsettled=0, free=4, elapsed=0.0) == [usual]  # not full
    assert following(sized(), uncut=10**5, unsettled=0, free=2, elapsed=0.0) == [usual] * 2
    assert following(sized(), uncut=usual, unsettled=usual, free=0, elapsed=0.0) == [usual]
    assert following(measured((1, 11, 100)), uncut=600, free=4) == [600]


def test_a_share_is_no_longer_than_a_batch_may_be() -> None:
    fast = measured((1, 1.02, 10_000))
    assert max(following(fast, walking=False, uncut=10**6, free=4, elapsed=1.0)) <= LARGEST


# Else


def test_the_first_batch_of_a_walk_is_that_of_a_run_of_some_length() -> None:
    """The balanced job for ten times what a job costs."""
    seconds = math.sqrt(2 * 3.5 * 35)
    assert following(sized(), uncut=0, unsettled=0, elapsed=0.0) == [int(seconds / PACE)] == [1252]
    assert following(sized(DOWNLOAD_DELAY=1), uncut=0, unsettled=0, elapsed=0.0) == [int(seconds / 1.218)]


def test_while_all_is_guessed_no_batch_is_larger() -> None:
    for walking in (True, False):
        assert following(sized(), walking=walking) == [1252]


def test_a_job_of_a_minute_is_long_enough() -> None:
    assert following(measured((1, 11, 100))) == [LONG / 0.1]


def test_where_jobs_cost_much_they_are_longer() -> None:
    assert following(measured((6, 16, 100))) == [2000]
    assert following(measured((1, 11, 100), wait=5)) == [2000]


def test_what_is_left_is_shared() -> None:
    assert following(measured((1, 11, 100)), uncut=2400, unsettled=2400, elapsed=100.0, walking=False) == [300]


def test_the_last_batches_are_not_too_small_and_a_small_rest_goes_with_the_last_one() -> None:
    """The geometric mean of what a job costs and of the run: 1 s and an hour."""
    size = measured((1, 11, 100))
    assert size.usual(uncut=1, unsettled=0, slots=Slots(4, 0, poll=0), elapsed=3600.0, walking=False) == 600
    assert following(size, uncut=899, unsettled=0, walking=False) == [899]
    assert following(size, uncut=901, unsettled=0, walking=False) == [600]


def test_the_best_size_is_known_afterwards() -> None:
    slots = Slots(4, 0, poll=AT_ONCE)
    assert measured(*[(1, 6, 50)] * 3).best(slots) == 38
    assert measured(*[(1, 101, 1000)] * 100).best(slots) == int(math.sqrt(2 * 2500) / 0.1)


# Lies


@pytest.mark.parametrize("lie", [(1e-9, 1e-9, 10**6), (3000, 3600, 1), (1e-9, 3600, 1)])
def test_a_few_receipts_that_lie_change_little(lie: tuple[float, float, int]) -> None:
    honest = [(1 + number / 100, 11 + number / 50, 100) for number in range(30)]
    (size,), (truth,) = following(measured(*honest, *[lie] * 29)), following(measured(*honest))
    assert 0.8 < size / truth < 1.25


@pytest.mark.parametrize("lie", [(1e-300, 1e-300, 10**6), (3600, 3600, 1), (1e-300, 3600, 1), (1e-300, 1e-300, 1)])
@pytest.mark.parametrize("free", [0, 4])
def test_if_all_receipts_lie_a_batch_is_a_batch_still(lie: tuple[float, float, int], free: int) -> None:
    for walking in (True, False):
        assert all(1 <= size <= LARGEST for size in following(measured(*[lie] * 200), free=free, walking=walking))


@pytest.mark.parametrize(
    "stats",
    [
        {}, job(0, 5), job(-1, 5), job(5, 4), job(1, 3601), job(1, 2**63), {"distributed/startup_seconds": 1},
        {"distributed/job_seconds": 1}, job(float("nan"), 5), job(1, float("nan")),
    ],
)  # fmt: skip
def test_what_can_not_be_is_left_out(stats: dict[str, float]) -> None:
    size = sized()
    size.job_ended(stats, 10, 3600.0, "n1", 9.0)
    assert size.startup_share() is None
    assert (size.requests, size.pace, size.cost(SCRAPYD)) == (0, PACE, 3.5)


def test_a_job_without_a_request_says_nothing_of_requests() -> None:
    assert measured((1, 2, 0)).startup_share() is None


def test_the_share_is_of_the_time_of_all() -> None:
    assert measured((1, 4, 10), (2, 16, 10)).startup_share() == 3 / 20


@pytest.mark.parametrize("honest", [1, 2, 5])
@pytest.mark.parametrize("lie", [98.0, 1e-9])
def test_one_node_that_lies_does_not_decide_for_all(honest: int, lie: float) -> None:
    """It answers first and most often; of two nodes nobody knows which one lies, so the faster one is believed."""
    size, truth = sized(), sized()
    for _ in range(100):
        size.job_ended(job(1.0, 1.0 + 10 * lie), 10, 3600.0, "liar", 1.0 + 10 * lie)
    for number in range(honest):
        for one in (size, truth):
            one.job_ended(job(1.0, 11.0), 1000, 3600.0, f"n{number}", 11.0)
    if honest > 1 or lie > 1:
        assert following(size) == following(truth) == [6000]

"""The size of batches: whole runs on a clock of their own, what receipts may claim, and the sentence at the end."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import pairwise
from random import Random

import pytest

from scrapy_distributed.coordinator.batch_size import FIRST, LARGEST, BatchSize

COLD, WARM = 1.1, 0.1  # seconds of start-up
FAST, SLOW = 0.002, 0.25 / 16  # seconds a request


def job(startup: float, seconds: float) -> dict[str, float]:
    """What a receipt says of its job's time."""
    return {"distributed/startup_seconds": startup, "distributed/job_seconds": seconds}


class Run:
    """A run as the coordinator does it: *slots* that take batches at once, and as many batches that wait for them. A
    job takes up to *jitter* more or less than its share of the time."""

    def __init__(
        self, setting: int | str, *, startup: float, request: float, slots: int, requests: int, walk: float,
        jitter: float = 0.1,
    ) -> None:  # fmt: skip
        self.size = BatchSize(setting)
        self.sizes: list[int] = []
        random, now, cut, settled = Random(1), 0.0, 0, 0
        waiting: deque[int] = deque()
        running: list[tuple[float, float, float, int]] = []
        while settled < requests:
            now += 0.25
            found = min(requests, int(walk * now))
            while running and running[0][0] <= now:
                _, began, seconds, count = heappop(running)
                settled += count
                self.size.job_ended(job(began, seconds), count, now, "n1")
            while (uncut := found - cut) and len(waiting) < slots:
                count = self.size.next(
                    uncut=uncut, unsettled=found - settled, slots=slots, elapsed=now, walking=found < requests
                )
                if found < requests and uncut < count:
                    break
                self.sizes.append(uncut if found == requests and uncut < 1.5 * count else min(count, uncut))
                waiting.append(self.sizes[-1])
                cut += self.sizes[-1]
            while waiting and len(running) < slots:
                count = waiting.popleft()
                began = startup * random.uniform(1 - jitter, 1 + jitter)
                seconds = began + count * request * random.uniform(1 - jitter, 1 + jitter)
                heappush(running, (now + seconds, began, seconds, count))
            self.size.idle(cut == requests and len(running) < slots, now)
        self.seconds = now
        share = self.size.startup_share()
        assert share is not None
        self.startup, self.tail = share, self.size.tail_share(now)
        self.advice = self.size.advice(slots=slots, elapsed=now)

    @property
    def worse(self) -> float:
        """How far the worse of both shares is from its limit; up to 1 both are kept."""
        return max(self.startup / 0.05, self.tail / 0.10)


LONG_RUNS = [
    (COLD, FAST, 2, 500_000, 20_000), (COLD, FAST, 12, 10_000_000, 20_000), (COLD, SLOW, 2, 50_000, 2_000),
    (COLD, SLOW, 2, 50_000, 20_000), (COLD, SLOW, 12, 500_000, 2_000), (COLD, SLOW, 12, 500_000, 20_000),
    (COLD, SLOW, 1000, 10_000_000, 20_000), (WARM, FAST, 2, 50_000, 2_000), (WARM, FAST, 2, 500_000, 20_000),
    (WARM, FAST, 12, 500_000, 2_000), (WARM, FAST, 12, 500_000, 20_000), (WARM, FAST, 1000, 10_000_000, 20_000),
    (WARM, SLOW, 2, 5_000, 2_000), (WARM, SLOW, 12, 50_000, 2_000), (WARM, SLOW, 12, 50_000, 20_000),
    (WARM, SLOW, 1000, 10_000_000, 20_000),
]  # fmt: skip


@pytest.mark.parametrize(("startup", "request_time", "slots", "requests", "walk"), LONG_RUNS)
@pytest.mark.parametrize("jitter", [0, 0.1, 0.4])
def test_a_long_run_keeps_both_limits(
    startup: float, request_time: float, slots: int, requests: int, walk: float, jitter: float
) -> None:
    run = Run(
        "auto", startup=startup, request=request_time, slots=slots, requests=requests, walk=walk, jitter=jitter
    )  # fmt: skip
    assert sum(run.sizes) == requests
    assert run.sizes[0] == FIRST
    assert run.startup <= 0.05
    assert run.tail <= (0.10 if jitter < 0.4 else 0.13)
    assert run.seconds <= 1.15 * max(requests * request_time / slots, requests / walk) + 5


@pytest.mark.parametrize(
    ("startup", "request_time", "slots", "requests", "walk"),
    [
        (COLD, FAST, 2, 5_000, 2_000), (COLD, FAST, 2, 50_000, 2_000), (COLD, FAST, 12, 500_000, 20_000),
        (COLD, SLOW, 2, 5_000, 2_000), (COLD, SLOW, 12, 5_000, 20_000), (COLD, SLOW, 12, 50_000, 20_000),
        (WARM, FAST, 2, 5_000, 20_000), (WARM, FAST, 12, 5_000, 20_000), (WARM, FAST, 12, 50_000, 20_000),
        (WARM, SLOW, 12, 5_000, 20_000),
    ],
)  # fmt: skip
def test_a_run_too_short_for_both_is_not_slower_than_with_the_default(
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


def following(size: BatchSize, **known: float) -> int:
    """The next size in the middle of a run that is an hour old, with plenty to do."""
    usual = {"uncut": 10**6, "unsettled": 10**6, "slots": 4, "elapsed": 3600.0, "walking": True}
    return size.next(**(usual | known))  # type: ignore[arg-type]


def measured(*jobs: tuple[float, float, int], setting: int | str = "auto") -> BatchSize:
    """*jobs*: start-up seconds, seconds, requests."""
    size = BatchSize(setting)
    for startup, seconds, requests in jobs:
        size.job_ended(job(startup, seconds), requests, 3600.0, "n1")
    return size


def test_a_fixed_size_is_what_it_is() -> None:
    assert following(measured((1, 2, 10), setting=7)) == 7


def test_the_first_batches_are_modest_and_no_drops_in_the_ocean() -> None:
    assert following(BatchSize("auto"), uncut=0) == FIRST
    assert following(BatchSize("auto"), uncut=FIRST) == FIRST
    assert following(BatchSize("auto"), uncut=64_000) == 1000


def test_a_job_of_a_minute_is_long_enough() -> None:
    assert following(measured((1, 11, 100))) == 600


def test_where_starts_are_slow_jobs_are_longer() -> None:
    assert following(measured((6, 16, 100))) == 2000


def test_what_is_left_is_shared() -> None:
    assert following(measured((1, 11, 100)), uncut=2400, unsettled=2400, elapsed=100.0, walking=False) == 300


def test_the_last_batches_are_not_too_small() -> None:
    """The geometric mean of start-up and run: 1 s and 100 s."""
    assert following(measured((1, 11, 100)), uncut=1, unsettled=0, elapsed=100.0, walking=False) == 100


@pytest.mark.parametrize("lie", [(1e-9, 1e-9, 10**6), (3000, 3600, 1), (1e-9, 3600, 1)])
def test_a_few_receipts_that_lie_change_little(lie: tuple[float, float, int]) -> None:
    honest = [(1 + number / 100, 11 + number / 50, 100) for number in range(30)]
    size = following(measured(*honest, *[lie] * 29))
    assert 0.8 < size / following(measured(*honest)) < 1.25


@pytest.mark.parametrize("lie", [(1e-300, 1e-300, 10**6), (3600, 3600, 1), (1e-300, 3600, 1), (1e-300, 1e-300, 1)])
def test_if_all_receipts_lie_a_batch_is_a_batch_still(lie: tuple[float, float, int]) -> None:
    assert 1 <= following(measured(*[lie] * 200)) <= LARGEST


@pytest.mark.parametrize(
    "stats",
    [
        {}, job(0, 5), job(-1, 5), job(5, 4), job(1, 3601), job(1, 2**63), {"distributed/startup_seconds": 1},
        {"distributed/job_seconds": 1}, job(float("nan"), 5), job(1, float("nan")),
    ],
)  # fmt: skip
def test_what_can_not_be_is_left_out(stats: dict[str, float]) -> None:
    size = BatchSize("auto")
    size.job_ended(stats, 10, 3600.0, "n1")
    assert size.startup_share() is None
    assert size.requests == 0
    assert following(size, uncut=0) == FIRST


def test_a_job_without_a_request_says_nothing_of_requests() -> None:
    assert measured((1, 2, 0)).startup_share() is None


def test_the_shares_are_of_the_time_of_all() -> None:
    size = measured((1, 4, 10), (2, 16, 10))
    assert size.startup_share() == 3 / 20
    assert size.tail_share(0) == 0
    for idle, elapsed in ((False, 10), (True, 20), (True, 22), (False, 24), (False, 30), (True, 39), (False, 40)):
        size.idle(idle, elapsed)
    assert size.tail_share(40) == 5 / 40


def advice(setting: int | str, *jobs: tuple[float, float, int], tail: float = 0, seconds: float = 1000) -> str | None:
    """For 2 slots; *tail*: seconds."""
    size = measured(*jobs, setting=setting)
    size.idle(True, seconds - tail)
    size.idle(False, seconds)
    return size.advice(slots=2, elapsed=seconds)


def test_if_both_shares_are_fine_nothing_is_said() -> None:
    assert advice(1000, (1, 21, 1000), tail=100) is None
    assert advice(1000) is None


def test_batches_that_are_too_small() -> None:
    assert advice(50, *[(1, 2, 50)] * 500) == (
        "Batches are too small: 50% of the workers' time was start-up (5% is fine);"
        " try DISTRIBUTED_BATCH_SIZE = 2200, or 'auto'"
    )


def test_batches_that_are_too_large() -> None:
    assert advice(5000, (1, 501, 5000), (1, 501, 5000), tail=300) == (
        "Batches are too large: for 30% of the run a node had nothing left to do (10% is fine);"
        " try DISTRIBUTED_BATCH_SIZE = 450, or 'auto'"
    )


@pytest.mark.parametrize(
    ("setting", "jobs", "tail"),
    [
        ("auto", [(1, 2, 50)] * 500, 0),  # it did what it could
        (1000, [(1, 2, 50)], 0),  # there were no more requests
        (2200, [(1, 2, 50)] * 500, 0),  # batches were cut, as an argument is only so long
    ],
)
def test_another_size_is_not_asked_for_where_it_would_not_help(
    setting: int | str, jobs: list[tuple[float, float, int]], tail: float
) -> None:
    assert advice(setting, *jobs, tail=tail) == (
        "50% of the workers' time was start-up (5% is fine); batches of another size would hardly help"
    )


def test_a_run_that_is_short_is_not_told_to_change() -> None:
    """Both are over their limits, and the size is the one that keeps them as far from these."""
    assert advice(60, (1, 7, 60), (1, 7, 60), tail=3, seconds=18) == (
        "14% of the workers' time was start-up (5% is fine) and for 17% of the run a node had nothing left to do"
        " (10% is fine); batches of another size would hardly help"
    )


@pytest.mark.parametrize("honest", [1, 2, 5])
@pytest.mark.parametrize("lie", [98.0, 1e-9])
def test_one_node_that_lies_does_not_decide_for_all(honest: int, lie: float) -> None:
    """It answers first and most often; of two nodes nobody knows which one lies, so the faster one is believed."""
    size = BatchSize("auto")
    truth = BatchSize("auto")
    for _ in range(100):
        size.job_ended(job(1.0, 1.0 + 10 * lie), 10, 3600.0, "liar")
    for number in range(honest):
        for one in (size, truth):
            one.job_ended(job(1.0, 11.0), 1000, 3600.0, f"n{number}")
    if honest > 1 or lie > 1:
        assert following(size) == following(truth) == 6000

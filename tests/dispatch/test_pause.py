"""When the pause between two looks ends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import pytest_twisted
from rig import LEASE, POLL, Rig
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from scrapy_distributed.dispatch.dispatcher import LAST_LOOKS, LOOKS
from scrapy_distributed.dispatch.pause import Pause


class Watch:
    """Somebody who rests for 10 s again and again, for 1 s at least; *looks* has the times when he looks."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pause = Pause(self.clock)
        self.looks: list[float] = []
        self.meanwhile: Callable[[], None] = lambda: None  # what happens during a look
        self.watching = Deferred.fromCoroutine(self.watch())

    async def watch(self) -> None:
        while True:
            self.meanwhile()
            self.looks.append(self.clock.seconds())
            await self.pause.rest(10, least=1)

    def wait(self, seconds: float) -> None:
        self.clock.pump([0.0] + [0.25] * round(seconds / 0.25))


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_without_news_it_takes_its_time(watch: Watch) -> None:
    watch.wait(20)
    assert watch.looks == [0, 10, 20]


def test_news_end_it(watch: Watch) -> None:
    watch.wait(5)
    watch.pause.news()
    watch.wait(10)
    assert watch.looks == [0, 5, 15]


def test_news_that_come_at_once_wait(watch: Watch) -> None:
    watch.pause.news()
    watch.wait(10)
    assert watch.looks == [0, 1]


def test_news_all_the_time_make_no_busy_loop(watch: Watch) -> None:
    for _ in range(40):
        watch.pause.news()
        watch.wait(0.25)
    assert watch.looks == list(range(11))


def test_news_during_a_look_bring_the_next_one(watch: Watch) -> None:
    watch.meanwhile = watch.pause.news
    watch.wait(10)
    watch.meanwhile = lambda: None
    watch.wait(12)
    assert watch.looks == [0, 10, 11, 21]


def test_one_that_is_cut_off_leaves_nothing_behind(watch: Watch) -> None:
    watch.watching.addErrback(lambda failure: failure.trap(CancelledError))
    watch.watching.cancel()
    watch.pause.news()
    assert not watch.clock.getDelayedCalls()
    assert watch.looks == [0]


# In a run


@pytest_twisted.ensureDeferred
async def test_the_last_batches_are_looked_at_more_often(rig: Rig) -> None:
    rig.batches(1)
    await rig.start()
    rig.all_cut = True
    await rig.look()
    asked = len(rig.fakes[0].requests)
    rig.clock.advance(2 / LAST_LOOKS)
    await rig.quiet()
    assert rig.fakes[0].requests[asked:] == ["GET daemonstatus.json"]
    rig.batches(1)
    rig.dispatcher.send_ready = lambda: None  # type: ignore[method-assign]
    rig.clock.advance(2 / LAST_LOOKS)
    await rig.quiet()
    asked = len(rig.fakes[0].requests)
    rig.clock.advance(POLL / 2)
    await rig.quiet()
    assert len(rig.fakes[0].requests) == asked


def test_a_large_fleet_is_looked_at_less_often_and_always_within_a_lease(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    pauses = []
    for size in (2, 400, 1000, 100_000):
        rig.dispatcher.fleet.members = rig.members[:1] * size
        pauses.append(rig.dispatcher._pause(rig.members[0]))
    rig.dispatcher.fleet.members = rig.members  # those are ended
    assert [usual for usual, _ in pauses] == [POLL, POLL, 1000 / LOOKS, LEASE / 4]
    assert [least for _, least in pauses] == [2 / LAST_LOOKS, POLL, 1000 / LOOKS, LEASE / 4]


@pytest_twisted.ensureDeferred
async def test_when_the_last_batch_is_on_its_node_no_long_pause_goes_on(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(nodes=1)
    await rig.start()
    for crawled in (1, 2):  # the second one is what a worker has found on the first
        rig.all_cut = False
        await rig.look()
        rig.all_cut = True
        await rig.send(1)
        (job,) = rig.fakes[0].start_pending()
        rig.report(0, job)
        rig.clock.advance(1 / LAST_LOOKS)
        await rig.quiet()
        assert rig.balance() == {"diverted": crawled, "crawled": crawled}


@pytest_twisted.ensureDeferred
async def test_a_batch_that_is_not_the_last_one_ends_no_pause(rig: Rig) -> None:
    await rig.start()
    await rig.look()
    for last in (False, True):
        rig.all_cut = last
        await rig.send(1)
        for fake in rig.fakes:
            fake.requests.clear()
        rig.clock.advance(2 / LAST_LOOKS)
        await rig.quiet()
        rig.clock.advance(2 / LAST_LOOKS)
        await rig.quiet()
        looks = [fake.requests.count("GET daemonstatus.json") for fake in rig.fakes]
        assert looks == ([2, 2] if last else [0, 0])


@pytest_twisted.ensureDeferred
async def test_a_job_that_should_be_over_is_asked_for_and_less_and_less_where_it_is_not(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(nodes=1)
    rig.batches(10)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    for sequence, settled in ((1, 0b0), (2, 0b1111)):
        rig.report(0, job, sequence=sequence, final=False, settled=settled, activity=sequence)
        await rig.look()  # so of ten requests four take a pause
    rig.fakes[0].requests.clear()
    began, looks, receipts = rig.clock.seconds(), [], 0
    for _ in range(100):
        rig.clock.advance(0.1)
        await rig.quiet()
        looks += [round(rig.clock.seconds() - began, 1)] * rig.fakes[0].requests.count("GET daemonstatus.json")
        receipts += sum("receipts" in request for request in rig.fakes[0].requests)
        rig.fakes[0].requests.clear()
    assert looks[:2] == pytest.approx([2.0, 3.0], abs=0.1)
    gaps = [round(later - sooner, 1) for sooner, later in pairwise(looks[1:])]
    assert gaps == sorted(gaps)
    assert (gaps[0], gaps[-1]) == (0.1, POLL)
    assert receipts == 1


@pytest_twisted.ensureDeferred
async def test_a_node_that_has_news_is_looked_at_and_no_other(rig: Rig) -> None:
    rig.batches(1, 1)
    await rig.start()
    await rig.look()
    (job,) = rig.fakes[0].start_pending()
    rig.report(0, job)
    for fake in rig.fakes:
        fake.requests.clear()
    rig.news["n0"]()
    rig.clock.advance(2 / LAST_LOOKS)
    await rig.quiet()
    assert rig.balance() == {"diverted": 2, "crawled": 1, "in_flight": 1}
    assert rig.fakes[0].requests == ["GET daemonstatus.json", f"GET logs/p/s.receipts/{job.id}.json"]
    assert rig.fakes[1].requests == []

"""When the pause between two looks ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

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

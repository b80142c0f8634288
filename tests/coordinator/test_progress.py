"""How far the fleet is, as it is told now and then."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from scrapy import Spider
from twisted.internet.task import Clock

from scrapy_distributed.coordinator.progress import LATELY, OFTEN, SELDOM, Progress, figures_of
from scrapy_distributed.dispatch.members import Slots
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.balance import Balance


class Told:
    """A fleet with one job at work and one that waits, and an account that takes *seconds* to count."""

    def __init__(self, clock: Clock, seconds: float = 0.0) -> None:
        self.clock = clock
        self.seconds = seconds
        self.fails = False
        self.over = True
        self.paused = False
        self.reported = 0  # requests, by a job at work
        self.crawled = 28

    def balance(self) -> Balance:
        self.clock.rightNow += self.seconds
        if self.fails:
            raise LedgerUnavailableError("busy")
        crawled = self.crawled
        return Balance(
            diverted=120, duplicates=0, queued=40, in_flight=78 - crawled, crawled=crawled, failed=1, filtered=1, dead=0
        )  # fmt: skip

    def items(self) -> int:
        return 28

    def slots(self) -> Slots:
        return Slots(4, 3)

    def flights(self) -> list[object]:
        flights = [
            SimpleNamespace(counts=counts, started=started, settled=self.reported, items=9)
            for counts, started in ((True, True), (True, False), (False, True))
        ]
        return [(None, flight) for flight in flights]


def progress(clock: Clock, told: Told, interval: float = 60.0) -> Progress:
    made = Progress(
        figures=lambda: figures_of(told, told, told, paused=told.paused),  # type: ignore[arg-type]
        spider=Spider("s"), interval=interval, clock=clock,
    )  # fmt: skip
    made.start()
    return made


def passes(clock: Clock, seconds: float) -> None:
    clock.pump([1.0] * int(seconds))


@pytest.fixture(autouse=True)
def level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


def test_what_is_settled_and_what_running_jobs_have_done(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    told = Told(clock)
    made = progress(clock, told)
    told.reported = 7
    passes(clock, 59)
    assert not caplog.messages
    passes(clock, 1)
    # Thirty were settled when the crawl began; seven more are by what a job at work has told.
    assert caplog.messages == [
        "Fleet: 37 of 120 requests settled (30 %), 7/min, about 12 min left, 37 items, 1 of 4 slots at work"
        " (Scrapy's own line, of crawled pages, counts those of this process alone)"
    ]
    passes(clock, 60)
    assert caplog.messages[1] == "Fleet: 37 of 120 requests settled (30 %), 37 items, 1 of 4 slots at work"
    told.paused = True
    passes(clock, 60)
    assert caplog.messages[2] == "Fleet: paused, 37 of 120 requests settled (30 %), 37 items, 1 of 4 slots at work"
    made.stop()
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("crawled", "over", "interval", "words"),
    [
        (76, False, 60.0, "(65 %), 48/min, less than a minute for the rest of what was found so far, "),
        (78, True, 3600.0, "(66 %), 50.0/h, about 48 min left, "),
        (29, True, 7200.0, "(25 %), 0.5/h, about 178 h left, "),
    ],
)
def test_how_fast_since_the_line_before_and_what_that_means(
    caplog: pytest.LogCaptureFixture, crawled: int, over: bool, interval: float, words: str
) -> None:
    clock = Clock()
    told = Told(clock)
    progress(clock, told, interval)
    told.crawled, told.over = crawled, over
    passes(clock, interval)
    assert words in caplog.messages[0]


def test_it_is_counted_more_often_than_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    told = Told(clock)
    made = progress(clock, told, interval=0)  # never
    assert made.last is not None
    assert made.last.rate == 0
    told.crawled = 48
    passes(clock, OFTEN)
    assert (made.last.settled, made.last.rate, made.last.seconds_left) == (50, 240.0, 17.5)
    passes(clock, LATELY - OFTEN)
    assert made.last.rate == 20.0
    passes(clock, LATELY)  # nothing more: that was longer ago
    assert (made.last.rate, made.last.seconds_left) == (0.0, None)
    assert not caplog.messages
    made.stop()


def test_a_ledger_that_takes_long_is_asked_seldom(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    told = Told(clock, seconds=1.0)
    made = progress(clock, told)
    first = made.last
    clock.advance(SELDOM - 1)
    assert made.last is first
    clock.advance(1)
    assert made.last is not first
    assert len(caplog.messages) == 1


def test_a_ledger_that_can_not_be_read_now_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    told = Told(clock)
    progress(clock, told)
    told.fails = True
    passes(clock, 60)
    assert not caplog.messages
    told.fails = False
    passes(clock, OFTEN)
    assert len(caplog.messages) == 1


def test_jobs_of_a_node_that_gets_no_more_are_in_slots_all_the_same() -> None:
    clock = Clock()
    told = Told(clock)
    told.slots = lambda: Slots(0, 0)  # type: ignore[method-assign]
    made = progress(clock, told)
    assert made.last is not None
    assert (made.last.at_work, made.last.slots) == (1, 1)


def test_two_lines_are_an_interval_apart(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    progress(clock, Told(clock), interval=2)
    passes(clock, 10)
    assert len(caplog.messages) == 5

"""How far the fleet is, as it is told now and then."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from scrapy import Spider
from twisted.internet.task import Clock

from scrapy_distributed.coordinator.progress import SELDOM, Progress
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
            SimpleNamespace(counts=counts, started=started, settled=7, items=9)
            for counts, started in ((True, True), (True, False), (False, True))
        ]
        return [(None, flight) for flight in flights]


def progress(clock: Clock, told: Told, interval: float = 60.0) -> Progress:
    made = Progress(
        account=told, fleet=told, walk=told, spider=Spider("s"), interval=interval, clock=clock  # type: ignore[arg-type]
    )  # fmt: skip
    made.start()
    return made


@pytest.fixture(autouse=True)
def level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


def test_what_is_settled_and_what_running_jobs_have_done(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    made = progress(clock, Told(clock))
    clock.advance(59)
    assert not caplog.messages
    clock.advance(1)
    # Thirty were settled when the crawl began; seven more are by what a job at work has told.
    assert caplog.messages == [
        "Fleet: 37 of 120 requests settled (30 %), 7/min, about 12 min left, 37 items, 1 of 4 slots at work"
    ]
    clock.advance(60)
    assert caplog.messages[1] == "Fleet: 37 of 120 requests settled (30 %), 37 items, 1 of 4 slots at work"
    made.stop()
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("crawled", "over", "interval", "words"),
    [
        (76, False, 60.0, "(70 %), 55/min, less than a minute for the rest of what was found so far, "),
        (78, True, 3600.0, "(72 %), 1/min, about 35 min left, "),
        (29, True, 7200.0, "(31 %), 0/min, about 20 h left, "),
    ],
)
def test_how_fast_since_the_line_before_and_what_that_means(
    caplog: pytest.LogCaptureFixture, crawled: int, over: bool, interval: float, words: str
) -> None:
    clock = Clock()
    told = Told(clock)
    progress(clock, told, interval)
    told.crawled, told.over = crawled, over
    clock.advance(interval)
    assert words in caplog.messages[0]


def test_a_ledger_that_takes_long_is_asked_seldom(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    progress(clock, Told(clock, seconds=1.0))
    clock.advance(60)
    clock.advance(SELDOM - 1)
    assert len(caplog.messages) == 1
    clock.advance(1)
    assert len(caplog.messages) == 2


def test_a_ledger_that_can_not_be_read_now_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    told = Told(clock)
    progress(clock, told)
    told.fails = True
    clock.advance(60)
    told.fails = False
    clock.advance(60)
    assert len(caplog.messages) == 1


def test_it_can_be_turned_off() -> None:
    clock = Clock()
    progress(clock, Told(clock), interval=0).stop()
    assert not clock.getDelayedCalls()

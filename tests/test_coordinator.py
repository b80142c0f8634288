"""The coordinator's wiring: what the walk and the workers find becomes batches, and what jobs report their size. Its
fleet is one that takes as many batches as it is told to; the ledger is a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ledgers import IDENTITY, divert, receipt
from scrapy import Spider
from scrapy.exceptions import DontCloseSpider
from scrapy.utils.test import get_crawler
from treq.client import HTTPClient
from twisted.internet.task import Clock

from scrapy_distributed.batch import Attempt
from scrapy_distributed.batch_size import FIRST
from scrapy_distributed.config import Config
from scrapy_distributed.coordinator import Coordinator
from scrapy_distributed.ledger import Ledger
from scrapy_distributed.node import Node, NodeAddress
from scrapy_distributed.report import report


class Plain(Spider):
    name = "plain"


class Taker:
    """In place of a dispatcher: takes ready batches while it has *room*."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.room = 0
        self.idle = False
        self.attempts: list[Attempt] = []

    def send_ready(self) -> None:
        while self.room and (ready := self.ledger.ready()):
            self.room -= 1
            self.attempts.append(self.ledger.bind(ready[0][0], "n1", "http://n1:6800")[0])

    @property
    def sizes(self) -> list[int]:
        return [attempt.size for attempt in self.attempts]


Started = Callable[..., tuple[Coordinator, Taker]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Started]:
    """Begins a run; once a test."""
    coordinators: list[Coordinator] = []

    def start(**settings: Any) -> tuple[Coordinator, Taker]:
        given = {"LEDGER": tmp_path / "ledger.sqlite", "BATCH_SIZE": "auto", **settings}
        crawler = get_crawler(Plain, {f"DISTRIBUTED_{name}": str(value) for name, value in given.items()})
        crawler.spider = Plain.from_crawler(crawler)
        crawler.engine = SimpleNamespace(spider_is_idle=lambda: True)  # type: ignore[assignment]
        node = Node(address=NodeAddress(name="n1", url="http://n1:6800"), client=HTTPClient(None), clock=Clock())
        coordinator = Coordinator(
            crawler, config=Config.from_settings(crawler.settings), project="p", nodes=[node], clock=Clock()
        )
        coordinators.append(coordinator)
        coordinator.ledger.begin(IDENTITY, resume=True)
        taker = Taker(coordinator.ledger)
        coordinator.dispatcher = taker  # type: ignore[assignment]
        coordinator.cutter.start()
        return coordinator, taker

    yield start
    coordinators[0].ledger.close()


def find(coordinator: Coordinator, numbers: range) -> None:
    """The walk finds the requests *numbers*."""
    coordinator._found(divert(coordinator.ledger, *numbers))


def idle(coordinator: Coordinator) -> None:
    """Nothing is left to crawl on the coordinator."""
    with pytest.raises(DontCloseSpider):
        coordinator._spider_idle()


def settle(coordinator: Coordinator, attempt: Attempt, startup: float, seconds: float) -> None:
    stats = {"distributed/startup_seconds": startup, "distributed/job_seconds": seconds}
    final = receipt(attempt, stats=stats)
    coordinator.ledger.settle(attempt, final, max_attempts=1, found=coordinator._read(final))


def test_a_fixed_size_is_closed_at_once(start: Started) -> None:
    coordinator, taker = start(BATCH_SIZE=3)
    find(coordinator, range(8))
    taker.room = 9
    taker.send_ready()
    assert taker.sizes == [3, 3]
    idle(coordinator)
    assert taker.sizes == [3, 3, 2]


def test_what_jobs_report_makes_the_size(start: Started) -> None:
    coordinator, taker = start()
    taker.room = 9
    find(coordinator, range(60 * FIRST))
    coordinator.clock.advance(1000)
    settle(coordinator, taker.attempts[0], 1, 11)  # 50 ms a request
    coordinator._tick()
    assert taker.sizes == [FIRST, 666]  # half a minute and a bit: so long that a start of a second is 3 %


def test_at_the_end_of_the_walk_the_open_batch_goes_out(start: Started) -> None:
    coordinator, taker = start()
    taker.room = 9
    find(coordinator, range(2 * FIRST - 1))
    assert taker.sizes == [FIRST]
    coordinator.clock.advance(1)
    idle(coordinator)
    assert taker.sizes == [FIRST, FIRST - 1]


def test_after_the_walk_what_workers_find_waits_for_a_node_that_has_nothing_to_do(start: Started) -> None:
    coordinator, taker = start()
    taker.room = 9
    find(coordinator, range(FIRST))
    idle(coordinator)
    coordinator.clock.advance(1)
    find(coordinator, range(FIRST, FIRST + 5))
    idle(coordinator)
    assert taker.sizes == [FIRST]
    taker.idle = True
    idle(coordinator)
    assert taker.sizes == [FIRST, 5]


@pytest.mark.parametrize(("seen", "told"), [(range(10), True), (range(4), False)], ids=["most of the run", "its end"])
def test_only_of_a_run_that_was_looked_after_it_is_said_how_large_batches_should_be(
    start: Started, caplog: pytest.LogCaptureFixture, seen: range, told: bool
) -> None:
    coordinator, taker = start(BATCH_SIZE=1)
    taker.room = 10
    find(coordinator, range(10))
    coordinator.ledger.walked()
    coordinator.clock.advance(100)
    for number, attempt in enumerate(taker.attempts):
        settle(coordinator, attempt, *((1, 2) if number in seen else (0, 0)))
    caplog.set_level("INFO")
    report(
        coordinator.ledger, coordinator.crawler, "finished", targets="", wait=True, batch_size=coordinator.cutter.size,
        slots=1, elapsed=100.0,
    )  # fmt: skip
    stats = coordinator.crawler.stats
    assert stats is not None
    assert stats.get_value("distributed/startup_share") == 0.5
    assert stats.get_value("distributed/tail_share") == (0.0 if told else None)
    assert any("Batches are too small: 50%" in message for message in caplog.messages) is told

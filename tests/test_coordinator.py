"""When the coordinator closes batches whose size is found out while the run goes on. Its fleet is one that takes as
many batches as it is told to; the ledger is a real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from ledgers import IDENTITY, divert, receipt, states
from scrapy import Spider
from scrapy.exceptions import DontCloseSpider
from scrapy.utils.test import get_crawler
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, LoopingCall, deferLater

from scrapy_distributed import wire
from scrapy_distributed.batch import Attempt
from scrapy_distributed.batch_size import FIRST
from scrapy_distributed.config import Config
from scrapy_distributed.coordinator import Coordinator
from scrapy_distributed.errors import WireError
from scrapy_distributed.health import Flight
from scrapy_distributed.ledger import Finds, Ledger
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
    """Begins, or takes up, the run of one ledger. What was begun before is dropped as by kill -9."""
    coordinators: list[Coordinator] = []

    def start(clock: Any = None, **settings: Any) -> tuple[Coordinator, Taker]:
        for earlier in coordinators:
            earlier.ledger.close()
        given = {"LEDGER": tmp_path / "ledger.sqlite", "BATCH_SIZE": "auto", **settings}
        crawler = get_crawler(Plain, {f"DISTRIBUTED_{name}": str(value) for name, value in given.items()})
        crawler.spider = Plain.from_crawler(crawler)
        downloader = SimpleNamespace(middleware=SimpleNamespace(middlewares=[]))
        crawler.engine = SimpleNamespace(  # type: ignore[assignment]
            spider_is_idle=lambda: True, downloader=downloader
        )
        node = Node(address=NodeAddress(name="n1", url="http://n1:6800"), client=HTTPClient(None), clock=Clock())
        coordinator = Coordinator(
            crawler, config=Config.from_settings(crawler.settings), project="p", nodes=[node], clock=clock or Clock()
        )
        coordinators.append(coordinator)
        coordinator.ledger.begin(IDENTITY, resume=True)
        taker = Taker(coordinator.ledger)
        coordinator.dispatcher = taker  # type: ignore[assignment]
        coordinator.batcher.add(coordinator.ledger.queued(), 0.0)
        return coordinator, taker

    yield start
    coordinators[-1].ledger.close()


TARGET = '{"url":"http://a.example/%d/page.html","meta":{"depth":3,"link_text":"what it is"}}'


def payloads(count: int, size: int = 5_000) -> tuple[str, ...]:
    return tuple(
        wire.encode_payload([TARGET % number for number in range(start, min(start + size, count))])
        for start in range(0, count, size)
    )


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
    coordinator.ledger.settle(attempt, final, max_attempts=1)
    coordinator._accepted("n1", final)


def test_a_fixed_size_is_closed_at_once(start: Started) -> None:
    coordinator, taker = start(BATCH_SIZE=3)
    find(coordinator, range(8))
    taker.room = 9
    taker.send_ready()
    assert taker.sizes == [3, 3]
    idle(coordinator)
    assert taker.sizes == [3, 3, 2]


def test_where_nobody_waits_for_receipts_the_size_is_fixed(start: Started) -> None:
    coordinator, taker = start(WAIT=False)
    find(coordinator, range(3 * FIRST))
    taker.room = 9
    taker.send_ready()
    assert taker.sizes == [FIRST] * 3


def test_a_batch_is_cut_off_when_those_before_it_are_taken(start: Started) -> None:
    coordinator, taker = start()
    find(coordinator, range(5 * FIRST))
    assert len(coordinator.ledger.ready()) == 1
    assert len(coordinator.ledger.queued()) == 4 * FIRST
    taker.room = 2
    taker.send_ready()
    coordinator._tick()
    assert taker.sizes == [FIRST, FIRST]
    assert len(coordinator.ledger.ready()) == 1
    assert len(coordinator.ledger.queued()) == 2 * FIRST
    assert states(coordinator.ledger) == {"diverted": 5 * FIRST, "queued": 3 * FIRST, "in_flight": 2 * FIRST}


def test_a_batch_that_waits_for_another_node_holds_up_none(start: Started) -> None:
    coordinator, taker = start()
    taker.room = 1
    find(coordinator, range(FIRST))
    coordinator.ledger.unsent(taker.attempts[0], "the node was full")  # ready, and not for n1
    find(coordinator, range(FIRST, 2 * FIRST))
    assert [last for _, last in coordinator.ledger.ready()] == ["n1", None]


def test_what_jobs_report_makes_the_size(start: Started) -> None:
    coordinator, taker = start()
    taker.room = 2
    find(coordinator, range(60 * FIRST))
    coordinator.clock.advance(1000)
    settle(coordinator, taker.attempts[0], 1, 51)  # 50 ms a request
    taker.room = 9
    taker.send_ready()
    coordinator._tick()
    assert taker.sizes[3:] == [1200] * 8  # a minute each


def test_while_nothing_is_measured_few_wait_on_a_node(start: Started) -> None:
    coordinator, taker = start()
    taker.room = 2
    find(coordinator, range(2 * FIRST))
    flights = [Flight(attempt=attempt, sent_at=0, evidence=0) for attempt in taker.attempts]
    coordinator.fleet.members[0].flights = {flight.attempt.job: flight for flight in flights}
    find(coordinator, range(2 * FIRST, 4 * FIRST))
    assert coordinator.ledger.ready() == []
    flights[0].started = True
    coordinator._tick()
    assert len(coordinator.ledger.ready()) == 1
    taker.room = 9
    taker.send_ready()
    flights[0].started = False
    coordinator.clock.advance(1000)
    settle(coordinator, taker.attempts[0], 1, 1.02)
    coordinator._walked = True
    coordinator._tick()
    assert sum(taker.sizes) == 4 * FIRST


def test_while_the_walk_goes_on_a_batch_is_full_or_has_waited(start: Started) -> None:
    coordinator, taker = start(BATCH_MAX_AGE=30)
    taker.room, taker.idle = 9, True
    find(coordinator, range(FIRST - 1))
    coordinator.clock.advance(29.9)
    coordinator._tick()
    assert taker.sizes == []
    coordinator.clock.advance(0.1)
    coordinator._tick()
    assert taker.sizes == [FIRST - 1]


def test_at_the_end_of_the_walk_the_open_batch_goes_out(start: Started) -> None:
    coordinator, taker = start()
    taker.room = 9
    find(coordinator, range(3 * FIRST - 1))
    assert taker.sizes == [FIRST, FIRST]
    idle(coordinator)
    assert taker.sizes == [FIRST, FIRST, FIRST - 1]


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


def test_after_the_walk_a_small_rest_goes_with_the_last_batch(start: Started) -> None:
    coordinator, taker = start()
    find(coordinator, range(FIRST))
    find(coordinator, range(FIRST, FIRST + FIRST * 4 // 3))
    idle(coordinator)
    taker.room = 9
    taker.send_ready()
    coordinator._tick()
    assert taker.sizes == [FIRST, FIRST * 4 // 3]


def test_what_is_not_cut_is_kept_and_taken_up_again(start: Started) -> None:
    coordinator, taker = start()
    taker.room = 1
    find(coordinator, range(5 * FIRST))
    coordinator, taker = start()
    assert len(coordinator.batcher.bodies) == 3 * FIRST
    taker.room = 9
    taker.send_ready()
    coordinator._walked = True
    taker.idle = True
    coordinator._tick()
    assert sum(taker.sizes) == 4 * FIRST
    assert states(coordinator.ledger) == {"diverted": 5 * FIRST, "in_flight": 5 * FIRST}


def test_too_much_to_hold_is_cut_off_though_no_node_takes_it(start: Started) -> None:
    coordinator, _ = start()
    coordinator.batcher.max_bytes = 100_000
    find(coordinator, range(20_000))
    assert sum(map(len, coordinator.batcher.bodies)) < 100_000
    assert states(coordinator.ledger) == {"diverted": 20_000, "queued": 20_000}
    assert len(coordinator.batcher.bodies) == len(coordinator.ledger.queued())


def test_what_is_to_be_tried_again_comes_after_what_was_not_tried(start: Started) -> None:
    coordinator, taker = start()
    taker.room = 1
    find(coordinator, range(2 * FIRST))
    idle(coordinator)
    attempt = taker.attempts[0]
    final = receipt(attempt, failed={"timeout": [0]}, again=1)
    coordinator.ledger.settle(attempt, final, max_attempts=1, again=1)
    taker.idle = True
    coordinator._tick()
    assert [last for _, last in coordinator.ledger.ready()] == [None]
    taker.room = 1
    taker.send_ready()
    coordinator._tick()
    assert [last for _, last in coordinator.ledger.ready()] == ["n1"]
    assert coordinator.ledger.queued() == []


def test_the_tail_is_the_time_in_which_a_node_has_nothing_to_do(start: Started) -> None:
    coordinator, taker = start()
    taker.room, taker.idle = 9, True
    find(coordinator, range(FIRST))
    for over in (False, True, True):
        coordinator._walked = over
        coordinator._tick()
        coordinator.clock.advance(10)
    coordinator.batch_size.idle(False, coordinator._elapsed)
    assert coordinator.batch_size.tail_share(coordinator._elapsed) == 20 / 30


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
        coordinator.ledger, coordinator.crawler, "finished", targets="", wait=True, batch_size=coordinator.batch_size,
        slots=1, elapsed=100.0,
    )  # fmt: skip
    stats = coordinator.crawler.stats
    assert stats is not None
    assert stats.get_value("distributed/startup_share") == 0.5
    assert stats.get_value("distributed/tail_share") == (0.0 if told else None)
    assert any("Batches are too small: 50%" in message for message in caplog.messages) is told


def test_a_batch_that_can_not_be_packed_stays_open(start: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator, taker = start()
    taker.room = 9

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(wire, "encode_payload", fail)
        with pytest.raises(MemoryError):
            coordinator._found(divert(coordinator.ledger, *range(2 * FIRST)))
    assert coordinator.batcher.bodies == coordinator.ledger.queued()
    coordinator._cut()
    assert taker.sizes == [FIRST, FIRST]
    assert coordinator.ledger.queued() == coordinator.batcher.bodies == []


# What workers find


@pytest_twisted.ensureDeferred
async def test_many_finds_leave_time_for_others(start: Started) -> None:
    """A node chooses how many there are; meanwhile others are looked at."""
    count = 40_000
    coordinator, taker = start(BATCH_SIZE=1000, clock=reactor)
    taker.room = 1
    find(coordinator, range(1000))
    final = receipt(taker.attempts[0], targets=payloads(count))
    turns = [time.process_time()]
    looker = LoopingCall(lambda: turns.append(time.process_time()))
    looking = looker.start(0)
    finds = await coordinator._read(final)
    assert len(coordinator.ledger.queued()) == 0  # nothing of it counts yet
    coordinator.ledger.settle(taker.attempts[0], final, max_attempts=1, found=finds)
    coordinator._accepted("n1", final)
    while coordinator._finds_wait:
        await deferLater(reactor, 0.001)
    looker.stop()
    await looking
    assert states(coordinator.ledger) == {"diverted": count + 1000, "crawled": 1000, "queued": count}
    longest = max(after - before for before, after in pairwise(turns))
    assert longest < (turns[-1] - turns[0]) / 8


def test_what_was_found_and_not_diverted_is_kept_for_the_next_start(start: Started) -> None:
    coordinator, taker = start(BATCH_SIZE=10)
    taker.room = 1
    find(coordinator, range(10))
    coordinator.ledger.walked()
    final = receipt(taker.attempts[0], targets=payloads(30, 10))
    finds = [Finds.of(coordinator.diverter.found(wire.decode_requests(payload, coordinator.spider), b"job"))
             for payload in final.targets]  # fmt: skip
    coordinator.ledger.settle(taker.attempts[0], final, max_attempts=1, found=finds)
    coordinator._accepted("n1", final)
    assert coordinator.crawler.stats is not None
    assert coordinator.crawler.stats.get_value("distributed/found_by_workers") == 10
    assert not coordinator._done()
    coordinator, taker = start(BATCH_SIZE=10)
    taker.room = 9
    coordinator._closing = True
    coordinator._divert_found()  # the ledger may be closed by then
    coordinator._closing = False
    assert states(coordinator.ledger) == {"diverted": 40, "crawled": 10, "queued": 30}
    coordinator._divert_found()
    for _ in range(3):
        coordinator.clock.advance(0)
    assert not coordinator._finds_wait
    assert taker.sizes == [10, 10, 10]


@pytest_twisted.ensureDeferred
async def test_nothing_is_taken_of_a_receipt_whose_last_target_is_bad(start: Started) -> None:
    coordinator, taker = start(BATCH_SIZE=10)
    taker.room = 1
    find(coordinator, range(10))
    bad = '[{"url":"http://a.example/","meta":{"proxy":"http://b"}}]'
    stats = {"distributed/startup_seconds": 1, "distributed/job_seconds": 2}
    reading = Deferred.fromCoroutine(
        coordinator._read(receipt(taker.attempts[0], targets=(*payloads(5), bad), stats=stats))
    )
    coordinator.clock.advance(0)
    with pytest.raises(WireError, match=r"<GET http://a.example/>: meta\['proxy'\]"):
        await reading
    assert states(coordinator.ledger) == {"diverted": 10, "in_flight": 10}
    assert not coordinator.batch_size.measured

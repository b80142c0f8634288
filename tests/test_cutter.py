"""When requests are cut into batches whose size is found out while the run goes on. The fleet is one that takes as many
batches as it is told to; the ledger is a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ledgers import IDENTITY, divert, receipt, states
from scrapy.settings import Settings
from scrapy.statscollectors import StatsCollector
from twisted.internet.task import Clock

from scrapy_distributed import wire
from scrapy_distributed.batch import Attempt
from scrapy_distributed.batch_size import FIRST
from scrapy_distributed.config import Config
from scrapy_distributed.cutter import COUNTS, END, FEW, START, Cutter, Walk
from scrapy_distributed.health import Fleet, Flight, Member
from scrapy_distributed.ledger import Ledger
from scrapy_distributed.node import DaemonStatus


class Rig:
    """A cutter, its ledger at *path*, and nodes that take ready batches while they have *room*."""

    def __init__(self, path: Path, *, nodes: int = 1, **settings: Any) -> None:
        given = {"BATCH_SIZE": "auto", **settings}
        config = Config.from_settings(Settings({f"DISTRIBUTED_{name}": value for name, value in given.items()}))
        self.ledger = Ledger(path)
        self.ledger.begin(IDENTITY, resume=True)
        self.members = [Member(node=SimpleNamespace(name=f"n{number}")) for number in range(nodes)]  # type: ignore[arg-type]
        self.walk, self.clock = Walk(), Clock()
        self.stats = StatsCollector(SimpleNamespace(settings=Settings()))  # type: ignore[arg-type]
        self.cutter = Cutter(
            ledger=self.ledger, fleet=Fleet(self.members), config=config, walk=self.walk, stats=self.stats,
            clock=self.clock, nothing_to_do=lambda: self.idle, has_free_slot=lambda: self.free, send=self.send,
        )  # fmt: skip
        self.room, self.idle, self.free = 0, False, False
        self.attempts: list[Attempt] = []
        self.cutter.start()

    def send(self) -> None:
        while self.room and (ready := self.ledger.ready()):
            self.room -= 1
            attempt, _ = self.ledger.bind(ready[0][0], "n0", "http://n0:6800")
            self.attempts.append(attempt)
            self.members[0].flights[attempt.job] = Flight(attempt=attempt, sent_at=0, evidence=0)

    def take(self, room: int = 99) -> None:
        """The nodes have room for so many more, and start them."""
        self.room = room
        self.send()
        for flight in self.members[0].flights.values():
            flight.started = True

    def run_at_once(self, jobs: int) -> None:
        """A look at the first node shows so many."""
        self.members[0].seen(DaemonStatus(pending=0, running=jobs, finished=0, node_name=""), 0)
        self.cutter.tick()

    def find(self, numbers: range) -> None:
        """The walk finds the requests *numbers*."""
        bodies = divert(self.ledger, *numbers)
        self.stats.inc_value("distributed/diverted", len(bodies))
        self.cutter.add(bodies)
        self.cutter.cut()

    def end_walk(self) -> None:
        """As the coordinator does it when nothing is left to crawl."""
        if not self.walk.over:
            self.cutter.cut_all()
            self.walk.done, self.walk.done_at = True, self.clock.seconds()
        self.cutter.cut_rest()

    def measure(self, startup: float, seconds: float, requests: int = FIRST) -> None:
        """A job has reported."""
        stats = {"distributed/startup_seconds": startup, "distributed/job_seconds": seconds}
        self.cutter.size.job_ended(stats, requests, float("inf"))

    @property
    def sizes(self) -> list[int]:
        return [attempt.size for attempt in self.attempts]


Started = Callable[..., Rig]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Started]:
    """Begins, or takes up, the run of one ledger. What was begun before is dropped as by kill -9."""
    rigs: list[Rig] = []

    def start(**settings: Any) -> Rig:
        for earlier in rigs:
            earlier.ledger.close()
        rigs.append(Rig(tmp_path / "ledger.sqlite", **settings))
        return rigs[-1]

    yield start
    rigs[-1].ledger.close()


def test_a_fixed_size_is_closed_at_once(start: Started) -> None:
    rig = start(BATCH_SIZE=3)
    rig.find(range(8))
    rig.take()
    assert rig.sizes == [3, 3]
    rig.end_walk()
    assert rig.sizes == [3, 3, 2]


def test_a_batch_is_cut_off_when_those_before_it_have_started(start: Started) -> None:
    rig = start()
    rig.room = 2
    rig.find(range(5 * FIRST))
    assert rig.sizes == [FIRST]
    rig.cutter.tick()
    assert rig.sizes == [FIRST]
    rig.take(1)
    rig.cutter.tick()
    assert rig.sizes == [FIRST, FIRST]
    assert states(rig.ledger) == {"diverted": 5 * FIRST, "queued": 3 * FIRST, "in_flight": 2 * FIRST}


def test_a_batch_that_waits_for_another_node_holds_up_none(start: Started) -> None:
    rig = start()
    rig.room = 1
    rig.find(range(FIRST))
    rig.ledger.unsent(rig.attempts[0], "the node was full")  # ready, and not for n0
    rig.members[0].flights.clear()
    rig.clock.advance(1)
    rig.find(range(FIRST, 2 * FIRST))
    assert [last for _, last in rig.ledger.ready()] == ["n0", None]


def test_as_many_wait_as_run_and_a_quarter_while_nothing_is_measured(start: Started) -> None:
    rig = start()
    rig.room = 99
    rig.find(range(99 * FIRST))
    rig.take(0)
    rig.room = 99
    rig.run_at_once(8)
    assert len(rig.sizes) == 1 + 2
    rig.measure(0.1, 40.1)
    rig.cutter.tick()
    assert len(rig.sizes) == 1 + 8


def test_a_node_in_doubt_gets_one_to_prove_itself(start: Started) -> None:
    rig = start()
    rig.run_at_once(8)
    rig.members[0].fail("it is down", 0)
    rig.clock.advance(1)
    rig.room = 99
    rig.find(range(9 * FIRST))
    assert len(rig.sizes) == 1


def test_what_waits_on_a_node_in_doubt_does_not_keep_the_others_waiting(start: Started) -> None:
    rig = start(nodes=2)
    rig.room = 2
    rig.find(range(2 * FIRST))
    rig.members[0].fail("it is down", 0)
    rig.clock.advance(1)
    rig.room = 9
    rig.find(range(2 * FIRST, 9 * FIRST))
    assert len(rig.sizes) == 2 + 1


def test_what_jobs_report_makes_the_size(start: Started) -> None:
    rig = start()
    rig.run_at_once(1)
    rig.measure(1, 11)  # 50 ms a request
    rig.room = 9
    rig.clock.advance(1000)
    rig.find(range(30 * FIRST))
    assert rig.sizes == [666]  # half a minute and a bit: so long that a start of a second is 3 %


def test_large_fleets_are_not_counted_at_each_page(start: Started) -> None:
    rig = start(nodes=COUNTS // 100)
    rig.room = COUNTS
    rig.find(range(COUNTS // 50 * FIRST))
    assert len(rig.sizes) == COUNTS // 100
    rig.take()
    rig.clock.advance(0.009)
    rig.cutter.cut()
    assert len(rig.sizes) == COUNTS // 100
    rig.clock.advance(0.002)
    rig.cutter.cut()
    assert len(rig.sizes) > COUNTS // 100


def test_while_the_walk_goes_on_a_batch_is_full_or_has_waited(start: Started) -> None:
    rig = start(BATCH_MAX_AGE=30)
    rig.room, rig.idle = 9, True
    rig.find(range(FIRST - 1))
    rig.clock.advance(29.9)
    rig.cutter.tick()
    assert rig.sizes == []
    rig.clock.advance(0.1)
    rig.cutter.tick()
    assert rig.sizes == [FIRST - 1]


def test_at_the_end_of_the_walk_the_open_batch_goes_out(start: Started) -> None:
    rig = start(nodes=3)
    rig.room = 9
    rig.find(range(3 * FIRST - 1))
    assert rig.sizes == [FIRST, FIRST]
    rig.end_walk()
    assert rig.sizes == [FIRST, FIRST, FIRST - 1]


def test_after_the_walk_what_workers_find_waits_for_a_node_that_has_nothing_to_do(start: Started) -> None:
    rig = start(nodes=2)
    rig.room = 9
    rig.find(range(FIRST))
    rig.end_walk()
    rig.clock.advance(1)
    rig.find(range(FIRST, FIRST + 5))
    rig.end_walk()
    assert rig.sizes == [FIRST]
    rig.idle = True
    rig.end_walk()
    assert rig.sizes == [FIRST, 5]


def test_after_the_walk_a_small_rest_goes_with_the_last_batch(start: Started) -> None:
    rig = start()
    rig.find(range(FIRST))
    rig.find(range(FIRST, FIRST + FIRST * 4 // 3))
    rig.end_walk()
    rig.take()
    rig.cutter.tick()
    assert rig.sizes == [FIRST, FIRST * 4 // 3]


def test_at_the_end_a_batch_is_cut_for_a_slot_that_is_free(start: Started) -> None:
    rig = start()
    rig.run_at_once(2)
    rig.measure(1, 11)  # 50 ms a request
    rig.room = 1
    rig.find(range(1000))
    rig.walk.done = True
    rig.clock.advance(9)  # what is left takes 20 s
    rig.room = 9
    rig.cutter.tick()
    assert len(rig.sizes) == 2
    rig.take()
    rig.clock.advance(2)
    rig.cutter.tick()
    assert len(rig.sizes) == 2
    rig.free = True
    rig.cutter.cut()
    assert sum(rig.sizes) == 1000


def test_nodes_are_looked_at_often_at_the_start_and_at_the_end(start: Started) -> None:
    rig = start()
    assert rig.cutter.hurry
    rig.clock.advance(START)
    assert not rig.cutter.hurry
    rig.run_at_once(1)
    rig.measure(1, 1 + FIRST)  # a second a request
    rig.find(range(FIRST, FIRST + int(END)))
    rig.stats.set_value("distributed/diverted", FIRST + END)
    rig.walk.done = True
    rig.clock.advance(END)
    assert not rig.cutter.hurry
    rig.measure(1, FIRST / 2)
    rig.measure(1, FIRST / 2)
    assert rig.cutter.hurry


@pytest.mark.parametrize(("nodes", "looked_at_often"), [(FEW, True), (FEW + 1, False)])
def test_many_nodes_can_not_be_looked_at_often(start: Started, nodes: int, looked_at_often: bool) -> None:
    rig = start(nodes=nodes)
    rig.clock.advance(START)
    rig.measure(1, 11)
    rig.find(range(FIRST // 2))
    rig.walk.done = True
    assert rig.cutter.hurry is looked_at_often


def test_with_a_fixed_size_nodes_are_looked_at_often_when_all_is_cut(start: Started) -> None:
    rig = start(BATCH_SIZE=3)
    rig.find(range(2))
    assert not rig.cutter.hurry
    rig.end_walk()
    assert rig.cutter.hurry


def test_what_is_not_cut_is_kept_and_taken_up_again(start: Started) -> None:
    rig = start(nodes=2)
    rig.room = 1
    rig.find(range(5 * FIRST))
    rig = start(nodes=2)
    assert len(rig.cutter.open.bodies) == 3 * FIRST
    rig.walk.done = True
    rig.idle = True
    for _ in range(3):
        rig.take()
        rig.cutter.tick()
    assert sum(rig.sizes) == 4 * FIRST
    assert states(rig.ledger) == {"diverted": 5 * FIRST, "in_flight": 5 * FIRST}


def test_too_much_to_hold_is_cut_off_though_no_node_takes_it(start: Started) -> None:
    rig = start()
    rig.cutter.open.max_bytes = 100_000
    rig.find(range(20_000))
    assert sum(map(len, rig.cutter.open.bodies)) < 100_000
    assert states(rig.ledger) == {"diverted": 20_000, "queued": 20_000}
    assert len(rig.cutter.open.bodies) == len(rig.ledger.queued())


def test_what_is_to_be_tried_again_comes_after_what_was_not_tried(start: Started) -> None:
    rig = start()
    rig.room = 1
    rig.find(range(2 * FIRST))
    rig.end_walk()
    attempt = rig.attempts[0]
    rig.ledger.settle(attempt, receipt(attempt, failed={"timeout": [0]}, again=1), max_attempts=1, again=1)
    rig.members[0].flights.clear()
    rig.idle = True
    rig.cutter.tick()
    assert [last for _, last in rig.ledger.ready()] == [None]
    rig.take(1)
    rig.cutter.tick()
    assert [last for _, last in rig.ledger.ready()] == ["n0"]
    assert rig.ledger.queued() == []


def test_the_tail_is_the_time_in_which_a_node_has_nothing_to_do(start: Started) -> None:
    rig = start()
    rig.room, rig.idle = 9, True
    rig.find(range(FIRST))
    for over in (False, True, True):
        rig.walk.done = over
        rig.cutter.tick()
        rig.clock.advance(10)
    rig.cutter.size.idle(False, rig.cutter.elapsed)
    assert rig.cutter.size.tail_share(rig.cutter.elapsed) == 20 / 30


def test_a_batch_that_can_not_be_packed_stays_open(start: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = start(nodes=2)
    rig.room = 9

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(wire, "encode_payload", fail)
        with pytest.raises(MemoryError):
            rig.find(range(2 * FIRST))
    assert rig.cutter.open.bodies == rig.ledger.queued()
    rig.cutter.cut()
    assert rig.sizes == [FIRST, FIRST]
    assert rig.ledger.queued() == rig.cutter.open.bodies == []

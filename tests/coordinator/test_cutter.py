"""When batches are closed, and how large they are made. The fleet is one that takes as many as it is told to; the
ledger is a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from carriers import idle_member
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import IDENTITY, divert, queued, receipt, states
from scrapy import Spider
from scrapy.crawler import Crawler
from scrapy.utils.test import get_crawler
from taker import Taker
from twisted.internet.task import Clock

from scrapy_distributed.config.config import Config
from scrapy_distributed.config.prior import Prior
from scrapy_distributed.coordinator.cutter import FAST, Cutter
from scrapy_distributed.coordinator.summary import report
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.dispatch.members import Fleet
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.fleet.pace import Told
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.ledger.sums import MOST_STATS
from scrapy_distributed.wire import payload
from scrapy_distributed.wire.payload import decode_payload

FULL = 1252  # requests of a batch, while the walk goes on and nothing is measured: 15.6 s at 12.5 ms
PACE = 0.0125
COST = 3.5  # seconds: what a job costs then


class Plain(Spider):
    name = "plain"


class Rig:
    """A cutter and what it works with, begun or taken up."""

    def __init__(self, path: Path, **settings: Any) -> None:
        given = {"BATCH_SIZE": "auto", **settings}
        delay = given.pop("DOWNLOAD_DELAY", 0)
        ours = {f"DISTRIBUTED_{name}": str(value) for name, value in given.items()}
        self.crawler: Crawler = get_crawler(Plain, {**ours, "DOWNLOAD_DELAY": delay})
        self.crawler.spider = Plain.from_crawler(self.crawler)
        assert self.crawler.stats is not None
        self.clock = Clock()
        self.ledger = Ledger(path)
        self.member = idle_member(1)
        self.taker = Taker(self.ledger, self.member)
        self.walk = Walk(self.crawler, patterns=(), clock=self.clock)
        self.walk.start_read = True
        self.cutter = Cutter(
            intake=self.ledger.intake,
            bookings=self.ledger.bookings,
            fleet=Fleet([self.member]),
            config=Config.from_settings(self.crawler.settings),
            walk=self.walk,
            stats=self.crawler.stats,
            clock=self.clock,
            idle=lambda: self.taker.idle,
            send=self.taker.send_ready,
            renewed=lambda session: None,
            prior=Prior.of(self.crawler.settings, {}, None),
        )
        self.ledger.begin(IDENTITY, resume=True)
        self.cutter.start()

    def close(self) -> None:
        self.ledger.close()

    @property
    def sizes(self) -> list[int]:
        """Of the batches that were taken."""
        return [attempt.size for attempt in self.taker.attempts]

    def take(self, room: int) -> None:
        self.taker.room = room
        self.taker.send_ready()

    def find(self, numbers: range) -> None:
        """The walk finds the requests *numbers*."""
        self.cutter.add(divert(self.ledger, *numbers))
        self.cutter.cut()

    def end_of_walk(self) -> None:
        """Nothing is left to crawl on the coordinator."""
        if not self.walk.over:
            self.cutter.cut_all()
            self.walk.is_done()
        self.cutter.cut_rest()

    def settle(self, attempt: Attempt, startup: float, seconds: float) -> None:
        stats = {"distributed/startup_seconds": startup, "distributed/job_seconds": seconds}
        final = receipt(attempt, stats=stats)
        self.ledger.verdicts.settle(attempt, final, max_attempts=1)
        self.member.forget(self.member.flights[attempt.job])
        self.cutter.job_ended("n1", final, seconds)


Start = Callable[..., Rig]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Begins, or takes up, the run of one ledger. What was begun before is dropped as by kill -9."""
    rigs: list[Rig] = []

    def start(**settings: Any) -> Rig:
        for earlier in rigs:
            earlier.close()
        rigs.append(Rig(tmp_path / "ledger.sqlite", **settings))
        return rigs[-1]

    yield start
    rigs[-1].close()


def test_a_fixed_size_is_closed_at_once(start: Start) -> None:
    rig = start(BATCH_SIZE=3)
    rig.find(range(8))
    rig.take(9)
    assert rig.sizes == [3, 3]
    rig.end_of_walk()
    assert rig.sizes == [3, 3, 2]


@settings(max_examples=settings.default.max_examples // 4)
@given(pages=st.lists(st.integers(0, 9), max_size=12), size=st.integers(1, 7), max_bytes=st.integers(15, 150))
def test_every_request_is_cut_once_and_in_order(pages: list[int], size: int, max_bytes: int) -> None:
    with TemporaryDirectory() as folder, closing(Rig(Path(folder) / "ledger.sqlite", BATCH_SIZE=size)) as rig:
        rig.cutter.open_batch.max_bytes = max_bytes
        rig.taker.room = 1000
        found = 0
        for page in pages:
            rig.find(range(found, found + page))
            found += page
            assert rig.cutter.open_batch.count == len(queued(rig.ledger)) < size
            assert len("".join(queued(rig.ledger))) < max_bytes
        rig.end_of_walk()
        urls = [url for payload in rig.taker.payloads for url in decode_payload(payload)]
        assert urls == [f"http://a/{number}" for number in range(found)]
        assert all(1 <= taken <= size for taken in rig.sizes)


def test_a_batch_closes_at_its_bytes(start: Start) -> None:
    rig = start(BATCH_SIZE=100)
    rig.cutter.open_batch.max_bytes = 24
    rig.taker.room = 9
    rig.find(range(1))  # 12 bytes
    assert rig.sizes == []
    rig.find(range(1, 2))
    assert rig.sizes == [2]
    rig.find(range(2, 3))
    assert rig.sizes == [2]


def test_what_the_ledger_can_not_cut_stays_open(start: Start) -> None:
    rig = start(BATCH_SIZE=2)
    rig.taker.room = 9
    rig.ledger.store.db.execute("CREATE TEMP TRIGGER no BEFORE INSERT ON batch BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(LedgerUnavailableError):
        rig.find(range(5))
    assert rig.cutter.open_batch.count == len(queued(rig.ledger)) == 5
    rig.ledger.store.db.execute("DROP TRIGGER no")
    rig.cutter.cut()
    assert rig.sizes == [2, 2]
    assert (rig.cutter.open_batch.count, queued(rig.ledger)) == (1, ['"http://a/4"'])


@pytest.mark.parametrize(("delay", "size"), [(0, FULL), (0.5, 25)])
def test_where_nobody_waits_for_receipts_the_size_is_what_the_settings_say(
    start: Start, delay: float, size: int
) -> None:
    rig = start(WAIT=False, DOWNLOAD_DELAY=delay)
    rig.find(range(3 * size))
    rig.take(9)
    rig.cutter.tick()
    assert rig.sizes == [size] * 3


def test_a_batch_is_cut_off_when_those_before_it_are_taken(start: Start) -> None:
    rig = start()
    rig.find(range(4 * FULL))  # the first two, of two free slots, are cut at once
    assert len(queued(rig.ledger)) == 2 * FULL
    rig.take(2)
    rig.cutter.tick()
    assert rig.sizes == [FULL, FULL]
    assert len(rig.ledger.bookings.ready()) == 1
    assert len(queued(rig.ledger)) == FULL
    assert states(rig.ledger) == {"diverted": 4 * FULL, "queued": 2 * FULL, "in_flight": 2 * FULL}


def test_a_batch_that_waits_for_another_node_holds_up_none(start: Start) -> None:
    rig = start()
    rig.taker.room = 1
    rig.find(range(FULL))
    rig.ledger.verdicts.unsent(rig.taker.attempts[0], "the node was full")  # ready, and not for n1
    rig.find(range(FULL, 2 * FULL))
    assert [last for _, last in rig.ledger.bookings.ready()] == ["n1", None]


def test_what_jobs_report_makes_the_size(start: Start) -> None:
    rig = start()
    rig.taker.room = 2
    rig.find(range(40_000))
    rig.clock.advance(1000)
    first = rig.taker.attempts[0]
    rig.settle(first, 1, 1 + 0.05 * first.size)
    rig.take(9)
    rig.cutter.tick()
    assert rig.sizes[3:] == [1200] * 8  # a minute each


def test_a_start_that_is_read_soon_is_shared_as_a_whole(start: Start) -> None:
    rig = start()
    rig.walk.start_read = False
    rig.taker.room = 9
    rig.find(range(FULL))
    rig.clock.advance(3)
    rig.cutter.tick()
    rig.find(range(FULL, 2 * FULL))
    assert rig.sizes == []
    rig.walk.start_read = True
    rig.end_of_walk()
    assert rig.sizes == [FULL, FULL]


def test_a_start_that_takes_long_is_a_walk_while_slots_are_idle(start: Start) -> None:
    rig = start()
    rig.walk.start_read = False
    rig.taker.room, rig.taker.idle = 9, True
    rig.find(range(FULL))
    seconds = FULL * PACE / 2  # of two slots
    rig.clock.advance(seconds / FAST)
    rig.cutter.tick()
    assert rig.sizes == []
    rig.clock.advance(0.1)
    rig.cutter.tick()
    assert rig.sizes == [FULL / 2, FULL / 2]


def test_a_start_that_holds_more_than_one_round_is_a_walk(start: Start) -> None:
    rig = start()
    rig.walk.start_read = False
    rig.taker.room = 1
    rig.find(range(5599))  # 70 s, for two slots
    assert rig.sizes == []
    rig.find(range(5599, 5600))
    assert rig.sizes == [FULL]


@pytest.mark.parametrize(
    ("idle", "most", "seconds"),
    [(False, 30, 30), (True, 30, COST), (True, 1, 1)],
    ids=["the oldest is old", "a slot is idle", "a slot is idle, and older is too old"],
)
def test_while_the_walk_goes_on_a_batch_is_full_or_has_waited(
    start: Start, idle: bool, most: float, seconds: float
) -> None:
    rig = start(BATCH_MAX_AGE=most)
    rig.taker.room, rig.taker.idle = 9, idle
    rig.find(range(FULL - 1))
    rig.clock.advance(seconds - 0.1)
    rig.cutter.tick()
    assert rig.sizes == []
    rig.clock.advance(0.1)
    rig.cutter.tick()
    assert sum(rig.sizes) == FULL - 1


def test_the_more_slots_are_at_work_the_longer_it_waits(start: Start) -> None:
    rig = start(BATCH_MAX_AGE=60)
    rig.member.pace.learns(Told(4, 5.0))
    rig.taker.room, rig.taker.idle = 9, True
    rig.cutter.tick()
    for batch in range(1, 4):
        rig.find(range(100 * batch, 100 * batch + 9))
        rig.clock.advance(batch * COST / 4 - 0.1)
        rig.cutter.tick()
        assert len(rig.sizes) == batch - 1
        rig.clock.advance(0.1)
        rig.cutter.tick()
        assert len(rig.sizes) == batch


def test_a_walk_that_finds_half_of_what_the_fleet_could_crawl_is_not_given_to_one_slot_at_once(start: Start) -> None:
    rig = start()
    rig.taker.room, rig.taker.idle = 9, True
    for second in range(3):
        rig.find(range(80 * second, 80 * second + 80))
        rig.clock.advance(1)
        rig.cutter.tick()
        assert rig.sizes == []
    rig.clock.advance(COST - 3)
    rig.cutter.tick()
    assert sum(rig.sizes) == 240


def test_at_the_end_of_the_walk_what_is_left_is_shared_by_free_slots(start: Start) -> None:
    rig = start()
    rig.taker.room = 9
    rig.find(range(FULL - 1))
    assert rig.sizes == []
    rig.end_of_walk()
    assert rig.sizes == [626, 625]


def test_slots_that_were_told_meanwhile_count(start: Start) -> None:
    rig = start()
    rig.taker.room = 9
    rig.find(range(FULL - 1))
    rig.member.pace.learns(Told(4, 5.0))
    rig.end_of_walk()
    assert rig.sizes == [313, 313, 313, 312]


def test_after_the_walk_what_workers_find_waits_for_a_node_that_has_nothing_to_do(start: Start) -> None:
    rig = start()
    rig.taker.room = 9
    rig.find(range(FULL))
    rig.end_of_walk()
    rig.clock.advance(1)
    rig.find(range(FULL, FULL + 5))
    rig.end_of_walk()
    assert rig.sizes == [FULL / 2, FULL / 2]
    rig.taker.idle = True
    rig.end_of_walk()
    assert rig.sizes[2:] == [5]


def test_what_is_not_cut_is_kept_and_taken_up_again(start: Start) -> None:
    rig = start()
    rig.taker.room = 1
    rig.find(range(4 * FULL))
    rig = start()
    assert rig.cutter.open_batch.count == 2 * FULL
    rig.take(9)
    rig.walk.done = True
    rig.taker.idle = True
    rig.cutter.tick()
    assert sum(rig.sizes) == 3 * FULL
    assert states(rig.ledger) == {"diverted": 4 * FULL, "in_flight": 4 * FULL}


def test_too_much_to_hold_is_cut_off_though_no_node_takes_it(start: Start) -> None:
    rig = start()
    rig.cutter.open_batch.max_bytes = 100_000
    rig.find(range(20_000))
    assert len("".join(queued(rig.ledger))) < 100_000
    assert states(rig.ledger) == {"diverted": 20_000, "queued": 20_000}
    assert rig.cutter.open_batch.count == len(queued(rig.ledger))


def test_what_is_to_be_tried_again_comes_after_what_was_not_tried(start: Start) -> None:
    rig = start()
    rig.taker.room = 1
    rig.find(range(2 * FULL))
    rig.end_of_walk()
    attempt = rig.taker.attempts[0]
    final = receipt(attempt, failed={"timeout": [0]}, again=1)
    rig.ledger.verdicts.settle(attempt, final, max_attempts=1, again=1)
    rig.taker.idle = True
    rig.cutter.tick()
    assert [last for _, last in rig.ledger.bookings.ready()] == [None]
    rig.take(1)
    rig.cutter.tick()
    assert [last for _, last in rig.ledger.bookings.ready()] == ["n1"]
    assert queued(rig.ledger) == []
    assert rig.crawler.stats is not None
    assert rig.crawler.stats.get_value("distributed/batches") == 3


def test_what_slots_do_is_noted_each_second(start: Start) -> None:
    rig = start()
    rig.member.pace.learns(Told(2, 5.0))
    rig.taker.room, rig.taker.idle = 1, True
    rig.find(range(9))
    rig.walk.done = True
    rig.cutter.cut()
    rig.walk.done = False
    rig.clock.advance(1)
    rig.cutter.tick()
    (flight,) = rig.member.flights.values()
    flight.runs(1)
    rig.member.pace.running = 1
    rig.walk.done = True
    rig.clock.advance(3)
    rig.cutter.note_slots()
    time = rig.cutter.slot_time
    assert (time.total, time.polls, time.tail, time.alone) == (8, 1, 3, 3)
    rig.find(range(FULL, FULL + 5))
    assert (time.links, time.tail, time.alone) == (3, 0, 0)


def test_a_chain_is_told(start: Start) -> None:
    rig = start()
    rig.taker.room, rig.taker.idle = 9, True
    rig.walk.done = True
    told = []
    for number in range(4):
        rig.find(range(number, number + 1))
        flight = rig.member.flights[rig.taker.attempts[-1].job]
        rig.member.forget(flight)
        told.append(rig.cutter.job_ended("n1", receipt(flight.attempt, targets=("x",)), 1.0))
    assert told == [False, False, True, False]


@pytest.mark.parametrize(("seen", "told"), [(range(10), True), (range(4), False)], ids=["most of the run", "its end"])
def test_only_of_a_run_that_was_looked_after_it_is_said_how_large_batches_should_be(
    start: Start, caplog: pytest.LogCaptureFixture, seen: range, told: bool
) -> None:
    rig = start(BATCH_SIZE=1)
    rig.taker.room = 10
    rig.find(range(10))
    rig.ledger.intake.walked()
    rig.clock.advance(20)
    rig.cutter.note_slots()
    for number, attempt in enumerate(rig.taker.attempts):
        rig.settle(attempt, *((1, 2) if number in seen else (0, 0)))
    caplog.set_level("INFO")
    report(
        rig.ledger, rig.crawler, "finished", targets="", wait=True, stored=True, walked=True,
        cutter=rig.cutter,
    )  # fmt: skip
    stats = rig.crawler.stats
    assert stats is not None
    assert stats.get_value("distributed/startup_share") == 0.5
    assert stats.get_value("distributed/tail_share") == (0.0 if told else None)
    assert stats.get_value("distributed/poll_share") == (0.5 if told else None)
    sentence = "Batches are too small: starts and waits of 10 jobs took 10 s: try DISTRIBUTED_BATCH_SIZE = 5, or 'auto'"
    assert (sentence in caplog.messages) is told


def test_stats_that_are_in_no_sum_are_told(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    rig = start(BATCH_SIZE=1)
    rig.taker.room = 2
    rig.find(range(2))
    for attempt in rig.taker.attempts:
        stats = {f"{attempt.job}/{number}": 1 for number in range(MOST_STATS)}
        rig.ledger.verdicts.settle(attempt, receipt(attempt, stats=stats), max_attempts=1)
    report(
        rig.ledger, rig.crawler, "finished", targets="", wait=True, stored=True, walked=True,
        cutter=rig.cutter,
    )  # fmt: skip
    stats_of = rig.crawler.stats
    assert stats_of is not None
    assert stats_of.get_value("distributed/worker_stats_left_out") == MOST_STATS
    assert f"{MOST_STATS} numbers of those that the fewest jobs have are in no sum" in caplog.text


def test_what_jobs_had_to_crawl_themselves_is_told(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    rig = start(BATCH_SIZE=1)
    rig.taker.room = 2
    rig.find(range(2))
    for attempt in rig.taker.attempts:
        stats = {"distributed/local/not_serializable": 2, "distributed/local/not_reportable": 1, "pages": 9}
        rig.ledger.verdicts.settle(attempt, receipt(attempt, stats=stats), max_attempts=1)
    report(
        rig.ledger, rig.crawler, "finished", targets="", wait=True, stored=True, walked=True,
        cutter=rig.cutter,
    )  # fmt: skip
    (told,) = [record for record in caplog.records if "by the jobs that found them" in record.getMessage()]
    assert told.levelname == "INFO"
    assert told.getMessage().startswith(
        "Matched, and crawled by the jobs that found them as they could not be reported: 6 requests"
    )
    assert "(not_reportable: 2, not_serializable: 4)" in told.getMessage()


def test_a_batch_that_can_not_be_packed_stays_open(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = start()
    rig.taker.room = 9

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(payload, "encode_payload", fail)
        with pytest.raises(MemoryError):
            rig.find(range(2 * FULL))
    assert rig.cutter.open_batch.count == len(queued(rig.ledger)) == 2 * FULL
    rig.cutter.cut()
    assert rig.sizes == [FULL, FULL]
    assert (queued(rig.ledger), rig.cutter.open_batch.count) == ([], 0)

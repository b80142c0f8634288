"""How close a run comes to the best one: whole runs of the real cutter and the real fleet on a clock of their own, with
nodes that look for jobs now and then, processes that have to start, and looks that come late."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import mean
from typing import Any

import pytest
from carriers import idle_member
from scrapy import Spider
from scrapy.utils.test import get_crawler
from twisted.internet.task import Clock

from scrapy_distributed.config.config import Config
from scrapy_distributed.config.prior import Prior
from scrapy_distributed.coordinator.cutter import Cutter
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.dispatch.flight import Flight
from scrapy_distributed.dispatch.members import Fleet, Member
from scrapy_distributed.fleet.node import DaemonStatus
from scrapy_distributed.fleet.pace import Told
from scrapy_distributed.ledger.states import Attempt, AttemptState
from scrapy_distributed.wire.receipt import Receipt

STEP = 0.05  # seconds
BEGIN = 0.48  # of a coordinator
LOOK, LAST_LOOK = 2.0, 0.1  # between two looks at a node


@dataclass(kw_only=True)
class Node:
    """Runs *slots* jobs at once, and looks for them each *poll* seconds (0: at once)."""

    slots: int
    poll: float
    phase: float
    startup: float
    queue: deque[Flight] = field(default_factory=deque)
    running: dict[str, tuple[float, float]] = field(default_factory=dict)  # when each began, and when it ends
    ended: dict[str, tuple[float, float]] = field(default_factory=dict)
    polled: float = 0.0


class Run:
    """Of *pages*, which a walk of *walk* seconds finds, in the spider's start or after that was read (*start_read*). A
    page takes *seconds*(number) of a slot; *settings*: what is known of it. *told*: an earlier run has kept what jobs
    tell of nodes; *says*: nodes tell it themselves, and when a job has ended. *phase*: of the polls when the run
    begins."""

    def __init__(
        self, pages: int, seconds: Callable[[int], float], *, nodes: int, slots: int, poll: float, startup: float,
        walk: float = 0.0, start_read: bool = False, told: bool = False, jitter: float = 0.1, phase: float = 0.0,
        says: bool = False, **settings: Any,
    ) -> None:  # fmt: skip
        self.clock, self.random = Clock(), Random(1)
        self.pages, self.seconds, self.jitter, self.says = pages, seconds, jitter, says
        self.nodes = [
            Node(slots=slots, poll=poll, phase=(phase + number / nodes) * poll, startup=startup)
            for number in range(nodes)
        ]
        self.members: list[Member] = [idle_member(number, late=True) for number in range(nodes)]
        self.fleet = Fleet(self.members)
        if told:
            self.fleet.were_told({member.carrier.url: (slots, poll) for member in self.members})
        crawler = get_crawler(Spider, {"DISTRIBUTED_BATCH_SIZE": "auto", **settings})
        self.walk = Walk(crawler, patterns=(), clock=self.clock)
        self.walk.start_read = start_read
        self.ready: list[int] = []  # sizes of batches
        self.batches: dict[str, tuple[int, int]] = {}  # the first page of each job, and how many it has
        self.sent = self.settled = 0
        self.found_at: list[float] = []
        self.delays: list[float] = []  # seconds from found to crawled, of each page
        assert crawler.stats is not None
        self.cutter = Cutter(
            intake=Intake(self), bookings=Bookings(self), fleet=self.fleet,  # type: ignore[arg-type]
            config=Config.from_settings(crawler.settings), walk=self.walk, stats=crawler.stats, clock=self.clock,
            idle=lambda: any(member.idle_slots for member in self.members), send=self.send,
            renewed=lambda session: None, prior=Prior.of(crawler.settings, {}, None),
        )  # fmt: skip
        self.sizes: list[int] = []
        self.cutter.start()
        self._crawl(walk)
        self.took = BEGIN + self.clock.seconds()

    def _crawl(self, walk: float) -> None:
        found = 0
        looked = [-LOOK] * len(self.nodes)
        while self.settled < self.pages:
            now = self.clock.seconds()
            until = self.pages if now >= walk else int(self.pages * now / walk)
            if until > found:
                self.found_at += [now] * (until - found)
                self.cutter.add(['"http://a/1"'] * (until - found))
                found = until
                self.cutter.cut()
            if found == self.pages and not self.walk.done:
                self.walk.is_done()
                self.cutter.cut_rest()
            for number, node in enumerate(self.nodes):
                self._work(node, now)
                last = self.cutter.all_cut and not self.ready
                if now - looked[number] >= (LAST_LOOK if last or (self.says and node.ended) else LOOK) - STEP / 2:
                    looked[number] = now
                    self._look(self.members[number], node)
            if abs(now - round(now)) < STEP / 2:
                self.cutter.tick()
            self.clock.advance(STEP)
            assert now < 3600

    def send(self) -> None:
        while self.ready and (member := self.fleet.take_turn()) is not None:
            size = self.ready.pop(0)
            self.sizes.append(size)
            attempt = Attempt(
                run="r", batch=len(self.sizes), number=1, token="t", node=member.name, url=member.carrier.url,
                state=AttemptState.BOUND, positions=(1 << size) - 1,
            )  # fmt: skip
            flight = Flight(attempt=attempt, sent_at=self.clock.seconds(), evidence=self.clock.seconds())
            self.batches[flight.job] = (self.sent, size)
            self.sent += size
            member.add(flight)
            self.nodes[self.members.index(member)].queue.append(flight)

    def _work(self, node: Node, now: float) -> None:
        for job, (_, end) in list(node.running.items()):
            if end <= now:
                node.ended[job] = node.running.pop(job)
        polls = node.poll == 0 or (now - node.phase) // node.poll > (node.polled - node.phase) // node.poll
        node.polled = now
        while polls and node.queue and len(node.running) < node.slots:
            flight = node.queue.popleft()
            first, size = self.batches[flight.job]
            work = sum(self.seconds(page) for page in range(first, first + size))
            self.delays += [now + node.startup + work / 2 - self.found_at[page] for page in range(first, first + size)]
            vary = self.random.uniform(1 - self.jitter, 1 + self.jitter)
            node.running[flight.job] = (now, now + node.startup + work * vary)

    def _look(self, member: Member, node: Node) -> None:
        now = self.clock.seconds()
        says = {"slots": node.slots, "poll_seconds": 0.0} if self.says else {}
        status = DaemonStatus(pending=len(node.queue), running=len(node.running), finished=0, node_name="x", **says)
        member.seen(status, now)
        for flight in list(member.flights.values()):
            if flight.job in node.running:
                flight.runs(now)
                self.fleet.learns(member, Told(node.slots, node.poll))
            elif flight.job in node.ended:
                self.fleet.learns(member, Told(node.slots, node.poll))
                began, end = node.ended.pop(flight.job)
                self._settle(member, flight, node.startup, end - began)
        self.send()

    def _settle(self, member: Member, flight: Flight, startup: float, seconds: float) -> None:
        size = self.batches[flight.job][1]
        self.settled += size
        member.forget(flight)
        receipt = Receipt(
            job=flight.job, sequence=1, final=True, size=size, settled=(1 << size) - 1,
            stats={"distributed/startup_seconds": startup, "distributed/job_seconds": seconds},
        )  # fmt: skip
        trip = None if flight.queued else self.clock.seconds() - flight.sent_at
        self.cutter.job_ended(member.name, receipt, trip)
        self.send()
        if self.walk.done:
            self.cutter.cut_rest()


class Intake:
    """In place of that of a ledger."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def open_batch(self) -> tuple[int, int]:
        return 0, 0

    def has_queued(self) -> bool:
        return self.run.cutter.open_batch.count > 0

    def cut(self, sizes: Sequence[int], renewed: object) -> tuple[int, int]:
        self.run.ready += sizes
        return len(sizes), 12 * sum(sizes)

    def cut_again(self, size: int, *, all_of_it: bool) -> int:
        return 0


class Bookings:
    def __init__(self, run: Run) -> None:
        self.run = run

    def ready(self) -> list[tuple[int, str | None]]:
        return [(1, None)] if self.run.ready else []


STOCK = {"poll": 5.0, "startup": 0.5}
WARM = {"poll": 0.0, "startup": 0.06}
PHASES = (0.0, 0.1, 0.2, 0.3, 0.4)  # of the polls when the run begins
DELAYS = 1.218
POLITE = {"nodes": 2, "slots": 2, "DOWNLOAD_DELAY": 0.5}
POLITE_LARGER = {"nodes": 4, "slots": 2, "DOWNLOAD_DELAY": 0.25}
BURST = {"nodes": 2, "slots": 2, "CONCURRENT_REQUESTS": 8}
SLOW_SITE: dict[str, Any] = {"nodes": 3, "slots": 4, "poll": 5.0, "startup": 1.0, "CONCURRENT_REQUESTS": 16}
WIDE = {"nodes": 2, "slots": 2, "CONCURRENT_REQUESTS": 16}


def ratio(pages: int, seconds: Callable[[int], float], kind: dict[str, float], phases: int = 5, **values: Any) -> float:
    """Of the time that a run takes to the shortest in which its slots could have done it, without a wait for a poll;
    the mean of some phases of the polls."""
    ratios = []
    for phase in PHASES[:phases] if kind["poll"] else PHASES[:1]:
        run = Run(pages, seconds, phase=phase, **kind, **values)
        assert sum(run.sizes) == pages
        work = sum(map(seconds, range(pages)))
        ratios.append(run.took / (BEGIN + kind["startup"] + work / (values["nodes"] * values["slots"])))
    return mean(ratios)


UNIFORM = {
    "polite, few": (120, 0.5 * DELAYS, POLITE, 1.30, 1.12),
    "polite": (560, 0.25 * DELAYS, POLITE_LARGER, 1.30, 1.12),
    "a burst": (600, 0.05 / 8, BURST, 3.3, 1.2),  # nearly all of it is the wait for the later poll
    "wide": (6000, 0.25 / 16, WIDE, 1.25, 1.06),
    "long": (40_000, 0.25 / 16, WIDE, 1.25, 1.06),
}


@pytest.mark.parametrize("told", [False, True], ids=["first run", "later run"])
@pytest.mark.parametrize("name", UNIFORM)
def test_what_is_known_at_once_keeps_all_slots_busy(name: str, told: bool) -> None:
    pages, seconds, values, with_polls, without = UNIFORM[name]
    values = {**values, "told": told, "jitter": 0.05}
    assert ratio(pages, lambda page: seconds, STOCK, **values) <= with_polls
    assert ratio(pages, lambda page: seconds, WARM, **values) <= without
    assert ratio(pages, lambda page: seconds, WARM, says=True, **values) <= without


def test_pages_that_take_long() -> None:
    """One in a hundred takes eighty times as long as the others."""
    seconds = [1.0 if page % 100 == 50 else 0.1 / 8 for page in range(2000)]
    assert ratio(2000, seconds.__getitem__, STOCK, **BURST) <= 1.5
    assert ratio(2000, seconds.__getitem__, WARM, **BURST) <= 1.15


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_nodes_with_more_slots_than_are_guessed_or_fewer_are_known_from_the_first_receipt_on(slots: int) -> None:
    """Of a run that is too long to be shared at once."""
    values = {"nodes": 2, "slots": slots, "CONCURRENT_REQUESTS": 16}
    assert ratio(10_000 * slots, lambda page: 0.25 / 16, STOCK, phases=1, **values) <= 1.35


@pytest.mark.parametrize("slots", [1, 3, 4, 8])
def test_a_polite_crawl_on_nodes_with_other_slots_than_are_guessed(slots: int) -> None:
    """Of half a minute: too long to be shared at once while all is guessed."""
    values = {"nodes": 2, "slots": slots, "DOWNLOAD_DELAY": 2}
    assert ratio(2 * slots * 12, lambda page: 2 * DELAYS, STOCK, **values) <= 1.45


@pytest.mark.parametrize("walk", [2.0, 4.0, 8.0])
def test_what_is_found_before_a_job_has_ended_is_not_bound_by_guesses(walk: float) -> None:
    """Pages take two and a half times as long as is taken for granted, and nodes have twice the slots."""
    for phase in PHASES:
        run = Run(10_000, lambda page: 0.25 / 16, phase=phase, walk=walk, start_read=True, **SLOW_SITE)
        assert run.took <= 30  # 20 at best


def test_what_a_slow_walk_finds_does_not_wait_for_long() -> None:
    """Ten pages a second for 40 seconds: seconds from found to crawled."""
    for phase in PHASES:
        stock = Run(400, lambda page: 0.1 / 8, walk=40.0, phase=phase, **STOCK, **BURST)
        assert most(stock.delays) <= 7.5
        assert len(stock.sizes) <= 20
    warm = Run(400, lambda page: 0.1 / 8, walk=40.0, **WARM, **BURST)
    assert most(warm.delays) <= 2


def most(values: list[float]) -> float:
    """Their 95th percentile."""
    return sorted(values)[int(0.95 * len(values))]

"""Whole runs on a clock of their own: the coordinator's own cutter and fleet; the site, the nodes, the ledger and the
dispatcher are imitated."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import Any

from scrapy.settings import Settings

from scrapy_distributed.config import Config
from scrapy_distributed.cutter import Cutter, Walk
from scrapy_distributed.dispatch import HURRIED_LOOKS, LOOKS, free_slots
from scrapy_distributed.health import Fleet, Flight, Member
from scrapy_distributed.node import DaemonStatus

PAGE = 30  # requests that are found at once, at least
LOOK = 2.0  # seconds between two looks at a node
POST = 0.02  # seconds until a node has a batch
CLOSE = 0.05  # seconds from a job's last receipt until its slot is free
BODY = "x" * 45  # a request


def job(startup: float, seconds: float) -> dict[str, float]:
    """What a receipt says of its job's time."""
    return {"distributed/startup_seconds": startup, "distributed/job_seconds": seconds}


class SimulatedNode:
    """A node with *slots*; *began* tells which jobs have started, *over* which have written their last receipt."""

    def __init__(self, name: str, slots: int) -> None:
        self.member = Member(node=SimpleNamespace(name=name))  # type: ignore[arg-type]
        self.free = slots
        self.queue: deque[str] = deque()
        self.running = self.finished = 0
        self.began: set[str] = set()
        self.over: dict[str, tuple[float, float]] = {}  # seconds of start-up and in all


class Run:
    """A run that is over. *startup*: seconds of a job; *request*: seconds of a job for each; *slots*: jobs at once, on
    nodes that run *workers* each; *walk*: requests found a second; *jitter*: a job takes up to so much more or less;
    *poll*: a node starts jobs every so many seconds, with 0 at once."""

    def __init__(
        self, setting: int | str, *, startup: float, request: float, slots: int, requests: int, walk: float,
        jitter: float = 0.1, poll: float = 0.0, workers: int = 1,
    ) -> None:  # fmt: skip
        self.times, self.requests, self.rate, self.jitter, self.poll = (startup, request), requests, walk, jitter, poll
        self.now, self.found, self.settled = 0.0, 0, 0
        self.sizes: list[int] = []
        self._random, self._number = Random(1), count()
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._ready: deque[str] = deque()
        self.nodes = [SimulatedNode(f"n{number}", workers) for number in range(slots // workers)]
        self.fleet = Fleet([node.member for node in self.nodes])
        self._by_name = {node.member.name: node for node in self.nodes}
        self.walk = Walk()
        ledger: Any = SimpleNamespace(
            ready=lambda: [(batch, None) for batch in self._ready], queued=list, has_queued=lambda: False,
            close_batches=self._close_batches, close_again=lambda size, all_of_it: 0,
        )  # fmt: skip
        stats: Any = SimpleNamespace(get_value=lambda key, default: self.found, inc_value=lambda key, by: None)
        self.cutter = Cutter(
            ledger=ledger, fleet=self.fleet, walk=self.walk, stats=stats, clock=SimpleNamespace(seconds=self._seconds),
            config=Config.from_settings(Settings({"DISTRIBUTED_BATCH_SIZE": setting})), send=self._send,
            nothing_to_do=self._nothing_to_do, has_free_slot=self._has_free_slot,
        )  # fmt: skip
        self._later(0, self._find)
        self._later(1, self._tick)
        for node in self.nodes:
            self._later(0, self._look, node)
            if poll:
                self._later(self._random.uniform(0, poll), self._poll, node)
        while self.settled < requests:
            self.now, _, event, arguments = heappop(self._events)
            event(*arguments)
        share = self.cutter.size.startup_share()
        assert share is not None
        self.startup, self.tail = share, self.cutter.size.tail_share(self.now)

    @property
    def worse(self) -> float:
        """How far the worse of both shares is from its limit; up to 1 both are kept."""
        return max(self.startup / 0.05, self.tail / 0.10)

    def _vary(self, seconds: float) -> float:
        return seconds * self._random.uniform(1 - self.jitter, 1 + self.jitter)

    def _seconds(self) -> float:
        return self.now

    def _later(self, seconds: float, event: Callable[..., None], *arguments: Any) -> None:
        heappush(self._events, (self.now + seconds, next(self._number), event, arguments))

    # The coordinator

    def _find(self) -> None:
        new = min(max(PAGE, int(self.rate / 20)), self.requests - self.found)
        self.found += new
        self.cutter.add([BODY] * new)
        self.cutter.cut()
        if self.found < self.requests:
            self._later(new / self.rate, self._find)
        else:
            self.cutter.cut_all()
            self.walk.done, self.walk.done_at = True, self.now
            self.cutter.cut_rest()

    def _tick(self) -> None:
        self.cutter.tick()
        self._later(1, self._tick)

    def _close_batches(self, batches: list[list[str]], uncut: list[str]) -> int:
        for batch in batches:
            self._ready.append(str(len(self.sizes)))
            self.sizes.append(len(batch))
        return len(batches)

    # The dispatcher

    def _nothing_to_do(self) -> bool:
        return any(member.idle_slots for member in self.fleet.members)

    def _has_free_slot(self) -> bool:
        return any(map(free_slots, self.fleet.members))

    def _send(self) -> None:
        while self._ready:
            member = max(self.fleet.members, key=free_slots)
            if not (self.cutter.hurry and free_slots(member)):
                member = self.fleet.take_turn()
            if member is None:
                return
            batch = self._ready.popleft()
            attempt: Any = SimpleNamespace(job=batch)
            member.flights[batch] = Flight(attempt=attempt, sent_at=self.now, evidence=self.now)
            self._later(POST, self._post, self._by_name[member.name], batch)

    def _look(self, node: SimulatedNode) -> None:
        member = node.member
        member.seen(DaemonStatus(pending=len(node.queue), running=node.running, finished=node.finished,
                                 node_name=member.name), self.now)  # fmt: skip
        for batch in node.began:
            member.flights[batch].started = True
        for batch in list(node.over):
            node.began.remove(batch)
            del member.flights[batch]
            size = self.sizes[int(batch)]
            self.settled += size
            self.cutter.size.job_ended(job(*node.over.pop(batch)), size, self.now)
        self._send()
        if self.walk.done:
            self.cutter.cut_rest()
        nodes = len(self.nodes)
        usual = max(LOOK, nodes / LOOKS)
        self._later(min(usual, nodes / HURRIED_LOOKS) if self.cutter.hurry and not self._ready else usual,
                    self._look, node)  # fmt: skip

    # The nodes

    def _post(self, node: SimulatedNode, batch: str) -> None:
        node.queue.append(batch)
        node.member.taken += 1
        if not self.poll:
            self._start(node)

    def _poll(self, node: SimulatedNode) -> None:
        self._start(node)
        self._later(self.poll, self._poll, node)

    def _start(self, node: SimulatedNode) -> None:
        while node.free and node.queue:
            batch = node.queue.popleft()
            startup, request = (self._vary(seconds) for seconds in self.times)
            seconds = startup + request * self.sizes[int(batch)]
            node.free, node.running = node.free - 1, node.running + 1
            node.began.add(batch)
            self._later(seconds, node.over.__setitem__, batch, (startup, seconds))
            self._later(seconds + CLOSE, self._end, node)

    def _end(self, node: SimulatedNode) -> None:
        node.free, node.running, node.finished = node.free + 1, node.running - 1, node.finished + 1
        if not self.poll:
            self._start(node)

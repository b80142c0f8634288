"""Random faults of every kind upon a run, from a seed."""

from __future__ import annotations

import heapq
import itertools
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from arena import Run, StruckNode, strike
from gate import Weather
from launcher import POINTS
from trial import chaos

GRANTED = (
    chaos.KILL_MIDWAY, chaos.TERM_MIDWAY, chaos.KILL_STORED, chaos.TERM_STORING, chaos.STORE_REFUSED,
    chaos.STORE_CUT_OFF,
)  # fmt: skip
T = TypeVar("T")
AGAIN_SECONDS = 0.2  # a fault that finds nobody to strike tries again
DEATH_POINTS = [point for point in POINTS if not point.endswith("-end")]


@dataclass(frozen=True, kw_only=True, order=True)
class Strike:
    """One fault: *at* seconds after the start. *chance* (0 to 1) chooses whom it strikes, and *seconds* is how long it
    lasts, where it is not over at once."""

    at: float
    kind: str
    chance: float
    seconds: float


class Storm:
    """The strikes that *seed* makes of it, and what is going on of them. ``blow`` brings *run* to its end."""

    def __init__(self, run: Run, seed: int, *, strikes: int, pause: float) -> None:
        """*pause*: seconds between two strikes, on average."""
        self.run = run
        self.seed = seed
        self.hits: Counter[str] = Counter()
        rng = random.Random(seed)
        kinds = list(self._kinds())
        # Every kind comes before one comes again.
        drawn = list(itertools.chain.from_iterable(rng.sample(kinds, len(kinds)) for _ in range(1 + strikes // 10)))
        at = 1.0
        self.plan: list[Strike] = []
        for kind in drawn[:strikes]:
            at += rng.uniform(0.5, 1.5) * pause
            self.plan.append(Strike(at=at, kind=kind, chance=rng.random(), seconds=rng.uniform(0.3, 6)))
        for fault in rng.sample(GRANTED, 3):
            run.grant(fault)
        node_count = len(run.fleet.nodes)
        # A node that is spoken to through its gate can have bad weather, one that is not can refuse connections.
        run.hosts = [f"{rng.choice(('scrapyd', 'gate'))}{number}" for number in range(1, node_count + 1)]
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], bool]]] = []
        self._gone = False  # one node at most goes for good
        run.note = self.describe

    def describe(self) -> str:
        planned = ", ".join(f"{strike.at:.1f} s {strike.kind}" for strike in self.plan)
        return f"seed {self.seed}, hosts {self.run.hosts}, struck {dict(self.hits)}, planned {planned}"

    def blow(self, seconds: float) -> None:
        """Strike as planned until the run is over, which must be within so many *seconds*."""
        kinds = self._kinds()
        start = time.monotonic()
        for planned in self.plan:
            self._later(start + planned.at, lambda planned=planned: self._strike(kinds[planned.kind], planned))
        self.run.begin()
        while self.run.goes_on():
            assert time.monotonic() - start < seconds, f"not over after {seconds} s\n{self.run.describe()}"
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, act = heapq.heappop(self._due)
                if not act():
                    self._later(time.monotonic() + AGAIN_SECONDS, act)
            time.sleep(0.05)
        self.hits.update(self.run.taken())
        if doubled := sum(node.gate.doubled for node in self.run.fleet.nodes):
            self.hits["post-twice"] = doubled

    def _later(self, at: float, act: Callable[[], bool]) -> None:
        heapq.heappush(self._due, (at, next(self._order), act))

    def _mend(self, seconds: float, act: Callable[[], object]) -> None:
        self._later(time.monotonic() + seconds, lambda: act() is not self)

    def _strike(self, act: Callable[[Strike], bool], planned: Strike) -> bool:
        hit = act(planned)
        if hit and planned.kind != "post-twice":  # the gate counts those that come
            self.hits[planned.kind] += 1
        return hit

    def _kinds(self) -> dict[str, Callable[[Strike], bool]]:
        return {
            "worker-kill": lambda strike: self._worker(strike, signal.SIGKILL),
            "worker-term": lambda strike: self._worker(strike, signal.SIGTERM),
            "worker-stopped": self._worker_stopped,
            "node-kill": lambda strike: self._node(strike, signal.SIGKILL, workers=False),
            "node-term": lambda strike: self._node(strike, signal.SIGTERM, workers=False),
            "node-and-workers-kill": lambda strike: self._node(strike, signal.SIGKILL, workers=True),
            "node-gone": self._node_gone,
            "node-stopped": self._node_stopped,
            "node-disk-full": self._node_disk_full,
            "gate-hangs": lambda strike: self._gate(strike, Weather.HANGS),
            "gate-500": lambda strike: self._gate(strike, Weather.ERROR),
            "gate-html": lambda strike: self._gate(strike, Weather.HTML),
            "gate-loses-answers": lambda strike: self._gate(strike, Weather.LOSES),
            "post-twice": self._post_twice,
            "coordinator-kill": lambda strike: self._coordinator(strike, signal.SIGKILL),
            "coordinator-term": lambda strike: self._coordinator(strike, signal.SIGTERM),
            "coordinator-dies-at-a-point": self._coordinator_at_a_point,
            "coordinator-disk-full": self._coordinator_disk_full,
            "hosts-reordered": self._hosts_reordered,
        }

    # Whom it strikes

    def _worker(self, planned: Strike, number: int) -> bool:
        workers = self.run.fleet.workers()
        return bool(workers) and strike(_one(planned, workers), number)

    def _worker_stopped(self, planned: Strike) -> bool:
        workers = self.run.fleet.workers()
        if not workers or not strike(pid := _one(planned, workers), signal.SIGSTOP):
            return False
        self._mend(planned.seconds, lambda: strike(pid, signal.SIGCONT))
        return True

    def _up(self, planned: Strike, *, gated: bool = False) -> StruckNode | None:
        """A node that is neither down nor stopped."""
        hosts = sorted(self.run.hosts, key=lambda name: name[-1])
        nodes = [
            node
            for node, host in zip(self.run.fleet.nodes, hosts, strict=True)
            if node.alive and not node.stopped and (not gated or host.startswith("gate"))
        ]
        return _one(planned, nodes) if nodes else None

    def _node(self, planned: Strike, number: int, *, workers: bool) -> bool:
        node = self._up(planned)
        if node is None:
            return False
        node.kill(number, workers=workers)
        self._mend(planned.seconds, node.restart)
        return True

    def _node_gone(self, planned: Strike) -> bool:
        node = self._up(planned)
        if node is None or self._gone:
            return False
        self._gone = True
        node.kill(workers=True)
        return True

    def _node_stopped(self, planned: Strike) -> bool:
        node = self._up(planned)
        if node is None:
            return False
        node.stop(workers=planned.chance < 0.5)
        self._mend(planned.seconds, node.go_on)
        return True

    def _node_disk_full(self, planned: Strike) -> bool:
        node = self._up(planned)
        if node is None:
            return False
        node.fill_disk(int(planned.chance * 20_000))
        self._mend(planned.seconds, lambda: node.alive and node.free_disk())
        return True

    def _gate(self, planned: Strike, weather: Weather) -> bool:
        node = self._up(planned, gated=True)
        if node is None:
            return False
        node.gate.turn(weather)
        self._mend(planned.seconds, lambda: node.gate.turn(Weather.FAIR))
        return True

    def _post_twice(self, planned: Strike) -> bool:
        node = self._up(planned, gated=True)
        if node is None:
            return False
        node.gate.deliver_twice(2)
        return True

    def _coordinator(self, planned: Strike, number: int) -> bool:
        process = self.run.crawl.process
        return process.poll() is None and strike(process.pid, number)

    def _coordinator_at_a_point(self, planned: Strike) -> bool:
        """It is killed, and the next one dies at a point by itself, if it gets there."""
        if not self._coordinator(planned, signal.SIGKILL):
            return False
        self.run.crawl.process.wait()
        self.run.begin(_one(planned, DEATH_POINTS), 1 + int(planned.seconds) % 3)
        return True

    def _coordinator_disk_full(self, planned: Strike) -> bool:
        """No file of it can grow any more; if it copes with that, until there is room again."""
        process, files = self.run.crawl.process, [path for path in self.run.folder.iterdir() if path.is_file()]
        if process.poll() is not None:
            return False
        largest = max(path.stat().st_size for path in files)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))

        def free() -> None:
            if process.poll() is None:
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        self._mend(planned.seconds, free)
        return True

    def _hosts_reordered(self, planned: Strike) -> bool:
        """The coordinator is killed, and the next one has the nodes in another order."""
        self.run.hosts = self.run.hosts[1:] + self.run.hosts[:1]
        return self._coordinator(planned, signal.SIGKILL)


def _one(planned: Strike, among: Sequence[T]) -> T:
    return among[int(planned.chance * len(among))]

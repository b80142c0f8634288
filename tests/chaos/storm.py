"""Random faults of every kind upon a run, from a seed."""

from __future__ import annotations

import heapq
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from arena import TIMES, Run, StruckNode, limit_files, slowness, strike
from ftp_child import FtpChild
from gate import Weather
from launcher import FEED_FULL, POINTS, POINTS_HERE, POINTS_OF_ITEMS, SPOOL_FULL
from places import Backup, Folder
from trial import chaos

from scrapy_distributed.fleet.local_slots import is_local

GRANTED = (
    chaos.KILL_MIDWAY, chaos.TERM_MIDWAY, chaos.KILL_STORED, chaos.TERM_STORING, chaos.STORE_REFUSED,
    chaos.STORE_CUT_OFF, chaos.OPEN_REFUSED, chaos.DISK_FULL,
)  # fmt: skip
GRANTED_AT_HOME = (chaos.KILL_MIDWAY, chaos.TERM_MIDWAY)  # there the workers have no feed that could fail
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

    def __init__(self, run: Run, seed: int, *, strikes: int, pause: float, without: Sequence[str] = ()) -> None:
        """*pause*: seconds between two strikes, on average; *without* faults of these kinds."""
        self.run = run
        self.seed = seed
        self.hits: Counter[str] = Counter()
        rng = random.Random(seed)
        kinds = [kind for kind in self._kinds() if kind not in without]
        # Every kind comes before one comes again.
        drawn = list(itertools.chain.from_iterable(rng.sample(kinds, len(kinds)) for _ in range(1 + strikes // 10)))
        at = 1.0
        self.plan: list[Strike] = []
        for kind in drawn[:strikes]:
            at += rng.uniform(0.5, 1.5) * pause
            self.plan.append(Strike(at=at, kind=kind, chance=rng.random(), seconds=rng.uniform(0.3, 6)))
        for fault in GRANTED_AT_HOME if run.home else rng.sample(GRANTED, 3):
            run.grant(fault)
        node_count = len(run.fleet.nodes)
        here = [host for host in run.hosts if is_local(host)]
        # A node that is spoken to through its gate can have bad weather, one that is not can refuse connections.
        run.hosts = [f"{rng.choice(('scrapyd', 'gate'))}{number}" for number in range(1, node_count + 1)] + here
        self._hangs_at_first = rng.choice((None, *run.fleet.nodes))
        self._hangs_for = rng.uniform(1, 8)
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], bool]]] = []
        self._gone = False  # one node at most goes for good
        run.note = self.describe

    def describe(self) -> str:
        planned = ", ".join(f"{strike.at:.1f} s {strike.kind}" for strike in self.plan)
        what = f"seed {self.seed}, {self.run.spider} into {self.run.feeds}"
        return f"{what}, hosts {self.run.hosts}, struck {dict(self.hits)}, planned {planned}"

    def blow(self, seconds: float) -> None:
        """Strike as planned until the run is over, which must be within so many *seconds*."""
        kinds = self._kinds()
        start, slow = time.monotonic(), slowness()
        for planned in self.plan:
            self._later(start + slow * planned.at, lambda planned=planned: self._strike(kinds[planned.kind], planned))
        self._hang_at_first()
        self.run.begin()
        while self.run.goes_on():
            took = time.monotonic() - start
            assert took < seconds * slowness(), f"not over after {took:.0f} s\n{self.run.describe()}"
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, act = heapq.heappop(self._due)
                if not act():
                    self._later(time.monotonic() + AGAIN_SECONDS, act)
            time.sleep(0.05)
        self.run.mend()
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
            **(self._kinds_of_nodes() if self.run.fleet.nodes else {}),
            "coordinator-kill": lambda strike: self._coordinator(strike, signal.SIGKILL),
            "coordinator-term": lambda strike: self._coordinator(strike, signal.SIGTERM),
            "coordinator-dies-at-a-point": self._coordinator_at_a_point,
            "coordinator-disk-full": self._coordinator_disk_full,
            "hosts-reordered": self._hosts_reordered,
            "ledger-put-back": self._ledger_put_back,
            "worker-disk-full": self._worker_disk_full,
            "site-stands-still": self._site_stands_still,
            **self._kinds_of_places(),
            **(self._kinds_here() if self._is_here else {}),
        }

    def _kinds_of_nodes(self) -> dict[str, Callable[[Strike], bool]]:
        return {
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
        }

    def _kinds_of_places(self) -> dict[str, Callable[[Strike], bool]]:
        """What can happen to feeds depends on where they go."""
        if self.run.home:
            return self._kinds_at_home()
        items, temp, server = self.run.items, self.run.temp, self.run.ftp
        kinds: dict[str, Callable[[Strike], bool]] = {}
        if self.run.uploads:
            kinds["temporary-files-refused"] = lambda strike: self._place(strike, temp)
        if server is None:
            kinds["feeds-refused"] = lambda strike: self._place(strike, items)
        else:
            kinds["ftp-gone"] = lambda strike: self._ftp_gone(strike, server)
            kinds["ftp-disk-full"] = lambda strike: self._ftp_disk_full(strike, server)
        return kinds

    def _kinds_at_home(self) -> dict[str, Callable[[Strike], bool]]:
        gates: dict[str, Callable[[Strike], bool]] = {
            "gate-cuts-answers": lambda strike: self._gate(strike, Weather.CUTS),
            "gate-stalls": lambda strike: self._gate(strike, Weather.STALLS),
            "gate-garbles": lambda strike: self._gate(strike, Weather.GARBLES),
        }
        return {
            **(gates if self.run.fleet.nodes else {}),
            "coordinator-int": lambda strike: self._coordinator(strike, signal.SIGINT),
            "spool-full": lambda strike: self._full(strike, SPOOL_FULL),
            "own-feed-full": lambda strike: self._full(strike, FEED_FULL),
            "own-feed-refused": lambda strike: self._place(strike, self.run.place),
        }

    @property
    def _is_here(self) -> bool:
        """Whether there are workers on the coordinator's machine."""
        return any(map(is_local, self.run.hosts))

    def _kinds_here(self) -> dict[str, Callable[[Strike], bool]]:
        return {
            "warm-kill": lambda strike: self._process(strike, self.run.warm(), signal.SIGKILL),
            "warm-stopped": lambda strike: self._stopped(strike, self.run.warm()),
            "coordinator-stopped": self._coordinator_stopped,
            "coordinator-hup": lambda strike: self._coordinator(strike, signal.SIGHUP),
            "orphan-sleeps": self._orphan_sleeps,
            "jobs-refused": lambda strike: self._place(strike, self.run.jobs),
        }

    # Whom it strikes

    def _process(self, planned: Strike, among: Sequence[int], number: int) -> bool:
        return bool(among) and strike(_one(planned, among), number)

    def _stopped(self, planned: Strike, among: Sequence[int]) -> bool:
        if not among or not strike(pid := _one(planned, among), signal.SIGSTOP):
            return False
        self._mend(planned.seconds, lambda: strike(pid, signal.SIGCONT))
        return True

    def _worker(self, planned: Strike, number: int) -> bool:
        return self._process(planned, self.run.workers(), number)

    def _worker_stopped(self, planned: Strike) -> bool:
        return self._stopped(planned, self.run.workers())

    def _up(self, planned: Strike, *, gated: bool = False) -> StruckNode | None:
        """A node that is neither down nor stopped."""
        hosts = sorted((host for host in self.run.hosts if not is_local(host)), key=lambda name: name[-1])
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
        points = [*DEATH_POINTS, *(POINTS_OF_ITEMS if self.run.home else ()), *(POINTS_HERE if self._is_here else ())]
        self.run.begin(_one(planned, points), 1 + int(planned.seconds) % 3)
        return True

    def _coordinator_disk_full(self, planned: Strike) -> bool:
        """No file of it can grow any more; if it copes with that, until there is room again."""
        process, files = self.run.crawl.process, [path for path in self.run.folder.iterdir() if path.is_file()]
        if process.poll() is not None:
            return False
        limit_files(process.pid, max(path.stat().st_size for path in files))
        self._mend(
            planned.seconds,
            lambda: process.poll() is None and [limit_files(pid) for pid in (process.pid, *self.run.here())],
        )
        return True

    def _coordinator_stopped(self, planned: Strike) -> bool:
        """For longer than a lease: its workers go on."""
        process = self.run.crawl.process
        if not self._coordinator(planned, signal.SIGSTOP):
            return False
        seconds = TIMES["DISTRIBUTED_LEASE"] * slowness() + planned.seconds
        self._mend(seconds, lambda: process.poll() is None and strike(process.pid, signal.SIGCONT))
        return True

    def _orphan_sleeps(self, planned: Strike) -> bool:
        """A worker is stopped and its coordinator killed; it goes on when the next one may have taken over."""
        return self._stopped(planned, self.run.workers_here()) and self._coordinator(planned, signal.SIGKILL)

    def _hosts_reordered(self, planned: Strike) -> bool:
        """The coordinator is killed, and the next one has the nodes in another order."""
        self.run.hosts = self.run.hosts[1:] + self.run.hosts[:1]
        return self._coordinator(planned, signal.SIGKILL)

    def _ledger_put_back(self, planned: Strike) -> bool:
        """The coordinator is killed in a while, and the next one has the ledger of now."""
        if self.run.settled() == 0 or self.run.over:
            return False
        backup = Backup(self.run.crawl.ledger)

        def put_back() -> None:
            if not self.run.over:
                self.run.crawl.end()
                backup.put_back()
                self.run.begin()

        self._mend(planned.seconds, put_back)
        return True

    # The places for feeds, and the site

    def _hang_at_first(self) -> None:
        """One node takes calls from the start and never answers, for a while."""
        node = self._hangs_at_first
        if node is None:
            return
        number = self.run.fleet.nodes.index(node) + 1
        self.run.hosts = [f"gate{number}" if host == f"scrapyd{number}" else host for host in self.run.hosts]
        node.gate.turn(Weather.HANGS)
        self._mend(self._hangs_for, lambda: node.gate.turn(Weather.FAIR))
        self.hits["node-hangs-at-the-start"] += 1

    def _place(self, planned: Strike, folder: Folder) -> bool:
        folder.refuse()
        self._mend(planned.seconds, folder.open)
        return True

    def _full(self, planned: Strike, disk: str) -> bool:
        self.run.switch(disk, on=True)
        self._mend(planned.seconds, lambda: self.run.switch(disk, on=False))
        return True

    def _worker_disk_full(self, planned: Strike) -> bool:
        """That of all workers of a node, and what is full stays full for those that run: a file that is larger than
        a few items grows no more."""
        node = self._up(planned)
        workers = node.workers() if node else self.run.workers_here()
        full = [pid for pid in workers if limit_files(pid, 2000 + int(planned.chance * 20_000))]
        self._mend(planned.seconds, lambda: [limit_files(pid) for pid in full])
        return bool(full)

    def _ftp_gone(self, planned: Strike, server: FtpChild) -> bool:
        if server.process.poll() is not None:
            return False
        server.kill()
        self._mend(planned.seconds, server.restart)
        return True

    def _ftp_disk_full(self, planned: Strike, server: FtpChild) -> bool:
        if not limit_files(server.process.pid, int(planned.chance * 20_000)):
            return False
        self._mend(planned.seconds, lambda: limit_files(server.process.pid))
        return True

    def _site_stands_still(self, planned: Strike) -> bool:
        self.run.site.stand_still()
        self._mend(planned.seconds, self.run.site.go_on)
        return True


def _one(planned: Strike, among: Sequence[T]) -> T:
    return among[int(planned.chance * len(among))]

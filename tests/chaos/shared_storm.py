"""Random faults of every kind upon shared runs, from a seed."""

from __future__ import annotations

import heapq
import itertools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from arena import slowness, strike
from shared_arena import JoinedPlace
from storm import AGAIN_SECONDS, Strike

from scrapy_distributed.words import counted

T = TypeVar("T")
FULL_BYTES = 1  # of memory: every server has more than that


class SharedStorm:
    """The strikes that *seed* makes of it upon *place*, of whose runs the first is given as *spider*. ``blow`` brings
    all to their end."""

    def __init__(self, place: JoinedPlace, seed: int, *, spider: str, strikes: int, pause: float, away: float) -> None:
        """*pause*: seconds between two strikes, on average; *away*: for how many seconds somebody is, at most."""
        self.place = place
        self.seed = seed
        self.spider = spider
        self.hits: Counter[str] = Counter()
        self.seconds = 0.0
        rng = random.Random(seed)
        kinds = sorted(self._kinds())
        # Every kind comes before one comes again.
        drawn = list(itertools.chain.from_iterable(rng.sample(kinds, len(kinds)) for _ in range(1 + strikes // 10)))
        at = 0.5
        self.plan: list[Strike] = []
        for kind in drawn[:strikes]:
            at += rng.uniform(0.5, 1.5) * pause
            self.plan.append(Strike(at=at, kind=kind, chance=rng.random(), seconds=rng.uniform(0.3, away)))
        self._owes = 0  # what is to be mended yet
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[[], bool]]] = []
        place.note = self.describe

    def describe(self) -> str:
        planned = ", ".join(f"{strike.at:.1f} s {strike.kind}" for strike in self.plan)
        return f"seed {self.seed}, {self.spider}, struck {dict(self.hits)}, planned {planned}"

    def blow(self, seconds: float, *, workers: int) -> None:
        """Strike as planned until all runs are over, which must be within so many *seconds*."""
        kinds, start, slow = self._kinds(), time.monotonic(), slowness()
        for planned in self.plan:
            self._later(start + slow * planned.at, lambda planned=planned: self._strike(kinds[planned.kind], planned))
        for _ in range(workers):
            self.place.join()
        self.place.begin("first", spider=self.spider)
        while self.place.goes_on() or self._owes:
            took = time.monotonic() - start
            assert took < seconds * slowness(), f"not over after {took:.0f} s\n{self.place.describe()}"
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, act = heapq.heappop(self._due)
                if not act() and self.place.goes_on():
                    self._later(time.monotonic() + AGAIN_SECONDS, act)
            time.sleep(0.05)
        self.seconds = time.monotonic() - start

    def prove(self) -> None:
        """As the place does; and who has other code has got nothing, and has said so."""
        self.place.prove()
        for other in self.place.others:
            assert "accepted" not in other.log
            assert "is passed over: its code is version" in other.log, f"{other.log}\n{self.place.describe()}"

    def figure(self) -> str:
        crawls = [crawl for run in self.place.runs for crawl in run.crawls]
        return (
            f"shared{', stream' * self.place.streams}, seed {self.seed:2}: {self.spider:7}: {self.seconds:5.1f} s,"
            f" {counted(sum(self.hits.values()), 'fault')}, {counted(len(self.place.workers), 'worker')},"
            f" {counted(len(crawls), 'coordinator')}, {self.place.looks.number} looks {dict(sorted(self.hits.items()))}"
        )

    # When

    def _later(self, at: float, act: Callable[[], bool]) -> None:
        heapq.heappush(self._due, (at, next(self._order), act))

    def _mend(self, seconds: float, act: Callable[[], object]) -> None:
        self._owes += 1

        def mend() -> bool:
            self._owes -= 1
            act()
            return True

        self._later(time.monotonic() + seconds, mend)

    def _strike(self, act: Callable[[Strike], bool], planned: Strike) -> bool:
        hit = act(planned)
        self.hits[planned.kind] += hit
        return hit

    def _kinds(self) -> dict[str, Callable[[Strike], bool]]:
        return {
            "worker-kill": lambda strike: self._worker_ends(strike, signal.SIGKILL),
            "worker-term": lambda strike: self._worker_ends(strike, signal.SIGTERM),
            "worker-stopped": lambda strike: self._stopped(strike, self._workers(), leases=1),
            "job-kill": lambda strike: self._process(strike, self.place.jobs(), signal.SIGKILL),
            "job-term": lambda strike: self._process(strike, self.place.jobs(), signal.SIGTERM),
            "job-stopped": lambda strike: self._stopped(strike, self.place.jobs(), leases=1),
            "warm-kill": lambda strike: self._process(strike, self.place.warm(), signal.SIGKILL),
            "server-kill": self._server_kill,
            "server-kill-at-once": self._server_kill_at_once,
            "server-stopped": self._server_stopped,
            "server-full": self._server_full,
            "coordinator-kill": lambda strike: self._process(strike, self._coordinators(), signal.SIGKILL),
            "coordinator-term": lambda strike: self._process(strike, self._coordinators(), signal.SIGTERM),
            "coordinator-int": lambda strike: self._process(strike, self._coordinators(), signal.SIGINT),
            "coordinator-stopped": lambda strike: self._stopped(strike, self._coordinators(), leases=0),
            "second-coordinator": self._second_coordinator,
            "second-run": self._second_run,
            "other-code": self._other_code,
        }

    # Whom it strikes

    def _workers(self) -> list[int]:
        return [worker.process.pid for worker in self.place.joined()]

    def _coordinators(self) -> list[int]:
        return [crawl.process.pid for run in self.place.runs for crawl in run.alive()]

    def _process(self, planned: Strike, among: Sequence[int], number: int) -> bool:
        return bool(among) and strike(_one(planned, among), number)

    def _stopped(self, planned: Strike, among: Sequence[int], *, leases: int) -> bool:
        """For so many leases, and a while."""
        if not among or not strike(pid := _one(planned, among), signal.SIGSTOP):
            return False
        self._mend(leases * self.place.lease + planned.seconds, lambda: strike(pid, signal.SIGCONT))
        return True

    def _worker_ends(self, planned: Strike, number: int) -> bool:
        """Another one joins after a while."""
        if not self._process(planned, self._workers(), number):
            return False
        self._mend(planned.seconds, self.place.join)
        return True

    def _server_kill(self, planned: Strike) -> bool:
        queue = self.place.queue
        if not queue.ask("PING"):
            return False
        queue.kill()
        self._mend(planned.seconds, queue.start)
        return True

    def _server_kill_at_once(self, planned: Strike) -> bool:
        """It is back before anybody has noticed."""
        queue = self.place.queue
        if not queue.ask("PING"):
            return False
        queue.kill()
        queue.start()
        return True

    def _server_stopped(self, planned: Strike) -> bool:
        """It takes connections, and answers nothing."""
        queue = self.place.queue
        if not queue.ask("PING"):
            return False
        strike(queue.pid, signal.SIGSTOP)
        self._mend(planned.seconds, lambda: strike(queue.pid, signal.SIGCONT))
        return True

    def _server_full(self, planned: Strike) -> bool:
        queue = self.place.queue
        if not queue.ask("CONFIG", "SET", "maxmemory", str(FULL_BYTES)):
            return False
        self._mend(planned.seconds, self._server_has_room)
        return True

    def _server_has_room(self) -> None:
        if not self.place.queue.ask("CONFIG", "SET", "maxmemory", "0"):  # it is away, or stopped
            self._mend(AGAIN_SECONDS, self._server_has_room)

    def _second_coordinator(self, planned: Strike) -> bool:
        """The first one is killed a while later, best during its walk, and the second takes over."""
        run = self.place.runs[0]
        if not (alive := run.alive()) or run.state is None:
            return False
        first = alive[0]
        run.begin()
        self._mend(planned.seconds / 2, lambda: strike(first.process.pid, signal.SIGKILL))
        return True

    def _second_run(self, planned: Strike) -> bool:
        """Beside the first one, of another spider."""
        if len(self.place.runs) == 1:
            others = [spider for spider in ("distr", "rules") if spider != self.spider]
            self.place.begin("second", spider=_one(planned, others))
        return True

    def _other_code(self, planned: Strike) -> bool:
        if not self.place.others:
            self.place.join_with_other_code()
        return True


def _one(planned: Strike, among: Sequence[T]) -> T:
    return among[int(planned.chance * len(among))]

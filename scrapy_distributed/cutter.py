"""When requests are cut into batches, and how large each is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scrapy.statscollectors import StatsCollector

from scrapy_distributed import wire
from scrapy_distributed.batch import Batcher
from scrapy_distributed.batch_size import BatchSize
from scrapy_distributed.config import Config
from scrapy_distributed.health import Fleet
from scrapy_distributed.ledger import Ledger

START = 10.0  # seconds in which nodes are looked at often
END = 40.0  # seconds of crawling that are left when batches are cut for slots that are free
FEW = 20  # nodes, at most, for that: more can't be looked at often enough
COUNTS = 1000  # nodes whose jobs are counted in a second, at most


@dataclass(kw_only=True)
class Walk:
    """The coordinator's own crawl, which finds the requests; a spider may go on when it had nothing left to crawl."""

    done: bool = False
    done_at: float = 0.0
    failed: bool = False

    @property
    def over(self) -> bool:
        return self.done or self.failed


class Cutter:
    """Cuts the requests that are in no batch yet into batches of *ledger*.

    *nothing_to_do* tells whether a node of *fleet* idles, *has_free_slot* whether one more job would start at once;
    *send* gives what is ready to nodes with room.
    """

    def __init__(
        self, *, ledger: Ledger, fleet: Fleet, config: Config, walk: Walk, stats: StatsCollector, clock: Any,
        nothing_to_do: Callable[[], bool], has_free_slot: Callable[[], bool], send: Callable[[], None],
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self.fleet = fleet
        self.config = config
        self.walk = walk
        self.stats = stats
        self.clock = clock
        self.nothing_to_do = nothing_to_do
        self.has_free_slot = has_free_slot
        self.send = send
        self.size = BatchSize(config.batch_size)
        self.open = Batcher(size=self.size.fixed, max_bytes=wire.MAX_JSON_BYTES // 4, max_age=config.batch_max_age)
        self.slots = 1  # jobs that the fleet runs at once, as far as is known: a node does not tell how many it would
        self._places = 0  # batches that may wait on the nodes, besides those that do
        self._counted_at = 0.0
        self._count()
        self._rest_since = 0.0  # since then something waits for a batch of its own
        self._began = clock.seconds()

    def start(self) -> None:
        """Take up what an earlier coordinator left uncut; the run's time begins."""
        self._began = self.clock.seconds()
        self.add(self.ledger.queued())

    def add(self, bodies: list[str]) -> None:
        """What the ledger has as queued now. ``cut`` is to follow."""
        self.open.add(bodies, self.clock.seconds())

    @property
    def elapsed(self) -> float:
        """Seconds."""
        return float(self.clock.seconds() - self._began)

    # When

    def cut(self) -> None:
        """Close the batches that are full. Without a fixed size the next one is cut off when those before it have been
        taken: as late as can be, so that what jobs have reported and what is left at the end decide on its size."""
        self._close(self.open.take_full())
        if self.open.size is not None:
            return
        while self.open.bodies and (self.open.too_long or self._wanted()):
            uncut, size = len(self.open.bodies), self._next_size()
            if uncut < size and not (self.open.too_long or self._due()):
                return
            rest_is_little = self.walk.over and uncut < 1.5 * size
            self._close(self.open.take(uncut if rest_is_little else size))

    def cut_all(self) -> None:
        """Close the open batch, full or not; without a fixed size what is due of it."""
        if self.open.size is None:
            self.cut()
        else:
            self._close(self.open.take_all())

    def cut_rest(self) -> None:
        """Send what is to be tried on another node, if that makes a batch; and after the walk, when only workers find
        more, all that there is as soon as a node has nothing to do, or when it has waited for long enough."""
        now = self.clock.seconds()
        self.cut()
        if not self.ledger.has_queued():
            self._rest_since = now
            return
        uncut = self.open.size is None and bool(self.open.bodies)
        if uncut:  # less than a batch of what is to be tried again waits until all has been tried once
            self._rest_since = now
        overdue = self.walk.over and now - self._rest_since >= self.config.batch_max_age
        all_of_it = not uncut and (self._starving or overdue)
        if all_of_it:
            self.cut_all()
        if self.ledger.close_again(self.open.size or self._next_size(), all_of_it=all_of_it):
            self.send()

    def tick(self) -> None:
        """Once a second: close what has waited for long enough, and note whether nodes have nothing to do."""
        self._count()
        if self.open.overdue(self.clock.seconds()):
            self.cut_all()
        self.cut_rest()
        self.size.idle(self._starving, self.elapsed)

    @property
    def all_cut(self) -> bool:
        """Whether no more batches are to be expected, but for what workers find."""
        return self.walk.over and not self.open.bodies

    @property
    def hurry(self) -> bool:
        """Whether slots may be free until we look: nobody knows yet how many there are, and jobs are short; or little
        is left."""
        return self.all_cut or (self.size.fixed is None and (self.elapsed < START or self._ending))

    @property
    def _ending(self) -> bool:
        """Not in the first third: that may be too short to find out how many slots there are."""
        if not self.walk.over or len(self.fleet.members) > FEW:
            return False
        return self.size.seconds_left(self._unsettled, self.slots) < min(END, 2 * self.elapsed)

    def _wanted(self) -> bool:
        """Whether a node would take one more: nothing is ready but what waits for another node than its last, and
        as few wait on the nodes as keep their slots busy until the next look; at the end, none."""
        if any(last_node is None for _, last_node in self.ledger.ready()):
            return False
        if self._ending:
            return self.has_free_slot()
        if self.clock.seconds() - self._counted_at >= len(self.fleet.members) / COUNTS:
            self._count()
        return self._places > 0

    def _count(self) -> None:
        """Jobs and slots. A node may hold as many jobs that have not started as it runs. While the right size is not
        known it is a quarter of that: enough to see how many it would run. In doubt it is one."""
        share = 1 if self.size.measured else 4
        self._places = self.slots = 0
        for member in self.fleet.members:
            waiting = sum(flight.waiting for flight in member.flights.values())
            if member.well:
                self.slots += max(1, member.peak_running)
                self._places += max(1, member.peak_running // share) - waiting
            else:  # what waits there may wait for long
                self._places += max(0, 1 - waiting)
        self.slots = max(1, self.slots)
        self._counted_at = self.clock.seconds()

    def _due(self) -> bool:
        """Whether the open batch goes out though it is not full: after the walk only workers may add to it."""
        nothing_added = self.walk.done and self.open.added <= self.walk.done_at
        return nothing_added or (self.walk.over and self.nothing_to_do()) or self.open.overdue(self.clock.seconds())

    @property
    def _starving(self) -> bool:
        """Whether all has been found here, a node has nothing to do, and nothing is ready for it."""
        return self.walk.over and self.nothing_to_do() and not self.ledger.ready()

    # How large

    def _next_size(self) -> int:
        return self.size.next(
            uncut=len(self.open.bodies), slots=self.slots, free=self._ending, walking=not self.walk.over,
            elapsed=self.elapsed,
        )  # fmt: skip

    @property
    def _unsettled(self) -> int:
        diverted: int = self.stats.get_value("distributed/diverted", 0)
        return max(len(self.open.bodies), diverted - self.size.requests)

    def _close(self, batches: list[list[str]]) -> None:
        if not batches:
            return
        try:
            made = self.ledger.close_batches(batches, self.open.bodies)
        except BaseException:  # the ledger has them as queued still, so the open batch has
            self.open.put_back(batches)
            raise
        self.stats.inc_value("distributed/batches", made)
        self._places -= made
        self.send()

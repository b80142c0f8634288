"""When requests are cut into batches, and how many go into one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scrapy.statscollectors import StatsCollector

from scrapy_distributed.config.config import Config
from scrapy_distributed.config.values import AUTO
from scrapy_distributed.coordinator.batch_size import FIRST, BatchSize
from scrapy_distributed.coordinator.open_batch import OpenBatch
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.dispatch.members import Fleet
from scrapy_distributed.ledger.sqlite_bookings import Bookings
from scrapy_distributed.ledger.sqlite_intake import Intake
from scrapy_distributed.wire.payload import MAX_JSON_BYTES
from scrapy_distributed.wire.session import Session

UNMEASURED = 2  # jobs that a node may hold and has not started, while no job has told how long it took


class Cutter:
    """Cuts the requests of *intake* that are in no batch yet into batches, which are then in *bookings*.

    *idle* tells whether a node of *fleet* has nothing to do; *send* gives what is ready to nodes with room; *renewed*
    tells what has become of a session. Whatever cuts raises ``LedgerUnavailableError`` where the ledger can't be
    written; what is not cut then stays open.
    """

    def __init__(
        self, *, intake: Intake, bookings: Bookings, fleet: Fleet, config: Config, walk: Walk, stats: StatsCollector,
        clock: Any, idle: Callable[[], bool], send: Callable[[], None],
        renewed: Callable[[str], Session | None],
    ) -> None:  # fmt: skip
        self.intake = intake
        self.bookings = bookings
        self.fleet = fleet
        self.walk = walk
        self.stats = stats
        self.clock = clock
        self.idle = idle
        self.send = send
        self.renewed = renewed
        # Where nobody waits for receipts nothing is ever measured.
        self.size = BatchSize(FIRST if config.batch_size == AUTO and not config.wait else config.batch_size)
        self.open_batch = OpenBatch(size=self.size.fixed, max_bytes=MAX_JSON_BYTES // 4, max_age=config.batch_max_age)
        self.slots = self._count_slots()  # as of the last tick: a fleet may be too large to count at each page
        self._diverted = 0  # by this coordinator
        self._began = clock.seconds()
        self._rest_since = 0.0  # since then something waits for a batch of its own

    def start(self) -> None:
        """The run's time begins. What an earlier coordinator has left uncut is taken up."""
        self._began = self.clock.seconds()
        self.open_batch.add(*self.intake.open_batch(), self._began)

    def add(self, bodies: list[str]) -> None:
        """What the ledger has as queued now, at once: the open batch counts the same. ``cut`` is to follow."""
        self.open_batch.add(len(bodies), sum(map(len, bodies)), self.clock.seconds())
        self._diverted += len(bodies)

    @property
    def elapsed(self) -> float:
        """Seconds."""
        return float(self.clock.seconds() - self._began)

    @property
    def all_cut(self) -> bool:
        """Whether no more batches are to be expected, but for what workers find."""
        return self.walk.over and not self.open_batch.count

    # When

    def cut(self) -> None:
        """Close the batches that are full. Without a fixed size the next one is cut off when those before it have been
        taken: as late as can be, so that what jobs have reported and what is left at the end decide on its size."""
        self._cut(self.open_batch.full)
        if self.open_batch.size is not None:
            if self.open_batch.too_long:
                self._cut([self.open_batch.count])
            return
        while self.open_batch.count and (self.open_batch.too_long or self._wanted()):
            uncut, size = self.open_batch.count, self._next_size()
            if uncut < size and not (self.open_batch.too_long or self._due()):
                return
            rest_is_little = self.walk.over and uncut < 1.5 * size
            self._cut([uncut if rest_is_little else min(uncut, size)])

    def cut_all(self) -> None:
        """Close the open batch, full or not; without a fixed size what is due of it."""
        if self.open_batch.size is None:
            self.cut()
        elif self.open_batch.count:
            self._cut([self.open_batch.count])

    def cut_rest(self) -> None:
        """Send what is to be tried on another node, if that makes a batch; and after the walk, when only workers find
        more, all that there is as soon as a node has nothing to do, or when it has waited for long enough."""
        now = self.clock.seconds()
        self.cut()
        if not self.intake.has_queued():
            self._rest_since = now
            return
        uncut = self.open_batch.size is None and bool(self.open_batch.count)
        if uncut:  # less than a batch of what is to be tried again waits until all has been tried once
            self._rest_since = now
        overdue = self.walk.over and now - self._rest_since >= self.open_batch.max_age
        all_of_it = not uncut and (self._starving or overdue)
        if all_of_it:
            self.cut_all()
        if made := self.intake.cut_again(self.open_batch.size or self._next_size(), all_of_it=all_of_it):
            self.stats.inc_value("distributed/batches", made)
            self.send()

    def tick(self) -> None:
        """Once a second: close what has waited for long enough, and note whether a node has nothing to do."""
        self.slots = self._count_slots()
        if self.open_batch.overdue(self.clock.seconds()):
            self.cut_all()
        self.cut_rest()
        self.size.idle(self._starving, self.elapsed)

    def _wanted(self) -> bool:
        """Whether a node would take one more: nothing is ready but what waits for another node than its last. As long
        as the right size is not known, only few wait on the nodes."""
        if any(last_node is None for _, last_node in self.bookings.ready()):
            return False
        waiting = sum(flight.waiting for _, flight in self.fleet.flights()) if not self.size.measured else 0
        return waiting < UNMEASURED * len(self.fleet.members)

    def _due(self) -> bool:
        """Whether the open batch goes out though it is not full: after the walk only workers may add to it."""
        nothing_added = self.walk.done and self.open_batch.added <= self.walk.done_at
        return nothing_added or (self.walk.over and self.idle()) or self.open_batch.overdue(self.clock.seconds())

    @property
    def _starving(self) -> bool:
        """Whether all has been found here, a node has nothing to do, and nothing is ready for it."""
        return self.walk.over and self.idle() and not self.bookings.ready()

    # How many

    def _next_size(self) -> int:
        uncut = self.open_batch.count
        return self.size.next(
            uncut=uncut, unsettled=max(uncut, self._diverted - self.size.requests), slots=self.slots,
            elapsed=self.elapsed, walking=not self.walk.over,
        )  # fmt: skip

    def _count_slots(self) -> int:
        """Jobs that the fleet runs at once, as far as is known: a node does not tell how many it would."""
        return max(1, sum(max(1, member.pace.peak_running) for member in self.fleet.members if member.trust.well))

    def _cut(self, sizes: list[int]) -> None:
        if not sizes:
            return
        made, length = self.intake.cut(sizes, self.renewed)
        self.open_batch.leave(sum(sizes), length)
        self.stats.inc_value("distributed/batches", made)
        self.send()

"""When requests are cut into batches, and how many go into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from scrapy.statscollectors import StatsCollector

from scrapy_distributed.config.config import Config
from scrapy_distributed.config.prior import Prior
from scrapy_distributed.coordinator.batch_size import BatchSize
from scrapy_distributed.coordinator.chain import Chain
from scrapy_distributed.coordinator.open_batch import OpenBatch
from scrapy_distributed.coordinator.slot_time import SlotTime
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.dispatch.members import Fleet
from scrapy_distributed.divert.diverter import Entry
from scrapy_distributed.ledger.sqlite_bookings import Bookings
from scrapy_distributed.ledger.sqlite_intake import Intake
from scrapy_distributed.wire.payload import MAX_JSON_BYTES
from scrapy_distributed.wire.receipt import Receipt
from scrapy_distributed.wire.session import Session

FAST = 2  # times as fast as the fleet could crawl it, at least, has a walk found all that it has
SLOW = 0.25  # at most


class Cutter:
    """Cuts the requests of *intake* that are in no batch yet into batches, which are then in *bookings*.

    *idle* tells whether a node of *fleet* has nothing to do; *send* gives what is ready to nodes with room; *renewed*
    tells what has become of a session; *prior*: how long requests take, as far as settings tell. Whatever cuts raises
    ``LedgerUnavailableError`` where the ledger can't be written; what is not cut then stays open.
    """

    def __init__(
        self, *, intake: Intake, bookings: Bookings, fleet: Fleet, config: Config, walk: Walk, stats: StatsCollector,
        clock: Any, idle: Callable[[], bool], send: Callable[[], None],
        renewed: Callable[[str], Session | None], prior: Prior,
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
        self.size = BatchSize(config.batch_size, prior)
        self.open_batch = OpenBatch(size=self.size.fixed, max_bytes=MAX_JSON_BYTES // 4, max_age=config.batch_max_age)
        self.slots = fleet.slots()  # as of the last tick: a fleet may be too large to count at each page
        self.slot_time = SlotTime()
        self.chain = Chain(follows=config.worker_targets == "follow")
        self._diverted = 0  # by this coordinator
        self._began = self._ticked = clock.seconds()
        self._rest_since = 0.0  # since then something waits for a batch of its own

    def start(self) -> None:
        """The run's time begins. What an earlier coordinator has left uncut is taken up."""
        self._began = self._ticked = self.clock.seconds()
        self.slots = self.fleet.slots()
        self.open_batch.add(*self.intake.open_batch(), self._began)

    def divert(self, entries: list[Entry], sessions: Mapping[str, Session]) -> None:
        """What the walk has found for the fleet is queued, as far as it is new, and cut if that makes a batch."""
        new = self.intake.divert(entries, sessions)
        self.add(new)
        self.stats.inc_value("distributed/diverted", len(new))
        if len(new) < len(entries):
            self.stats.inc_value("distributed/duplicates", len(entries) - len(new))
        self.cut()

    def add(self, bodies: list[str]) -> None:
        """What the ledger has as queued now, at once: the open batch counts the same. ``cut`` is to follow."""
        self.size.prior.note(bodies)
        if self.walk.over:
            self.slot_time.found()
        self.open_batch.add(len(bodies), sum(map(len, bodies)), self.clock.seconds())
        self._diverted += len(bodies)

    def job_ended(self, node: str, receipt: Receipt, trip: float | None) -> bool:
        """*receipt* of a job on *node* counts, which was sent *trip* seconds ago, or had to wait for others of ours.
        Returns whether a chain is to be told."""
        self.fleet.a_job_has_ended()
        self.size.job_ended(receipt.stats, receipt.settled.bit_count(), self.elapsed, node, trip)
        alone = self._all_out and not any(flight.counts for _, flight in self.fleet.flights())
        return self.chain.job_ended(receipt.size, found=bool(receipt.targets), alone=alone)

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
        """Close the batches that are full. Without a fixed size the next ones are cut off when those before them have
        been taken: as late as can be, so that what jobs have reported and what is left at the end decide on their
        size."""
        self._cut(self.open_batch.full)
        if self.open_batch.size is not None:
            if self.open_batch.too_long:
                self._cut([self.open_batch.count])
            return
        while (uncut := self.open_batch.count) and (self.open_batch.too_long or self._wanted()):
            if not (self.open_batch.too_long or self._due()):
                return
            self._cut([min(uncut, size) for size in self._next_sizes()])

    def cut_all(self) -> None:
        """Close the open batch, full or not. Without a fixed size none is closed before it is wanted."""
        if self.open_batch.size is not None and self.open_batch.count:
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
        all_of_it = not uncut and ((self.walk.over and self.idle() and not self.bookings.ready()) or overdue)
        if all_of_it:
            self.cut_all()
        if made := self.intake.cut_again(self.open_batch.size or self._usual_size(), all_of_it=all_of_it):
            self.stats.inc_value("distributed/batches", made)
            self.send()

    def tick(self) -> None:
        """Once a second: close what has waited for long enough, and note what the slots do."""
        self.note_slots()
        if self.open_batch.overdue(self.clock.seconds()):
            self.cut_all()
        self.cut_rest()

    def note_slots(self) -> None:
        """What they do is taken to be what they have done since the last time."""
        now = self.clock.seconds()
        self.slots = self.fleet.slots()
        self.slot_time.passed(now - self._ticked, self.slots, nothing_left=self._all_out)
        self._ticked = now

    @property
    def _starts(self) -> bool:
        """Whether the spider's start is still being read, fast, and what it has given may be all: then it is no walk,
        but to be shared as a whole."""
        may_be_all = self._found_seconds >= FAST * self.elapsed and self.size.is_short(
            self.open_batch.count, self.slots
        )
        return may_be_all and not (self.walk.start_read or self.walk.over)

    @property
    def _found_seconds(self) -> float:
        """What the fleet needs for all that was found so far."""
        return self.size.round_seconds(self._diverted, self.slots)

    def _wanted(self) -> bool:
        """Whether a node would take one more. While the walk goes on one batch is ready before, as nobody tells when
        that is; but not while all is guessed. What waits for another node than its last is not looked at."""
        if any(last_node is None for _, last_node in self.bookings.ready()):
            return False
        ahead = self.size.jobs and not self.walk.over
        return bool(ahead) or any(member.has_room for member in self.fleet.members)

    def _due(self) -> bool:
        """Whether the open batch goes out: it is full, or as old as it may be. Or though it is not: after the walk only
        workers may add to it; and while it goes on a slot is not idle for long."""
        now = self.clock.seconds()
        if self.open_batch.overdue(now):
            return True
        if self._starts:
            return False
        nothing_added = self.walk.done and self.open_batch.added <= self.walk.done_at
        wanted = self.walk.over or self.open_batch.waits_since(now, self._patience)
        return self.open_batch.count >= self._usual_size() or nothing_added or (wanted and self.idle())

    @property
    def _patience(self) -> float:
        """Seconds that what a walk has found waits for more, while a slot is idle: no longer than what a job costs. In
        a slow walk the less the more slots are idle: so as many are at work as the root of their number."""
        cost, at_work = self.size.cost(self.slots), self.slots.all - self.slots.free
        is_slow = self._found_seconds < SLOW * self.elapsed
        return cost * (at_work + 1) / self.slots.all if is_slow else cost

    @property
    def _all_out(self) -> bool:
        """Whether all that has been found, and will be here, is with the nodes."""
        return self.all_cut and not self.bookings.ready()

    # How many

    def _next_sizes(self) -> list[int]:
        self.slots = self.fleet.slots()
        return self.size.next(**self._known, left=self._left)

    @property
    def _left(self) -> list[float]:
        """Seconds that each job under way still needs, as far as is known."""
        now, pace, cost = float(self.clock.seconds()), self.size.pace, self.size.cost(self.slots)
        flights = [flight for _, flight in self.fleet.flights() if flight.counts]
        return [max(0.0, flight.attempt.size * pace + cost - (now - flight.sent_at)) for flight in flights]

    def _usual_size(self) -> int:
        return self.size.usual(**self._known)

    @property
    def _known(self) -> dict[str, Any]:
        uncut = self.open_batch.count
        return {
            "uncut": uncut, "unsettled": max(uncut, self._diverted - self.size.requests), "slots": self.slots,
            "elapsed": self.elapsed, "walking": not self.walk.over,
        }  # fmt: skip

    def _cut(self, sizes: list[int]) -> None:
        if not sizes:
            return
        made, length = self.intake.cut(sizes, self.renewed)
        self.open_batch.leave(sum(sizes), length)
        self.stats.inc_value("distributed/batches", made)
        self.send()

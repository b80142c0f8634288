"""What the slots of the fleet have done with their time; and what to do where too much of it was lost."""

from __future__ import annotations

from collections.abc import Iterator

from scrapy_distributed.config.values import AUTO
from scrapy_distributed.coordinator.batch_size import BatchSize
from scrapy_distributed.dispatch.members import Slots

LIMIT = 0.10  # of the slots' time may be lost to one cause, until it is named
CLEARLY = 1.2  # a size is called too small or too large if another one is better by this factor


class SlotTime:
    """Seconds, those of all slots added up. *total*; *polls*: a job waited there for the node to look for it; *tail*:
    nothing was left to do, at the end; *links*: likewise, and then workers brought more home. *alone*: seconds of the
    clock in which one slot alone was at work at the end."""

    def __init__(self) -> None:
        self.total = self.polls = self.tail = self.links = self.alone = 0.0
        self._first = 0  # slots, at the beginning

    def passed(self, seconds: float, slots: Slots, *, nothing_left: bool) -> None:
        """So many *seconds* with *slots*. *nothing_left*: all that was found has been given to nodes, and no more is to
        be found but by workers."""
        self._first = self._first or slots.all
        self.total += seconds * slots.all
        self.polls += seconds * slots.polls
        if nothing_left:
            self.tail += seconds * (slots.idle - slots.polls)
            self.alone += seconds * (slots.all > 1 and slots.idle == slots.all - 1)

    def found(self) -> None:
        """Workers have brought more home: it was not the end."""
        self.links += self.tail
        self.tail = self.alone = 0.0

    def share(self, seconds: float) -> float:
        return seconds / self.total if self.total else 0.0

    def advice(self, size: BatchSize, slots: Slots, elapsed: float) -> str | None:
        """The cause that has cost most of the slots' time, and what to do; ``None`` where none has cost much, or
        nothing is to be done. *size*: with what was measured of jobs; *elapsed*: the age of the run."""
        if not size.jobs:
            return None
        causes = [(lost, words) for lost, words in self._causes(size, slots, elapsed) if self.share(lost) > LIMIT]
        return max(causes, default=(0.0, None))[1]

    def _causes(self, size: BatchSize, slots: Slots, elapsed: float) -> Iterator[tuple[float, str]]:
        """The seconds of slots that each has cost, and a sentence. A size is named only where it would be better."""
        best = size.best(slots)
        choice = f"DISTRIBUTED_BATCH_SIZE = {best}" + (f", or '{AUTO}'" if size.fixed is not None else "")
        if size.fixed is not None and size.fixed * CLEARLY < min(best, size.requests / slots.all):
            lost = size.jobs * size.cost(slots)
            yield lost, f"Batches are too small: starts and waits of {size.jobs} jobs took {lost:.0f} s: try {choice}"
        elif slots.poll != 0:  # else they wait until we see that they have begun
            cure = "set poll_interval = 0.5 in scrapyd.conf, or use the warm launcher"
            yield self.polls, f"Jobs waited {self.polls:.0f} s for polls of their nodes: {cure}"
        cure = 'try DISTRIBUTED_WORKER_TARGETS = "follow"'
        yield self.links, f"Slots waited {self.links:.0f} s for what workers had to bring home first: {cure}"
        unused = f"{slots.unused} of {slots.all} slots never had a job"
        if size.fixed is None and slots.all > self._first:
            yield slots.unused * elapsed, f"{unused}: nobody knew of them before; the next run does"
        elif size.largest > CLEARLY * best:
            yield slots.unused * elapsed, f"{unused}: try {choice}"
        if size.largest > CLEARLY * best:
            some = f"Slots had nothing left to do for {self.tail:.0f} s while others worked"
            yield self.tail, f"{f'One slot worked alone for {self.alone:.0f} s' if self.alone else some}: try {choice}"

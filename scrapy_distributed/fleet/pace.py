"""How many jobs a node runs, how many it could, and whether they move: what follows from its ``daemonstatus.json``, and
from what its jobs tell of it. Times are the clock's seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from scrapy_distributed.fleet.node import DaemonStatus

LARGEST_BACKLOG = 1000  # jobs, whatever a node says of itself
GUESSED_SLOTS = 2  # of a node that nothing is known of


class Told(NamedTuple):
    """How many jobs a node runs at once, and the seconds between two polls of its queue (0: it starts jobs at once);
    ``None`` where that is not known."""

    slots: int | None = None
    poll: float | None = None


NOTHING = Told()


@dataclass(kw_only=True, eq=False)
class Pace:
    """The pace of one node, by all jobs that it has, whosever they are."""

    running: int = 0  # jobs, at the last look
    peak_running: int = 0
    said: Told = NOTHING  # by the node
    told: Told = NOTHING  # by jobs that it has run, in this run or in earlier ones
    guess: int = GUESSED_SLOTS  # its slots, while nothing is known of them
    taken: int = 0  # jobs, by us
    jobs_seen: tuple[int, int] = (0, 0)  # running and finished, at the last look
    pending_seen: int = 0  # less what it had taken by then
    changed: bool = True  # a job has started or ended since the last look
    moved: bool = True  # or since the look before: a job that has ended may have written a receipt after that
    still_since: float = 0.0  # since then nothing runs there, and nothing has started or ended

    @property
    def known_slots(self) -> int | None:
        """Jobs that it runs at once."""
        return self.said.slots or self.told.slots

    @property
    def slots(self) -> int:
        """The same, guessed where it is not known."""
        return self.known_slots or max(self.guess, self.peak_running)

    @property
    def poll(self) -> float | None:
        """Seconds between two polls of its queue, if that is known; 0 where it starts jobs at once."""
        return self.told.poll if self.said.poll is None else self.said.poll

    @property
    def at_once(self) -> bool:
        """Whether it says by itself that it starts jobs at once; then it also tells when one has ended."""
        return self.said.poll == 0

    def learns(self, told: Told) -> bool:
        """A job of it has *told* that. Returns whether it is news."""
        if told in (NOTHING, self.told):
            return False
        self.told = told
        return True

    @property
    def backlog(self) -> int:
        """Unstarted jobs that it may hold, of any size. It starts as many a poll as it runs at once: twice the most
        that were seen running keeps every slot busy until we look again."""
        return min(max(8, 2 * self.peak_running), LARGEST_BACKLOG)

    @property
    def free_slots(self) -> int:
        """Jobs that it could start at once, as far as we know: without a guess."""
        return max((self.known_slots or max(self.peak_running, 1)) - self.running, 0)

    def seen(self, status: DaemonStatus, now: float, *, after_silence: bool) -> bool:
        """Returns whether a job has started or ended since the last look. *after_silence*: that one failed, so nobody
        knows how long the node has been up."""
        self.running, self.peak_running = status.running, max(self.peak_running, status.running)
        self.said = Told(status.slots, status.poll_seconds)
        jobs, pending = (status.running, status.finished), status.pending - self.taken
        ran, self.jobs_seen = jobs != self.jobs_seen, jobs
        # A node that remembers as many finished jobs as it will shows one that makes room for another by its queue.
        changed, self.pending_seen = ran or pending != self.pending_seen, pending
        self.moved, self.changed = changed or self.changed, changed
        if ran or self.running or after_silence:
            self.still_since = now
        return ran

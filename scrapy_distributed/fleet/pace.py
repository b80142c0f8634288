"""How many jobs a node runs, and whether they move: what follows from its ``daemonstatus.json`` alone. Times are the
clock's seconds."""

from __future__ import annotations

from dataclasses import dataclass

from scrapy_distributed.fleet.node import DaemonStatus

LARGEST_BACKLOG = 1000  # jobs, whatever a node says of itself


@dataclass(kw_only=True, eq=False)
class Pace:
    """The pace of one node, by all jobs that it has, whosever they are."""

    running: int = 0  # jobs, at the last look
    peak_running: int = 0
    taken: int = 0  # jobs, by us
    jobs_seen: tuple[int, int] = (0, 0)  # running and finished, at the last look
    pending_seen: int = 0  # less what it had taken by then
    changed: bool = True  # a job has started or ended since the last look
    moved: bool = True  # or since the look before: a job that has ended may have written a receipt after that
    still_since: float = 0.0  # since then nothing runs there, and nothing has started or ended

    @property
    def backlog(self) -> int:
        """Unstarted jobs that it may hold. ``max_proc`` is not to be had from Scrapyd, and it starts that many jobs a
        poll: twice the most that were seen running keeps every slot busy until we look again."""
        return min(max(8, 2 * self.peak_running), LARGEST_BACKLOG)

    @property
    def free_slots(self) -> int:
        """Jobs that it could start at once, as far as we know."""
        return max(self.peak_running - self.running, 0 if self.running else 1)

    def seen(self, status: DaemonStatus, now: float, *, after_silence: bool) -> bool:
        """Returns whether a job has started or ended since the last look. *after_silence*: that one failed, so nobody
        knows how long the node has been up."""
        self.running, self.peak_running = status.running, max(self.peak_running, status.running)
        jobs, pending = (status.running, status.finished), status.pending - self.taken
        ran, self.jobs_seen = jobs != self.jobs_seen, jobs
        # A node that remembers as many finished jobs as it will shows one that makes room for another by its queue.
        changed, self.pending_seen = ran or pending != self.pending_seen, pending
        self.moved, self.changed = changed or self.changed, changed
        if ran or self.running or after_silence:
            self.still_since = now
        return ran

"""The nodes of a run: which of them can be used, and whose turn it is. Times are the clock's seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from scrapy_distributed.dispatch.flight import Flight
from scrapy_distributed.fleet.node import DaemonStatus, Node

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
LARGEST_BACKLOG = 1000  # jobs, whatever a node says of itself
BAD_JOBS = 2  # in a row, until a node is doubted


class Proof(IntEnum):
    """What a member that has failed must show before it is trusted again; each is worth those before it as well."""

    TAKES = 1
    """It takes a job."""
    STARTS = 2
    """A job of it has started."""
    DELIVERS = 3
    """A job of it has been accepted."""


@dataclass(kw_only=True, eq=False)
class Member:
    """A node of the fleet, and what the coordinator knows of it."""

    node: Node
    fixed_backlog: int = 0  # jobs; 0: from its pace
    flights: dict[str, Flight] = field(default_factory=dict)  # by job id
    trouble: str = ""  # why it gets nothing; '' if it is fine
    needs: Proof = Proof.TAKES  # what ends the doubt
    unchecked: bool = False  # it failed the preflight, and is to pass it before it gets anything
    silent: bool = False  # the last look at it failed: no more looks until the pause is over
    pause: float = 0.0  # above 0: it has failed, and is in doubt since
    reported: str = ""  # the trouble that the log tells already
    again_at: float = 0.0
    bad_jobs: int = 0  # in a row
    delivered_at: float = float("-inf")  # when a job of it was accepted last
    running: int = 0  # jobs of all projects, at the last look
    peak_running: int = 0
    taken: int = 0  # jobs, since the coordinator has started
    jobs_seen: tuple[int, int] = (0, 0)  # running and finished, at the last look
    pending_seen: int = 0  # less what it had taken by then
    changed: bool = True  # a job has started or ended since the last look
    moved: bool = True  # or since the look before: a job that has ended may have written a receipt after that
    passed_until: float = 0.0  # above 0: a job that waited here was given to another, and nothing has moved here since
    still_since: float = 0.0  # since then nothing runs there, and nothing has started or ended

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def well(self) -> bool:
        return not (self.trouble or self.pause)

    @property
    def backlog(self) -> int:
        """Unstarted jobs of ours that it may hold. ``max_proc`` is not to be had from Scrapyd, and it starts that many
        jobs a poll: twice the most that were seen running keeps every slot busy until we look again."""
        return self.fixed_backlog or min(max(8, 2 * self.peak_running), LARGEST_BACKLOG)

    @property
    def has_room(self) -> bool:
        if self.trouble:
            return False
        waiting = sum(flight.waiting for flight in self.flights.values())
        # In doubt it gets one job, to see.
        return waiting < self.backlog if not self.pause else not waiting and not self.trial

    @property
    def trial(self) -> Flight | None:
        """The job that tells whether it works again."""
        return next((f for f in self.flights.values() if f.trial and f.counts), None)

    def add(self, flight: Flight) -> None:
        self.flights[flight.job] = flight

    def is_over(self, flight: Flight) -> None:
        """It is accepted or rejected."""
        self.forget(flight)
        for other in self.flights.values():
            other.is_passed_by(flight)

    def forget(self, flight: Flight) -> None:
        """It never ran, or can't count."""
        del self.flights[flight.job]
        flight.over = True

    @property
    def idle_slots(self) -> int:
        """Jobs that it could start at once, as far as we know."""
        if not self.well or self.passed_until or any(flight.waiting for flight in self.flights.values()):
            return 0
        return max(self.peak_running - self.running, 0 if self.running else 1)

    def would_try(self, *, any_well: bool) -> bool:
        """Whether a job that waits elsewhere may come to it while it is in doubt: else nothing might ever end that."""
        return bool(self.pause and self.has_room and not self.passed_until) and (
            self.needs is Proof.TAKES or not any_well
        )

    def usable(self, *, waiting: bool) -> bool:
        """Whether it can be hoped for: it is well; or it has failed, and none is *waiting* or it has a job of ours. To
        have one says nothing where jobs come to nothing."""
        if self.trouble:
            return False
        if not (self.pause and waiting):
            return True
        has_job = any(flight.confirmed and not flight.lost for flight in self.flights.values())
        return has_job and self.needs is not Proof.DELIVERS

    @property
    def proving(self) -> bool:
        """Whether a job is at work there that may prove that it works."""
        return self.trial is not None and self.trial.at_work

    def seen(self, status: DaemonStatus, now: float) -> None:
        was_silent, self.silent = self.silent, False
        self.running, self.peak_running = status.running, max(self.peak_running, status.running)
        jobs, pending = (status.running, status.finished), status.pending - self.taken
        ran, self.jobs_seen = jobs != self.jobs_seen, jobs
        # A node that remembers as many finished jobs as it will shows one that makes room for another by its queue.
        changed, self.pending_seen = ran or pending != self.pending_seen, pending
        self.moved, self.changed = changed or self.changed, changed
        if ran or now >= self.passed_until:
            self.passed_until = 0.0
        if ran or self.running or was_silent:  # nobody knows how long it has been up
            self.still_since = now

    def wedged(self, now: float, seconds: float) -> bool:
        """Whether jobs of ours wait there, and nothing has run or started for so many *seconds*: a Scrapyd that could
        not start a process keeps its slot occupied until it is restarted."""
        waits = any(flight.pending and now - flight.sent_at >= seconds for flight in self.flights.values())
        return waits and now - self.still_since >= seconds

    def fail(self, reason: str, now: float, *, needs: Proof = Proof.TAKES) -> bool:
        """Use it no more until a growing pause is over. Returns whether this is news."""
        news = reason != self.reported
        self.trouble = self.reported = reason
        self.needs = max(needs, self.needs if self.pause else needs)
        if now >= self.again_at:  # several calls that fail together are one failure
            self.pause = min(max(FIRST_PAUSE, self.pause * 2), LONGEST_PAUSE)
            self.again_at = now + self.pause
        return news

    def job_failed(self, reason: str, now: float) -> bool:
        """A job of it came to nothing. Returns whether it is in doubt for it now, and that is news."""
        self.bad_jobs += 1
        return self.bad_jobs >= BAD_JOBS and self.fail(reason, now, needs=Proof.DELIVERS)

    def recover(self, now: float) -> None:
        """It has answered: once its pause is over it gets one job, to see."""
        if now >= self.again_at:
            self.trouble = ""

    def worked(self, proof: Proof) -> bool:
        """It has shown *proof*. Returns whether this ends a doubt."""
        if proof is Proof.DELIVERS:
            self.bad_jobs = 0
        if not self.pause or proof < self.needs:
            return False
        self.pause, self.reported, self.trouble = 0.0, "", ""
        for flight in self.flights.values():
            flight.trial = False
        return True


class Fleet:
    """The members in the order of the settings; *members* is not empty."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self._next = 0

    def by_name(self, name: str) -> Member | None:
        return next((member for member in self.members if member.name == name), None)

    def by_url(self, url: str) -> Member | None:
        """A node may have another name in this run, and another node its name."""
        return next((member for member in self.members if member.node.address.url == url), None)

    def take_turn(self, *, avoid: str | None = None) -> Member | None:
        """The next member with room, in round-robin order; *avoid* only if there is no other. *avoid* is where the
        batch was before: such a batch is not for trying out a member that has failed."""
        in_turn = self.members[self._next :] + self.members[: self._next]
        others_work = any(member.well and member.name != avoid for member in self.members)
        # One after the other: the next that has room is found sooner than all that have.
        with_room = (one for one in in_turn if one.has_room and not (avoid and others_work and one.pause))
        chosen = None
        for member in with_room:
            if member.name != avoid:
                chosen = member
                break
            if not others_work:
                chosen = chosen or member
        if chosen is None:
            return None
        self._next = (self.members.index(chosen) + 1) % len(self.members)
        return chosen

    def flights(self) -> Iterable[tuple[Member, Flight]]:
        return [(member, flight) for member in self.members for flight in member.flights.values()]

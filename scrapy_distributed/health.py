"""The nodes of a run: which of them can be used, and whose turn it is. Times are the clock's seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scrapy_distributed.batch import Attempt
from scrapy_distributed.node import DaemonStatus, Node

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


@dataclass(kw_only=True, eq=False)
class Flight:
    """An attempt under way: *evidence* is the time of the last sign of life, *sequence* that of its newest receipt."""

    attempt: Attempt
    evidence: float
    confirmed: bool = False  # the node has said that it has it
    started: bool = False
    sequence: int = 0
    progress: int = 0  # requests that it had settled by its newest receipt
    lost: bool = False  # its requests have gone to another attempt; a final receipt still counts if it comes first
    fenced: bool = False  # it can't count any more, and is only to be cancelled
    cancelled: bool = False


@dataclass(kw_only=True, eq=False)
class Member:
    """A node of the fleet, and what the coordinator knows of it."""

    node: Node
    fixed_backlog: int = 0  # jobs; 0: from its pace
    flights: dict[str, Flight] = field(default_factory=dict)  # by job id
    trouble: str = ""  # why it gets nothing; '' if it is fine
    silent: bool = False  # the last look at it failed: no more looks until the pause is over
    pause: float = 0.0  # above 0: it has failed and has taken no job since
    reported: str = ""  # the trouble that the log tells already
    again_at: float = 0.0
    peak_running: int = 0
    jobs_seen: tuple[int, int] = (0, 0)  # running and finished, at the last look
    moved: bool = True  # a job has started or ended since the look before the last

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def backlog(self) -> int:
        """Unstarted jobs of ours that it may hold. ``max_proc`` is not to be had from Scrapyd, and it starts that many
        jobs a poll: twice the most that were seen running keeps every slot busy until we look again."""
        return self.fixed_backlog or max(8, 2 * self.peak_running)

    @property
    def has_room(self) -> bool:
        waiting = sum(not (flight.started or flight.lost or flight.fenced) for flight in self.flights.values())
        return not self.trouble and waiting < (1 if self.pause else self.backlog)  # first one job, to see

    def usable(self, *, waiting: bool) -> bool:
        """Whether it can be hoped for: it is well, or has failed and has taken a job of ours, or none is *waiting*."""
        has_job = any(flight.confirmed and not flight.lost for flight in self.flights.values())
        return not self.trouble and (has_job or not (self.pause and waiting))

    def seen(self, status: DaemonStatus) -> None:
        self.silent = False
        self.peak_running = max(self.peak_running, status.running)
        now = (status.running, status.finished)
        self.moved, self.jobs_seen = now != self.jobs_seen, now

    def fail(self, reason: str, now: float) -> bool:
        """Use it no more until a growing pause is over. Returns whether this is news."""
        news = reason != self.reported
        self.trouble = self.reported = reason
        if now >= self.again_at:  # several calls that fail together are one failure
            self.pause = min(max(FIRST_PAUSE, self.pause * 2), LONGEST_PAUSE)
            self.again_at = now + self.pause
        return news

    def recover(self, now: float) -> None:
        """It has answered: once its pause is over it gets one job, to see."""
        if now >= self.again_at:
            self.trouble = ""

    def worked(self) -> bool:
        """It has taken a job. Returns whether this is news."""
        news = self.pause > 0
        self.pause, self.reported = 0.0, ""
        return news


class Fleet:
    """The members in the order of the settings; *members* is not empty."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self._next = 0

    def by_name(self, name: str) -> Member | None:
        return next((member for member in self.members if member.name == name), None)

    def take_turn(self, *, avoid: str | None = None) -> Member | None:
        """The next member with room, in round-robin order; *avoid* only if there is no other. *avoid* is where the
        batch was before: such a batch is not for trying out a member that has failed."""
        turns = [(self._next + step) % len(self.members) for step in range(len(self.members))]
        with_room = [turn for turn in turns if self.members[turn].has_room]
        if avoid and any(not (member.trouble or member.pause) and member.name != avoid for member in self.members):
            with_room = [turn for turn in with_room if not self.members[turn].pause]
        turn = next((turn for turn in with_room if self.members[turn].name != avoid), None)
        if turn is None and with_room and all(member.trouble or member.name == avoid for member in self.members):
            turn = with_room[0]
        if turn is None:
            return None
        self._next = (turn + 1) % len(self.members)
        return self.members[turn]

    def flights(self) -> Iterable[tuple[Member, Flight]]:
        return [(member, flight) for member in self.members for flight in member.flights.values()]

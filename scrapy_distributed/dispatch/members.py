"""The nodes of a run: which of them can be used, and whose turn it is. Times are the clock's seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scrapy_distributed.dispatch.carrier import Carrier
from scrapy_distributed.dispatch.flight import Flight
from scrapy_distributed.fleet.node import DaemonStatus
from scrapy_distributed.fleet.pace import Pace
from scrapy_distributed.fleet.trust import Proof, Trust


@dataclass(kw_only=True, eq=False)
class Member:
    """A node in a run: the trust in it, its pace, and what is under way there."""

    carrier: Carrier
    fixed_backlog: int = 0  # jobs; 0: from its pace
    trust: Trust = field(default_factory=Trust)
    pace: Pace = field(default_factory=Pace)
    flights: dict[str, Flight] = field(default_factory=dict)  # by job id
    delivered_at: float = float("-inf")  # when a job of it was accepted last
    closing: bool = False  # it gets no job any more
    passed_until: float = 0.0  # above 0: a job that waited here was given to another, and nothing has moved here since

    @property
    def name(self) -> str:
        return self.carrier.name

    # Its flights

    def add(self, flight: Flight) -> None:
        self.flights[flight.job] = flight

    def ends(self, flight: Flight) -> None:
        """It is accepted or rejected."""
        self.forget(flight)
        self.carrier.done(flight.attempt)
        for other in self.flights.values():
            other.falls_behind(flight)

    def forget(self, flight: Flight) -> None:
        """It never ran, or can't count."""
        del self.flights[flight.job]
        flight.over = True

    @property
    def trial(self) -> Flight | None:
        """The job that tells whether it works again."""
        return next((flight for flight in self.flights.values() if flight.trial and flight.counts), None)

    @property
    def proving(self) -> bool:
        """Whether a job is at work there that may prove that it works."""
        return self.trial is not None and self.trial.at_work

    # What it may get

    @property
    def backlog(self) -> int:
        """Unstarted jobs of ours that it may hold."""
        return self.fixed_backlog or self.pace.backlog

    @property
    def has_room(self) -> bool:
        if self.trust.trouble or self.closing:
            return False
        waiting = sum(flight.waiting for flight in self.flights.values())
        # In doubt it gets one job, to see.
        return waiting < self.backlog if not self.trust.doubt else not waiting and not self.trial

    @property
    def idle_slots(self) -> int:
        """Jobs that it could start at once, as far as we know."""
        if not self.trust.well or self.closing or self.passed_until:
            return 0
        if any(flight.waiting for flight in self.flights.values()):
            return 0
        return self.pace.free_slots

    def would_try(self, *, any_well: bool) -> bool:
        """Whether a job that waits elsewhere may come to it while it is in doubt: else nothing might ever end that."""
        return bool(self.trust.doubt and self.has_room and not self.passed_until) and (
            self.trust.needs is Proof.TAKES or not any_well
        )

    def usable(self, *, waiting: bool) -> bool:
        """Whether it can be hoped for: it is well; or it has failed, and none is *waiting* or it has a job of ours. To
        have one says nothing where jobs come to nothing."""
        if self.trust.trouble:
            return False
        if not (self.trust.doubt and waiting):
            return True
        has_job = any(flight.confirmed and not flight.lost for flight in self.flights.values())
        return has_job and self.trust.needs is not Proof.DELIVERS

    # What it shows

    def due_in(self, now: float) -> float:
        """Seconds until a job there should be over; infinite where nothing is known."""
        return min((flight.due_in(now) for flight in self.flights.values()), default=float("inf"))

    def seen(self, status: DaemonStatus, now: float) -> None:
        ran = self.pace.seen(status, now, after_silence=self.trust.silent)
        self.trust.answers()
        if ran or now >= self.passed_until:
            self.passed_until = 0.0

    def wedged(self, now: float, seconds: float) -> bool:
        """Whether jobs of ours wait there, and nothing has run or started for so many *seconds*: a Scrapyd that could
        not start a process keeps its slot occupied until it is restarted."""
        waits = any(flight.pending and now - flight.sent_at >= seconds for flight in self.flights.values())
        return waits and now - self.pace.still_since >= seconds

    def worked(self, proof: Proof) -> bool:
        """It has shown *proof*. Returns whether this ends a doubt: then what was a trial is a job like others."""
        if not self.trust.worked(proof):
            return False
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
        return next((member for member in self.members if member.carrier.url == url), None)

    def take_turn(self, *, avoid: str | None = None) -> Member | None:
        """The next member with room, in round-robin order; *avoid* only if there is no other. *avoid* is where the
        batch was before: such a batch is not for trying out a member that has failed."""
        in_turn = self.members[self._next :] + self.members[: self._next]
        others_work = any(member.trust.well and member.name != avoid for member in self.members)
        # One after the other: the next that has room is found sooner than all that have.
        with_room = (one for one in in_turn if one.has_room and not (avoid and others_work and one.trust.doubt))
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

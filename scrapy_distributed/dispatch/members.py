"""The nodes of a run: which of them can be used, and whose turn it is. Times are the clock's seconds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import NamedTuple

from scrapy_distributed.dispatch.carrier import Carrier
from scrapy_distributed.dispatch.flight import Flight
from scrapy_distributed.fleet.node import DaemonStatus
from scrapy_distributed.fleet.pace import Pace, Told
from scrapy_distributed.fleet.trust import Proof, Trust


class Slots(NamedTuple):
    """Those of the nodes that are well: *all*; those that are *free* of our jobs; and those that are *idle*, in which
    nothing runs as far as we know, for *polls* of which a job of ours waits on its node. *unused*: how many never had a
    job of ours. *poll*: seconds between two polls of a node's queue, ``None`` where that is not known. *at_once*: all
    nodes start jobs at once, and tell when one has ended."""

    all: int
    free: int
    idle: int = 0
    polls: int = 0
    unused: int = 0
    poll: float | None = None
    at_once: bool = False


@dataclass(kw_only=True, eq=False)
class Member:
    """A node in a run: the trust in it, its pace, and what is under way there. *late*: batches are cut to size when
    slots are about to be free, so few jobs are bound to it; *ahead*: as a job has ended, which tells the size, also one
    that waits for each slot."""

    carrier: Carrier
    fixed_backlog: int = 0  # jobs; 0: from its pace
    late: bool = False
    ahead: bool = False
    trust: Trust = field(default_factory=Trust)
    pace: Pace = field(default_factory=Pace)
    flights: dict[str, Flight] = field(default_factory=dict)  # by job id
    delivered_at: float = float("-inf")  # when a job of it was accepted last
    closing: bool = False  # it gets no job any more
    drained: bool = False  # nor does it now, until an operator wishes that again
    most_jobs: int = 0  # of ours at once
    passed_until: float = 0.0  # above 0: a job that waited here was given to another, and nothing has moved here since

    @property
    def name(self) -> str:
        return self.carrier.name

    # Its flights

    def add(self, flight: Flight) -> None:
        flight.queued = self.jobs >= self.pace.slots
        self.flights[flight.job] = flight
        flight.is_first = self.jobs > self.most_jobs and not flight.queued
        self.most_jobs = max(self.most_jobs, self.jobs)

    def ends(self, flight: Flight) -> None:
        """It is accepted or rejected."""
        self._leaves(flight)
        self.carrier.done(flight.attempt)
        for other in self.flights.values():
            other.falls_behind(flight)

    def forget(self, flight: Flight) -> None:
        """It never ran, or can't count."""
        self._leaves(flight)
        if flight.fenced:
            self.carrier.done(flight.attempt)

    def _leaves(self, flight: Flight) -> None:
        del self.flights[flight.job]
        flight.over = True

    @property
    def jobs(self) -> int:
        """Of ours that are under way, and count."""
        return sum(flight.counts for flight in self.flights.values())

    @property
    def waiting(self) -> int:
        """Of these, as far as we know, those that it has not started."""
        return sum(flight.waiting for flight in self.flights.values())

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
        return self.fixed_backlog or (self._slots_and_next if self.late else self.pace.backlog)

    @property
    def has_room(self) -> bool:
        if self.trust.trouble or not self.used:
            return False
        if self.trust.doubt:  # it gets one job, to see
            return not self.waiting and not self.trial
        return self.waiting < self.backlog and not (self.late and self.jobs >= self._slots_and_next)

    @property
    def used(self) -> bool:
        """Whether it is to get jobs, be it well or not."""
        return not (self.closing or self.drained)

    @property
    def _slots_and_next(self) -> int:
        """A job for each slot, and one that waits for it: until its node looks for one, or we see that it has ended."""
        return self.pace.slots * (2 if self.ahead and not self.pace.at_once else 1)

    @property
    def is_full(self) -> bool:
        """Whether another one should have the next job, if it can: each slot has one."""
        return self.late and self.jobs >= self.pace.slots

    @property
    def idle_slots(self) -> int:
        """Jobs that it could start at once, as far as we know. One that was restarted has forgotten what runs there."""
        if not (self.used and self.trust.well) or self.passed_until or self.waiting:
            return 0
        forgotten = sum(flight.counts and flight.started for flight in self.flights.values()) - self.pace.running
        return max(0, self.pace.free_slots - max(0, forgotten))

    def would_try(self, *, any_well: bool) -> bool:
        """Whether a job that waits elsewhere may come to it while it is in doubt: else nothing might ever end that."""
        return bool(self.trust.doubt and self.has_room and not self.passed_until) and (
            self.trust.needs is Proof.TAKES or not any_well
        )

    def usable(self, *, waiting: bool) -> bool:
        """Whether it can be hoped for: it is well; or it has failed, and none is *waiting* or it has a job of ours. To
        have one says nothing where jobs come to nothing."""
        has_job = any(flight.confirmed and not flight.lost for flight in self.flights.values())
        if self.trust.trouble or (self.drained and waiting and not has_job):
            return False
        if not (self.trust.doubt and waiting):
            return True
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
        """The next member with room, in round-robin order, one that is full only if there is no other, and *avoid* only
        then. *avoid* is where the batch was before: such a batch is not for trying out a member that has failed."""
        in_turn = self.members[self._next :] + self.members[: self._next]
        others_work = any(member.trust.well and member.name != avoid for member in self.members)
        chosen, rank = None, 3
        for member in in_turn:  # one after the other: the next that has room is found sooner than all that have
            if not member.has_room or (avoid and others_work and member.trust.doubt):
                continue
            its_rank = 2 if member.name == avoid else int(member.is_full)
            if its_rank < rank and not (its_rank == 2 and others_work):
                chosen, rank = member, its_rank
            if not rank:
                break
        if chosen is None:
            return None
        self._next = (self.members.index(chosen) + 1) % len(self.members)
        return chosen

    def were_told(self, told: Mapping[str, tuple[int | None, float | None]]) -> None:
        """By URL, slots and seconds between polls of nodes as jobs of earlier runs have told them."""
        for member in self.members:
            self.learns(member, Told(*told.get(member.carrier.url, ())))

    def a_job_has_ended(self) -> None:
        """How long one takes is known from now on."""
        if not self.members[0].ahead:
            for member in self.members:
                member.ahead = True

    def learns(self, member: Member, told: Told) -> bool:
        """A job of *member* has *told* that. Nodes of which nothing is known are taken to have as many slots as those
        that have told. Returns whether it is news."""
        if not member.pace.learns(told):
            return False
        if slots := [one.pace.told.slots for one in self.members if one.pace.told.slots]:
            for one in self.members:
                one.pace.guess = median_low(slots)
        return True

    def slots(self) -> Slots:
        """Counts them; 1 where no node is well."""
        well = [member for member in self.members if member.trust.well and not member.drained]
        told = [member.pace.poll for member in well if member.pace.poll is not None]
        return Slots(
            all=max(1, sum(member.pace.slots for member in well)),
            free=sum(max(0, member.pace.slots - member.jobs) for member in well),
            idle=sum(member.pace.free_slots for member in well),
            polls=sum(min(member.pace.free_slots, member.waiting) for member in well if member.pace.poll != 0),
            unused=sum(max(0, (member.pace.known_slots or 0) - member.most_jobs) for member in well),
            poll=median_low(told) if told else None,
            at_once=bool(well) and all(member.pace.at_once for member in well),
        )

    def forget(self, runs: Collection[str]) -> None:
        """*runs* are over: what their jobs have left on the nodes is of no use any more."""
        for member in self.members:
            member.carrier.forget(runs)

    def flights(self) -> Iterable[tuple[Member, Flight]]:
        return [(member, flight) for member in self.members for flight in member.flights.values()]

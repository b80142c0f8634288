"""How long a job may be without a sign of life, and when it is asked for one. Times are the clock's seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scrapy_distributed.config.config import Config
from scrapy_distributed.dispatch.flight import Flight

if TYPE_CHECKING:
    from scrapy_distributed.dispatch.members import Member

USUAL_START = 3  # times the slowest start that was seen may a start take
LONGEST_START = 8  # leases
OLD_LEASES = 10  # for so many leases nobody wonders about a job that its node says it has
OVERTAKEN = 10  # jobs that came later and are over


class Leases:
    """The leases of a run: what *config* says, and how long starts take."""

    def __init__(self, config: Config) -> None:
        self.lease = config.lease
        self.poll_interval = config.poll_interval
        self.max_job_seconds = config.max_job_seconds
        self.patience = min(config.lease / 4, 5 * config.poll_interval)  # seconds a job is left alone without news
        self.starts = Starts(config.lease)

    # When it is asked for

    def may_have_news(self, member: Member, flight: Flight, now: float, *, queue_stands: bool) -> bool:
        """Where nothing has started or ended only heartbeats are due, and these only now and then. A node starts jobs
        in the order in which it got them, so those behind one that waits wait as well (*queue_stands*)."""
        ago = now - flight.looked_at
        # No lease ends without a question. A clock that was set back makes it less than 0.
        if not 0 <= ago < self.patience or now - flight.evidence >= self.lease:
            return True
        if flight.unreadable > 1:  # a forged one may cost much, each time
            return False
        if flight.looked_at < flight.ends_at <= now:  # it should be over: is it, or when will it be?
            return True
        urgent = member.trust.doubt or not flight.counts or flight.stalled or flight.dismissed or flight.unsure
        if urgent and ago >= self.poll_interval:  # also where looks are close together
            return True
        return member.pace.moved and not (queue_stands and flight.waiting)

    def node_is_to_be_asked(self, member: Member, flight: Flight, now: float) -> bool:
        """``status.json`` unpacks a node's whole queue, so it is asked where a receipt can't tell, and not always."""
        silent = now - flight.evidence > self.patience
        return member.pace.moved or flight.unsure or silent or flight.fenced or flight.stalled or flight.dismissed

    # When it is over

    def is_over(self, member: Member, flight: Flight, now: float) -> bool:
        """There was no sign of life for as long as *flight* has."""
        seconds = self.starts.seconds if self._starts(member, flight) else self.lease
        return now - flight.evidence >= seconds

    def lengthen(self, member: Member, flight: Flight, now: float) -> bool:
        """*flight* was over at its start: give starts more time. Returns whether they get more from now on."""
        return self._starts(member, flight) and self.starts.was_short(flight, now)

    def is_too_old(self, flight: Flight, now: float) -> bool:
        """It is under way for longer than a job may be (``DISTRIBUTED_MAX_JOB_SECONDS``)."""
        return 0 < self.max_job_seconds <= now - flight.sent_at

    def is_strange(self, member: Member, flight: Flight, now: float) -> bool:
        """Its node has it for so long that one wonders: Scrapyd starts jobs in the order in which it got them, and they
        are about as large as each other. A node that is busy with jobs of others, or never starts ours, looks alike."""
        if now - flight.sent_at < OLD_LEASES * self.lease:
            return False
        flights = member.flights.values()
        is_next = flight.waiting and not any(other.started for other in flights)
        return flight.overtaken >= OVERTAKEN or (
            is_next and flight is next(other for other in flights if other.waiting)
        )

    def _starts(self, member: Member, flight: Flight) -> bool:
        return flight.starting and not member.trust.silent


class Starts:
    """How long a job may take from its start to its first receipt: a *lease* (seconds), or more where starts have been
    seen to be slow. Else a large project, or a busy node, whose jobs take longer than that would never begin."""

    def __init__(self, lease: float) -> None:
        self.seconds = lease
        self._most = LONGEST_START * lease
        self._grown_at = float("-inf")

    def took(self, seconds: float) -> None:
        """A job has started in so many *seconds*."""
        self.seconds = max(self.seconds, min(USUAL_START * seconds, self._most))

    def was_short(self, flight: Flight, now: float) -> bool:
        """The time was not enough for *flight*. Returns whether there is more from now on: jobs that have started
        together say it once."""
        if flight.sent_at < self._grown_at or self.seconds >= self._most:
            return False
        self.seconds, self._grown_at = min(2 * self.seconds, self._most), now
        return True

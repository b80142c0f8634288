"""What is bound to one node, and would be over sooner on another that has nothing to do."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from scrapy_distributed.config.config import Config
from scrapy_distributed.dispatch.judge import Judge
from scrapy_distributed.dispatch.members import Fleet, Member
from scrapy_distributed.dispatch.supervisor import FlightOverError, Supervisor
from scrapy_distributed.errors import NodeRefusedError
from scrapy_distributed.ledger.sqlite import Ledger

DOWN_SECONDS = 5.0  # a Scrapyd that is restarted is back by then, most often
PASSED_LEASES = 10  # for so many leases a node that gave a job away gets none back, unless something moves there


class Handover:
    """Takes batches from the nodes of *fleet* that others could start at once; and all that wait, from each while the
    run is *paused*, and from those that are drained. They are ready then."""

    def __init__(
        self, *, ledger: Ledger, fleet: Fleet, supervisor: Supervisor, judge: Judge, config: Config, clock: Any
    ) -> None:
        self.ledger = ledger
        self.fleet = fleet
        self.supervisor = supervisor
        self.judge = judge
        self.config = config
        self.clock = clock
        self.paused = False

    async def take_back(self, member: Member) -> None:
        """Jobs that have waited here for a while go to nodes that have nothing to do, the last ones first."""
        if self.paused or member.drained:
            for flight in [flight for flight in member.flights.values() if flight.waiting]:
                with suppress(NodeRefusedError, FlightOverError):
                    await self.supervisor.take_back(member, flight)
            return
        patience = self.config.lease / 4
        waiting = [flight for flight in member.flights.values() if flight.pending and flight.waiting]
        waiting = [flight for flight in waiting if self._now() - flight.sent_at >= patience]
        if not waiting:  # nearly always; what follows looks at all nodes
            return
        others = [other for other in self.fleet.members if other is not member]
        takers = {other.name: other.idle_slots for other in others if other.idle_slots}
        if not takers:
            any_well = any(one.trust.well for one in self.fleet.members)
            takers = {other.name: 1 for other in others if other.would_try(any_well=any_well)}
            if any_well:  # what was sent before is not for trying out a node
                waiting = [flight for flight in waiting if flight.attempt.number == 1]
        if not takers or any(name != last for _, last in self.ledger.bookings.ready() for name in takers):
            return
        for flight in waiting[-sum(takers.values()) :]:
            with suppress(NodeRefusedError, FlightOverError):  # to one job: nothing against the node
                if await self.supervisor.take_back(member, flight):
                    # Else two nodes that start nothing would play catch.
                    member.passed_until = self._now() + PASSED_LEASES * self.config.lease

    def give_up(self, member: Member) -> None:
        """Nothing listens there any more: its batches go to slots that have nothing to do, as many to each. Jobs of a
        Scrapyd that was ended live on: their receipts are welcome, but for those of batches that were divided."""
        flights = [flight for flight in member.flights.values() if flight.counts]
        if not flights or not member.trust.is_down(self._now(), DOWN_SECONDS) or self.ledger.bookings.ready():
            return
        idle_slots = sum(other.idle_slots for other in self.fleet.members if other is not member)
        requests = sum(flight.attempt.size for flight in flights)
        for flight in flights if idle_slots else ():
            parts = max(1, round(idle_slots * flight.attempt.size / requests))
            reason = f"connections to {member.name} are refused, and other nodes have nothing to do"
            self.judge.lost(member, flight, reason, self._now(), parts=parts)

    def _now(self) -> float:
        return float(self.clock.seconds())

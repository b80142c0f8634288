"""In place of a dispatcher."""

from __future__ import annotations

from scrapy_distributed.dispatch.flight import Flight
from scrapy_distributed.dispatch.members import Member
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt


class Taker:
    """Takes ready batches while it has *room*, for *member*."""

    def __init__(self, ledger: Ledger, member: Member | None = None) -> None:
        self.ledger = ledger
        self.member = member
        self.room = 0
        self.started = True
        self.idle = False
        self.attempts: list[Attempt] = []
        self.payloads: list[str] = []  # of these
        self.drained = False

    def send_no_more(self) -> None:
        self.room = 0

    async def drain(self, seconds: float) -> None:
        self.drained = True

    def send_ready(self) -> None:
        while self.room and (ready := self.ledger.bookings.ready()):
            self.room -= 1
            attempt, payload = self.ledger.bookings.bind(ready[0][0], "n1", "http://n1:6800")
            self.attempts.append(attempt)
            self.payloads.append(payload)
            if self.member is not None:
                self.member.add(Flight(attempt=attempt, sent_at=0.0, evidence=0.0))

"""A judge with a ledger of its own. No network, no clock."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from carriers import idle_member
from ledgers import IDENTITY, cut, divert, receipt, states
from scrapy import Spider
from scrapy.settings import Settings
from scrapy.statscollectors import MemoryStatsCollector
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from scrapy_distributed.config.config import Config
from scrapy_distributed.dispatch.flight import Flight
from scrapy_distributed.dispatch.judge import Judge
from scrapy_distributed.dispatch.members import Fleet, Member
from scrapy_distributed.errors import WireError
from scrapy_distributed.ledger.finds import Finds
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.receipt import Receipt

NOW = 1000.0


class Court:
    """A judge with a ledger at *path*, and members n0, n1 ... that are well."""

    def __init__(self, path: Path, *, members: int = 2, harvest: Any = None, **settings: Any) -> None:
        self.ledger = Ledger(path)
        self.ledger.begin(IDENTITY, resume=True)
        self.members = [idle_member(number) for number in range(members)]
        self.stats = MemoryStatsCollector(SimpleNamespace(settings=Settings()))  # type: ignore[arg-type]
        self.targets: list[tuple[bytes, str]] = []
        self.found: list[str] = []
        self.reading: Deferred[None] | None = None  # what the next reader of targets waits for
        self.told: list[str] = []  # nodes whose attempts were accepted
        self.trips: list[float | None] = []  # seconds since these were sent
        self.stopped_by = ""
        self.no_job_starts: list[str] = []
        self.judge = Judge(
            ledger=self.ledger, fleet=Fleet(self.members), config=Config.from_settings(Settings(settings)),
            spider=Spider(name="s"), stats=self.stats, read_targets=self.read_targets, harvest=harvest,
            accepted=self.accepted,
            stopped_by=lambda receipt: self.stopped_by,
            no_job_starts=self.no_job_starts.append,
        )  # fmt: skip

    async def read_targets(self, attempt: Attempt, report: Receipt) -> list[Finds]:
        if self.reading is not None:
            await self.reading
        if "rubbish" in report.targets:
            raise WireError("no payload")
        return [Finds.of(self.targets)]

    def accepted(self, node: str, attempt: Attempt, report: Receipt, trip: float | None) -> None:
        self.told.append(node)
        self.trips.append(trip)
        while (some := self.ledger.intake.divert_found()) is not None:
            self.found += some[1]

    def batch(self, *numbers: int) -> None:
        cut(self.ledger, divert(self.ledger, *numbers))

    def ready(self) -> list[int]:
        """The numbers of all ready batches."""
        rows = self.ledger.store.db.execute("SELECT number FROM batch WHERE state = 'ready' ORDER BY number")
        return [number for (number,) in rows]

    def send(self, member: Member, batch: int | None = None, **values: Any) -> Flight:
        """The next ready batch, or *batch*, is on *member* now."""
        number = self.ledger.bookings.ready()[0][0] if batch is None else batch
        attempt, _ = self.ledger.bookings.bind(number, member.name, member.carrier.url)
        self.ledger.bookings.sent(attempt)
        flight = Flight(attempt=attempt, sent_at=NOW, evidence=NOW, **values)
        member.flights[attempt.job] = flight
        return flight

    def final(self, member: Member, flight: Flight, settled: int | None = None, **values: Any) -> None:
        failed: list[Failure] = []
        self.begin(member, flight, settled, **values).addErrback(failed.append)
        for failure in failed:
            failure.raiseException()

    def begin(self, member: Member, flight: Flight, settled: int | None = None, **values: Any) -> Deferred[None]:
        """The same, and it may have to wait for what is read."""
        report = receipt(flight.attempt, settled, **values)
        return Deferred.fromCoroutine(self.judge.final(member, flight, report, NOW))

    def count(self, stat: str) -> int:
        return int(self.stats.get_value(f"distributed/{stat}", 0))

    def balance(self) -> dict[str, int]:
        """The states that are not empty."""
        return states(self.ledger)

    def attempts(self, batch: int = 1) -> list[tuple[str, str]]:
        """State and reason of the attempts at *batch*."""
        with closing(LedgerReader(self.ledger.path)) as reader:
            return [(found.state, found.reason) for found in reader.attempts(reader.runs()[0], batch)]

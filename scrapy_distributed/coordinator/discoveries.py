"""What workers have found: requests for the fleet, read from receipts, kept in the ledger, and diverted in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from scrapy import Spider
from scrapy.statscollectors import StatsCollector
from twisted.internet.task import deferLater

from scrapy_distributed.coordinator.cutter import Cutter
from scrapy_distributed.divert.diverter import Diverter, Entry
from scrapy_distributed.divert.finds import MAX_URL
from scrapy_distributed.errors import LedgerUnavailableError, WireError
from scrapy_distributed.ledger.finds import Finds
from scrapy_distributed.ledger.sqlite_intake import Intake
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.receipt import Receipt
from scrapy_distributed.wire.request import decode_requests
from scrapy_distributed.wire.session import SESSION

TURN = 0.05  # seconds after which what a receipt holds leaves the event loop to others


class Discoveries:
    """A node chooses how many there are in a receipt, so neither reading nor diverting them holds up others.

    *all_diverted* is called when none is left, *ledger_failed* if the ledger can't be written.
    """

    def __init__(
        self, *, intake: Intake, diverter: Diverter, cutter: Cutter, spider: Spider, stats: StatsCollector, clock: Any,
        all_diverted: Callable[[], None], ledger_failed: Callable[[LedgerUnavailableError], None],
    ) -> None:  # fmt: skip
        self.intake = intake
        self.diverter = diverter
        self.cutter = cutter
        self.spider = spider
        self.stats = stats
        self.clock = clock
        self.all_diverted = all_diverted
        self.ledger_failed = ledger_failed
        self._stopped = False
        self._rest: Any = None  # the call that is to divert it

    async def read(self, attempt: Attempt, receipt: Receipt) -> list[Finds]:
        """The targets in *receipt* of *attempt*, by the same rules as for the coordinator's own and by that for finds.
        Nothing is done with them. Raises ``WireError``."""
        finds: list[Finds] = []
        jars: dict[str, Any] | None = None  # of the sessions that it was sent
        began = time.monotonic()
        for number, elements in enumerate(receipt.found()):
            entries: list[Entry] = []
            for element in elements:
                if time.monotonic() - began > TURN:
                    await deferLater(self.clock, 0)
                    began = time.monotonic()
                requests = decode_requests([element], self.spider, longest=MAX_URL, data_only=True)
                session = element.get(SESSION) if isinstance(element, dict) else None
                if session is not None:
                    jars = self.intake.jars_of(attempt) if jars is None else jars
                    if not isinstance(session, str) or session not in jars:
                        raise WireError("cookies that its batch does not have")
                    if jars[session] != requests[0].meta.get("cookiejar"):
                        raise WireError("cookies of another jar than its own")
                entries += self.diverter.found(requests, f"{receipt.job}/{number}".encode(), session)
            if entries:
                finds.append(Finds.of(entries))
        return finds

    @property
    def waits(self) -> bool:
        """Whether there are some in the ledger that are still to be diverted."""
        return self._rest is not None and self._rest.active()

    def divert(self) -> None:
        """Divert some of those in the ledger, and the rest when others have had their turns."""
        if self._stopped or self.waits:
            return
        try:
            some = self.intake.divert_found()
            if some is None:
                self.all_diverted()
                return
            self._rest = self.clock.callLater(0, self.divert)
            size, new = some
            self.stats.inc_value("distributed/found_by_workers", len(new))
            self.stats.inc_value("distributed/diverted", len(new))
            if len(new) < size:
                self.stats.inc_value("distributed/duplicates", size - len(new))
            self.cutter.add(new)
            self.cutter.cut()
        except LedgerUnavailableError as error:
            self.ledger_failed(error)

    def stop(self) -> None:
        """Leave the rest in the ledger, for the same command."""
        self._stopped = True
        if self.waits:
            self._rest.cancel()

"""How far the fleet is, now and then: Scrapy's own line tells of the pages that are crawled here alone."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from scrapy import Spider

from scrapy_distributed.dispatch.members import Fleet
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.sqlite_account import Account
from scrapy_distributed.words import counted

logger = logging.getLogger(__name__)

SELDOM = 500  # times as long as it takes to count: a large ledger is asked less often


class Progress:
    """Told each *interval* seconds (0: never), by *account* and by what jobs of *fleet* have reported that run."""

    def __init__(self, *, account: Account, fleet: Fleet, spider: Spider, interval: float, clock: Any) -> None:
        self.account = account
        self.fleet = fleet
        self.interval = interval
        self.clock = clock
        self._extra = {"spider": spider}
        self._timer: Any = None

    def start(self) -> None:
        if self.interval > 0:
            self._timer = self.clock.callLater(self.interval, self._tell)

    def stop(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _tell(self) -> None:
        began = self.clock.seconds()
        with suppress(LedgerUnavailableError):  # others tell that, and act
            self._log()
        took = self.clock.seconds() - began
        self._timer = self.clock.callLater(max(self.interval, SELDOM * took), self._tell)

    def _log(self) -> None:
        balance = self.account.balance()
        at_work = [flight for _, flight in self.fleet.flights() if flight.counts and flight.started]
        settled = balance.ended + sum(flight.settled for flight in at_work)
        items = self.account.items() + sum(flight.items for flight in at_work)
        logger.info(
            "Fleet: %d of %s settled, %s, %s at work", settled, counted(balance.diverted, "request"),
            counted(items, "item"), counted(len(at_work), "job"), extra=self._extra,
        )  # fmt: skip

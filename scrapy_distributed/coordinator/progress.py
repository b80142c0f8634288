"""How far the fleet is, now and then: Scrapy's own line tells of the pages that are crawled here alone."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from scrapy import Spider

from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.dispatch.members import Fleet
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.sqlite_account import Account
from scrapy_distributed.words import counted

logger = logging.getLogger(__name__)

SELDOM = 500  # times as long as it takes to count: a large ledger is asked less often
MANY_MINUTES = 180  # from then on hours are told


class Progress:
    """Told each *interval* seconds (0: never), by *account* and by what jobs of *fleet* have reported that run: how
    much is settled of what *walk* has found, how fast since the line before, and so when the rest should be."""

    def __init__(
        self, *, account: Account, fleet: Fleet, walk: Walk, spider: Spider, interval: float, clock: Any
    ) -> None:  # fmt: skip
        self.account = account
        self.fleet = fleet
        self.walk = walk
        self.interval = interval
        self.clock = clock
        self._extra = {"spider": spider}
        self._timer: Any = None
        self._before = (0.0, 0)  # when the last line was told, and how many requests were settled then

    def start(self) -> None:
        if self.interval > 0:
            with suppress(LedgerUnavailableError):
                self._before = (self.clock.seconds(), self.account.balance().ended)
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
            "Fleet: %d of %s settled%s, %s, %d of %s at work", settled, counted(balance.diverted, "request"),
            self._pace(settled, balance.diverted), counted(items, "item"), len(at_work),
            counted(self.fleet.slots().all, "slot"), extra=self._extra,
        )  # fmt: skip

    def _pace(self, settled: int, of: int) -> str:
        """*settled* requests as a part of all, the rate, and the time that the rest takes at this rate."""
        now, (then, before) = self.clock.seconds(), self._before
        self._before = (now, settled)
        part = f" ({100 * settled // of} %)" if of else ""
        rate = 60 * (settled - before) / (now - then) if now > then else 0.0
        if rate <= 0:
            return part
        of_what = "left" if self.walk.over else "for the rest of what was found so far"
        return f"{part}, {rate:,.0f}/min, {_minutes((of - settled) / rate)} {of_what}"


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return "less than a minute"
    return f"about {minutes:,.0f} min" if minutes < MANY_MINUTES else f"about {minutes / 60:,.0f} h"

"""How far the fleet is, counted again and again and told now and then: Scrapy's own line tells of the pages that are
crawled here alone."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from scrapy import Spider

from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.dispatch.members import Fleet
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.balance import Balance
from scrapy_distributed.ledger.count import Count
from scrapy_distributed.ledger.sqlite_account import Account

logger = logging.getLogger(__name__)

OFTEN = 5.0  # seconds from one count to the next
SELDOM = 500  # times as long as it takes to count: a large ledger is asked less often
LATELY = 60.0  # seconds: so long ago was the count that the rate is taken from, or the time between two lines
BESIDE = " (Scrapy's own line, of crawled pages, counts those of this process alone)"  # once


class Figures(NamedTuple):
    """How a run stands at one moment: see ``Count``."""

    balance: Balance
    reported: int
    items: int
    at_work: int
    slots: int
    walked: bool
    paused: bool


class Progress:
    """How much is settled of what a walk has found, how fast of late, and so when the rest should be. *figures* counts
    (``None``: it can't be told now). Told each *interval* seconds (0: never)."""

    def __init__(self, *, figures: Callable[[], Figures | None], spider: Spider, interval: float, clock: Any) -> None:
        self.figures = figures
        self.interval = interval
        self.clock = clock
        self.last: Count | None = None
        self._extra = {"spider": spider}
        self._timer: Any = None
        self._before: deque[tuple[float, int]] = deque()  # when it was counted, and how many requests were settled then
        self._told = False
        self._told_at = 0.0

    def start(self) -> None:
        self._told_at = self.clock.seconds()
        self._go_on()

    def stop(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _go_on(self) -> None:
        began = self.clock.seconds()
        with suppress(LedgerUnavailableError):  # others tell that, and act
            self.last = self._count() or self.last
            if self.last is not None and 0 < self.interval <= began - self._told_at:
                self._told_at = began
                logger.info("Fleet: %s%s", self.last, BESIDE if not self._told else "", extra=self._extra)
                self._told = True
        took = self.clock.seconds() - began
        self._timer = self.clock.callLater(max(min(OFTEN, self.interval or OFTEN), SELDOM * took), self._go_on)

    def _count(self) -> Count | None:
        figures = self.figures()
        if figures is None:
            return None
        rate = self._rate(figures.balance.ended + figures.reported)
        return Count(time=time.time(), rate=rate, **figures._asdict())

    def _rate(self, settled: int) -> float:
        """Requests a minute, since the newest of the counts that are old enough, else since the first."""
        now, before = self.clock.seconds(), self._before
        while len(before) > 1 and now - before[1][0] >= max(LATELY, self.interval):
            before.popleft()
        before.append((now, settled))
        then, first = before[0]
        return max(0.0, 60 * (settled - first) / (now - then)) if now > then else 0.0


def figures_of(account: Account, fleet: Fleet, walk: Walk, *, paused: bool) -> Figures:
    """Counted by *account* and by what jobs of *fleet* have reported."""
    balance = account.balance()
    at_work = [flight for _, flight in fleet.flights() if flight.counts and flight.started]
    return Figures(
        balance, reported=sum(flight.settled for flight in at_work),
        items=account.items() + sum(flight.items for flight in at_work), at_work=len(at_work),
        slots=max(fleet.slots().all, len(at_work)),  # one that is drained has no slots
        walked=walk.over, paused=paused,
    )  # fmt: skip

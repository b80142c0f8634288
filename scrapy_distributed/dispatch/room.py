"""Whether the spool takes items, and when that is tried again where it does not. A full disk is full for all jobs."""

from __future__ import annotations

import logging
from typing import Any

from scrapy import Spider
from twisted.internet.interfaces import IReactorTime

logger = logging.getLogger(__name__)

FIRST_PAUSE = 2.0
LONGEST_PAUSE = 60.0


class Room:
    """The room in a spool. *pause*: the seconds for which nothing is fetched after it has refused something; 0 while
    all is well. When they are over one job tries, and the others wait for what comes of it."""

    def __init__(self, *, spider: Spider, clock: IReactorTime) -> None:
        self.clock: Any = clock
        self.pause = 0.0
        self._again_at = 0.0
        self._tries = self._in_a_hurry = False
        self._error = OSError()
        self._extra = {"spider": spider}

    def check(self) -> None:
        """To be called before something is fetched. Raises the ``OSError`` of the last time while that is to wait."""
        if not self.pause or self._in_a_hurry:
            return
        now = self.clock.seconds()
        if now < self._again_at:
            raise self._error.with_traceback(None)
        self._tries, self._again_at = True, now + self.pause

    def refused(self, error: OSError) -> None:
        """It could not be written."""
        if not self.pause:
            logger.warning(
                "Items can't be kept here (%s): what workers have done waits on its nodes until there is room; nothing"
                " is lost", error, extra=self._extra,
            )  # fmt: skip
        if self._tries or not self.pause:  # else it was under way when another one was refused
            self.pause = min(max(FIRST_PAUSE, 2 * self.pause), LONGEST_PAUSE)
            self._again_at = self.clock.seconds() + self.pause
        self._tries, self._error = False, error

    def took(self) -> None:
        """It was written."""
        if self.pause:
            logger.warning("Items can be kept here again: what has waited on its nodes is fetched", extra=self._extra)
        self.pause, self._tries = 0.0, False

    def hurry(self) -> None:
        """From now on nothing waits: there is no later look."""
        self._in_a_hurry = True

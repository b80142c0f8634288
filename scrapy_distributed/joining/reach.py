"""Whether the server of the runs can be reached: when it is away, what is under way goes on."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError

logger = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_SECONDS = (0.5, 5.0)  # until it is asked again, the first time and at most; each is twice the one before
LONG_SECONDS = 5.0  # away for so long, leases may have ended meanwhile
GRACE_SECONDS = RETRY_SECONDS[1] + 1  # for others to renew theirs, where a network was cut for all


class Reach:
    """That of one server, said once when it is lost and once when it is found again."""

    def __init__(self) -> None:
        self._was_found = False
        self._away_since: float | None = None
        self._grace_until = 0.0

    @property
    def grace_seconds(self) -> float:
        """Until this worker may claim: a claim ends leases, also of those who could not renew them."""
        return max(0.0, self._grace_until - time.monotonic())

    async def insist(self, call: Callable[[], Awaitable[T]], *, unless: Callable[[], bool] = lambda: False) -> T:
        """What *call* returns as soon as the server can be used. Raises ``LedgerUnavailableError`` where it can't and
        *unless* says that there is no use in it, and what else *call* raises; but for ``LedgerError``: who has been let
        in once waits also for a server that refuses."""
        pause, most = RETRY_SECONDS
        while True:
            try:
                result = await call()
            except (LedgerUnavailableError, LedgerError) as error:
                if unless() or (isinstance(error, LedgerError) and not self._was_found):
                    raise
                self._lost(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, most)
            else:
                self._found()
                return result

    def _lost(self, error: LedgerUnavailableError | LedgerError) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            logger.warning("%s. What is under way here goes on, and it is asked again and again", error)

    def _found(self) -> None:
        self._was_found = True
        if self._away_since is None:
            return
        seconds = time.monotonic() - self._away_since
        self._away_since = None
        logger.info("Redis can be used again, after %.1f s", seconds)
        if seconds >= LONG_SECONDS:
            self._grace_until = time.monotonic() + GRACE_SECONDS

"""The coordinator's own crawl: how far it is; what fails of it is tried again after a pause, or counted by its reason.

A page of a walk that is lost takes with it all that it would have led to, and no balance tells of that. So what fails
for a reason that may pass (``DISTRIBUTED_RETRY_FAILED``, as for requests of the fleet) is held back for a while, before
the spider hears of it.
"""

from __future__ import annotations

import fnmatch
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.spidermiddlewares.httperror import HttpError
from twisted.python.failure import Failure

from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.wire.reasons import is_of_callback, reason_of

logger = logging.getLogger(__name__)

PAUSES = (10.0, 30.0)  # seconds before a request that has failed is tried again, the first time and the second
CUT_OFF = "cut off before all that was found was added"  # of the walk of a run that was stopped
DROPPED = "ended before it had scraped again what it had before"  # its items were dropped, as it began anew
TRIED = "distributed_tried"  # meta: how often that was


class Walk:
    """The crawl of *crawler*, which finds the requests for the fleet. *patterns*: of the reasons of failures that may
    pass; *clock* tells seconds.

    *lost*: what has failed for good, reason to number. *start_read*: the spider's start has given all that it has.
    *done* (since *done_at*): nothing is left to crawl here; it may go on. *failed*: an error has ended it, so a resumed
    run walks again.
    """

    def __init__(self, crawler: Crawler, *, patterns: Sequence[str], clock: Any) -> None:
        self.crawler = crawler
        self.patterns = patterns
        self.clock = clock
        self.lost: Counter[str] = Counter()
        self.start_read = self.done = self.failed = False
        self.done_at = 0.0
        self._scheduled: WeakSet[Request] = WeakSet()  # the crawl's own: robots.txt and media are none
        self._refused: WeakSet[Response] = WeakSet()
        self._to_hold: dict[Request, str] = {}  # on their way to the scheduler, with the reason of each
        self._held: list[tuple[float, Request, str]] = []  # with the time when each is due, too
        self._told = False

    def connect(self) -> None:
        """To be called when the engine is there."""
        connect = self.crawler.signals.connect
        connect(self._request_scheduled, signals.request_scheduled)
        connect(self._spider_error, signals.spider_error)
        connect(self._item_error, signals.item_error)
        assert self.crawler.engine is not None
        # The last of all: what Scrapy's retries and the project's middlewares can mend is mended by then.
        self.crawler.engine.downloader.middleware.methods["process_exception"].append(self.process_exception)

    @property
    def over(self) -> bool:
        return self.done or self.failed

    def is_done(self) -> None:
        self.done, self.done_at = True, self.clock.seconds()

    @property
    def callback_errors(self) -> int:
        return sum(number for reason, number in self.lost.items() if is_of_callback(reason))

    @property
    def waits(self) -> bool:
        """Whether something is held, or about to be."""
        return bool(self._held or self._to_hold)

    def go_on(self) -> None:
        """Crawl what is due."""
        now = self.clock.seconds()
        due = [request for when, request, _ in self._held if when <= now]
        self._held = [held for held in self._held if held[0] > now]
        assert self.crawler.engine is not None
        for request in due:
            self.crawler.engine.crawl(request)

    def is_cut_off(self) -> None:
        """What it had found last is lost, as nobody walks again."""
        self.lost[CUT_OFF] = 1
        logger.error(
            "The coordinator's own crawl was cut off, and the run is stopped, so it does not begin again: what it had"
            " found and scraped last may be missing", extra={"spider": self.crawler.spider},
        )  # fmt: skip

    def give_up(self) -> None:
        """What is held is not tried again."""
        self.lost.update(reason for _, _, reason in self._held)
        self._held = []

    def process_exception(self, request: Request, exception: Exception) -> Request | None:
        """As a downloader middleware has it. The request that it returns is given to the scheduler."""
        if request not in self._scheduled:
            return None
        outcome, reason = reason_of(exception)
        if outcome is not Outcome.FAILED:
            return None
        tried = request.meta.get(TRIED, 0)
        if tried == len(PAUSES) or not any(fnmatch.fnmatchcase(reason, pattern) for pattern in self.patterns):
            self.lost[reason] += 1
            return None
        self._tell(request, reason)
        meta = {name: value for name, value in request.meta.items() if name != "retry_times"}
        again = request.replace(dont_filter=True, meta={**meta, TRIED: tried + 1})
        self._to_hold[again] = reason
        return again

    def response_refused(self, response: Response, error: HttpError) -> None:
        """Its status is none that the spider takes. Scrapy may tell that of one response several times."""
        if response not in self._refused:
            self._refused.add(response)
            self.lost[reason_of(error)[1]] += 1

    def _request_scheduled(self, request: Request) -> None:
        """Raises ``IgnoreRequest`` to take *request* out of Scrapy's hands."""
        if request in self._to_hold:
            pause = PAUSES[request.meta[TRIED] - 1]
            self._held.append((self.clock.seconds() + pause, request, self._to_hold.pop(request)))
            raise IgnoreRequest
        self._scheduled.add(request)

    def _spider_error(self, failure: Failure, response: Any) -> None:
        if isinstance(response, Response):  # else its request has failed before, and is counted
            self.lost[f"callback {type(failure.value).__name__}"] += 1

    def _item_error(self, failure: Failure) -> None:
        self.lost[f"item {type(failure.value).__name__}"] += 1

    def _tell(self, request: Request, reason: str) -> None:
        assert self.crawler.stats is not None
        self.crawler.stats.inc_value("distributed/tried_again_here")
        if not self._told:
            self._told = True
            logger.warning(
                "%s failed (%s): it is tried again in %d s, and once more after that; the next ones are only counted",
                request, reason, PAUSES[0], extra={"spider": self.crawler.spider},
            )  # fmt: skip

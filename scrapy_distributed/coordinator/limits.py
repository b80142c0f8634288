"""The limits of a crawl as far as jobs reach them: Scrapy's own extension knows only what this process does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from scrapy.settings import BaseSettings

from scrapy_distributed.coordinator.closing import of_a_job
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.dispatch.job_template import BOUNDS


class Ended(Protocol):
    """What is asked of a final receipt."""

    @property
    def finish_reason(self) -> str: ...

    @property
    def stats(self) -> Mapping[str, float]: ...

    @property
    def callback_errors(self) -> int: ...


REASONS = {name.lower(): name for name in BOUNDS}  # why a job has ended -> the limit


class Limits:
    """Those in *settings*, of a run that has brought so many *items*, and whose own crawl is *walk*."""

    def __init__(self, settings: BaseSettings, *, items: Callable[[], int], walk: Walk) -> None:
        self.settings = settings
        self.items = items
        self.walk = walk
        self._errors = 0  # of callbacks, in jobs that count

    def reached(self, receipt: Ended) -> str:
        """Why the crawl is to close, now that *receipt* counts: its job has ended with the crawl, or the run has as
        many items or errors as the crawl may have. '' if it is to go on."""
        self._errors += receipt.callback_errors
        if reason := self.of_job(receipt):
            return reason
        if 0 < self._limit("CLOSESPIDER_ITEMCOUNT") <= self.items():
            return "closespider_itemcount"
        if 0 < self._limit("CLOSESPIDER_ERRORCOUNT") <= self._errors + self.walk.callback_errors:
            return "closespider_errorcount"
        return ""

    def of_job(self, receipt: Ended) -> str:
        """Why the crawl is to close with the job of *receipt*, a final one: it has reached a bound that is the limit of
        the crawl, or its spider has closed itself. '' if it is to go on."""
        if closed_itself(receipt):
            return of_a_job(receipt.finish_reason)
        at_bound = receipt.finish_reason in REASONS and self._limit(REASONS[receipt.finish_reason]) > 0
        return receipt.finish_reason if at_bound else ""

    def _limit(self, name: str) -> int:
        return self.settings.getint(name)


def most_waiting(settings: BaseSettings) -> int:
    """How many jobs may wait on a node, 0: as many as is best. Where what jobs do may end the crawl only one: all that
    have begun when the first comes home do more than is wanted."""
    return int(any(settings.getint(name) for name in BOUNDS))


def closed_itself(receipt: Ended) -> bool:
    """Whether the spider has raised ``CloseSpider`` in the job of *receipt*, or closed for a reason of its own."""
    return bool(receipt.stats.get("distributed/closed_itself"))

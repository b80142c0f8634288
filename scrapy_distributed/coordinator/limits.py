"""The limits of a crawl as far as jobs reach them: Scrapy's own extension knows only what this process does."""

from __future__ import annotations

from scrapy.settings import BaseSettings

from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.dispatch.job_template import BOUNDS
from scrapy_distributed.ledger.sqlite_account import Account
from scrapy_distributed.wire.receipt import Receipt

CLOSED_ITSELF = "distributed/closed_itself"  # a stat of jobs
REASONS = {name.lower(): name for name in BOUNDS}  # why a job has ended -> the limit


class Limits:
    """Those in *settings*, of the run of *account*, whose own crawl is *walk*."""

    def __init__(self, settings: BaseSettings, *, account: Account, walk: Walk) -> None:
        self.settings = settings
        self.account = account
        self.walk = walk
        self._errors = 0  # of callbacks, in jobs that count

    def reached(self, receipt: Receipt) -> str:
        """Why the crawl is to close, now that *receipt* counts: its spider has closed itself in that job, or the run
        has as many items or errors as the crawl may have. '' if it is to go on."""
        self._errors += receipt.callback_errors
        if closed_itself(receipt):
            return receipt.finish_reason if receipt.finish_reason != "finished" else "closed_itself"
        if 0 < self._limit("CLOSESPIDER_ITEMCOUNT") <= self.account.items():
            return "closespider_itemcount"
        if 0 < self._limit("CLOSESPIDER_ERRORCOUNT") <= self._errors + self.walk.callback_errors:
            return "closespider_errorcount"
        return ""

    def end_with(self, receipt: Receipt) -> bool:
        """Whether the crawl closes once *receipt*, a final one, counts: its job has reached a bound that is the limit
        of the crawl, or its spider has closed itself."""
        at_bound = receipt.finish_reason in REASONS and self._limit(REASONS[receipt.finish_reason]) > 0
        return at_bound or closed_itself(receipt)

    def _limit(self, name: str) -> int:
        return self.settings.getint(name)


def closed_itself(receipt: Receipt) -> bool:
    """Whether the spider has raised ``CloseSpider`` in the job of *receipt*."""
    return bool(receipt.stats.get(CLOSED_ITSELF))

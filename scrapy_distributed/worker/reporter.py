"""What a worker reports: it claims its job, shows that it lives, and tells at the end what has become of its batch."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from scrapy.crawler import Crawler
from scrapy.utils.asyncio import create_looping_call

from scrapy_distributed.errors import ConfigError, WireError
from scrapy_distributed.feeds.feeds import Feeds
from scrapy_distributed.wire import receipt
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.wire.reasons import MAX_REASON
from scrapy_distributed.wire.receipt import Receipt
from scrapy_distributed.words import shortened
from scrapy_distributed.worker.outcomes import Outcomes
from scrapy_distributed.worker.process_age import process_age
from scrapy_distributed.worker.targets import Targets

logger = logging.getLogger(__name__)

# Stats of Scrapy that grow while a worker does something.
ACTIVITY = ("downloader/request_count", "response_received_count", "item_scraped_count", "item_dropped_count")


class Reporter:
    """Writes the receipts of the job of *crawler* to *file* (``None``: nobody waits for them), each *interval* seconds
    and when there is news. *items*: that were scraped."""

    def __init__(
        self, crawler: Crawler, *, file: Path | None, interval: float, outcomes: Outcomes, feeds: Feeds,
        targets: Targets | None,
    ) -> None:  # fmt: skip
        self.crawler = crawler
        self.spider: Any = crawler.spider
        self.file = file
        self.interval = interval
        self.outcomes = outcomes
        self.feeds = feeds
        self.targets = targets
        self.items = 0
        self.sequence = 0
        self.activity = 0
        self.finish_reason: str | None = None
        self._heartbeat = create_looping_call(self._write)

    def started(self) -> None:
        self._has_started()  # for a batch of which nothing has to be downloaded
        self._heartbeat.start(self.interval, now=True)

    def at_work(self) -> None:
        self._has_started()
        self._write()

    def feeds_closed(self) -> None:
        self.feeds.close()
        self._finish()

    def ended(self, reason: str) -> None:
        """The spider is closed; it may have given any text as its reason."""
        self.finish_reason = shortened(str(reason), MAX_REASON)
        self._finish()

    def _has_started(self) -> None:
        self._stats.set_value("distributed/startup_seconds", round(process_age(), 3))

    @property
    def _stats(self) -> Any:
        return self.crawler.stats

    def _finish(self) -> None:
        """The final receipt: after the feeds have been stored, or have failed, and never before."""
        if self.finish_reason is None or not self.feeds.closed:
            return
        if self._heartbeat.running:
            self._heartbeat.stop()
        for (outcome, reason), count in self.outcomes.followed.items():
            self._stats.set_value(f"distributed/followed/{outcome.value}/{reason}", count)
        self._stats.set_value("distributed/job_seconds", round(process_age(), 3))
        self._write(final=True)

    def claim(self) -> None:
        """Scrapyd runs a job twice that it is told twice: both would write the same receipt, and the same feed."""
        if self.file is None:
            return
        try:
            claimed = receipt.claim(self.file, self._receipt(final=False))
        except OSError as error:
            logger.warning(
                "Can't write the receipt %s: %s. If this job runs twice, nobody will notice", self.file, error,
                extra={"spider": self.spider},
            )  # fmt: skip
            return
        if not claimed:
            raise ConfigError(
                f"_job: found {self.spider._job!r}, whose receipt {self.file} another worker has written;"
                " expected an id that is used once. If Scrapyd was told the job twice, nothing is to be done: the other"
                " worker crawls it; by hand give another one"
            )

    def _write(self, *, final: bool = False) -> None:
        if self.file is None:
            return
        report = self._receipt(final=final)
        try:
            receipt.write(self.file, self._checked(report) if final else report)
        except OSError as error:
            log = logger.error if final else logger.warning
            log("Can't write the receipt %s: %s", self.file, error, extra={"spider": self.spider})

    def _receipt(self, *, final: bool) -> Receipt:
        self.sequence += 1
        stats = self._stats.get_stats()
        outcomes, feeds = self.outcomes, self.feeds
        seen = outcomes.steps + self.items + len(feeds.files) + sum(int(stats.get(name, 0)) for name in ACTIVITY)
        self.activity = max(self.activity, seen)  # a project may set its stats back
        return Receipt(
            job=self.spider._job,
            sequence=self.sequence, final=final, size=outcomes.size, settled=outcomes.settled,
            failed=outcomes.by_reason(Outcome.FAILED), filtered=outcomes.by_reason(Outcome.FILTERED),
            again=outcomes.again,
            items=self.items, pages=stats.get("response_received_count", 0), activity=self.activity,
            clean=outcomes.clean, stored=final and feeds.stored(stats), feeds=tuple(feeds.files) if final else (),
            unexported=feeds.unexported if final else 0,
            followed=dict(islice(outcomes.failed_follow_ups().items(), receipt.MAX_REASONS)) if final else {},
            landed=tuple(outcomes.landed.items()) if final else (),
            targets=self.targets.payloads(outcomes.settled) if final and self.targets is not None else (),
            finish_reason=self.finish_reason or "", stats=self._numbers(stats) if final else {},
        )  # fmt: skip

    def _numbers(self, stats: dict[str, Any]) -> dict[str, float]:
        numbers = receipt.numbers(stats)
        left_out = sum(type(value) in (int, float) for value in stats.values()) - len(numbers)
        if left_out:
            logger.warning(
                "%d stats are not in the receipt, and so not in the sums of the coordinator: expected at most %d"
                " numbers below 2**63, with names of at most %d characters",
                left_out, receipt.MAX_STATS, receipt.MAX_STAT_NAME, extra={"spider": self.spider},
            )  # fmt: skip
        return numbers

    def _checked(self, report: Receipt) -> Receipt:
        """*report* if the coordinator will read it, else one that says that this attempt does not count."""
        try:
            return Receipt.from_json(report.to_json(), size=report.size)
        except WireError as error:
            logger.error(
                "The receipt of this job would be refused, so it does not count: %s", error,
                extra={"spider": self.spider},
            )  # fmt: skip
            return replace(report, stored=False, failed={}, filtered={}, again=0, feeds=(), targets=(), stats={})

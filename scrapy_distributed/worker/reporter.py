"""What a worker reports: it claims its job, shows that it lives, and tells at the end what has become of its batch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from scrapy.crawler import Crawler
from scrapy.utils.asyncio import create_looping_call

from scrapy_distributed.errors import ConfigError, WireError
from scrapy_distributed.feeds.feeds import Feeds
from scrapy_distributed.wire import receipt, receipt_file
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.wire.reasons import MAX_REASON
from scrapy_distributed.wire.receipt import ItemsFile, Receipt
from scrapy_distributed.words import shortened
from scrapy_distributed.worker.items_file import ItemsFileWriter
from scrapy_distributed.worker.its_node import ItsNode
from scrapy_distributed.worker.outcomes import Outcomes
from scrapy_distributed.worker.process_age import process_age
from scrapy_distributed.worker.targets import Targets

logger = logging.getLogger(__name__)

# Stats of Scrapy that grow while a worker does something.
ACTIVITY = ("downloader/request_count", "response_received_count", "item_scraped_count", "item_dropped_count")


class Reporter:
    """Writes the receipts of the job of *crawler* to *file* (``None``: nobody waits for them), each *interval* seconds
    and when there is news. *with_items*: beside it are the items; those of *done_jobs* are removed there.
    *its_node*: what is known of the node.

    *items*: that were scraped; *items_file*: what writes them, from the claim on."""

    def __init__(
        self, crawler: Crawler, *, file: Path | None, interval: float, outcomes: Outcomes, feeds: Feeds,
        targets: Targets | None, its_node: ItsNode, with_items: bool = False,
        done_jobs: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.crawler = crawler
        self.spider: Any = crawler.spider
        self.file = file
        self.interval = interval
        self.outcomes = outcomes
        self.feeds = feeds
        self.targets = targets
        self.with_items = with_items
        self.done_jobs = done_jobs
        self.items_file: ItemsFileWriter | None = None
        self._items_file: ItemsFile | None = None  # what is in it when it is closed
        self._its_node = its_node
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
        if self.items_file is not None:
            self._items_file = self.items_file.close()
        self._write(final=True)

    def claim(self) -> None:
        """Scrapyd runs a job twice that it is told twice: both would write the same receipt, and the same feed."""
        if self.file is None:
            return
        try:
            claimed = receipt_file.claim(self.file, self._receipt(final=False))
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
        for job in self.done_jobs:
            with suppress(OSError):  # its owner may be another one
                receipt_file.items_path(self.file.with_name(f"{job}.json")).unlink(missing_ok=True)
        if self.with_items:
            self._open_items(receipt_file.items_path(self.file))

    def _open_items(self, file: Path) -> None:
        try:
            self.items_file = ItemsFileWriter(file)
        except OSError as error:
            raise ConfigError(
                f"the items of this job are to come home, and their file {file} can't be made: {error}; expected a"
                " folder with room that Scrapyd can write to. No page was fetched, the batch goes out again"
            ) from None

    def _write(self, *, final: bool = False) -> None:
        if self.file is None:
            return
        report = self._receipt(final=final)
        try:
            receipt_file.write(self.file, self._checked(report) if final else report)
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
            clean=outcomes.clean, stored=final and self._stored(stats), feeds=tuple(feeds.files) if final else (),
            unexported=self._unexported if final else 0,
            followed=dict(islice(outcomes.failed_follow_ups().items(), receipt.MAX_REASONS)) if final else {},
            examples=outcomes.reported_examples() if final else {},
            landed=tuple(outcomes.landed.items()) if final else (),
            targets=self.targets.payloads(outcomes.settled) if final and self.targets is not None else (),
            target_keys=self.targets.keys if final and self.targets is not None else (),
            items_file=self._items_file if final else None, **self._its_node._asdict(),
            finish_reason=self.finish_reason or "", stats=self._numbers(stats) if final else {},
        )  # fmt: skip

    def _stored(self, stats: dict[str, Any]) -> bool:
        return self.feeds.stored(stats) and not (self.items_file is not None and self.items_file.damaged)

    @property
    def _unexported(self) -> int:
        return self.feeds.unexported + (self.items_file.left_out if self.items_file is not None else 0)

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
            return replace(
                report, stored=False, failed={}, filtered={}, again=0, examples={}, feeds=(), targets=(),
                target_keys=(), items_file=None, stats={},
            )  # fmt: skip

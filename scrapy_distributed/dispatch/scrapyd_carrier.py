"""A Scrapyd as carrier: the jobs of one spider of one project, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import BinaryIO

from scrapy_distributed.dispatch.carrier import LOG_BYTES
from scrapy_distributed.dispatch.flight import Signal
from scrapy_distributed.fleet.node import DaemonStatus, Node
from scrapy_distributed.fleet.preflight import admit
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.job_template import JobTemplate

TOLD_JOBS = 100  # that are over, to a job that is to remove what they have left


class ScrapydCarrier:
    """*node* for the jobs of *spider* of *project*. *feed*: they get a feed, which the preflight looks at."""

    def __init__(self, node: Node, *, project: str, spider: str, feed: bool) -> None:
        self.node = node
        self.project = project
        self.spider = spider
        self.feed = feed
        self.done_jobs: list[str] = []  # over, and what they have left there is of no use

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def url(self) -> str:
        return self.node.address.url

    def listen(self, news: Callable[[], None]) -> None:
        """A Scrapyd tells nothing by itself."""

    @property
    def ends_with_us(self) -> bool:
        return False

    def remembers(self, attempt: Attempt) -> bool:
        return True

    async def admit(self, version: str) -> None:
        await admit(self.node, project=self.project, spider=self.spider, version=version, feed=self.feed)

    async def look(self) -> DaemonStatus:
        return await self.node.daemonstatus()

    async def send(self, attempt: Attempt, payload: str, job: JobTemplate) -> None:
        done = self.done_jobs[:TOLD_JOBS]
        await self.node.schedule(
            self.project,
            self.spider,
            jobid=attempt.job,
            version=job.version or None,
            settings=job.with_done(done).settings_of(payload, attempt.token),
            args=job.args_of(attempt.label),
        )
        self.done_jobs = [one for one in self.done_jobs if one not in done]

    async def state(self, attempt: Attempt) -> str | None:
        return await self.node.status(attempt.job, self.project)

    async def receipt(self, attempt: Attempt) -> bytes | None:
        return await self.node.receipt(self.project, self.spider, attempt.job)

    async def items(self, attempt: Attempt, file: BinaryIO, *, size: int, digest: str) -> None:
        await self.node.items(self.project, self.spider, attempt.job, file, size=size, digest=digest)

    async def log_end(self, attempt: Attempt) -> str | None:
        return await self.node.log_tail(self.project, self.spider, attempt.job, max_bytes=LOG_BYTES)

    async def cancel(self, attempt: Attempt, signal: Signal) -> str | None:
        # INT is Scrapyd's own.
        return await self.node.cancel(self.project, attempt.job, None if signal is Signal.INT else signal.value)

    def done(self, attempt: Attempt) -> None:
        self.done_jobs.append(attempt.job)

    def forget(self, runs: Iterable[str]) -> None:
        """Scrapyd keeps what it keeps: nothing can be removed there."""

    async def close(self) -> None:
        await self.node.close()

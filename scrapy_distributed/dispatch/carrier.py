"""The seam to what runs the jobs: how an attempt gets to a worker, and what is heard of it there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import BinaryIO, Protocol

from scrapy_distributed.dispatch.flight import Signal
from scrapy_distributed.fleet.node import DaemonStatus
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.job_template import JobTemplate

LOG_BYTES = 20_000  # of the end of a log


class Carrier(Protocol):
    """One node. Every method raises ``NodeUnreachableError`` (nothing was sent), ``NodeRefusedError`` (the answer is
    no) or ``NodeAmbiguousError`` (it may have been done), also where it is cut off; but for ``close`` and those that
    are not awaited, which raise nothing."""

    @property
    def name(self) -> str:
        """What it is called in this run."""

    @property
    def url(self) -> str:
        """What it is known by to later runs."""

    def listen(self, news: Callable[[], None]) -> None:
        """*news* is to be called when a look would show something new: a job has started or ended. A node that can't
        tell never calls it; one that calls it often is looked at no more often than others. Raises nothing."""

    @property
    def ends_with_us(self) -> bool:
        """Whether its jobs can't outlive this process. Then they are told to end, and waited for, before it ends."""

    def remembers(self, attempt: Attempt) -> bool:
        """Whether it may have a job of *attempt*, which an earlier coordinator was about to send, or has sent. If not,
        it never will."""

    async def admit(self, version: str) -> None:
        """Check once more whether jobs of this *version* of the project ('' without one) can run there."""

    async def look(self) -> DaemonStatus:
        """How many jobs it has; and, where it can tell, how many it runs at once, and how long they wait for a poll of
        its queue. ``poll_seconds=0``: it starts jobs at once, and we hear at once when one has ended, so no job has to
        wait there for its turn. Of a node that can't tell, jobs do in their receipts. Asked at every look: cheap."""

    async def send(self, attempt: Attempt, payload: str, job: JobTemplate) -> None:
        """Give it the *payload* of *attempt*, to be run as *job* says. To be called once for each attempt."""

    async def state(self, attempt: Attempt) -> str | None:
        """``"pending"``, ``"running"``, ``"finished"``, or ``None``: unknown, which is not "did not run"."""

    async def receipt(self, attempt: Attempt) -> bytes | None:
        """What the worker has reported so far, ``None`` if there is nothing (yet)."""

    async def items(self, attempt: Attempt, file: BinaryIO, *, size: int, digest: str) -> None:
        """Write the items of its job to *file* as they come: *size* bytes with the SHA-256 *digest* (hexadecimal), as
        its final receipt tells. After any error what is in *file* is of no use.

        Raises ``NodeItemsError`` (refused) where they are not those: the attempt does not count, and nothing is wrong
        with the node. What *file* raises comes out as it is: neither the attempt nor the node is to blame."""

    async def log_end(self, attempt: Attempt) -> str | None:
        """The end of the worker's log, long enough for a traceback and what stands before it; ``None`` without one."""

    async def cancel(self, attempt: Attempt, signal: Signal) -> str | None:
        """End its job; returns what it was: ``"pending"`` (it never ran and never will), ``"running"`` (*signal* was
        sent to it) or ``None`` (unknown)."""

    def done(self, attempt: Attempt) -> None:
        """It is over: what its job has left there is of no use any more."""

    def forget(self, runs: Iterable[str]) -> None:
        """*runs* are over: likewise all that any job of them has left."""

    async def close(self) -> None:
        """Cut off what is being asked, and end the jobs that end with us."""

"""One batch that this worker has claimed: its job is started, watched, and what it reports is settled."""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from signal import SIGKILL
from typing import NamedTuple, TypeVar

from scrapy_distributed.agent.agent import Agent
from scrapy_distributed.agent.post_mortem import cause_of_death, last_error, lasting_fault
from scrapy_distributed.errors import LedgerUnavailableError, WireError
from scrapy_distributed.joining.bench import Bench
from scrapy_distributed.joining.own_job import OwnJob
from scrapy_distributed.joining.reach import Reach
from scrapy_distributed.joining.watch import Watch
from scrapy_distributed.ledger.rules import Objection, Settlement
from scrapy_distributed.ledger.states import Blame, Fate
from scrapy_distributed.password import without_passwords
from scrapy_distributed.shared.claims import Claimed, Claims, Wishes
from scrapy_distributed.shared.pace import Pace, seconds_of_work
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.wire.receipt import Receipt
from scrapy_distributed.words import counted

logger = logging.getLogger("scrapy_distributed.attempts")  # who reads a log knows of attempts, and not of this file
T = TypeVar("T")

BOUNDS = {"closespider_itemcount": "CLOSESPIDER_ITEMCOUNT", "closespider_errorcount": "CLOSESPIDER_ERRORCOUNT"}
MOST_FOUND = 1_000
FOUND_BYTES = 1024 * 1024
LOOK_SECONDS = 1.0
RENEWALS = 6  # in the length of a lease, at least
CLOSING_SECONDS = 30.0  # for a job that has written its final receipt, until its process is ended
RENEW_SECONDS = (0.2, 5.0)  # between two renewals, at least and at most: they tell what is wished as well


class Tools(NamedTuple):
    """What all batches of a worker have in common."""

    claims: Claims
    agent: Agent
    reach: Reach
    pace: Pace
    bench: Bench


class OneBatch:
    """That of *claimed*. *template*: what its job gets besides."""

    def __init__(self, claimed: Claimed, template: JobTemplate, tools: Tools) -> None:
        self.claimed = claimed
        self.template = template
        self.claims, self.agent, self.reach, self.pace, self.bench = tools
        self.job = OwnJob(self.agent, claimed.attempt)
        self.watch = Watch(time.monotonic(), stall=claimed.rules.stall_seconds)
        self._began = time.monotonic()
        self._receipt: Receipt | None = None  # the newest
        self._lost = False  # its lease
        self._unbegun = False  # it was ended before it had begun
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Returns when nothing more is to be done for it here."""
        keeper = asyncio.ensure_future(self._keep_lease())
        try:
            if not self._unbegun:
                self.job.start(self.template, self.claimed.payload, self.claims.server.address)
            receipt = await self._final()
            if self._lost:
                self._warn("its lease is lost: it was not renewed for too long, and its requests go out again")
            elif receipt is not None:
                await self._take_final(receipt)
            elif self._unbegun:
                await self._give_back("it was told to end before it had begun")
            else:
                await self._died()
        except LedgerUnavailableError as error:  # and its lease is lost
            self._warn(str(error))
        finally:
            keeper.cancel()
            await self._end_job()

    async def _end_job(self) -> None:
        """One that has written its final receipt is about to end."""
        late = time.monotonic() + (CLOSING_SECONDS if self._is_final else 0.0)
        while self.job.lives:
            if time.monotonic() >= late:
                self.job.end(SIGKILL)
            await self._for_news()
        self.job.over()

    # What it is told

    def news(self) -> None:
        """A job of this worker has started or ended."""
        self._news.set()

    def leave(self, *, kill_after: float = float("inf")) -> None:
        """This worker is to end, or the run is: the job reports what it has done, within *kill_after* seconds. One that
        has not begun ends at once."""
        self._look()
        if self.watch.begun:
            self.watch.dismiss(kill_after=kill_after)
        elif not self._is_final:
            self._unbegun = True
            self.job.end(SIGKILL)
        self._news.set()

    # While its job runs

    async def _final(self) -> Receipt | None:
        """Its final receipt; ``None`` where it ends without one, or the lease is lost."""
        while not self._lost:
            ended = not self.job.lives
            self._look()
            if self._is_final:
                return self._receipt
            if ended:
                break
            if signal := self.watch.signal_due(time.monotonic()):
                if self.watch.stalled(time.monotonic()):
                    seconds = self.watch.still_for(time.monotonic())
                    self._warn(f"its job has done nothing for {seconds:.0f} s (DISTRIBUTED_STALL): it is ended")
                self.job.end(signal)
            await self._for_news()
        return None

    async def _for_news(self) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._news.wait(), LOOK_SECONDS)
        self._news.clear()

    @property
    def _is_final(self) -> bool:
        return self._receipt is not None and self._receipt.final

    def _look(self) -> None:
        if (receipt := self.job.receipt()) is not None:
            self._receipt = receipt
            self.watch.reports(receipt, time.monotonic())

    async def _keep_lease(self) -> None:
        least, most = RENEW_SECONDS
        every = max(least, min(self.claimed.rules.lease_seconds / RENEWALS, most))
        while not self._lost:
            await asyncio.sleep(every)
            if self._is_final or not self.watch.stalled(time.monotonic()):
                wishes = await self.reach.insist(lambda: self.claims.renew(self.claimed, self._progress()))
                self._heed(wishes)

    def _heed(self, wishes: Wishes | None) -> None:
        if wishes is None:
            self._lost = True
        elif wishes.stopped and not self.watch.dismissed:
            self.leave()
        self._news.set()

    def _progress(self) -> dict[str, int]:
        receipt = self._receipt
        if receipt is None:
            return {}
        return {
            "sequence": receipt.sequence, "settled": receipt.settled.bit_count(), "items": receipt.items,
            "pages": receipt.pages,
        }  # fmt: skip

    # What comes of it

    async def _take_final(self, receipt: Receipt) -> None:
        """One of a job that has done nothing may be all that what has ended its process has left to be written."""
        nothing = not (receipt.activity or receipt.settled or self.watch.signalled)
        log = self.job.log_end() if nothing or not receipt.stored else None
        if nothing and lasting_fault(log, job=self.job.id, began=True):
            await self._reject(Objection(cause_of_death(log, began=True), Blame.NODE))
            return
        settlement = await self._insist(lambda: self._settle(receipt))
        if isinstance(settlement, Settlement):
            self._accepted(receipt, settlement)
            return
        reason, blame = settlement
        why = "" if receipt.stored else last_error(log)
        await self._reject(Objection(f"{reason}: {why}" if why else reason, blame))

    async def _settle(self, receipt: Receipt) -> Settlement | Objection:
        """What it brings goes up first; nothing of that counts before its receipt does."""
        unreadable, found, lines = None, 0, 0
        try:
            found = await self._stage_found(receipt)
            lines = await self._stage_items(receipt)
        except WireError as error:
            unreadable = Objection(str(error), Blame.NODE)
        ended = self.watch.dismissed and not self.watch.stalled(time.monotonic())
        return await self.claims.settle(
            self.claimed, receipt, found=found, lines=lines, again=again_elsewhere(self.claimed, receipt),
            counts=not ended, besides=unreadable, stops=stops_run(self.template, receipt),
        )  # fmt: skip

    async def _stage_found(self, receipt: Receipt) -> int:
        """Returns the number of parts; some are missing where it can't count any more, which the verdict tells. Raises
        ``WireError``."""
        parts = 0
        for entries in receipt.found_with_keys():
            for part in in_parts(entries):
                if not await self.claims.stage_found(self.claimed, parts, part):
                    return parts
                parts += 1
        return parts

    async def _stage_items(self, receipt: Receipt) -> int:
        """As ``_stage_found``."""
        parts = 0
        if self.template.settings.get("DISTRIBUTED_ITEMS") == "home":
            if receipt.items_file is None:
                raise WireError("its receipt tells of no items, which were to come home")
            for part in self.job.items(receipt.items_file):
                if not await self.claims.stage_items(self.claimed, parts, part):
                    return parts
                parts += 1
        return parts

    def _accepted(self, receipt: Receipt, settlement: Settlement) -> None:
        logger.info(
            "%s accepted (%s): %d of %s settled, %d failed, %s, in %.1f s", self, receipt.finish_reason,
            receipt.settled.bit_count(), counted(receipt.size, "request"), len(receipt.positions(receipt.failed)),
            counted(receipt.items, "item"), time.monotonic() - self._began,
        )  # fmt: skip
        self._tell(settlement.fate, receipt.finish_reason)
        self.pace.took(self.claimed.spider, receipt.settled.bit_count(), seconds_of_work(receipt))
        if (receipt.settled or not receipt.size) and self.bench.good():
            logger.info("This worker is well again: a job of it counts")

    async def _died(self) -> None:
        """It has ended without a final receipt. If it was at work, one of its requests may have killed it."""
        log = self.job.log_end()
        began, told = self.watch.sequence > 0, self.watch.signalled
        why = self.job.unreadable or f"no receipt: {cause_of_death(log, began=began, told=told)}"
        blame = Blame.NOBODY if self.watch.dismissed else Blame.BATCH if self.watch.begun else Blame.NODE
        # One that is alone may kill its job sooner, on any worker.
        await self._reject(Objection(why, blame), alone=self.claimed.attempt.size == 1)

    async def _reject(self, objection: Objection, *, alone: bool = False) -> None:
        reason, blame = objection
        # A worker whose jobs come to nothing is at fault itself, and not each batch that it has had.
        counts = blame is Blame.BATCH or (blame is Blame.NODE and (self.bench.well or alone))
        log = without_passwords(self.job.log_end() or "")
        fate = await self._insist(lambda: self.claims.reject(self.claimed, reason, counts=counts, log_tail=log))
        self._warn(f"rejected: {reason} (job {self.job.id})")
        if fate is not None:
            self._tell(fate, reason)
        if blame is Blame.NODE and self.bench.bad(reason, time.monotonic()):
            logger.warning(
                "The jobs of this worker come to nothing, the last one: %s; it takes nothing for %.0f s, and then one"
                " batch at a time until one counts", reason, self.bench.pause,
            )  # fmt: skip

    async def _give_back(self, reason: str) -> None:
        await self._insist(lambda: self.claims.give_back(self.claimed, reason))
        logger.info("%s given back: %s", self, reason)

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """What *call* returns; once the lease is lost it is tried no more."""
        return await self.reach.insist(call, unless=lambda: self._lost)

    def _tell(self, fate: Fate, reason: str) -> None:
        if fate is Fate.HALVED:
            self._warn("it has failed: its requests go out as two halves")
        elif fate is Fate.DEAD:
            self._warn(f"its attempts are used up, what is left is dead: {reason}")

    def _warn(self, words: str) -> None:
        logger.warning("%s: %s", self, words)

    def __str__(self) -> str:
        return f"Batch {self.claimed.attempt.label} of {self.claimed.spider} (run {self.claimed.run})"


def again_elsewhere(claimed: Claimed, receipt: Receipt) -> int:
    """The failed requests of *receipt* to be tried on another worker: bitmap of positions in its payload."""
    patterns = claimed.rules.retry_failed if claimed.others else ()
    return sum(
        1 << position
        for reason, positions in receipt.failed.items()
        if any(fnmatch.fnmatchcase(reason, pattern) for pattern in patterns)
        for position in positions
    )


def stops_run(template: JobTemplate, receipt: Receipt) -> str:
    """Why the run is to end with the job of *receipt*: it has reached a bound that is the limit of the run, or its
    spider has closed itself. '' if it is to go on."""
    name = BOUNDS.get(receipt.finish_reason)
    at_bound = name is not None and template.settings.get(name, "0") not in ("", "0")
    return receipt.finish_reason if at_bound or receipt.stats.get("distributed/closed_itself") else ""


def in_parts(entries: Sequence[tuple[bytes, str]]) -> Iterator[list[tuple[bytes, str]]]:
    """*entries* as they are staged: at most ``MOST_FOUND`` at once, and ``FOUND_BYTES``, or one."""
    part: list[tuple[bytes, str]] = []
    size = 0
    for entry in entries:
        if part and (len(part) == MOST_FOUND or size + len(entry[1]) > FOUND_BYTES):
            yield part
            part, size = [], 0
        part.append(entry)
        size += len(entry[1])
    if part:
        yield part

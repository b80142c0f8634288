"""Looks after the jobs of a run: asks for their receipts, ends what is not wanted, ends leases."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from scrapy import Spider
from scrapy.statscollectors import StatsCollector
from twisted.internet.defer import CancelledError

from scrapy_distributed.agent.post_mortem import cause_of_death, last_error, lasting_fault, was_told_to_end
from scrapy_distributed.config.config import Config
from scrapy_distributed.dispatch.eggs import Eggs
from scrapy_distributed.dispatch.flight import Flight, Signal
from scrapy_distributed.dispatch.judge import Judge
from scrapy_distributed.dispatch.leases import Leases
from scrapy_distributed.dispatch.members import Fleet, Member
from scrapy_distributed.errors import (
    LedgerUnavailableError,
    NodeError,
    NodeRefusedError,
    NodeUnreachableError,
    WireError,
)
from scrapy_distributed.fleet.pace import Told
from scrapy_distributed.fleet.trust import Proof
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.wire.receipt import Receipt

logger = logging.getLogger(__name__)
T = TypeVar("T")

GONE_SECONDS = 5.0  # a job that its node does not know any more may just be starting


class FlightOverError(Exception):
    """The flight that a node was asked about was over before it answered: by the answer to its POST, say."""


class Supervisor:
    """Asks the nodes what has become of the attempts under way there; *judge* is told, and *moved_on* called, where one
    has ended. Raises ``NodeError`` where that says something of the node, and not of one job."""

    def __init__(
        self, *, ledger: Ledger, fleet: Fleet, judge: Judge, config: Config, spider: Spider, stats: StatsCollector,
        clock: Any, moved_on: Callable[[], None],
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self.fleet = fleet
        self.judge = judge
        self.config = config
        self.stats = stats
        self.clock = clock
        self.moved_on = moved_on
        self.leases = Leases(config)
        self.eggs = Eggs(spider)
        self.version = ""  # of the egg of this run, '' without one
        self.stopped = False  # calls are cut off then
        self._extra = {"spider": spider}

    async def inspect(self, member: Member) -> None:
        """Each of its flights that may have news. One that can't be inspected is no reason to leave the others; three
        in a row are."""
        in_a_row = 0
        queue_stands = False
        for flight in list(member.flights.values()):
            if flight.over or not self.leases.may_have_news(member, flight, self._now(), queue_stands=queue_stands):
                continue
            flight.looked_at = self._now()
            try:
                with suppress(FlightOverError):
                    await self._inspect_one(member, flight)
                in_a_row = 0
            except NodeRefusedError as error:  # to one job: no sign of life, and nothing against the node
                if flight.refuses():
                    logger.warning("Job %s: %s", flight.job, error, extra=self._extra)
            except NodeError as error:
                in_a_row += 1
                if self.stopped or isinstance(error, NodeUnreachableError) or in_a_row == 3:
                    raise
            except (CancelledError, LedgerUnavailableError):
                raise
            except Exception:
                logger.exception("Looking after job %s failed", flight.job, extra=self._extra)
            self.end_lease(member, flight)
            queue_stands = queue_stands or (flight.pending and flight.waiting and not flight.over)

    async def _inspect_one(self, member: Member, flight: Flight) -> None:
        """Raises ``FlightOverError`` where it is over before its node has answered."""
        if not await self._ended_by_us(member, flight) and not await self._take_receipt(member, flight):
            await self._ask(member, flight)

    async def _answer(self, flight: Flight, question: Awaitable[T]) -> T:
        """What its node answers. Raises ``FlightOverError``: then that concerns nobody any more."""
        answer = await question
        if flight.over:
            raise FlightOverError
        return answer

    async def _ask(self, member: Member, flight: Flight) -> None:
        if not self.leases.node_is_to_be_asked(member, flight, self._now()):
            return
        state = await self._answer(flight, member.carrier.state(flight.attempt))
        if state is not None:
            self.arrived(flight)
        if state == "pending":
            flight.queues(self._now())
        elif state == "running":
            self._runs(member, flight)
        else:
            is_gone = state is None and flight.is_gone(self._now(), seconds=GONE_SECONDS)
            flight.left_the_queue()
            if flight.fenced:
                member.forget(flight)
            elif is_gone and flight.counts:
                self.judge.lost(member, flight, f"it was taken out of the queue of {member.name}", self._now())
                self.moved_on()
            elif state == "finished" and not await self._take_receipt(member, flight, ended=True):
                await self._died(member, flight)
                self.moved_on()

    async def _died(self, member: Member, flight: Flight) -> None:
        log = await self._log_end(member, flight)
        began, told = flight.sequence > 0, flight.signalled_at is not None
        lacking = "" if began or told else await self._lacking(member, flight)
        why = f"no receipt: {cause_of_death(log, began=began, told=told, lacking=lacking)}"
        fault = "" if told else lasting_fault(log, job=flight.job, began=began)
        cancelled = flight.inherited and was_told_to_end(log)
        self.judge.died(member, flight, why, self._now(), fault=fault, cancelled=cancelled)

    async def _lacking(self, member: Member, flight: Flight) -> str:
        """What its node lacks by now to run it: a version that was deleted, say. '' if nothing, or it does not tell."""
        try:
            await self._answer(flight, member.carrier.admit(self.version))
        except NodeRefusedError as error:
            return str(error).removeprefix(f"{member.name}: ")
        except NodeError:
            pass
        return ""

    async def _log_end(self, member: Member, flight: Flight) -> str | None:
        return await self._answer(flight, member.carrier.log_end(flight.attempt))

    async def _take_receipt(self, member: Member, flight: Flight, *, ended: bool = False) -> bool:
        """Fetch the receipt. Returns whether that settles the matter for now: it is final, or a sign of life."""
        data = await self._answer(flight, member.carrier.receipt(flight.attempt))
        if data is None:
            return False
        try:
            receipt = Receipt.from_json(data, size=flight.attempt.size)
            if receipt.job != flight.job:
                raise WireError(f"it is of job {receipt.job!r}")
        except WireError as error:
            if flight.confuses():
                logger.warning("%s: receipt of job %s: %s", member.name, flight.job, error, extra=self._extra)
            return False
        if self.fleet.learns(member, told := Told(receipt.slots, receipt.poll_seconds)):
            self.ledger.bookings.keep_told(member.carrier.url, told.slots, told.poll)
        self.eggs.compare(member.name, receipt.egg)
        if receipt.final:
            await self._take_final(member, flight, receipt)
            self.moved_on()
            return True
        started_in = self._now() - flight.evidence if flight.starting else None
        if not flight.reports(receipt):
            return False
        if started_in is not None:
            self.leases.starts.took(started_in)
        if ended:
            return False
        self.arrived(flight)
        self._runs(member, flight)
        return self._is_active(flight, receipt)

    async def _take_final(self, member: Member, flight: Flight, receipt: Receipt) -> None:
        """One of a job that has done nothing may be all that what has ended its process has left to be written."""
        nothing = not (receipt.activity or receipt.settled) and flight.counts and flight.signalled_at is None
        log = await self._log_end(member, flight) if nothing or not receipt.stored else None
        if nothing and (fault := lasting_fault(log, job=flight.job, began=True)):
            self.judge.died(member, flight, cause_of_death(log, began=True), self._now(), fault=fault)
        else:
            why = "" if receipt.stored else last_error(log)
            await self.judge.final(member, flight, receipt, self._now(), why)

    def _is_active(self, flight: Flight, receipt: Receipt) -> bool:
        now = self._now()
        is_active = flight.acts(receipt, now, stall=self.config.stall)
        if not is_active and flight.signalled_at is None:
            logger.warning(
                "Job %s has done nothing for %d s (DISTRIBUTED_STALL): it is ended, and sent again",
                flight.job, now - flight.active_at, extra=self._extra,
            )  # fmt: skip
        return is_active

    def _runs(self, member: Member, flight: Flight) -> None:
        # Of a job that had started before nothing follows: a Scrapyd that was restarted leaves such jobs alone.
        self.judge.worked(member, Proof.STARTS if flight.runs(self._now()) else Proof.TAKES)

    # Ending jobs

    async def _ended_by_us(self, member: Member, flight: Flight) -> bool:
        """End a job that is not wanted. Returns whether that was all."""
        signal = flight.signal_due(self._now())
        if signal is not None:
            return await self._cancel(member, flight, signal)
        # In doubt only the job that is to prove it may wait there.
        in_doubt = member.trust.doubt and member.trust.needs >= Proof.STARTS
        return bool(in_doubt and flight.waiting and not flight.trial) and await self.take_back(member, flight)

    async def _cancel(self, member: Member, flight: Flight, signal: Signal = Signal.INT) -> bool:
        flight.signalled(signal, self._now())
        try:
            before = await self._answer(flight, member.carrier.cancel(flight.attempt, signal))
        except (NodeUnreachableError, NodeRefusedError):
            flight.unsignalled()
            raise
        if before == "running":
            self._runs(member, flight)
            return False
        if flight.fenced:
            member.forget(flight)
        elif before == "pending":
            self.stats.inc_value("distributed/attempts/taken_back")
            self.judge.unsent(member, flight, "taken back before it ran")
        return flight.over

    def arrived(self, flight: Flight) -> None:
        if flight.arrived():
            self.ledger.bookings.sent(flight.attempt)

    async def take_back(self, member: Member, flight: Flight) -> bool:
        """Take a job back, if it waits still. Returns whether that was so."""
        if await self._answer(flight, member.carrier.state(flight.attempt)) != "pending":
            return False
        return await self._cancel(member, flight)

    def end_lease(self, member: Member, flight: Flight) -> None:
        if flight.over or not flight.counts:
            return
        leases, now = self.leases, self._now()
        silent, age = now - flight.evidence, now - flight.sent_at
        if leases.is_over(member, flight, now):
            self.judge.lost(member, flight, f"no sign of life on {member.name} for {silent:.0f} s", now)
            if leases.lengthen(member, flight, now):
                logger.info("Jobs get %.0f s to start from now on", leases.starts.seconds, extra=self._extra)
        elif leases.is_too_old(flight, now):
            reason = f"not over on {member.name} after {age:.0f} s (DISTRIBUTED_MAX_JOB_SECONDS)"
            self.judge.lost(member, flight, reason, now)
        elif not flight.old and leases.is_strange(member, flight, now):
            flight.old = True
            logger.warning(
                "Job %s is %s on %s for %d s, %s: see what its node does. DISTRIBUTED_MAX_JOB_SECONDS ends such jobs",
                flight.job, "running" if flight.started else "pending", member.name, age,
                f"while {flight.overtaken} that it got later are over" if flight.overtaken else "and no other of ours"
                " runs there", extra=self._extra,
            )  # fmt: skip

    def _now(self) -> float:
        return float(self.clock.seconds())

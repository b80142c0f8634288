"""Policy: send a batch, look after its job, take its receipt, send again what is not settled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from scrapy import Spider
from scrapy.statscollectors import StatsCollector
from scrapy.utils.log import failure_to_exc_info
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from scrapy_distributed.batch import Attempt, AttemptState
from scrapy_distributed.config import Config
from scrapy_distributed.errors import NodeAmbiguousError, NodeError, NodeRefusedError, WireError
from scrapy_distributed.health import Fleet, Flight, Member
from scrapy_distributed.job import check_job
from scrapy_distributed.ledger import Ledger
from scrapy_distributed.receipt import Receipt
from scrapy_distributed.wire import START_URL

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JobTemplate:
    """What every job of a run gets besides its batch. Raises ``ConfigError`` for what can't travel."""

    project: str
    spider: str
    version: str
    settings: Mapping[str, str]
    args: Mapping[str, str]

    def __post_init__(self) -> None:
        check_job("job", self.settings, self.args)

    def settings_of(self, payload: str) -> dict[str, str]:
        return {**self.settings, START_URL: payload}

    def args_of(self, attempt: Attempt) -> dict[str, str]:
        return {**self.args, "batch": attempt.label}


class Dispatcher:
    """Sends the ready batches of *ledger* to the members of *fleet* and brings home what becomes of them.

    *changed* is called whenever a batch has been taken by a node or settled, *stranded* once if no node could be used
    for ``fleet_timeout`` seconds.
    """

    def __init__(
        self, *, ledger: Ledger, fleet: Fleet, job: JobTemplate, config: Config, spider: Spider, stats: StatsCollector,
        clock: IReactorTime, changed: Callable[[], None], stranded: Callable[[], None],
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self.fleet = fleet
        self.job = job
        self.config = config
        self.stats = stats
        self.clock: Any = clock
        self.changed = changed
        self.stranded = stranded
        self._extra = {"spider": spider}
        self._closing = False
        self._posting = 0
        self._usable_at = self._now()
        self._watches: list[Deferred[None]] = []

    def start(self) -> None:
        """Look after the attempts that an earlier coordinator left under way, and send what is ready."""
        for attempt in self.ledger.live():
            member = self.fleet.by_name(attempt.node)
            if member is None:
                self.ledger.lose(
                    attempt, f"its node {attempt.node} is no longer in DISTRIBUTED_TARGET_HOSTS", counts=False,
                    max_attempts=self.config.max_attempts,
                )  # fmt: skip
                continue
            lost = attempt.state is AttemptState.UNKNOWN
            member.flights[attempt.job] = Flight(attempt=attempt, evidence=self._now(), lost=lost)
        for member in self.fleet.members:
            self._watches.append(self._spawn(self._watch(member)))
        self.send_ready()

    def send_ready(self) -> None:
        """Give ready batches to nodes with room, in strict round robin where all have room."""
        while not self._closing:
            # A batch that should not go back to its last node does not hold up those behind it.
            turns = ((batch, self.fleet.take_turn(avoid=last_node)) for batch, last_node in self.ledger.ready())
            batch, member = next(((batch, member) for batch, member in turns if member is not None), (0, None))
            if member is None:
                return
            attempt, payload = self.ledger.bind(batch, member.name)  # row before POST
            flight = member.flights[attempt.job] = Flight(attempt=attempt, evidence=self._now())
            self.stats.inc_value("distributed/attempts")
            self.stats.inc_value(f"distributed/attempts/{member.name}")
            self._posting += 1
            self._spawn(self._send(member, flight, payload))

    async def drain(self, seconds: float) -> None:
        """Send what is ready, as far as nodes answer, for at most *seconds*; then look no more."""
        deadline = self._now() + seconds
        self.send_ready()
        while self._now() < deadline and (
            self._posting or (not self.ledger.posted() and any(member.has_room for member in self.fleet.members))
        ):
            await self._sleep(0.05)
            self.send_ready()
        self._closing = True
        for watch in self._watches:
            watch.cancel()
        await DeferredList(self._watches)
        for member in self.fleet.members:
            await member.node.close()

    # Sending

    async def _send(self, member: Member, flight: Flight, payload: str) -> None:
        attempt = flight.attempt
        try:
            await member.node.schedule(
                self.job.project, self.job.spider, jobid=attempt.job, version=self.job.version or None,
                settings=self.job.settings_of(payload), args=self.job.args_of(attempt),
            )  # fmt: skip
        except NodeAmbiguousError as error:
            self._fail(member, error)
            flight.evidence = self._now()  # it may have it, or get it late: nothing else is sent until the lease ends
        except NodeError as error:
            self._fail(member, error)
            if attempt.job in member.flights:
                self.ledger.unsent(attempt, str(error))
                del member.flights[attempt.job]
        else:
            if member.worked():
                logger.info("%s: is used again", member.name, extra=self._extra)
            if attempt.job in member.flights:  # else its receipt was here before the answer
                flight.evidence = self._now()
                self._confirm(flight)
        finally:
            self._posting -= 1
        self.send_ready()
        self.changed()

    def _confirm(self, flight: Flight) -> None:
        if not flight.confirmed:
            flight.confirmed = True
            if not (flight.lost or flight.fenced):
                self.ledger.sent(flight.attempt)

    # Looking after

    async def _watch(self, member: Member) -> None:
        while not self._closing:
            try:
                await self._look(member)
            except CancelledError:
                return
            except Exception:
                logger.exception("%s: looking after its jobs failed, trying again", member.name, extra=self._extra)
            await self._sleep(self.config.poll_interval)

    async def _look(self, member: Member) -> None:
        if not member.silent or self._now() >= member.again_at:
            try:
                member.seen(await member.node.daemonstatus())
                member.recover(self._now())
                await self._inspect_all(member)
            except NodeError as error:
                if self._closing:  # we have cut the line ourselves
                    return
                member.silent = True
                self._fail(member, error)
        self._end_leases(member)
        self._check_usable()
        self.send_ready()

    async def _inspect_all(self, member: Member) -> None:
        """Each of its flights, although the node may say no to one of them."""
        refused: NodeRefusedError | None = None
        for flight in list(member.flights.values()):
            try:
                await self._inspect(member, flight)
            except NodeRefusedError as error:
                refused = error
        if refused is not None:
            raise refused

    async def _inspect(self, member: Member, flight: Flight) -> None:
        attempt = flight.attempt
        if (flight.lost or flight.fenced) and not flight.cancelled:
            before = await member.node.cancel(self.job.project, attempt.job)
            flight.cancelled = True
            if before == "pending" or flight.fenced:
                del member.flights[attempt.job]
                if not flight.fenced:
                    self.ledger.unsent(attempt, "taken back before it ran")
                return
        if await self._take_receipt(member, flight) or not self._wants_status(member, flight):
            return
        state = await member.node.status(attempt.job, self.job.project)
        if state is not None:
            self._confirm(flight)
        if state == "pending":
            flight.evidence = self._now()
        elif state == "running":
            flight.started = True  # no evidence: only a growing receipt is
        elif state == "finished" and not await self._take_receipt(member, flight, ended=True):
            await self._ended_without_receipt(member, flight)

    def _wants_status(self, member: Member, flight: Flight) -> bool:
        """``status.json`` unpacks a node's whole queue, so it is asked where a receipt can't tell, and not always."""
        silent = self._now() - flight.evidence
        patience = min(self.config.lease / 4, 5 * self.config.poll_interval)
        return member.moved or not flight.confirmed or silent > patience

    async def _take_receipt(self, member: Member, flight: Flight, *, ended: bool = False) -> bool:
        """Fetch the receipt. Returns whether that settles the matter for now: it is final, or it has grown."""
        attempt = flight.attempt
        data = await member.node.receipt(self.job.project, self.job.spider, attempt.job)
        if data is None:
            return False
        try:
            receipt = Receipt.from_json(data)
            if receipt.job != attempt.job:
                raise WireError(f"it is of job {receipt.job!r}")
        except WireError as error:
            logger.warning("%s: receipt of job %s: %s", member.name, attempt.job, error, extra=self._extra)
            return False
        if receipt.final:
            self._settle(member, flight, receipt)
            return True
        if receipt.sequence <= flight.sequence or ended:
            return False
        self._confirm(flight)
        flight.sequence, flight.started, flight.evidence = receipt.sequence, True, self._now()
        flight.progress = receipt.settled.bit_count()
        return True

    async def _ended_without_receipt(self, member: Member, flight: Flight) -> None:
        attempt = flight.attempt
        log = await member.node.log_tail(self.job.project, self.job.spider, attempt.job)
        if attempt.job not in member.flights:  # settled meanwhile
            return
        why = cause_of_death(log)
        logger.error("%s: job %s ended without a receipt. %s", member.name, attempt.job, why, extra=self._extra)
        settled = self.ledger.reject(attempt, f"no receipt: {why}", max_attempts=self.config.max_attempts)
        del member.flights[attempt.job]
        self.stats.inc_value("distributed/attempts/rejected")
        self._after(attempt, settled)

    def _settle(self, member: Member, flight: Flight, receipt: Receipt) -> None:
        attempt = flight.attempt
        if attempt.job not in member.flights:
            return
        if flight.fenced:
            del member.flights[attempt.job]
            return
        settlement = self.ledger.settle(attempt, receipt, max_attempts=self.config.max_attempts)
        del member.flights[attempt.job]  # not before: what the ledger could not write is tried again
        verdict = "accepted" if settlement.accepted else "rejected"
        self.stats.inc_value(f"distributed/attempts/{verdict}")
        log = logger.info if settlement.accepted else logger.warning
        log(
            "Batch %s from %s %s (%s): %d of %d requests settled, %d failed, %d items",
            attempt.label, member.name, verdict, settlement.reason, receipt.settled.bit_count(), receipt.size,
            len(receipt.positions(receipt.failed)), receipt.items, extra=self._extra,
        )  # fmt: skip
        if settlement.accepted and receipt.unexported:
            self.stats.inc_value("distributed/items_unexported", receipt.unexported)
            logger.warning(
                "Batch %s from %s: %d items are not in its feed, the log of job %s on the node tells why",
                attempt.label, member.name, receipt.unexported, attempt.job, extra=self._extra,
            )  # fmt: skip
        self._after(attempt, settlement.batch_settled)

    def _after(self, attempt: Attempt, batch_settled: bool) -> None:
        """An attempt has ended. What else runs for a settled batch is fenced: whatever it reports can't count."""
        if batch_settled:
            for _, flight in self.fleet.flights():
                if flight.attempt.batch == attempt.batch and not flight.fenced:
                    flight.fenced = True
                    reason = "another attempt was accepted first"
                    self.ledger.reject(flight.attempt, reason, max_attempts=self.config.max_attempts)
        self.send_ready()
        self.changed()

    def _end_leases(self, member: Member) -> None:
        now = self._now()
        for flight in list(member.flights.values()):
            if flight.lost or flight.fenced or now - flight.evidence < self.config.lease:
                continue
            reason = f"no sign of life on {member.name} for {now - flight.evidence:.0f} s"
            logger.warning(
                "Batch %s: %s; its requests are to go out again", flight.attempt.label, reason, extra=self._extra
            )
            self.stats.inc_value("distributed/attempts/lost")
            settled = self.ledger.lose(
                flight.attempt,
                reason,
                counts=flight.started and not flight.progress,
                max_attempts=self.config.max_attempts,
            )
            flight.lost = True
            flight.attempt = replace(flight.attempt, state=AttemptState.UNKNOWN)
            self._after(flight.attempt, settled)

    # Nodes that fail

    def node_failed(self, error: NodeError) -> None:
        """Use the node of *error* no more until it works again."""
        member = self.fleet.by_name(error.node)
        if member is not None:
            member.silent = True
            self._fail(member, error)

    def _fail(self, member: Member, error: NodeError) -> None:
        if self._closing:  # calls are cut off then
            return
        self.stats.inc_value(f"distributed/node_errors/{member.name}")
        if member.fail(str(error), self._now()):
            logger.warning("%s; it gets no batches until it works again", error, extra=self._extra)

    def _check_usable(self) -> None:
        now = self._now()
        # To answer is not enough where batches wait: a member that has failed must have a job of ours, or take one.
        waiting = not self.ledger.posted()
        if any(member.usable(waiting=waiting) for member in self.fleet.members):
            self._usable_at = now
        elif now - self._usable_at >= self.config.fleet_timeout:
            self._usable_at = now
            self.stranded()

    # Time

    def _now(self) -> float:
        return float(self.clock.seconds())

    async def _sleep(self, seconds: float) -> None:
        await deferLater(self.clock, seconds)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> Deferred[None]:
        deferred = Deferred.fromCoroutine(coroutine)
        deferred.addErrback(self._failed)
        return deferred

    def _failed(self, failure: Failure) -> None:
        if not self._closing:
            error = failure_to_exc_info(failure)
            logger.error("Dispatch failed; the ledger keeps what it was about", exc_info=error, extra=self._extra)


def cause_of_death(log: str | None) -> str:
    """Why a job has ended without a receipt, from the tail of its *log* (``None``: it has none)."""
    if log is None:
        return (
            "It has no log either, so it died at its start: most often scrapy_distributed, or something else that the"
            " project imports, is not installed on the node. The output of Scrapyd itself tells"
        )
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    raised = [line for line in lines if line.partition(":")[0].rpartition(".")[2].endswith(("Error", "Exception"))]
    if not raised:
        return (
            f"The end of its log: {(lines or ['(empty)'])[-1][:500]}. If that is no error, see that scrapy_distributed"
            " is activated in the project (ADDONS)"
        )
    logged = [line.partition(" ERROR: ")[2] for line in lines if " ERROR: " in line and "Traceback" not in line]
    hint = " (its __init__ must take **kwargs)" if "unexpected keyword argument" in raised[-1] else ""
    before = f", after {logged[-1][:300]}" if logged and logged[-1] not in raised[-1] else ""
    return f"Its log says: {raised[-1][:500]}{hint}{before}"

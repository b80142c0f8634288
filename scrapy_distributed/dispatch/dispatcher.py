"""Policy: send a batch, look after its job, take its receipt, send again what is not settled."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from scrapy import Spider
from scrapy.statscollectors import StatsCollector
from scrapy.utils.log import failure_to_exc_info
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from scrapy_distributed.config.config import Config
from scrapy_distributed.dispatch.job_template import JobTemplate
from scrapy_distributed.dispatch.judge import Judge
from scrapy_distributed.dispatch.members import Fleet, Flight, Member, Proof, Starts
from scrapy_distributed.errors import (
    LedgerUnavailableError,
    NodeAmbiguousError,
    NodeError,
    NodeRefusedError,
    NodeUnreachableError,
    WireError,
)
from scrapy_distributed.fleet.node import Node
from scrapy_distributed.fleet.post_mortem import cause_of_death, last_error
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import AttemptState
from scrapy_distributed.wire.receipt import Receipt

logger = logging.getLogger(__name__)

KILL_AFTER = 30.0  # seconds between INT and KILL for a job that is to end
LOOKS = 200  # at most so many looks a second at the whole fleet: one costs half a millisecond of CPU
LAST_LOOKS = 20  # and so many while it is at work on the last batches
OLD_LEASES = 10  # for so many leases nobody wonders about a job that its node says it has
OVERTAKEN = 10  # jobs that came later and are over
PASSED_LEASES = 10  # for so many leases a node that gave a job away gets none back, unless something moves there


class Dispatcher:
    """Sends the ready batches of *ledger* to the members of *fleet* and brings home what becomes of them.

    *admit* checks a node that failed the preflight again (raises ``NodeError``). *all_cut* tells whether no more
    batches are to be expected but for what workers find. *changed* is called whenever a batch
    has been taken by a node or an attempt has ended, *stranded* once if no node could be used for ``fleet_timeout``
    seconds, *ledger_failed* if the ledger can't be written.
    """

    def __init__(
        self, *, ledger: Ledger, fleet: Fleet, judge: Judge, config: Config, spider: Spider,
        stats: StatsCollector, clock: IReactorTime, admit: Callable[[Node], Awaitable[None]],
        all_cut: Callable[[], bool], changed: Callable[[], None], stranded: Callable[[], None],
        ledger_failed: Callable[[LedgerUnavailableError], None],
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self.fleet = fleet
        self.judge = judge
        self.job: JobTemplate  # from the start on
        self.started = False
        self.config = config
        self.stats = stats
        self.clock: Any = clock
        self.admit = admit
        self.all_cut = all_cut
        self.changed = changed
        self.stranded = stranded
        self.ledger_failed = ledger_failed
        self._extra = {"spider": spider}
        self._closing = False
        self._posting = 0
        self._patience = min(config.lease / 4, 5 * config.poll_interval)  # seconds a job is left alone without news
        self._starts = Starts(config.lease)
        self._usable_at = 0.0
        self._watches: list[Deferred[None]] = []

    def start(self, job: JobTemplate) -> None:
        """Look after the attempts that an earlier coordinator left under way, and send what is ready, as *job* says."""
        self.job, self.started = job, True
        now = self._usable_at = self._now()
        for attempt in self.ledger.bookings.live():
            member = self.fleet.by_url(attempt.url)
            if member is None:
                reason = f"its node {attempt.node} ({attempt.url}) is no longer in DISTRIBUTED_TARGET_HOSTS"
                self.ledger.verdicts.lose(attempt, reason, counts=False, max_attempts=self.config.max_attempts)
                continue
            lost = attempt.state is AttemptState.UNKNOWN
            member.flights[attempt.job] = Flight(attempt=attempt, sent_at=now, evidence=now, lost=lost)
        for member in self.fleet.members:
            member.still_since = now
            self._watches.append(self._spawn(self._watch(member)))
        self.send_ready()

    def send_ready(self) -> None:
        """Give ready batches to nodes with room, in strict round robin where all have room."""
        while not self._closing:
            # A batch that should not go back to its last node does not hold up those behind it.
            turns = (
                (batch, self.fleet.take_turn(avoid=last_node)) for batch, last_node in self.ledger.bookings.ready()
            )
            batch, member = next(((batch, member) for batch, member in turns if member is not None), (0, None))
            if member is None:
                return
            attempt, payload = self.ledger.bookings.bind(batch, member.name, member.node.address.url)  # row before POST
            now = self._now()
            flight = Flight(attempt=attempt, sent_at=now, evidence=now, trial=member.pause > 0)
            member.flights[attempt.job] = flight
            self.stats.inc_value("distributed/attempts")
            self.stats.inc_value(f"distributed/attempts/{member.name}")
            self._posting += 1
            self._spawn(self._send(member, flight, payload))

    @property
    def idle(self) -> bool:
        """Whether a node has nothing to do."""
        return any(member.idle_slots or (member.pause and member.has_room) for member in self.fleet.members)

    async def drain(self, seconds: float) -> None:
        """Send what is ready, as far as nodes answer, for at most *seconds*; then look no more."""
        deadline = self._now() + seconds
        try:
            self.send_ready()
            while self._now() < deadline and (
                self._posting
                or (self.ledger.bookings.ready() and any(member.has_room for member in self.fleet.members))
            ):
                await self._sleep(0.05)
                self.send_ready()
            if self.ledger.account.settled():
                await self._end_the_rest(deadline)
        finally:
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
                settings=self.job.settings_of(payload, attempt.token), args=self.job.args_of(attempt),
            )  # fmt: skip
        except NodeAmbiguousError as error:
            self._fail(member, error)
            flight.evidence = self._now()  # it may have it, or get it late: nothing else is sent until the lease ends
        except NodeError as error:
            self._fail(member, error)
            if attempt.job in member.flights:
                self.judge.unsent(member, flight, str(error))
        else:
            member.taken += 1
            self.judge.worked(member, Proof.TAKES)
            if attempt.job in member.flights:  # else its receipt was here before the answer
                flight.evidence = self._now()
                self._confirm(flight)
        finally:
            self._posting -= 1
        self._moved_on()

    def _confirm(self, flight: Flight) -> None:
        if not flight.confirmed:
            flight.confirmed = True
            if not (flight.lost or flight.fenced):
                self.ledger.bookings.sent(flight.attempt)

    # Looking after

    async def _watch(self, member: Member) -> None:
        while not self._closing:
            try:
                await self._look(member)
            except CancelledError:
                return
            except LedgerUnavailableError as error:
                self.ledger_failed(error)
                return
            except Exception:
                logger.exception("%s: looking after its jobs failed, trying again", member.name, extra=self._extra)
            await self._sleep(self._pause())

    def _pause(self) -> float:
        """Seconds until the next look. The last batches are over when we see it, and idle slots wait for it."""
        members = len(self.fleet.members)
        usual = max(self.config.poll_interval, min(members / LOOKS, self.config.lease / 4))
        return usual if self.ledger.bookings.ready() or not self.all_cut() else min(usual, members / LAST_LOOKS)

    async def _look(self, member: Member) -> None:
        if not member.silent or self._now() >= member.again_at:
            try:
                status = await member.node.daemonstatus()
                member.seen(status, self._now())
                if member.unchecked:
                    await self.admit(member.node)
                    member.unchecked = False
                member.recover(self._now())
                self._check_wedged(member)
                await self._inspect_all(member)
                await self._take_back(member)
            except NodeError as error:
                if self._closing:  # we have cut the line ourselves
                    return
                member.silent = True
                self._fail(member, error)
        if member.silent:
            for flight in list(member.flights.values()):
                self._end_lease(member, flight)
        self._check_usable()
        self._moved_on()

    async def _inspect_all(self, member: Member) -> None:
        """Each of its flights that may have news. One that can't be inspected is no reason to leave the others; three
        in a row are."""
        in_a_row = 0
        queue_stands = False
        for flight in list(member.flights.values()):
            if not self._may_have_news(member, flight, queue_stands=queue_stands):
                continue
            flight.looked_at = self._now()
            try:
                await self._inspect(member, flight)
                in_a_row = 0
            except NodeRefusedError as error:  # to one job: no sign of life, and nothing against the node
                if not flight.refused:
                    flight.refused = True
                    logger.warning("Job %s: %s", flight.attempt.job, error, extra=self._extra)
            except NodeError as error:
                in_a_row += 1
                if self._closing or isinstance(error, NodeUnreachableError) or in_a_row == 3:
                    raise
            except (CancelledError, LedgerUnavailableError):
                raise
            except Exception:
                logger.exception("Looking after job %s failed", flight.attempt.job, extra=self._extra)
            self._end_lease(member, flight)
            stands = flight.pending and flight.waiting and flight.attempt.job in member.flights
            queue_stands = queue_stands or stands

    def _may_have_news(self, member: Member, flight: Flight, *, queue_stands: bool) -> bool:
        """Where nothing has started or ended only heartbeats are due, and these only now and then. A node starts jobs
        in the order in which it got them, so those behind one that waits wait as well."""
        now = self._now()
        ago = now - flight.looked_at
        # No lease ends without a question. A clock that was set back makes it less than 0.
        if not 0 <= ago < self._patience or now - flight.evidence >= self.config.lease:
            return True
        if flight.unreadable > 1:  # a forged one may cost much, each time
            return False
        urgent = member.pause or flight.lost or flight.fenced or flight.stalled or not flight.confirmed
        if urgent and ago >= self.config.poll_interval:  # also where looks are close together
            return True
        return member.moved and not (queue_stands and flight.waiting)

    async def _inspect(self, member: Member, flight: Flight) -> None:
        if not await self._ended_by_us(member, flight) and not await self._take_receipt(member, flight):
            await self._ask(member, flight)

    async def _ask(self, member: Member, flight: Flight) -> None:
        """``status.json`` unpacks a node's whole queue, so it is asked where a receipt can't tell, and not always."""
        attempt = flight.attempt
        silent = self._now() - flight.evidence
        if not (member.moved or not flight.confirmed or silent > self._patience or flight.fenced or flight.stalled):
            return
        state = await member.node.status(attempt.job, self.job.project)
        flight.pending = state == "pending"
        if state is not None:
            self._confirm(flight)
        if flight.fenced and state in (None, "finished"):
            member.flights.pop(attempt.job, None)
        elif state == "pending":
            flight.evidence = self._now()
            flight.signalled_at, flight.killed = None, False  # it has come late: it is to be taken back, if it was
        elif state == "running":
            self._started(member, flight)
        elif state == "finished" and not await self._take_receipt(member, flight, ended=True):
            log = await self._log(member, flight)
            if attempt.job in member.flights:  # else it was settled meanwhile
                told = flight.signalled_at is not None
                why = cause_of_death(log, began=flight.sequence > 0, told=told)
                self.judge.died(member, flight, why, self._now())
                self._moved_on()

    async def _take_receipt(self, member: Member, flight: Flight, *, ended: bool = False) -> bool:
        """Fetch the receipt. Returns whether that settles the matter for now: it is final, or a sign of life."""
        attempt = flight.attempt
        data = await member.node.receipt(self.job.project, self.job.spider, attempt.job)
        if data is None or attempt.job not in member.flights:
            return attempt.job not in member.flights
        try:
            receipt = Receipt.from_json(data, size=attempt.size)
            if receipt.job != attempt.job:
                raise WireError(f"it is of job {receipt.job!r}")
        except WireError as error:
            flight.unreadable += 1
            # One may come cut: Twisted's File takes the size before it opens what the worker has replaced meanwhile.
            if flight.unreadable == 2:
                logger.warning("%s: receipt of job %s: %s", member.name, attempt.job, error, extra=self._extra)
            return False
        if receipt.final:
            why = "" if receipt.stored else await self._why_not_stored(member, flight)
            if attempt.job in member.flights:
                await self.judge.final(member, flight, receipt, self._now(), why)
            self._moved_on()
            return True
        if receipt.sequence <= flight.sequence:
            return False
        if flight.starting:
            self._starts.took(self._now() - flight.evidence)
        flight.sequence, flight.at_work = receipt.sequence, receipt.activity > 0
        if ended:
            return False
        self._confirm(flight)
        self._started(member, flight)
        return self._is_active(flight, receipt)

    async def _why_not_stored(self, member: Member, flight: Flight) -> str:
        return last_error(await self._log(member, flight))

    async def _log(self, member: Member, flight: Flight) -> str | None:
        """The end of the job's log, long enough for a traceback and what stands before it."""
        return await member.node.log_tail(self.job.project, self.job.spider, flight.attempt.job, max_bytes=20_000)

    def _is_active(self, flight: Flight, receipt: Receipt) -> bool:
        """A receipt is a sign of life while what the worker has done grows."""
        now = self._now()
        activity = receipt.activity + bool(receipt.finish_reason)  # when it stores its feed the time begins anew
        if activity > flight.activity:
            flight.activity, flight.active_at = activity, now
        flight.stalled = now - flight.active_at >= self.config.stall
        if not flight.stalled:
            flight.evidence = now
        elif flight.signalled_at is None:
            logger.warning(
                "Job %s has done nothing for %d s (DISTRIBUTED_STALL): it is ended, and sent again",
                flight.attempt.job, now - flight.active_at, extra=self._extra,
            )  # fmt: skip
        return not flight.stalled

    def _started(self, member: Member, flight: Flight) -> None:
        # Of a job that had started before nothing follows: a Scrapyd that was restarted leaves such jobs alone.
        proof = Proof.TAKES if flight.started else Proof.STARTS
        if not flight.started:  # to have started is a sign of life, to run is none
            flight.evidence = self._now()
        flight.started, flight.pending = True, False
        self.judge.worked(member, proof)

    # Ending jobs

    async def _ended_by_us(self, member: Member, flight: Flight) -> bool:
        """End a job that is not wanted: INT, so that it can report what it has done, then KILL. Returns whether that
        was all."""
        if not (flight.lost or flight.fenced or flight.stalled):
            # In doubt only the job that is to prove it may wait there.
            in_doubt = member.pause and member.needs >= Proof.STARTS
            return bool(in_doubt and flight.waiting and not flight.trial) and await self._back(member, flight)
        now = self._now()
        if flight.killed or (flight.signalled_at is not None and now - flight.signalled_at < KILL_AFTER):
            return False
        return await self._cancel(member, flight, "KILL" if flight.signalled_at is not None else None)

    async def _cancel(self, member: Member, flight: Flight, signal: str | None = None) -> bool:
        flight.signalled_at, flight.killed = self._now(), signal is not None  # before: the answer may be lost
        before = await member.node.cancel(self.job.project, flight.attempt.job, signal)
        if flight.attempt.job not in member.flights:
            return True
        if before == "running":
            self._started(member, flight)
            return False
        if flight.fenced:
            del member.flights[flight.attempt.job]
        elif before == "pending":
            self.stats.inc_value("distributed/attempts/taken_back")
            self.judge.unsent(member, flight, "taken back before it ran")
        return before == "pending" or flight.fenced

    async def _end_the_rest(self, deadline: float) -> None:
        """Of a run that is over: whatever still runs can't count."""
        for member, flight in self.fleet.flights():
            if not member.silent and self._now() < deadline:
                with suppress(NodeError):
                    await member.node.cancel(self.job.project, flight.attempt.job, "KILL")

    async def _take_back(self, member: Member) -> None:
        """Jobs that have waited here for a while go to nodes that have nothing to do, the last ones first."""
        patience = self.config.lease / 4
        waiting = [flight for flight in member.flights.values() if flight.pending and flight.waiting]
        waiting = [flight for flight in waiting if self._now() - flight.sent_at >= patience]
        if not waiting:  # nearly always; what follows looks at all nodes
            return
        others = [other for other in self.fleet.members if other is not member]
        takers = {other.name: other.idle_slots for other in others if other.idle_slots}
        if not takers:
            any_well = any(one.well for one in self.fleet.members)
            takers = {other.name: 1 for other in others if other.would_try(any_well=any_well)}
            if any_well:  # what was sent before is not for trying out a node
                waiting = [flight for flight in waiting if flight.attempt.number == 1]
        if not takers or any(name != last for _, last in self.ledger.bookings.ready() for name in takers):
            return
        for flight in waiting[-sum(takers.values()) :]:
            with suppress(NodeRefusedError):  # to one job: nothing against the node
                if await self._back(member, flight):
                    # Else two nodes that start nothing would play catch.
                    member.passed_until = self._now() + PASSED_LEASES * self.config.lease

    async def _back(self, member: Member, flight: Flight) -> bool:
        """Take a job back, if it waits still. Returns whether that was so."""
        if await member.node.status(flight.attempt.job, self.job.project) != "pending":
            return False
        return await self._cancel(member, flight)

    def _end_lease(self, member: Member, flight: Flight) -> None:
        now = self._now()
        silent, age = now - flight.evidence, now - flight.sent_at
        if flight.attempt.job not in member.flights or flight.lost or flight.fenced:
            return
        starting = flight.starting and not member.silent
        if silent >= (self._starts.seconds if starting else self.config.lease):
            self.judge.lost(member, flight, f"no sign of life on {member.name} for {silent:.0f} s", now)
            if starting and self._starts.was_short(flight, now):
                logger.info("Jobs get %.0f s to start from now on", self._starts.seconds, extra=self._extra)
        elif 0 < self.config.max_job_seconds <= age:
            reason = f"not over on {member.name} after {age:.0f} s (DISTRIBUTED_MAX_JOB_SECONDS)"
            self.judge.lost(member, flight, reason, now)
        elif age >= OLD_LEASES * self.config.lease and not flight.old and self._is_strange(member, flight):
            flight.old = True
            logger.warning(
                "Job %s is %s on %s for %d s, %s: see what its node does. DISTRIBUTED_MAX_JOB_SECONDS ends such jobs",
                flight.attempt.job, "running" if flight.started else "pending", member.name, age,
                f"while {flight.overtaken} that it got later are over" if flight.overtaken else "and no other of ours"
                " runs there", extra=self._extra,
            )  # fmt: skip

    def _is_strange(self, member: Member, flight: Flight) -> bool:
        """Of a job that its node has had for long: Scrapyd starts jobs in the order in which it got them, and they are
        about as large as each other. A node that is busy with jobs of others, or never starts ours, looks alike."""
        flights = member.flights.values()
        is_next = flight.waiting and not any(other.started for other in flights)
        return flight.overtaken >= OVERTAKEN or (
            is_next and flight is next(other for other in flights if other.waiting)
        )

    def _moved_on(self) -> None:
        self.send_ready()
        self.changed()

    # Nodes that fail

    def leave_out(self, error: NodeError) -> None:
        """The node of *error* has failed the preflight: it gets nothing until it passes."""
        member = self.fleet.by_name(error.node)
        if member is not None:
            member.silent = member.unchecked = True
            self._fail(member, error)

    def _fail(self, member: Member, error: NodeError) -> None:
        if self._closing:  # calls are cut off then
            return
        self.stats.inc_value(f"distributed/node_errors/{member.name}")
        if member.fail(str(error), self._now()):
            logger.warning("%s; it gets no batches until it works again", error, extra=self._extra)

    def _check_wedged(self, member: Member) -> None:
        seconds = self.config.lease
        if member.wedged(self._now(), seconds):
            reason = f"{member.name}: jobs wait there, nothing runs, and nothing has started for {seconds:.0f} s"
            if member.fail(reason, self._now(), needs=Proof.STARTS):
                logger.warning("%s: restart its Scrapyd; its batches go elsewhere", reason, extra=self._extra)

    def _check_usable(self) -> None:
        now = self._now()
        # To answer is not enough where batches wait: a member that has failed must have a job of ours, or take one.
        # Where the last batch goes from one to the other, and comes back each time, it waits as well.
        members = self.fleet.members
        waits = not self.ledger.account.posted() or any(not (f.lost or f.fenced) for _, f in self.fleet.flights())
        if any(one.usable(waiting=waits) for one in members):
            self._usable_at = now
        elif now - self._usable_at >= self.config.fleet_timeout and not any(one.proving for one in self.fleet.members):
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
        if self._closing:
            return
        if isinstance(failure.value, LedgerUnavailableError):
            self.ledger_failed(failure.value)
            return
        error = failure_to_exc_info(failure)
        logger.error("Dispatch failed; the ledger keeps what it was about", exc_info=error, extra=self._extra)

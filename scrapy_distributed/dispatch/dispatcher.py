"""Policy: which node gets a batch, when it is looked at, what is taken from it, and when it is left alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
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
from scrapy_distributed.dispatch.flight import Flight, Signal
from scrapy_distributed.dispatch.handover import Handover
from scrapy_distributed.dispatch.judge import Judge
from scrapy_distributed.dispatch.members import Fleet, Member
from scrapy_distributed.dispatch.pause import Pause, Pauses
from scrapy_distributed.dispatch.supervisor import Supervisor
from scrapy_distributed.errors import (
    LedgerUnavailableError,
    NodeAmbiguousError,
    NodeDownError,
    NodeError,
)
from scrapy_distributed.fleet.trust import Proof
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import AttemptState
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.words import counted

logger = logging.getLogger(__name__)

LOOKS = 200  # at most so many looks a second at the whole fleet: one costs half a millisecond of CPU
LAST_LOOKS = 20  # and so many while it is at work on the last batches, or something is due
LAST_LOOK_SECONDS = 5.0  # for the last look at all nodes, when the crawl closes early


class Dispatcher:
    """Sends the ready batches of *ledger* to the members of *fleet* and brings home what becomes of them.

    *all_cut* tells whether no more batches are to be expected but for what workers find. *changed* is called whenever a
    batch has been taken by a node or an attempt has ended, *stranded* once if no node could be used for
    ``fleet_timeout`` seconds, *ledger_failed* if the ledger can't be written.
    """

    def __init__(
        self, *, ledger: Ledger, fleet: Fleet, judge: Judge, config: Config, spider: Spider,
        stats: StatsCollector, clock: IReactorTime,
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
        self.all_cut = all_cut
        self.changed = changed
        self.stranded = stranded
        self.ledger_failed = ledger_failed
        self._extra = {"spider": spider}
        self._closing = False
        self._sending = True
        self._posting = 0
        self.supervisor = Supervisor(
            ledger=ledger, fleet=fleet, judge=judge, config=config, spider=spider, stats=stats, clock=clock,
            moved_on=self._moved_on,
        )  # fmt: skip
        self.handover = Handover(
            ledger=ledger, fleet=fleet, supervisor=self.supervisor, judge=judge, config=config, clock=clock
        )
        self._usable_at = 0.0
        self._hurries = False  # no pause that is under way is a long one
        self.pauses = Pauses()
        self._watches: list[Deferred[None]] = []

    def start(self, job: JobTemplate) -> None:
        """Look after the attempts that an earlier coordinator left under way, and send what is ready, as *job* says."""
        self.job, self.started = job, True
        self.supervisor.version = job.version
        now = self._usable_at = self._now()
        for attempt in self.ledger.bookings.live():
            member, lost = self.fleet.by_url(attempt.url), attempt.state is AttemptState.UNKNOWN
            if member is None or not member.carrier.remembers(attempt):
                if lost:  # that was told when it was
                    continue
                reason = f"its node {attempt.node} ({attempt.url}) is no longer in DISTRIBUTED_TARGET_HOSTS"
                reason = reason if member is None else "it had not begun when its coordinator ended"
                self.ledger.verdicts.lose(attempt, reason, counts=False, max_attempts=self.config.max_attempts)
                continue
            member.add(Flight(attempt=attempt, sent_at=now, evidence=now, lost=lost, inherited=True))
        for member in self.fleet.members:
            member.pace.still_since = now
            pause = Pause(self.clock)
            self.pauses.add(pause)
            member.carrier.listen(pause.news)
            self._watches.append(self._spawn(self._watch(member, pause)))
        self.send_ready()

    def send_ready(self) -> None:
        """Give ready batches to nodes with room, in strict round robin where all have room."""
        while self._sending and not self._closing and not self.handover.paused:
            ready = self.ledger.bookings.ready()
            # A batch that should not go back to its last node does not hold up those behind it.
            turns = ((batch, self.fleet.take_turn(avoid=last_node)) for batch, last_node in ready)
            batch, member = next(((batch, member) for batch, member in turns if member is not None), (0, None))
            if member is None:
                if not ready and self.all_cut():
                    self._hurry()
                return
            attempt, payload = self.ledger.bookings.bind(batch, member.name, member.carrier.url)  # row before POST
            now = self._now()
            flight = Flight(attempt=attempt, sent_at=now, evidence=now, trial=member.trust.doubt)
            member.add(flight)
            self.stats.inc_value("distributed/attempts")
            self.stats.inc_value(f"distributed/attempts/{member.name}")
            self._posting += 1
            self._spawn(self._send(member, flight, payload))

    @property
    def idle(self) -> bool:
        """Whether a node has nothing to do."""
        return any(member.idle_slots or (member.trust.doubt and member.has_room) for member in self.fleet.members)

    def send_no_more(self) -> None:
        """What is ready stays here."""
        self._sending = False

    async def dismiss(self, *, hurried: Callable[[], bool]) -> None:
        """Have the jobs under way end, and send no more: those that wait are taken back, those that run report what
        they have done. Until all that count are over, or nobody is to wait for them any more (*hurried*)."""
        self.send_no_more()
        await self._dismiss(self.fleet.members, hurried)

    async def recall(self, *, hurried: Callable[[], bool]) -> None:
        """Likewise those jobs alone that end with us; others get what is ready."""
        members = [member for member in self.fleet.members if member.carrier.ends_with_us]
        if jobs := sum(flight.started for member in members for flight in member.flights.values()):
            logger.info(
                "%s on this machine: told to end, and waited for. What they have done comes home, the rest is for the"
                " next run; Ctrl-C once more does not wait", counted(jobs, "worker"), extra=self._extra,
            )  # fmt: skip
        await self._dismiss(members, hurried)

    async def _dismiss(self, members: Sequence[Member], hurried: Callable[[], bool]) -> None:
        for member in members:
            member.closing = True
            for flight in member.flights.values():
                flight.dismiss()
        self.pauses.news()
        while not hurried() and (
            any(flight.counts for member in members for flight in member.flights.values())
            or (members and self._posting)
        ):
            await self._sleep(0.05)

    async def drain(self, seconds: float) -> None:
        """Send what is ready, as far as nodes answer, for at most *seconds*; look once more, and then no more."""
        deadline = self._now() + seconds
        try:
            self.send_ready()
            while self._now() < deadline and (
                self._posting
                or (
                    self._sending
                    and not self.handover.paused
                    and self.ledger.bookings.ready()
                    and any(member.has_room for member in self.fleet.members)
                )
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
            with suppress(LedgerUnavailableError):
                await self._look_once_more(deadline)
            self.supervisor.stopped = True
            for member in self.fleet.members:
                await member.carrier.close()

    async def _look_once_more(self, deadline: float) -> None:
        """What has ended by now is taken, until *deadline*."""
        seconds = min(deadline - self._now(), LAST_LOOK_SECONDS)
        members = [member for member in self.fleet.members if member.flights and not member.trust.silent]
        if seconds <= 0 or not members or self.ledger.account.settled():
            return
        self.judge.hurry()
        looks = [self._spawn(self._look(member)) for member in members]
        all_looks = DeferredList(looks)
        timer = self.clock.callLater(seconds, all_looks.cancel)
        await all_looks
        if timer.active():
            timer.cancel()

    # Sending

    async def _send(self, member: Member, flight: Flight, payload: str) -> None:
        try:
            await member.carrier.send(flight.attempt, payload, self.job.in_new_slot() if flight.is_first else self.job)
        except NodeAmbiguousError as error:
            self._fail(member, error)
            flight.posted(self._now())
        except NodeError as error:
            self._fail(member, error)
            if not flight.over:
                self.judge.unsent(member, flight, str(error))
        else:
            member.pace.taken += 1
            self.judge.worked(member, Proof.TAKES)
            if not flight.over:  # else its receipt was here before the answer
                flight.posted(self._now())
                self.supervisor.arrived(flight)
        finally:
            self._posting -= 1
        self._moved_on()

    # Looking after

    async def _watch(self, member: Member, pause: Pause) -> None:
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
            if not self._closing:  # else a call was cut off
                seconds, least = self._pause(member)
                await pause.rest(seconds, least=least)

    def _hurry(self) -> None:
        """What is on the nodes is all that there is: no long pause goes on that has begun before."""
        if not self._hurries:
            self._hurries = True
            self.pauses.news()

    def _pause(self, member: Member) -> tuple[float, float]:
        """Seconds until the next look at *member*, and how soon news may bring it. The last batches are over when we
        see it, and idle slots wait for it."""
        members = len(self.fleet.members)
        usual = max(self.config.poll_interval, min(members / LOOKS, self.config.lease / 4))
        least = min(usual, members / LAST_LOOKS)
        last = not self.ledger.bookings.ready() and self.all_cut()
        self._hurries = self._hurries and last
        return least if last else min(usual, max(least, member.due_in(self._now()))), least

    async def _look(self, member: Member) -> None:
        if not member.trust.silent or self._now() >= member.trust.again_at:
            try:
                status = await member.carrier.look()
                member.seen(status, self._now())
                if member.trust.unchecked:
                    await member.carrier.admit(self.job.version)
                    member.trust.unchecked = False
                member.trust.recover(self._now())
                self._check_wedged(member)
                await self.supervisor.inspect(member)
                await self.handover.take_back(member)
            except NodeError as error:
                if self._closing:  # we have cut the line ourselves
                    return
                member.trust.goes_silent(self._now(), down=isinstance(error, NodeDownError))
                self._fail(member, error)
        if member.trust.silent:
            if self._sending:
                self.handover.give_up(member)
            for flight in list(member.flights.values()):
                self.supervisor.end_lease(member, flight)
        self._check_usable()
        self._moved_on()

    async def _end_the_rest(self, deadline: float) -> None:
        """Of a run that is over: whatever still runs can't count."""
        for member, flight in self.fleet.flights():
            if not member.trust.silent and self._now() < deadline:
                with suppress(NodeError):
                    await member.carrier.cancel(flight.attempt, Signal.KILL)

    def _moved_on(self) -> None:
        self.send_ready()
        self.changed()

    # Nodes that fail

    def leave_out(self, error: NodeError) -> None:
        """The node of *error* has failed the preflight: it gets nothing until it passes."""
        member = self.fleet.by_name(error.node)
        if member is not None:
            member.trust.unchecked = True
            member.trust.goes_silent(self._now(), down=isinstance(error, NodeDownError))
            self._fail(member, error)

    def _fail(self, member: Member, error: NodeError) -> None:
        if self._closing:  # calls are cut off then
            return
        self.stats.inc_value(f"distributed/node_errors/{member.name}")
        if member.trust.fail(str(error), self._now()):
            logger.warning("%s; it gets no batches until it works again", error, extra=self._extra)

    def _check_wedged(self, member: Member) -> None:
        seconds = self.config.lease
        if member.wedged(self._now(), seconds):
            reason = f"{member.name}: jobs wait there, nothing runs, and nothing has started for {seconds:.0f} s"
            if member.trust.fail(reason, self._now(), needs=Proof.STARTS):
                cure = "see why above" if member.carrier.ends_with_us else "restart its Scrapyd"
                logger.warning("%s: %s; its batches go elsewhere", reason, cure, extra=self._extra)

    def _check_usable(self) -> None:
        now = self._now()
        # To answer is not enough where batches wait: a member that has failed must have a job of ours, or take one.
        # Where the last batch goes from one to the other, and comes back each time, it waits as well.
        members = self.fleet.members
        waits = not self.ledger.account.posted() or any(flight.counts for _, flight in self.fleet.flights())
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

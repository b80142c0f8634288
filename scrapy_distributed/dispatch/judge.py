"""What becomes of an attempt: accepted, rejected, lost, given back; and what that says of its node and its batch."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from scrapy import Spider
from scrapy.statscollectors import StatsCollector
from twisted.internet.defer import CancelledError

from scrapy_distributed.config.config import Config
from scrapy_distributed.dispatch.flight import Flight
from scrapy_distributed.dispatch.harvest import Harvest
from scrapy_distributed.dispatch.members import Fleet, Member
from scrapy_distributed.dispatch.start_fault import StartFault
from scrapy_distributed.errors import LedgerUnavailableError, NodeError, NodeItemsError, WireError
from scrapy_distributed.fleet.trust import Proof
from scrapy_distributed.ledger.finds import Finds
from scrapy_distributed.ledger.rules import Haul, Objection, Settlement
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt, Blame, Fate
from scrapy_distributed.wire.receipt import Receipt
from scrapy_distributed.words import counted, listed, shortened

logger = logging.getLogger("scrapy_distributed.attempts")  # who reads a log knows of attempts, and not of this file


class _Brings(NamedTuple):
    """What an attempt brings besides its receipt."""

    finds: Sequence[Finds] = ()
    haul: Haul | None = None


class Judge:
    """Enters into *ledger* what has become of attempts. Each method is told of a flight that its member still has.

    *read_targets* checks the targets in the receipt of an attempt (raises ``WireError``); it may take many turns of the
    event loop, and nothing of them is acted on before the attempt is accepted. *harvest*: what brings items home, if
    they come. *accepted* is told of each attempt that is, with the name of its node and the seconds since it was sent,
    ``None`` where it had to wait for jobs of ours; then the targets are in the ledger, to be diverted, and the items in
    the spool. *stopped_by* tells why a final receipt stops the run, '' if it does not: nothing goes out again after it.
    *no_job_starts* is told why that is certain, where it is.
    """

    def __init__(
        self, *, ledger: Ledger, fleet: Fleet, config: Config, spider: Spider, stats: StatsCollector,
        read_targets: Callable[[Attempt, Receipt], Awaitable[list[Finds]]], harvest: Harvest | None,
        accepted: Callable[[str, Attempt, Receipt, float | None], None], stopped_by: Callable[[Receipt], str],
        no_job_starts: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.ledger = ledger
        self.fleet = fleet
        self.config = config
        self.stats = stats
        self.read_targets = read_targets
        self.harvest = harvest
        self.accepted = accepted
        self.stopped_by = stopped_by
        self.no_job_starts = no_job_starts
        self.start_fault = StartFault()
        self._extra = {"spider": spider}

    async def final(self, member: Member, flight: Flight, receipt: Receipt, now: float, why_not: str = "") -> None:
        """Its final receipt is here: it counts as a whole, or not at all. *why_not*: what its log says of its feed."""
        brings: _Brings | Objection = _Brings()
        if receipt.activity:
            self.start_fault.begun()
        if not (flight.fenced or self._objection(flight, receipt)):  # to read what it brings may take long
            try:
                brings = await self._brings(member, flight, receipt)
            except OSError:
                flight.evidence = now  # it is kept on its node until there is room here
                return
        if flight.over or flight.fenced:  # also by an attempt that was accepted while this was read
            self._undo(flight, brings)
            if not flight.over:
                member.forget(flight)
            return
        settlement = self._settle(member, flight, receipt, brings)
        if isinstance(settlement, Settlement):
            member.delivered_at = now
            self._accept(member, flight, receipt, settlement, now)
        else:
            reason, blame = settlement
            blame = Blame.NOBODY if _was_cancelled(flight, receipt) else blame
            # The place of the feeds is most often one for all nodes, and refuses for a while: that is no batch's fault,
            # unless others have delivered there meanwhile.
            excused = not receipt.stored and all(one.delivered_at <= flight.sent_at for one in self.fleet.members)
            self._reject(
                member, flight, f"{reason}: {why_not}" if why_not else reason, blame, now, excused=excused,
            )  # fmt: skip

    def died(
        self, member: Member, flight: Flight, why: str, now: float, *, fault: str = "", cancelled: bool = False
    ) -> None:
        """It has ended without a final receipt, or with one of nothing, and *why*. If it was at work, one of its
        requests may have killed it. *fault*: what has, if that would be so with any batch. *cancelled*: somebody has
        ended it while no coordinator looked after it."""
        ended = flight.dismissed or cancelled
        blame = Blame.NOBODY if ended else Blame.BATCH if flight.at_work else Blame.NODE
        if any(one.at_work for _, one in self.fleet.flights()):
            self.start_fault.begun()
        excused = not ended and self.start_fault.died(member.name, flight.attempt.batch, fault)
        # One that is alone may kill its worker sooner, and be all that is left for the nodes to prove themselves.
        alone = flight.attempt.size == 1
        self._reject(member, flight, why, blame, now, alone=alone, excused=excused)
        used = [one for one in self.fleet.members if one.used]
        well = [one.name for one in used if one.trust.well]
        if excused and self.start_fault.is_certain([one.name for one in used], well):
            jobs, nodes = counted(self.start_fault.jobs, "job"), listed(self.start_fault.nodes)
            self.no_job_starts(f"the first {jobs}, on {nodes}, died of the same. {why.removeprefix('no receipt: ')}")

    def lost(self, member: Member, flight: Flight, reason: str, now: float, *, parts: int = 1) -> None:
        """No sign of life: its requests go to another attempt. Its receipt is welcome, if it comes first. Or to
        several, of so many *parts* of its batch: then it is not."""
        self._warn("Batch %s: %s; its requests are to go out again", flight.attempt.label, reason)
        self.stats.inc_value("distributed/attempts/lost")
        blame = self._blame_for_loss(member, flight)
        fate = self.ledger.verdicts.lose(
            flight.attempt, reason, counts=self._counts(blame), max_attempts=self.config.max_attempts, parts=parts
        )
        flight.lose()
        if not member.trust.silent:
            self._doubt(member, blame, reason, now)
        self._ended(flight, fate, reason)

    def unsent(self, member: Member, flight: Flight, reason: str) -> None:
        """It never ran and never will."""
        if not flight.fenced:  # then it is rejected already
            self.ledger.verdicts.unsent(flight.attempt, reason)
        member.forget(flight)

    def hurry(self) -> None:
        """No later look follows: nothing waits for room any more."""
        if self.harvest is not None:
            self.harvest.room.hurry()

    def worked(self, member: Member, proof: Proof) -> None:
        """A node has shown *proof* that it works."""
        if member.worked(proof):
            logger.info("%s: is used again", member.name, extra=self._extra)

    def _blame_for_loss(self, member: Member, flight: Flight) -> Blame:
        members = self.fleet.members
        if len(members) > 1 and all(one.trust.silent for one in members):  # our own network is cut
            return Blame.NOBODY
        if flight.at_work:
            return Blame.BATCH
        return Blame.NOBODY if flight.never_ran or member.trust.silent else Blame.NODE

    def _objection(self, flight: Flight, receipt: Receipt) -> Objection | None:
        last = bool(self.stopped_by(receipt))
        return self.ledger.verdicts.objection(flight.attempt, receipt, last=last) or self._overtaken(flight, receipt)

    def _overtaken(self, flight: Flight, receipt: Receipt) -> Objection | None:
        """A lost attempt that comes home with a part only is not worth a replacement that is at work."""
        others = self._of_batch(flight.attempt.batch)
        at_work = flight.lost and any(other.started and not other.lost for other in others)
        if at_work and receipt.settled.bit_count() < receipt.size:
            return Objection("it ended early, and another attempt is at work", Blame.NOBODY)
        return None

    async def _brings(self, member: Member, flight: Flight, receipt: Receipt) -> _Brings | Objection:
        """What it brings besides its receipt; or why that can't be read, and who is to blame. Raises ``NodeError``
        where its node can't give it just now, and ``OSError`` where there is no room for it here."""
        what = "what it has found for the fleet"
        if self.harvest is not None:
            self.harvest.room.check()
        try:
            finds = await self.read_targets(flight.attempt, receipt) if receipt.targets else []
            what = "its items"
            return _Brings(finds, None if flight.over else await self._haul(member, flight, receipt))
        except (CancelledError, LedgerUnavailableError, OSError):
            raise
        except WireError as error:
            return Objection(f"{what} can't be read: {error}", Blame.NODE)
        except NodeItemsError as error:
            return Objection(str(error), Blame.NODE)
        except NodeError:
            raise
        except Exception as error:
            return self._unexpected(member, flight, error)

    async def _haul(self, member: Member, flight: Flight, receipt: Receipt) -> Haul | None:
        if self.harvest is None:
            return None
        if receipt.items_file is None:
            raise WireError("its receipt tells of no items, which were to come home")
        last = bool(self.stopped_by(receipt))
        return await self.harvest.bring(member.carrier, flight.attempt, receipt, receipt.items_file, last=last)

    def _undo(self, flight: Flight, brings: _Brings | Objection) -> None:
        if self.harvest is not None and isinstance(brings, _Brings) and brings.haul is not None:
            self.harvest.undo(flight.attempt, brings.haul)

    def _settle(
        self, member: Member, flight: Flight, receipt: Receipt, brings: _Brings | Objection
    ) -> Settlement | Objection:
        """Enter it into the ledger as a whole; or why that can't be done, and who is to blame. Raises
        ``LedgerUnavailableError``: then it is tried again."""
        (finds, haul), unreadable = (_Brings(), brings) if isinstance(brings, Objection) else (brings, None)
        settlement: Settlement | Objection | None = None
        ended = flight.signalled_at is not None and not flight.stalled
        try:
            settlement = self.ledger.verdicts.settle(
                flight.attempt, receipt, max_attempts=self.config.max_attempts, found=finds, haul=haul,
                besides=self._overtaken(flight, receipt) or unreadable, stops=self.stopped_by(receipt),
                again=self._again(member, receipt), counts=not (ended or _was_cancelled(flight, receipt)),
            )  # fmt: skip
        except LedgerUnavailableError:
            raise
        except Exception as error:
            return self._unexpected(member, flight, error)
        finally:
            if not isinstance(settlement, Settlement):
                self._undo(flight, brings)
        return settlement

    def _unexpected(self, member: Member, flight: Flight, error: Exception) -> Objection:
        """The next time it would be the same: the batch must not wait for ever."""
        logger.error("Receipt of job %s on %s", flight.job, member.name, exc_info=error, extra=self._extra)
        return Objection(f"its receipt can't be settled: {shortened(f'{type(error).__name__}: {error}')}", Blame.NODE)

    def _accept(
        self, member: Member, flight: Flight, receipt: Receipt, settlement: Settlement, now: float
    ) -> None:  # fmt: skip
        attempt = flight.attempt
        member.ends(flight)  # not before: what the ledger could not write is tried again
        self.stats.inc_value("distributed/attempts/accepted")
        logger.info(
            "Batch %s from %s accepted (%s): %d of %s settled, %d failed, %s", attempt.label,
            member.name, receipt.finish_reason, receipt.settled.bit_count(), counted(receipt.size, "request"),
            len(receipt.positions(receipt.failed)), counted(receipt.items, "item"), extra=self._extra,
        )  # fmt: skip
        if settlement.again:
            self.stats.inc_value("distributed/tried_again", settlement.again)
        if receipt.unexported:
            self._warn("Batch %s from %s: %s missing in its feed, the log of job %s on the node tells why",
                       attempt.label, member.name, counted(receipt.unexported, "item"), attempt.job)  # fmt: skip
        if receipt.settled or not receipt.size:
            self.worked(member, Proof.DELIVERS)
        self._ended(flight, settlement.fate, receipt.finish_reason)
        self.accepted(member.name, attempt, receipt, None if flight.queued else now - flight.sent_at)

    def _reject(
        self, member: Member, flight: Flight, reason: str, blame: Blame, now: float, *, alone: bool = False,
        excused: bool = False,
    ) -> None:  # fmt: skip
        attempt = flight.attempt
        counts, most = self._counts(blame, alone=alone) and not excused, self.config.max_attempts
        fate = self.ledger.verdicts.reject(attempt, reason, counts=counts, max_attempts=most)
        member.ends(flight)
        self.stats.inc_value("distributed/attempts/rejected")
        self._warn("Batch %s from %s rejected: %s (job %s)", attempt.label, member.name, reason, attempt.job)
        if not flight.lost:  # that was told when it was lost
            self._doubt(member, blame, reason, now)
        self._ended(flight, fate, reason)

    def _counts(self, blame: Blame, *, alone: bool = False) -> bool:
        """Whether it is a failure of the batch. Where no node works it is not at fault, and waits until one does."""
        well = alone or any(member.trust.well for member in self.fleet.members)
        return blame is Blame.BATCH or (blame is Blame.NODE and well)

    def _doubt(self, member: Member, blame: Blame, reason: str, now: float) -> None:
        if blame is not Blame.NOBODY and member.trust.job_failed(reason, now):
            self._warn("%s: its jobs come to nothing, the last one: %s; it gets one at a time until one is accepted",
                       member.name, reason)  # fmt: skip

    def _again(self, member: Member, receipt: Receipt) -> int:
        """The failed requests of *receipt* to be tried on another node: bitmap of positions in its payload."""
        if not any(other.trust.well for other in self.fleet.members if other is not member):
            return 0
        return sum(
            1 << position
            for reason, positions in receipt.failed.items()
            if any(fnmatch.fnmatchcase(reason, pattern) for pattern in self.config.retry_failed)
            for position in positions
        )

    def _ended(self, flight: Flight, fate: Fate, reason: str) -> None:
        """What is still under way for its batch is fenced where it can't count any more."""
        if fate is Fate.HALVED:
            self.stats.inc_value("distributed/batches_halved")
            self._warn("Batch %s has failed: its requests go out as two halves", flight.attempt.batch)
        elif fate is Fate.DEAD:
            self._warn("Batch %s: its attempts are used up, what is left is dead: %s", flight.attempt.batch, reason)
        settled = self.ledger.verdicts.settled_positions(flight.attempt.batch)
        for other in self._of_batch(flight.attempt.batch):
            if other.attempt.positions & settled:
                other.fence()
                self.ledger.verdicts.reject(
                    other.attempt, "what it was sent is settled, or in another batch, already", counts=False,
                    max_attempts=self.config.max_attempts,
                )  # fmt: skip

    def _of_batch(self, batch: int) -> list[Flight]:
        return [flight for _, flight in self.fleet.flights() if flight.attempt.batch == batch and not flight.fenced]

    def _warn(self, message: str, *values: Any) -> None:
        logger.warning(message, *values, extra=self._extra)


def _was_cancelled(flight: Flight, receipt: Receipt) -> bool:
    """Whether somebody has told it to end while no coordinator looked after it. One that is ended so again and again is
    not, or nothing would ever end that."""
    return flight.inherited and receipt.finish_reason == "shutdown"

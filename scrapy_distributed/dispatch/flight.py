"""An attempt under way: what is known of its job, and what changes that. Pure; times are the clock's seconds.

sent -> confirmed -> started -> at work -> over: accepted, rejected or given back

From each of these, sent included, it may be lost or fenced; from the last two it may stall. Then its job is to end, by
INT and after a while by KILL; a final receipt of a lost one is welcome until it is over. From each it may be dismissed:
then it is to end by INT alone, since its receipt and its feed are waited for; unless its dismissal says for how long.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from scrapy_distributed.ledger.states import Attempt, AttemptState
from scrapy_distributed.wire.receipt import Receipt

KILL_AFTER = 30.0  # seconds between INT and KILL for a job that is to end


class Signal(Enum):
    """What ends a job."""

    INT = "INT"
    """It reports what it has done."""
    KILL = "KILL"


@dataclass(kw_only=True, eq=False)
class Flight:
    """An attempt under way, sent at *sent_at*. *evidence* is the time of its last sign of life.

    Once it is over nothing that is still on its way from its node changes anything.
    """

    attempt: Attempt
    sent_at: float
    evidence: float
    inherited: bool = False  # an earlier command has sent it, and what was done with it meanwhile nobody here knows
    over: bool = False
    looked_at: float = float("-inf")
    queued: bool = False  # it was sent where each slot had a job of ours
    is_first: bool = False  # there was none before it in its slot
    trial: bool = False  # to see whether a member that has failed works again
    confirmed: bool = False  # the node has said that it has it
    pending: bool = False  # the node said so when it was asked last
    gone_since: float | None = None  # its node had it in its queue, and does not know it any more
    started: bool = False
    at_work: bool = False  # a receipt of it tells of something done
    sequence: int = 0  # of its newest receipt
    settled: int = 0  # requests, by that
    items: int = 0  # likewise
    pages: int = 0  # likewise
    activity: int = -1  # what it had done by then
    active_at: float = 0.0  # when that grew last
    first_news: tuple[float, int] | None = None  # when it was heard of first, and how many requests it had settled then
    rate: float = 0.0  # requests settled a second, since then; 0 where nothing is known yet
    ends_at: float = float("inf")  # by that
    stalled: bool = False  # it writes receipts and does nothing
    lost: bool = False  # its requests have gone to another attempt; a final receipt still counts if it comes first
    dismissed: bool = False  # its run is to end: it is to report what it has done
    kill_after: float = float("inf")  # seconds that it has for that
    fenced: bool = False  # it can't count any more, and is only to be ended
    signalled_at: float | None = None  # it was told to end, and has not come into the queue after that
    killed: bool = False
    unreadable: int = 0  # how often a receipt of it made no sense
    refused: bool = False  # the node has said no to a question about it, and the log tells
    overtaken: int = 0  # jobs that this node got later and that are over
    old: bool = False  # it is under way for suspiciously long, and the log tells

    @property
    def job(self) -> str:
        return self.attempt.job

    @property
    def counts(self) -> bool:
        """Its requests wait for it, and for no other attempt."""
        return not (self.lost or self.fenced)

    @property
    def starting(self) -> bool:
        """Its process runs, and has not written a receipt yet."""
        return self.started and not self.sequence

    @property
    def waiting(self) -> bool:
        """It takes room on its node, which has not started it."""
        return self.counts and not self.started

    @property
    def unsure(self) -> bool:
        """Whether its node may not have it."""
        return not self.confirmed or self.gone_since is not None

    @property
    def never_ran(self) -> bool:
        """As far as we know."""
        return self.unsure or (self.signalled_at is not None and not self.started)

    # What its node and its worker say

    def posted(self, now: float) -> None:
        """Its node has it, or may have it, or get it late: nothing else is sent until the lease ends."""
        self.evidence = now

    def arrived(self) -> bool:
        """Its node has it. Returns whether that is news of an attempt that counts."""
        news, self.confirmed = not self.confirmed, True
        return news and self.counts

    def queues(self, now: float) -> None:
        """Its node has it in its queue: that is a sign of life. It may have come late: then it is to be taken back,
        if it was before."""
        self.evidence, self.pending, self.gone_since = now, True, None
        self.signalled_at, self.killed = None, False

    def runs(self, now: float) -> bool:
        """Its process runs. Returns whether it has started since we know of it: to have started is a sign of life, to
        run is none."""
        news = not self.started
        if news:
            self.evidence = now
        self.started, self.pending, self.gone_since = True, False, None
        return news

    def reports(self, receipt: Receipt) -> bool:
        """A running *receipt* of it was read. Returns whether it is a newer one."""
        news = receipt.sequence > self.sequence
        if news:
            self.sequence, self.at_work = receipt.sequence, receipt.activity > 0
            self.settled, self.items, self.pages = receipt.settled.bit_count(), receipt.items, receipt.pages
        return news

    def acts(self, receipt: Receipt, now: float, *, stall: float) -> bool:
        """*receipt* is a sign of life while what the worker has done grows. Returns whether it is; else it has done
        nothing for *stall* seconds."""
        activity = receipt.activity + bool(receipt.finish_reason)  # when it stores its feed the time begins anew
        if activity > self.activity:
            self.activity, self.active_at = activity, now
        self.stalled = now - self.active_at >= stall
        if not self.stalled:
            self.evidence = now
        self._foresee(receipt.settled.bit_count(), receipt.size, now)
        return not self.stalled

    def _foresee(self, settled: int, size: int, now: float) -> None:
        since, before = self.first_news = self.first_news or (now, settled)
        if settled > before and now > since:
            self.rate = (settled - before) / (now - since)
            self.ends_at = now + (size - settled) / self.rate

    def due_in(self, now: float) -> float:
        """Seconds until it should be over by its own pace. Where it is late, it is given as long again as it is: so it
        is asked for less and less."""
        return abs(self.ends_at - now)

    def left_the_queue(self) -> None:
        """Its node says that it has ended, or does not know it."""
        self.pending = False

    def is_gone(self, now: float, *, seconds: float) -> bool:
        """Its node does not know it. Returns whether that has been so for *seconds*, since it was in its queue."""
        if self.pending and not self.started:
            self.gone_since = now
        return self.gone_since is not None and now - self.gone_since >= seconds

    def confuses(self) -> bool:
        """A receipt of it made no sense. Returns whether that is to be told: one may come cut, as Twisted's ``File``
        takes the size before it opens what the worker has replaced meanwhile."""
        self.unreadable += 1
        return self.unreadable == 2

    def refuses(self) -> bool:
        """Its node says no to a question about it. Returns whether that is news."""
        news, self.refused = not self.refused, True
        return news

    def falls_behind(self, other: Flight) -> None:
        """*other*, on the same node, is over."""
        self.overtaken += self.sent_at < other.sent_at

    # What we do with it

    def lose(self) -> None:
        """Its requests go to another attempt."""
        self.lost = True
        self.attempt = replace(self.attempt, state=AttemptState.UNKNOWN)

    def fence(self) -> None:
        """What it was sent is settled by another attempt."""
        self.fenced = True

    def dismiss(self, *, kill_after: float = float("inf")) -> None:
        """Nothing more of its run is to be crawled. It has *kill_after* seconds to report what it has done."""
        self.dismissed, self.kill_after = True, min(kill_after, self.kill_after)

    def signal_due(self, now: float) -> Signal | None:
        """What is to end it now, if it is to end: INT, so that it can report what it has done, then KILL."""
        wanted = self.counts and not self.stalled
        if wanted and not self.dismissed:
            return None
        if self.signalled_at is None:
            return Signal.INT
        patience = self.kill_after if wanted else KILL_AFTER
        return Signal.KILL if not self.killed and now - self.signalled_at >= patience else None

    def signalled(self, signal: Signal, now: float) -> None:
        """To be called before it is: the answer may be lost."""
        self.signalled_at, self.killed = now, signal is Signal.KILL

    def unsignalled(self) -> None:
        """Its node has not got that."""
        self.signalled_at, self.killed = None, False

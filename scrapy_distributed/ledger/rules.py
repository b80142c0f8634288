"""What a verdict means for a batch, pure: does an attempt count, does its batch go out again, whole or halved, or is it
dead? A store of a ledger applies what is found here in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scrapy_distributed.ledger.states import Attempt, BatchState, Blame, Fate
from scrapy_distributed.wire.bitmap import bits
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.wire.receipt import Receipt

HALVED_AT = 2  # failed attempts


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A closed batch of *size* requests without its payload, which is as long as all of this many times over.

    *settled*: bitmap of the requests that no attempt has to do any more; *failures*: attempts that count as failed;
    *avoid*: the node where its requests have failed before, if any."""

    size: int
    settled: int
    attempts: int
    failures: int
    state: BatchState
    avoid: str | None

    @property
    def left(self) -> int:
        """Bitmap of the requests that are not settled."""
        return ((1 << self.size) - 1) & ~self.settled


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What an accepted attempt has brought. *again*: how many of its failed requests are to be tried on another
    node."""

    fate: Fate
    again: int = 0


@dataclass(frozen=True, kw_only=True)
class Haul:
    """What of the items of an attempt comes home: *items*, in the spool already, in a file of that *size* (bytes) and
    *digest* (SHA-256, hexadecimal), and how many were left out since their page had brought them before (*twice*).
    *pages*: keys of those that now have."""

    items: int
    size: int = 0
    digest: str = ""
    twice: int = 0
    pages: Sequence[bytes] = ()


class Ended(NamedTuple):
    """A request at a *position* of its batch that was not crawled, and why. *again*: nothing of it is in a feed, so it
    may be tried again."""

    position: int
    outcome: Outcome
    reason: str
    again: bool


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What a final receipt means for a batch. *settled*: bitmap of what it settles; *moved*: of those that are to be
    tried on another node; *ended*: those that were not crawled, but for these."""

    settled: int
    moved: int
    ended: Sequence[Ended]

    @property
    def counts(self) -> dict[str, int]:
        """How many more requests of the batch are in which state."""
        failed = sum(one.outcome is Outcome.FAILED for one in self.ended)
        return {
            "crawled": (self.settled & ~self.moved).bit_count() - len(self.ended),
            "failed": failed,
            "filtered": len(self.ended) - failed,
            "moved": self.moved.bit_count(),
        }


def accepted(attempt: Attempt, receipt: Receipt, batch: Batch, again: int) -> Accepted:
    """What the final *receipt* of *attempt* means for *batch*. *again*: bitmap of its failed requests that may be tried
    on another node, each once."""
    own = list(bits(attempt.positions))  # position in the attempt's payload -> position in the batch
    moved = sum(1 << own[position] for position in bits(again & receipt.again)) if batch.avoid is None else 0
    ended = [
        Ended(own[position], outcome, reason, bool(receipt.again >> position & 1))
        for outcome, reasons in ((Outcome.FAILED, receipt.failed), (Outcome.FILTERED, receipt.filtered))
        for reason, positions in reasons.items()
        for position in positions
        if not moved >> own[position] & 1
    ]
    settled = sum(1 << own[position] for position in bits(receipt.settled))
    return Accepted(settled=settled, moved=moved, ended=ended)


class Objection(NamedTuple):
    """Why a final receipt can't be accepted, and who is to blame."""

    reason: str
    blame: Blame


def objection(attempt: Attempt, receipt: Receipt, settled: int, *, last: bool = False) -> Objection | None:
    """Why the final *receipt* of *attempt* can't be accepted where *settled* of the batch is settled already. *last*:
    the run is stopped, so that nothing of it goes out again, and no item of it comes twice."""
    if attempt.positions & settled:
        return Objection("what it was sent is settled, or in another batch, already", Blame.NOBODY)
    if receipt.size != attempt.size:
        return Objection(f"its receipt speaks of {receipt.size} requests, sent were {attempt.size}", Blame.NODE)
    if not receipt.stored:
        return Objection("its feed was not stored", Blame.NODE)
    if not (receipt.clean or last) and receipt.items_file is None:  # at home each item has its request
        reason = f"it ended early ({receipt.finish_reason}) with items of unfinished requests in its feed"
        return Objection(reason, Blame.BATCH)
    return None


def fate_of(batch: Batch, *, counts: bool, max_attempts: int, parts: int = 1) -> Fate:
    """What the end of an attempt means for *batch*. *counts*: as its failure. One that has died twice is halved, so
    that one request that kills its worker stands alone in the end; one whose attempts are used up is dead. Else it may
    go out again in several *parts*."""
    if batch.state is BatchState.SETTLED:
        return Fate.SETTLED
    failures = batch.failures + counts
    if not counts or failures < min(HALVED_AT, max_attempts):
        return Fate.DIVIDED if parts > 1 and batch.left.bit_count() > 1 else Fate.AGAIN
    if batch.left.bit_count() > 1 and max_attempts > 1:
        return Fate.HALVED
    return Fate.AGAIN if failures < max_attempts else Fate.DEAD


class Division(NamedTuple):
    """Into batches of *size* requests each, with so many *failures* to begin with."""

    size: int
    failures: int


def division(batch: Batch, fate: Fate, *, counts: bool, parts: int = 1) -> Division:
    """How what is left of *batch* is divided by its *fate*, which is to be halved or divided; the rest as in
    ``fate_of``."""
    left = batch.left.bit_count()
    if fate is Fate.HALVED:  # one of them is suspect still, so the next death is enough to halve it again
        return Division(-(-left // 2), HALVED_AT - 1)
    return Division(-(-left // parts), batch.failures + counts)

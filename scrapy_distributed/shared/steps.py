"""What the end of an attempt changes, computed here by the rules of every ledger; the server applies it as one whole,
if the attempt and its batch are still what it was computed from. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from scrapy_distributed.ledger.rules import Batch, Ended, accepted, division, fate_of
from scrapy_distributed.ledger.states import Attempt, AttemptState, BatchState, Fate
from scrapy_distributed.shared.pace import seconds_of_work
from scrapy_distributed.shared.portion import pack
from scrapy_distributed.wire.bitmap import bitmap_to_bytes, bits
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.wire.receipt import Receipt
from scrapy_distributed.wire.seen_key import seen_key

COUNTS = ("crawled", "failed", "filtered", "dead", "moved")
NO_ROW: Mapping[str, str | int] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Child:
    """A batch that is made of another: encoded requests, and what ``rules.Batch`` says of it."""

    bodies: Sequence[str]
    parent: int | None = None
    avoid: str = ""
    last: str = ""
    failures: int = 0


@dataclass(frozen=True, kw_only=True)
class Step:
    """*becomes*: the state of the attempt; *before*, *batch_failures*: what this was computed from. *settled*: bitmap
    of the batch, *counts*: how many more of its requests are in which state. *ended*: those not crawled, whose *bodies*
    are kept. *row*: what else is written of the attempt. *found*, *lines*: how many parts it has staged; *receipt*: by
    which it counts, if it does; *stops*: why its run is stopped now; *deadline*: that of the lease which it has lost,
    ms; *first*: its batch goes out before the others that go out again."""

    becomes: AttemptState
    before: AttemptState
    batch_failures: int
    left_before: int
    left_after: int
    fate: Fate
    failures: int = 0
    settled: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    ended: Sequence[Ended] = ()
    bodies: Mapping[int, str] = field(default_factory=dict)
    children: Sequence[Child] = ()
    row: Mapping[str, str | int] = field(default_factory=dict)
    again: int = 0
    found: int = 0
    lines: int = 0
    receipt: Receipt | None = None
    stops: str = ""
    deadline: float = 0
    first: bool = False

    def args(self) -> list[str | bytes]:
        """As ``apply`` and the script that calls it read it."""
        children = [
            {"size": len(child.bodies), "parent": child.parent or "", "avoid": child.avoid, "last": child.last,
             "failures": child.failures} for child in self.children
        ]  # fmt: skip
        row = {**self.row, "state": self.becomes.value, "fate": self.fate.name, "again": self.again}
        landed = self._landed()
        told = {
            "becomes": self.becomes.value, "state": self.before.value, "batch_failures": self.batch_failures,
            "left_before": self.left_before, "left_after": self.left_after, "failures": self.failures,
            "settles": bool(self.settled), "outcomes": bool(self.ended), "kept": list(self.bodies),
            "reasons": Counter(f"{one.outcome.value}\n{one.reason}" for one in self.ended),
            "children": children, "attempt": [value for pair in row.items() for value in pair], "found": self.found,
            "lines": self.lines, "stops": self.stops, "deadline": self.deadline, "first": self.first,
            "landed": len(landed), "items": 0, "unexported": 0, "followed": {}, "examples": {},
            **dict.fromkeys(COUNTS, 0), **self.counts, **self._reported(),
        }  # fmt: skip
        ended = [[one.position, one.outcome.value, one.reason, one.again] for one in self.ended]
        portions = [pack(child.bodies) for child in self.children]
        return [
            json.dumps(told), bitmap_to_bytes(self.settled), json.dumps(ended), *self.bodies.values(), *portions,
            *landed,
        ]  # fmt: skip

    def _reported(self) -> dict[str, Any]:
        """What of a receipt is summed over all that count."""
        if (receipt := self.receipt) is None:
            return {}
        return {
            "items": receipt.items, "unexported": receipt.unexported, "followed": dict(receipt.followed),
            "examples": dict(receipt.examples), "paced": receipt.settled.bit_count(),
            "paced_ms": round(1000 * seconds_of_work(receipt)),
        }  # fmt: skip

    def _landed(self) -> list[bytes]:
        """What stands for the pages where requests that are settled have landed."""
        if (receipt := self.receipt) is None:
            return []
        return [seen_key(key) for position, key in receipt.landed_keys() if receipt.settled >> position & 1]


def of_receipt(
    attempt: Attempt, receipt: Receipt, batch: Batch, bodies: Sequence[str], *, again: int, counts: bool,
    max_attempts: int, found: int, lines: int, stops: str, row: Mapping[str, str | int],
) -> Step:  # fmt: skip
    """The final *receipt* of *attempt* is accepted. *bodies*: all requests of the *batch*; the rest as in
    ``Claims.settle``."""
    found_of = accepted(attempt, receipt, batch, again)
    counts = counts and attempt.state is not AttemptState.UNKNOWN and not receipt.settled
    settled = batch.settled | found_of.settled
    now = _batch(batch, settled)
    end = _end(attempt, now, bodies, f"ended early: {receipt.finish_reason}", counts=counts, max_attempts=max_attempts)
    moved = [bodies[position] for position in bits(found_of.moved)]
    elsewhere = [Child(bodies=moved, avoid=attempt.node, last=attempt.node)] if moved else []
    ended = [*found_of.ended, *end.ended]
    return Step(
        becomes=AttemptState.ACCEPTED, before=attempt.state, batch_failures=batch.failures,
        left_before=batch.left.bit_count(), left_after=end.left_after, fate=end.fate, failures=int(counts),
        settled=settled | end.settled,
        counts={name: found_of.counts.get(name, 0) + end.counts.get(name, 0) for name in COUNTS}, ended=ended,
        bodies={one.position: bodies[one.position] for one in ended}, children=[*elsewhere, *end.children],
        row={"reason": receipt.finish_reason, **row}, again=len(moved), found=found, lines=lines, receipt=receipt,
        stops=stops,
    )  # fmt: skip


def of_end(
    attempt: Attempt, batch: Batch, bodies: Sequence[str], reason: str, becomes: AttemptState, *, counts: bool,
    max_attempts: int, parts: int = 1, deadline: float = 0, first: bool = False, row: Mapping[str, str | int] = NO_ROW,
) -> Step:  # fmt: skip
    """*attempt* does not count, for *reason*. *bodies*: all requests of the *batch*; *counts*, *parts*: as in
    ``fate_of``; the rest as in ``Step``."""
    end = _end(attempt, batch, bodies, reason, counts=counts, max_attempts=max_attempts, parts=parts)
    return Step(
        becomes=becomes, before=attempt.state, batch_failures=batch.failures, left_before=batch.left.bit_count(),
        left_after=end.left_after, fate=end.fate, failures=int(counts), settled=batch.settled | end.settled,
        counts=end.counts, ended=end.ended, bodies={one.position: bodies[one.position] for one in end.ended},
        children=end.children, row={"reason": reason, **row}, deadline=deadline, first=first,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _End:
    """What becomes of what is left of a batch: *settled* now without having been crawled, or left to go out again."""

    fate: Fate
    left_after: int = 0
    settled: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    ended: Sequence[Ended] = ()
    children: Sequence[Child] = ()


def _end(
    attempt: Attempt, batch: Batch, bodies: Sequence[str], reason: str, *, counts: bool, max_attempts: int,
    parts: int = 1,
) -> _End:  # fmt: skip
    fate = fate_of(batch, counts=counts, max_attempts=max_attempts, parts=parts)
    left = batch.left
    if fate in (Fate.SETTLED, Fate.AGAIN):
        return _End(fate=fate, left_after=left.bit_count())
    if fate is Fate.DEAD:
        ended = [Ended(position, Outcome.DEAD, reason, True) for position in bits(left)]
        return _End(fate=fate, settled=left, counts={"dead": len(ended)}, ended=ended)
    size, failures = division(batch, fate, counts=counts, parts=parts)
    moved = [bodies[position] for position in bits(left)]
    children = [
        Child(bodies=moved[first : first + size], parent=attempt.batch, avoid=batch.avoid or "", last=attempt.node,
              failures=failures) for first in range(0, len(moved), size)
    ]  # fmt: skip
    return _End(fate=fate, settled=left, counts={"moved": len(moved)}, children=children)


def _batch(batch: Batch, settled: int) -> Batch:
    """*batch* with so much of it *settled*."""
    everything = settled.bit_count() == batch.size
    return Batch(
        size=batch.size, settled=settled, attempts=batch.attempts, failures=batch.failures,
        state=BatchState.SETTLED if everything else batch.state, avoid=batch.avoid,
    )  # fmt: skip


def receipt_row(receipt: Receipt) -> dict[str, str | int]:
    """What is kept of a receipt that counts."""
    values: dict[str, str | int] = {
        "items": receipt.items, "unexported": receipt.unexported, "errors": receipt.callback_errors,
        "receipt": bitmap_to_bytes(receipt.settled).hex(),
    }  # fmt: skip
    told = {"feeds": receipt.feeds, "stats": dict(receipt.stats), "followed": dict(receipt.followed)}
    return values | {name: json.dumps(value) for name, value in told.items() if value}

"""What becomes of attempts, and with them of their batches."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from scrapy_distributed.ledger.finds import Finds
from scrapy_distributed.ledger.rules import (
    Batch,
    Division,
    Ended,
    Haul,
    Objection,
    Settlement,
    accepted,
    division,
    fate_of,
    objection,
)
from scrapy_distributed.ledger.sqlite_batches import Batches, joined, requests_at
from scrapy_distributed.ledger.sqlite_store import Store, while_available
from scrapy_distributed.ledger.states import Attempt, AttemptState, Blame, Fate
from scrapy_distributed.ledger.sums import MOST_REASONS
from scrapy_distributed.wire.bitmap import bitmap_to_bytes, bits
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.wire.receipt import Receipt

LIVE_STATES = (AttemptState.BOUND, AttemptState.SENT, AttemptState.UNKNOWN)

ATTEMPT_STATE = "SELECT state FROM attempt WHERE run = ? AND batch = ? AND number = ?"
ACCEPT_ATTEMPT = """
UPDATE attempt SET state = 'accepted', ended = ?, reason = ?, items = ?, feeds = ?, stats = ?, unexported = ?,
    followed = ?, home = ?, twice = ?, size = ?, digest = ?, settled = ?
WHERE run = ? AND batch = ? AND number = ?
"""
SET_PARTIAL = "UPDATE attempt SET partial = 1 WHERE run = ? AND batch = ? AND number = ?"
SET_STOPPED = "UPDATE run SET stopped = ifnull(stopped, ?) WHERE id = ?"
ADD_OUTCOME = "INSERT INTO outcome VALUES (?, ?, ?, ?, ?, ?)"
# Nodes may make up any number of reasons.
ADD_EXAMPLE = """
INSERT OR IGNORE INTO example SELECT :run, :reason, :text
WHERE (SELECT count(*) FROM example WHERE run = :run) < :most
"""
ADD_LANDED = "INSERT OR REPLACE INTO landed VALUES (?, ?, ?, ?)"  # tried again, it may land elsewhere
ADD_PAGE = "INSERT INTO page VALUES (?, ?, ?, ?)"
ADD_AGAIN = "INSERT INTO queued (run, size, bodies, avoid) VALUES (?, ?, ?, ?)"
ADD_FOUND = "INSERT INTO found (run, size, packed) VALUES (?, ?, ?)"


class Verdicts:
    """For what judges attempts."""

    def __init__(self, store: Store, batches: Batches) -> None:
        self._store = store
        self._batches = batches

    @while_available
    def unsent(self, attempt: Attempt, reason: str) -> None:
        """It never ran: its batch is ready again, and no attempt is used up."""
        with self._store.transaction():
            self._batches.set_attempt(attempt, AttemptState.UNSENT, reason, ended=True)
            self._batches.release(attempt.batch, counts=False)

    @while_available
    def lose(self, attempt: Attempt, reason: str, *, counts: bool, max_attempts: int, parts: int = 1) -> Fate:
        """No sign of life: its batch is ready again, its receipt still welcome. *counts*: as the batch's failure.
        *parts*: so many batches are made of it, if there are more than one; then its receipt comes too late."""
        with self._store.transaction():
            self._batches.set_attempt(attempt, AttemptState.UNKNOWN, reason)
            return self._fail_or_release(attempt, reason, counts=counts, max_attempts=max_attempts, parts=parts)

    @while_available
    def reject(self, attempt: Attempt, reason: str, *, counts: bool, max_attempts: int) -> Fate:
        """It ended and does not count. *counts*: as the batch's failure, if it did not when it was lost."""
        with self._store.transaction():
            state = self._state(attempt)
            counts = counts and state in (AttemptState.BOUND, AttemptState.SENT)
            if state in LIVE_STATES:  # what was accepted stays accepted
                self._batches.set_attempt(attempt, AttemptState.REJECTED, reason, ended=True)
            return self._fail_or_release(attempt, reason, counts=counts, max_attempts=max_attempts)

    @while_available
    def objection(self, attempt: Attempt, receipt: Receipt, *, last: bool = False) -> Objection | None:
        """Why the final *receipt* of *attempt* can't be accepted, and who is to blame. *last*: as in ``rules``."""
        if (state := self._state(attempt)) not in LIVE_STATES:
            return Objection(f"it was {state.value} before", Blame.NOBODY)
        return objection(attempt, receipt, self._batches.get(attempt.batch).settled, last=last)

    @while_available
    def settle(
        self, attempt: Attempt, receipt: Receipt, *, max_attempts: int,
        found: Iterable[Finds] = (), haul: Haul | None = None, again: int = 0, counts: bool = True,
        besides: Objection | None = None, stops: str = "",
    ) -> Settlement | Objection:  # fmt: skip
        """Accept *attempt* as a whole by its final *receipt*, and keep the targets that it has *found*, which
        ``divert_found`` is then to divert; *haul*: its items, where they come home. *again*: bitmap of its failed
        requests that may be tried on another node, each once. *counts*: if nothing is settled, that is the batch's
        failure. *stops*: why the run is stopped, if it is: then items of requests that it has not settled count, too.
        Survives a power cut. Where there is an ``objection``, or one *besides* of those who know more than the ledger,
        nothing is done, and it is what is returned."""
        if objected := self.objection(attempt, receipt, last=bool(stops)) or besides:
            return objected
        counts = counts and self._state(attempt) is not AttemptState.UNKNOWN and not receipt.settled
        with self._store.transaction(durable=True):
            rows = [(self._store.run_id, some.size, some.packed) for some in found]
            self._store.db.executemany(ADD_FOUND, rows)
            moved = self._accept(attempt, receipt, again & receipt.again, haul)
            if stops and not receipt.clean:  # at once: else these could go out again, and their items come twice
                where = (self._store.run_id, attempt.batch, attempt.number)
                self._store.db.execute(SET_PARTIAL, where)
                self._store.db.execute(SET_STOPPED, (stops, self._store.run_id))
            reason = f"ended early: {receipt.finish_reason}"
            fate = self._fail_or_release(attempt, reason, counts=counts, max_attempts=max_attempts)
        return Settlement(fate=fate, again=moved)

    @while_available
    def settled_positions(self, batch: int) -> int:
        """Bitmap of the requests of *batch* that no attempt has to do any more."""
        return self._batches.get(batch).settled

    # Inside

    def _state(self, attempt: Attempt) -> AttemptState:
        where = (self._store.run_id, attempt.batch, attempt.number)
        return AttemptState(self._store.row(ATTEMPT_STATE, where)[0])

    def _fail_or_release(
        self, attempt: Attempt, reason: str, *, counts: bool, max_attempts: int, parts: int = 1
    ) -> Fate:
        """After an attempt has ended: its batch is settled, or ready again, or what is left of it is settled now."""
        batch = self._batches.get(attempt.batch)
        fate = fate_of(batch, counts=counts, max_attempts=max_attempts, parts=parts)
        if fate is not Fate.SETTLED:
            self._batches.release(attempt.batch, counts=counts)
        left = batch.left
        if fate in (Fate.HALVED, Fate.DIVIDED):
            self._divide(attempt, batch, division(batch, fate, counts=counts, parts=parts))
        elif fate is Fate.DEAD:
            self._add_outcomes(attempt.batch, [Ended(position, Outcome.DEAD, reason, True) for position in bits(left)])
            self._batches.settle(attempt.batch, batch.settled | left, dead=left.bit_count())
        return fate

    def _divide(self, attempt: Attempt, batch: Batch, into: Division) -> None:
        """What is left of *batch*, whose *attempt* has ended, goes into batches of its own."""
        bodies = requests_at(self._batches.payload(attempt.batch), batch.left)
        for first in range(0, len(bodies), into.size):
            self._batches.add(
                bodies[first : first + into.size], parent=attempt.batch, avoid=batch.avoid, last=attempt.node,
                failures=into.failures,
            )  # fmt: skip
        self._batches.settle(attempt.batch, batch.settled | batch.left, moved=len(bodies))

    def _accept(self, attempt: Attempt, receipt: Receipt, again: int, haul: Haul | None) -> int:
        """Enter what *receipt* says; returns how many requests are to be tried on another node."""
        db, run = self._store.db, self._store.run_id
        batch = self._batches.get(attempt.batch)
        own = list(bits(attempt.positions))  # position in the attempt's payload -> position in the batch
        found = accepted(attempt, receipt, batch, again)
        if found.moved:
            bodies = joined(requests_at(self._batches.payload(attempt.batch), found.moved))
            db.execute(ADD_AGAIN, (run, found.moved.bit_count(), bodies, attempt.node))
        row = (time.time(), receipt.finish_reason, receipt.items, json.dumps(receipt.feeds),
               json.dumps(dict(receipt.stats)), receipt.unexported, json.dumps(dict(receipt.followed)),
               *((haul.items, haul.twice, haul.size, haul.digest) if haul else (None, 0, None, None)),
               bitmap_to_bytes(found.settled & ~found.moved))  # fmt: skip
        db.execute(ACCEPT_ATTEMPT, (*row, run, attempt.batch, attempt.number))
        pages = haul.pages if haul else ()
        db.executemany(ADD_PAGE, [(run, key, attempt.batch, attempt.number) for key in pages])
        self._add_outcomes(attempt.batch, found.ended)
        self._add_examples(receipt)
        landed = [(own[position], key) for position, key in receipt.landed_keys() if found.settled >> own[position] & 1]
        db.executemany(ADD_LANDED, [(run, attempt.batch, *row) for row in landed])
        self._batches.settle(attempt.batch, batch.settled | found.settled, **found.counts)
        return found.moved.bit_count()

    def _add_examples(self, receipt: Receipt) -> None:
        values = ({"reason": reason, "text": text} for reason, text in receipt.examples.items())
        limits = {"run": self._store.run_id, "most": MOST_REASONS}
        self._store.db.executemany(ADD_EXAMPLE, [limits | one for one in values])

    def _add_outcomes(self, batch: int, ended: Iterable[Ended]) -> None:
        rows = [(self._store.run_id, batch, position, outcome.value, *rest) for position, outcome, *rest in ended]
        self._store.db.executemany(ADD_OUTCOME, rows)

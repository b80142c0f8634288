"""The batches of a run and the attempts at them: the steps that transitions of several facets are made of."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from scrapy_distributed.ledger.rules import Batch
from scrapy_distributed.ledger.sqlite_store import Store, damage
from scrapy_distributed.ledger.states import Attempt, AttemptState, BatchState
from scrapy_distributed.wire.bitmap import bitmap_from_bytes, bitmap_to_bytes, bits
from scrapy_distributed.wire.payload import decode_payload, encode_payload, split
from scrapy_distributed.wire.session import Session, sessions_of

NEXT_BATCH = "UPDATE run SET batches = batches + 1 WHERE id = ? RETURNING batches"
ADD_BATCH = """
INSERT INTO batch (run, number, size, payload, state, parent, avoid, last, failures)
VALUES (?, ?, ?, ?, 'ready', ?, ?, ?, ?)
"""
ADD_SESSION = "INSERT OR IGNORE INTO session VALUES (?, ?, ?)"
SESSION = "SELECT text FROM session WHERE run = ? AND id = ?"
BATCH = "SELECT size, settled, attempts, failures, state, avoid FROM batch WHERE run = ? AND number = ?"
PAYLOAD = "SELECT payload FROM batch WHERE run = ? AND number = ?"
RELEASE_BATCH = """
UPDATE batch SET state = 'ready', failures = failures + :counts
WHERE run = :run AND number = :batch AND state <> 'settled'
AND NOT EXISTS (SELECT 1 FROM attempt WHERE run = :run AND batch = :batch AND state IN ('bound', 'sent'))
"""
SETTLE_BATCH = """
UPDATE batch SET settled = :settled, crawled = crawled + :crawled, failed = failed + :failed,
    filtered = filtered + :filtered, dead = dead + :dead, moved = moved + :moved,
    state = CASE WHEN crawled + failed + filtered + dead + moved + :count = size THEN 'settled' ELSE state END
WHERE run = :run AND number = :batch
"""
SET_ATTEMPT = """\
UPDATE attempt SET state = :state, ended = :ended,
    reason = CASE state WHEN 'unknown' THEN reason || '; ' || :reason ELSE :reason END
WHERE run = :run AND batch = :batch AND number = :number
"""

SEPARATOR = ",\n"  # an encoded request has no line breaks


class Batches:
    """Each method is a step of a transition, whose transaction is its caller's."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, number: int) -> Batch:
        row = self._store.row(BATCH, (self._store.run_id, number))
        size, settled, attempts, failures, state, avoid = row
        return Batch(
            size=size, settled=bitmap_from_bytes(settled), attempts=attempts, failures=failures,
            state=BatchState(state), avoid=avoid,
        )  # fmt: skip

    def payload(self, number: int) -> str:
        (payload,) = self._store.row(PAYLOAD, (self._store.run_id, number))
        return str(payload)

    def add(
        self, bodies: Sequence[str], *, parent: int | None = None, avoid: str | None = None, last: str | None = None,
        failures: int = 0,
    ) -> int:  # fmt: skip
        """Ready batches of *bodies*, split where a payload is over the ceiling; returns their number."""
        db, run = self._store.db, self._store.run_id
        parts = list(split(bodies, self._sessions(bodies)))
        for part, payload in parts:
            (number,) = self._store.row(NEXT_BATCH, (run,))
            db.execute(ADD_BATCH, (run, number, len(part), payload, parent, avoid, last, failures))
        return len(parts)

    def keep_sessions(self, sessions: Iterable[Session]) -> None:
        """For requests that name them."""
        self._store.db.executemany(ADD_SESSION, [(self._store.run_id, *session) for session in sessions])

    def part(self, payload: str, positions: int) -> str:
        """The payload of the requests at *positions*, a bitmap, of the batch in *payload*."""
        bodies = requests_at(payload, positions)
        return encode_payload(bodies, self._sessions(bodies))

    def jars(self, attempt: Attempt) -> dict[str, Any]:
        """The keys of the jars of the sessions of *attempt*, by their ids."""
        sessions = self._sessions(requests_at(self.payload(attempt.batch), attempt.positions))
        return {session: json.loads(text)[0] for session, text in sessions.items()}

    def _sessions(self, bodies: Sequence[str]) -> dict[str, str]:
        """Those of *bodies*, by their ids."""
        sessions = {}
        for session in sessions_of(bodies):
            (sessions[session],) = self._store.row(SESSION, (self._store.run_id, session))
            with damage("cookies that go with requests"):
                json.loads(sessions[session])
        return sessions

    def release(self, number: int, *, counts: bool) -> None:
        """Ready again, if no attempt is under way. *counts*: as its failure."""
        self._store.db.execute(RELEASE_BATCH, {"run": self._store.run_id, "batch": number, "counts": counts})

    def settle(self, number: int, settled: int, **counts: int) -> None:
        """*settled*: the bitmap from now on; *counts*: how many more of its requests are crawled, failed, ..."""
        values = dict.fromkeys(("crawled", "failed", "filtered", "dead", "moved"), 0) | counts
        values |= {"count": sum(counts.values()), "run": self._store.run_id, "batch": number}
        self._store.db.execute(SETTLE_BATCH, values | {"settled": bitmap_to_bytes(settled)})

    def set_attempt(self, attempt: Attempt, state: AttemptState, reason: str | None, *, ended: bool = False) -> None:
        """What is told of an attempt that was lost begins with how: the rest followed from that."""
        values = {"state": state.value, "ended": time.time() if ended else None, "reason": reason}
        where = {"run": self._store.run_id, "batch": attempt.batch, "number": attempt.number}
        self._store.db.execute(SET_ATTEMPT, values | where)


def requests_at(payload: str, positions: int) -> list[str]:
    """The requests at *positions*, a bitmap, of a batch, as texts."""
    elements = decode_payload(payload)
    return [as_text(elements[position]) for position in bits(positions)]


def as_text(element: Any) -> str:
    """The request *element* of a batch as a text."""
    return json.dumps(element, separators=(",", ":"))


def joined(bodies: Sequence[str]) -> str:
    """Requests as they are in a row of ``queued``: JSON, which ``separated`` need not parse."""
    return f"[{SEPARATOR.join(bodies)}]"


def separated(text: str, size: int) -> list[str]:
    """The *size* requests in *text*, as texts. Raises ``ValueError`` for one that is damaged, if that is seen."""
    bodies = text[1:-1].split(SEPARATOR)
    if len(bodies) == size:
        return bodies
    return [as_text(element) for element in json.loads(text)]  # an older ledger's

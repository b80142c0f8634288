"""Which batches are to be sent, and to which node each attempt goes."""

from __future__ import annotations

import time

from scrapy_distributed.ledger.sqlite_batches import Batches
from scrapy_distributed.ledger.sqlite_store import Store, while_available
from scrapy_distributed.ledger.states import Attempt, AttemptState, new_token
from scrapy_distributed.wire.bitmap import bitmap_from_bytes, bitmap_to_bytes

# SQLite uses a partial index only where its condition is repeated: without it this walks through all batches of a run.
# It goes from each node where a ready batch was last to the next: as many steps as there are such nodes.
READY = """
WITH RECURSIVE node (last) AS (
    SELECT min(last) FROM batch WHERE run = :run AND state = 'ready' AND state <> 'settled'
    UNION ALL
    SELECT (
        SELECT min(batch.last) FROM batch
        WHERE run = :run AND state = 'ready' AND state <> 'settled' AND batch.last > node.last
    ) FROM node WHERE last IS NOT NULL  -- the last row is NULL: where a batch was that was nowhere yet
), first (number, last) AS (
    SELECT (
        SELECT min(number) FROM batch
        WHERE run = :run AND state = 'ready' AND state <> 'settled' AND batch.last IS node.last
    ), last FROM node
)
SELECT number, last FROM first WHERE number IS NOT NULL ORDER BY number
"""
BIND_BATCH = "UPDATE batch SET state = 'in flight', attempts = ?, last = ? WHERE run = ? AND number = ?"
ADD_ATTEMPT = """
INSERT INTO attempt (run, batch, number, token, node, url, state, positions, bound)
VALUES (?, ?, ?, ?, ?, ?, 'bound', ?, ?)
"""
LIVE = """
SELECT batch, number, token, node, url, state, positions FROM attempt
WHERE run = ? AND state IN ('bound', 'sent', 'unknown')
"""
KEEP_TOLD = "INSERT OR REPLACE INTO told VALUES (?, ?, ?)"
TOLD = "SELECT url, slots, poll FROM told"


class Bookings:
    """For what sends batches."""

    def __init__(self, store: Store, batches: Batches) -> None:
        self._store = store
        self._batches = batches

    @while_available
    def ready(self) -> list[tuple[int, str | None]]:
        """The next batches to send, each with the node where it was last: for each such node the first one. None of a
        run that was stopped."""
        if self._store.stopped is not None:
            return []
        return self._store.db.execute(READY, {"run": self._store.run_id}).fetchall()

    @while_available
    def bind(self, batch: int, node: str, url: str = "") -> tuple[Attempt, str]:
        """A new attempt at what is not settled of *batch* on *node*, which is at *url*, and its payload. Durable."""
        db, run = self._store.db, self._store.run_id
        with self._store.transaction(durable=True):
            found = self._batches.get(batch)
            number, positions, payload = found.attempts + 1, found.left, self._batches.payload(batch)
            db.execute(BIND_BATCH, (number, node, run, batch))
            token = new_token()
            row = (run, batch, number, token, node, url, bitmap_to_bytes(positions), time.time())
            db.execute(ADD_ATTEMPT, row)
        if found.settled:
            payload = self._batches.part(payload, positions)
        return self._attempt(batch, number, token, node, url, AttemptState.BOUND.value, positions), payload

    @while_available
    def sent(self, attempt: Attempt) -> None:
        """The node has taken it."""
        self._batches.set_attempt(attempt, AttemptState.SENT, None)

    @while_available
    def live(self) -> list[Attempt]:
        """The attempts whose receipt is still awaited."""
        rows = self._store.db.execute(LIVE, (self._store.run_id,)).fetchall()
        return [
            self._attempt(batch, number, token, node, url, state, bitmap_from_bytes(positions))
            for batch, number, token, node, url, state, positions in rows
        ]

    @while_available
    def keep_told(self, url: str, slots: int | None, poll: float | None) -> None:
        """The node at *url* runs so many jobs at once, and looks for them each *poll* seconds: for later runs, too."""
        self._store.db.execute(KEEP_TOLD, (url, slots, poll))

    @while_available
    def told(self) -> dict[str, tuple[int | None, float | None]]:
        """What was kept, of each node."""
        return {url: (slots, poll) for url, slots, poll in self._store.db.execute(TOLD)}

    def _attempt(
        self, batch: int, number: int, token: str, node: str, url: str, state: str, positions: int
    ) -> Attempt:  # fmt: skip
        return Attempt(
            run=self._store.run_name, batch=batch, number=number, token=token, node=node, url=url,
            state=AttemptState(state), positions=positions,
        )  # fmt: skip

"""What an operator wishes of a run."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.ledger.sqlite_batches import Batches, as_text
from scrapy_distributed.ledger.sqlite_store import Store
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.wire.payload import decode_payload

LAST_RUN = "SELECT id, name FROM run ORDER BY id DESC LIMIT 1"
REOPEN_RUN = "UPDATE run SET ended = NULL WHERE id = ?"
UNDONE = """
SELECT batch, position, state, reason, again FROM outcome WHERE run = ? AND state IN ('failed', 'dead')
ORDER BY batch, position
"""
LARGEST = "SELECT max(size) FROM batch WHERE run = ?"
DROP_OUTCOME = "DELETE FROM outcome WHERE run = ? AND batch = ? AND position = ?"

OF_DAMAGE = (ValueError, TypeError, LookupError, OverflowError, RecursionError)  # what reading a damaged file makes


class Control:
    """For the commands that change something."""

    def __init__(self, store: Store, batches: Batches) -> None:
        self._store = store
        self._batches = batches

    def retry(self, wanted: Callable[[str, str], bool]) -> tuple[int, int]:
        """Put the dead and the failed requests of the last run for whose (state, reason) *wanted* is true into new
        batches: the command that began the run then takes it up again.

        Returns how many, and how many are left out since their callback had begun: items of them may be in a feed.
        Raises ``LedgerError`` if there is no run, or if the ledger is damaged; then nothing was changed."""
        store = self._store
        try:
            last = store.db.execute(LAST_RUN).fetchone()
            if last is None:
                raise LedgerError(f"{store.path}: no run in it, so there is nothing to try again")
            store.run_id, store.run_name = last
            chosen: dict[int, list[tuple[int, str]]] = {}
            left_out = 0
            for batch, position, state, reason, again in store.db.execute(UNDONE, (store.run_id,)):
                if wanted(state, reason):
                    left_out += not again
                    if again:
                        chosen.setdefault(batch, []).append((position, state))
            if chosen:
                self._retry(chosen)
        except (sqlite3.Error, LedgerUnavailableError, *OF_DAMAGE) as error:
            raise LedgerError(f"{store.path}: can't be used as ledger: {error}; nothing was changed") from None
        return sum(map(len, chosen.values())), left_out

    def _retry(self, chosen: dict[int, list[tuple[int, str]]]) -> None:
        """*chosen*: batch -> (position, state), by position. The new batches are as large as those of the run were:
        a worker for the few of each batch would cost too much."""
        db, run = self._store.db, self._store.run_id
        (size,) = db.execute(LARGEST, (run,)).fetchone()
        waiting: list[tuple[int, str]] = []
        with self._store.transaction(durable=True):
            db.execute(REOPEN_RUN, (run,))
            for batch, outcomes in chosen.items():
                settled = self._batches.get(batch).settled
                elements = decode_payload(self._batches.payload(batch))
                waiting += [(batch, as_text(elements[position])) for position, _ in outcomes]
                db.executemany(DROP_OUTCOME, [(run, batch, position) for position, _ in outcomes])
                dead = sum(state == Outcome.DEAD for _, state in outcomes)
                self._batches.settle(batch, settled, moved=len(outcomes), dead=-dead, failed=dead - len(outcomes))
                while len(waiting) >= size:
                    self._add(waiting[:size])
                    del waiting[:size]
            self._add(waiting)

    def _add(self, requests: list[tuple[int, str]]) -> None:
        """*requests*: (batch, body). Only those of one batch have a parent."""
        parents = {batch for batch, _ in requests}
        self._batches.add([body for _, body in requests], parent=parents.pop() if len(parents) == 1 else None)

"""How the run stands, and whether it is over."""

from __future__ import annotations

import json
import time

from scrapy_distributed.ledger.balance import Balance, Losses, Raised
from scrapy_distributed.ledger.sqlite_schema import read_balance, read_losses, read_raised
from scrapy_distributed.ledger.sqlite_store import Store, while_available
from scrapy_distributed.ledger.sums import sum_of_stats

# SQLite uses a partial index only where its condition is repeated: without it these walk through all batches of a run.
UNSETTLED = """
SELECT 1 FROM batch WHERE run = :run AND state <> 'settled'
UNION ALL SELECT 1 FROM queued WHERE run = :run
UNION ALL SELECT 1 FROM found WHERE run = :run LIMIT 1
"""
UNPOSTED = """
SELECT 1 FROM batch WHERE run = :run AND state = 'ready' AND state <> 'settled'
UNION ALL SELECT 1 FROM attempt WHERE run = :run AND state = 'bound' AND state IN ('bound', 'sent', 'unknown')
UNION ALL SELECT 1 FROM queued WHERE run = :run
UNION ALL SELECT 1 FROM found WHERE run = :run LIMIT 1
"""
ACCEPTED_STATS = """
SELECT stats FROM attempt WHERE run = ? AND state = 'accepted' AND stats IS NOT NULL ORDER BY batch, number
"""
STOP_RUN = "UPDATE run SET stopped = :why, walked = ifnull(walked, :now) WHERE id = :run"
STOP_ATTEMPTS = """
UPDATE attempt SET state = 'rejected', ended = :now, reason = iif(reason IS NULL, '', reason || '; ') || :why
WHERE run = :run AND state IN ('bound', 'sent', 'unknown')
"""
STOP_BATCHES = "UPDATE batch SET state = 'ready' WHERE run = :run AND state = 'in flight' AND state <> 'settled'"
ITEMS = "SELECT sum(ifnull(home, items)) FROM attempt WHERE run = ? AND state = 'accepted'"
END_RUN = "UPDATE run SET ended = :now, walked = ifnull(walked, :now) WHERE id = :run AND (:walked OR walked > 0)"


class Account:
    """For the coordinator's summary, and for what asks whether there is more to do."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @while_available
    def balance(self) -> Balance:
        return read_balance(self._store.db, self._store.run_id)

    @while_available
    def losses(self) -> Losses:
        return read_losses(self._store.db, self._store.run_id)

    @while_available
    def raised(self) -> list[Raised]:
        """What code of the project has raised on workers, the most frequent first."""
        return read_raised(self._store.db, self._store.run_id)

    @while_available
    def worker_stats(self) -> tuple[dict[str, float], int]:
        """The ``sum_of_stats`` of accepted attempts."""
        rows = self._store.db.execute(ACCEPTED_STATS, (self._store.run_id,))
        return sum_of_stats(json.loads(text) for (text,) in rows)

    @while_available
    def settled(self) -> bool:
        """Whether nothing is queued and every batch is settled, or nothing more is to be crawled."""
        return (
            self._store.stopped is not None
            or self._store.db.execute(UNSETTLED, {"run": self._store.run_id}).fetchone() is None
        )

    @while_available
    def posted(self) -> bool:
        """Whether every request has been taken by a node, those of the open batch included, or none is to be."""
        return (
            self._store.stopped is not None
            or self._store.db.execute(UNPOSTED, {"run": self._store.run_id}).fetchone() is None
        )

    @property
    def stopped(self) -> str | None:
        """Why nothing more of the run is crawled, if that is so."""
        return self._store.stopped

    @while_available
    def items(self) -> int:
        """How many items the attempts that count have brought."""
        (items,) = self._store.row(ITEMS, (self._store.run_id,))
        return items or 0

    @while_available
    def stop(self, why: str) -> None:
        """Nothing more of the run is crawled: what is queued or in flight is *not crawled*, and no attempt counts any
        more that has not yet. Its walk is over. Survives a power cut."""
        values = {"run": self._store.run_id, "now": time.time(), "why": why}
        with self._store.transaction(durable=True):
            self._store.db.execute(STOP_ATTEMPTS, values | {"why": f"the crawl has ended before: {why}"})
            self._store.db.execute(STOP_BATCHES, values)
            self._store.db.execute(STOP_RUN, values)
        self._store.stopped = why

    @while_available
    def end(self, *, walked: bool = False) -> bool:
        """Mark the run as ended, if it is settled and its walk is done, which it is at once to be said with this where
        it is *walked* now. Returns whether it has ended."""
        ended = {"now": time.time(), "run": self._store.run_id, "walked": walked}
        return self.balance().settled and self._store.db.execute(END_RUN, ended).rowcount > 0

"""What comes in: requests that the coordinator's own crawl or workers have found, each once, until they are in batches;
and how far that crawl is."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.finds import Finds
from scrapy_distributed.ledger.sqlite_batches import Batches, joined
from scrapy_distributed.ledger.sqlite_store import Store, usable, while_available

ADD_REQUEST = "INSERT INTO request VALUES (?, ?)"
COUNT_DUPLICATES = "UPDATE run SET duplicates = duplicates + ? WHERE id = ?"
ADD_QUEUED = "INSERT INTO queued (run, size, bodies) VALUES (?, ?, ?)"
QUEUED = "SELECT bodies FROM queued WHERE run = ? AND avoid IS NULL ORDER BY id"
HAS_QUEUED = "SELECT 1 FROM queued WHERE run = ? LIMIT 1"
OPEN_SIZES = "SELECT id, size FROM queued WHERE run = ? AND avoid IS NULL ORDER BY id"
CUT_QUEUED = "UPDATE queued SET size = ?, bodies = ? WHERE id = ?"
CLEAR_QUEUED = "DELETE FROM queued WHERE run = ? AND avoid IS NULL AND id < ?"
AGAIN_SIZES = "SELECT avoid, sum(size) FROM queued WHERE run = ? AND avoid IS NOT NULL GROUP BY avoid"
AGAIN = "SELECT bodies FROM queued WHERE run = ? AND avoid = ? ORDER BY id"
CLEAR_AGAIN = "DELETE FROM queued WHERE run = ? AND avoid = ?"
FOUND = "SELECT id, packed FROM found WHERE run = ? ORDER BY id LIMIT 1"
CLEAR_FOUND = "DELETE FROM found WHERE id = ?"
WALKED = "UPDATE run SET walked = coalesce(walked, ?) WHERE id = ?"
WALK_ON = "UPDATE run SET walked = NULL WHERE id = ?"
SET_LOST = "UPDATE run SET lost = ? WHERE id = ?"


class Intake:
    """For the coordinator's crawl, and for what cuts batches."""

    def __init__(self, store: Store, batches: Batches) -> None:
        self._store = store
        self._batches = batches

    @while_available
    def divert(self, requests: Iterable[tuple[bytes, str]]) -> list[str]:
        """Enter (key, encoded request) pairs; returns the requests whose key is new to the run, in order."""
        with self._unseen(requests) as unseen, self._store.transaction():
            return self._divert(*unseen)

    @while_available
    def divert_found(self) -> tuple[int, list[str]] | None:
        """``divert`` some of what accepted attempts have found, the first of it: how many these were, and the requests
        that are new. ``None`` if nothing is left."""
        row = self._store.db.execute(FOUND, (self._store.run,)).fetchone()
        if row is None:
            return None
        try:
            entries = Finds.unpacked(row[1])
        except (zlib.error, ValueError) as error:
            raise LedgerUnavailableError(f"damaged: targets that were found: {error}") from None
        with self._unseen(entries) as unseen, self._store.transaction():
            self._store.db.execute(CLEAR_FOUND, (row[0],))
            return len(entries), self._divert(*unseen)

    @while_available
    def occurrence(self, key: bytes) -> int:
        """How often this was called for *key* since the ledger was opened, this call included. Takes no memory."""
        with self._store.scratch():
            return self._store.occurrences.count(key)

    def queued(self) -> list[str]:
        """The requests of the open batch. Raises ``LedgerError`` where the file can't be read."""
        with usable(self._store.path):
            return _texts(self._store.db.execute(QUEUED, (self._store.run,)))

    @while_available
    def has_queued(self) -> bool:
        """Whether requests wait for a batch to be closed."""
        return self._store.db.execute(HAS_QUEUED, (self._store.run,)).fetchone() is not None

    @while_available
    def close_batches(self, batches: Sequence[Sequence[str]], still_open: Sequence[str]) -> int:
        """Make ready batches of *batches*, split where a payload is over the ceiling; returns their number. They are
        the first of what is queued; *still_open* is what is left of it."""
        with self._store.transaction():
            self._unqueue(sum(map(len, batches)), still_open)
            return sum(self._batches.add(bodies) for bodies in batches)

    @while_available
    def close_again(self, size: int, *, all_of_it: bool) -> int:
        """Make ready batches of the requests that are to be tried on another node, where there are *size* of them for
        the same node, or of *all_of_it*; returns their number."""
        db, run = self._store.db, self._store.run
        made = 0
        for avoid, count in db.execute(AGAIN_SIZES, (run,)).fetchall():
            if count < size and not all_of_it:
                continue
            with self._store.transaction():
                bodies = _texts(db.execute(AGAIN, (run, avoid)))
                db.execute(CLEAR_AGAIN, (run, avoid))
                for start in range(0, len(bodies), size):
                    made += self._batches.add(bodies[start : start + size], avoid=avoid, last=avoid)
        return made

    # The coordinator's own crawl

    @while_available
    def walked(self) -> None:
        """The crawl on the coordinator has found all it will find."""
        self._store.db.execute(WALKED, (time.time(), self._store.run))

    @while_available
    def walk_on(self) -> None:
        """It has not, after all. Survives a power cut: what it finds from now on may not."""
        with self._store.transaction(durable=True):
            self._store.db.execute(WALK_ON, (self._store.run,))

    @while_available
    def lost_own(self, lost: Mapping[str, int]) -> None:
        """What has failed so far of the crawl on the coordinator, reason to number; not yet durable if no ``walked``
        follows: then that crawl runs again."""
        self._store.db.execute(SET_LOST, (json.dumps(dict(lost)), self._store.run))

    # Inside

    @contextmanager
    def _unseen(self, requests: Iterable[tuple[bytes, str]]) -> Iterator[tuple[list[tuple[bytes, str]], int]]:
        """Those of *requests* whose keys were not in the seen-set, and the number of the others. After an error these
        keys are taken out again."""
        entries = list(requests)
        with self._store.scratch():
            is_new = self._store.seen.add(key for key, _ in entries)
        unseen = [entry for entry, new in zip(entries, is_new, strict=True) if new]
        try:
            yield unseen, len(entries) - len(unseen)
        except BaseException:
            self._store.seen.discard(key for key, _ in unseen)
            raise

    def _divert(self, unseen: list[tuple[bytes, str]], duplicates: int) -> list[str]:
        db, run = self._store.db, self._store.run
        new = [body for _, body in unseen]
        if new:
            db.executemany(ADD_REQUEST, [(run, key) for key, _ in unseen])
            db.execute(ADD_QUEUED, (run, len(new), joined(new)))
        if duplicates:
            db.execute(COUNT_DUPLICATES, (duplicates, run))
        return new

    def _unqueue(self, count: int, still_open: Sequence[str]) -> None:
        """Take the first *count* requests out of ``queued``. Rows behind them are left alone: there may be many."""
        db, run = self._store.db, self._store.run
        first_left = 0
        for row, size in db.execute(OPEN_SIZES, (run,)):
            first_left = row + 1
            count -= size
            if count < 0:
                db.execute(CUT_QUEUED, (-count, joined(still_open[:-count]), row))
                first_left = row
            if count <= 0:
                break
        if count > 0:
            raise LedgerUnavailableError(f"{count} requests of the open batch are not queued")
        db.execute(CLEAR_QUEUED, (run, first_left))


def _texts(rows: Iterable[tuple[str]]) -> list[str]:
    """The requests in rows of ``queued``, as texts."""
    return [json.dumps(element, separators=(",", ":")) for (text,) in rows for element in json.loads(text)]

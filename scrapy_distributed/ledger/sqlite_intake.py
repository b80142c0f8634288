"""What comes in: requests that the coordinator's own crawl or workers have found, each once, until they are in batches;
and how far that crawl is."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.finds import Finds
from scrapy_distributed.ledger.sqlite_batches import Batches, joined, separated
from scrapy_distributed.ledger.sqlite_store import Store, usable, while_available
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.session import Session, in_session, session_of, sessions_of

ADD_REQUEST = "INSERT INTO request VALUES (?, ?)"
COUNT_DUPLICATES = "UPDATE run SET duplicates = duplicates + ? WHERE id = ?"
ADD_QUEUED = "INSERT INTO queued (run, size, bodies) VALUES (?, ?, ?)"
OPEN = "SELECT id, size, bodies FROM queued WHERE run = ? AND avoid IS NULL ORDER BY id"
HAS_QUEUED = "SELECT 1 FROM queued WHERE run = ? LIMIT 1"
CUT_OPEN = "UPDATE queued SET size = ?, bodies = ? WHERE id = ?"
CLEAR_OPEN = "DELETE FROM queued WHERE run = ? AND avoid IS NULL AND id < ?"
AGAIN_SIZES = "SELECT avoid, sum(size) FROM queued WHERE run = ? AND avoid IS NOT NULL GROUP BY avoid"
AGAIN = "SELECT bodies, size FROM queued WHERE run = ? AND avoid = ? ORDER BY id"
CLEAR_AGAIN = "DELETE FROM queued WHERE run = ? AND avoid = ?"
FOUND = "SELECT id, packed FROM found WHERE run = ? ORDER BY id LIMIT 1"
CLEAR_FOUND = "DELETE FROM found WHERE id = ?"
WALKED = "UPDATE run SET walked = coalesce(walked, ?) WHERE id = ?"
WALK_ON = "UPDATE run SET walked = NULL WHERE id = ?"
NO_SESSIONS: Mapping[str, Session] = {}
SET_LOST = "UPDATE run SET lost = ? WHERE id = ?"


class Intake:
    """For the coordinator's crawl, and for what cuts batches."""

    def __init__(self, store: Store, batches: Batches) -> None:
        self._store = store
        self._batches = batches

    @while_available
    def divert(self, requests: Iterable[tuple[bytes, str]], sessions: Mapping[str, Session] = NO_SESSIONS) -> list[str]:
        """Enter (key, encoded request) pairs; returns the requests whose key is new to the run, in order. *sessions*:
        those of them, by id."""
        with self._unseen(requests) as unseen, self._store.transaction():
            new = self._divert(*unseen)
            if sessions:
                self._batches.keep_sessions(sessions[session] for session in sessions_of(new))
            return new

    @while_available
    def divert_found(self) -> tuple[int, list[str]] | None:
        """``divert`` some of what accepted attempts have found, the first of it: how many these were, and the requests
        that are new. ``None`` if nothing is left."""
        row = self._store.db.execute(FOUND, (self._store.run_id,)).fetchone()
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
    def jars_of(self, attempt: Attempt) -> dict[str, Any]:
        """The keys of the jars of the sessions that *attempt* was sent, by their ids."""
        return self._batches.jars(attempt)

    @while_available
    def occurrence(self, key: bytes) -> int:
        """How often this was called for *key* since the ledger was opened, this call included. Takes no memory."""
        with self._store.scratch():
            return self._store.occurrences.count(key)

    def open_batch(self) -> tuple[int, int]:
        """How many requests wait to be cut into batches, and the characters of all their texts. Raises ``LedgerError``
        where the file can't be read."""
        with usable(self._store.path):
            lengths: list[int] = []
            for _, size, text in self._store.db.execute(OPEN, (self._store.run_id,)):
                json.loads(text)  # what is damaged is refused here, before the crawl begins
                lengths += map(len, separated(text, size))
        return len(lengths), sum(lengths)

    @while_available
    def has_queued(self) -> bool:
        """Whether requests wait to be cut into batches, those included that are to be tried again."""
        return self._store.db.execute(HAS_QUEUED, (self._store.run_id,)).fetchone() is not None

    @while_available
    def cut(
        self, sizes: Sequence[int], renewed: Callable[[str], Session | None] = lambda session: None
    ) -> tuple[int, int]:
        """Make ready batches of the first requests of the open batch, as many in each as *sizes* says, split where a
        payload is over the ceiling. *renewed*: what has become of a session, by its id, if anything. Returns the number
        of batches, and the characters of the texts in them."""
        with self._store.transaction():
            bodies = self._renewed(self._take(sum(sizes)), renewed)
            ends = accumulate(sizes)
            made = sum(self._batches.add(bodies[end - size : end]) for size, end in zip(sizes, ends, strict=True))
        return made, sum(map(len, bodies))

    @while_available
    def cut_again(self, size: int, *, all_of_it: bool) -> int:
        """Make ready batches of the requests that are to be tried on another node, where there are *size* of them for
        the same node, or of *all_of_it*; returns their number."""
        db, run = self._store.db, self._store.run_id
        made = 0
        for avoid, count in db.execute(AGAIN_SIZES, (run,)).fetchall():
            if count < size and not all_of_it:
                continue
            with self._store.transaction():
                bodies = [body for row in db.execute(AGAIN, (run, avoid)) for body in _undamaged(*row)]
                db.execute(CLEAR_AGAIN, (run, avoid))
                for start in range(0, len(bodies), size):
                    made += self._batches.add(bodies[start : start + size], avoid=avoid, last=avoid)
        return made

    # The coordinator's own crawl

    @while_available
    def walked(self) -> None:
        """The crawl on the coordinator has found all it will find."""
        self._store.db.execute(WALKED, (time.time(), self._store.run_id))

    @while_available
    def walk_on(self) -> None:
        """It has not, after all. Survives a power cut: what it finds from now on may not."""
        with self._store.transaction(durable=True):
            self._store.db.execute(WALK_ON, (self._store.run_id,))

    @while_available
    def lost_own(self, lost: Mapping[str, int]) -> None:
        """What has failed so far of the crawl on the coordinator, reason to number; not yet durable if no ``walked``
        follows: then that crawl runs again."""
        self._store.db.execute(SET_LOST, (json.dumps(dict(lost)), self._store.run_id))

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
        db, run = self._store.db, self._store.run_id
        new = [body for _, body in unseen]
        if new:
            db.executemany(ADD_REQUEST, [(run, key) for key, _ in unseen])
            db.execute(ADD_QUEUED, (run, len(new), joined(new)))
        if duplicates:
            db.execute(COUNT_DUPLICATES, (duplicates, run))
        return new

    def _take(self, count: int) -> list[str]:
        """The first *count* requests of the open batch, taken out of it. Rows behind them are left alone: there may be
        many."""
        db, run = self._store.db, self._store.run_id
        bodies: list[str] = []
        first_left = 0
        for row, size, text in db.execute(OPEN, (run,)):
            bodies += _undamaged(text, size)
            first_left = row + 1
            if rest := bodies[count:]:
                db.execute(CUT_OPEN, (len(rest), joined(rest), row))
                first_left = row
            if len(bodies) >= count:
                break
        if len(bodies) < count:
            raise LedgerUnavailableError(f"{count - len(bodies)} requests of the open batch are not queued")
        db.execute(CLEAR_OPEN, (run, first_left))
        return bodies[:count]

    def _renewed(self, bodies: list[str], renewed: Callable[[str], Session | None]) -> list[str]:
        new = {session: now for session in sessions_of(bodies) if (now := renewed(session)) is not None}
        if not new:
            return bodies
        self._batches.keep_sessions(new.values())
        named = ((body, new.get(session_of(body) or "")) for body in bodies)
        return [body if session is None else in_session(body, session.id) for body, session in named]


def _undamaged(text: str, size: int) -> list[str]:
    try:
        return separated(text, size)
    except ValueError as error:
        raise LedgerUnavailableError(f"damaged: requests that are queued: {error}") from None

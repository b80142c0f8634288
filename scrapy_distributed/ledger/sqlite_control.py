"""What an operator wishes of a run."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.ledger.balance import NOT_CRAWLED
from scrapy_distributed.ledger.spooled import own_from_json, spool_name
from scrapy_distributed.ledger.sqlite_batches import Batches, as_text
from scrapy_distributed.ledger.sqlite_schema import read_balance
from scrapy_distributed.ledger.sqlite_store import Store
from scrapy_distributed.ledger.wanted import Retried, Wanted
from scrapy_distributed.wire.bitmap import bitmap_from_bytes, bitmap_to_bytes, bits
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.wire.payload import decode_payload

LAST_RUN = "SELECT id, name FROM run ORDER BY id DESC LIMIT 1"
STOPPED = "SELECT stopped FROM run WHERE id = ?"
# Its walk was cut short by what has stopped it, too.
REOPEN_RUN = """
UPDATE run SET ended = NULL, walked = iif(stopped IS NULL, walked, NULL), stopped = NULL WHERE id = ?
"""
WALK_AGAIN = "UPDATE run SET walked = NULL WHERE id = ?"
UNDONE = """
SELECT batch, position, state, reason, again FROM outcome WHERE run = ? AND state IN ('failed', 'dead')
ORDER BY batch, position
"""
OUTCOMES = "SELECT position, state FROM outcome WHERE run = ? AND batch = ?"
DROP_EXAMPLE = """
DELETE FROM example WHERE run = :run AND reason = :reason
AND NOT EXISTS (SELECT 1 FROM outcome WHERE run = :run AND state = 'failed' AND outcome.reason = :reason)
"""
LARGEST = "SELECT max(size) FROM batch WHERE run = ?"
DROP_OUTCOME = "DELETE FROM outcome WHERE run = ? AND batch = ? AND position = ?"
DROP_LANDED = "DELETE FROM landed WHERE run = ? AND batch = ? AND position = ?"
SETTLED_BY = "SELECT number, settled FROM attempt WHERE run = ? AND batch = ? AND state = 'accepted'"
SET_SETTLED_BY = "UPDATE attempt SET settled = ? WHERE run = ? AND batch = ? AND number = ?"
OWN_FILES = "SELECT spooled, own FROM run WHERE id = ?"
AT_HOME = """
SELECT batch, number, token, settled FROM attempt WHERE run = ? AND state = 'accepted' AND home IS NOT NULL
ORDER BY batch, number
"""
REJECT = "UPDATE attempt SET state = 'rejected', reason = ? WHERE run = ? AND batch = ? AND number = ?"
PARTIAL = "SELECT batch, number, settled FROM attempt WHERE run = ? AND state = 'accepted' AND partial ORDER BY batch"
DROP_PAGES = "DELETE FROM page WHERE run = ? AND batch = ? AND attempt = ?"

OF_DAMAGE = (ValueError, TypeError, LookupError, OverflowError, RecursionError)  # what reading a damaged file makes


class Control:
    """For what an operator changes: the run that has begun, else the last one of the ledger. In that, what goes out
    again does so when the command that began the run takes it up again; it alone can be opened again.

    Raises ``LedgerError`` if there is no run, or if the ledger is damaged; then nothing was changed."""

    def __init__(self, store: Store, batches: Batches) -> None:
        self._store = store
        self._batches = batches

    def retry(self, wanted: Wanted, *, parts: int = 1) -> Retried:
        """Put the dead and the failed requests that are *wanted* into new batches, about so many *parts*. A run that
        was stopped goes on then, or where what is not crawled is wanted: with all that is not crawled, and without the
        attempts whose items of unfinished requests have counted: what these had settled goes out again as well. While
        its crawl still closes that is refused: it counts on what it has accepted.

        Of those whose callback had begun items may be in a feed already: they are left out unless these are wanted."""
        with self._last_run():
            chosen: dict[int, list[int]] = {}  # batch -> positions
            left_out = begun = 0
            (stopped,) = self._store.row(STOPPED, (self._store.run_id,))
            if self._store.goes_on and stopped is not None:
                raise LedgerError(f"the crawl is closing ({stopped}): ask again when it has ended")
            reasons: set[str] = set()
            for batch, position, state, reason, again in self._store.db.execute(UNDONE, (self._store.run_id,)):
                if wanted(state, reason):
                    left_out += not again and not wanted.begun
                    if again or wanted.begun:
                        begun += not again
                        reasons.add(reason)
                        chosen.setdefault(batch, []).append(position)
            if not chosen and (stopped is None or not wanted(NOT_CRAWLED, stopped)):
                return Retried(0, left_out)
            not_crawled = read_balance(self._store.db, self._store.run_id).not_crawled
            again, batches = self._retry(chosen, parts, reasons)
            return Retried(again + not_crawled, left_out, begun, batches)

    def lose_items(self, names: Collection[str]) -> int:
        """The files called *names* in the spool are lost: their attempts do not count any more, and what these had
        settled goes out again. Where one is the coordinator's own its walk is to be done again. A run that was stopped
        goes on then, as it does by ``retry``.

        Returns how many requests go out again."""
        with self._last_run():
            db, run = self._store.db, self._store.run_id
            spooled, own = self._store.row(OWN_FILES, (run,))
            stored = {name for some, _ in json.loads(own) for name in some}
            walk_again = bool((own_from_json(spooled).keys() & names) - stored)
            again: dict[int, list[str]] = defaultdict(list)  # batch -> requests
            with self._store.transaction(durable=True):
                if walk_again or self._of_files(names):
                    for batch, body in self._reopen({}):
                        again[batch].append(body)
                if walk_again:
                    db.execute(WALK_AGAIN, (run,))
                for batch, number, settled in self._of_files(names):  # but for those that counted in part
                    positions = list(bits(bitmap_from_bytes(settled)))
                    again[batch] += self._give_up(batch, number, positions, "its items came home and were lost there")
                for batch, bodies in again.items():
                    if bodies:
                        self._batches.add(bodies, parent=batch)
            return sum(map(len, again.values()))

    # Inside

    def _of_files(self, names: Collection[str]) -> list[tuple[int, int, bytes]]:
        """Of attempts that count and whose items are in the spool under one of *names*: batch, number, what each has
        settled."""
        rows = self._store.db.execute(AT_HOME, (self._store.run_id,)).fetchall()
        return [(batch, number, settled) for batch, number, token, settled in rows
                if spool_name(batch, number, token) in names]  # fmt: skip

    @contextmanager
    def _last_run(self) -> Iterator[None]:
        store = self._store
        try:
            if not store.run_id:
                last = store.db.execute(LAST_RUN).fetchone()
                if last is None:
                    raise LedgerError(f"{store.path}: no run in it, so there is nothing to try again")
                store.run_id, store.run_name = last
            yield
        except (sqlite3.Error, LedgerUnavailableError, *OF_DAMAGE) as error:
            raise LedgerError(f"{store.path}: can't be used as ledger: {error}; nothing was changed") from None

    def _retry(self, chosen: dict[int, list[int]], parts: int, reasons: set[str]) -> tuple[int, int]:
        """*chosen*: batch -> positions. The new batches are as large as those of the run were, or smaller for *parts*:
        a worker for the few of each batch would cost too much. *reasons*: why they had failed; what errors have said is
        forgotten where none is left. Returns how many requests are in the batches, and the number of these."""
        db, run = self._store.db, self._store.run_id
        (size,) = db.execute(LARGEST, (run,)).fetchone()
        batches = 0
        with self._store.transaction(durable=True):
            waiting = [] if self._store.goes_on else self._reopen(chosen)
            taken = len(waiting) + sum(map(len, chosen.values()))
            size = max(1, min(size or 1, -(-taken // parts)))
            for batch, positions in chosen.items():
                waiting += [(batch, body) for body in self._take_out(batch, positions)]
                while len(waiting) >= size:
                    batches += self._add(waiting[:size])
                    del waiting[:size]
            batches += self._add(waiting)
            db.executemany(DROP_EXAMPLE, [{"run": run, "reason": reason} for reason in reasons])
        return taken, batches

    def _reopen(self, chosen: dict[int, list[int]]) -> list[tuple[int, str]]:
        """The run is over no more, and attempts that count in part do not count. What these had settled is returned,
        and taken out of *chosen*."""
        db, run = self._store.db, self._store.run_id
        taken: list[tuple[int, str]] = []
        db.execute(REOPEN_RUN, (run,))
        for batch, number, settled in db.execute(PARTIAL, (run,)).fetchall():
            positions = list(bits(bitmap_from_bytes(settled)))
            bodies = self._give_up(batch, number, positions, "its run goes on, and it has items of what goes out again")
            taken += [(batch, body) for body in bodies]
            chosen[batch] = [position for position in chosen.get(batch, []) if position not in positions]
        return taken

    def _give_up(self, batch: int, number: int, positions: Sequence[int], why: str) -> list[str]:
        """The attempt *number* at *batch*, which was accepted, does not count any more; the requests at *positions*,
        which it had settled, are to be in other batches. Returns these as texts."""
        db, run = self._store.db, self._store.run_id
        bodies = self._take_out(batch, positions)
        db.execute(REJECT, (why, run, batch, number))
        db.execute(DROP_PAGES, (run, batch, number))
        return bodies

    def _take_out(self, batch: int, positions: Sequence[int]) -> list[str]:
        """The requests at *positions* of *batch*, which are settled, are in other batches from now on: they have no
        outcome there, and no attempt at it has settled them. Returns them as texts."""
        db, where, taken = self._store.db, (self._store.run_id, batch), set(positions)
        elements = decode_payload(self._batches.payload(batch))
        bodies = [as_text(elements[position]) for position in positions]
        states = [state for position, state in db.execute(OUTCOMES, where) if position in taken]
        rows = [(*where, position) for position in positions]
        db.executemany(DROP_OUTCOME, rows)
        db.executemany(DROP_LANDED, rows)
        for number, settled in db.execute(SETTLED_BY, where).fetchall():
            left = bitmap_from_bytes(settled) & ~sum(1 << position for position in positions)
            db.execute(SET_SETTLED_BY, (bitmap_to_bytes(left), *where, number))
        failed, filtered, dead = (states.count(one) for one in (Outcome.FAILED, Outcome.FILTERED, Outcome.DEAD))
        self._batches.settle(
            batch, self._batches.get(batch).settled, moved=len(rows), failed=-failed, filtered=-filtered, dead=-dead,
            crawled=len(states) - len(rows),
        )  # fmt: skip
        return bodies

    def _add(self, requests: list[tuple[int, str]]) -> int:
        """*requests*: (batch, body). Only those of one batch have a parent. Returns the number of batches."""
        parents = {batch for batch, _ in requests}
        return self._batches.add([body for _, body in requests], parent=parents.pop() if len(parents) == 1 else None)

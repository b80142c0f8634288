"""The ledger: de-duplication, queue and account of a run in one SQLite file. Each transition is one method and one
transaction.

A request is a key (its fingerprint) from the moment it is diverted, and a text until its batch is closed; then the
batch's payload holds it. So memory does not grow with the number of requests, and the file grows by its key and its
share of a compressed payload.

Durability: a transition survives the death of the process as soon as its method returns. What is posted to a node or
accepted from one (``bind``, ``settle``) also survives a power cut (``synchronous=FULL``); requests diverted in the last
moments before a power cut may be missing, and the walk that finds them again is run again by the same command.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.ledger.balance import Balance, Losses
from scrapy_distributed.ledger.rules import HALVED_AT, Batch, fate_of, objection
from scrapy_distributed.ledger.sqlite_schema import (
    check_beside,
    check_format,
    check_owner,
    check_sound,
    create,
    hold,
    read_balance,
    read_losses,
)
from scrapy_distributed.ledger.sqlite_seen import Occurrences, Seen
from scrapy_distributed.ledger.states import Attempt, AttemptState, BatchState, Blame, Fate, new_token
from scrapy_distributed.ledger.sums import sum_of_stats
from scrapy_distributed.wire.bitmap import bitmap_from_bytes, bitmap_to_bytes, bits
from scrapy_distributed.wire.payload import decode_payload, encode_payload, split
from scrapy_distributed.wire.receipt import Receipt

P = ParamSpec("P")
T = TypeVar("T")

FILL = 10_000  # keys that are read at once
LONGEST_LOG = 4000  # pages of the write-ahead log
LEAST_LOG = 16
LOG_PART = 16  # and no more than this part of what is free on its disk
LIVE_STATES = (AttemptState.BOUND, AttemptState.SENT, AttemptState.UNKNOWN)

FIND_RUN = "SELECT id, name, walked FROM run WHERE identity = ? AND ended IS NULL"
ADD_RUN = "INSERT INTO run (name, identity, started) VALUES (?, ?, ?)"
ABANDON_RUN = "UPDATE run SET ended = ? WHERE id = ?"
ADD_REQUEST = "INSERT INTO request VALUES (?, ?)"
KEYS = "SELECT key FROM request WHERE run = ?"
ADD_QUEUED = "INSERT INTO queued (run, size, bodies) VALUES (?, ?, ?)"
COUNT_DUPLICATES = "UPDATE run SET duplicates = duplicates + ? WHERE id = ?"
QUEUED = "SELECT bodies FROM queued WHERE run = ? AND avoid IS NULL ORDER BY id"
HAS_QUEUED = "SELECT 1 FROM queued WHERE run = ? LIMIT 1"
OPEN_SIZES = "SELECT id, size FROM queued WHERE run = ? AND avoid IS NULL ORDER BY id"
CUT_QUEUED = "UPDATE queued SET size = ?, bodies = ? WHERE id = ?"
CLEAR_QUEUED = "DELETE FROM queued WHERE run = ? AND avoid IS NULL AND id < ?"
ADD_AGAIN = "INSERT INTO queued (run, size, bodies, avoid) VALUES (?, ?, ?, ?)"
AGAIN_SIZES = "SELECT avoid, sum(size) FROM queued WHERE run = ? AND avoid IS NOT NULL GROUP BY avoid"
AGAIN = "SELECT bodies FROM queued WHERE run = ? AND avoid = ? ORDER BY id"
CLEAR_AGAIN = "DELETE FROM queued WHERE run = ? AND avoid = ?"
ADD_FOUND = "INSERT INTO found (run, size, packed) VALUES (?, ?, ?)"
FOUND = "SELECT id, packed FROM found WHERE run = ? ORDER BY id LIMIT 1"
CLEAR_FOUND = "DELETE FROM found WHERE id = ?"
NEXT_BATCH = "UPDATE run SET batches = batches + 1 WHERE id = ? RETURNING batches"
ADD_BATCH = """
INSERT INTO batch (run, number, size, payload, state, parent, avoid, last, failures)
VALUES (?, ?, ?, ?, 'ready', ?, ?, ?, ?)
"""
# SQLite uses a partial index only where its condition is repeated: without it these walk through all batches of a run.
# READY goes from each node where a ready batch was last to the next: as many steps as there are such nodes.
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
BATCH = "SELECT size, settled, attempts, failures, state, avoid FROM batch WHERE run = ? AND number = ?"
PAYLOAD = "SELECT payload FROM batch WHERE run = ? AND number = ?"
BIND_BATCH = "UPDATE batch SET state = 'in flight', attempts = ?, last = ? WHERE run = ? AND number = ?"
ADD_ATTEMPT = """
INSERT INTO attempt (run, batch, number, token, node, url, state, positions, bound)
VALUES (?, ?, ?, ?, ?, ?, 'bound', ?, ?)
"""
SET_ATTEMPT = """\
UPDATE attempt SET state = :state, ended = :ended,
    reason = CASE state WHEN 'unknown' THEN reason || '; ' || :reason ELSE :reason END
WHERE run = :run AND batch = :batch AND number = :number
"""
ATTEMPT_STATE = "SELECT state FROM attempt WHERE run = ? AND batch = ? AND number = ?"
RELEASE_BATCH = """
UPDATE batch SET state = 'ready', failures = failures + :counts
WHERE run = :run AND number = :batch AND state <> 'settled'
AND NOT EXISTS (SELECT 1 FROM attempt WHERE run = :run AND batch = :batch AND state IN ('bound', 'sent'))
"""
ACCEPT_ATTEMPT = """
UPDATE attempt SET state = 'accepted', ended = ?, reason = ?, items = ?, feeds = ?, stats = ?, unexported = ?,
    followed = ?
WHERE run = ? AND batch = ? AND number = ?
"""
SETTLE_BATCH = """
UPDATE batch SET settled = :settled, crawled = crawled + :crawled, failed = failed + :failed,
    filtered = filtered + :filtered, dead = dead + :dead, moved = moved + :moved,
    state = CASE WHEN crawled + failed + filtered + dead + moved + :count = size THEN 'settled' ELSE state END
WHERE run = :run AND number = :batch
"""
ADD_OUTCOME = "INSERT INTO outcome VALUES (?, ?, ?, ?, ?, ?)"
ADD_LANDED = "INSERT OR REPLACE INTO landed VALUES (?, ?, ?, ?)"  # tried again, it may land elsewhere
LIVE = """
SELECT batch, number, token, node, url, state, positions FROM attempt
WHERE run = ? AND state IN ('bound', 'sent', 'unknown')
"""
ACCEPTED_STATS = """
SELECT stats FROM attempt WHERE run = ? AND state = 'accepted' AND stats IS NOT NULL ORDER BY batch, number
"""
END_RUN = "UPDATE run SET ended = ? WHERE id = ? AND walked IS NOT NULL"
OTHER_RUNS = "SELECT name FROM run WHERE ended IS NULL AND id <> ? ORDER BY id"
WALK_ON = "UPDATE run SET walked = NULL WHERE id = ?"
WALKED = "UPDATE run SET walked = coalesce(walked, ?) WHERE id = ?"
SET_LOST = "UPDATE run SET lost = ? WHERE id = ?"
LAST_RUN = "SELECT id, name FROM run ORDER BY id DESC LIMIT 1"
REOPEN_RUN = "UPDATE run SET ended = NULL WHERE id = ?"
UNDONE = """
SELECT batch, position, state, reason, again FROM outcome WHERE run = ? AND state IN ('failed', 'dead')
ORDER BY batch, position
"""
LARGEST = "SELECT max(size) FROM batch WHERE run = ?"
DROP_OUTCOME = "DELETE FROM outcome WHERE run = ? AND batch = ? AND position = ?"


@dataclass(frozen=True, kw_only=True)
class Finds:
    """Some of the targets that an attempt has found, as the ledger keeps them until they are diverted: a line for each,
    of its key and of the encoded request, which has no line breaks."""

    size: int
    packed: bytes

    @classmethod
    def of(cls, entries: Sequence[tuple[bytes, str]]) -> Finds:
        text = "\n".join([f"{key.hex()} {body}" for key, body in entries])
        return cls(size=len(entries), packed=zlib.compress(text.encode("ascii"), 1))

    @staticmethod
    def unpacked(packed: bytes) -> list[tuple[bytes, str]]:
        lines = zlib.decompress(packed).decode("ascii").split("\n")
        return [(bytes.fromhex(key), body) for key, _, body in (line.partition(" ") for line in lines)]


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What an accepted attempt has brought. *again*: how many of its failed requests are to be tried on another
    node."""

    fate: Fate
    again: int = 0


def _while_available(method: Callable[P, T]) -> Callable[P, T]:
    """What SQLite raises is nobody else's business."""

    @wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except sqlite3.Error as error:
            raise LedgerUnavailableError(str(error)) from error

    return called


class Ledger:
    """The ledger at *path*, for one coordinator at a time. Times are seconds since the epoch.

    Raises ``LedgerError`` if the file is no ledger of this format or another coordinator holds it. Once the run has
    begun each method may raise ``LedgerUnavailableError``; then it has done nothing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.realpath(path))  # by whatever name: one ledger has one lock
        self.run = ""
        self._run = 0
        if sqlite3.sqlite_version_info < (3, 35):
            raise LedgerError(f"found SQLite {sqlite3.sqlite_version}, expected 3.35 or newer: use a newer Python")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = hold(self.path)
            if not self.path.exists():
                create(self.path)
            check_owner(self.path)
            check_beside(self.path)
            self._db = sqlite3.connect(self.path, timeout=5, isolation_level=None)
            check_format(self._db, self.path)
            check_sound(self._db, self.path)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {_pages_of_log(self.path.parent)}")
            self._seen = Seen(self.path.parent)
            self._occurrences = Occurrences(self.path.parent)
        except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
            self.close()
            raise self._unusable(error) from None
        except LedgerError:
            self.close()
            raise

    def close(self) -> None:
        for name in ("_db", "_seen", "_occurrences", "_lock"):  # the lock last: what it guards is closed by then
            if hasattr(self, name):
                getattr(self, name).close()

    # The run

    def begin(self, identity: dict[str, Any], *, resume: bool, wait: bool = True) -> bool:
        """Take up the unfinished run of *identity*, or begin one. Returns whether its walk is still to be done.

        Without *wait* a run whose walk is done and whose requests are all with the nodes is not taken up.
        Raises ``LedgerError`` where the file can't be read or written, as ``others`` and ``queued`` do.
        """
        text = json.dumps(identity, sort_keys=True)
        with self._usable(), self._transaction(durable=True):
            found = self._db.execute(FIND_RUN, (text,)).fetchone()
            if found and not wait and found[2] is not None:
                resume = resume and self._db.execute(UNPOSTED, {"run": found[0]}).fetchone() is not None
            if found and not resume:
                self._db.execute(ABANDON_RUN, (time.time(), found[0]))
                found = None
            if found:
                self._run, self.run, walked = found
                self._see_all()
                return walked is None
            self.run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
            self._run = int(self._db.execute(ADD_RUN, (self.run, text, time.time())).lastrowid or 0)
        return True

    def others(self) -> list[str]:
        """Names of the other unfinished runs: of other spider arguments or targets."""
        with self._usable():
            return [name for (name,) in self._db.execute(OTHER_RUNS, (self._run,))]

    @_while_available
    def divert(self, requests: Iterable[tuple[bytes, str]]) -> list[str]:
        """Enter (key, encoded request) pairs; returns the requests whose key is new to the run, in order."""
        with self._unseen(requests) as unseen, self._transaction():
            return self._divert(*unseen)

    @_while_available
    def occurrence(self, key: bytes) -> int:
        """How often this was called for *key* since the ledger was opened, this call included. Takes no memory."""
        with self._scratch():
            return self._occurrences.count(key)

    def queued(self) -> list[str]:
        """The requests of the open batch."""
        with self._usable():
            return _texts(self._db.execute(QUEUED, (self._run,)))

    @_while_available
    def close_batches(self, batches: Sequence[Sequence[str]], still_open: Sequence[str]) -> int:
        """Make ready batches of *batches*, split where a payload is over the ceiling; returns their number. They are
        the first of what is queued; *still_open* is what is left of it."""
        with self._transaction():
            self._unqueue(sum(map(len, batches)), still_open)
            return sum(self._add_batches(bodies) for bodies in batches)

    @_while_available
    def close_again(self, size: int, *, all_of_it: bool) -> int:
        """Make ready batches of the requests that are to be tried on another node, where there are *size* of them for
        the same node, or of *all_of_it*; returns their number."""
        made = 0
        for avoid, count in self._db.execute(AGAIN_SIZES, (self._run,)).fetchall():
            if count < size and not all_of_it:
                continue
            with self._transaction():
                bodies = _texts(self._db.execute(AGAIN, (self._run, avoid)))
                self._db.execute(CLEAR_AGAIN, (self._run, avoid))
                for start in range(0, len(bodies), size):
                    made += self._add_batches(bodies[start : start + size], avoid=avoid, last=avoid)
        return made

    @_while_available
    def walked(self) -> None:
        """The crawl on the coordinator has found all it will find."""
        self._db.execute(WALKED, (time.time(), self._run))

    @_while_available
    def lost_own(self, lost: Mapping[str, int]) -> None:
        """What has failed so far of the crawl on the coordinator, reason to number; not yet durable if no ``walked``
        follows: then that crawl runs again."""
        self._db.execute(SET_LOST, (json.dumps(dict(lost)), self._run))

    @_while_available
    def losses(self) -> Losses:
        return read_losses(self._db, self._run)

    @_while_available
    def walk_on(self) -> None:
        """It has not, after all. Survives a power cut: what it finds from now on may not."""
        with self._transaction(durable=True):
            self._db.execute(WALK_ON, (self._run,))

    @_while_available
    def end(self) -> bool:
        """Mark the run as ended, if its walk is done and it is settled. Returns whether it has ended."""
        return self.balance().settled and self._db.execute(END_RUN, (time.time(), self._run)).rowcount > 0

    # Attempts

    @_while_available
    def ready(self) -> list[tuple[int, str | None]]:
        """The next batches to send, each with the node where it was last: for each such node the first one."""
        return self._db.execute(READY, {"run": self._run}).fetchall()

    @_while_available
    def bind(self, batch: int, node: str, url: str = "") -> tuple[Attempt, str]:
        """A new attempt at what is not settled of *batch* on *node*, which is at *url*, and its payload. Durable."""
        with self._transaction(durable=True):
            found = self._batch(batch)
            number, positions, payload = found.attempts + 1, found.left, self._payload(batch)
            self._db.execute(BIND_BATCH, (number, node, self._run, batch))
            token = new_token()
            row = (self._run, batch, number, token, node, url, bitmap_to_bytes(positions), time.time())
            self._db.execute(ADD_ATTEMPT, row)
        if found.settled:
            payload = encode_payload(_bodies(payload, positions))
        return self._attempt(batch, number, token, node, url, AttemptState.BOUND.value, positions), payload

    @_while_available
    def sent(self, attempt: Attempt) -> None:
        """The node has taken it."""
        self._set(attempt, AttemptState.SENT, None)

    @_while_available
    def unsent(self, attempt: Attempt, reason: str) -> None:
        """It never ran: its batch is ready again, and no attempt is used up."""
        with self._transaction():
            self._set(attempt, AttemptState.UNSENT, reason, ended=True)
            self._release(attempt, counts=False)

    @_while_available
    def lose(self, attempt: Attempt, reason: str, *, counts: bool, max_attempts: int) -> Fate:
        """No sign of life: its batch is ready again, its receipt still welcome. *counts*: as the batch's failure."""
        with self._transaction():
            self._set(attempt, AttemptState.UNKNOWN, reason)
            return self._fail_or_release(attempt, reason, counts=counts, max_attempts=max_attempts)

    @_while_available
    def reject(self, attempt: Attempt, reason: str, *, counts: bool, max_attempts: int) -> Fate:
        """It ended and does not count. *counts*: as the batch's failure, if it did not when it was lost."""
        with self._transaction():
            state = self._state(attempt)
            counts = counts and state in (AttemptState.BOUND, AttemptState.SENT)
            if state in LIVE_STATES:  # what was accepted stays accepted
                self._set(attempt, AttemptState.REJECTED, reason, ended=True)
            return self._fail_or_release(attempt, reason, counts=counts, max_attempts=max_attempts)

    @_while_available
    def settled_positions(self, batch: int) -> int:
        """Bitmap of the requests of *batch* that no attempt has to do any more."""
        return self._batch(batch).settled

    @_while_available
    def objection(self, attempt: Attempt, receipt: Receipt) -> tuple[str, Blame] | None:
        """Why the final *receipt* of *attempt* can't be accepted, and who is to blame."""
        if (state := self._state(attempt)) not in LIVE_STATES:
            return f"it was {state.value} before", Blame.NOBODY
        return objection(attempt, receipt, self._batch(attempt.batch).settled)

    @_while_available
    def settle(
        self, attempt: Attempt, receipt: Receipt, *, max_attempts: int,
        found: Iterable[Finds] = (), again: int = 0, counts: bool = True,
    ) -> Settlement:  # fmt: skip
        """Accept *attempt* as a whole by its final *receipt*, and keep the targets that it has *found*, which
        ``divert_found`` is then to divert. *again*: bitmap of its failed requests that may be tried on another node,
        each once. *counts*: if nothing is settled, that is the batch's failure.
        Survives a power cut. There must be no ``objection``."""
        if objected := self.objection(attempt, receipt):
            raise ValueError(f"{attempt.job} can't be accepted: {objected[0]}")
        counts = counts and self._state(attempt) is not AttemptState.UNKNOWN and not receipt.settled
        with self._transaction(durable=True):
            self._db.executemany(ADD_FOUND, [(self._run, some.size, some.packed) for some in found])
            moved = self._accept(attempt, receipt, again & receipt.again)
            reason = f"ended early: {receipt.finish_reason}"
            fate = self._fail_or_release(attempt, reason, counts=counts, max_attempts=max_attempts)
        return Settlement(fate=fate, again=moved)

    @_while_available
    def divert_found(self) -> tuple[int, list[str]] | None:
        """``divert`` some of what accepted attempts have found, the first of it: how many these were, and the requests
        that are new. ``None`` if nothing is left."""
        row = self._db.execute(FOUND, (self._run,)).fetchone()
        if row is None:
            return None
        try:
            entries = Finds.unpacked(row[1])
        except (zlib.error, ValueError) as error:
            raise LedgerUnavailableError(f"damaged: targets that were found: {error}") from None
        with self._unseen(entries) as unseen, self._transaction():
            self._db.execute(CLEAR_FOUND, (row[0],))
            return len(entries), self._divert(*unseen)

    @_while_available
    def live(self) -> list[Attempt]:
        """The attempts whose receipt is still awaited."""
        rows = self._db.execute(LIVE, (self._run,)).fetchall()
        return [
            self._attempt(batch, number, token, node, url, state, bitmap_from_bytes(positions))
            for batch, number, token, node, url, state, positions in rows
        ]

    @_while_available
    def settled(self) -> bool:
        """Whether nothing is queued and every batch is settled."""
        return self._db.execute(UNSETTLED, {"run": self._run}).fetchone() is None

    @_while_available
    def has_queued(self) -> bool:
        """Whether requests wait for a batch to be closed."""
        return self._db.execute(HAS_QUEUED, (self._run,)).fetchone() is not None

    @_while_available
    def posted(self) -> bool:
        """Whether every request has been taken by a node, those of the open batch included."""
        return self._db.execute(UNPOSTED, {"run": self._run}).fetchone() is None

    def retry(self, wanted: Callable[[str, str], bool]) -> tuple[int, int]:
        """Put the dead and the failed requests of the last run for whose (state, reason) *wanted* is true into new
        batches: the command that began the run then takes it up again.

        Returns how many, and how many are left out since their callback had begun: items of them may be in a feed.
        Raises ``LedgerError`` if there is no run, or if the ledger is damaged; then nothing was changed."""
        try:
            last = self._db.execute(LAST_RUN).fetchone()
            if last is None:
                raise LedgerError(f"{self.path}: no run in it, so there is nothing to try again")
            self._run, self.run = last
            chosen: dict[int, list[tuple[int, str]]] = {}
            left_out = 0
            for batch, position, state, reason, again in self._db.execute(UNDONE, (self._run,)):
                if wanted(state, reason):
                    left_out += not again
                    if again:
                        chosen.setdefault(batch, []).append((position, state))
            if chosen:
                self._retry(chosen)
        except (sqlite3.Error, ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
            raise LedgerError(f"{self.path}: can't be used as ledger: {error}; nothing was changed") from None
        return sum(map(len, chosen.values())), left_out

    # The account

    @_while_available
    def balance(self) -> Balance:
        return read_balance(self._db, self._run)

    @_while_available
    def worker_stats(self) -> dict[str, float]:
        """The ``sum_of_stats`` of accepted attempts."""
        return sum_of_stats(json.loads(text) for (text,) in self._db.execute(ACCEPTED_STATS, (self._run,)))

    # Inside

    def _unusable(self, error: Exception) -> LedgerError:
        return LedgerError(f"{self.path}: can't be used as ledger: {error}; name another with DISTRIBUTED_LEDGER")

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """For what is done before a crawl starts: it can be refused with a sentence."""
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            raise self._unusable(error) from None

    def _batch(self, number: int) -> Batch:
        size, settled, attempts, failures, state, avoid = self._db.execute(BATCH, (self._run, number)).fetchone()
        return Batch(
            size=size, settled=bitmap_from_bytes(settled), attempts=attempts, failures=failures,
            state=BatchState(state), avoid=avoid,
        )  # fmt: skip

    def _payload(self, number: int) -> str:
        (payload,) = self._db.execute(PAYLOAD, (self._run, number)).fetchone()
        return str(payload)

    def _attempt(
        self, batch: int, number: int, token: str, node: str, url: str, state: str, positions: int
    ) -> Attempt:  # fmt: skip
        return Attempt(
            run=self.run, batch=batch, number=number, token=token, node=node, url=url, state=AttemptState(state),
            positions=positions,
        )  # fmt: skip

    def _add_batches(
        self, bodies: Sequence[str], *, parent: int | None = None, avoid: str | None = None, last: str | None = None,
        failures: int = 0,
    ) -> int:  # fmt: skip
        parts = list(split(bodies))
        for part, payload in parts:
            (number,) = self._db.execute(NEXT_BATCH, (self._run,)).fetchone()
            self._db.execute(ADD_BATCH, (self._run, number, len(part), payload, parent, avoid, last, failures))
        return len(parts)

    def _see_all(self) -> None:
        """Enter the keys that the run has diverted so far."""
        keys = self._db.execute(KEYS, (self._run,))
        while some := keys.fetchmany(FILL):
            self._seen.add(key for (key,) in some)

    @contextmanager
    def _unseen(self, requests: Iterable[tuple[bytes, str]]) -> Iterator[tuple[list[tuple[bytes, str]], int]]:
        """Those of *requests* whose keys were not in the seen-set, and the number of the others. After an error these
        keys are taken out again."""
        entries = list(requests)
        with self._scratch():
            is_new = self._seen.add(key for key, _ in entries)
        unseen = [entry for entry, new in zip(entries, is_new, strict=True) if new]
        try:
            yield unseen, len(entries) - len(unseen)
        except BaseException:
            self._seen.discard(key for key, _ in unseen)
            raise

    @contextmanager
    def _scratch(self) -> Iterator[None]:
        """What can't be written there is tried again, as what the ledger itself can't."""
        try:
            yield
        except OSError as error:
            raise LedgerUnavailableError(f"its scratch file: {error}") from error

    def _unqueue(self, count: int, still_open: Sequence[str]) -> None:
        """Take the first *count* requests out of ``queued``. Rows behind them are left alone: there may be many."""
        first_left = 0
        for row, size in self._db.execute(OPEN_SIZES, (self._run,)):
            first_left = row + 1
            count -= size
            if count < 0:
                self._db.execute(CUT_QUEUED, (-count, _joined(still_open[:-count]), row))
                first_left = row
            if count <= 0:
                break
        if count > 0:
            raise LedgerUnavailableError(f"{count} requests of the open batch are not queued")
        self._db.execute(CLEAR_QUEUED, (self._run, first_left))

    def _divert(self, unseen: list[tuple[bytes, str]], duplicates: int) -> list[str]:
        new = [body for _, body in unseen]
        if new:
            self._db.executemany(ADD_REQUEST, [(self._run, key) for key, _ in unseen])
            self._db.execute(ADD_QUEUED, (self._run, len(new), _joined(new)))
        if duplicates:
            self._db.execute(COUNT_DUPLICATES, (duplicates, self._run))
        return new

    def _state(self, attempt: Attempt) -> AttemptState:
        row = self._db.execute(ATTEMPT_STATE, (self._run, attempt.batch, attempt.number)).fetchone()
        return AttemptState(row[0])

    def _set(self, attempt: Attempt, state: AttemptState, reason: str | None, *, ended: bool = False) -> None:
        """What is told of an attempt that was lost begins with how: the rest followed from that."""
        values = {"state": state.value, "ended": time.time() if ended else None, "reason": reason}
        where = {"run": self._run, "batch": attempt.batch, "number": attempt.number}
        self._db.execute(SET_ATTEMPT, values | where)

    def _release(self, attempt: Attempt, *, counts: bool) -> None:
        self._db.execute(RELEASE_BATCH, {"run": self._run, "batch": attempt.batch, "counts": counts})

    def _fail_or_release(self, attempt: Attempt, reason: str, *, counts: bool, max_attempts: int) -> Fate:
        """After an attempt has ended: its batch is settled, or ready again, or what is left of it is settled now."""
        batch = self._batch(attempt.batch)
        fate = fate_of(batch, counts=counts, max_attempts=max_attempts)
        if fate is not Fate.SETTLED:
            self._release(attempt, counts=counts)
        left = batch.left
        if fate is Fate.HALVED:
            bodies = _bodies(self._payload(attempt.batch), left)
            middle = (len(bodies) + 1) // 2
            for half in (bodies[:middle], bodies[middle:]):
                # One of them is suspect still, so the next death is enough to halve it again.
                self._add_batches(
                    half, parent=attempt.batch, avoid=batch.avoid, last=attempt.node, failures=HALVED_AT - 1
                )
            self._settle_batch(attempt.batch, batch.settled | left, moved=left.bit_count())
        elif fate is Fate.DEAD:
            self._add_outcomes(attempt.batch, [(position, "dead", reason, True) for position in bits(left)])
            self._settle_batch(attempt.batch, batch.settled | left, dead=left.bit_count())
        return fate

    def _accept(self, attempt: Attempt, receipt: Receipt, again: int) -> int:
        """Enter what *receipt* says; returns how many requests are to be tried on another node."""
        batch = self._batch(attempt.batch)
        own = list(bits(attempt.positions))  # position in the attempt's payload -> position in the batch
        moved = sum(1 << own[position] for position in bits(again)) if batch.avoid is None else 0
        if moved:
            bodies = _joined(_bodies(self._payload(attempt.batch), moved))
            self._db.execute(ADD_AGAIN, (self._run, moved.bit_count(), bodies, attempt.node))
        outcomes = [
            (own[position], state, reason, bool(receipt.again >> position & 1))
            for state, reasons in (("failed", receipt.failed), ("filtered", receipt.filtered))
            for reason, positions in reasons.items()
            for position in positions
            if not moved >> own[position] & 1
        ]
        now_settled = sum(1 << own[position] for position in bits(receipt.settled))
        failed = sum(outcome[1] == "failed" for outcome in outcomes)
        row = (time.time(), receipt.finish_reason, receipt.items, json.dumps(receipt.feeds),
               json.dumps(dict(receipt.stats)), receipt.unexported, json.dumps(dict(receipt.followed)))  # fmt: skip
        self._db.execute(ACCEPT_ATTEMPT, (*row, self._run, attempt.batch, attempt.number))
        self._add_outcomes(attempt.batch, outcomes)
        landed = [(own[position], key) for position, key in receipt.landed_keys() if now_settled >> own[position] & 1]
        self._db.executemany(ADD_LANDED, [(self._run, attempt.batch, *row) for row in landed])
        self._settle_batch(
            attempt.batch, batch.settled | now_settled, failed=failed, filtered=len(outcomes) - failed,
            crawled=(now_settled & ~moved).bit_count() - len(outcomes), moved=moved.bit_count(),
        )  # fmt: skip
        return moved.bit_count()

    def _retry(self, chosen: dict[int, list[tuple[int, str]]]) -> None:
        """*chosen*: batch -> (position, state), by position. The new batches are as large as those of the run were:
        a worker for the few of each batch would cost too much."""
        (size,) = self._db.execute(LARGEST, (self._run,)).fetchone()
        waiting: list[tuple[int, str]] = []
        with self._transaction(durable=True):
            self._db.execute(REOPEN_RUN, (self._run,))
            for batch, outcomes in chosen.items():
                settled = self._batch(batch).settled
                elements = decode_payload(self._payload(batch))
                waiting += [(batch, _text(elements[position])) for position, _ in outcomes]
                self._db.executemany(DROP_OUTCOME, [(self._run, batch, position) for position, _ in outcomes])
                dead = sum(state == "dead" for _, state in outcomes)
                self._settle_batch(batch, settled, moved=len(outcomes), dead=-dead, failed=dead - len(outcomes))
                while len(waiting) >= size:
                    self._add_retry(waiting[:size])
                    del waiting[:size]
            self._add_retry(waiting)

    def _add_retry(self, requests: list[tuple[int, str]]) -> None:
        """*requests*: (batch, body). Only those of one batch have a parent."""
        parents = {batch for batch, _ in requests}
        self._add_batches([body for _, body in requests], parent=parents.pop() if len(parents) == 1 else None)

    def _add_outcomes(self, batch: int, outcomes: list[tuple[int, str, str, bool]]) -> None:
        self._db.executemany(ADD_OUTCOME, [(self._run, batch, *outcome) for outcome in outcomes])

    def _settle_batch(self, batch: int, settled: int, **counts: int) -> None:
        values = dict.fromkeys(("crawled", "failed", "filtered", "dead", "moved"), 0) | counts
        values |= {"count": sum(counts.values()), "run": self._run, "batch": batch}
        self._db.execute(SETTLE_BATCH, values | {"settled": bitmap_to_bytes(settled)})

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[None]:
        execute = self._db.execute
        if durable:
            execute("PRAGMA synchronous = FULL")
        try:
            execute("BEGIN IMMEDIATE")
            try:
                yield
                execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite rolls back by itself when the disk is full
                    execute("ROLLBACK")
                raise
        finally:
            if durable:
                execute("PRAGMA synchronous = NORMAL")


def _pages_of_log(folder: Path) -> int:
    """How long the write-ahead log gets before it is folded into the ledger, in pages of 4 KiB: each time costs a sync,
    and on a disk that is nearly full it must not take all that is left."""
    return max(LEAST_LOG, min(LONGEST_LOG, shutil.disk_usage(folder).free // LOG_PART // 4096))


def _joined(bodies: Sequence[str]) -> str:
    return f"[{','.join(bodies)}]"


def _texts(rows: Iterable[tuple[str]]) -> list[str]:
    """The requests in rows of ``queued``, as texts."""
    return [_text(element) for (text,) in rows for element in json.loads(text)]


def _bodies(payload: str, positions: int) -> list[str]:
    """The requests at *positions* of a batch, as texts."""
    elements = decode_payload(payload)
    return [_text(elements[position]) for position in bits(positions)]


def _text(element: Any) -> str:
    """The request *element* of a batch as a text."""
    return json.dumps(element, separators=(",", ":"))

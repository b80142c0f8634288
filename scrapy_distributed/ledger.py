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
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scrapy_distributed import wire
from scrapy_distributed.accounting import Balance
from scrapy_distributed.batch import Attempt, AttemptState, BatchState, bitmap_from_bytes, bitmap_to_bytes, bits
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.receipt import Receipt

FORMAT = 1
SEE = 200  # keys a statement
APPLICATION = 0x53434450  # "SCDP", so that another program's file is not taken for a ledger

SCHEMA = f"""
CREATE TABLE run (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, identity TEXT NOT NULL, started REAL NOT NULL,
    walked REAL, ended REAL, duplicates INTEGER NOT NULL DEFAULT 0,
    batches INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX run_unfinished ON run (identity) WHERE ended IS NULL;
CREATE TABLE request (run INTEGER NOT NULL, key BLOB NOT NULL);
CREATE TABLE queued (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, size INTEGER NOT NULL CHECK (size > 0), bodies TEXT NOT NULL
);
CREATE TABLE batch (
    run INTEGER NOT NULL, number INTEGER NOT NULL, parent INTEGER, size INTEGER NOT NULL CHECK (size > 0),
    payload TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('ready', 'in flight', 'settled')),
    settled BLOB NOT NULL DEFAULT x'', attempts INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
    crawled INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
    filtered INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, number),
    CHECK (crawled + failed + filtered + dead <= size),
    CHECK ((state = 'settled') = (crawled + failed + filtered + dead = size))
);
CREATE INDEX batch_open ON batch (run, state, number) WHERE state <> 'settled';
CREATE TABLE attempt (
    run INTEGER NOT NULL, batch INTEGER NOT NULL, number INTEGER NOT NULL, node TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ({", ".join(repr(state.value) for state in AttemptState)})),
    positions BLOB NOT NULL, bound REAL NOT NULL, ended REAL, reason TEXT, items INTEGER, feeds TEXT, stats TEXT,
    PRIMARY KEY (run, batch, number)
);
CREATE UNIQUE INDEX attempt_current ON attempt (run, batch) WHERE state IN ('bound', 'sent');
CREATE INDEX attempt_live ON attempt (run) WHERE state IN ('bound', 'sent', 'unknown');
CREATE TABLE outcome (
    run INTEGER NOT NULL, batch INTEGER NOT NULL, position INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('failed', 'filtered', 'dead')), reason TEXT NOT NULL,
    PRIMARY KEY (run, batch, position)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""

# The seen-set, in a file of its own, made anew whenever the ledger is opened: an index over the keys takes random
# writes, so it is kept out of the ledger, which only grows at its end, and lives in one transaction that never commits.
SEEN = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -8192;
CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE occurrence (key BLOB PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
BEGIN EXCLUSIVE;
"""

FIND_RUN = "SELECT id, name, walked FROM run WHERE identity = ? AND ended IS NULL"
ADD_RUN = "INSERT INTO run (name, identity, started) VALUES (?, ?, ?)"
ABANDON_RUN = "UPDATE run SET ended = ? WHERE id = ?"
ADD_SEEN = "INSERT OR IGNORE INTO seen VALUES (?)"
ADD_REQUEST = "INSERT INTO request VALUES (?, ?)"
KEYS = "SELECT key FROM request WHERE run = ?"
ADD_QUEUED = "INSERT INTO queued (run, size, bodies) VALUES (?, ?, ?)"
COUNT_DUPLICATES = "UPDATE run SET duplicates = duplicates + ? WHERE id = ?"
COUNT_OCCURRENCE = """
INSERT INTO occurrence VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET number = number + 1 RETURNING number
"""
QUEUED = "SELECT bodies FROM queued WHERE run = ? ORDER BY id"
CLEAR_QUEUED = "DELETE FROM queued WHERE run = ?"
NEXT_BATCH = "UPDATE run SET batches = batches + 1 WHERE id = ? RETURNING batches"
ADD_BATCH = "INSERT INTO batch (run, number, size, payload, state) VALUES (?, ?, ?, ?, 'ready')"
READY = """
SELECT number,
    (SELECT node FROM attempt WHERE run = batch.run AND batch = batch.number ORDER BY attempt.number DESC LIMIT 1)
FROM batch WHERE run = ? AND state = 'ready' ORDER BY number LIMIT 10
"""
UNSETTLED = "SELECT 1 FROM batch WHERE run = ? AND state <> 'settled' LIMIT 1"
UNPOSTED = """
SELECT 1 FROM batch WHERE run = :run AND state = 'ready'
UNION ALL SELECT 1 FROM attempt WHERE run = :run AND state = 'bound'
UNION ALL SELECT 1 FROM queued WHERE run = :run LIMIT 1
"""
BATCH = "SELECT size, payload, settled, attempts, failures, state FROM batch WHERE run = ? AND number = ?"
BIND_BATCH = "UPDATE batch SET state = 'in flight', attempts = ? WHERE run = ? AND number = ?"
ADD_ATTEMPT = (
    "INSERT INTO attempt (run, batch, number, node, state, positions, bound) VALUES (?, ?, ?, ?, 'bound', ?, ?)"
)
SET_ATTEMPT = "UPDATE attempt SET state = ?, ended = ?, reason = ? WHERE run = ? AND batch = ? AND number = ?"
ATTEMPT_STATE = "SELECT state FROM attempt WHERE run = ? AND batch = ? AND number = ?"
RELEASE_BATCH = """
UPDATE batch SET state = 'ready', failures = failures + :counts
WHERE run = :run AND number = :batch AND state <> 'settled'
AND NOT EXISTS (SELECT 1 FROM attempt WHERE run = :run AND batch = :batch AND state IN ('bound', 'sent'))
"""
ACCEPT_ATTEMPT = """
UPDATE attempt SET state = 'accepted', ended = ?, reason = ?, items = ?, feeds = ?, stats = ?
WHERE run = ? AND batch = ? AND number = ?
"""
SETTLE_BATCH = """
UPDATE batch SET settled = :settled, crawled = crawled + :crawled, failed = failed + :failed,
    filtered = filtered + :filtered, dead = dead + :dead,
    state = CASE WHEN crawled + failed + filtered + dead + :count = size THEN 'settled' ELSE state END
WHERE run = :run AND number = :batch
"""
ADD_OUTCOME = "INSERT INTO outcome VALUES (?, ?, ?, ?, ?)"
LIVE = (
    "SELECT batch, number, node, state, positions FROM attempt WHERE run = ? AND state IN ('bound', 'sent', 'unknown')"
)
ACCEPTED_STATS = "SELECT stats FROM attempt WHERE run = ? AND state = 'accepted' AND stats IS NOT NULL"
BALANCE = """
SELECT (SELECT count(*) FROM request WHERE run = :run), (SELECT duplicates FROM run WHERE id = :run),
    (SELECT coalesce(sum(size), 0) FROM queued WHERE run = :run)
        + coalesce(sum(iif(state = 'ready', size - crawled - failed - filtered - dead, 0)), 0),
    coalesce(sum(iif(state = 'in flight', size - crawled - failed - filtered - dead, 0)), 0),
    coalesce(sum(crawled), 0), coalesce(sum(failed), 0), coalesce(sum(filtered), 0), coalesce(sum(dead), 0)
FROM batch WHERE run = :run
"""
END_RUN = "UPDATE run SET ended = ? WHERE id = ? AND walked IS NOT NULL"
OTHER_RUNS = "SELECT name FROM run WHERE ended IS NULL AND id <> ? ORDER BY id"
WALK_ON = "UPDATE run SET walked = NULL WHERE id = ?"
WALKED = "UPDATE run SET walked = coalesce(walked, ?) WHERE id = ?"
RUNS = "SELECT id, name, identity, started, walked, ended FROM run ORDER BY id"
BATCHES = """
SELECT batch.number, batch.state, size, crawled, failed, filtered, dead, batch.attempts,
    last.node, last.state, last.reason,
    (SELECT sum(items) FROM attempt WHERE run = batch.run AND batch = batch.number AND attempt.state = 'accepted')
FROM batch LEFT JOIN attempt AS last
    ON last.run = batch.run AND last.batch = batch.number AND last.number = batch.attempts
WHERE batch.run = ? ORDER BY batch.number
"""
OUTCOMES = """
SELECT batch, position, outcome.state, reason, payload FROM outcome
JOIN batch ON batch.run = outcome.run AND batch.number = batch WHERE outcome.run = ? ORDER BY batch, position
"""
FEEDS = "SELECT feeds FROM attempt WHERE run = ? AND state = 'accepted' AND feeds IS NOT NULL ORDER BY batch, number"


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What became of an attempt: whether its receipt counts and why not, and whether its batch is settled now."""

    accepted: bool
    reason: str
    batch_settled: bool


class Ledger:
    """The ledger at *path*, for one coordinator at a time. Times are seconds since the epoch.

    Raises ``LedgerError`` if the file is no ledger of this format or another coordinator holds it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.run = ""
        self._seen_path = self.path.with_name(self.path.name + ".seen")
        self._run = 0
        if sqlite3.sqlite_version_info < (3, 35):
            raise LedgerError(f"found SQLite {sqlite3.sqlite_version}, expected 3.35 or newer: use a newer Python")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _hold(self.path)
            self._db = sqlite3.connect(self.path, timeout=5, isolation_level=None)
            _check_format(self._db, self.path)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA wal_autocheckpoint = 4000")  # pages of 4 KiB: a sync for every 16 MiB written
            self._seen_path.unlink(missing_ok=True)
            self._seen = sqlite3.connect(self._seen_path, isolation_level=None)
            self._seen.executescript(SEEN)
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise LedgerError(
                f"{self.path}: can't be used as ledger: {error}; name another with DISTRIBUTED_LEDGER"
            ) from None
        except LedgerError:
            self.close()
            raise

    def close(self) -> None:
        for name in ("_db", "_seen", "_lock"):  # the lock last: what it guards is closed by then
            if hasattr(self, name):
                getattr(self, name).close()
            if name == "_seen" and hasattr(self, name):
                self._seen_path.unlink(missing_ok=True)

    # The run

    def begin(self, identity: dict[str, Any], *, resume: bool, wait: bool = True) -> bool:
        """Take up the unfinished run of *identity*, or begin one. Returns whether its walk is still to be done.

        Without *wait* a run whose walk is done and whose requests are all with the nodes is not taken up.
        """
        text = json.dumps(identity, sort_keys=True)
        with self._transaction(durable=True):
            found = self._db.execute(FIND_RUN, (text,)).fetchone()
            if found and not wait and found[2] is not None:
                resume = resume and self._db.execute(UNPOSTED, {"run": found[0]}).fetchone() is not None
            if found and not resume:
                self._db.execute(ABANDON_RUN, (time.time(), found[0]))
                found = None
            if found:
                self._run, self.run, walked = found
                self._seen.executemany(ADD_SEEN, self._db.execute(KEYS, (self._run,)))
                return walked is None
            self.run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
            self._run = int(self._db.execute(ADD_RUN, (self.run, text, time.time())).lastrowid or 0)
        return True

    def others(self) -> list[str]:
        """Names of the other unfinished runs: of other spider arguments or targets."""
        return [name for (name,) in self._db.execute(OTHER_RUNS, (self._run,))]

    def divert(self, requests: Iterable[tuple[bytes, str]]) -> list[str]:
        """Enter (key, encoded request) pairs; returns the requests whose key is new to the run, in order.

        After an error the keys count as seen although they are not entered: close the ledger and open it again."""
        execute, run = self._db.execute, self._run
        entries = list(requests)
        unseen = [entry for start in range(0, len(entries), SEE) for entry in self._see(entries[start : start + SEE])]
        new = [body for _, body in unseen]
        with self._transaction():
            if new:
                self._db.executemany(ADD_REQUEST, [(run, key) for key, _ in unseen])
                execute(ADD_QUEUED, (run, len(new), f"[{','.join(new)}]"))
            if len(new) < len(entries):
                execute(COUNT_DUPLICATES, (len(entries) - len(new), run))
        return new

    def occurrence(self, key: bytes) -> int:
        """How often this was called for *key* since the ledger was opened, this call included. Takes no memory."""
        (number,) = self._seen.execute(COUNT_OCCURRENCE, (key,)).fetchone()
        return int(number)

    def queued(self) -> list[str]:
        """The requests of the open batch."""
        rows = self._db.execute(QUEUED, (self._run,))
        return [json.dumps(element, separators=(",", ":")) for (text,) in rows for element in json.loads(text)]

    def close_batches(self, batches: Sequence[Sequence[str]], still_open: Sequence[str]) -> int:
        """Make ready batches of *batches*, split where a payload is over the ceiling; returns their number."""
        made = 0
        with self._transaction():
            self._db.execute(CLEAR_QUEUED, (self._run,))
            if still_open:
                self._db.execute(ADD_QUEUED, (self._run, len(still_open), f"[{','.join(still_open)}]"))
            for bodies in batches:
                for part, payload in wire.split(bodies):
                    (number,) = self._db.execute(NEXT_BATCH, (self._run,)).fetchone()
                    self._db.execute(ADD_BATCH, (self._run, number, len(part), payload))
                    made += 1
        return made

    def walked(self) -> None:
        """The crawl on the coordinator has found all it will find."""
        self._db.execute(WALKED, (time.time(), self._run))

    def walk_on(self) -> None:
        """It has not, after all."""
        self._db.execute(WALK_ON, (self._run,))

    def end(self) -> bool:
        """Mark the run as ended, if its walk is done and it is settled. Returns whether it has ended."""
        return self.balance().settled and self._db.execute(END_RUN, (time.time(), self._run)).rowcount > 0

    # Attempts

    def ready(self) -> list[tuple[int, str | None]]:
        """The next batches to send, at most ten, each with the node of its last attempt."""
        return self._db.execute(READY, (self._run,)).fetchall()

    def bind(self, batch: int, node: str) -> tuple[Attempt, str]:
        """A new attempt at what is not settled of *batch*, on *node*, and its payload. Survives a power cut."""
        with self._transaction(durable=True):
            size, payload, settled, attempts, _, _ = self._batch(batch)
            positions = ((1 << size) - 1) & ~settled
            self._db.execute(BIND_BATCH, (attempts + 1, self._run, batch))
            row = (self._run, batch, attempts + 1, node, bitmap_to_bytes(positions), time.time())
            self._db.execute(ADD_ATTEMPT, row)
        if settled:
            elements = wire.decode_payload(payload)
            payload = wire.encode_payload([json.dumps(elements[n], separators=(",", ":")) for n in bits(positions)])
        return self._attempt(batch, attempts + 1, node, AttemptState.BOUND.value, positions), payload

    def sent(self, attempt: Attempt) -> None:
        """The node has taken it."""
        self._set(attempt, AttemptState.SENT, None)

    def unsent(self, attempt: Attempt, reason: str) -> None:
        """It never ran: its batch is ready again, and no attempt is used up."""
        with self._transaction():
            self._set(attempt, AttemptState.UNSENT, reason, ended=True)
            self._release(attempt, counts=False)

    def lose(self, attempt: Attempt, reason: str, *, counts: bool, max_attempts: int) -> bool:
        """No sign of life: its batch is ready again, its receipt still welcome. Returns whether the batch is settled
        (its attempts are used up)."""
        with self._transaction():
            self._set(attempt, AttemptState.UNKNOWN, reason)
            return self._give_up_or_release(attempt, reason, counts=counts, max_attempts=max_attempts)

    def reject(self, attempt: Attempt, reason: str, *, max_attempts: int) -> bool:
        """It ended and does not count. Returns whether the batch is settled (all that was left of it is dead)."""
        with self._transaction():
            counts = self._state(attempt) is not AttemptState.UNKNOWN  # counted when it was lost
            self._set(attempt, AttemptState.REJECTED, reason, ended=True)
            return self._give_up_or_release(attempt, reason, counts=counts, max_attempts=max_attempts)

    def settle(self, attempt: Attempt, receipt: Receipt, *, max_attempts: int) -> Settlement:
        """Accept or reject *attempt* as a whole by its final *receipt*. Survives a power cut."""
        with self._transaction(durable=True):
            settled = self._batch(attempt.batch)[2]
            counts = self._state(attempt) is not AttemptState.UNKNOWN  # counted when it was lost
            reason = objection(attempt, receipt, settled)
            if reason:
                counts = counts and not attempt.positions & settled  # that another was first is no fault of the batch
                self._set(attempt, AttemptState.REJECTED, reason, ended=True)
                done = self._give_up_or_release(attempt, reason, counts=counts, max_attempts=max_attempts)
                return Settlement(accepted=False, reason=reason, batch_settled=done)
            self._accept(attempt, receipt, settled)
            counts = counts and not receipt.settled
            done = self._give_up_or_release(
                attempt, f"ended early: {receipt.finish_reason}", counts=counts, max_attempts=max_attempts
            )
            return Settlement(accepted=True, reason=receipt.finish_reason, batch_settled=done)

    def live(self) -> list[Attempt]:
        """The attempts whose receipt is still awaited."""
        rows = self._db.execute(LIVE, (self._run,)).fetchall()
        return [
            self._attempt(batch, number, node, state, bitmap_from_bytes(positions))
            for batch, number, node, state, positions in rows
        ]

    def settled(self) -> bool:
        """Whether every closed batch is settled."""
        return self._db.execute(UNSETTLED, (self._run,)).fetchone() is None

    def posted(self) -> bool:
        """Whether every request has been taken by a node, those of the open batch included."""
        return self._db.execute(UNPOSTED, {"run": self._run}).fetchone() is None

    # The account

    def balance(self) -> Balance:
        return read_balance(self._db, self._run)

    def worker_stats(self) -> dict[str, float]:
        """The numbers in the stats of accepted attempts, summed; of maxima the largest."""
        total: dict[str, float] = {}
        for (text,) in self._db.execute(ACCEPTED_STATS, (self._run,)):
            for key, value in json.loads(text).items():
                merge = max if "max" in key or key.startswith("memusage/") else sum_of
                total[key] = merge(total[key], value) if key in total else value
        return total

    # Inside

    def _batch(self, number: int) -> tuple[int, str, int, int, int, str]:
        size, payload, settled, attempts, failures, state = self._db.execute(BATCH, (self._run, number)).fetchone()
        return size, payload, bitmap_from_bytes(settled), attempts, failures, state

    def _attempt(self, batch: int, number: int, node: str, state: str, positions: int) -> Attempt:
        return Attempt(
            run=self.run, batch=batch, number=number, node=node, state=AttemptState(state), positions=positions
        )

    def _see(self, entries: list[tuple[bytes, str]]) -> Iterator[tuple[bytes, str]]:
        """Enter the keys into the seen-set, all in one statement; yields the entries that are new, each key once."""
        statement = f"{ADD_SEEN}{', (?)' * (len(entries) - 1)} RETURNING key"
        unseen = {key for (key,) in self._seen.execute(statement, [key for key, _ in entries])}
        for entry in entries:
            if entry[0] in unseen:
                unseen.remove(entry[0])
                yield entry

    def _state(self, attempt: Attempt) -> AttemptState:
        row = self._db.execute(ATTEMPT_STATE, (self._run, attempt.batch, attempt.number)).fetchone()
        return AttemptState(row[0])

    def _set(self, attempt: Attempt, state: AttemptState, reason: str | None, *, ended: bool = False) -> None:
        when = time.time() if ended else None
        self._db.execute(SET_ATTEMPT, (state.value, when, reason, self._run, attempt.batch, attempt.number))

    def _release(self, attempt: Attempt, *, counts: bool) -> None:
        self._db.execute(RELEASE_BATCH, {"run": self._run, "batch": attempt.batch, "counts": counts})

    def _give_up_or_release(self, attempt: Attempt, reason: str, *, counts: bool, max_attempts: int) -> bool:
        """After an attempt has ended: its batch is settled, or ready again, or its attempts are used up."""
        size, _, settled, _, failures, state = self._batch(attempt.batch)
        if state == BatchState.SETTLED.value:
            return True
        self._release(attempt, counts=counts)
        if not counts or failures + 1 < max_attempts:
            return False
        left = ((1 << size) - 1) & ~settled
        self._add_outcomes(attempt.batch, [(position, "dead", reason) for position in bits(left)])
        self._settle_batch(attempt.batch, settled | left, dead=left.bit_count())
        return True

    def _accept(self, attempt: Attempt, receipt: Receipt, settled: int) -> None:
        own = list(bits(attempt.positions))  # position in the attempt's payload -> position in the batch
        outcomes = [
            (own[position], state, reason)
            for state, reasons in (("failed", receipt.failed), ("filtered", receipt.filtered))
            for reason, positions in reasons.items()
            for position in positions
        ]
        now_settled = sum(1 << own[position] for position in bits(receipt.settled))
        failed = sum(state == "failed" for _, state, _ in outcomes)
        stats = json.dumps(dict(receipt.stats))
        row = (time.time(), receipt.finish_reason, receipt.items, json.dumps(receipt.feeds), stats)
        self._db.execute(ACCEPT_ATTEMPT, (*row, self._run, attempt.batch, attempt.number))
        self._add_outcomes(attempt.batch, outcomes)
        self._settle_batch(
            attempt.batch, settled | now_settled, crawled=now_settled.bit_count() - len(outcomes),
            failed=failed, filtered=len(outcomes) - failed,
        )  # fmt: skip

    def _add_outcomes(self, batch: int, outcomes: list[tuple[int, str, str]]) -> None:
        self._db.executemany(ADD_OUTCOME, [(self._run, batch, *outcome) for outcome in outcomes])

    def _settle_batch(self, batch: int, settled: int, **counts: int) -> None:
        values = dict.fromkeys(("crawled", "failed", "filtered", "dead"), 0) | counts
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
            except BaseException:
                if self._db.in_transaction:  # SQLite rolls back by itself when the disk is full
                    execute("ROLLBACK")
                raise
            execute("COMMIT")
        finally:
            if durable:
                execute("PRAGMA synchronous = NORMAL")


def objection(attempt: Attempt, receipt: Receipt, settled: int) -> str:
    """Why the final *receipt* of *attempt* can't be accepted where *settled* of the batch is settled already, or ''."""
    if receipt.size != attempt.size:
        return f"its receipt speaks of {receipt.size} requests, sent were {attempt.size}"
    if not receipt.stored:
        return "its feed was not stored"
    if not receipt.clean:
        return f"it ended early ({receipt.finish_reason}) with items of unfinished requests in its feed"
    if attempt.positions & settled:
        return "another attempt was accepted first"
    return ""


def sum_of(one: float, other: float) -> float:
    return one + other


def read_balance(db: sqlite3.Connection, run: int) -> Balance:
    diverted, duplicates, queued, in_flight, crawled, failed, filtered, dead = db.execute(
        BALANCE, {"run": run}
    ).fetchone()
    return Balance(
        diverted=diverted, duplicates=duplicates, queued=queued, in_flight=in_flight,
        crawled=crawled, failed=failed, filtered=filtered, dead=dead,
    )  # fmt: skip


class LedgerReader:
    """What the commands show of a ledger, while a coordinator may be writing it. Raises ``LedgerError``."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise LedgerError(f"{self.path}: no ledger there; a distributed crawl makes one, --ledger names another")
        try:
            self._db = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
            _check_format(self._db, self.path, create=False)
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: can't be read as ledger: {error}") from None

    def runs(self) -> list[dict[str, Any]]:
        """The runs, oldest first: id, name, identity (a dict), started, walked, ended."""
        names = ("id", "name", "identity", "started", "walked", "ended")
        rows = [dict(zip(names, row, strict=True)) for row in self._db.execute(RUNS)]
        return [row | {"identity": json.loads(row["identity"])} for row in rows]

    def balance(self, run: int) -> Balance:
        return read_balance(self._db, run)

    def batches(self, run: int) -> list[dict[str, Any]]:
        """The batches by number: counts of requests, and node, state and reason of the last attempt."""
        names = ("number", "state", "size", "crawled", "failed", "filtered", "dead",
                 "attempts", "node", "attempt_state", "reason", "items")  # fmt: skip
        return [dict(zip(names, row, strict=True)) for row in self._db.execute(BATCHES, (run,))]

    def outcomes(self, run: int) -> Iterator[dict[str, Any]]:
        """The requests that failed, were filtered or are dead, with reason and URL."""
        last, elements = None, []
        for batch, position, state, reason, payload in self._db.execute(OUTCOMES, (run,)):
            if batch != last:
                last, elements = batch, wire.decode_payload(payload)
            url = wire.url_of(elements[position])
            yield {"batch": batch, "position": position, "state": state, "reason": reason, "url": url}

    def feeds(self, run: int) -> list[str]:
        """The feeds of accepted attempts: together they are the result of the run."""
        return [feed for (text,) in self._db.execute(FEEDS, (run,)) for feed in json.loads(text)]

    def close(self) -> None:
        self._db.close()


def _hold(path: Path) -> sqlite3.Connection:
    """A lock that ends with this process, however it ends."""
    lock = sqlite3.connect(path.with_name(path.name + ".lock"), timeout=0, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        lock.close()
        raise LedgerError(
            f"{path}: another coordinator is using this ledger; wait for it, or name another with DISTRIBUTED_LEDGER"
        ) from None
    return lock


def _check_format(db: sqlite3.Connection, path: Path, *, create: bool = True) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if (application, found) == (APPLICATION, FORMAT):
        return
    if create and not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() and (application, found) == (0, 0):
        db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
        return
    what = f"a ledger of format {found}, expected {FORMAT}" if application == APPLICATION else "no ledger of ours"
    raise LedgerError(f"{path}: {what}; nothing was changed. Name another file with DISTRIBUTED_LEDGER")

"""The file of a ledger: its tables, its format, and who may open it. ``Ledger`` writes it, ``LedgerReader`` shows it.

=========== ===========================================================================================================
``run``     one crawl of a coordinator, with all its interruptions; *walked*: its own crawl had found everything
``request`` the key of each diverted request, appended
``queued``  requests whose batch is not closed: of the open batch, or (*avoid* set) to be tried on another node
``batch``   a closed batch. *settled*: bitmap of the positions that no later attempt has to do; of these *crawled*,
            *failed*, *filtered*, *dead* have that outcome, and *moved* are in another batch: a half, for another node,
            or a retry. *avoid*: its requests failed on that node before; *last*: where it was, or part of it, last
``attempt`` one job; *positions*: bitmap of what it was sent
``outcome`` a request that failed, was filtered or is dead; *again*: nothing of it is in a feed that counts
=========== ===========================================================================================================
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from scrapy_distributed.accounting import Balance
from scrapy_distributed.batch import AttemptState
from scrapy_distributed.errors import LedgerError

FORMAT = 2
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
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, size INTEGER NOT NULL CHECK (size > 0), bodies TEXT NOT NULL,
    avoid TEXT
);
CREATE TABLE batch (
    run INTEGER NOT NULL, number INTEGER NOT NULL, parent INTEGER, size INTEGER NOT NULL CHECK (size > 0),
    state TEXT NOT NULL CHECK (state IN ('ready', 'in flight', 'settled')),
    avoid TEXT, last TEXT, settled BLOB NOT NULL DEFAULT x'',
    attempts INTEGER NOT NULL DEFAULT 0, failures INTEGER NOT NULL DEFAULT 0,
    crawled INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
    filtered INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0, moved INTEGER NOT NULL DEFAULT 0,
    payload TEXT NOT NULL,  -- last: what is read without it does not walk through it
    PRIMARY KEY (run, number),
    CHECK (min(crawled, failed, filtered, dead, moved) >= 0),
    CHECK (crawled + failed + filtered + dead + moved <= size),
    CHECK ((state = 'settled') = (crawled + failed + filtered + dead + moved = size))
);
CREATE INDEX batch_open ON batch (run, state, last, number) WHERE state <> 'settled';
CREATE TABLE attempt (
    run INTEGER NOT NULL, batch INTEGER NOT NULL, number INTEGER NOT NULL, node TEXT NOT NULL, url TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ({", ".join(repr(state.value) for state in AttemptState)})),
    positions BLOB NOT NULL, bound REAL NOT NULL, ended REAL, reason TEXT, items INTEGER, feeds TEXT, stats TEXT,
    PRIMARY KEY (run, batch, number)
);
CREATE UNIQUE INDEX attempt_current ON attempt (run, batch) WHERE state IN ('bound', 'sent');
CREATE INDEX attempt_live ON attempt (run) WHERE state IN ('bound', 'sent', 'unknown');
CREATE TABLE outcome (
    run INTEGER NOT NULL, batch INTEGER NOT NULL, position INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('failed', 'filtered', 'dead')), reason TEXT NOT NULL,
    again INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, batch, position)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""

TABLES = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
BALANCE = """
SELECT (SELECT count(*) FROM request WHERE run = :run), (SELECT duplicates FROM run WHERE id = :run),
    (SELECT coalesce(sum(size), 0) FROM queued WHERE run = :run)
        + coalesce(sum(iif(state = 'ready', size - crawled - failed - filtered - dead - moved, 0)), 0),
    coalesce(sum(iif(state = 'in flight', size - crawled - failed - filtered - dead - moved, 0)), 0),
    coalesce(sum(crawled), 0), coalesce(sum(failed), 0), coalesce(sum(filtered), 0), coalesce(sum(dead), 0)
FROM batch WHERE run = :run
"""


def create(path: Path) -> None:
    """A new ledger at *path*: there as a whole, or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with closing(sqlite3.connect(draft, isolation_level=None)) as db:
        db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
    draft.replace(path)


def hold(path: Path) -> sqlite3.Connection:
    """A lock that ends with this process, however it ends."""
    lock = sqlite3.connect(path.with_name(path.name + ".lock"), timeout=0, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        if "locked" not in str(error):
            advice = "delete it if no coordinator runs"
            raise LedgerError(f"{path}.lock: can't be used as lock: {error}; {advice}") from None
        raise LedgerError(
            f"{path}: another coordinator is using this ledger; wait for it, or name another with DISTRIBUTED_LEDGER"
        ) from None
    return lock


def check_format(db: sqlite3.Connection, path: Path) -> None:
    """Raise ``LedgerError`` for a file of another program or another format of ledger."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if (application, found) == (APPLICATION, FORMAT):
        return
    what = f"a ledger of format {found}, expected {FORMAT}" if application == APPLICATION else "no ledger of ours"
    raise LedgerError(f"{path}: {what}; nothing was changed. Name another file with DISTRIBUTED_LEDGER")


def check_sound(db: sqlite3.Connection, path: Path) -> None:
    """Raise ``LedgerError`` for a damaged file. Reads all of it (29 MB in 0.13 s)."""
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(SCHEMA)
        expected = fresh.execute(TABLES).fetchall()
    complaint = "its tables are not those of a ledger" if db.execute(TABLES).fetchall() != expected else "ok"
    if complaint == "ok":
        (complaint,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if complaint != "ok":
        advice = "restore a copy, or name another with DISTRIBUTED_LEDGER"
        raise LedgerError(f"{path}: damaged ({complaint:.200}); {advice}")


def read_balance(db: sqlite3.Connection, run: int) -> Balance:
    diverted, duplicates, queued, in_flight, crawled, failed, filtered, dead = db.execute(
        BALANCE, {"run": run}
    ).fetchone()
    return Balance(
        diverted=diverted, duplicates=duplicates, queued=queued, in_flight=in_flight,
        crawled=crawled, failed=failed, filtered=filtered, dead=dead,
    )  # fmt: skip

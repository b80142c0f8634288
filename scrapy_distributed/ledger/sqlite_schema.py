"""The file of a ledger: its tables, its format, and who may open it. ``Ledger`` writes it, ``LedgerReader`` shows it.

=========== ===========================================================================================================
``run``     one crawl of a coordinator, with all its interruptions; *walked*: its own crawl had found everything;
            *stopped*: why nothing more of it is crawled, where a limit or the spider has ended it early;
            *lost*: what failed of that crawl, reason -> number of requests (or items), as JSON; *appended*: files
            that feeds of it append to -> the length that each had before, and length and digest of what the run has
            written there, as JSON; *own*: stored feeds of what the coordinator has scraped itself, where workers have
            feeds: pairs of names in the spool and files, as JSON; *feeds*: the URLs that workers are told to write
            theirs to, as JSON;
            *unexported*: items that have come home and that the feeds here could not express; *spooled*: what the
            coordinator has scraped itself and that a later command needs, name in the spool -> file, as JSON
``request`` the key of each diverted request, appended
``page``    keys of pages whose items have come home and that are no request of the run: none of them brings any twice;
            *batch* and *attempt* are those that have brought them
``queued``  requests whose batch is not closed: of the open batch, or (*avoid* set) to be tried on another node
``session`` the cookies that go with requests, as they are sent: what has a session names it
``found``   targets in a receipt that was accepted, until those of them that are new are queued
``batch``   a closed batch. *settled*: bitmap of the positions that no later attempt has to do; of these *crawled*,
            *failed*, *filtered*, *dead* have that outcome, and *moved* are in another batch: a part, for another node,
            or a retry. *avoid*: its requests failed on that node before; *last*: where it was, or part of it, last
``attempt`` one job; *positions*: bitmap of what it was sent; *token*: of no other attempt. Of one that counts also
            *unexported*: items that its feeds could not express; *partial*: items of requests that it has not settled
            count as well, as it has stopped the run; *home*: how many came home, *twice*: how many did not
            since their page had brought them before; *size* (bytes) and *digest*: of the file in the spool; *settled*:
            bitmap of the positions that it has settled and that are in no other batch; *followed*: requests that it has
            followed from those of the batch and that failed, reason -> number, as JSON
``example`` what the first error said for a *reason* of failure, and where in the project it was raised
``landed``  a request that was redirected: *key* is that which its last URL has as a request of its own
``outcome`` a request that failed, was filtered or is dead; *again*: nothing of it is in a feed that counts
``told``    of a node, at *url*, what jobs of any run have told: how many it runs at once, and the seconds between two
            polls of its queue
=========== ===========================================================================================================
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from contextlib import closing, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from scrapy_distributed.errors import LedgerError, LedgerHeldError
from scrapy_distributed.ledger.balance import Balance, Losses, Raised
from scrapy_distributed.ledger.states import AttemptState
from scrapy_distributed.ledger.sums import sum_of_reasons

HELD_SECONDS = 0.2  # who only asks whether a ledger is held lets it go at once
FORMAT = 8
APPLICATION = 0x53434450  # "SCDP", so that another program's file is not taken for a ledger

SCHEMA = f"""
CREATE TABLE run (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, identity TEXT NOT NULL, started REAL NOT NULL,
    walked REAL, ended REAL, stopped TEXT, duplicates INTEGER NOT NULL DEFAULT 0,
    batches INTEGER NOT NULL DEFAULT 0, lost TEXT NOT NULL DEFAULT '{{}}', appended TEXT NOT NULL DEFAULT '{{}}',
    own TEXT NOT NULL DEFAULT '[]', unexported INTEGER NOT NULL DEFAULT 0, spooled TEXT NOT NULL DEFAULT '{{}}',
    feeds TEXT NOT NULL DEFAULT '[]'
);
CREATE UNIQUE INDEX run_unfinished ON run (identity) WHERE ended IS NULL;
CREATE TABLE request (run INTEGER NOT NULL, key BLOB NOT NULL);
CREATE TABLE page (run INTEGER NOT NULL, key BLOB NOT NULL, batch INTEGER NOT NULL, attempt INTEGER NOT NULL);
CREATE TABLE queued (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, size INTEGER NOT NULL CHECK (size > 0), bodies TEXT NOT NULL,
    avoid TEXT
);
CREATE TABLE session (run INTEGER NOT NULL, id TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (run, id)) WITHOUT ROWID;
CREATE TABLE found (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, size INTEGER NOT NULL CHECK (size > 0), packed BLOB NOT NULL
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
    run INTEGER NOT NULL, batch INTEGER NOT NULL, number INTEGER NOT NULL, token TEXT NOT NULL,
    node TEXT NOT NULL, url TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ({", ".join(repr(state.value) for state in AttemptState)})),
    positions BLOB NOT NULL, bound REAL NOT NULL, ended REAL, reason TEXT, items INTEGER, feeds TEXT, stats TEXT,
    unexported INTEGER NOT NULL DEFAULT 0, partial INTEGER NOT NULL DEFAULT 0, followed TEXT NOT NULL DEFAULT '{{}}',
    home INTEGER, twice INTEGER NOT NULL DEFAULT 0, size INTEGER, digest TEXT, settled BLOB NOT NULL DEFAULT x'',
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
CREATE TABLE example (
    run INTEGER NOT NULL, reason TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (run, reason)
) WITHOUT ROWID;
CREATE TABLE landed (
    run INTEGER NOT NULL, batch INTEGER NOT NULL, position INTEGER NOT NULL, key BLOB NOT NULL,
    PRIMARY KEY (run, batch, position)
) WITHOUT ROWID;
CREATE TABLE told (
    url TEXT NOT NULL PRIMARY KEY,
    slots INTEGER CHECK (typeof(slots) IN ('integer', 'null') AND slots > 0),
    poll REAL CHECK (typeof(poll) IN ('real', 'null') AND poll >= 0)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""

TABLES = "SELECT type, name, sql FROM sqlite_master WHERE name NOT GLOB 'sqlite_*' ORDER BY name"
DIVERTED = """
SELECT (SELECT count(*) FROM request WHERE run = :run) + (SELECT coalesce(sum(size), 0) FROM found WHERE run = :run)
"""
STATES = """
SELECT (SELECT duplicates FROM run WHERE id = :run),
    (SELECT coalesce(sum(size), 0) FROM queued WHERE run = :run)
        + (SELECT coalesce(sum(size), 0) FROM found WHERE run = :run)
        + coalesce(sum(iif(state = 'ready', size - crawled - failed - filtered - dead - moved, 0)), 0),
    coalesce(sum(iif(state = 'in flight', size - crawled - failed - filtered - dead - moved, 0)), 0),
    coalesce(sum(crawled), 0), coalesce(sum(failed), 0), coalesce(sum(filtered), 0), coalesce(sum(dead), 0),
    (SELECT stopped FROM run WHERE id = :run)
FROM batch WHERE run = :run
"""
LOST_OWN = "SELECT lost FROM run WHERE id = ?"
UNEXPORTED = """
SELECT unexported FROM attempt WHERE run = :run AND state = 'accepted' AND unexported <> 0
UNION ALL SELECT unexported FROM run WHERE id = :run
"""
FOLLOWED = """
SELECT followed FROM attempt WHERE run = ? AND state = 'accepted' AND followed <> '{}' ORDER BY batch, number
"""
RAISED = """
SELECT example.reason, text, ifnull(number, 0) FROM example
LEFT JOIN (SELECT reason, count(*) AS number FROM outcome WHERE run = :run AND state = 'failed' GROUP BY reason)
    AS failed ON failed.reason = example.reason
WHERE run = :run ORDER BY number DESC, example.reason
"""
# Of all requests that have led to one page the first is welcome. That a page is a request of the run, too, is told by
# its key. The keys have no index: all are looked at, and only where something has landed at all.
TWICE = """
SELECT (SELECT count(*) - count(DISTINCT key) FROM landed WHERE run = :run)
    + (SELECT count(DISTINCT key) FROM request WHERE run = :run AND key IN (SELECT key FROM landed WHERE run = :run))
WHERE EXISTS (SELECT 1 FROM landed WHERE run = :run)
"""


def create(path: Path) -> None:
    """A new ledger at *path*: there as a whole, or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    make_private(draft)
    with closing(sqlite3.connect(draft, isolation_level=None)) as db:
        db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
    draft.replace(path)


def hold(path: Path) -> sqlite3.Connection:
    """A lock that ends with this process, however it ends. Who could read it could lock it, too."""
    file = _lock_of(path)
    make_private(file)
    check_owner(file)
    lock = sqlite3.connect(file, timeout=HELD_SECONDS, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        if "locked" not in str(error):
            raise _no_lock(file, error) from None
        raise LedgerHeldError(
            f"{path}: another coordinator is using this ledger; wait for it, or name another with DISTRIBUTED_LEDGER"
        ) from None
    return lock


def is_held(path: Path) -> bool:
    """Whether a coordinator uses the ledger at *path*. Writes nothing. Raises ``LedgerError`` where that can't be
    told."""
    file = _lock_of(path)
    try:
        check_owner(file)
    except FileNotFoundError:
        return False
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=0)) as lock:
            lock.execute("SELECT * FROM sqlite_master")
    except sqlite3.Error as error:
        if "locked" not in str(error):
            raise _no_lock(file, error) from None
        return True
    return False


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _no_lock(file: Path, error: sqlite3.Error) -> LedgerError:
    return LedgerError(f"{file}: can't be used as lock: {error}; delete it if no coordinator runs")


def make_private(file: Path) -> None:
    """Make *file*, if it is not there, for its owner's eyes alone: a ledger holds headers, cookies and bodies. SQLite
    gives the files beside it the same mode."""
    with suppress(FileExistsError):  # nor is that opened: closing it would end the locks that this process has on it
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def check_owner(path: Path) -> None:
    """Raise ``LedgerError`` for a file that somebody else has put there, or that has two names: two coordinators would
    hold two locks for it."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise LedgerError(
            f"{path}: can't be used: found a link, a folder or the like, expected a file; name another with"
            " DISTRIBUTED_LEDGER"
        )
    if found.st_uid != os.geteuid():
        raise LedgerError(
            f"{path}: it belongs to the user with the number {found.st_uid}, expected a ledger of our own"
            f" ({os.geteuid()}): run as that user, or name another with DISTRIBUTED_LEDGER"
        )
    if found.st_nlink > 1:
        raise LedgerError(
            f"{path}: found {found.st_nlink} hard links to it, expected one name: nobody could tell whether another"
            " coordinator uses it; remove the others"
        )


def check_beside(path: Path) -> None:
    """Raise ``LedgerError`` for files of SQLite's beside the ledger at *path* that are not its owner's: what is in them
    is taken for a part of it."""
    owner = path.lstat().st_uid
    for ending in ("-wal", "-shm", "-journal"):
        beside = path.with_name(path.name + ending)
        with suppress(FileNotFoundError):
            found = beside.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_uid != owner:
                raise LedgerError(
                    f"{beside}: found a file of somebody else, or none of a file's kind, beside the ledger, expected"
                    " SQLite's own: see who can write in this folder"
                )


def check_format(db: sqlite3.Connection, path: Path) -> None:
    """Raise ``LedgerError`` for a file of another program or another format of ledger."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (found,) = db.execute("PRAGMA user_version").fetchone()
    if (application, found) == (APPLICATION, FORMAT):
        return
    what = f"a ledger of format {found}, expected {FORMAT}" if application == APPLICATION else "no ledger of ours"
    raise LedgerError(f"{path}: {what}; nothing was changed. Name another file with DISTRIBUTED_LEDGER")


def check_tables(db: sqlite3.Connection, path: Path) -> None:
    """Raise ``LedgerError`` for a file with other tables, or with views or triggers: what is planted there would be run
    by whoever reads it."""
    if db.execute(TABLES).fetchall() != _expected_tables():
        raise _damaged(path, "its tables are not those of a ledger")


@cache
def _expected_tables() -> list[tuple[str, str, str | None]]:
    """Kind, name and statement of what ``SCHEMA`` makes, by name."""
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(SCHEMA)
        return fresh.execute(TABLES).fetchall()


def check_sound(db: sqlite3.Connection, path: Path) -> None:
    """Raise ``LedgerError`` for a damaged file. Reads all of it (29 MB in 0.13 s)."""
    check_tables(db, path)
    (complaint,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if complaint != "ok":
        raise _damaged(path, complaint)


def _damaged(path: Path, complaint: str) -> LedgerError:
    advice = "restore a copy, or name another with DISTRIBUTED_LEDGER"
    return LedgerError(f"{path}: damaged ({complaint:.200}); {advice}")


def read_balance(db: sqlite3.Connection, run: int) -> Balance:
    (diverted,) = db.execute(DIVERTED, {"run": run}).fetchone()
    return replace(read_states(db, run), diverted=diverted)


def read_states(db: sqlite3.Connection, run: int) -> Balance:
    """The same without looking at the keys, of which there may be millions: it holds by itself."""
    duplicates, queued, in_flight, *ended, stopped = db.execute(STATES, {"run": run}).fetchone()
    crawled, failed, filtered, dead = ended
    not_crawled = 0
    if stopped is not None:
        queued, in_flight, not_crawled = 0, 0, queued + in_flight
    return Balance(
        diverted=queued + in_flight + not_crawled + sum(ended), duplicates=duplicates, queued=queued,
        in_flight=in_flight, crawled=crawled, failed=failed, filtered=filtered, dead=dead, not_crawled=not_crawled,
    )  # fmt: skip


def read_losses(db: sqlite3.Connection, run: int) -> Losses:
    (own,) = db.execute(LOST_OWN, (run,)).fetchone()
    (twice,) = db.execute(TWICE, {"run": run}).fetchone() or (0,)
    return Losses(
        unexported=sum(number for (number,) in db.execute(UNEXPORTED, {"run": run})),
        followed=sum_of_reasons(json.loads(reasons) for (reasons,) in db.execute(FOLLOWED, (run,))),
        own=sum_of_reasons([dict(json.loads(own))]),
        twice=twice,
    )


def read_raised(db: sqlite3.Connection, run: int) -> list[Raised]:
    """The most frequent first."""
    followed = read_losses(db, run).followed
    raised = [
        Raised(reason=reason, example=text, requests=number, followed=followed.get(reason, 0))
        for reason, text, number in db.execute(RAISED, {"run": run})
    ]
    return [one for one in raised if one.requests or one.followed]

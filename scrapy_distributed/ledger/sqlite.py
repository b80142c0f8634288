"""The ledger: de-duplication, queue and account of a run in one SQLite file, each transition one method and one
transaction. Its methods are in facets, by subject: the other ``sqlite_*`` files.

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
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.sqlite_account import UNPOSTED, Account
from scrapy_distributed.ledger.sqlite_batches import Batches
from scrapy_distributed.ledger.sqlite_bookings import Bookings
from scrapy_distributed.ledger.sqlite_control import Control
from scrapy_distributed.ledger.sqlite_harvest import Harvest
from scrapy_distributed.ledger.sqlite_intake import Intake
from scrapy_distributed.ledger.sqlite_schema import check_beside, check_format, check_owner, check_sound, create, hold
from scrapy_distributed.ledger.sqlite_seen import Occurrences, Seen
from scrapy_distributed.ledger.sqlite_store import Store, usable
from scrapy_distributed.ledger.sqlite_verdicts import Verdicts

FILL = 10_000  # keys that are read at once
LONGEST_LOG = 4000  # pages of the write-ahead log
LEAST_LOG = 16
LOG_PART = 16  # and no more than this part of what is free on its disk

FIND_RUN = "SELECT id, name, walked, stopped FROM run WHERE identity = ? AND ended IS NULL"
ADD_RUN = "INSERT INTO run (name, identity, started) VALUES (?, ?, ?)"
ABANDON_RUN = "UPDATE run SET ended = ? WHERE id = ?"
OTHER_RUNS = "SELECT name FROM run WHERE ended IS NULL AND id <> ? ORDER BY id"
KEYS = "SELECT key FROM request WHERE run = :run UNION ALL SELECT key FROM page WHERE run = :run"


class Ledger:
    """The ledger at *path*, for one coordinator at a time. Times are seconds since the epoch.

    *intake*: what comes in, until it is in batches. *bookings*: which batch goes to which node. *verdicts*: what
    becomes of attempts. *harvest*: which items come home. *account*: how the run stands. *control*: what an operator
    wishes.

    Raises ``LedgerError`` if the file is no ledger of this format or another coordinator holds it. Once the run has
    begun each method of a facet may raise ``LedgerUnavailableError``; then it has done nothing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.realpath(path))  # by whatever name: one ledger has one lock
        if sqlite3.sqlite_version_info < (3, 35):
            raise LedgerError(f"found SQLite {sqlite3.sqlite_version}, expected 3.35 or newer: use a newer Python")
        self._opened = ExitStack()
        try:
            with usable(self.path):
                self.store = self._open()
        except LedgerError:
            self.close()
            raise
        batches = Batches(self.store)
        self.intake = Intake(self.store, batches)
        self.bookings = Bookings(self.store, batches)
        self.verdicts = Verdicts(self.store, batches)
        self.harvest = Harvest(self.store, batches)
        self.account = Account(self.store)
        self.control = Control(self.store, batches)

    @property
    def run(self) -> str:
        """The name of the run."""
        return self.store.run_name

    def close(self) -> None:
        self._opened.close()  # the lock last: what it guards is closed by then

    def begin(self, identity: dict[str, Any], *, resume: bool, wait: bool = True) -> bool:
        """Take up the unfinished run of *identity*, or begin one. Returns whether its walk is still to be done.

        Without *wait* a run whose walk is done and whose requests are all with the nodes is not taken up.
        Raises ``LedgerError`` where the file can't be read or written, as ``others`` does.
        """
        store, text = self.store, json.dumps(identity, sort_keys=True)
        store.goes_on = True
        with usable(self.path), store.transaction(durable=True):
            found = store.db.execute(FIND_RUN, (text,)).fetchone()
            if found and not wait and found[2] is not None:
                resume = resume and store.db.execute(UNPOSTED, {"run": found[0]}).fetchone() is not None
            if found and not resume:
                store.db.execute(ABANDON_RUN, (time.time(), found[0]))
                found = None
            if found:
                store.run_id, store.run_name, walked, store.stopped = found
                self._see_all()
                return walked is None
            store.run_name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
            store.run_id = int(store.db.execute(ADD_RUN, (store.run_name, text, time.time())).lastrowid or 0)
        return True

    def others(self) -> list[str]:
        """Names of the other unfinished runs: of other spider arguments or targets."""
        with usable(self.path):
            return [name for (name,) in self.store.db.execute(OTHER_RUNS, (self.store.run_id,))]

    def _open(self) -> Store:
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._opened.enter_context(closing(hold(self.path)))
        if not self.path.exists():
            create(self.path)
        check_owner(self.path)
        check_beside(self.path)
        db = self._opened.enter_context(closing(sqlite3.connect(self.path, timeout=5, isolation_level=None)))
        check_format(db, self.path)
        check_sound(db, self.path)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint = {_pages_of_log(folder)}")
        seen = self._opened.enter_context(closing(Seen(folder)))
        occurrences = self._opened.enter_context(closing(Occurrences(folder)))
        return Store(path=self.path, db=db, seen=seen, occurrences=occurrences)

    def _see_all(self) -> None:
        """Enter the keys that the run has diverted so far."""
        keys = self.store.db.execute(KEYS, {"run": self.store.run_id})
        while some := keys.fetchmany(FILL):
            self.store.seen.add(key for (key,) in some)


def _pages_of_log(folder: Path) -> int:
    """How long the write-ahead log gets before it is folded into the ledger, in pages of 4 KiB: each time costs a sync,
    and on a disk that is nearly full it must not take all that is left."""
    return max(LEAST_LOG, min(LONGEST_LOG, shutil.disk_usage(folder).free // LOG_PART // 4096))

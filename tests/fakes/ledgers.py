"""Ledgers as coordinators leave them, made by hand."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from scrapy_distributed.ledger.finds import Finds
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.receipt import Receipt

IDENTITY: dict[str, Any] = {"project": "p", "spider": "s", "arguments": "", "targets": [[1], []]}
NODE = ("n1", "http://n1:6800")
TABLES = ("run", "queued", "batch", "attempt", "outcome", "landed")
KEYS = ("request", "page")


def body(number: int) -> str:
    return json.dumps(f"http://a/{number}")


def key(number: int) -> bytes:
    return number.to_bytes(20, "big")


def divert(ledger: Ledger, *numbers: int) -> list[str]:
    return ledger.intake.divert([(key(number), body(number)) for number in numbers])


def a_batch(ledger: Ledger, *numbers: int) -> Attempt:
    """One closed batch of the requests *numbers*, 0 to 3 if there are none, bound to a node."""
    cut(ledger, divert(ledger, *(numbers or range(4))))
    return bind(ledger)


def cut(ledger: Ledger, *batches: Sequence[str]) -> int:
    """Make batches as large as *batches* of what is queued; returns their number."""
    return ledger.intake.cut([len(bodies) for bodies in batches])[0]


def queued(ledger: Ledger) -> list[str]:
    """The requests of the open batch."""
    rows = ledger.store.db.execute("SELECT bodies FROM queued WHERE run = ? AND avoid IS NULL", (ledger.store.run_id,))
    return [json.dumps(element) for (text,) in rows for element in json.loads(text)]


def bind(ledger: Ledger) -> Attempt:
    return ledger.bookings.bind(ledger.bookings.ready()[0][0], *NODE)[0]


def receipt(attempt: Attempt, settled: int | None = None, **values: Any) -> Receipt:
    settled = (1 << attempt.size) - 1 if settled is None else settled
    usual = {"sequence": 9, "final": True, "size": attempt.size, "stored": True, "finish_reason": "finished"}
    return Receipt(job=attempt.job, settled=settled, **(usual | values))


def states(ledger: Ledger) -> dict[str, int]:
    """The counts of the balance, which must hold, without those that are 0."""
    balance = ledger.account.balance()
    assert balance.holds, str(balance)
    return {name: count for name, count in balance.as_dict().items() if count}


def all_ready(ledger: Ledger) -> list[tuple[int, str | None]]:
    """Every ready batch with the node where it was last."""
    return ledger.store.db.execute(
        "SELECT number, last FROM batch WHERE run = ? AND state = 'ready' ORDER BY number", (ledger.store.run_id,)
    ).fetchall()


def dump(ledger: Ledger) -> dict[str, list[tuple[Any, ...]]]:
    """Every row that is committed, as another process sees it."""
    with closing(sqlite3.connect(f"{ledger.path.as_uri()}?mode=ro", uri=True)) as db:
        return rows_of(db)


def rows_of(db: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    rows = {table: db.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in TABLES}
    return rows | {table: db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in KEYS}


def feeds(ledger: Ledger) -> list[str]:
    with closing(LedgerReader(ledger.path)) as reader:
        return reader.feeds(1)


def outcomes(ledger: Ledger) -> list[tuple[str, str, str]]:
    with closing(LedgerReader(ledger.path)) as reader:
        return [(outcome.state, outcome.reason, outcome.url) for outcome in reader.outcomes(1)]


def found_of(*parts: Sequence[int]) -> list[Finds]:
    return [Finds.of([(key(number), body(number)) for number in numbers]) for numbers in parts]


def settled(path: Path, *, walked: bool = True, again: int = 0) -> str:
    """A run of one batch: two requests crawled, one failed, one filtered. *again*: bitmap, as in a receipt."""
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger)
        if walked:
            ledger.intake.walked()
        report = receipt(attempt, failed={"http 404": [1]}, filtered={"offsite": [2]}, again=again, items=2,
                         feeds=(("ftp://h/1.jl", 2),))  # fmt: skip
        ledger.verdicts.settle(attempt, report, max_attempts=1)
        ledger.account.end()
        return ledger.run


def unfinished(path: Path, identity: dict[str, Any] = IDENTITY) -> str:
    """A run of one batch, whose first attempt has died, and of one request that is in no batch."""
    with closing(Ledger(path)) as ledger:
        ledger.begin(identity, resume=True)
        attempt = a_batch(ledger)
        ledger.verdicts.reject(attempt, "no receipt: MemoryError", counts=True, max_attempts=3)
        divert(ledger, 9)
        ledger.intake.walked()
        return ledger.run


def halved(path: Path) -> str:
    """A run of one batch of three that has died twice; request 2 is dead, the others are crawled."""
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger, 0, 1, 2)
        ledger.intake.walked()
        for _ in range(2):
            ledger.verdicts.reject(attempt, "no receipt: killed", counts=True, max_attempts=3)
            attempt = bind(ledger)
        ledger.verdicts.settle(attempt, receipt(attempt, items=2, feeds=(("file:///feeds/2.jl", 2),)), max_attempts=3)
        while ledger.bookings.ready():
            ledger.verdicts.reject(bind(ledger), "no receipt: killed", counts=True, max_attempts=3)
        assert ledger.account.end()
        return ledger.run


def of_feeds(path: Path, *attempts: Sequence[tuple[str, int]], items: int | None = None) -> str:
    """A settled run of a batch of one request for each of *attempts*, which are its feeds: (URL, items). *items*: what
    each job has scraped, if that is not the sum of them."""
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        for number, feeds in enumerate(attempts):
            attempt = a_batch(ledger, number)
            scraped = sum(count for _, count in feeds) if items is None else items
            ledger.verdicts.settle(attempt, receipt(attempt, items=scraped, feeds=tuple(feeds)), max_attempts=1)
        ledger.intake.walked()
        assert ledger.account.end()
        return ledger.run

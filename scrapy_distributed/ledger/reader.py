"""What the commands show of a ledger, also while a coordinator writes it.

What may be long is read a page at a time: a reader that waits for its terminal in the middle of a statement would keep
the coordinator from folding its write-ahead log back into the ledger.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.balance import NOT_CRAWLED, Balance, Losses, Raised
from scrapy_distributed.ledger.board import Event
from scrapy_distributed.ledger.records import (
    AcceptedAttempt,
    AttemptRecord,
    BatchRecord,
    OutcomeRecord,
    RunRecord,
    check_counts,
    check_texts,
)
from scrapy_distributed.ledger.spooled import own_from_json, spool_name, spooled
from scrapy_distributed.ledger.sqlite_schema import (
    check_beside,
    check_format,
    check_tables,
    read_balance,
    read_losses,
    read_raised,
    read_states,
)
from scrapy_distributed.ledger.states import Attempt, AttemptState, job_id, label
from scrapy_distributed.wire.bitmap import bitmap_from_bytes, has_bit
from scrapy_distributed.wire.payload import decode_payload, loads, url_of
from scrapy_distributed.wire.receipt import FeedFile, ItemsFile
from scrapy_distributed.words import shortened

PAGE = 1000  # rows
LAST = 2**63 - 1
MAX_NESTED = 100  # lists and objects in the identity of a run, which has three

RUNS = "SELECT id, name, identity, started, walked, ended, stopped FROM run ORDER BY id"
STATE = f"""
    iif(batch.state <> 'settled' AND (SELECT stopped FROM run WHERE id = batch.run) IS NOT NULL, '{NOT_CRAWLED}',
        batch.state)
"""
BATCHES = f"""
SELECT batch.number, parent, {STATE},
    batch.size, avoid, crawled, failed, filtered, dead, moved, batch.attempts,
    last.node, last.state, last.reason,
    (SELECT sum(items) FROM attempt WHERE run = batch.run AND batch = batch.number AND attempt.state = 'accepted')
FROM batch LEFT JOIN attempt AS last
    ON last.run = batch.run AND last.batch = batch.number AND last.number = batch.attempts
WHERE batch.run = :run AND batch.number BETWEEN :first AND :last ORDER BY batch.number LIMIT :page
"""
BATCH_COUNTS = f"""
SELECT {STATE}, last.node, count(*) FROM batch LEFT JOIN attempt AS last
    ON last.run = batch.run AND last.batch = batch.number AND last.number = batch.attempts
WHERE batch.run = ? GROUP BY 1, 2
"""
CHILDREN = "SELECT number FROM batch WHERE run = ? AND number > ? AND parent = ? ORDER BY number"
ATTEMPTS = """
SELECT number, token, node, url, state, positions, reason, bound, ended, items, feeds, unexported, followed, home, twice
FROM attempt
WHERE run = ? AND batch = ? ORDER BY number
"""
JOBS_UNDER_WAY = """
SELECT batch, number, token FROM attempt WHERE run = ? AND state IN ('bound', 'sent') AND url = ?
"""
JOBS_ENDED = "SELECT count(*) FROM attempt WHERE run = ? AND state IN ('accepted', 'rejected') AND url = ?"
REASONS = """
SELECT state, reason, count(*) FROM outcome WHERE run = ? GROUP BY state, reason ORDER BY count(*) DESC, reason LIMIT ?
"""
FAILED_ATTEMPTS = """
SELECT ended, batch, number, node, reason FROM attempt
WHERE run = ? AND state = 'rejected' ORDER BY ended DESC LIMIT ?
"""
OUTCOMES = """
SELECT batch, position, state, reason, again FROM outcome
WHERE run = :run AND (batch, position) > (:batch, :position) AND batch <= :last ORDER BY batch, position LIMIT :page
"""
LEFT = """
SELECT number, settled, payload FROM batch
WHERE run = :run AND number > :after AND state <> 'settled' ORDER BY number LIMIT 1
"""
QUEUED = "SELECT id, bodies FROM queued WHERE run = :run AND id > :after ORDER BY id LIMIT 1"
PAYLOAD = "SELECT payload FROM batch WHERE run = ? AND number = ?"
OWN = "SELECT own FROM run WHERE id = ?"
FEEDS = "SELECT feeds FROM run WHERE id = ?"
SPOOLED = "SELECT spooled FROM run WHERE id = ?"
ACCEPTED = """
SELECT batch, number, token, items, feeds, unexported, home, size, digest FROM attempt
WHERE run = ? AND state = 'accepted' ORDER BY batch, number
"""


class LedgerReader:
    """What the commands show of a ledger, while a coordinator may be writing it.

    Everything here raises ``LedgerError`` for what is no ledger, or a damaged one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.place = str(self.path)
        if not self.path.is_file():
            raise LedgerError(f"{self.path}: no ledger there; a distributed crawl makes one, --ledger names another")
        check_beside(self.path)
        with self._reading():
            self._db = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            with self._reading():
                check_format(self._db, self.path)
                check_tables(self._db, self.path)
        except LedgerError:
            self.close()
            raise

    def runs(self) -> list[RunRecord]:
        """The runs, oldest first."""
        with self._reading():
            return [RunRecord(**_named(RunRecord, (*row[:2], _identity(row[2]), *row[3:])))
                    for row in self._db.execute(RUNS)]  # fmt: skip

    def balance(self, run: int) -> Balance:
        with self._reading():
            balance = read_balance(self._db, run)
            check_counts(*vars(balance).values())
            return balance

    def states(self, run: int) -> Balance:
        """The balance as batches tell it: in a moment, however many keys there are."""
        with self._reading():
            states = read_states(self._db, run)
            check_counts(*vars(states).values())
            return states

    def reasons(self, run: int, most: int) -> list[tuple[str, str, int]]:
        """Why requests failed, were filtered or are dead: state, reason and how many, the *most* frequent ones."""
        with self._reading():
            reasons = self._db.execute(REASONS, (run, most)).fetchall()
            for state, reason, number in reasons:
                check_texts(state, reason)
                check_counts(number)
            return reasons

    def failed_attempts(self, run: int, most: int) -> list[Event]:
        """Those that came to nothing last, the newest first."""
        with self._reading():
            rows = self._db.execute(FAILED_ATTEMPTS, (run, most)).fetchall()
            events = []
            for ended, batch, number, node, reason in rows:
                check_counts(batch, number)
                check_texts(node, reason)
                events.append(Event(ended, f"batch {label(batch, number)}", f"does not count, on {node}: {reason}"))
                events[-1].check()
            return events

    def losses(self, run: int) -> Losses:
        with self._reading():
            losses = read_losses(self._db, run)
            check_counts(losses.unexported, losses.twice, *losses.followed.values(), *losses.own.values())
            check_texts(*losses.followed, *losses.own)
            return losses

    def results(self, run: RunRecord) -> None:
        """As that of ``AnyReader``: streams are of shared runs."""

    def raised(self, run: int) -> list[Raised]:
        """What code of the project has raised on workers, the most frequent first."""
        with self._reading():
            raised = read_raised(self._db, run)
            for one in raised:
                check_counts(one.requests, one.followed)
                check_texts(one.reason, one.example)
            return raised

    def batches(self, run: int) -> list[BatchRecord]:
        return list(self.each_batch(run))

    def each_batch(self, run: int, first: int = 1, last: int = LAST) -> Iterator[BatchRecord]:
        """The batches from *first* to *last* by number."""
        while True:
            values = {"run": run, "first": first, "last": last, "page": PAGE}
            with self._reading():
                page = [BatchRecord(**_named(BatchRecord, row)) for row in self._db.execute(BATCHES, values)]
            yield from page
            if len(page) < PAGE:
                return
            first = page[-1].number + 1

    def batch_counts(self, run: int) -> list[tuple[str, str | None, int]]:
        """State, node of the last attempt (``None``: there was none), and the number of batches with these."""
        with self._reading():
            counts = self._db.execute(BATCH_COUNTS, (run,)).fetchall()
            for state, node, number in counts:
                check_counts(number)
                check_texts(state, *([] if node is None else [node]))
            return counts

    def children(self, run: int, batch: int) -> list[int]:
        """The batches that were made of *batch* alone."""
        with self._reading():
            children = [number for (number,) in self._db.execute(CHILDREN, (run, batch, batch))]
            check_counts(*children)
            return children

    def attempts(self, run: RunRecord, batch: int) -> list[AttemptRecord]:
        """The attempts at *batch*, oldest first."""
        with self._reading():
            return [self._attempt(run, batch, row) for row in self._db.execute(ATTEMPTS, (run.id, batch))]

    def jobs_at(self, run: RunRecord, url: str) -> tuple[set[str], int]:
        """Of the node at *url*: the jobs that it should have, and how many have ended there."""
        with self._reading():
            rows = self._db.execute(JOBS_UNDER_WAY, (run.id, url))
            jobs = {job_id(run.name, batch, number, token) for batch, number, token in rows}
            ((ended,),) = self._db.execute(JOBS_ENDED, (run.id, url))
        return jobs, ended

    def outcomes(
        self, run: int, *, batch: int | None = None, wanted: Callable[[str, str], bool] = lambda state, reason: True
    ) -> Iterator[OutcomeRecord]:
        """The requests that failed, were filtered or are dead, in order: those of one *batch*, or all, for whose
        (state, reason) *wanted* is true."""
        last = LAST if batch is None else batch
        after = (0 if batch is None else batch, -1)
        decoded, elements = None, []
        while True:
            values = {"run": run, "batch": after[0], "position": after[1], "last": last, "page": PAGE}
            with self._reading():
                page = self._db.execute(OUTCOMES, values).fetchall()
                for number, position, state, reason, _ in page:
                    check_counts(number, position)
                    check_texts(state, reason)
            for number, position, state, reason, again in page:
                if not wanted(state, reason):
                    continue
                with self._reading():
                    if number != decoded:
                        decoded, elements = number, _elements(self._db, run, number)
                    url = url_of(elements[position])
                yield OutcomeRecord(
                    batch=number, position=position, state=state, reason=reason, url=url, again=bool(again)
                )
            if len(page) < PAGE:
                return
            after = page[-1][:2]

    def not_crawled(self, run: RunRecord) -> Iterator[OutcomeRecord]:
        """The requests of a *run* that was stopped which nobody has crawled: of its batches, then those in none."""
        if run.stopped is None:
            return
        left = partial(OutcomeRecord, state=NOT_CRAWLED, reason=run.stopped, again=True)
        after = 0
        while row := self._next(LEFT, run.id, after):
            with self._reading():
                after, settled, payload = row
                check_counts(after)
                elements = enumerate(decode_payload(payload))
                urls = [(position, url_of(element)) for position, element in elements if not has_bit(settled, position)]
            for position, url in urls:
                yield left(batch=after, position=position, url=url)
        after = 0
        while row := self._next(QUEUED, run.id, after):
            with self._reading():
                after, bodies = row
                check_counts(after)
                urls = list(enumerate(map(url_of, loads(bodies))))
            for position, url in urls:
                yield left(batch=0, position=position, url=url)

    def _next(self, query: str, run: int, after: int) -> tuple[Any, ...] | None:
        with self._reading():
            row: tuple[Any, ...] | None = self._db.execute(query, {"run": run, "after": after}).fetchone()
            return row

    def accepted(self, run: int) -> list[AcceptedAttempt]:
        """The attempts that count, by batch and number: their feeds together are the result of the run. As batch 0 come
        the feeds of what the coordinator has scraped itself."""
        with self._reading():
            ((own,),) = self._db.execute(OWN, (run,)).fetchall()
            here = [_feeds(json.dumps(files)) for _, files in loads(own)]
            return [
                AcceptedAttempt(batch=0, number=number, items=most_items(files), feeds=files)
                for number, files in enumerate(here, 1)
            ] + [
                AcceptedAttempt(
                    batch=batch,
                    number=number,
                    token=token,
                    items=items or 0,
                    feeds=_feeds(feeds),
                    unexported=unexported,
                    home=home,
                    size=size,
                    digest=digest,
                )
                for batch, number, token, items, feeds, unexported, home, size, digest in self._db.execute(
                    ACCEPTED, (run,)
                )
            ]

    def spooled(self, run: int) -> dict[str, ItemsFile]:
        """What should be in the spool, name to file: what the coordinator has scraped itself, then what has come home
        from workers, by batch and attempt."""
        with self._reading():
            ((own,),) = self._db.execute(SPOOLED, (run,)).fetchall()
            return own_from_json(own) | {
                spool_name(one.batch, one.number, one.token): spooled(one.home, one.size, one.digest)
                for one in self.accepted(run)
                if one.home is not None
            }

    def feeds(self, run: int) -> list[str]:
        """The URLs of the feeds that count, without passwords."""
        return [file.url for attempt in self.accepted(run) for file in attempt.feeds]

    def feed_urls(self, run: int) -> list[str]:
        """Where workers write feeds, as they are told."""
        with self._reading():
            ((text,),) = self._db.execute(FEEDS, (run,)).fetchall()
            urls = list(loads(text))
            check_texts(*urls)
            return urls

    def close(self) -> None:
        self._db.close()

    def _attempt(self, run: RunRecord, batch: int, row: tuple[Any, ...]) -> AttemptRecord:
        (number, token, node, url, state, positions, reason, bound, ended, items, feeds, unexported, followed,
         home, twice) = row  # fmt: skip
        attempt = Attempt(
            run=run.name, batch=batch, number=number, token=token, node=node, url=url, state=AttemptState(state),
            positions=bitmap_from_bytes(positions),
        )  # fmt: skip
        names = (run.identity["project"], run.identity["spider"], attempt.job)
        served = "://" in url and attempt.state is not AttemptState.UNSENT
        return AttemptRecord(
            number=number, label=attempt.label, job=attempt.job, node=node, url=url, state=state, reason=reason,
            size=attempt.size, bound=bound, ended=ended, items=items, feeds=_feeds(feeds), unexported=unexported,
            followed=dict(loads(followed)), home=home, twice=twice,
            log=f"{url}/logs/{'/'.join(quote(name, safe='') for name in names)}.log" if served else None,
        )  # fmt: skip

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Whatever a damaged file makes of reading it becomes a ``LedgerError``."""
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
            raise LedgerError(
                f"{self.path}: can't be read as ledger: {shortened(str(error))}; is it damaged? --ledger names another"
            ) from None


def _named(record: type[Any], row: Sequence[Any]) -> dict[str, Any]:
    """*row*, whose columns are in the order of the fields of *record*, by their names."""
    return dict(zip((field.name for field in fields(record)), row, strict=True))


def _identity(text: Any) -> dict[str, Any]:
    check_texts(text)
    if text.count("[") + text.count("{") > MAX_NESTED:
        raise ValueError("the identity of a run is nested too deep to be shown")
    identity = dict(loads(text))
    return identity | {name: str(identity[name]) for name in ("project", "spider")}


def _feeds(text: str | None) -> tuple[FeedFile, ...]:
    files = [FeedFile(*file) for file in loads(text or "[]")]
    for file in files:
        check_texts(file.url)
        check_counts(file.items, file.feed)
    return tuple(files)


def most_items(files: tuple[FeedFile, ...]) -> int:
    """How many items there are at least: as many as the fullest of several feeds has."""
    sums: Counter[int] = Counter()
    for file in files:
        sums[file.feed] += file.items
    return max(sums.values(), default=0)


def _elements(db: sqlite3.Connection, run: int, batch: int) -> list[Any]:
    (payload,) = db.execute(PAYLOAD, (run, batch)).fetchone()
    return list(decode_payload(payload))

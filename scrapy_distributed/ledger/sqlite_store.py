"""What the facets of a ledger share: its connection, the run that it is at, and its scratch files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.ledger.sqlite_seen import Occurrences, Seen

P = ParamSpec("P")
T = TypeVar("T")


def while_available(method: Callable[P, T]) -> Callable[P, T]:
    """What SQLite raises is nobody else's business."""

    @wraps(method)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except sqlite3.Error as error:
            raise LedgerUnavailableError(str(error)) from error

    return called


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """For what is done before a crawl starts: the ledger at *path* can be refused with a sentence."""
    try:
        yield
    except (sqlite3.Error, OSError, ValueError) as error:
        raise LedgerError(f"{path}: can't be used as ledger: {error}; name another with DISTRIBUTED_LEDGER") from None


@contextmanager
def damage(what: str) -> Iterator[None]:
    """For reading *what* of a column that a damaged file may have spoilt."""
    try:
        yield
    except (ValueError, TypeError, LookupError) as error:
        raise LedgerUnavailableError(f"damaged: {what}: {error}") from None


class Store:
    """The open ledger at *path*. *run_id* and *run_name*: of its run; 0 and '' while none has begun. *goes_on*: whether
    it is crawled here, and not only changed by an operator. *stopped*: why nothing more of it is crawled, if that is
    so."""

    def __init__(self, *, path: Path, db: sqlite3.Connection, seen: Seen, occurrences: Occurrences) -> None:
        self.path = path
        self.db = db
        self.seen = seen
        self.occurrences = occurrences
        self.run_id = 0
        self.run_name = ""
        self.goes_on = False
        self.stopped: str | None = None

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All of it, or nothing. *durable*: it survives a power cut."""
        execute = self.db.execute
        if durable:
            execute("PRAGMA synchronous = FULL")
        try:
            execute("BEGIN IMMEDIATE")
            try:
                yield
                execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:  # SQLite rolls back by itself when the disk is full
                    execute("ROLLBACK")
                raise
        finally:
            if durable:
                execute("PRAGMA synchronous = NORMAL")

    def row(self, query: str, parameters: tuple[Any, ...]) -> tuple[Any, ...]:
        """The row that must be there. Raises ``LedgerUnavailableError`` where it is not: an index may still name what a
        damaged table has lost."""
        found: tuple[Any, ...] | None = self.db.execute(query, parameters).fetchone()
        if found is None:
            raise LedgerUnavailableError(f"damaged: a row is missing: {query.strip():.60} {parameters}")
        return found

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """What can't be written to a scratch file is tried again, as what the ledger itself can't."""
        try:
            yield
        except OSError as error:
            raise LedgerUnavailableError(f"its scratch file: {error}") from error

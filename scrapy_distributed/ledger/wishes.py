"""What operators wish of a running crawl: a table in a file beside its ledger, to which any process may append. The
coordinator reads it, does what is wished, and answers there: no signal, no port, no lock."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.answer import Answer
from scrapy_distributed.ledger.records import check_texts, check_times
from scrapy_distributed.ledger.sqlite_schema import check_owner, make_private

SCHEMA = """
CREATE TABLE IF NOT EXISTS wish (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    asked REAL NOT NULL, -- seconds since 1970
    what TEXT NOT NULL,
    about TEXT NOT NULL,
    answer TEXT -- NULL while nobody has answered
)
"""
ASK = "INSERT INTO wish (asked, what, about) VALUES (?, ?, ?)"
OPEN = "SELECT id, what, about FROM wish WHERE answer IS NULL ORDER BY id"
ANSWER = "UPDATE wish SET answer = ? WHERE id = ?"
ANSWER_OF = "SELECT answer FROM wish WHERE id = ?"
LAST = "SELECT asked, what, about, answer FROM wish ORDER BY id DESC LIMIT ?"
ANSWER_ALL = "UPDATE wish SET answer = ? WHERE answer IS NULL"
FORGET = "DELETE FROM wish WHERE id <= (SELECT max(id) FROM wish) - ?"
KEPT = 1000  # wishes
SECONDS = 5.0  # others are waited for
TOO_LATE = Answer(lines=("the crawl was over by then",), done=False)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """*what* is wished, and *about* what, '' where that needs no word."""

    number: int
    what: str
    about: str


class Wishes:
    """Those of the crawls with *ledger*. Each method raises ``LedgerError`` where their file can't be used."""

    def __init__(self, ledger: Path) -> None:
        self.path = ledger.with_name(f"{ledger.name}.wishes")
        self._seen: tuple[int, int] | None = None  # the file, when nothing was open in it

    # Whoever wishes

    def ask(self, what: str, about: str = "") -> int:
        """Returns the number of the wish."""
        make_private(self.path)
        with self._opened() as db:
            db.execute(SCHEMA)
            db.execute(FORGET, (KEPT,))
            return int(db.execute(ASK, (time.time(), what, about)).lastrowid or 0)

    def answer_of(self, number: int) -> str | None:
        """The text of the ``Answer``."""
        with self._opened() as db:
            found = db.execute(ANSWER_OF, (number,)).fetchone()
        return found[0] if found else None

    # Whoever looks on

    def last(self, most: int) -> list[tuple[float, str, str, str | None]]:
        """The newest first: when each was asked, what, about what, and the words of the answer, if it has one."""
        if self._state() is None:
            return []
        with self._opened() as db:
            rows = db.execute(LAST, (most,)).fetchall()
        try:
            for asked, what, about, answer in rows:
                check_times(asked)
                check_texts(what, about, answer or "")
        except ValueError as error:
            raise LedgerError(f"{self.path}: can't be used: {error}; delete it if no crawl runs") from None
        return [(*wish, answer and Answer.from_text(answer).words) for *wish, answer in rows]

    # The coordinator

    def begin(self) -> None:
        """What was wished of crawls that are over can't be done any more."""
        if self.path.exists():
            with self._opened() as db:
                db.execute(SCHEMA)
                db.execute(ANSWER_ALL, (TOO_LATE.as_text(),))

    def unanswered(self) -> list[Wish]:
        """In the order in which they were asked. Cheap where nothing was, since the last time."""
        state = self._state()
        if state is None or state == self._seen:
            return []
        with self._opened() as db:
            found = [Wish(number=number, what=what, about=about) for number, what, about in db.execute(OPEN)]
        self._seen = None if found else state
        return found

    def answer(self, wish: Wish, text: str) -> None:
        """*text*: of an ``Answer``."""
        with self._opened() as db:
            db.execute(ANSWER, (text, wish.number))

    def _state(self) -> tuple[int, int] | None:
        """``None`` where nobody has wished for anything, or who did has made no more than the file."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size) if found.st_size else None

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        try:
            check_owner(self.path)
            with closing(sqlite3.connect(self.path, timeout=SECONDS)) as db, db:
                yield db
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"{self.path}: can't be used: {error}; delete it if no crawl runs") from None

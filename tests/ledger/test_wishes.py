"""What operators wish of a crawl, and what a crawl answers."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.answer import Answer
from scrapy_distributed.ledger.wishes import KEPT, Wishes


def wishes(folder: Path) -> Wishes:
    """As another process has them."""
    return Wishes(folder / "s.sqlite")


def test_a_wish_is_there_until_it_is_answered(tmp_path: Path) -> None:
    coordinator = wishes(tmp_path)
    assert coordinator.unanswered() == []
    first, second = wishes(tmp_path).ask("pause"), wishes(tmp_path).ask("drain", "n1")
    found = coordinator.unanswered()
    assert [(wish.number, wish.what, wish.about) for wish in found] == [(first, "pause", ""), (second, "drain", "n1")]
    assert coordinator.unanswered() == found  # the one who looks may die before it answers
    coordinator.answer(found[0], "paused")
    assert [wishes(tmp_path).answer_of(number) for number in (first, second, 99)] == ["paused", None, None]
    assert coordinator.unanswered() == found[1:]
    coordinator.answer(found[1], "drained")
    assert coordinator.unanswered() == []
    wishes(tmp_path).ask("resume")
    assert [wish.what for wish in coordinator.unanswered()] == ["resume"]


def test_a_file_in_which_nothing_is_yet_holds_no_wishes(tmp_path: Path) -> None:
    """Whoever wishes makes it, and then the table: or is killed before."""
    coordinator = wishes(tmp_path)
    coordinator.path.touch()
    assert (coordinator.unanswered(), coordinator.last(3)) == ([], [])
    wishes(tmp_path).ask("pause")
    assert [wish.what for wish in coordinator.unanswered()] == ["pause"]


def test_where_nothing_has_changed_the_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wishes(tmp_path).ask("pause")
    coordinator = wishes(tmp_path)
    coordinator.answer(coordinator.unanswered()[0], "paused")
    assert coordinator.unanswered() == []
    monkeypatch.setattr(sqlite3, "connect", lambda *_, **__: pytest.fail("it is opened"))
    assert coordinator.unanswered() == []


def test_what_was_wished_of_an_earlier_crawl_is_void(tmp_path: Path) -> None:
    wishes(tmp_path).begin()  # nothing was: no file is made
    assert not list(tmp_path.iterdir())
    number = wishes(tmp_path).ask("pause")
    coordinator = wishes(tmp_path)
    coordinator.begin()
    assert coordinator.unanswered() == []
    text = wishes(tmp_path).answer_of(number)
    assert text is not None
    assert Answer.from_text(text) == Answer(lines=("the crawl was over by then",), done=False)
    assert [answer for *_, answer in wishes(tmp_path).last(1)] == ["the crawl was over by then"]


def test_it_does_not_grow_for_ever(tmp_path: Path) -> None:
    with closing(sqlite3.connect(wishes(tmp_path).path)):
        pass
    for _ in range(3):
        wishes(tmp_path).ask("pause")
    with closing(sqlite3.connect(wishes(tmp_path).path)) as db, db:
        db.execute("INSERT INTO wish VALUES (?, 0, 'pause', '', 'x')", (KEPT + 3,))
    last = wishes(tmp_path).ask("resume")
    with closing(sqlite3.connect(wishes(tmp_path).path)) as db:
        assert [number for (number,) in db.execute("SELECT id FROM wish ORDER BY id")] == [KEPT + 3, last]


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    wishes(tmp_path).ask("pause")
    assert stat.S_IMODE(os.stat(tmp_path / "s.sqlite.wishes").st_mode) == 0o600


@pytest.mark.parametrize("what", ["a folder", "no database", "another table"])
def test_a_file_that_is_none_of_ours(tmp_path: Path, what: str) -> None:
    path = wishes(tmp_path).path
    if what == "a folder":
        path.mkdir()
    elif what == "no database":
        path.write_text("x" * 1000)
    else:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("CREATE TABLE wish (x)")
    for call in (lambda: wishes(tmp_path).ask("pause"), lambda: wishes(tmp_path).unanswered()):
        with pytest.raises(LedgerError, match=r"s\.sqlite\.wishes: can't be used"):
            call()

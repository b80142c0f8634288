"""What is known of the items of a shared run that have come home: a journal beside them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from scrapy import Spider

from scrapy_distributed.coordinator.home_book import HomeBook
from scrapy_distributed.coordinator.home_journal import JOURNAL, AtHome, at_home
from scrapy_distributed.coordinator.keeper import OwnSpooled
from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.states import Attempt, AttemptState
from scrapy_distributed.wire.receipt import FeedFile, ItemsFile

IDENTITY = {"project": "p", "spider": "s"}
FILE = ItemsFile(3, 60, "ab" * 32)
OWN = {"own-1.jl": ItemsFile(1, 20, "cd" * 32)}


def attempt(batch: int = 1) -> Attempt:
    return Attempt(run="r", batch=batch, number=1, node="w", token="0a0b0c0d", state=AttemptState.ACCEPTED, positions=7)


class Books:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entered: list[bytes] = []
        self._open: list[HomeBook] = []

    def open(self, run: str = "r", identity: dict[str, Any] = IDENTITY) -> HomeBook:
        self.close()
        return self.another(run, identity)

    def another(self, run: str = "r", identity: dict[str, Any] = IDENTITY) -> HomeBook:
        book = HomeBook(self.folder, entered=self._enter)
        book.begin(run, identity)
        self._open.append(book)
        return book

    def _enter(self, keys: Collection[bytes]) -> None:
        self.entered += keys

    def close(self) -> None:
        for book in self._open:
            book.close()


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    books = Books(tmp_path / "ledger.sqlite.items")
    yield books
    books.close()


def test_what_is_new_is_found_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    above = tmp_path / "deep" / "ledger.sqlite.items"
    synced: list[tuple[str, list[str]]] = []

    def sync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append((str(path), os.listdir(path) if path.is_dir() else []))

    monkeypatch.setattr(os, "fsync", sync)
    book = HomeBook(above, entered=lambda keys: None)
    book.place.name()
    book.begin("r", IDENTITY)
    spool = Spool(tmp_path / "deep" / "ledger.sqlite", Spider)
    spool.begin("r", [])
    spool.begin_own("own-1.jl").close()
    book.close()
    for folder, name in (
        (tmp_path, "deep"), (tmp_path / "deep", above.name), (above, "place.id"), (above, "r"),
        (above / "r", JOURNAL), (above / "r", "own-1.jl"),
    ):  # fmt: skip
        assert any(path == str(folder) and name in there for path, there in synced), (folder, name, synced)
    assert str(above / "place.id") in dict(synced)


def test_a_later_command_knows_all_of_it(books: Books) -> None:
    book = books.open()
    book.has_come(attempt(2), FILE)
    book.has_come(attempt(1), FILE)
    book.set_own_files(OWN)
    book.appends_to("/out.jl", 10)
    book.has_appended({"/out.jl": (5, "digest")})
    book.is_unreadable("1.unreadable")
    book.store_own(["own-1.jl"], [FeedFile("file:///0.jl", 1)])
    again = books.open()
    assert list(again.files()) == [attempt(1).spool_name, attempt(2).spool_name]
    assert again.file(attempt(2)) == FILE
    assert again.own_files() == OWN
    assert again.appended() == {"/out.jl": (10, 5, "digest")}
    assert again.unreadable == ["1.unreadable"]
    assert again.own_stored() == {"own-1.jl"}
    again.forget_own()
    assert books.open().own_stored() == set()


def test_what_is_forgotten_counts_no_more(books: Books) -> None:
    book = books.open()
    for number in (1, 2):
        book.has_come(attempt(number), FILE)
    book.forget([attempt(1).spool_name])
    assert book.found(attempt(1)) is None
    assert list(books.open().files()) == list(at_home(books.folder / "r").files) == [attempt(2).spool_name]


def test_who_looks_on_is_told_what_is_there_while_it_is_written(books: Books) -> None:
    book, folder = books.open(), books.folder / "r"
    assert at_home(folder) == AtHome({}, [])
    book.has_come(attempt(2), FILE)
    book.has_come(attempt(1), FILE)
    book.set_own_files(OWN)
    feed = FeedFile("file:///0.jl", 1)
    book.store_own(["own-1.jl"], [feed])
    with (folder / JOURNAL).open("ab") as file:
        file.write(b'{"own": {"own-2')
    files = {**OWN, attempt(1).spool_name: FILE, attempt(2).spool_name: FILE}
    assert at_home(folder) == AtHome(files, [(feed,)])
    books.open().forget_own()
    assert at_home(folder) == AtHome(files, [])
    assert at_home(books.folder / "none") == AtHome({}, [])


def test_a_journal_of_somebody_else_is_refused(books: Books) -> None:
    books.open().has_come(attempt(), FILE)
    (books.folder / "r" / JOURNAL).write_text('{"home": {"1.jl": [1, 2]}}\n')
    with pytest.raises(LedgerError, match="can't be read"):
        at_home(books.folder / "r")


def test_a_line_that_was_cut_off_did_not_count(books: Books) -> None:
    books.open().has_come(attempt(), FILE)
    books.close()
    journal = books.folder / "r" / JOURNAL
    with journal.open("ab") as file:
        file.write(b'{"home": {"half')
    book = books.open()
    assert list(book.files()) == [attempt().spool_name]
    book.has_come(attempt(2), FILE)
    assert len(books.open().files()) == 2


def test_a_damaged_journal_is_refused(books: Books) -> None:
    books.open()
    books.close()
    (books.folder / "r" / JOURNAL).write_bytes(b"[1]\n")
    with pytest.raises(LedgerError, match=r"home\.journal: can't be used: .*expected an object"):
        books.open()


def test_what_is_lost_is_advised_on_as_a_shared_run_can_do_it(books: Books) -> None:
    book = books.open()
    spool = Spool(books.folder / "s.sqlite", Spider)
    spool.begin("r", [])
    book.set_own_files({"own-1.jl": FILE})
    with pytest.raises(LedgerError, match=r"own-1\.jl: items that have come home are lost.*DISTRIBUTED_RESUME=False"):
        OwnSpooled(spool=spool, ledger=book, spider=Spider("s")).begin("r", walk=False, home={})


def test_only_one_coordinator_has_it(books: Books) -> None:
    assert books.open().place.hold()
    assert not books.another("other").place.hold()
    books.close()
    assert books.open().place.hold()


def test_what_can_not_be_written_is_not_known(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    book = books.open()

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LedgerUnavailableError, match="no space left"):
        book.has_come(attempt(), FILE)
    assert book.files() == {}
    monkeypatch.undo()
    book.has_come(attempt(2), FILE)
    assert list(books.open().files()) == [attempt(2).spool_name]


def test_pages_of_its_own_are_entered_once_and_told(books: Books) -> None:
    book = books.open()
    book.know_pages([b"request"])
    assert [book.enter_pages([key]) for key in (b"page", b"page", b"request")] == [True, False, False]
    assert books.entered == [b"page"]
    assert not book.enter_pages([b"new", b"page"])
    assert book.enter_pages([b"new"])


def test_the_nth_time_of_a_request_is_counted(books: Books) -> None:
    book = books.open()
    assert [book.seen.occurrence(key) for key in (b"a", b"b", b"a", b"a")] == [1, 1, 2, 3]


def test_of_earlier_runs_it_knows_those_of_its_identity_that_have_ended(books: Books) -> None:
    for run, identity, ended in (("1", IDENTITY, True), ("2", {"other": 1}, True), ("3", IDENTITY, False)):
        book = books.open(run, identity)
        if ended:
            book.ended()
    assert books.open("4").earlier_runs() == ["1"]


def test_a_folder_is_known_again(books: Books, tmp_path: Path) -> None:
    place = books.open().place.name()
    assert place == books.open("other").place.name()
    elsewhere = HomeBook(tmp_path / "elsewhere", entered=lambda keys: None)
    assert elsewhere.place.name() != place

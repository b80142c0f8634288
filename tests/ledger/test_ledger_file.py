"""The file of a ledger: whose it is, who may read it, how many names it may have, and what it takes of a disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections import namedtuple
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ledgers import IDENTITY, NODE, a_batch, bind, divert, receipt, states

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import LEAST_LOG, LONGEST_LOG, Ledger
from scrapy_distributed.ledger.sqlite_schema import APPLICATION, FORMAT, is_held

Usage = namedtuple("Usage", "total used free")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Who may read and write it


@pytest.mark.parametrize("planted", ["CREATE VIEW sqliteview AS SELECT 1",
                                     "CREATE TRIGGER sqlitex AFTER INSERT ON run BEGIN SELECT 1; END"])  # fmt: skip
def test_what_is_planted_has_no_name_that_hides_it(tmp_path: Path, planted: str) -> None:
    path = tmp_path / "s.sqlite"
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(planted)
    for use in (Ledger, LedgerReader):
        with pytest.raises(LedgerError, match="its tables are not those of a ledger"):
            use(path)


@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
def test_what_lies_beside_it_is_its_owners(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "s.sqlite"
    Ledger(path).close()
    (tmp_path / f"s.sqlite{ending}").symlink_to(tmp_path / "elsewhere")
    for use in (Ledger, LedgerReader):
        with pytest.raises(LedgerError, match=f"sqlite{ending}: found a file of somebody else"):
            use(path)
    (tmp_path / f"s.sqlite{ending}").unlink()
    if os.geteuid() == 0:
        (tmp_path / f"s.sqlite{ending}").touch()
        os.chown(tmp_path / f"s.sqlite{ending}", 65534, 65534)
        for use in (Ledger, LedgerReader):
            with pytest.raises(LedgerError, match=f"sqlite{ending}: found a file of somebody else"):
                use(path)


def test_nobody_else_can_read_what_is_in_it_nor_lock_it(path: Path) -> None:
    before = os.umask(0o022)
    try:
        with closing(Ledger(path)) as ledger:
            ledger.begin(IDENTITY, resume=True)
            divert(ledger, 1)
            found = {file.name: mode(file) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert mode(path.parent) == 0o700
    assert set(found) >= {"s.sqlite", "s.sqlite.lock", "s.sqlite-wal", "s.sqlite-shm"}
    assert set(found.values()) == {0o600}


@pytest.mark.parametrize("name", ["s.sqlite", "s.sqlite.lock"])
def test_a_file_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with closing(Ledger(path)):
        pass
    real, somebody = Path.lstat, os.geteuid() + 1

    def planted(file: Path) -> os.stat_result:
        found = real(file)
        return found if file.name != name else os.stat_result((*found[:4], somebody, *found[5:]))

    monkeypatch.setattr(Path, "lstat", planted)
    with pytest.raises(LedgerError, match=rf"belongs to the user with the number {somebody}, expected .* our own"):
        Ledger(path)


def test_a_lock_that_leads_elsewhere_makes_no_file_there(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.with_name("s.sqlite.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match=r"s\.sqlite\.lock: can't be used: found a link"):
        Ledger(path)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "planted", ["CREATE VIEW mine AS SELECT 1", "CREATE TRIGGER mine DELETE ON run BEGIN SELECT 1; END"]
)
def test_what_is_planted_in_it_is_not_read(path: Path, planted: str) -> None:
    with closing(Ledger(path)):
        pass
    with closing(sqlite3.connect(path)) as db:
        db.execute(planted)
    for use in (Ledger, LedgerReader):
        with pytest.raises(LedgerError, match=r"damaged \(its tables are not those of a ledger\)"):
            use(path)


# Its names


def test_a_second_coordinator_is_refused_under_another_name_as_well(path: Path, tmp_path: Path) -> None:
    link, folder = tmp_path / "link.sqlite", tmp_path / "linked"
    with closing(Ledger(path)):
        link.symlink_to(path)
        folder.symlink_to(path.parent)
        for name in (link, folder / "s.sqlite"):
            with pytest.raises(LedgerError, match="another coordinator is using this ledger"):
                Ledger(name)
    with closing(Ledger(link)) as ledger:
        assert ledger.path == path


def test_a_ledger_with_two_names_is_refused(path: Path, tmp_path: Path) -> None:
    with closing(Ledger(path)):
        pass
    os.link(path, tmp_path / "other.sqlite")
    for name in (path, tmp_path / "other.sqlite"):
        with pytest.raises(LedgerError, match="found 2 hard links to it, expected one name"):
            Ledger(name)


# The disk


@pytest.mark.parametrize(
    ("free", "most"), [(2 * 1024 * 1024, 128 * 1024), (10**12, LONGEST_LOG * 4096), (0, LEAST_LOG * 4096)]
)
def test_its_log_takes_a_small_part_of_what_is_free(
    path: Path, monkeypatch: pytest.MonkeyPatch, free: int, most: int
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**12, 10**12 - free, free))
    log, longest = path.with_name("s.sqlite-wal"), 0
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        for number in range(0, 6000, 20):
            divert(ledger, *range(number, number + 20))
            longest = max(longest, log.stat().st_size)
        assert states(ledger) == {"diverted": 6000, "queued": 6000}
    # Each page has a head in the log, and a transaction is in it as a whole.
    assert longest <= most * 1.1 + 20 * 4096


# A copy


def test_a_copy_that_is_put_back_has_no_use_for_receipts_of_what_came_after_it(path: Path, tmp_path: Path) -> None:
    """It gives the same numbers again, to other requests."""
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        divert(ledger, 1, 2)
        run = ledger.run
    shutil.copy(path, tmp_path / "copy.sqlite")
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        ledger.intake.cut([2])
        before = bind(ledger)
    shutil.copy(tmp_path / "copy.sqlite", path)
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        ledger.intake.cut([1, 1])
        after = bind(ledger)
        assert (before.run, before.batch, before.number) == (after.run, after.batch, after.number) == (run, 1, 1)
        assert before.job != after.job
        assert ledger.bookings.live() == [after]


def test_an_attempt_keeps_its_token(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        first, _ = a_batch(ledger, 1), a_batch(ledger, 2)
        ledger.verdicts.lose(first, "no sign of life", counts=True, max_attempts=3)
        again, _ = ledger.bookings.bind(1, *NODE)
        assert len({attempt.token for attempt in ledger.bookings.live()}) == 3
        ledger.verdicts.settle(again, receipt(again), max_attempts=3)
    with closing(LedgerReader(path)) as reader:
        jobs = [attempt.job for attempt in reader.attempts(reader.runs()[0], 1)]
    assert jobs == [first.job, again.job]


# Who may use the file


def test_who_asks_whether_it_is_used_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    assert not is_held(path)
    assert list(tmp_path.iterdir()) == []
    with closing(Ledger(path)):
        assert is_held(path)
        assert is_held(path)  # to ask does not end the lock
    assert not is_held(path)
    (tmp_path / "l.sqlite.lock").write_bytes(b"no lock of ours" * 100)
    with pytest.raises(LedgerError, match=r"l\.sqlite\.lock: can't be used as lock"):
        is_held(path)


def test_a_second_coordinator_is_refused_with_the_name_of_the_file(ledger: Ledger, path: Path) -> None:
    with pytest.raises(LedgerError, match=r"s\.sqlite: another coordinator is using this ledger"):
        Ledger(path)
    divert(ledger, 1)
    ledger.close()
    Ledger(path).close()


def foreign(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: foreign(path, "CREATE TABLE mine (a)"), "no ledger of ours"),
        (lambda path: foreign(path, "PRAGMA application_id = 7"), "no ledger of ours"),
        (
            lambda path: foreign(path, f"PRAGMA application_id = {APPLICATION}", f"PRAGMA user_version = {FORMAT + 1}"),
            f"format {FORMAT + 1}",
        ),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"rubbish" * 1000), "can't be"),
        (lambda path: path.write_bytes(b"a text\n" * 1000), "can't be"),
        (lambda path: path.mkdir(), "can't be"),
    ],
    ids=["tables", "application", "newer", "damaged", "text", "folder"],
)
def test_a_file_that_is_no_ledger_is_refused_and_unchanged(path: Path, make: Any, message: str) -> None:
    path.parent.mkdir()
    make(path)
    before = path.read_bytes() if path.is_file() else None
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"s\.sqlite: ") as caught:
            Ledger(path)
        assert message in str(caught.value)
        assert "DISTRIBUTED_LEDGER" in str(caught.value)
        with pytest.raises(LedgerError, match=r"s\.sqlite: "):
            LedgerReader(path)
        assert (path.read_bytes() if path.is_file() else None) == before


def test_a_reader_of_nothing_is_told_so_and_makes_no_file(path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger there"):
        LedgerReader(path)
    assert not path.parent.exists()


def test_a_reader_reads_while_the_coordinator_writes(ledger: Ledger, path: Path) -> None:
    with closing(LedgerReader(path)) as reader:
        assert reader.balance(1).diverted == 0
        attempt = a_batch(ledger)
        assert (reader.balance(1).in_flight, reader.balance(1).holds) == (attempt.size, True)
        with ledger.store.transaction():
            assert reader.balance(1).holds
        (run,) = reader.runs()
        assert (run.name, run.identity, run.walked, run.ended) == (ledger.run, IDENTITY, None, None)
        (batch,) = reader.batches(1)
        assert (batch.state, batch.size, batch.node, batch.attempts) == ("in flight", attempt.size, "n1", 1)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM request")

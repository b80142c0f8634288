"""Damaged ledgers, those of other formats and those of strangers: refused in clear words, and left as they are."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from batches_command import command_of
from hostile import forged
from ledgers import IDENTITY, a_batch, divert, receipt

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.wire.receipt import Receipt

WRITTEN = 61  # each byte of so many that are not zero is changed


def test_the_largest_counts_and_stats_that_are_read_can_be_settled_and_summed(tmp_path: Path) -> None:
    values = {"items": 2**53, "pages": 2**53, "sequence": 2**53, "unexported": 2**53, "feeds": [["a", 2**53]]}
    with closing(Ledger(tmp_path / "l.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        for number, stat in enumerate((2**63 - 1, -(2**63) + 1, 9.2e18, 1.5)):
            attempt = a_batch(ledger, number)
            text = forged(job=attempt.job, size=1, settled="AQ==", stats={"a": stat, "max": stat}, **values)
            ledger.verdicts.settle(attempt, Receipt.from_json(text, size=1), max_attempts=3)
        assert set(ledger.account.worker_stats()[0]) == {"a", "max"}
        assert ledger.account.balance().settled


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A ledger with a settled batch, one in flight, one ready, and an open one."""
    path = tmp_path_factory.mktemp("sound") / "s.sqlite"
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger)
        report = receipt(attempt, failed={"http 404": [1]}, filtered={"offsite": [2]}, items=2, stats={"a": 1},
                         feeds=(("ftp://h/1.jl", 2),))  # fmt: skip
        ledger.verdicts.settle(attempt, report, max_attempts=1)
        divert(ledger, *range(10, 20))
        ledger.intake.cut([4, 4])
        ledger.bookings.bind(2, "n1")
    return path.read_bytes()


def use(path: Path) -> None:
    """What a coordinator does with a ledger that it takes up."""
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        ledger.others()
        count, _ = ledger.intake.open_batch()
        with suppress(LedgerUnavailableError):  # from here on such an error closes the crawl, as ledger_failed
            ledger.bookings.live()
            ledger.harvest.files()
            ledger.harvest.own_files()
            ledger.harvest.appended()
            ledger.harvest.own_stored()
            ledger.account.balance()
            ledger.account.settled()
            ledger.account.posted()
            ledger.account.worker_stats()
            ledger.intake.cut([count])
            for batch, *_ in ledger.bookings.ready():
                ledger.bookings.bind(batch, "n1")


def read(path: Path) -> None:
    """What the commands do."""
    with closing(LedgerReader(path)) as reader:
        for run in reader.runs():
            reader.balance(run.id)
            reader.batches(run.id)
            list(reader.outcomes(run.id))
            reader.feeds(run.id)


def damaged(sound: bytes) -> dict[str, bytes]:
    """Cut off and with one byte changed, at places spread over all that is written in the file and all over its header.
    Between what is written a page has zeros, which nobody reads."""
    written = [at for at in range(100, len(sound)) if sound[at]]
    cuts = [*range(1, 120, 13), *range(120, len(sound), 2039)]
    flips = [*range(100), *written[::WRITTEN]]
    return {f"cut at {at}": sound[:at] for at in cuts} | {
        f"byte {at}": sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :] for at in flips
    }


def complaints(damages: Iterable[tuple[str, bytes]], path: Path, action: Callable[[Path], Any]) -> list[str]:
    """The *damages* for which *action* raises anything but ``LedgerError``, or changes the file that it refuses."""
    found = []
    for name, data in damages:
        for old in path.parent.iterdir():
            old.unlink()
        path.write_bytes(data)
        try:
            action(path)
        except LedgerError as error:
            if not str(error).startswith(str(path)) or path.read_bytes() != data:
                found.append(f"{name}: changed, or without its path: {error}")
        except Exception as error:
            found.append(f"{name}: {type(error).__name__}: {error}")
    return found


def test_a_damaged_ledger_is_refused_by_the_coordinator(sound: bytes, tmp_path: Path) -> None:
    """Not to be seen without checksums: a changed key or URL. To be seen: what is malformed, or not our types."""
    assert complaints(damaged(sound).items(), tmp_path / "l.sqlite", use) == []


def test_a_damaged_ledger_is_refused_by_the_reader(sound: bytes, tmp_path: Path) -> None:
    assert complaints(damaged(sound).items(), tmp_path / "l.sqlite", read) == []


@pytest.mark.parametrize("words", [("list",), ("check",), ("failed",), ("list", "--json"), ("check", "--json")])
@pytest.mark.usefixtures("capsys")
def test_commands_say_that_a_ledger_is_damaged(sound: bytes, tmp_path: Path, words: tuple[str, ...]) -> None:
    """They read it as the reader does, who is tried with every damage."""
    path = tmp_path / "l.sqlite"
    command, args, options = command_of(words, path)
    damages = list(damaged(sound).items())[len(" ".join(words)) % 2 :: 2]
    assert complaints(damages, path, lambda path: command.run(args, options)) == []


@pytest.mark.usefixtures("capsys")
def test_another_format_or_program_is_refused_and_left_alone(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    others: dict[str, bytes] = {"noise": os.urandom(5000), "text": b"hello", "a page of zeros": bytes(4096)}
    for number in (0, 99):
        path.write_bytes(sound)
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {number}")
        others[f"format {number}"] = path.read_bytes()
        path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (a)")
    others["theirs"] = path.read_bytes()
    for data in others.values():
        for action in (use, read):
            path.write_bytes(data)
            with pytest.raises(LedgerError):
                action(path)
            assert path.read_bytes() == data
        command, args, arguments = command_of(["check"], path)
        command.run(args, arguments)
        assert command.exitcode == 2


def test_an_empty_file_is_not_silently_a_new_ledger(tmp_path: Path) -> None:
    """What is left of a ledger after a full disk or a bad copy. A new ledger starts where there is no file."""
    path = tmp_path / "l.sqlite"
    path.write_bytes(b"")
    with pytest.raises(LedgerError):
        use(path)
    assert path.read_bytes() == b""


def test_a_place_that_can_not_be_written_is_no_other_coordinator(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "l.sqlite.lock").mkdir()
    for path in (tmp_path / "file" / "l.sqlite", tmp_path / "file" / "f" / "l.sqlite", tmp_path / "l.sqlite"):
        with pytest.raises(LedgerError, match=str(path)) as caught:
            Ledger(path)
        assert "another coordinator" not in str(caught.value)


def test_a_lock_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "l.sqlite.lock").write_bytes(b"x" * 5000)
    with pytest.raises(LedgerError, match=r"\.lock"):
        Ledger(tmp_path / "l.sqlite")

"""``scrapy batches`` and a ledger that somebody has forged: each value of each column is shown, or the ledger is
refused in one sentence. Nothing ends in a traceback, and what is JSON is JSON."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pytest
from batches_command import command_of
from ledgers import IDENTITY, a_batch, bind, cut, divert, receipt

from scrapy_distributed.ledger.finds import Finds
from scrapy_distributed.ledger.rules import Haul
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.sqlite_schema import SCHEMA
from scrapy_distributed.wire.receipt import ItemsFile

TABLES = ("run", "queued", "found", "batch", "attempt", "outcome", "landed", "request", "page", "example")
VALUES = (1e300, float("inf"), -1, 2**63 - 1, 1.5, None, "x", b"\xff\x00", "\x1b]0;a\x07\n")
JSON = (
    "", "9" * 5000, "[]", "{}", "[1]", "null", "[[1, 2, 3]]", '[["u", 1e999, 0]]', '[["u", -1, 0]]',
    '[["u", "3", 0]]', '{"a": 1e999}', '{"a": "x"}', '{"a": -1}', '{"a": null}', '{"a": NaN}',
    f'{{"a": {"9" * 4300}, "b": {"9" * 4300}}}',
    "[" * 100_000, '{"project": 1, "spider": {"a": NaN}}',
)  # fmt: skip
COMMANDS = (
    ["list"], ["list", "--json", "--all-runs"], ["show", "1"], ["show", "1", "--json"], ["log", "1"],
    ["log", "1", "--json"], ["failed", "--reason", "h*"], ["failed", "--json"], ["check"],
    ["check", "--json"], ["merge", "folder", "-O", "out.jl", "--partial", "--json"],
)  # fmt: skip

Readers = list[tuple[list[str], set[tuple[str, str]]]]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger that has something in every column: a batch that was settled with losses, one that was given up, an
    open one, what was found."""
    path = tmp_path_factory.mktemp("sound") / "s.sqlite"
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger)
        report = receipt(attempt, failed={"http 404": [1]}, filtered={"offsite": [2]}, again=2, items=2, stats={"a": 1},
                         feeds=(("ftp://h/1.jl", 2),), unexported=1, followed={"timeout": 2},
                         examples={"http 404": "x"},
                         landed=((0, "00"), (3, "00")))  # fmt: skip
        found = [Finds.of([(b"f", '"http://a/found"')])]
        haul = Haul(items=2, twice=1, pages=[b"p"])
        ledger.verdicts.settle(attempt, report, max_attempts=1, found=found, haul=haul)
        ledger.harvest.appends_to("/feeds/all.jl", 7)
        ledger.harvest.set_own_files({"own-1.jl": ItemsFile(1, 20, "ab")})
        ledger.verdicts.reject(a_batch(ledger, 4, 5), "no receipt", counts=True, max_attempts=1)
        cut(ledger, divert(ledger, 6, 7))
        bind(ledger)
        divert(ledger, 8)
        ledger.intake.lost_own({"http 500": 1})
        ledger.intake.walked()
    return path


def columns() -> list[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        return [(table, name) for table in TABLES for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]


def forge(path: Path, table: str, column: str, value: Any) -> bool:
    """Put *value* there, whatever the table says of it. Returns whether SQLite lets anybody do so."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA ignore_check_constraints = 1")
        (schema,) = db.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        change_schema(db, table, schema.replace(" NOT NULL", ""))
        try:
            changed = db.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (value,)).rowcount
        except sqlite3.IntegrityError:  # the key of a table
            changed = 0
        change_schema(db, table, schema)
        db.execute("PRAGMA journal_mode = WAL")
    return changed > 0


def change_schema(db: sqlite3.Connection, table: str, schema: str) -> None:
    db.execute("PRAGMA writable_schema = 1")
    db.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (schema, table))
    db.execute("PRAGMA writable_schema = RESET")


def cells_read(words: list[str], path: Path) -> set[tuple[str, str]]:
    """(table, column) of all that the command reads of the ledger at *path*: the values of others can't matter."""
    read = set()

    def note(action: int, table: str | None, column: str | None, *_: Any) -> int:
        if action == sqlite3.SQLITE_READ:
            read.add((str(table), str(column)))
        return sqlite3.SQLITE_OK

    connect = sqlite3.connect

    def watched(*args: Any, **values: Any) -> sqlite3.Connection:
        db = connect(*args, **values)
        db.set_authorizer(note)
        return db

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", watched)
        command, args, options = command_of(words, path)
        command.run(args, options)
    return read


@pytest.fixture(scope="module")
def readers(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Readers:
    """Each command with the cells that it reads."""
    folder = tmp_path_factory.mktemp("readers")
    (folder / "folder").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("scrapy.utils.project.inside_project", lambda: True)
        path = Path(shutil.copy(sound, folder))
        return [(words, cells_read(words, path)) for words in COMMANDS]


def no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def asked_of(readers: Readers, table: str, column: str) -> list[list[str]]:
    """The commands that a value of the column can matter to, or one of those that it can't."""
    asked = [words for words, read in readers if (table, column) in read] or [["check"]]
    return [*asked, ["retry"]] if table in ("run", "batch", "outcome") else asked


@pytest.mark.parametrize(("table", "column"), columns())
def test_each_value_is_shown_or_refused_in_a_sentence(
    sound: Path, readers: Readers, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], table: str, column: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scrapy.utils.project.inside_project", lambda: True)
    (tmp_path / "folder").mkdir()
    path = tmp_path / "s.sqlite"
    is_text = column in ("identity", "lost", "payload", "feeds", "followed", "appended")
    asked = asked_of(readers, table, column)
    commands = [command_of(words, path) for words in asked]
    wrong: list[str] = []
    for value in (*VALUES, *(JSON if is_text else ())):
        for old in tmp_path.glob("s.sqlite*"):
            old.unlink()
        shutil.copy(sound, path)
        if not forge(path, table, column, value):
            continue
        for words, (command, args, options) in zip(asked, commands, strict=True):
            told = f"{' '.join(words)} with {value!r:.60}: "
            try:
                command.run(args, options)
            except Exception as error:
                wrong.append(f"{told}{type(error).__name__}: {error!s:.100}")
                continue
            out, said = capsys.readouterr()
            if command.exitcode not in (0, 1, 2) or (command.exitcode == 2 and said.count("\n") != 1):
                wrong.append(f"{told}exit code {command.exitcode}, {out!r:.100}, {said!r:.100}")
            if not all(line.replace("\t", " ").isprintable() for line in (out + said).split("\n")):
                wrong.append(f"{told}{out!r:.100}, {said!r:.100}")
            if "--json" in words:
                try:
                    [json.loads(line, parse_constant=no_number) for line in out.splitlines()]
                except ValueError as error:
                    wrong.append(f"{told}{error}")
    assert not wrong, "\n".join(wrong[:40])


def test_what_is_nested_deeper_than_can_be_written_is_refused(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At some depth it can still be read, and not be written in a list of runs."""
    path = tmp_path / "s.sqlite"
    shutil.copy(sound, path)
    for depth in (200, 900):
        forge(path, "run", "identity", f'{{"project": "p", "spider": "s", "a": {"[" * depth}{"]" * depth}}}')
        command, args, options = command_of(["list", "--json"], path)
        command.run(args, options)
        assert (command.exitcode, "nested too deep" in capsys.readouterr().err) == (2, True)

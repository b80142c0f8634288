"""``scrapy batches`` with ledgers that can't be used, and with wrong words."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from batches_command import Said, change
from ledgers import IDENTITY, settled, unfinished
from scrapy.exceptions import UsageError

from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.sqlite_schema import FORMAT


def test_what_a_ledger_of_somebody_else_says_is_no_command_to_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "s.sqlite"
    settled(path)
    evil = "\x1b]0;title\x07\n\u202e2026 ERROR"
    identity = {**IDENTITY, "spider": evil, "project": evil}
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA ignore_check_constraints = 1")
        db.execute("UPDATE run SET name = ?, identity = ?", (evil, json.dumps(identity)))
        db.execute("UPDATE attempt SET node = ?, url = ?, reason = ?", (evil, evil, evil))
        db.execute("UPDATE batch SET avoid = ?", (evil,))
        db.execute("UPDATE outcome SET reason = ?", (evil,))
        db.commit()
    for words in (["list"], ["show", "1"], ["log", "1"], ["check"], ["failed"], ["retry"]):
        said = Said(capsys, *words, "--ledger", "s.sqlite")
        assert "2026 ERROR" in said.out + said.error
        assert all(line.replace("\t", " ").isprintable() for line in (said.out + said.error).split("\n")), said.out
        assert not [line for line in said.out.splitlines() if line.startswith("2026")]


# Ledgers that can't be used, and wrong words


EVERY_ACTION = [["list"], ["show", "1"], ["log", "1"], ["failed"], ["check"], ["retry"], ["merge", ".", "-O", "out"]]


@pytest.mark.parametrize("words", EVERY_ACTION, ids=lambda words: words[0])
def test_without_a_ledger_the_exit_code_is_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str]
) -> None:
    for said in (
        Said(capsys, *words),
        Said(capsys, *words, "--ledger", "gone.sqlite"),
        Said(capsys, *words, DISTRIBUTED_LEDGER="gone.sqlite"),
    ):
        assert (said.code, said.out) == (2, "")
        assert "no ledger there; a distributed crawl makes one, --ledger names another" in said.error
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["scrapy.cfg"]


@pytest.mark.parametrize("words", EVERY_ACTION, ids=lambda words: words[0])
def test_a_file_that_is_no_ledger_is_2(capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "s.sqlite").write_text("a text" * 1000)
    said = Said(capsys, *words, "--ledger", "s.sqlite")
    assert (said.code, said.out) == (2, "")
    assert said.error == (
        "s.sqlite: can't be read as ledger: file is not a database; is it damaged? --ledger names another\n"
    )


@pytest.mark.parametrize("words", EVERY_ACTION, ids=lambda words: words[0])
@pytest.mark.parametrize("found", [FORMAT - 1, FORMAT + 1])
def test_a_ledger_of_another_format_is_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], found: int
) -> None:
    settled(tmp_path / "s.sqlite", again=0b10)
    change(tmp_path / "s.sqlite", f"PRAGMA user_version = {found}")
    before = (tmp_path / "s.sqlite").read_bytes()
    said = Said(capsys, *words, "--ledger", "s.sqlite")
    assert (said.code, said.out) == (2, "")
    assert f"s.sqlite: a ledger of format {found}, expected {FORMAT}; nothing was changed" in said.error
    assert (tmp_path / "s.sqlite").read_bytes() == before


@pytest.mark.parametrize("words", EVERY_ACTION, ids=lambda words: words[0])
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE run SET identity = 'no JSON'",
        "DROP TABLE batch",
        "DROP TABLE attempt; DROP TABLE outcome",
        "UPDATE batch SET payload = 'zb85:no'; UPDATE attempt SET feeds = '[1]'; UPDATE run SET identity = '[]'",
        None,
    ],
)
def test_a_damaged_ledger_is_2_or_does_not_matter(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], damage: str | None
) -> None:
    path = tmp_path / "s.sqlite"
    settled(path, again=0b10)
    if damage:
        change(path, damage)
    else:  # every page but the first, which says that this is a ledger
        path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096))
    said = Said(capsys, *words, "--ledger", "s.sqlite")
    if said.code == 2:
        assert said.error.startswith("s.sqlite: ")
        assert said.error.count("\n") == 1
    else:
        assert damage


def test_a_payload_that_can_not_be_read_is_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settled(tmp_path / "s.sqlite", again=0b10)
    change(tmp_path / "s.sqlite", "UPDATE batch SET payload = '[]'")
    for words in (["failed"], ["show", "1"], ["retry"]):
        said = Said(capsys, *words, "--ledger", "s.sqlite")
        assert said.code == 2
        assert "s.sqlite: can't be " in said.error
    assert Said(capsys, "check", "--ledger", "s.sqlite").code == 0


@pytest.mark.parametrize("words", [["show", "1"], ["retry"], ["merge", ".", "-O", "out"]], ids=lambda words: words[0])
def test_of_several_ledgers_one_must_be_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str]
) -> None:
    folder = tmp_path / ".scrapy/distributed"
    settled(folder / "a.sqlite")
    settled(folder / "b.sqlite")
    said = Said(capsys, *words)
    assert (said.code, said.out) == (2, "")
    assert "found a.sqlite, b.sqlite, expected one ledger: say which with --spider or --ledger" in said.error
    Ledger(tmp_path / "empty.sqlite").close()
    said = Said(capsys, *words, "--ledger", "empty.sqlite")
    assert (said.code, said.out) == (2, "")
    assert f"empty.sqlite: found no run in it, so there is nothing to {words[0]}" in said.error


def test_the_option_wins_over_the_setting(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settled(tmp_path / "a.sqlite")
    unfinished(tmp_path / "b.sqlite")
    assert Said(capsys, "check", DISTRIBUTED_LEDGER="b.sqlite").code == 1
    assert Said(capsys, "check", "--ledger", "a.sqlite", DISTRIBUTED_LEDGER="b.sqlite").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["chekc"],
            "found 'chekc', expected one of list, show, log, failed, check, pause, resume, cancel, retry, export,"
            " merge, forget",
        ),
        (["list", "more"], "found 'list more', expected one of"),
        ([""], "found '', expected one of"),
        (["--al-runs"], "unknown option --al-runs"),
        (["show"], "show: expected the number of a batch"),
        (["show", "1.2"], "show: found '1.2', expected the number of a batch"),
        (["log"], "log: expected the number of a batch, like 12, or with that of an attempt at it, like 12.2"),
        (["log", "1.2.3"], "log: found '1.2.3', expected the number of a batch"),
        (["log", "1" * 19], "expected the number of a batch"),
        (["show", "1", "2"], "show: found '1 2', expected the number of a batch"),
        (["merge", "items"], "merge: expected -O FILE"),
        (["retry", "--state", "filtered"], "expected one of failed, dead, not crawled: what was filtered would be"),
        (["failed", "--state", "ready"], "failed: found --state ready, expected one of failed, filtered, dead, not"),
        (["check", "--state", "dead"], "--state is an option of list, failed, retry, found check"),
        (["failed", "--node", "n1"], "--node is an option of list, found failed"),
        (["check", "--limit", "0"], "--limit is an option of list, found check"),
        (["check", "-f"], "-f is an option of log, found check"),
        (["retry", "--lost-items", "--callback"], "--lost-items: found another choice as well"),
        (["merge", "--all-runs", "items", "-O", "out"], "--all-runs is an option of list, failed, check, found merge"),
    ],
)
def test_a_wrong_command_line_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], said: str
) -> None:
    settled(tmp_path / ".scrapy/distributed/s.sqlite")
    with pytest.raises(UsageError, match=re.escape(said)):
        Said(capsys, *words)

"""``scrapy batches``: texts, JSON and exit codes, from ledgers of every state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from scrapy.exceptions import UsageError
from scrapy.settings import Settings
from test_ledger import IDENTITY, a_batch, divert, receipt

from scrapy_distributed.commands.batches import Command
from scrapy_distributed.ledger import Ledger


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scrapy.cfg").write_text("[settings]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scrapy.utils.project.inside_project", lambda: True)
    return tmp_path


class Said:
    """What a call of the command said, and its exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str, **settings: str) -> None:
        from argparse import ArgumentParser

        command = Command()
        command.settings = Settings(settings)
        parser = ArgumentParser()
        command.add_options(parser)
        options, args = parser.parse_known_args(words)
        capsys.readouterr()
        command.run(args, options)
        self.out, self.error = capsys.readouterr()
        self.code = command.exitcode

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def settled(path: Path, *, walked: bool = True) -> str:
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt, _ = a_batch(ledger)
        if walked:
            ledger.walked()
        report = receipt(attempt, failed={"http 404": [1]}, filtered={"offsite": [2]}, feeds=("ftp://h/1.jl",), items=2)
        ledger.settle(attempt, report, max_attempts=1)
        ledger.end()
        return ledger.run


def unfinished(path: Path, identity: dict[str, Any] = IDENTITY) -> str:
    with closing(Ledger(path)) as ledger:
        ledger.begin(identity, resume=True)
        attempt, _ = a_batch(ledger)
        ledger.reject(attempt, "no receipt: MemoryError", max_attempts=3)
        divert(ledger, 9)
        ledger.walked()
        return ledger.run


def off_by_one(path: Path) -> str:
    run = settled(path)
    with closing(Ledger(path)) as ledger:
        ledger._db.execute("INSERT INTO request VALUES (1, x'00')")
    return run


def test_check_of_a_settled_run_is_0(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = settled(tmp_path / "s.sqlite")
    said = Said(capsys, "check", "--ledger", "s.sqlite")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"run {run}, spider s of p (s.sqlite)",
        "  4 diverted = 0 queued + 0 in flight + 2 crawled + 1 failed + 1 filtered + 0 dead",
        "  settled",
    ]
    said = Said(capsys, "check", "--json", "--ledger", "s.sqlite")
    assert said.code == 0
    (found,) = said.lines
    assert found["settled"] is True
    (shown,) = found["runs"]
    assert (shown["name"], shown["diverted"], shown["crawled"], shown["difference"]) == (run, 4, 2, 0)


@pytest.mark.parametrize(
    ("make", "verdict"),
    [
        (unfinished, "not finished"),
        (lambda path: settled(path, walked=False), "not finished"),
        (off_by_one, "OFF BY 1"),
    ],
    ids=["unfinished", "not walked", "off by one"],
)
def test_check_of_anything_else_is_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, make: Any, verdict: str
) -> None:
    make(tmp_path / "s.sqlite")
    said = Said(capsys, "check", "--ledger", "s.sqlite")
    assert said.code == 1
    assert said.out.splitlines()[-1].strip() == verdict
    said = Said(capsys, "check", "--json", "--ledger", "s.sqlite")
    assert (said.code, said.lines[0]["settled"]) == (1, False)


def test_check_of_no_runs_is_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Ledger(tmp_path / "s.sqlite").close()
    said = Said(capsys, "check", "--ledger", "s.sqlite")
    assert (said.code, said.out) == (1, "no runs\n")
    assert Said(capsys, "check", "--json", "--ledger", "s.sqlite").lines == [{"settled": False, "runs": []}]


def test_one_bad_run_spoils_the_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settled(tmp_path / ".scrapy/distributed/a.sqlite")
    assert Said(capsys, "check").code == 0
    unfinished(tmp_path / ".scrapy/distributed/b.sqlite")
    said = Said(capsys, "check")
    assert said.code == 1
    assert [line.strip() for line in said.out.splitlines()[2::3]] == ["settled", "not finished"]


def test_the_last_run_counts_unless_all_are_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first = unfinished(tmp_path / "s.sqlite", IDENTITY | {"arguments": "other"})
    second = settled(tmp_path / "s.sqlite")
    said = Said(capsys, "check", "--ledger", "s.sqlite")
    assert (said.code, first in said.out, second in said.out) == (0, False, True)
    said = Said(capsys, "check", "--ledger", "s.sqlite", "--all-runs")
    assert (said.code, first in said.out, second in said.out) == (1, True, True)


def test_list_shows_each_batch_with_its_node_and_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = unfinished(tmp_path / "s.sqlite")
    said = Said(capsys, "--ledger", "s.sqlite")  # list is what is meant without a word
    assert said.code == 0
    assert said.out.splitlines() == [
        f"run {run}, spider s of p (s.sqlite)",
        "  batch 1: 4 requests, ready on n1, attempt 1 (no receipt: MemoryError)",
    ]
    assert Said(capsys, "list", "--ledger", "s.sqlite").out == said.out


def test_list_of_a_settled_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = settled(tmp_path / "s.sqlite")
    said = Said(capsys, "list", "--ledger", "s.sqlite")
    assert said.out.splitlines() == [
        f"run {run}, spider s of p (s.sqlite)",
        "  batch 1: 4 requests, settled on n1, attempt 1",
        "    2 crawled, 1 failed, 1 filtered",
    ]
    (shown,) = Said(capsys, "list", "--json", "--ledger", "s.sqlite").lines[0]["runs"]
    assert shown["name"] == run
    assert shown["feeds"] == ["ftp://h/1.jl"]
    assert shown["balance"]["crawled"] == 2
    (batch,) = shown["batches"]
    assert (batch["number"], batch["size"], batch["items"], batch["node"]) == (1, 4, 2, "n1")


def test_failed_lists_urls_with_reasons(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = settled(tmp_path / "s.sqlite")
    said = Said(capsys, "failed", "--ledger", "s.sqlite")
    assert said.code == 0
    assert said.out == "failed\thttp 404\thttp://a/1\nfiltered\toffsite\thttp://a/2\n"
    first, second = Said(capsys, "failed", "--json", "--ledger", "s.sqlite").lines
    assert first == {
        "run": run,
        "batch": 1,
        "position": 1,
        "state": "failed",
        "reason": "http 404",
        "url": "http://a/1",
    }
    assert second["state"] == "filtered"


@pytest.mark.parametrize("action", ["list", "check", "failed"])
def test_without_a_ledger_the_exit_code_is_2(capsys: pytest.CaptureFixture[str], tmp_path: Path, action: str) -> None:
    for said in (
        Said(capsys, action),
        Said(capsys, action, "--ledger", "gone.sqlite"),
        Said(capsys, action, DISTRIBUTED_LEDGER="gone.sqlite"),
    ):
        assert (said.code, said.out) == (2, "")
        assert "no ledger there; a distributed crawl makes one, --ledger names another" in said.error
    assert not (tmp_path / "gone.sqlite").exists()


def test_a_file_that_is_no_ledger_is_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "s.sqlite").write_text("a text" * 1000)
    said = Said(capsys, "check", "--ledger", "s.sqlite")
    assert (said.code, said.out) == (2, "")
    assert "s.sqlite: " in said.error


def test_the_option_wins_over_the_setting(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settled(tmp_path / "a.sqlite")
    unfinished(tmp_path / "b.sqlite")
    assert Said(capsys, "check", DISTRIBUTED_LEDGER="b.sqlite").code == 1
    assert Said(capsys, "check", "--ledger", "a.sqlite", DISTRIBUTED_LEDGER="b.sqlite").code == 0


@pytest.mark.parametrize("words", [["chekc"], ["list", "more"], [""]])
def test_an_unknown_word_is_refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(UsageError, match="expected one of list, check, failed"):
        Said(capsys, *words)


def test_a_coordinator_at_work_does_not_disturb(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        a_batch(ledger)
        assert Said(capsys, "check", "--ledger", "s.sqlite").code == 1
        assert "in flight on n1, attempt 1" in Said(capsys, "list", "--ledger", "s.sqlite").out


def test_as_a_command_of_scrapy(tmp_path: Path) -> None:
    def scrapy(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {name: text for name, text in os.environ.items() if not name.startswith("SCRAPY")}
        command = [sys.executable, "-m", "scrapy", "batches", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30)

    settled(tmp_path / "s.sqlite")
    done = scrapy("check", "--ledger", "s.sqlite")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("  settled\n")
    assert scrapy("check", "--ledger", "gone.sqlite").returncode == 2
    wrong = scrapy("chekc")
    assert wrong.returncode == 2
    assert "chekc" in wrong.stderr + wrong.stdout

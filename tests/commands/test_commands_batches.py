"""``scrapy batches``: texts, JSON and exit codes, from ledgers of every state."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ledgers import IDENTITY, a_batch, bind, cut, divert, halved, of_feeds, receipt, settled, unfinished
from scrapy.exceptions import UsageError
from scrapy.settings import Settings

from scrapy_distributed.commands.batches import Command
from scrapy_distributed.ledger.reader import PAGE
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.sqlite_schema import FORMAT
from scrapy_distributed.wire.payload import decode_payload


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


def off_by_one(path: Path) -> str:
    run = settled(path)
    with closing(Ledger(path)) as ledger:
        ledger.store.db.execute("INSERT INTO request VALUES (1, x'00')")
    return run


def change(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)


def given_up(path: Path) -> str:
    run = unfinished(path)
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=False)
    return run


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
    for words in (["list"], ["show", "1"], ["check"], ["failed"], ["retry"]):
        said = Said(capsys, *words, "--ledger", "s.sqlite")
        assert "2026 ERROR" in said.out + said.error
        assert all(line.replace("\t", " ").isprintable() for line in (said.out + said.error).split("\n")), said.out
        assert not [line for line in said.out.splitlines() if line.startswith("2026")]


# check and list


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
    assert shown["verdict"] == "settled"


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
    assert Said(capsys, "check", "--json", "--ledger", "s.sqlite").lines == [
        {"settled": False, "good": False, "runs": []}
    ]


@pytest.mark.parametrize(
    ("change_of_it", "line", "code", "strict_code"),
    [
        ("UPDATE attempt SET unexported = 2", "2 items missing in feeds that count", 1, 1),
        ("UPDATE attempt SET followed = '{\"timeout\": 3}'", "failed on workers beside their batches", 0, 1),
        ("UPDATE run SET lost = '{\"http 503\": 3}'", "failed in the coordinator's own crawl: 3 (http 503: 3)", 0, 1),
        ("INSERT INTO landed SELECT 1, 1, 0, key FROM request LIMIT 1", "1 request redirected to a page", 0, 1),
        ("UPDATE run SET duplicates = 0", "", 0, 0),
    ],
)
def test_what_is_lost_beside_the_balance_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, change_of_it: str, line: str, code: int, strict_code: int
) -> None:
    settled(tmp_path / "s.sqlite")
    change(tmp_path / "s.sqlite", change_of_it)
    said = Said(capsys, "check", "--ledger", "s.sqlite")
    assert (said.code, said.out.splitlines()[2]) == (code, "  settled")
    assert [found.strip().startswith(line) for found in said.out.splitlines()[3:]] == [True] * bool(line)
    (shown,) = Said(capsys, "check", "--json", "--ledger", "s.sqlite").lines
    assert (shown["settled"], shown["good"]) == (True, code == 0)
    assert any(shown["runs"][0]["losses"].values()) == bool(line)
    assert Said(capsys, "check", "--strict", "--ledger", "s.sqlite").code == strict_code


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


def test_a_run_that_was_given_up_is_called_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given_up(tmp_path / "s.sqlite")
    said = Said(capsys, "check", "--ledger", "s.sqlite", "--all-runs")
    assert said.code == 1
    assert [line.strip() for line in said.out.splitlines()[2::3]] == ["given up", "not finished"]
    (found,) = Said(capsys, "check", "--ledger", "s.sqlite", "--all-runs", "--json").lines
    assert [run["verdict"] for run in found["runs"]] == ["given up", "not finished"]


def test_list_shows_where_requests_have_been_moved(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = halved(tmp_path / "s.sqlite")
    said = Said(capsys, "list", "--ledger", "s.sqlite")
    assert said.out.splitlines() == [
        f"run {run}, spider s of p (s.sqlite)",
        "  batch 1: 3 requests, given to batches 2 and 3 after attempt 2 on n1 (no receipt: killed)",
        "  batch 2: 2 requests, settled on n1, attempt 1, from batch 1",
        "    2 crawled",
        "  batch 3: 1 request, settled on n1, attempt 2 (no receipt: killed), from batch 1",
        "    1 dead",
    ]
    (shown,) = Said(capsys, "list", "--ledger", "s.sqlite", "--json").lines[0]["runs"]
    assert [(batch["parent"], batch["moved"]) for batch in shown["batches"]] == [(None, 3), (1, 0), (1, 0)]
    assert Said(capsys, "check", "--ledger", "s.sqlite").code == 0


def test_more_batches_and_outcomes_than_one_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger, *range(2 * PAGE + 1))
        ledger.verdicts.settle(attempt, receipt(attempt, failed={"dns": list(range(attempt.size))}), max_attempts=1)
        cut(ledger, *([body] for body in divert(ledger, *range(3 * PAGE, 4 * PAGE))))
    lines = Said(capsys, "failed", "--ledger", "s.sqlite").out.splitlines()
    assert lines == [f"failed\tdns\thttp://a/{number}" for number in range(2 * PAGE + 1)]
    lines = Said(capsys, "list", "--ledger", "s.sqlite").out.splitlines()
    assert [line.split(":")[0] for line in lines if "batch" in line] == [f"  batch {n}" for n in range(1, PAGE + 2)]


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
        "again": False,
    }
    assert second["state"] == "filtered"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--state", "failed"], ["http 404", "dns"]),
        (["--state", "filtered"], ["offsite"]),
        (["--state", "dead"], []),
        (["--reason", "http 4*"], ["http 404"]),
        (["--reason", "*s*", "--state", "failed"], ["dns"]),
        (["--reason", "HTTP 404"], []),
    ],
    ids=" ".join,
)
def test_failed_of_one_state_or_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], shown: list[str]
) -> None:
    some_failed(tmp_path / "s.sqlite")
    said = Said(capsys, "failed", "--ledger", "s.sqlite", *options)
    assert said.code == 0
    assert [line.split("\t")[1] for line in said.out.splitlines()] == shown
    lines = Said(capsys, "failed", "--json", "--ledger", "s.sqlite", *options).lines
    assert [line["reason"] for line in lines] == shown


def test_a_reason_can_not_forge_a_line_or_control_a_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger, 1)
        report = receipt(attempt, failed={"x\ncrawled\t\x1b[2J": [0]}, feeds=(("ftp://h/\x1b]0;", 0),))
        ledger.verdicts.settle(attempt, report, max_attempts=1)
    for words in (["failed"], ["show", "1"]):
        out = Said(capsys, *words, "--ledger", "s.sqlite").out
        assert "failed\tx\\ncrawled\\t\\x1b[2J\thttp://a/1\n" in out
        assert "\x1b" not in out


# show


def test_show_tells_all_of_a_batch(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = settled(tmp_path / "s.sqlite")
    losses = "unexported = 1, followed = '{\"http 404\": 2}'"
    change(tmp_path / "s.sqlite", f"UPDATE attempt SET bound = 0, ended = 61, token = 'ab', {losses}")
    said = Said(capsys, "show", "1", "--ledger", "s.sqlite")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"run {run}, spider s of p (s.sqlite)",
        "  batch 1: 4 requests, settled on n1, attempt 1",
        "    2 crawled, 1 failed, 1 filtered",
        "  attempt 1 (label 1): 4 requests on n1 at http://n1:6800, accepted (finished)",
        f"    job {run}-000001-1-ab, bound 1970-01-01T00:00:00Z, ended 1970-01-01T00:01:01Z",
        "    2 items",
        "    2 in ftp://h/1.jl",
        "    1 item missing in feeds that count, as their format can't express them; the log of each job names its own",
        "    failed on workers beside their batches: 2 (http 404: 2); what they lead to is missing",
        f"    log http://n1:6800/logs/p/s/{run}-000001-1-ab.log",
        "  failed\thttp 404\thttp://a/1",
        "  filtered\toffsite\thttp://a/2",
    ]
    (shown,) = Said(capsys, "show", "1", "--json", "--ledger", "s.sqlite").lines
    assert (shown["run"], shown["number"], shown["size"], shown["children"]) == (run, 1, 4, [])
    (attempt,) = shown["attempts"]
    assert attempt == {
        "number": 1, "label": "1", "job": f"{run}-000001-1-ab", "node": "n1", "url": "http://n1:6800",
        "state": "accepted", "reason": "finished", "size": 4, "bound": 0, "ended": 61, "items": 2,
        "feeds": [["ftp://h/1.jl", 2, 0]],
        "unexported": 1, "followed": {"http 404": 2},
        "log": f"http://n1:6800/logs/p/s/{run}-000001-1-ab.log",
    }  # fmt: skip
    assert [outcome["reason"] for outcome in shown["outcomes"]] == ["http 404", "offsite"]


def test_show_of_halves(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = halved(tmp_path / "s.sqlite")
    first = Said(capsys, "show", "1", "--ledger", "s.sqlite").out.splitlines()
    assert first[1] == "  batch 1: 3 requests, given to batches 2 and 3 after attempt 2 on n1 (no receipt: killed)"
    assert [line for line in first if "(label" in line] == [
        "  attempt 1 (label 1): 3 requests on n1 at http://n1:6800, rejected (no receipt: killed)",
        "  attempt 2 (label 1.2): 3 requests on n1 at http://n1:6800, rejected (no receipt: killed)",
    ]
    third = Said(capsys, "show", "3", "--ledger", "s.sqlite").out.splitlines()
    assert third[1].endswith("from batch 1")
    assert third[-1] == "  dead\tno receipt: killed\thttp://a/2"
    assert sum("log http" in line for line in third) == 2
    said = Said(capsys, "show", "4", "--ledger", "s.sqlite")
    assert (said.code, said.out) == (2, "")
    assert said.error == f"s.sqlite: found no batch 4 in run {run}; list shows those it has\n"


def test_a_job_that_never_ran_has_no_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        ledger.begin(IDENTITY | {"project": "a/b ü"}, resume=True)
        ledger.bookings.unsent(a_batch(ledger), "refused")
        bind(ledger)
    first, second = Said(capsys, "show", "1", "--json", "--ledger", "s.sqlite").lines[0]["attempts"]
    assert (first["state"], first["log"]) == ("unsent", None)
    assert second["state"] == "bound"
    assert second["log"].startswith("http://n1:6800/logs/a%2Fb%20%C3%BC/s/")
    assert "ended -" in Said(capsys, "show", "1", "--ledger", "s.sqlite").out


# retry


def some_failed(path: Path) -> str:
    """Requests 0 (404, had begun), 1 (dns, had not), 2 (filtered) and 3."""
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger)
        ledger.intake.walked()
        report = receipt(attempt, failed={"http 404": [0], "dns": [1]}, filtered={"offsite": [2]}, again=0b10)
        ledger.verdicts.settle(attempt, report, max_attempts=1)
        assert ledger.account.end()
        return ledger.run


def test_retry_makes_the_same_command_take_the_run_up_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = some_failed(tmp_path / "s.sqlite")
    said = Said(capsys, "retry", "--ledger", "s.sqlite")
    assert said.code == 0
    assert said.out.splitlines() == [
        f"run {run}, spider s of p (s.sqlite)",
        "  1 request to be tried again, 1 left out",
        "    left out: their callback had begun, so items of them may be in a feed",
        "  the command that began the run takes it up again: scrapy crawl s, with its arguments",
    ]
    assert Said(capsys, "check", "--ledger", "s.sqlite").out.splitlines()[1:] == [
        "  4 diverted = 1 queued + 0 in flight + 1 crawled + 1 failed + 1 filtered + 0 dead",
        "  not finished",
    ]
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        assert not ledger.begin(IDENTITY, resume=True)
        assert ledger.run == run
        attempt = bind(ledger)
        assert (attempt.label, attempt.size) == ("2", 1)
        ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=3)
        assert ledger.account.end()
    assert Said(capsys, "check", "--ledger", "s.sqlite").code == 0
    assert Said(capsys, "show", "1", "--ledger", "s.sqlite").out.splitlines()[2].endswith("1 moved to batch 2")


@pytest.mark.parametrize(
    ("options", "again", "left_out"),
    [([], 1, 1), (["--state", "dead"], 0, 0), (["--reason", "http *"], 0, 1), (["--reason", "d?s"], 1, 0)],
)
def test_retry_of_some(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], again: int, left_out: int
) -> None:
    run = some_failed(tmp_path / "s.sqlite")
    said = Said(capsys, "retry", "--json", "--ledger", "s.sqlite", *options)
    assert said.lines == [{"run": run, "spider": "s", "again": again, "left_out": left_out}]
    assert said.code == (0 if again else 1)
    assert Said(capsys, "check", "--ledger", "s.sqlite").code == (1 if again else 0)
    assert Said(capsys, "retry", "--ledger", "s.sqlite", *options).code == 1  # nothing is tried again twice


def test_retry_makes_few_batches(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        for first in range(0, 12, 4):
            attempt = a_batch(ledger, *range(first, first + 4))
            report = receipt(attempt, 0b0111, failed={"dns": [0, 1]}, again=0b0011, finish_reason="shutdown")
            ledger.verdicts.settle(attempt, report, max_attempts=1)
            if ledger.bookings.ready():
                ledger.verdicts.reject(bind(ledger), "killed", counts=True, max_attempts=1)
        ledger.intake.walked()
        assert ledger.account.end()
    assert Said(capsys, "retry", "--json", "--ledger", "s.sqlite").lines[0]["again"] == 9
    (shown,) = Said(capsys, "list", "--json", "--ledger", "s.sqlite").lines[0]["runs"]
    assert [(batch["number"], batch["size"], batch["parent"]) for batch in shown["batches"][3:]] == [
        (4, 4, None),
        (5, 4, None),
        (6, 1, 3),
    ]
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        urls = [decode_payload(ledger.bookings.bind(number, "n")[1]) for number in (4, 5, 6)]
    paths = [[url.rpartition("/")[2] for url in batch] for batch in urls]
    assert paths == [["0", "1", "3", "4"], ["5", "7", "8", "9"], ["11"]]


def test_retry_while_a_coordinator_runs_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    some_failed(tmp_path / "s.sqlite")
    with closing(Ledger(tmp_path / "s.sqlite")):
        said = Said(capsys, "retry", "--ledger", "s.sqlite")
    assert (said.code, said.out) == (2, "")
    assert "s.sqlite: another coordinator is using this ledger; wait for it" in said.error
    assert Said(capsys, "retry", "--ledger", "s.sqlite").code == 0


# merge


def test_merge_writes_the_feeds_that_count(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    halved(tmp_path / "s.sqlite")
    (tmp_path / "items").mkdir()
    for name in ("1", "1.2", "2"):
        (tmp_path / "items" / f"{name}.jl").write_text(f'{{"url": "{name}"}}\n' * 2)
    said = Said(capsys, "merge", "items", "-O", "out.jl", "--ledger", "s.sqlite")
    assert (said.code, said.error) == (0, "")
    assert said.out == "2 items of 1 feed in out.jl, each start URL in one feed only\n"
    assert (tmp_path / "out.jl").read_text() == '{"url": "2"}\n' * 2


def test_merge_of_what_is_not_complete_is_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    of_feeds(tmp_path / "s.sqlite", [("1.jl", 1)], [("2.jl", 1)], [("3.jl", 1)])
    (tmp_path / "2.jl").write_text('{"url": "2"}\n')
    words = ["merge", ".", "-O", "out.jl", "--ledger", "s.sqlite"]
    said = Said(capsys, *words)
    assert said.code == 1
    assert said.out == "nothing written: 2 faults; --partial writes what is there: 1 item of 1 feed\n"
    assert said.error.splitlines() == [
        "missing: feed 1.jl of batch 1: found no file 1.jl, expected 1 item",
        "missing: feed 3.jl of batch 3: found no file 3.jl, expected 1 item",
    ]
    assert not (tmp_path / "out.jl").exists()
    said = Said(capsys, *words, "--partial")
    assert (said.code, said.out) == (1, "1 item of 1 feed in out.jl, NOT COMPLETE: 2 faults\n")
    assert (tmp_path / "out.jl").read_text() == '{"url": "2"}\n'
    (found,) = Said(capsys, *words, "--json").lines
    assert (found["written"], found["items"], found["feeds"]) == (False, 1, 1)
    assert [fault["kind"] for fault in found["faults"]] == ["missing", "missing"]


def test_merge_of_items_that_are_larger_than_expected(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    of_feeds(tmp_path / "s.sqlite", [("1.jl", 1)])
    (tmp_path / "1.jl").write_text(json.dumps({"text": "x" * 5_000_000}) + "\n")
    words = ["merge", ".", "-O", "out.jl", "--ledger", "s.sqlite"]
    said = Said(capsys, *words)
    assert said.code == 1
    assert said.error.startswith(
        "unreadable: 1.jl, feed 1.jl of batch 1: line 1 has more than 4,194,304 bytes; --max-item"
    )
    assert Said(capsys, *words, "--max-item", "5").code == 0
    assert (tmp_path / "out.jl").read_bytes() == (tmp_path / "1.jl").read_bytes()
    with pytest.raises(SystemExit):
        Said(capsys, *words, "--max-item", "0")


@pytest.mark.parametrize(("make", "verdict"), [(unfinished, "not finished"), (off_by_one, "OFF BY 1")])
def test_merge_of_a_run_that_is_not_settled_is_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, make: Any, verdict: str
) -> None:
    make(tmp_path / "s.sqlite")
    said = Said(capsys, "merge", ".", "-O", "out.jl", "--ledger", "s.sqlite")
    assert said.code == 1
    assert f"unsettled: the run is {verdict}: " in said.error
    assert not (tmp_path / "out.jl").exists()


def test_merge_does_not_flood_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    of_feeds(tmp_path / "s.sqlite", *([(f"{number}.jl", 1)] for number in range(13)))
    said = Said(capsys, "merge", ".", "-O", "out.jl", "--ledger", "s.sqlite")
    assert len(said.error.splitlines()) == 11
    assert said.error.splitlines()[-1] == "missing: 3 more; --json names all"
    assert len(Said(capsys, "merge", ".", "-O", "o", "--json", "--ledger", "s.sqlite").lines[0]["faults"]) == 13


def test_merge_of_folders_that_are_not_there_is_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settled(tmp_path / "s.sqlite")
    said = Said(capsys, "merge", "gone", "-O", "out.jl", "--ledger", "s.sqlite")
    assert (said.code, said.out) == (2, "")
    assert said.error == "gone: found no folder there, expected one with feeds in it\n"


# ledgers that can't be used, wrong words, and the real command


EVERY_ACTION = [["list"], ["show", "1"], ["failed"], ["check"], ["retry"], ["merge", ".", "-O", "out"]]


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
    assert "found a.sqlite, b.sqlite, expected one ledger: say which with --ledger" in said.error
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
        (["chekc"], "found 'chekc', expected one of list, show, failed, check, retry, merge"),
        (["list", "more"], "found 'list more', expected one of"),
        ([""], "found '', expected one of"),
        (["--al-runs"], "unknown option --al-runs"),
        (["show"], "show: expected the number of a batch"),
        (["show", "1.2"], "show: found '1.2', expected the number of a batch"),
        (["show", "1", "2"], "show: found '1 2', expected the number of a batch"),
        (["merge", "-O", "out"], "merge: expected the folders with the feeds"),
        (["merge", "items"], "merge: expected -O FILE"),
        (["retry", "--state", "filtered"], "expected failed or dead"),
        (["list", "--state", "dead"], "--state is an option of failed, retry, found list"),
        (["merge", "--all-runs", "items", "-O", "out"], "--all-runs is an option of list, failed, check, found merge"),
    ],
)
def test_a_wrong_command_line_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], said: str
) -> None:
    settled(tmp_path / ".scrapy/distributed/s.sqlite")
    with pytest.raises(UsageError, match=re.escape(said)):
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
    (tmp_path / "1.jl").write_text("{}\n{}\n")
    done = scrapy("merge", ".", "-O", "out.jl", "--ledger", "s.sqlite")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.jl").read_text() == "{}\n{}\n"
    wrong = scrapy("chekc")
    assert wrong.returncode == 2
    assert "chekc" in wrong.stderr + wrong.stdout

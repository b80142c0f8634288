"""``scrapy batches list``, ``show``, ``failed`` and ``check``: texts, JSON, exit codes, from ledgers of every state."""

from __future__ import annotations

from contextlib import closing
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from batches_command import Said, change, off_by_one, some_failed
from ledgers import IDENTITY, a_batch, bind, cut, divert, halved, receipt, settled, unfinished

from scrapy_distributed.ledger.reader import PAGE
from scrapy_distributed.ledger.sqlite import Ledger


def given_up(path: Path) -> str:
    run = unfinished(path)
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=False)
    return run


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
        "  3 diverted = 0 queued + 0 in flight + 2 crawled + 0 failed + 0 filtered + 1 dead",
        "  3 batches: settled: 3",
        "  on n1: 3",
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
    lines = Said(capsys, "list", "--limit", "0", "--ledger", "s.sqlite").out.splitlines()
    shown = [line.split(":")[0] for line in lines if line.startswith("  batch ")]
    assert shown == [f"  batch {n}" for n in range(1, PAGE + 2)]


def test_list_of_many_batches_has_a_limit_and_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def listed(*words: str) -> tuple[list[str], list[int]]:
        lines = Said(capsys, "list", "--ledger", "s.sqlite", *words).out.splitlines()
        head = takewhile(lambda line: not line.startswith("  batch "), lines)
        numbers = [int(line.split()[1].rstrip(":")) for line in lines if line.startswith("  batch ")]
        return [line.strip() for line in head], numbers

    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        cut(ledger, *([body] for body in divert(ledger, *range(60))))
        for number in range(1, 9):
            attempt, _ = ledger.bookings.bind(number, f"n{number % 2}", "http://n")
            failed = {"dns": [0]} if number in (3, 4) else {}
            ledger.verdicts.settle(attempt, receipt(attempt, failed=failed), max_attempts=1)
        ledger.bookings.bind(9, "n1", "http://n")
    head, numbers = listed()
    assert head[1:] == [
        "60 diverted = 51 queued + 1 in flight + 6 crawled + 2 failed + 0 filtered + 0 dead",
        "60 batches: ready: 51, settled: 8, in flight: 1",
        "on n1: 5, n0: 4",
        "not shown: the first 10 batches; --limit 0 shows all, --state and --node choose some, show N tells all of one",
    ]
    assert numbers == list(range(11, 61))
    assert listed("--limit", "2")[1] == [59, 60]
    assert listed("--limit", "60")[0] == head[:-1]
    assert listed("--state", "in flight")[1] == [9]
    assert listed("--state", "failed")[1] == [3, 4]
    assert listed("--state", "settled", "--node", "n1")[1] == [1, 3, 5, 7]
    assert listed("--node", "no-such")[1] == []
    (run,) = Said(capsys, "list", "--json", "--ledger", "s.sqlite").lines[0]["runs"]
    assert (len(run["batches"]), run["not_shown"]) == (60, 0)
    (run,) = Said(capsys, "list", "--json", "--limit", "3", "--state", "settled", "--ledger", "s.sqlite").lines[0][
        "runs"
    ]
    assert ([batch["number"] for batch in run["batches"]], run["not_shown"]) == ([6, 7, 8], 5)


def test_list_shows_each_batch_with_its_node_and_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = unfinished(tmp_path / "s.sqlite")
    said = Said(capsys, "--ledger", "s.sqlite")  # list is what is meant without a word
    assert said.code == 0
    assert said.out.splitlines() == [
        f"run {run}, spider s of p (s.sqlite)",
        "  5 diverted = 5 queued + 0 in flight + 0 crawled + 0 failed + 0 filtered + 0 dead",
        "  1 batch: ready: 1",
        "  on n1: 1",
        "  batch 1: 4 requests, ready on n1, attempt 1 (no receipt: MemoryError)",
    ]
    assert Said(capsys, "list", "--ledger", "s.sqlite").out == said.out


def test_list_of_a_settled_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = settled(tmp_path / "s.sqlite")
    said = Said(capsys, "list", "--ledger", "s.sqlite")
    assert said.out.splitlines() == [
        f"run {run}, spider s of p (s.sqlite)",
        "  4 diverted = 0 queued + 0 in flight + 2 crawled + 1 failed + 1 filtered + 0 dead",
        "  1 batch: settled: 1",
        "  on n1: 1",
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


def test_what_the_project_has_raised_is_told_with_message_and_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger)
        examples = {"callback ValueError": "no price \x1b[2J (shop/spiders/a.py:31)", "item KeyError": "'x' (p.py:1)"}
        failed = {"callback ValueError": [0, 2], "item KeyError": [3]}
        report = receipt(attempt, failed=failed, examples=examples)
        ledger.verdicts.settle(attempt, report, max_attempts=1)
        ledger.intake.walked()
        ledger.account.end()
    price = "raised: callback ValueError: no price \\x1b[2J (shop/spiders/a.py:31), 2 URLs"
    key = "raised: item KeyError: 'x' (p.py:1), 1 URL"
    said = Said(capsys, "failed", "--ledger", "s.sqlite")
    assert said.error.splitlines() == [price, key]  # what reads the list finds the URLs alone
    assert said.out.splitlines()[0] == "failed\tcallback ValueError\thttp://a/0"
    assert Said(capsys, "failed", "--reason", "item *", "--ledger", "s.sqlite").error.splitlines() == [key]
    assert Said(capsys, "failed", "--state", "dead", "--ledger", "s.sqlite").error == ""
    assert Said(capsys, "check", "--ledger", "s.sqlite").out.splitlines()[2:] == ["  settled", f"  {price}", f"  {key}"]
    (shown,) = Said(capsys, "check", "--json", "--ledger", "s.sqlite").lines[0]["runs"]
    assert shown["raised"][1] == {"reason": "item KeyError", "example": "'x' (p.py:1)", "requests": 1, "followed": 0}


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
        "  attempt 1 (batch=1): 4 requests on n1 at http://n1:6800, accepted (finished)",
        f"    job {run}-000001-1-ab, given to its node 1970-01-01T00:00:00Z, ended 1970-01-01T00:01:01Z",
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
        "unexported": 1, "followed": {"http 404": 2}, "home": None, "twice": 0,
        "log": f"http://n1:6800/logs/p/s/{run}-000001-1-ab.log",
    }  # fmt: skip
    assert [outcome["reason"] for outcome in shown["outcomes"]] == ["http 404", "offsite"]


def test_show_of_halves(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = halved(tmp_path / "s.sqlite")
    first = Said(capsys, "show", "1", "--ledger", "s.sqlite").out.splitlines()
    assert first[1] == "  batch 1: 3 requests, given to batches 2 and 3 after attempt 2 on n1 (no receipt: killed)"
    assert [line for line in first if "(batch=" in line] == [
        "  attempt 1 (batch=1): 3 requests on n1 at http://n1:6800, rejected (no receipt: killed)",
        "  attempt 2 (batch=1.2): 3 requests on n1 at http://n1:6800, rejected (no receipt: killed)",
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
        ledger.verdicts.unsent(a_batch(ledger), "refused")
        bind(ledger)
    first, second = Said(capsys, "show", "1", "--json", "--ledger", "s.sqlite").lines[0]["attempts"]
    assert (first["state"], first["log"]) == ("unsent", None)
    assert second["state"] == "bound"
    assert second["log"].startswith("http://n1:6800/logs/a%2Fb%20%C3%BC/s/")
    assert "ended -" in Said(capsys, "show", "1", "--ledger", "s.sqlite").out


def test_a_coordinator_at_work_does_not_disturb(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        a_batch(ledger)
        assert Said(capsys, "check", "--ledger", "s.sqlite").code == 1
        assert "in flight on n1, attempt 1" in Said(capsys, "list", "--ledger", "s.sqlite").out


def test_the_ledger_of_a_spider(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / ".scrapy" / "distributed"
    folder.mkdir(parents=True)
    run = settled(folder / "s.sqlite")
    settled(folder / "other.sqlite")
    assert Said(capsys, "show", "1", "--spider", "s").out.startswith(f"run {run}, ")
    several = Said(capsys, "show", "1")
    assert several.code == 2
    assert "expected one ledger: say which with --spider or --ledger" in several.error
    gone = Said(capsys, "list", "--spider", "gone")
    assert gone.code == 2
    assert "no ledger of a spider 'gone' there; a distributed crawl of it makes one" in gone.error
    with pytest.raises(SystemExit):
        Said(capsys, "list", "--spider", "s", "--ledger", "s.sqlite")
    assert "argument --ledger: not allowed with argument --spider" in capsys.readouterr().err

"""The analysis as a command, without Spark."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from market import FACTORS, make_property
from shifts_command import ANSWER, EXAMPLE, SHIFTS, feed, following, land, printed, run
from site_server import Site


def test_example(tmp_path: Path) -> None:
    (tmp_path / "1.jl").write_text(feed(*EXAMPLE))
    done = run(tmp_path, "--json")
    assert (json.loads(done.stdout), done.stderr, done.returncode) == (ANSWER, "", 0)
    assert json.loads(run(tmp_path, "--json", "--top", 1).stdout) == [ANSWER[0], ANSWER[2]]
    assert run(tmp_path).stdout.splitlines()[2:] == [
        "  +44.44%    33.33%          1  need",
        "   +0.00%     0.00%          2  business",
        "  -44.44%    33.33%          1  split",
    ]


def test_a_word_that_the_terminal_can_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.jl").write_text(feed({"title": "東京", "price": 1}))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run(tmp_path)
    assert (done.stderr, done.stdout.splitlines()[-1].split()[-1]) == ("", r"\u6771\u4eac")


def test_malformed_lines_are_told_and_set_aside(tmp_path: Path) -> None:
    items, aside = tmp_path / "items", tmp_path / "bad.jl"
    items.mkdir()
    (items / "1.jl").write_text(feed(EXAMPLE[0], {"title": "no price"}) + '{"title": "cut')
    done = run(items, "--malformed", aside)
    assert done.stderr == "2 malformed lines, the first: 1.jl:2: no price\n"
    assert [json.loads(text) for text in aside.read_text().splitlines()] == [
        {"file": "1.jl", "line": 2, "reason": "no price", "text": '{"title": "no price"}'},
        {
            "file": "1.jl",
            "line": 3,
            "reason": "not JSON: Unterminated string starting at: line 1 column 11 (char 10)",
            "text": '{"title": "cut',
        },
    ]
    refused = run(items, "--malformed", items / "bad.jl")
    assert refused.returncode == 2
    assert "would lie among the items; name a file outside" in refused.stderr


def test_no_answer(tmp_path: Path) -> None:
    empty = run(tmp_path, "--json")
    assert (empty.stdout, empty.returncode) == ("[]\n", 1)
    assert empty.stderr.startswith(f"{tmp_path}: no file *.jl or *.jsonl; expected JSON lines")
    (tmp_path / "1.jl").write_text(feed({"title": "flat"}))
    no_price = run(tmp_path)
    assert (no_price.stdout, no_price.returncode) == ("", 1)
    assert "1 malformed line: 1.jl:1: no price\n" in no_price.stderr
    assert "no item in 1 files; expected JSON lines" in no_price.stderr
    nowhere = run(tmp_path / "nowhere")
    assert nowhere.returncode == 2
    assert "nowhere is not a folder; expected the one that the feeds land in" in nowhere.stderr
    assert run(tmp_path, "--top", 0).returncode == 2


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_follow(signum: signal.Signals, tmp_path: Path) -> None:
    with following(tmp_path, "--json") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"{tmp_path}: no file *.jl or *.jsonl yet; waiting for the first\n"
        land(tmp_path, "1.jl", feed(EXAMPLE[0]))
        assert [shift["shift"] for shift in printed(process)] == [0.0, 0.0]
        land(tmp_path, "2.jl", feed(EXAMPLE[1]))
        assert printed(process) == ANSWER
        process.send_signal(signum)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 0


# The truth.


def test_shifts_of_50_000_properties_are_near_the_truth_and_soon_there(tmp_path: Path) -> None:
    for batch in range(50):
        properties = [(number, make_property(number)) for number in range(batch * 1000, batch * 1000 + 1000)]
        items = [vars(made) | {"url": f"http://localhost:9312/{number}"} for number, made in properties]
        (tmp_path / f"{batch}_distr_2026-01-01.jl").write_text(feed(*items))
    with subprocess.Popen([sys.executable, str(SHIFTS), str(tmp_path), "--json"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        shifts = {shift["word"]: shift["shift"] for shift in json.load(process.stdout)}
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    truth: Any = Site(properties=50_000).truth()["shifts"]
    assert {word: shifts[word] for word in FACTORS} == pytest.approx({word: truth[word] for word in FACTORS}, abs=0.01)
    # Of CPU, since other work on the machine is none of ours; measured 0.75 s.
    assert usage.ru_utime + usage.ru_stime < 2

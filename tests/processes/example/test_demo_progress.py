"""The lines about a crawl, in a file and on a terminal, and what is kept of them."""

from __future__ import annotations

import json
import sys
from functools import partial
from io import StringIO
from pathlib import Path
from urllib.request import urlopen

import pytest
from crawling import SiteChild
from demo_results import a_shift
from progress import Progress, scrapyd_state, top_shifts
from result import Sample
from shifts import Analysis, Tables

ITEMS = [{"title": "flat, pool", "price": 120}, {"title": "flat", "price": 100}]


def land(folder: Path, name: str = "1_distr.jl") -> None:
    (folder / name).write_text("".join(json.dumps({"url": name, **item}) + "\n" for item in ITEMS[:1]))


def some_progress(site: str, folder: Path, node: str = "127.0.0.1:1") -> Progress:
    return Progress(site=site, states=[partial(scrapyd_state, node)], total=60, tables=Tables(folder))


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_look_is_a_line_and_a_sample(
    small_site: SiteChild, unused_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with urlopen(f"{small_site.url}/property_000001.html"), urlopen(f"{small_site.url}/index_00000.html"):
        served = small_site.stats()["properties_served"]
    land(tmp_path)
    with some_progress(small_site.url, tmp_path, f"127.0.0.1:{unused_port}") as progress:
        progress.finish()
    first, second = capsys.readouterr().out.splitlines()
    assert f"{served}/60 properties" in first
    assert first.endswith(f" | :{unused_port} does not answer")
    assert second.strip() == "flat +0.0%, pool +0.0% (1 item)"
    assert progress.samples[0] == Sample(seconds=0.0, served=0, pages=0, landed=0)
    assert progress.samples[1].served == served
    assert progress.samples[1].pages == served + 1
    assert progress.samples[1].landed == 1
    assert progress.samples[1].seconds == progress.seconds


def test_items_are_told_only_when_they_are_new(
    small_site: SiteChild, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = some_progress(small_site.url, tmp_path)
    counts = []
    for name in ("", "1.jl", "", "2.jl"):
        if name:
            land(tmp_path, name)
        progress.finish()
        counts.append(len(capsys.readouterr().out.splitlines()))
    assert counts == [1, 2, 1, 2]
    assert [sample.landed for sample in progress.samples] == [0, 0, 1, 1, 2]


def test_a_look_is_not_due_at_once(small_site: SiteChild, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some_progress(small_site.url, tmp_path).tick()
    assert capsys.readouterr().out == ""


def test_a_site_that_does_not_answer_is_no_sample(
    unused_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = some_progress(f"http://127.0.0.1:{unused_port}", tmp_path)
    progress.finish()
    assert "no progress to show" in capsys.readouterr().out
    assert len(progress.samples) == 1


def test_on_a_terminal_the_lines_are_renewed_and_cut(
    small_site: SiteChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("LINES", "4")
    with some_progress(small_site.url, tmp_path) as progress:
        progress.finish()
        first = terminal.getvalue()
        progress.finish()
    second = terminal.getvalue().removeprefix(first)
    assert [len(line.replace("\r", "").replace("\033[K", "")) for line in first.split("\n")] == [19, 19, 19]
    assert second.startswith("\r\033[2A\033[K")
    assert second.endswith("\n")


def test_the_words_that_move_most() -> None:
    def told(*shifts: float) -> str:
        found = tuple(a_shift(f"w{number}", shift) for number, shift in enumerate(shifts))
        return top_shifts(Analysis(shifts=found, items=1500, files=1, malformed=0)).strip()

    assert told(0.2, 0.1, 0.0, -0.1, -0.123) == "w0 +20.0%, w1 +10.0%, ..., w3 -10.0%, w4 -12.3% (1,500 items)"
    assert told(0.2, -0.1) == "w0 +20.0%, w1 -10.0% (1,500 items)"

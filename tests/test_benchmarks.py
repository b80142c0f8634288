"""What the benchmarks' figures rest on: CPU time by role, the check of what was delivered, the tables."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
import designs
from contenders import PLAIN, SCENARIOS, Entry
from environments import Environment
from http_messages import Request
from market import make_property
from measurement import Measurement, check, measure
from pages import property_path
from processes import COORDINATOR, DAEMON, MeasurementError, Processes, stats
from side_by_side import turns
from tables import markdown, svg, tables
from timed_site import TimedSite

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmarks read /proc")

SITE = "http://site.example"
BURN = """
import time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
"""


PAUSE = "time.sleep(60)"


def soon(seconds: float = 30.0) -> float:
    return time.monotonic() + seconds


def script(*lines: str) -> list[str]:
    return [sys.executable, "-c", BURN + "\n".join(("import os, subprocess, sys", *lines))]


def run(seconds: float) -> str:
    """Code for a child that burns so much CPU time."""
    return f"subprocess.run([sys.executable, '-c', {BURN + f'burn({seconds})'!r}])"


# --- CPU time by role ---


def test_the_cpu_time_of_a_daemon_and_of_its_jobs_are_told_apart(tmp_path: Path) -> None:
    with Processes() as processes:
        daemon = processes.start(
            "daemon",
            DAEMON,
            script("burn(0.2)", run(0.3), "print('ready', flush=True)", PAUSE),
            cwd=tmp_path,
            env={},
        )
        processes.wait_for(daemon, "ready", soon())
        cpu = processes.cpu()
    assert 0.28 <= cpu["workers"] < 0.6
    assert 0.18 <= cpu["daemons"] < 0.5
    assert cpu["coordinator"] == cpu["site"] == cpu["broker"] == 0


def test_a_launcher_that_stays_is_part_of_the_daemon_and_what_it_forks_is_not(tmp_path: Path) -> None:
    forks = "pid = os.fork()\nif not pid: burn(0.4); os._exit(0)\nos.waitpid(pid, 0)"
    launcher = f"import os{BURN}burn(0.2)\n{forks}\nprint('ready', flush=True)\ntime.sleep(60)"
    argv = script(f"subprocess.run([sys.executable, '-c', {launcher!r}])")
    with Processes() as processes:
        daemon = processes.start("daemon", DAEMON, argv, cwd=tmp_path, env={})
        processes.wait_for(daemon, "ready", soon())
        cpu = processes.cpu()
    assert 0.38 <= cpu["workers"] < 0.55  # the kernel counts in hundredths
    assert 0.18 <= cpu["daemons"] < 0.5


def test_what_a_process_has_used_still_counts_when_it_has_ended(tmp_path: Path) -> None:
    with Processes() as processes:
        coordinator = processes.start("crawl", COORDINATOR, script("burn(0.2)", run(0.2)), cwd=tmp_path, env={})
        processes.finish(coordinator, soon())
        assert processes.exit_code(coordinator) == 0
        assert 0.38 <= processes.cpu()["coordinator"] < 0.9


def test_a_process_that_leaves_its_parent_is_an_error_and_is_ended_all_the_same(tmp_path: Path) -> None:
    leaves = script("pid = os.fork()", "if pid: print(pid, flush=True); os._exit(0)", "os.setsid()", PAUSE)
    with Processes() as processes:
        parent = processes.start("parent", DAEMON, leaves, cwd=tmp_path, env={})
        processes.finish(parent, soon())
        pid = int(parent.log.read_text())
        with pytest.raises(MeasurementError, match=f"process {pid} has left its parent"):
            processes.cpu()
    assert pid not in {stat.pid for stat in stats()}


# --- waiting and ending ---


def test_everything_ends_with_the_block_even_what_does_not_care(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processes._GRACE_SECONDS", 0.5)
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    deaf = script(ignore, "pid = os.fork()", "print('up\\n', end='')", PAUSE)
    with contextlib.suppress(KeyboardInterrupt), Processes() as processes:
        child = processes.start("deaf", DAEMON, deaf, cwd=tmp_path, env={"PYTHONUNBUFFERED": "1"})
        processes.wait_for(child, "up\nup", soon())
        family = {stat.pid for stat in stats() if child.pid in (stat.pid, stat.parent)}
        raise KeyboardInterrupt
    assert len(family) == 2
    assert family.isdisjoint(stat.pid for stat in stats())


def test_a_process_that_ends_unasked_stops_the_measurement_with_its_last_words(tmp_path: Path) -> None:
    with Processes() as processes:
        processes.start("node", DAEMON, script("print('port taken')"), cwd=tmp_path, env={})
        with pytest.raises(MeasurementError, match=r"(?s)node ended too early:.*port taken"):
            processes.until(lambda: None, soon(), "nothing happens")


def test_waiting_has_an_end(tmp_path: Path) -> None:
    with Processes() as processes, pytest.raises(MeasurementError, match="no item came, and the time is up"):
        processes.until(lambda: None, soon(0), "no item came")


# --- what was delivered ---


def item(number: int) -> dict[str, Any]:
    found = make_property(number)
    fields = {"title": found.title, "price": found.price, "description": found.description, "address": found.address}
    return {"url": SITE + property_path(number), **fields, "image_urls": [SITE + found.image]}


def feed(file: Path, *items: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    return file


def test_every_property_exactly_once_is_complete(tmp_path: Path) -> None:
    feeds = [feed(tmp_path / "1.jl", item(0), item(2)), feed(tmp_path / "2.jl", item(1))]
    delivery = check(feeds, SITE, 3)
    assert delivery.complete
    assert delivery.items == 3


def test_a_property_that_came_twice_is_found(tmp_path: Path) -> None:
    feeds = [feed(tmp_path / "1.jl", item(0), item(1)), feed(tmp_path / "2.jl", item(1))]
    delivery = check(feeds, SITE, 2)
    assert (delivery.missing, delivery.twice, delivery.wrong, delivery.complete) == (0, 1, 0, False)


def test_a_property_that_is_missing_is_found(tmp_path: Path) -> None:
    delivery = check([feed(tmp_path / "1.jl", item(0))], SITE, 2)
    assert (delivery.missing, delivery.twice, delivery.wrong, delivery.complete) == (1, 0, 0, False)


@pytest.mark.parametrize("other", [{"price": 0.0}, {"url": f"{SITE}/property_000009.html"}])
def test_an_item_that_the_site_does_not_have_is_found(tmp_path: Path, other: dict[str, Any]) -> None:
    delivery = check([feed(tmp_path / "1.jl", item(0) | other)], SITE, 1)
    assert (delivery.missing, delivery.wrong, delivery.complete) == (1, 1, False)


def test_the_site_notes_when_it_sent_what(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr("timed_site.time.monotonic", lambda: next(clock))
    site = TimedSite(properties=2, latency=0.5)
    for path in ("/index_00000.html", "/property_000001.html", "/property_000001.html", "/property_000000.html"):
        site.answer(Request(method="GET", target=path, headers={}, body=b""))
    answer = site.answer(Request(method="GET", target="/times.json", headers={}, body=b""))
    assert json.loads(answer.body) == {"sent": 2, "again": 1, "first": 2.0, "last": 4.5, "index": [1.0]}


class Here(Environment):
    """The environment of the tests."""

    def python(self, work: Path) -> Path:
        return Path(sys.executable)

    def versions(self, work: Path) -> dict[str, str]:
        return {"Scrapy": "installed"}


def test_a_measurement_from_the_first_process_to_the_result(tmp_path: Path) -> None:
    contender = replace(PLAIN, environment=Here(name="here", requirements=()))
    workload = designs.Workload(properties=45)
    result = measure(contender, workload, scenario="test", number=1, work=tmp_path, time_limit=60)
    assert result.problem == ""
    assert result.delivery == {"items": 45, "missing": 0, "twice": 0, "wrong": 0}
    assert 0 < result.first < result.last <= result.seconds
    assert result.cpu["workers"] > 0.1 > result.cpu["site"]
    assert Measurement.from_json(result.to_json()) == result
    assert list((tmp_path / "runs").iterdir()) == []


class Broken(Here):
    """An environment in which nothing runs."""

    def python(self, work: Path) -> Path:
        return Path("/bin/false")


@pytest.mark.parametrize(
    ("environment", "settings", "problem"),
    [(Broken, {}, "crawl failed with exit code 1"), (Here, {"CLOSESPIDER_PAGECOUNT": 1}, "missing=[1-9]")],
)
def test_a_measurement_that_fails_says_why_and_keeps_its_files(
    tmp_path: Path, environment: type[Environment], settings: dict[str, Any], problem: str
) -> None:
    contender = replace(PLAIN, environment=environment(name="here", requirements=()), settings=settings)
    workload = designs.Workload(properties=90)
    result = measure(contender, workload, scenario="test", number=1, work=tmp_path, time_limit=60)
    assert re.search(problem, result.problem)
    (folder,) = (tmp_path / "runs").iterdir()
    assert str(folder) in result.problem


# --- rounds and tables ---


def recorded(contender: str, seconds: float, **other: Any) -> Measurement:
    cpu = {"site": 0.5, "coordinator": 1.0, "daemons": 0.0, "workers": seconds, "broker": 0.0}
    workload = asdict(designs.Workload(properties=1000))
    return Measurement(
        **{
            "scenario": "short", "round": 1, "at": "2026-11-21 12:00:00", "contender": contender,
            "form": "as installed", "workload": workload, "versions": {}, "seconds": seconds, "first": 1.5,
            "last": seconds, "cpu": cpu, "delivery": {}, **other,
        }
    )  # fmt: skip


def test_a_table_has_medians_extremes_roles_and_ratios() -> None:
    ours = [recorded("this project", seconds) for seconds in (5.0, 4.0, 10.0)]
    theirs = [recorded("tutorial", seconds, reaction=2.0) for seconds in (10.0, 20.0)]
    text = markdown(tables([*ours, *theirs, recorded("tutorial", 0.0, problem="node ended")]), {"short": "Why?"})
    lines = text.splitlines()
    assert lines[:4] == ["## short: 1,000 properties, 0 s a page", "", "Why?", ""]
    assert "| this project, as installed | 2 | 3 | 5.0 (4.0-10.0) | 200 (100-250) | 1.30 (1.15-1.38) | 1.5 |  |" in text
    assert "| tutorial, as installed | 2 | 2 (1 failed) | 15.0 (10.0-20.0) | 75 (50-100) " in text
    assert "| this project, as installed | 2 | 6.50 (5.50-11.50) | 0.500 (0.500-0.500) | 1.000 " in text
    assert "| this project, as installed, 2 workers | 1.00 | 0.33 |" in lines


def test_sizes_and_latencies_are_not_mixed() -> None:
    large = recorded("tutorial", 9.0, workload=asdict(designs.Workload(properties=2000)))
    slow = recorded("tutorial", 9.0, workload=asdict(designs.Workload(properties=1000, latency=0.25)))
    found = tables([recorded("tutorial", 5.0), large, slow])
    assert [table.title for table in found] == [
        "short: 1,000 properties, 0 s a page",
        "short: 2,000 properties, 0 s a page",
        "short: 1,000 properties, 0.25 s a page",
    ]


def test_the_plot_has_a_bar_for_every_row_with_a_result() -> None:
    failed = recorded("scrapy-redis", 0.0, problem="no Redis")
    plot = ET.fromstring(svg(tables([recorded("this project", 5.0), recorded("a < b", 10.0), failed])))
    bars = plot.findall("{http://www.w3.org/2000/svg}rect")[1:]
    assert [float(bar.attrib["width"]) for bar in bars] == pytest.approx([490.0, 245.0])
    assert "a < b, as installed, 2 workers" in [text.text for text in plot.iter("{http://www.w3.org/2000/svg}text")]


def test_contenders_take_turns_and_every_second_round_is_reversed() -> None:
    one, two, *_ = SCENARIOS["installed"].entries
    order: list[tuple[int, Entry]] = list(turns(3, [one, two]))
    assert order == [(1, one), (1, two), (2, two), (2, one), (3, one), (3, two)]

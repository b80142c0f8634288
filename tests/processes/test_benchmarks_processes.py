"""The processes of a benchmark: CPU time by role, how they end, and a measurement from the first to the result."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
import designs
from contenders import PLAIN
from environments import Environment
from measurement import Measurement, measure
from processes import COORDINATOR, DAEMON, MeasurementError, Processes, stats

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmarks read /proc")

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

"""The benchmarks that measure a part of this project do what they say, and end: here with little to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from valkey_child import binary

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SECONDS = 300


def told_by(name: str, *args: str) -> list[str]:
    """The lines of a benchmark's output."""
    command = [sys.executable, str(BENCHMARKS / name), *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as benchmark:
        try:
            output, _ = benchmark.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(benchmark.pid, signal.SIGKILL)  # and what it has started
            raise
    assert benchmark.returncode == 0
    return output.splitlines()


def test_what_a_coordinator_costs_is_told_when_all_is_settled() -> None:
    assert told_by("coordinator.py", "90")[-1].startswith("| 90 |")


def test_what_a_shared_run_costs_its_server_is_told_for_each_step() -> None:
    binary()  # there is one
    lines = told_by("shared_server.py", "--urls", "3000", "--rounds", "1", "--memory", "3000")
    steps = [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("| ")]
    each = ["step", "nothing", "HSETNX alone", "add", "add, all known", "claim", "settle", "add, claim, settle"]
    assert steps == 2 * each
    assert lines[-1].startswith("3,000 URLs take ")

"""What a job can know of the Scrapyd that has started it: Scrapyd's own launcher is the oracle."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import scrapyd.config  # noqa: F401  as its runner does
from scrapy import Spider

from scrapy_distributed.warm.launcher import WarmLauncher
from scrapy_distributed.wire.receipt import MAX_SLOTS
from scrapy_distributed.worker.its_node import AT_ONCE, ItsNode, of_its_node

CORES = multiprocessing.cpu_count()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a Scrapyd has been started, and so its jobs are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("lines", "known"),
    [
        ("", (4 * CORES, 5.0)),
        ("max_proc = 3\npoll_interval = 0.5", (3, 0.5)),
        ("max_proc_per_cpu = 2", (2 * CORES, 5.0)),
        (f"max_proc = 2\nlauncher = {AT_ONCE}", (2, 0.0)),
        ("max_proc = 2\nlauncher = my.own.Launcher", (2, 5.0)),
        (f"max_proc = {MAX_SLOTS + 1}\npoll_interval = nan", (None, None)),
        ("max_proc = many", (None, None)),
        ("[", (None, None)),
    ],
)
def test_its_configuration_tells(folder: Path, lines: str, known: tuple[int | None, float | None]) -> None:
    (folder / "scrapyd.conf").write_text(f"[scrapyd]\n{lines}\n")
    assert of_its_node(Spider) == (*known, None)


@pytest.mark.parametrize("module", [None, SimpleNamespace()])
def test_where_no_scrapyd_has_started_it_nothing_is_known_or_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    monkeypatch.setitem(sys.modules, "scrapyd.config", module)
    assert of_its_node(Spider) == ItsNode()


def test_the_warm_launcher_is_known_by_its_name() -> None:
    assert f"{WarmLauncher.__module__}.{WarmLauncher.__qualname__}" == AT_ONCE

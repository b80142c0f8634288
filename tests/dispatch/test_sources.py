"""An edit of the project in mid-run is said."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from scrapy_distributed.dispatch.sources import Sources


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a module that is loaded."""
    path = tmp_path / "a_spider_of_this_test.py"
    path.write_text("x = 1\n")
    loaded = ModuleType(path.stem)
    loaded.__file__ = str(path)
    monkeypatch.setitem(sys.modules, path.stem, loaded)
    return path


def edit(path: Path, text: str, at: int) -> None:
    path.write_text(text)
    os.utime(path, ns=(at, at))


def test_an_edit_is_said_once(module: Path, caplog: pytest.LogCaptureFixture) -> None:
    sources = Sources()
    sources.tell("job-1")
    assert not caplog.messages
    edit(module, "x = 2\n", 1)
    sources.tell("job-2")
    sources.tell("job-3")
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{module} changed while the run goes on: job job-2 and those after it")


def test_a_file_that_is_only_touched_is_the_same(module: Path, caplog: pytest.LogCaptureFixture) -> None:
    sources = Sources()
    edit(module, "x = 1\n", 1)
    sources.tell("job-1")
    assert not caplog.messages


def test_one_that_is_gone_is_said(module: Path, caplog: pytest.LogCaptureFixture) -> None:
    sources = Sources()
    module.unlink()
    sources.tell("job-1")
    sources.tell("job-2")
    assert len(caplog.messages) == 1


def test_packages_are_no_part_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "site-packages" / "installed_by_this_test.py"
    path.parent.mkdir()
    path.write_text("")
    loaded = ModuleType(path.stem)
    loaded.__file__ = str(path)
    monkeypatch.setitem(sys.modules, path.stem, loaded)
    sources = Sources()
    edit(path, "x = 1\n", 1)
    sources.tell("job-1")
    assert not caplog.messages

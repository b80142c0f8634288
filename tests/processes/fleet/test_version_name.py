"""What a version is called when it is deployed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.addresses import Target, version_of
from scrapy_distributed.fleet.node import NodeAddress
from scrapy_distributed.fleet.version_name import version_name

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
COMMITTER = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, env={**os.environ, **COMMITTER})


def test_the_time_where_nothing_is_said(tmp_path: Path) -> None:
    assert version_name("", tmp_path, 1_795_915_004.9) == "1795915004"


def test_a_name_is_what_it_is(tmp_path: Path) -> None:
    assert version_name("r10", tmp_path, 0.0) == "r10"


@needs_git
def test_what_git_says(tmp_path: Path) -> None:
    git(tmp_path, "init", "--initial-branch=main")
    for number in range(3):
        git(tmp_path, "commit", "--allow-empty", "-m", str(number))
    assert version_name("GIT", tmp_path, 0.0) == "r3-main"
    git(tmp_path, "tag", "-a", "v1.2", "-m", "x")
    git(tmp_path, "checkout", "-b", "mend")
    assert version_name("GIT", tmp_path, 0.0) == "v1.2-mend"


@needs_git
def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"version = GIT in scrapy\.cfg: git rev-list .* says nothing in .*: expected a"
    ):
        version_name("GIT", tmp_path, 0.0)


def test_a_program_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"version = HG in scrapy\.cfg: hg tip .*No such file"):
        version_name("HG", tmp_path, 0.0)


def test_what_mercurial_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that answers as it does: the suite needs none."""
    hg = tmp_path / "hg"
    hg.write_text('#!/bin/sh\n[ "$1" = tip ] && printf 41 || echo default\n')
    hg.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert version_name("HG", tmp_path, 0.0) == "r41-default"


def node(name: str) -> NodeAddress:
    return NodeAddress(name=name, url=f"http://{name}:6800")


def test_the_version_of_the_targets_that_are_meant() -> None:
    targets = {name: Target(name=name, version=version) for name, version in (("a", "GIT"), ("b", "r2"), ("c", ""))}
    assert version_of(targets, [node("a"), node("c"), node("10.0.0.1:6800")]) == "GIT"
    assert version_of(targets, [node("c")]) == ""
    with pytest.raises(
        ConfigError, match=r"version: found GIT, r2 for these targets in scrapy\.cfg, expected one for all"
    ):
        version_of(targets, [node("a"), node("b")])

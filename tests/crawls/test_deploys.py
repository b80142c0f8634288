"""Deploys and versions on a real Scrapyd: is what runs there what lies here, and which versions are there?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crawling import Project, SiteChild
from scrapyd_child import ScrapydChild, start

DIFFERS = "the code here is not that of version {}, which runs there: scrapy fleet deploy"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ScrapydChild]:
    with start(tmp_path, name="own") as node:
        yield node


@pytest.fixture
def own(node: ScrapydChild, tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project", {"own": f"url = {node.url}"})
    yield project
    project.end()


def said(project: Project, folder: Path, *words: str) -> tuple[int, str]:
    """The exit code of a Scrapy command, and what it says."""
    command = project.scrapy(*words, folder=folder).wait()
    return command.process.returncode, command.log


def by_scrapyd_deploy(project: Project, version: str) -> None:
    command = [str(Path(sys.executable).with_name("scrapyd-deploy")), "own", "-v", version]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SCRAPY")}
    subprocess.run(command, cwd=project.folder, check=True, capture_output=True, env=kept)


def test_code_that_was_changed_and_not_deployed(own: Project, small_site: SiteChild, tmp_path: Path) -> None:
    args = {"site": small_site.url, "pages": 2}

    def crawled(name: str) -> str:
        (tmp_path / name).mkdir()
        settings = {"DISTRIBUTED_TARGET_HOSTS": "own", "DISTRIBUTED_BATCH_SIZE": 20}
        crawl = own.crawl("distr", folder=tmp_path / name, args=args, settings=settings).wait()
        assert crawl.balance() == {"diverted": 60, "crawled": 60}
        return crawl.log

    def doctor() -> tuple[int, str]:
        return said(own, tmp_path, "fleet", "doctor", "own", "--spider", "distr", "-a", f"site={small_site.url}")

    assert said(own, tmp_path, "fleet", "deploy", "own", "--version", "1")[0] == 0
    assert "the code here" not in crawled("same")
    with (own.folder / "trial" / "spiders.py").open("a") as file:
        file.write("# mended\n")
    log = crawled("changed")
    assert log.count("the code here") == log.count(f"own: {DIFFERS.format(1)}. This run goes on with both;") == 1
    assert log.index("the code here") < log.index(" accepted (")
    code, words = doctor()
    assert code == 1
    (line,) = [line for line in words.splitlines() if "probe: " in line]
    assert line.split()[1] == "warn"
    assert line.endswith(f". But {DIFFERS.format(1)}")
    by_scrapyd_deploy(own, "2")
    code, words = doctor()
    assert (code, "the code here" in words) == (0, False), words

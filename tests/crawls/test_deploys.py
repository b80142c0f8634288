"""Deploys and versions on a real Scrapyd: is what runs there what lies here, and which versions are there?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from crawling import DEADLINE_SECONDS, Project, SiteChild, call, wait_for
from scrapyd_child import ScrapydChild, start
from tiny_project import tiny_egg

from scrapy_distributed.ledger.sqlite import Ledger

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


@pytest.fixture(scope="module")
def egg(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_egg(tmp_path_factory.mktemp("egg") / "project")


def said(project: Project, folder: Path, *words: str) -> tuple[int, str]:
    """The exit code of a Scrapy command, and what it says."""
    command = project.scrapy(*words, folder=folder).wait()
    return command.process.returncode, command.log


def by_scrapyd_deploy(project: Project, version: str) -> None:
    command = [str(Path(sys.executable).with_name("scrapyd-deploy")), "own", "-v", version]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SCRAPY")}
    own = {"TMPDIR": str(project.folder.parent)}  # it leaves a folder there
    subprocess.run(command, cwd=project.folder, check=True, capture_output=True, env=kept | own)


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


# The versions that are there


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Project, ScrapydChild, ScrapydChild]]:
    """A project with two nodes, n1 and n2, which have nothing of it."""
    with start(tmp_path, name="n1") as one, start(tmp_path, name="n2") as other:
        (tmp_path / "project").mkdir()
        project = Project(tmp_path / "project", {node.name: f"url = {node.url}" for node in (one, other)})
        yield project, one, other
        project.end()


def fleet_says(project: Project, folder: Path, *words: str, hosts: str = "n*") -> tuple[int, str]:
    return said(project, folder, "fleet", *words, "-s", f"DISTRIBUTED_TARGET_HOSTS={hosts}")


def versions(node: ScrapydChild, project: str = "trial") -> list[str]:
    found: list[str] = call(f"{node.url}/listversions.json?project={project}")["versions"]
    return sorted(found)


def test_old_versions_are_shown_and_deleted(
    two: tuple[Project, ScrapydChild, ScrapydChild], tmp_path: Path, egg: bytes
) -> None:
    project, one, other = two
    fleet = partial(fleet_says, project, tmp_path)
    assert fleet("versions") == (
        1, "n1 0 versions: none\nn2 0 versions: none\n"
        "project 'trial': no node has a version of it: scrapy fleet deploy\n",
    )  # fmt: skip
    for node, there in ((one, ("1", "2", "9_0", "10_0", "11")), (other, ("1", "2", "10_0"))):
        eggs = node.dir / "eggs"
        for name in ("trial", "others"):
            (eggs / name).mkdir(parents=True)
            for version in there:
                (eggs / name / f"{version}.egg").write_bytes(egg)
        node.stop()  # it looks for projects at its start
        node.restart()
    lacks = "11 is not on n2, so a crawl uses 10_0: scrapy fleet deploy\n"
    assert fleet("versions") == (
        1, f"n1 5 versions: 11 (newest), 10_0 (used), 9_0, 2, 1\nn2 3 versions: 10_0 (used), 2, 1\n{lacks}",
    )  # fmt: skip
    assert fleet("versions", "-s", "DISTRIBUTED_VERSION=2") == (
        0, "n1 5 versions: 11 (newest), 10_0, 9_0, 2 (used), 1\nn2 3 versions: 10_0, 2 (used), 1\n",
    )  # fmt: skip
    pruned = fleet("prune", "--keep", "1", "-s", "DISTRIBUTED_VERSION=2")
    assert pruned[1].startswith("n1 deleted: 10_0, 9_0, 1; 2 versions: 11, 2\nn2 deleted: 10_0, 1; 1 version: 2\n")
    assert pruned[1].endswith("for example: find trial/*.receipts -mtime +30 -delete\n")
    assert pruned[0] == 0
    assert (versions(one), versions(other)) == (["11", "2"], ["2"])
    assert versions(one, "others") == ["1", "10_0", "11", "2", "9_0"]
    assert fleet("prune", "--keep", "5")[1].startswith("n1 2 versions: 11, 2\nn2 1 version: 2\n")


def test_nothing_is_deleted_while_jobs_are_there_or_a_node_is_silent(
    two: tuple[Project, ScrapydChild, ScrapydChild], tmp_path: Path, small_site: SiteChild
) -> None:
    project, one, other = two
    fleet = partial(fleet_says, project, tmp_path)
    for version in ("1", "2"):
        assert fleet("deploy", "--version", version)[0] == 0
    slow = {"DOWNLOAD_DELAY": "30", "DISTRIBUTED_ENABLED": "False", "CLOSESPIDER_PAGECOUNT": "0"}
    form = [("project", "trial"), ("spider", "easy"), ("jobid", "theirs"), ("site", small_site.url)]
    form += [("setting", f"{name}={value}") for name, value in slow.items()]
    with urlopen(f"{one.url}/schedule.json", urlencode(form).encode(), timeout=60):
        pass
    wait_for(lambda: call(f"{one.url}/listjobs.json?project=trial")["running"])
    code, words = fleet("prune", "--keep", "1")
    assert code == 1
    assert (
        "n1 nothing was deleted, 1 job of the project wait or run there: ask again later; 2 versions: 2, 1\n" in words
    )
    assert "n2 deleted: 1; 1 version: 2\n" in words
    assert (versions(one), versions(other)) == (["1", "2"], ["2"])
    call(f"{one.url}/cancel.json", project="trial", job="theirs", signal="KILL")
    wait_for(lambda: not call(f"{one.url}/listjobs.json?project=trial")["running"])
    ledger = tmp_path / "ledger.sqlite"
    with closing(Ledger(ledger)):
        code, words = fleet("prune", "--keep", "1", "-s", f"DISTRIBUTED_LEDGER={ledger}")
    assert (code, f"prune: found a crawl that runs ({ledger}), expected none" in words) == (2, True), words
    other.stop()
    code, words = fleet("prune", "--keep", "1")
    assert code == 2
    assert "prune: n2: " in words
    assert versions(one) == ["1", "2"]
    code, words = fleet("versions")
    assert code == 1
    assert "n1 2 versions: 2 (newest, used), 1\n" in words
    assert fleet("prune", "--keep", "1", hosts="n1")[0] == 0
    assert versions(one) == ["2"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("prune",), "prune: found no --keep, expected --keep N and no node"),
        (("prune", "n1", "--keep", "1"), "prune: found 'n1', expected --keep N and no node"),
        (("prune", "--keep", "0"), "expected at least 1"),
    ],
)
def test_how_prune_is_called(tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    (tmp_path / "project").mkdir()
    project = Project(tmp_path / "project", {"n1": "url = http://127.0.0.1:1"})
    assert (found := said(project, tmp_path, "fleet", *args))[0] == 2
    assert words in found[1]


# A version that goes away


def test_a_version_that_is_deleted_in_mid_run(
    own: Project, node: ScrapydChild, small_site: SiteChild, tmp_path: Path
) -> None:
    for version in ("1", "2"):
        assert said(own, tmp_path, "fleet", "deploy", "own", "--version", version)[0] == 0
    settings = {"DISTRIBUTED_TARGET_HOSTS": "own", "DISTRIBUTED_BATCH_SIZE": 5, "DOWNLOAD_DELAY": "0.3"}
    crawl = own.crawl("distr", folder=tmp_path, args={"site": small_site.url, "pages": 2}, settings=settings)
    wait_for(lambda: call(f"{node.url}/listjobs.json?project=trial")["running"])
    call(f"{node.url}/delversion.json", project="trial", version="2")
    gone = "project 'trial': expected version '2', own has 1: scrapy fleet deploy"
    wait_for(lambda: " rejected: no receipt: " in crawl.log, DEADLINE_SECONDS)
    crawl.end()
    (first, *_) = re.findall(r" rejected: no receipt: (.*) \(job ", crawl.log)
    assert first == f"It died before its spider was loaded, and its node says why: {gone}"
    assert "ADDONS" not in crawl.log

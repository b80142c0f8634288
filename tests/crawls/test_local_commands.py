"""A crawl with workers on this machine alone, seen from other processes: ``scrapy monitor`` and ``scrapy batches``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from crawling import Crawl, Project, site, wait_for


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """It has no target."""
    project = Project(tmp_path, {})
    yield project
    project.end()


def shown(monitor: Crawl) -> list[tuple[int, int, int]]:
    """What it has shown so far of workers on this machine, the only nodes: running, finished, pending."""
    found = []
    for line in monitor.log.splitlines(keepends=True):
        if line.endswith("\n"):
            (node,) = json.loads(line)["nodes"]
            assert (node["name"], node["problem"]) == ("local", None)
            found.append((node["running"], node["finished"], node["pending"]))
    return found


def test_what_other_processes_see_of_it(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    ledger = f"DISTRIBUTED_LEDGER={folder / 'ledger.sqlite'}"
    monitor = project.scrapy("monitor", "local", "--json", "--interval", "0.1", "-s", ledger, folder=folder)
    wait_for(lambda: shown(monitor))
    with site(60, latency=0.3) as child:
        settings = {"DISTRIBUTED_TARGET_HOSTS": "local:2", "DISTRIBUTED_BATCH_SIZE": 10}
        crawl = project.crawl("distr", folder=folder, args={"site": child.url}, settings=settings).wait()
    assert crawl.balance() == {"diverted": 60, "crawled": 60}
    count = len(crawl.run()["batches"])
    wait_for(lambda: shown(monitor)[-1] == (0, count, 0))
    monitor.end()
    found = shown(monitor)
    assert found[0] == (0, 0, 0)
    assert {running for running, _, _ in found} <= {0, 1, 2}
    assert max(running for running, _, _ in found) >= 1
    assert max(pending for _, _, pending in found) >= 1
    log = project.scrapy("batches", "log", "1", "--ledger", str(crawl.ledger), folder=folder).wait()
    assert log.process.returncode == 0
    title, *lines = log.log.splitlines()
    assert title.startswith("==> attempt 1 (label 1) on local, accepted (finished), log: /")
    assert any("Spider closed (finished)" in line for line in lines)
    assert lines == Path(title.partition(", log: ")[2]).read_text().splitlines()

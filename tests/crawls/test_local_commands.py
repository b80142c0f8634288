"""A crawl with workers on this machine alone, seen from other processes: ``scrapy monitor`` and ``scrapy batches``."""

from __future__ import annotations

import json
import time
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
    assert title.startswith("==> attempt 1 (batch=1) on local, accepted (finished), log: /")
    assert any("Spider closed (finished)" in line for line in lines)
    assert lines == Path(title.partition(", log: ")[2]).read_text().splitlines()


def test_it_pauses_and_goes_on_as_an_operator_wishes(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()

    def batches(*words: str) -> tuple[int, str]:
        command = project.scrapy("batches", *words, "--ledger", str(folder / "ledger.sqlite"), folder=folder).wait()
        return command.process.returncode, command.log

    with site(60, latency=0.5) as child:
        settings = {
            "DISTRIBUTED_TARGET_HOSTS": "local:2", "DISTRIBUTED_BATCH_SIZE": 5, "CONCURRENT_REQUESTS": 2
        }  # fmt: skip
        crawl = project.crawl("distr", folder=folder, args={"site": child.url}, settings=settings)
        wait_for(lambda: child.stats()["properties_served"] > 5)
        code, said = batches("pause")
        assert code == 0, said
        assert "  paused: no page is asked for here, and no batch sent; " in said
        # What was under way is over soon, and nothing follows.
        wait_for(lambda: not json.loads(batches("list", "--json")[1])["runs"][0]["balance"]["in_flight"], 20)
        asked = child.stats()["properties_served"]
        assert asked < 60
        time.sleep(1.5)
        assert child.stats()["properties_served"] == asked
        assert crawl.process.poll() is None
        assert json.loads(batches("resume", "--json")[1])["answer"] == "it goes on"
        crawl.wait()
        assert child.stats()["properties_repeated"] == 0
    assert crawl.balance() == {"diverted": 60, "crawled": 60}
    code, said = batches("pause")
    assert code == 2
    assert said.strip().endswith("no crawl uses it now, so there is nothing to pause")

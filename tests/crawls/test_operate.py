"""What operators do with a fleet that crawls: jobs are ended, nodes are spared, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from crawling import Crawl, Project, SiteChild, call, site, wait_for
from scrapyd_child import ScrapydChild, start

from scrapy_distributed.ledger.board import read_board

PAGES = 480
NODES, SLOTS = 3, 4


@pytest.fixture(scope="module")
def own_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ScrapydChild]]:
    folder = tmp_path_factory.mktemp("nodes")
    with ExitStack() as stack:
        yield [
            stack.enter_context(start(folder, max_proc=SLOTS, name=f"node{number}", warm=True))
            for number in range(1, NODES + 1)
        ]


@pytest.fixture(scope="module")
def project(own_nodes: list[ScrapydChild], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("project"), {node.name: f"url = {node.url}" for node in own_nodes})
    project.deploy("node*", folder=tmp_path_factory.mktemp("deploy"))
    yield project
    project.end()


def begin(project: Project, folder: Path, child: SiteChild) -> Crawl:
    settings = {"DISTRIBUTED_TARGET_HOSTS": "node*", "DISTRIBUTED_BATCH_SIZE": 30, "CONCURRENT_REQUESTS": 2}
    return project.crawl("distr", folder=folder, args={"site": child.url}, settings=settings)


def jobs(node: ScrapydChild, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = call(f"{node.url}/listjobs.json?project=trial")[state]
    return found


def at_work(nodes: list[ScrapydChild]) -> int:
    return sum(len(jobs(node, "running")) for node in nodes)


def fleet(project: Project, folder: Path, *words: str) -> tuple[int, str]:
    """The exit code of ``scrapy fleet`` *words*, and what it says."""
    ledger = ("-s", f"DISTRIBUTED_LEDGER={folder / 'ledger.sqlite'}")
    command = project.scrapy("fleet", *words, *ledger, folder=folder).wait()
    return command.process.returncode, command.log


def cancel(project: Project, folder: Path, *options: str) -> tuple[int, str, float]:
    """With the seconds that it takes, too."""
    began = time.monotonic()
    code, said = fleet(project, folder, "cancel", "node*", *options)
    return code, said, time.monotonic() - began


def failures(crawl: Crawl) -> int:
    with closing(sqlite3.connect(crawl.ledger)) as db:
        return int(db.execute("SELECT sum(failures) FROM batch").fetchone()[0])


def prove(crawl: Crawl, child: SiteChild) -> None:
    balance = crawl.balance()
    assert (balance.pop("diverted"), balance.pop("crawled")) == (PAGES, PAGES)
    assert set(balance) <= {"duplicates"}  # the walk is done again by the second command
    assert Counter(crawl.item_urls()) == Counter(child.property_urls(range(PAGES)))


def test_the_jobs_of_a_crawl_that_runs(project: Project, own_nodes: list[ScrapydChild], tmp_path: Path) -> None:
    with site(PAGES, latency=0.5) as child:
        crawl = begin(project, tmp_path, child)
        wait_for(lambda: at_work(own_nodes) == NODES * SLOTS)
        wait_for(lambda: child.stats()["properties_served"] > 20)
        code, said, seconds = cancel(project, tmp_path)
        assert code == 0, said
        assert seconds < 12
        assert at_work(own_nodes) == 0
        assert "paused, and " in said
        assert said.count("ended, none is left") == NODES
        sent = child.stats()["properties_served"]
        time.sleep(3)
        assert child.stats()["properties_served"] == sent < PAGES  # nothing is sent again
        assert not [job for node in own_nodes for job in jobs(node, "pending")]
        assert crawl.process.poll() is None
        os.kill(crawl.process.pid, signal.SIGINT)
        crawl.wait()
        assert failures(crawl) == 0, "an end that was wished counts against a batch"
        prove(begin(project, tmp_path, child).wait(), child)


def test_a_crawl_that_does_not_answer_holds_up_nothing(
    project: Project, own_nodes: list[ScrapydChild], tmp_path: Path
) -> None:
    with site(PAGES, latency=0.5) as child:
        crawl = begin(project, tmp_path, child)
        wait_for(lambda: at_work(own_nodes) == NODES * SLOTS)
        os.kill(crawl.process.pid, signal.SIGSTOP)
        try:
            code, said, _ = cancel(project, tmp_path)
        finally:
            os.kill(crawl.process.pid, signal.SIGCONT)
        assert code == 0, said
        assert "its crawl has not answered within 10 s" in said
        wait_for(lambda: "By an operator's wish: paused" in crawl.log)  # as soon as it can
        wait_for(lambda: at_work(own_nodes) == 0)
        os.kill(crawl.process.pid, signal.SIGINT)
        crawl.wait()
        prove(begin(project, tmp_path, child).wait(), child)


def test_the_jobs_of_a_crawl_that_is_gone(project: Project, own_nodes: list[ScrapydChild], tmp_path: Path) -> None:
    with site(PAGES, latency=0.5) as child:
        crawl = begin(project, tmp_path, child)
        wait_for(lambda: at_work(own_nodes) == NODES * SLOTS)
        wait_for(lambda: child.stats()["properties_served"] > 20)
        crawl.end()
        assert cancel(project, tmp_path, "--run", "20260101T000000-abcd")[0] == 2
        assert at_work(own_nodes) == NODES * SLOTS
        code, said, _ = cancel(project, tmp_path, "--run", crawl.run()["name"])
        assert code == 0, said
        assert at_work(own_nodes) == 0
        prove(begin(project, tmp_path, child).wait(), child)


def test_jobs_of_others_are_left_alone(project: Project, own_nodes: list[ScrapydChild], tmp_path: Path) -> None:
    with site(30, latency=30) as child:
        node = own_nodes[0]
        form = {"project": "trial", "spider": "distr", "setting": "DISTRIBUTED_ENABLED=False", "site": child.url}
        job = call(f"{node.url}/schedule.json", **form)["jobid"]
        wait_for(lambda: [one["id"] for one in jobs(node, "running")] == [job])
        code, said, _ = cancel(project, tmp_path)
        assert code == 0
        assert "no run of this project is known here" in said
        assert [one["id"] for one in jobs(node, "running")] == [job]
        for _ in range(2):
            call(f"{node.url}/cancel.json", project="trial", job=job, signal="KILL")
        wait_for(lambda: not jobs(node, "running"))


def _shows(ledger: Path) -> bool:
    """A drained node, jobs that have done something, a rate, and all that was found."""
    board = read_board(ledger)
    return (
        board is not None
        and board.nodes[2].state == "drained"
        and any(job.settled and job.rate for job in board.jobs)
        and board.count.rate > 0
        and board.count.balance.diverted == PAGES
    )


def test_what_the_monitor_tells_of_a_crawl(project: Project, own_nodes: list[ScrapydChild], tmp_path: Path) -> None:
    with site(PAGES, latency=0.5) as child:
        crawl = begin(project, tmp_path, child)
        ledger = ("-s", f"DISTRIBUTED_LEDGER={crawl.ledger}")
        wait_for(lambda: at_work(own_nodes) == NODES * SLOTS)
        fleet(project, tmp_path, "drain", "node3")
        wait_for(lambda: _shows(crawl.ledger))
        told = project.scrapy("monitor", "node*", "--once", "--json", *ledger, folder=tmp_path).wait()
        (run,) = json.loads(told.log.splitlines()[-1])["runs"]
        line = project.scrapy("monitor", "node*", "--once", *ledger, folder=tmp_path).wait()
        prove(crawl.wait(), child)
    assert (run["state"], run["spider"], run["requests"]["diverted"]) == ("running", "distr", PAGES)
    assert [(node["name"], node["state"]) for node in run["nodes"]] == [
        ("node1", "well"), ("node2", "well"), ("node3", "drained"),
    ]  # fmt: skip
    at_work_there = [job for job in run["jobs"] if job["state"] == "at work"]
    assert any(job["settled"] and job["rate"] for job in at_work_there)
    assert all(job["settled"] <= min(job["size"], job["pages"]) for job in at_work_there)
    assert run["progress"]["settled"] >= run["requests"]["crawled"]
    assert run["progress"]["rate"] > 0
    assert run["progress"]["seconds_left"] > 0
    words = {event["what"]: event["words"] for event in run["events"]}
    assert words["node3"] == "drained: by an operator's wish"
    assert words["wish drain node3"].startswith("node3 gets no more batches")
    assert re.search(rf"^crawl distr: \d+ of {PAGES} requests settled \(\d+ %\), [\d,]+/min, ", line.log, re.MULTILINE)
    after = project.scrapy("monitor", "node*", "--once", "--json", *ledger, folder=tmp_path).wait()
    (run,) = json.loads(after.log.splitlines()[-1])["runs"]
    assert (run["state"], run["requests"]["crawled"]) == ("over", PAGES)


def test_a_node_is_drained_and_used_again(project: Project, own_nodes: list[ScrapydChild], tmp_path: Path) -> None:
    with site(PAGES, latency=0.5) as child:
        crawl = begin(project, tmp_path, child)
        wait_for(lambda: at_work(own_nodes) == NODES * SLOTS)
        code, said = fleet(project, tmp_path, "drain", "node1", "no-such-node")
        assert code == 0, said
        assert "node1 gets no more batches; 4 jobs at work there, those that wait are taken back" in said
        assert "no node 'no-such-node' in this run, only node1, node2, node3" in said
        wait_for(lambda: not jobs(own_nodes[0], "running") + jobs(own_nodes[0], "pending"))
        had = crawl.stat("distributed/attempts/node1")
        assert had is None  # it goes on
        assert fleet(project, tmp_path, "undrain", "node1")[1].strip().endswith("node1 gets batches again")
        prove(crawl.wait(), child)
    assert fleet(project, tmp_path, "drain", "node1")[0] == 2


def test_what_has_raised_is_tried_again_while_the_crawl_runs(
    project: Project, own_nodes: list[ScrapydChild], tmp_path: Path
) -> None:
    settings = {"DISTRIBUTED_TARGET_HOSTS": "node*", "DISTRIBUTED_BATCH_SIZE": 1}
    with site(1, latency=15) as child:
        args = {"site": child.url, "mended": tmp_path / "mended"}
        crawl = project.crawl("mended", folder=tmp_path, args=args, settings=settings)
        wait_for(lambda: crawl.ledger.exists() and failed(crawl) == 4)
        (tmp_path / "mended").touch()
        words = ("batches", "retry", "--callback", "--reason", "callback *", "--ledger", str(crawl.ledger))
        command = project.scrapy(*words, folder=tmp_path).wait()
        assert command.process.returncode == 0, command.log
        assert "4 requests to be tried again, 0 left out\n    of 4 the callback had begun: " in command.log
        assert "jobs on Scrapyds run egg version " in command.log
        crawl.wait()
    assert "By an operator's wish: 4 requests to be tried again" in crawl.log
    assert crawl.balance() == {"diverted": 5, "crawled": 5}
    assert crawl.stat("distributed/batches") == 9
    assert "Raised: " not in crawl.log  # of what is mended nothing is told
    items = Counter(crawl.item_urls())
    assert sorted(items.values()) == [1, 3, 3, 3, 3]  # what was given before it raised comes once more


def test_the_log_of_a_job_is_followed_until_it_ends(
    project: Project, own_nodes: list[ScrapydChild], tmp_path: Path
) -> None:
    with site(PAGES, latency=0.5) as child:
        crawl = begin(project, tmp_path, child)
        wait_for(lambda: at_work(own_nodes) == NODES * SLOTS)
        command = project.scrapy("batches", "log", "1", "-f", "--ledger", str(crawl.ledger), folder=tmp_path)
        wait_for(lambda: "==> attempt 1 (batch=1) on node" in command.log)
        wait_for(lambda: "Worker of batch 1: 30 requests" in command.log)
        assert "Spider closed" not in command.log
        assert command.wait().process.returncode == 0
        assert command.log.count("Spider closed (finished)") == 1
        prove(crawl.wait(), child)
    shown = project.scrapy("batches", "log", "1", "--ledger", str(crawl.ledger), folder=tmp_path).wait()
    assert shown.process.returncode == 0
    assert shown.log.splitlines()[1:] == command.log.splitlines()[1:]


def failed(crawl: Crawl) -> int:
    with closing(sqlite3.connect(crawl.ledger)) as db:
        return int(db.execute("SELECT count(*) FROM outcome WHERE state = 'failed'").fetchone()[0])

"""A coordinator that dies at every arrow of the journey, and the same command that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from arena import Fleet, Run, limit_files
from crawling import site
from launcher import POINTS
from oracle import no_repetition, nothing_fetched_twice, prove
from places import Backup, FileCopy

SMALL = {"DISTRIBUTED_BATCH_SIZE": 20, "DISTRIBUTED_NODE_BACKLOG": 1}
JOURNEY = [
    "after-divert", "after-cut", "after-bind", "after-post", "after-mark", "after-walked", "before-settle",
    "after-settle", "before-end",
]  # fmt: skip


def test_it_dies_at_one_arrow_after_the_other(struck: Fleet, tmp_path: Path) -> None:
    """``after-bind`` is before the POST and after the ledger row; ``after-post`` before the mark that it was sent."""
    with site(240) as child:
        run = Run(struck, child, tmp_path, properties=240, settings=SMALL)
        for point in JOURNEY:
            run.dies(point)
        prove(run)
    assert len(run.crawls) == len(JOURNEY) + 1


@pytest.mark.chaos
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("point", [point for point in POINTS if not point.endswith(("-end", "-walked"))])
def test_it_dies_at_an_arrow(struck: Fleet, tmp_path: Path, point: str, number: int) -> None:
    with site(120) as child:
        run = Run(struck, child, tmp_path, properties=120, settings=SMALL)
        if point == "during-post":
            for node in struck.nodes[1:]:
                node.stop()
        run.dies(point, number)
        for node in struck.nodes:
            node.go_on()
        prove(run)


@pytest.mark.chaos
@pytest.mark.parametrize("point", ["before-walked", "after-walked", "before-end", "after-end"])
def test_it_dies_where_it_comes_once(struck: Fleet, tmp_path: Path, point: str) -> None:
    with site(120) as child:
        run = Run(struck, child, tmp_path, properties=120, settings=SMALL)
        run.dies(point)
        prove(run)
        no_repetition(run)


@pytest.mark.chaos
def test_it_dies_while_a_post_is_under_way_that_is_carried_out_later(struck: Fleet, tmp_path: Path) -> None:
    """Two nodes are stopped: what was posted to them lies there until they go on, and runs then."""
    with site(120) as child:
        settings = {**SMALL, "DISTRIBUTED_TIMEOUT": 1, "DISTRIBUTED_LEASE": 60}
        run = Run(struck, child, tmp_path, properties=120, settings=settings)
        crawl = run.begin("during-post", 2)
        run.wait_for(lambda: "on 3 nodes" in crawl.log)  # they have answered so far
        for node in struck.nodes[1:]:
            node.stop()
        crawl.wait(30)
        again = run.begin()
        run.wait_for(lambda: "Run " in again.log)
        for node in struck.nodes[1:]:
            node.go_on()
        prove(run, seconds=120)  # what was bound and never posted waits for its lease, and has a second attempt then
        nothing_fetched_twice(run)


@pytest.mark.parametrize("how", ["backup-of-a-live-one", pytest.param("files-of-a-dead-one", marks=pytest.mark.chaos)])
def test_an_older_copy_of_its_ledger_is_put_back(struck: Fleet, tmp_path: Path, how: str) -> None:
    """What was sent after the copy is sent again, and the jobs of that time, whose receipts lie on the nodes, are
    nobody's: batches of the same numbers have other requests this time."""
    with site(240, latency=0.02) as child:
        settings = {"DISTRIBUTED_BATCH_SIZE": 15, "DISTRIBUTED_NODE_BACKLOG": 1}
        run = Run(struck, child, tmp_path, properties=240, spider="leading", settings=settings)
        if how == "backup-of-a-live-one":
            crawl = run.begin()
            run.wait_for(lambda: run.state() is not None)
            copy: Backup | FileCopy = Backup(crawl.ledger)
        else:
            run.dies("before-divert")
            copy = FileCopy(run.crawl.ledger)
            crawl = run.begin()
        run.wait_for(lambda: run.settled() >= 60)
        crawl.end()
        copy.put_back()
        prove(run)
    assert len(run.crawls) > 1


def test_its_disk_is_full_while_it_walks(struck: Fleet, tmp_path: Path) -> None:
    """It closes by itself; the same command goes on when there is room again."""
    with site(900) as child:
        run = Run(struck, child, tmp_path, properties=900, settings={"DISTRIBUTED_BATCH_SIZE": 150})
        crawl = run.begin()
        limit_files(crawl.process.pid, 110_000)  # a ledger without requests has 90 kB
        crawl.wait(60)
        assert "can't be written" in crawl.log, run.describe()
        assert "Exception ignored" not in crawl.log, run.describe()
        prove(run)


@pytest.mark.chaos
def test_its_disk_is_full_while_receipts_come_in(struck: Fleet, tmp_path: Path) -> None:
    """It closes by itself and the same command goes on, or it goes on by itself as soon as there is room."""
    with site(120, latency=0.2) as child:
        run = Run(struck, child, tmp_path, properties=120, settings={"DISTRIBUTED_BATCH_SIZE": 20})
        crawl = run.begin()
        run.wait_for(lambda: child.stats()["properties_served"] > 20)
        limit_files(crawl.process.pid, max(path.stat().st_size for path in tmp_path.iterdir() if path.is_file()))
        run.wait_for(lambda: crawl.process.poll() is not None or "disk" in crawl.log)
        settled = run.settled()
        run.wait_for(lambda: crawl.process.poll() is not None or not run.fleet.workers())
        if crawl.process.poll() is None:
            assert run.settled() == settled, "it has written more than there was room for"
            limit_files(crawl.process.pid)
        prove(run)

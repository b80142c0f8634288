"""How large batches are, and what the coordinator says of it, in real crawls."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from crawling import Crawl, Project, site


def share(crawl: Crawl, name: str) -> float:
    found = re.search(rf"'distributed/{name}_share': ([\d.]+)", crawl.log)
    assert found, crawl.log
    return float(found[1])


def test_an_automatic_size(project: Project, tmp_path: Path) -> None:
    with site(720) as child:
        args = {"site": child.url, "pages": 24}
        crawl = project.crawl("distr", folder=tmp_path, args=args, settings={"DISTRIBUTED_BATCH_SIZE": "auto"}).wait()
        assert crawl.item_urls() == child.property_urls(range(720))
        assert child.stats()["properties_repeated"] == 0
    assert crawl.balance() == {"diverted": 720, "crawled": 720}
    assert project.check(crawl) == 0
    batches = crawl.run()["batches"]
    assert sum(batch["size"] for batch in batches) == 720
    assert max(batch["size"] for batch in batches) <= 720 / 2
    with closing(sqlite3.connect(crawl.ledger)) as ledger:
        told = ledger.execute("SELECT slots, poll FROM told").fetchall()
    assert told == [(2, 0.0)] * 3  # by a job of each node: its launcher starts jobs at once
    assert 0 < share(crawl, "startup") < 1
    assert 0 <= share(crawl, "poll") < 1
    assert 0 <= share(crawl, "tail") < 1
    assert "ERROR" not in crawl.log
    assert crawl.log.count("WARNING: ") == crawl.log.count("WARNING: 3 of 3 nodes: credentials: none needed") == 1


def test_batches_of_five_are_too_small(project: Project, tmp_path: Path) -> None:
    settings = {"DISTRIBUTED_BATCH_SIZE": 5, "DISTRIBUTED_TARGET_HOSTS": "scrapyd1"}
    with site(30) as child:
        crawl = project.crawl("distr", folder=tmp_path, args={"site": child.url, "pages": 1}, settings=settings).wait()
    assert crawl.balance() == {"diverted": 30, "crawled": 30}
    assert share(crawl, "startup") > 0.3
    assert re.search(
        r"Batches are too small: starts and waits of 6 jobs took \d+ s: try DISTRIBUTED_BATCH_SIZE = \d+, or 'auto'\n",
        crawl.log,
    )
    startup, total = (
        float(re.findall(rf"'distributed/workers/distributed/{name}_seconds': ([\d.]+)", crawl.log)[0])
        for name in ("startup", "job")
    )
    assert abs(startup / total - share(crawl, "startup")) < 0.002

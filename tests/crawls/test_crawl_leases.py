"""Requests that kill, block or stall their workers, and targets that workers find: each URL once, and a name for the
rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crawling import Crawl, Project, SiteChild, call, site
from scrapyd_child import ScrapydChild


@pytest.fixture(scope="module")
def forty() -> Iterator[SiteChild]:
    with site(40) as child:
        yield child


def start(project: Project, spider: str, child: SiteChild, folder: Path, **settings: Any) -> Crawl:
    (folder / "marks").mkdir()
    return project.crawl(
        spider,
        folder=folder,
        args={"site": child.url, "count": 40, "trouble": 13, "marks": folder / "marks"},
        settings={"DISTRIBUTED_BATCH_SIZE": 20, **settings},
    )


def running(nodes: list[ScrapydChild]) -> int:
    return sum(call(f"{node.url}/daemonstatus.json")["running"] for node in nodes)


def test_a_poisonous_request_stands_alone_in_the_end(project: Project, forty: SiteChild, tmp_path: Path) -> None:
    # So all that is known of the worker is what it wrote when its first request was sent.
    seldom = json.dumps({"DISTRIBUTED_RECEIPT_INTERVAL": 60})
    crawl = start(project, "poison", forty, tmp_path, DISTRIBUTED_WORKER_SETTINGS=seldom).wait()
    assert crawl.balance() == {"diverted": 40, "crawled": 39, "dead": 1}
    assert project.check(crawl) == 0
    assert crawl.item_urls() == forty.property_urls([n for n in range(40) if n != 13])
    ((dead),) = crawl.run()["outcomes"]
    assert (dead["state"], dead["url"]) == ("dead", *forty.property_urls([13]))
    assert "no receipt: It was at work, and its log tells no cause: killed, or out of memory?" in dead["reason"]
    assert crawl.stat("distributed/batches_halved") == 4  # 20, 10, 5, 2


@pytest.mark.parametrize("spider", ["stuck", "blocked"])
def test_a_worker_that_does_nothing_more_is_replaced_and_ended(
    nodes: list[ScrapydChild], project: Project, forty: SiteChild, tmp_path: Path, spider: str
) -> None:
    """``stuck`` writes receipts that stand still, ``blocked`` writes none any more."""
    crawl = start(project, spider, forty, tmp_path, DISTRIBUTED_STALL=4, DISTRIBUTED_LEASE=10).wait()
    assert crawl.balance() == {"diverted": 40, "crawled": 40}
    assert crawl.item_urls() == forty.property_urls(range(40))
    assert crawl.stat("distributed/attempts") == 3
    assert crawl.stat("distributed/attempts/lost") == 1
    assert ("has done nothing for" in crawl.log) == (spider == "stuck")
    assert running(nodes) == 0, "it was left behind"


def test_targets_that_workers_find_are_crawled_once_over_the_fleet(project: Project, tmp_path: Path) -> None:
    with site(300) as child:
        crawl = project.crawl(
            "deep", folder=tmp_path, args={"site": child.url, "count": 300}, settings={"DISTRIBUTED_BATCH_SIZE": 25}
        ).wait()
        assert child.stats()["properties_repeated"] == 0
    balance = crawl.balance()
    assert (balance["diverted"], balance["crawled"]) == (300, 300)
    assert project.check(crawl) == 0
    assert crawl.item_urls() == child.property_urls(range(300))
    assert max(item["depth"] for item in crawl.items()) == 8
    assert crawl.stat("distributed/found_by_workers") == 299
    assert len({item["batch"] for item in crawl.items()}) == crawl.stat("distributed/attempts")


def test_workers_may_follow_their_targets_themselves(project: Project, tmp_path: Path) -> None:
    with site(100) as child:
        crawl = project.crawl(
            "deep",
            folder=tmp_path,
            args={"site": child.url, "count": 100},
            settings={"DISTRIBUTED_WORKER_TARGETS": "follow"},
        ).wait()
    assert crawl.balance() == {"diverted": 1, "crawled": 1}
    assert crawl.item_urls() == child.property_urls(range(100))

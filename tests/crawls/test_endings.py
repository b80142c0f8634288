"""What ends a crawl early on one machine ends that of the fleet, and nothing goes out again and again."""

from __future__ import annotations

from pathlib import Path

from crawling import Crawl
from homing import Home, items

ALL = 12


def ended(home: Home, spider: str, folder: Path, **settings: object) -> Crawl:
    given = {"DISTRIBUTED_BATCH_SIZE": 3, **settings}
    return home.crawl(spider, "-O", f"{folder}/out.jl", folder=folder, settings=given).wait()


def test_a_number_of_items_is_that_of_the_fleet_and_later_the_rest_is_crawled(home: Home, tmp_path: Path) -> None:
    first = ended(home, "plain_dict", tmp_path, CLOSESPIDER_ITEMCOUNT=2, DISTRIBUTED_TARGET_HOSTS="scrapyd2")
    assert "Spider closed (closespider_itemcount)" in first.log
    assert 2 <= len(items(tmp_path / "out.jl")) < ALL
    assert first.run()["outcomes"] == []
    second = ended(home, "plain_dict", tmp_path)
    assert "Spider closed (finished)" in second.log
    assert sorted(item["number"] for item in items(tmp_path / "out.jl")) == list(range(ALL))


def test_other_limits_are_not_those_of_a_job(home: Home, tmp_path: Path) -> None:
    crawl = ended(home, "plain_dict", tmp_path, CLOSESPIDER_PAGECOUNT=50, DISTRIBUTED_BATCH_SIZE=12)
    assert len(items(tmp_path / "out.jl")) == ALL
    assert crawl.stat("distributed/attempts") == 1


def test_a_spider_that_closes_itself_in_a_job_closes_the_crawl(home: Home, tmp_path: Path) -> None:
    crawl = ended(home, "enough", tmp_path, DISTRIBUTED_TARGET_HOSTS="scrapyd2", DISTRIBUTED_NODE_BACKLOG=1)
    assert "Spider closed (seen enough)" in crawl.log
    assert "The spider has closed itself on" in crawl.log
    assert 3 <= len(items(tmp_path / "out.jl")) < ALL
    assert "the same command takes it up again" in crawl.log

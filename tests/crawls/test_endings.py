"""What ends a crawl early on one machine ends that of the fleet, and nothing goes out again and again."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from crawling import Crawl, Project, wait_for
from homing import Home, items
from shop import ON_A_LIST, Shop

ALL = 12


def ended(home: Home, spider: str, folder: Path, **settings: object) -> Crawl:
    given = {"DISTRIBUTED_BATCH_SIZE": 3, **settings}
    return home.crawl(spider, "-O", f"{folder}/out.jl", folder=folder, settings=given).wait()


def test_a_number_of_items_is_that_of_the_fleet_and_the_same_command_begins_afresh(home: Home, tmp_path: Path) -> None:
    first = ended(home, "plain_dict", tmp_path, CLOSESPIDER_ITEMCOUNT=2, DISTRIBUTED_TARGET_HOSTS="scrapyd2")
    assert "Spider closed (closespider_itemcount)" in first.log
    assert first.process.returncode == 0
    came = len(items(tmp_path / "out.jl"))
    assert 2 <= came < ALL
    stopped = first.run()
    assert (stopped["outcomes"], stopped["stopped"]) == ([], "closespider_itemcount")
    assert stopped["balance"].crawled == came
    assert stopped["balance"].not_crawled == stopped["balance"].diverted - came > 0
    assert f"{stopped['balance'].not_crawled} requests not crawled" in first.log
    second = ended(home, "plain_dict", tmp_path)
    assert "Spider closed (finished)" in second.log
    assert second.run()["name"] != stopped["name"]
    assert sorted(item["number"] for item in items(tmp_path / "out.jl")) == list(range(ALL))


def test_a_run_that_was_stopped_is_good_each_of_its_requests_has_a_name_and_it_can_go_on(
    home: Home, tmp_path: Path
) -> None:
    ledger = f"{tmp_path}/ledger.sqlite"
    ended(home, "plain_dict", tmp_path, CLOSESPIDER_ITEMCOUNT=2, DISTRIBUTED_TARGET_HOSTS="scrapyd2")
    check = home.project.scrapy("batches", "check", "--ledger", ledger, folder=tmp_path).wait()
    assert (check.process.returncode, "stopped: closespider_itemcount" in check.log) == (0, True), check.log
    command = ("batches", "failed", "--state", "not crawled", "--ledger", ledger)
    left = home.project.scrapy(*command, folder=tmp_path).wait().log.splitlines()
    came = {f"{home.shop.url}/p/{item['number']}" for item in items(tmp_path / "out.jl")}
    named = {line.removeprefix("not crawled\tclosespider_itemcount\t") for line in left}
    assert named
    assert not named & came
    retry = home.project.scrapy("batches", "retry", "--ledger", ledger, folder=tmp_path).wait()
    assert f"{len(named)} requests to be tried again" in retry.log
    later = ended(home, "plain_dict", tmp_path)
    assert later.balance() == {"diverted": ALL, "duplicates": ALL, "crawled": ALL}
    assert sorted(item["number"] for item in items(tmp_path / "out.jl")) == list(range(ALL))


def test_jobs_at_work_report_what_they_have_and_those_that_wait_are_taken_back(home: Home, tmp_path: Path) -> None:
    """Two jobs at once; a page of the second is held until the first has brought what is enough."""
    home.shop.hold("/p/5")
    try:
        crawl = home.crawl(
            "plain_dict", "-O", f"{tmp_path}/out.jl", folder=tmp_path,
            settings={"DISTRIBUTED_BATCH_SIZE": 6, "CLOSESPIDER_ITEMCOUNT": 2, "CONCURRENT_REQUESTS": 1},
        )  # fmt: skip
        wait_for(lambda: "its jobs are told to" in crawl.log, 60)
    finally:
        home.shop.release()
    crawl.wait()
    numbers = {item["number"] for item in items(tmp_path / "out.jl")}
    assert 2 <= len(numbers) < ALL
    balance = crawl.run()["balance"]
    assert (balance.queued, balance.in_flight, balance.settled) == (0, 0, True)
    assert balance.crawled == len(numbers)


def test_a_number_of_pages_ends_the_walk_and_what_it_has_found_is_crawled(home: Home, tmp_path: Path) -> None:
    crawl = ended(home, "plain_dict", tmp_path, CLOSESPIDER_PAGECOUNT=1, DISTRIBUTED_BATCH_SIZE=2)
    assert "Spider closed (closespider_pagecount)" in crawl.log
    assert "The crawl on this machine ends (closespider_pagecount)" in crawl.log
    assert crawl.balance() == {"diverted": ON_A_LIST, "crawled": ON_A_LIST}
    assert sorted(item["number"] for item in items(tmp_path / "out.jl")) == list(range(ON_A_LIST))
    run = crawl.run()
    assert (run["ended"] is not None, run["stopped"]) == (True, None)


@pytest.mark.parametrize("limit", ["CLOSESPIDER_PAGECOUNT", "CLOSESPIDER_TIMEOUT"])
def test_ctrl_c_ends_the_waiting_and_what_has_come_home_is_stored(
    home_project: Project, own_shop: Shop, tmp_path: Path, limit: str
) -> None:
    home = Home(home_project, own_shop)
    own_shop.hold("/p/5")
    settings = {"DISTRIBUTED_BATCH_SIZE": 3, limit: 1 if limit == "CLOSESPIDER_PAGECOUNT" else 8}
    crawl = home.crawl("plain_dict", "-O", f"{tmp_path}/out.json", folder=tmp_path, settings=settings)
    wait_for(lambda: "(closespider_" in crawl.log and "Batch 1 from" in crawl.log, 60)
    wait_for(lambda: "accepted" in crawl.log, 60)
    crawl.process.send_signal(signal.SIGINT)
    try:
        crawl.wait(30)
    finally:
        own_shop.release()
    assert "Spider closed (closespider_" in crawl.log
    came = json.loads((tmp_path / "out.json").read_bytes())
    assert {0, 1, 2} <= {item["number"] for item in came} < set(range(ALL))
    run = crawl.run()
    if limit == "CLOSESPIDER_TIMEOUT":
        assert (run["stopped"], run["balance"].settled) == ("closespider_timeout", True)
    else:
        assert (run["stopped"], run["ended"]) == (None, None)
        assert "the same command takes it up again" in crawl.log
        later = home.crawl("plain_dict", "-O", f"{tmp_path}/out.json", folder=tmp_path).wait()
        assert later.run()["name"] == run["name"]
        found = json.loads((tmp_path / "out.json").read_bytes())
        assert sorted(item["number"] for item in found) == list(range(ON_A_LIST))


def test_other_limits_are_not_those_of_a_job(home: Home, tmp_path: Path) -> None:
    crawl = ended(home, "plain_dict", tmp_path, CLOSESPIDER_PAGECOUNT=50, DISTRIBUTED_BATCH_SIZE=12)
    assert len(items(tmp_path / "out.jl")) == ALL
    assert crawl.stat("distributed/attempts") == 1


def test_a_spider_that_closes_itself_in_a_job_closes_the_crawl(home: Home, tmp_path: Path) -> None:
    crawl = ended(home, "enough", tmp_path, DISTRIBUTED_TARGET_HOSTS="scrapyd2", DISTRIBUTED_NODE_BACKLOG=1)
    assert "Spider closed (seen enough)" in crawl.log
    assert "The spider has closed itself on" in crawl.log
    assert 3 <= len(items(tmp_path / "out.jl")) < ALL
    assert crawl.run()["stopped"] == "seen enough"
    assert crawl.run()["ended"] is not None


def test_items_of_a_job_that_closes_itself_in_the_middle_are_in_its_feed_and_count(home: Home, tmp_path: Path) -> None:
    """As nothing goes out again, none of them comes twice."""
    feed = f"file://{tmp_path}/%(batch)s_%(time)s.jl"
    settings = {
        "DISTRIBUTED_BATCH_SIZE": 6, "DISTRIBUTED_TARGET_HOSTS": "scrapyd2", "DISTRIBUTED_TARGET_FEED_URL": feed,
        "CONCURRENT_REQUESTS": 1,
    }  # fmt: skip
    crawl = home.crawl("enough_below", folder=tmp_path, settings=settings).wait()
    assert "Spider closed (seen enough)" in crawl.log
    assert crawl.stat("distributed/attempts/rejected") is None, crawl.log
    assert crawl.run()["stopped"] == "seen enough"
    assert len([item for item in crawl.items() if "number" in item]) >= 3


def test_errors_of_callbacks_on_workers_end_the_crawl(home: Home, tmp_path: Path) -> None:
    crawl = ended(
        home, "broken", tmp_path, CLOSESPIDER_ERRORCOUNT=2, DISTRIBUTED_TARGET_HOSTS="scrapyd2", CONCURRENT_REQUESTS=1
    )
    assert "Spider closed (closespider_errorcount)" in crawl.log
    assert crawl.run()["stopped"] == "closespider_errorcount"
    balance = crawl.run()["balance"]
    assert balance.failed >= 2
    assert balance.not_crawled > 0

"""``scrapy batches`` and ``scrapy monitor`` on a shared run of real processes, while it goes on and afterwards."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from crawling import Crawl, Project, wait_for
from homing import Home, content, items
from joined_crawls import batches, join
from shop import PRODUCTS, Shop
from valkey_child import ValkeyChild

EACH_ONCE = Counter(str(number) for number in range(PRODUCTS))


@pytest.fixture
def worker(here: Home, queue: ValkeyChild, tmp_path: Path) -> Crawl:
    return join(here, queue, tmp_path, "--slots", "2")


def start(here: Home, queue: ValkeyChild, folder: Path, **settings: Any) -> Crawl:
    given = {"DISTRIBUTED_TARGET_HOSTS": queue.url, "RETRY_ENABLED": False, **settings}
    return here.crawl("plain_dict", "-O", str(folder / "out.jl"), folder=folder, settings=given)


def products(file: Path) -> Counter[str]:
    return Counter(str(item["number"]) for item in items(file))


def test_what_failed_is_crawled_when_it_is_tried_again(
    here: Home, queue: ValkeyChild, worker: Crawl, tmp_path: Path
) -> None:
    here.shop.hold("/p/1")
    crawl = start(here, queue, tmp_path, DOWNLOAD_TIMEOUT=1).wait()
    assert crawl.process.returncode == 0, crawl.log
    missing = sum(number.startswith("1") for number in EACH_ONCE)
    assert products(tmp_path / "out.jl").total() == PRODUCTS - missing
    assert batches(here, queue, tmp_path, "check").process.returncode == 0
    assert len(batches(here, queue, tmp_path, "failed").log.splitlines()) == missing
    here.shop.release()
    said = batches(here, queue, tmp_path, "retry", "--json")
    assert json.loads(said.log)["again"] == missing, said.log
    wait_for(lambda: '"queued": 0, "in_flight": 0' in batches(here, queue, tmp_path, "check", "--json").log)
    assert batches(here, queue, tmp_path, "check").process.returncode == 1, "the result is still to be stored"
    crawl = start(here, queue, tmp_path, DOWNLOAD_TIMEOUT=1).wait()
    assert crawl.process.returncode == 0, crawl.log
    assert "taken up again" in crawl.log
    assert products(tmp_path / "out.jl") == EACH_ONCE
    checked = batches(here, queue, tmp_path, "check")
    assert checked.process.returncode == 0, checked.log
    said = batches(here, queue, tmp_path, "export", "-O", str(tmp_path / "export.jl"))
    assert said.process.returncode == 0, said.log
    assert products(tmp_path / "export.jl") == EACH_ONCE
    (run,) = json.loads(batches(here, queue, tmp_path, "list", "--json").log)["runs"]
    assert batches(here, queue, tmp_path, "forget", run["name"]).process.returncode == 0
    assert "found no run of project" in batches(here, queue, tmp_path, "list").log


def test_the_feeds_of_workers_are_merged_with_what_was_scraped_here(
    queue: ValkeyChild, own_shop: Shop, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = Project(tmp_path_factory.mktemp("merged"), {}, settings="trial.home_settings", name="home")
    here = Home(project, own_shop)
    feed = f"file://{tmp_path}/items/%(batch)s.jl"
    try:
        with (project.folder / "trial" / "home_settings.py").open("a") as settings:
            settings.write(f"DISTRIBUTED_TARGET_FEED_URL = {feed!r}\n")
        project.scrapy("worker", queue.url, "--logs", str(tmp_path / "jobs"), folder=tmp_path)
        given = {"DISTRIBUTED_TARGET_HOSTS": queue.url, "DISTRIBUTED_TARGET_FEED_URL": feed}
        crawl = here.crawl("here", folder=tmp_path, settings=given).wait()
        assert crawl.process.returncode == 0, crawl.log
        said = batches(here, queue, tmp_path, "merge", "-O", str(tmp_path / "merged.jl"))
        assert said.process.returncode == 0, said.log
        alone = here.crawl(
            "here", "-O", str(tmp_path / "alone.jl"), folder=tmp_path / "alone", settings={"DISTRIBUTED_ENABLED": False}
        ).wait()
        assert alone.process.returncode == 0, alone.log
    finally:
        project.end()
    assert content(tmp_path / "merged.jl") == content(tmp_path / "alone.jl")


def test_a_run_that_is_cancelled_ends_and_goes_on_with_the_rest(
    here: Home, queue: ValkeyChild, worker: Crawl, tmp_path: Path
) -> None:
    here.shop.hold("/p/")
    crawl = start(here, queue, tmp_path)
    wait_for(lambda: any(path.startswith("/p/") for path in here.shop.visits))
    shown = here.project.scrapy(
        "monitor", "--once", "-s", f"DISTRIBUTED_TARGET_HOSTS={queue.url}", folder=tmp_path
    ).wait()
    assert shown.process.returncode == 0, shown.log
    assert "slots at work, code" in shown.log
    assert "crawl plain_dict: 0 of " in shown.log
    assert "paused" in batches(here, queue, tmp_path, "pause").log
    assert "resumed" in batches(here, queue, tmp_path, "resume").log
    said = batches(here, queue, tmp_path, "cancel")
    assert said.process.returncode == 0, said.log
    here.shop.release()
    crawl.wait()
    assert "cancelled" in crawl.log
    left = [line for line in batches(here, queue, tmp_path, "failed").log.splitlines() if "not crawled" in line]
    assert left
    said = batches(here, queue, tmp_path, "retry", "--state", "not crawled")
    assert said.process.returncode == 0, said.log
    crawl = start(here, queue, tmp_path).wait()
    assert crawl.process.returncode == 0, crawl.log
    assert products(tmp_path / "out.jl").keys() == EACH_ONCE.keys()
    checked = batches(here, queue, tmp_path, "check")
    assert checked.process.returncode == 0, checked.log

"""A site that stands still for a while: what is lost by that has a name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from arena import Fleet, Run, slowness
from crawling import SiteChild, site
from oracle import prove

LONG = pytest.mark.chaos
SMALL = {"DISTRIBUTED_BATCH_SIZE": 20}
# Pages of the walk one after the other, so that it is under way for a while.
SLOW_WALK = {"CONCURRENT_REQUESTS": 1}
IMPATIENT = {"DOWNLOAD_TIMEOUT": 1, "RETRY_TIMES": 1}


# What the log has when a page of the walk has failed with all of Scrapy's own tries.
FAILED = ("it is tried again in", "Gave up retrying", "Error downloading")
NEVER_AGAIN = {"DISTRIBUTED_RETRY_FAILED": ""}


@contextmanager
def standing_still(child: SiteChild) -> Iterator[None]:
    child.stand_still()
    try:
        yield
    finally:
        child.go_on()


def indexes(child: SiteChild) -> int:
    return int(child.stats()["requests"].get("index", 0))


@pytest.mark.parametrize("spider", ["distr", pytest.param("shop", marks=LONG)])
def test_it_stands_still_during_the_walk_and_a_page_is_tried_again(struck: Fleet, tmp_path: Path, spider: str) -> None:
    """For longer than Scrapy tries, and for less than the pauses of those who wait."""
    with site(300, latency=0.1) as child:
        settings = {**SMALL, **SLOW_WALK, **IMPATIENT}
        run = Run(struck, child, tmp_path, properties=300, spider=spider, settings=settings)
        crawl = run.begin()
        run.wait_for(lambda: indexes(child) > 2)
        with standing_still(child):
            run.wait_for(lambda: any(words in crawl.log for words in FAILED))
        prove(run)
        assert len(run.crawls) == 1


@LONG
@pytest.mark.parametrize("spider", ["distr", pytest.param("shop", marks=LONG)])
def test_it_stands_still_during_the_walk_and_pages_are_lost(struck: Fleet, tmp_path: Path, spider: str) -> None:
    """With all that they would have led to: `check` says so."""
    with site(300, latency=0.1) as child:
        settings = {**SMALL, **SLOW_WALK, **IMPATIENT, **NEVER_AGAIN}
        run = Run(struck, child, tmp_path, properties=300, spider=spider, settings=settings)
        crawl = run.begin()
        run.wait_for(lambda: indexes(child) > 2)
        with standing_still(child):
            run.wait_for(lambda: any(words in crawl.log for words in FAILED))
        prove(run, stood_still=True)
        assert len(run.crawls) == 1


@LONG
def test_it_stands_still_for_longer_than_anybody_tries(struck: Fleet, tmp_path: Path) -> None:
    """With the tries and pauses of everybody: walk and workers stand before a wall until there is nothing to try."""
    with site(300, latency=0.1) as child:
        settings = {**SMALL, **SLOW_WALK, **IMPATIENT}
        run = Run(struck, child, tmp_path, properties=300, settings=settings, workers=IMPATIENT)
        run.begin()
        run.wait_for(lambda: indexes(child) > 2)
        with standing_still(child):
            run.finish(240)
        prove(run, stood_still=True)
        assert run.crawl.balance().get("crawled", 0) < 300


@pytest.mark.parametrize("spider", ["distr", "leading", pytest.param("shop", marks=LONG)])
def test_it_stands_still_while_workers_are_at_work(struck: Fleet, tmp_path: Path, spider: str) -> None:
    """Targets that are lost are failed, and pages that they lead to are counted."""
    with site(120, latency=0.05) as child:
        seconds = round(slowness())
        workers = {"DOWNLOAD_TIMEOUT": seconds, "RETRY_TIMES": 0, "CONCURRENT_REQUESTS": 4}
        run = Run(struck, child, tmp_path, properties=120, spider=spider, settings=SMALL, workers=workers)
        run.begin()
        run.wait_for(lambda: child.stats()["properties_served"] > 30)
        with standing_still(child):
            time.sleep(3 * seconds)
        prove(run, stood_still=True)

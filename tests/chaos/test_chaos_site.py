"""A site that stands still for a while: what is lost by that has a name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from arena import Fleet, Run, slowness, wait_for
from crawling import SiteChild, site
from oracle import prove

LONG = pytest.mark.chaos
SMALL = {"DISTRIBUTED_BATCH_SIZE": 20}
# Pages of the walk one after the other, so that it is under way for a while.
SLOW_WALK = {"CONCURRENT_REQUESTS": 1}
IMPATIENT = {"DOWNLOAD_TIMEOUT": 1, "RETRY_TIMES": 1}


@contextmanager
def standing_still(child: SiteChild, seconds: float) -> Iterator[None]:
    child.stand_still()
    began = time.monotonic()
    try:
        yield
        time.sleep(max(0.0, began + seconds - time.monotonic()))
    finally:
        child.go_on()


def indexes(child: SiteChild) -> int:
    return int(child.stats()["requests"].get("index", 0))


def test_it_stands_still_during_the_walk_for_longer_than_anybody_tries(struck: Fleet, tmp_path: Path) -> None:
    """Pages of the coordinator are lost, with all that they would have led to: `check` says so."""
    with site(600, latency=0.1) as child:
        settings = {**SMALL, **SLOW_WALK, **IMPATIENT}
        run = Run(struck, child, tmp_path, properties=600, settings=settings)
        run.begin()
        wait_for(lambda: indexes(child) > 4)
        with standing_still(child, 0):
            wait_for(lambda: "ERROR: Gave up retrying" in run.crawl.log or "Error downloading" in run.crawl.log, 60)
        prove(run, stood_still=True)
        assert len(run.crawls) == 1


@pytest.mark.parametrize("spider", ["distr", pytest.param("shop", marks=LONG)])
def test_it_stands_still_during_the_walk_for_less_than_the_pauses(struck: Fleet, tmp_path: Path, spider: str) -> None:
    """As long as a request lasts with its retries: nothing is lost where failed pages are tried again later."""
    with site(300, latency=0.1) as child:
        settings = {**SMALL, **SLOW_WALK, **IMPATIENT}
        run = Run(struck, child, tmp_path, properties=300, spider=spider, settings=settings)
        run.begin()
        wait_for(lambda: indexes(child) > 2)
        with standing_still(child, 3):
            pass
        prove(run)


@pytest.mark.parametrize("spider", ["distr", "leading", pytest.param("shop", marks=LONG)])
def test_it_stands_still_while_workers_are_at_work(struck: Fleet, tmp_path: Path, spider: str) -> None:
    """Targets that are lost are failed, and pages that they lead to are counted."""
    with site(120, latency=0.05) as child:
        workers = {**IMPATIENT, "DOWNLOAD_TIMEOUT": round(slowness()), "CONCURRENT_REQUESTS": 4}
        run = Run(struck, child, tmp_path, properties=120, spider=spider, settings=SMALL, workers=workers)
        run.begin()
        wait_for(lambda: child.stats()["properties_served"] > 30)
        with standing_still(child, 6 * round(slowness())):
            pass
        prove(run, stood_still=True)

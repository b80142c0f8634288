"""Items that come home through random faults, deaths at every arrow of their way, full disks and feeds that fail.

Storms are repeated by their seeds, as those of ``test_chaos_random.py`` are, and so are their rules; the site always
answers here. So what is in the coordinator's file in the end, behind the lines that it may have had before, is what a
local crawl in peace writes, up to the order of the lines.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from arena import Fleet, Run
from crawling import SiteChild, site
from launcher import FEED_FULL, SPOOL_FULL
from oracle import no_repetition, prove
from storm import Storm

SHORT_SEED = 317
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEED", "").split(",") if seed] or list(range(1, 16))
SECONDS = 120
BATCH_PAGES = 50
SMALL = {"DISTRIBUTED_BATCH_SIZE": 20, "DISTRIBUTED_NODE_BACKLOG": 1}
WORKERS = {"CONCURRENT_REQUESTS": 4}
# Spiders, and how many pages each has for a property.
SPIDERS = {"distr": 1, "shop": 4, "rules": 1, "leading": 4}
STILL = ("site-stands-still",)  # then the site itself has lost items
WAYS = ("-O", "-o")


def storm(struck: Fleet, folder: Path, seed: int, *, pages: int, strikes: int, pause: float) -> tuple[Run, Storm]:
    """The spiders take turns, and for each of them so do the two ways to write the file."""
    spider = list(SPIDERS)[seed // 2 % 4]
    properties = pages // SPIDERS[spider]
    settings = {"DISTRIBUTED_BATCH_SIZE": BATCH_PAGES // SPIDERS[spider], "DISTRIBUTED_FLEET_TIMEOUT": 15}
    folder.mkdir()
    with site(properties, latency=0.02) as child:
        run = Run(
            struck, child, folder, properties=properties, spider=spider, settings=settings, workers=WORKERS,
            home=WAYS[seed % 2],
        )  # fmt: skip
        blowing = Storm(run, seed, strikes=strikes, pause=pause, without=STILL)
        print(blowing.describe())
        blowing.blow(SECONDS)
        prove(run)
        return run, blowing


def figure(seed: int, run: Run, blowing: Storm) -> str:
    return (
        f"at home, seed {seed:2}: {run.spider:7} {run.home}: {run.seconds:5.1f} s, {sum(blowing.hits.values())} faults,"
        f" {run.attempts()} attempts, {len(run.crawls)} coordinators"
    )


def test_a_short_storm(struck: Fleet, tmp_path: Path, figures: list[str]) -> None:
    run, blowing = storm(struck, tmp_path / "storm", SHORT_SEED, pages=300, strikes=6, pause=0.7)
    figures.append(figure(SHORT_SEED, run, blowing))


@pytest.mark.chaos
@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm(struck: Fleet, tmp_path: Path, figures: list[str], seed: int) -> None:
    run, blowing = storm(struck, tmp_path / "storm", seed, pages=800, strikes=12, pause=1.0)
    figures.append(figure(seed, run, blowing) + f" {dict(sorted(blowing.hits.items()))}")


INTO_THE_SPOOL = [("before-fetch", 1), ("after-fetch", 1), ("after-keep", 1), ("after-settle", 1)]
INTO_THE_FILE = [
    ("before-export", 25),
    ("after-export", 30),
    ("before-close", 1),
    ("after-close", 1),
    ("before-end", 1),
]


@pytest.mark.parametrize(
    ("home", "arrows"),
    [
        pytest.param("-o", INTO_THE_SPOOL + INTO_THE_FILE, id="appends", marks=pytest.mark.chaos),
        pytest.param("-O", [("after-export", 30), ("after-close", 1)], id="writes"),
        pytest.param("-O", INTO_THE_SPOOL + INTO_THE_FILE, id="writes-all", marks=pytest.mark.chaos),
    ],
)
def test_the_coordinator_dies_at_one_arrow_of_the_way_home_after_the_other(
    struck: Fleet, tmp_path: Path, home: str, arrows: list[tuple[str, int]]
) -> None:
    """Whatever it has written into the file by then is not there twice in the end."""
    with site(100) as child:
        run = Run(struck, child, tmp_path, properties=100, spider="shop", settings=SMALL, home=home)
        for point, number in arrows:
            run.dies(point, number)
        prove(run)
    assert len(run.crawls) == len(arrows) + 1


@pytest.mark.chaos
def test_the_disk_of_the_spool_is_full_while_receipts_come(struck: Fleet, tmp_path: Path) -> None:
    """What workers have done waits on their nodes: nothing is blamed, nothing is done again."""
    with site(120) as child:
        run = Run(struck, child, tmp_path, properties=120, settings=SMALL, home="-O")
        run.switch(SPOOL_FULL, on=True)
        crawl = run.begin()
        run.wait_for(lambda: "Items can't be kept here" in crawl.log)
        run.wait_for(lambda: served(child) == 120 and not struck.workers())
        assert run.settled() == 0, run.describe()
        run.switch(SPOOL_FULL, on=False)
        prove(run)
        no_repetition(run)
    assert len(run.crawls) == 1
    assert "rejected" not in crawl.log
    assert "no batches until" not in crawl.log


@pytest.mark.chaos
@pytest.mark.parametrize("home", ["-o", pytest.param("-O", marks=pytest.mark.chaos)])
def test_the_feed_fails_in_the_middle(struck: Fleet, tmp_path: Path, home: str) -> None:
    """All comes home, but the run is not over: the same command writes the file, and asks the site for nothing."""
    with site(120, latency=0.02) as child:
        run = Run(struck, child, tmp_path, properties=120, settings=SMALL, home=home)
        crawl = run.begin()
        run.wait_for(lambda: run.settled() >= 20)
        run.switch(FEED_FULL, on=True)
        crawl.wait()
        state = run.state()
        assert state is not None
        assert (crawl.process.returncode, state["ended"], state["balance"].settled) == (1, None, True), run.describe()
        assert "not finished" in crawl.log, run.describe()
        asked = child.stats()
        run.switch(FEED_FULL, on=False)
        prove(run)
        assert child.stats() == asked
    assert len(run.crawls) == 2


def served(child: SiteChild) -> int:
    return int(child.stats()["properties_served"])


@pytest.mark.chaos
def test_the_disk_of_the_spool_is_full_while_it_walks(struck: Fleet, tmp_path: Path) -> None:
    """Its own items are in its file alone, then. Interrupted before all is over, it has to walk again. There is more to
    do than what waits on its nodes when there is room again."""
    with site(300, latency=0.1) as child:
        run = Run(struck, child, tmp_path, properties=300, spider="shop", settings=SMALL, home="-O", workers=WORKERS)
        run.switch(SPOOL_FULL, on=True)
        crawl = run.begin()
        run.wait_for(lambda: "can't be kept for a later command" in crawl.log)
        run.wait_for(lambda: "Items can't be kept here" in crawl.log)
        run.switch(SPOOL_FULL, on=False)
        run.wait_for(lambda: run.settled() >= 20)
        crawl.process.send_signal(signal.SIGINT)
        crawl.wait()
        assert not run.over
        prove(run)
    assert len(run.crawls) == 2

"""Workers on the coordinator's own machine: they, the process that forks them, and the coordinator are struck.

Storms are repeated by their seeds, as those of ``test_chaos_random.py`` are, and so are their rules. In the end the
coordinator's file has what a local crawl writes, and no process and no temporary file is left.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from arena import TIMES, Fleet, Run, fleet, slowness, strike, wait_for
from crawling import SiteChild, site
from oracle import no_repetition, prove
from storm import Storm

LONG = pytest.mark.chaos
SHORT_SEED = 62
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEED", "").split(",") if seed] or list(range(1, 21))
SECONDS = 120
BATCH_PAGES = 50
SMALL = {"DISTRIBUTED_BATCH_SIZE": 20}
WORKERS = {"CONCURRENT_REQUESTS": 4}
SPIDERS = {"distr": 1, "shop": 4, "rules": 1, "leading": 4}  # and how many pages each has for a property
STILL = ("site-stands-still",)  # then the site itself has lost items
WAYS = ("-O", "-o")


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """No Scrapyd."""
    with fleet(tmp_path_factory.mktemp("local"), count=0) as nodes:
        yield nodes


@contextmanager
def run_of(
    nodes: Fleet, child: SiteChild, folder: Path, properties: int, *, hosts: Sequence[str] = ("local:2",), **given: Any
) -> Iterator[Run]:
    run = Run(nodes, child, folder, properties=properties, hosts=hosts, **{"workers": WORKERS, "home": "-O", **given})
    try:
        yield run
    finally:
        nodes.project.end()
        run.mend()  # else what is stopped would stay


def storm(nodes: Fleet, folder: Path, seed: int, *, pages: int, strikes: int, pause: float) -> tuple[Run, Storm]:
    spider = list(SPIDERS)[seed // 2 % 4]
    properties = pages // SPIDERS[spider]
    settings = {"DISTRIBUTED_BATCH_SIZE": BATCH_PAGES // SPIDERS[spider], "DISTRIBUTED_FLEET_TIMEOUT": 15}
    folder.mkdir()
    with (
        site(properties, latency=0.02) as child,
        run_of(nodes, child, folder, properties, spider=spider, settings=settings, home=WAYS[seed % 2]) as run,
    ):
        blowing = Storm(run, seed, strikes=strikes, pause=pause, without=STILL)
        print(blowing.describe())
        blowing.blow(SECONDS)
        prove(run)
        return run, blowing


def figure(seed: int, run: Run, blowing: Storm) -> str:
    return (
        f"local, seed {seed:2}: {run.spider:7} {run.home}: {run.seconds:5.1f} s, {sum(blowing.hits.values())} faults,"
        f" {run.attempts()} attempts, {len(run.crawls)} coordinators {dict(sorted(blowing.hits.items()))}"
    )


def test_a_short_storm(nobody: Fleet, tmp_path: Path, figures: list[str]) -> None:
    run, blowing = storm(nobody, tmp_path / "storm", SHORT_SEED, pages=240, strikes=5, pause=0.7)
    figures.append(figure(SHORT_SEED, run, blowing))


@LONG
@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm(nobody: Fleet, tmp_path: Path, figures: list[str], seed: int) -> None:
    run, blowing = storm(nobody, tmp_path / "storm", seed, pages=800, strikes=12, pause=1.0)
    figures.append(figure(seed, run, blowing))


@LONG
@pytest.mark.parametrize("seed", SEEDS[:4])
def test_a_storm_over_nodes_as_well(struck: Fleet, tmp_path: Path, figures: list[str], seed: int) -> None:
    run, blowing = storm(struck, tmp_path / "storm", seed, pages=800, strikes=16, pause=0.8)
    assert "local:2" in run.hosts
    assert len(run.hosts) == 4
    figures.append(figure(seed, run, blowing))


TO_WORKERS = [("after-fork", 1), ("during-post", 2)]
AND_HOME = [
    ("before-fork", 1),
    *TO_WORKERS,
    ("after-post", 1),
    ("after-mark", 1),
    ("before-fetch", 1),
    ("after-fetch", 1),
    ("after-keep", 1),
    ("after-settle", 1),
    ("after-export", 30),
    ("before-close", 1),
    ("before-end", 1),
]


@pytest.mark.parametrize("arrows", [TO_WORKERS, pytest.param(AND_HOME, marks=LONG)], ids=["to-workers", "and-home"])
def test_the_coordinator_dies_at_one_arrow_after_the_other(
    nobody: Fleet, tmp_path: Path, arrows: list[tuple[str, int]]
) -> None:
    with site(100) as child, run_of(nobody, child, tmp_path, 100, spider="shop", settings=SMALL) as run:
        for point, number in arrows:
            run.dies(point, number)
        prove(run)
    assert len(run.crawls) == len(arrows) + 1


@LONG
def test_a_coordinator_that_is_stopped_is_not_dead(nobody: Fleet, tmp_path: Path) -> None:
    """For longer than a lease: its workers do what they have, and none of it is done again."""
    with site(120, latency=0.1) as child, run_of(nobody, child, tmp_path, 120, settings=SMALL) as run:
        crawl = run.begin()
        run.wait_for(lambda: child.stats()["properties_served"] > 4)
        strike(crawl.process.pid, signal.SIGSTOP)
        time.sleep((TIMES["DISTRIBUTED_LEASE"] + 1) * slowness())
        strike(crawl.process.pid, signal.SIGCONT)
        prove(run)
        no_repetition(run)
    assert len(run.crawls) == 1
    assert "no sign of life" not in crawl.log


@LONG
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_an_orphan_wakes_up_when_the_next_coordinator_has_taken_over(
    nobody: Fleet, tmp_path: Path, number: int
) -> None:
    """The terminal is closed, or the coordinator killed. What the orphan had has gone out again by then."""
    with site(120, latency=0.1) as child, run_of(nobody, child, tmp_path, 120, settings=SMALL) as run:
        crawl = run.begin()
        run.wait_for(lambda: child.stats()["properties_served"] > 4)
        asleep = run.workers_here()[0]
        strike(asleep, signal.SIGSTOP)
        os.killpg(crawl.process.pid, number)
        crawl.wait()
        wait_for(lambda: run.here() == [asleep], 10)
        again = run.begin()
        run.wait_for(lambda: "no sign of life" in again.log)
        strike(asleep, signal.SIGCONT)
        prove(run)
    assert len(run.crawls) == 2


@LONG
def test_ctrl_c_while_a_worker_and_the_warm_process_sleep(nobody: Fleet, tmp_path: Path) -> None:
    """They are not waited for beyond a lease, and nothing is left of them."""
    with site(120, latency=0.1) as child, run_of(nobody, child, tmp_path, 120, settings=SMALL) as run:
        crawl = run.begin()
        run.wait_for(lambda: child.stats()["properties_served"] > 4)
        for pid in (run.workers_here()[0], *run.warm()):
            strike(pid, signal.SIGSTOP)
        strike(crawl.process.pid, signal.SIGINT)
        crawl.wait()
        assert not run.here(), run.describe()
        assert crawl.process.returncode == 1  # the run is not over
        assert 0 < run.settled() < 120
        prove(run)
    assert len(run.crawls) == 2

"""Random faults of every kind upon shared runs: workers, their jobs, the server between them, and coordinators.

Storms are repeated by their seeds: ``CHAOS_SEED=17,18 pytest tests/chaos/test_shared_storms.py -m chaos``. The seed
decides which faults come, when, whom they strike and for how long; real processes answer them in their own time, so two
runs of one seed are alike and not the same.

What is legitimate here: a batch may be crawled several times, and the coordinator may give up at any time: the same
command goes on. In the end the file has the items of a local crawl, the balance has held at every look, and nothing is
left on the server or among the processes. Of every fifth seed the result is a stream, and the commands are given in two
folders in turn: the stream has these items, none missing, none twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from crawling import Project, site
from shared_arena import joined_place
from shared_storm import SharedStorm
from valkey_child import valkey

SHORT_SEEDS = (3, 4, 8, 13)
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEED", "").split(",") if seed] or list(range(1, 31))
SECONDS = 240
PAGES, SHORT_PAGES = 300, 160
LATENCY = 0.08  # seconds: workers wait for the site most of the time
SPIDERS = {"distr": 1, "leading": 4, "shop": 4, "rules": 1}  # and how many pages each has for a property
WORKERS = 2


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("shared"), {}, settings="trial.chaos_settings")
    yield project
    project.end()


def storm(
    project: Project, folder: Path, seed: int, *, pages: int, strikes: int, pause: float, away: float
) -> str:  # fmt: skip
    spider = list(SPIDERS)[seed // 2 % 4]
    properties = pages // SPIDERS[spider]
    sync = ("everysec", "always")[seed % 2]
    settings = {"DISTRIBUTED_RESULTS": "redis"} if seed % 5 == 4 else {}
    with (
        site(properties, latency=LATENCY) as child,
        valkey(appendonly="yes", appendfsync=sync) as queue,
        joined_place(project, child, queue, folder, properties=properties, settings=settings) as place,
    ):
        blowing = SharedStorm(place, seed, spider=spider, strikes=strikes, pause=pause, away=away)
        print(blowing.describe())
        blowing.blow(SECONDS, workers=WORKERS)
        blowing.prove()
        return blowing.figure()


def test_in_peace_nothing_is_done_twice(project: Project, tmp_path: Path) -> None:
    with (
        site(SHORT_PAGES) as child,
        valkey() as queue,
        joined_place(project, child, queue, tmp_path, properties=SHORT_PAGES) as place,
    ):
        for _ in range(WORKERS):
            place.join()
        run = place.begin("first", spider="distr")
        place.finish(SECONDS)
        assert len(run.crawls) == 1
        assert child.stats()["properties_repeated"] == 0, place.describe()
        place.prove()


@pytest.mark.parametrize("seed", SHORT_SEEDS)
def test_a_short_storm(project: Project, tmp_path: Path, figures: list[str], seed: int) -> None:
    figures.append(storm(project, tmp_path, seed, pages=SHORT_PAGES, strikes=6, pause=0.8, away=2))


@pytest.mark.chaos
@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm(project: Project, tmp_path: Path, figures: list[str], seed: int) -> None:
    figures.append(storm(project, tmp_path, seed, pages=PAGES, strikes=12, pause=1.0, away=10))

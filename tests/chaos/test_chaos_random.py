"""Random faults of every kind upon one crawl.

Storms are repeated by their seeds: ``CHAOS_SEED=17,18 pytest tests/chaos/test_chaos_random.py -m chaos``.
The seed decides which faults come, when, whom they strike and for how long; real processes answer them in their own
time, so two runs of one seed are alike and not the same.

What is legitimate here: a batch may be crawled several times, and its worker may die as often as
``DISTRIBUTED_MAX_ATTEMPTS`` allows, which is set so high that no request may end as dead. Its parts may be sent as
batches of their own. The coordinator may die or give up at any time, and the same command goes on. What the site does
not answer while it stands still may be missing where the run names it. Nothing else is.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from arena import Fleet, Run
from crawling import site
from ftp_child import ftp_server
from oracle import no_repetition, prove
from storm import Storm

SHORT_SEED = 7
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEED", "").split(",") if seed] or list(range(1, 31))
PROPERTIES = 2000
SECONDS = 180
BATCH_PAGES = 100
SETTINGS = {"DISTRIBUTED_BATCH_SIZE": BATCH_PAGES, "DISTRIBUTED_FLEET_TIMEOUT": 15}
# A site that stands still is noticed, and has gone on before a request has been tried for the last time.
PATIENCE = {"DOWNLOAD_TIMEOUT": 5, "RETRY_TIMES": 2}
WORKERS = {"CONCURRENT_REQUESTS": 4}
# Spiders, and how many pages each has for a property: details have to be fetched, too.
SPIDERS = {"distr": 1, "rules": 1, "shop": 4, "leading": 4}


def weather(seed: int) -> tuple[str, str]:
    """Spider and scheme of a storm: twelve in a row have each pair of them."""
    return list(SPIDERS)[seed % 4], ("upload", "file", "ftp")[seed % 3]


def storm(
    struck: Fleet, folder: Path, seed: int, *, properties: int, strikes: int, seconds: float, pause: float
) -> tuple[Run, Storm]:
    spider, scheme = weather(seed)
    properties //= SPIDERS[spider]
    settings = SETTINGS | PATIENCE | {"DISTRIBUTED_BATCH_SIZE": BATCH_PAGES // SPIDERS[spider]}
    (folder / "ftp").mkdir(parents=True)
    with site(properties, latency=0.02) as child, ftp_server(folder / "ftp") as ftp:
        run = Run(
            struck, child, folder, properties=properties, spider=spider, scheme=scheme,
            ftp=ftp if scheme == "ftp" else None, settings=settings, workers=WORKERS | PATIENCE,
        )  # fmt: skip
        blowing = Storm(run, seed, strikes=strikes, pause=pause)
        print(blowing.describe())
        blowing.blow(seconds)
        prove(run, stood_still=True)
        return run, blowing


def test_a_short_storm(struck: Fleet, tmp_path: Path, figures: list[str]) -> None:
    folder = tmp_path / "storm"
    run, blowing = storm(struck, folder, SHORT_SEED, properties=500, strikes=8, seconds=90, pause=0.8)
    figures.append(f"seed {SHORT_SEED}: {run.seconds:.1f} s, {run.attempts()} attempts, {dict(blowing.hits)}")


class Tally:
    """What the storms of this session have done."""

    def __init__(self) -> None:
        self.peace = 0.0
        self.hits: Counter[str] = Counter()
        self.rows: list[tuple[int, float, int, int, int]] = []  # seed, seconds, strikes, attempts, coordinators


@pytest.fixture(scope="module")
def tally(shared_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory, figures: list[str]) -> Tally:
    """With the time of the same crawl in peace."""
    made = Tally()
    with site(PROPERTIES, latency=0.02) as child:
        run = Run(shared_fleet, child, tmp_path_factory.mktemp("peace"), properties=PROPERTIES, scheme="upload",
                  settings=SETTINGS | {"DISTRIBUTED_LEASE": 30}, workers=WORKERS)  # fmt: skip
        run.begin()
        prove(run)
        assert len(run.crawls) == 1
        no_repetition(run)
    made.peace = run.seconds
    figures.append(f"{PROPERTIES} properties in peace: {run.seconds:.1f} s, {run.attempts()} attempts")
    return made


@pytest.mark.chaos
@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm(struck: Fleet, tally: Tally, tmp_path: Path, figures: list[str], seed: int) -> None:
    run, blowing = storm(
        struck, tmp_path / "storm", seed, properties=PROPERTIES, strikes=14, seconds=SECONDS, pause=1.5
    )
    tally.hits.update(blowing.hits)
    strikes = sum(blowing.hits.values())
    tally.rows.append((seed, run.seconds, strikes, run.attempts(), len(run.crawls)))
    named = sum(batch["failed"] for batch in run.crawl.run()["batches"])
    lost = f", {named} targets failed since the site stood still" if named else ""
    figures.append(
        f"seed {seed:3}: {run.spider:7} by {weather(seed)[1]:6}: {run.seconds:5.1f} s, {strikes} faults,"
        f" {run.attempts()} attempts, {len(run.crawls)} coordinators{lost}"
    )
    if len(tally.rows) == len(SEEDS):
        added = sorted(seconds - tally.peace for _, seconds, *_ in tally.rows)
        figures.append(f"{len(tally.rows)} storms in a row: the items of a local crawl, balance 0 each time")
        figures.append(f"time added: median {added[len(added) // 2]:.1f} s, at most {added[-1]:.1f} s")
        figures.append(f"attempts: {sum(row[3] for row in tally.rows)} in all")
        figures += [f"  survived {count:3} x {kind}" for kind, count in sorted(tally.hits.items())]

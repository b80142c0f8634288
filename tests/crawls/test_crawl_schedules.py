"""Whether batches have a size that keeps the slots of a fleet busy, in two small workloads of the benchmark. What they
need at least is computed, and measured with it; sizes that are far from the best take several times as long."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
from designs import Workload
from optimum import Schedule, even, polite
from schedules import KINDS, perform, theatre

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmarks read /proc")

# 40 pages in one job take 24 s, in two jobs 13; in four 7.
POLITE = Schedule(
    name="polite",
    what="",
    crawl=Workload(properties=40, latency=0.05, nodes=2, workers=2, concurrency=1),
    delay=0.5,
    best=polite,
)
# Each round of jobs takes a poll of 5 s: 400 pages in jobs of 25 take four of them.
BURST = Schedule(
    name="burst", what="", crawl=Workload(properties=400, latency=0.05, nodes=2, workers=2, concurrency=8), best=even
)


def crawl(schedule: Schedule, nodes: str, work: Path) -> tuple[float, float]:
    """Seconds that it takes, and takes at least: both with the starts of its own processes."""
    with theatre(schedule, KINDS[nodes], work=work, seconds=120) as stand:
        done = perform(stand)
        assert stand.check() == 1
        return done.seconds, schedule.optimum(stand.starts(done.coordinator))


def test_a_polite_crawl_is_shared_by_all_slots(tmp_path: Path) -> None:
    seconds, optimum = crawl(POLITE, "warm", tmp_path)
    assert seconds < 1.6 * optimum + 2


def test_a_short_crawl_is_no_crowd_of_jobs(tmp_path: Path) -> None:
    seconds, optimum = crawl(BURST, "stock", tmp_path)
    assert seconds < 1.6 * optimum + 2 * KINDS["stock"].poll

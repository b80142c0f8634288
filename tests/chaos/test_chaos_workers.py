"""Workers that die at every moment, and places for feeds that fail."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from arena import Fleet, Run, strike
from crawling import call, site
from oracle import no_repetition, prove, quiet
from trial import chaos

LONG = pytest.mark.chaos
SMALL = {"DISTRIBUTED_BATCH_SIZE": 20}


def test_without_faults_nothing_is_done_twice(struck: Fleet, tmp_path: Path) -> None:
    """Also the measure for the others: the oracle has nothing to say of a run in peace."""
    with site(120) as child:
        run = Run(struck, child, tmp_path, properties=120, scheme="upload", settings={**SMALL, "DISTRIBUTED_LEASE": 30})
        run.begin()
        prove(run)
        assert len(run.crawls) == 1
        no_repetition(run)
    quiet(run)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGKILL, id="kill"), pytest.param(signal.SIGTERM, id="term", marks=LONG)]
)
def test_workers_struck_from_outside(struck: Fleet, tmp_path: Path, number: int) -> None:
    with site(120, latency=0.2) as child:
        run = Run(struck, child, tmp_path, properties=120, settings=SMALL, workers={"CONCURRENT_REQUESTS": 4})
        run.begin()
        run.wait_for(lambda: child.stats()["properties_served"] > 10)
        assert sum(strike(pid, number) for pid in struck.workers()) > 0
        prove(run)
        assert run.attempts() > 6


FAULTS = {
    "kill-midway": chaos.KILL_MIDWAY,
    "term-midway": chaos.TERM_MIDWAY,
    "kill-between-feed-and-receipt": chaos.KILL_STORED,
    "term-while-the-feed-is-stored": chaos.TERM_STORING,
    "feed-refused": chaos.STORE_REFUSED,
    "feed-cut-off": chaos.STORE_CUT_OFF,
    "feed-not-opened-for-a-while": chaos.OPEN_REFUSED,
    "disk-full-for-a-while": chaos.DISK_FULL,
}


def test_workers_that_fail_at_exact_moments(struck: Fleet, tmp_path: Path) -> None:
    """Each of the moments in one worker of one run."""
    with site(120) as child:
        run = Run(struck, child, tmp_path, properties=120, scheme="upload", settings=SMALL)
        for fault in FAULTS.values():
            run.grant(fault)
        run.begin()
        prove(run)
    assert sorted(run.taken()) == sorted(FAULTS.values())


@LONG
@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_every_worker_fails_at_its_first_attempt(struck: Fleet, tmp_path: Path, fault: str) -> None:
    with site(120) as child:
        run = Run(struck, child, tmp_path, properties=120, scheme="upload", settings=SMALL)
        run.grant(fault, 6)
        run.begin()
        prove(run)
    assert run.taken() == 6 * [fault]
    # After a TERM the feed may still be stored, and then the attempt counts.
    assert run.attempts() >= 12 or fault in (chaos.TERM_MIDWAY, chaos.TERM_STORING)


@LONG
def test_workers_that_sleep_through_their_lease_and_wake_up(struck: Fleet, tmp_path: Path) -> None:
    """Their batches go to others; whoever is first counts, and the other one does not."""
    with site(60, latency=0.1) as child:
        run = Run(struck, child, tmp_path, properties=60, settings={"DISTRIBUTED_BATCH_SIZE": 30})
        run.begin()
        run.wait_for(lambda: child.stats()["properties_served"] > 4)
        asleep = [pid for pid in struck.workers() if strike(pid, signal.SIGSTOP)]
        assert asleep
        run.wait_for(lambda: "no sign of life" in run.crawl.log)
        for pid in asleep:
            strike(pid, signal.SIGCONT)
        prove(run)


# Pages that lead to further pages


AT_ONCE, LAST = "1", "-1"  # when the details are fetched: as soon as they are found, after all start pages


@pytest.mark.parametrize(
    ("how", "order"),
    [
        ("cancel", AT_ONCE),
        pytest.param("cancel", LAST, marks=LONG),
        pytest.param("kill", AT_ONCE, marks=LONG),
        ("kill", LAST),
    ],
    ids=["cancel-details-at-once", "cancel-details-last", "kill-details-at-once", "kill-details-last"],
)
def test_a_worker_ends_with_details_queued(struck: Fleet, tmp_path: Path, how: str, order: str) -> None:
    """A start page whose items are still to come is not done, whatever the worker has fetched of it."""
    with site(40, latency=0.05) as child:
        run = Run(
            struck, child, tmp_path, properties=40, spider="leading", args={"count": "40", "order": order},
            settings={"DISTRIBUTED_BATCH_SIZE": 20, "DISTRIBUTED_NODE_BACKLOG": 1}, hosts=["scrapyd1", "scrapyd2"],
        )  # fmt: skip
        run.begin()
        run.wait_for(lambda: child.stats()["properties_served"] >= 12)
        for node in struck.nodes:
            for job in node.jobs()["running"]:
                if how == "cancel":
                    call(f"{node.child.url}/cancel.json", project="trial", job=job["id"])
                else:
                    os.kill(job["pid"], signal.SIGKILL)
        prove(run)
        assert run.attempts() > 2, "nobody was struck"

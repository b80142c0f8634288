"""Nodes that are killed, stopped, shut off, full, forgetful, or have another name the next time."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from arena import TIMES, Fleet, Run, fleet, slowness
from crawling import site
from gate import Weather
from oracle import no_repetition, prove

LONG = pytest.mark.chaos
SMALL = {"DISTRIBUTED_BATCH_SIZE": 20}
GATES = ["gate1", "gate2", "gate3"]


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGKILL, id="kill"), pytest.param(signal.SIGTERM, id="term", marks=LONG)]
)
def test_nodes_are_restarted_and_their_orphans_deliver(struck: Fleet, tmp_path: Path, number: int) -> None:
    """Scrapyd forgets what ran, the workers live on, and nothing is done again: another node would take it over only if
    it had nothing to do."""
    with site(240, latency=0.5) as child:
        # A node that is late at the start has its part all the same: no other one holds much more than it can run.
        settings = {**SMALL, "DISTRIBUTED_LEASE": 60, "DISTRIBUTED_NODE_BACKLOG": 1}
        run = Run(struck, child, tmp_path, properties=240, settings=settings, workers={"CONCURRENT_REQUESTS": 1})
        run.begin()
        run.wait_for(lambda: all(len(node.jobs()["running"]) == 2 for node in struck.nodes))
        run.wait_for(lambda: child.stats()["properties_served"] > 12)
        struck.nodes[2].stop(workers=True)
        for node in struck.nodes[:2]:
            node.kill(number)
            assert len(node.workers()) == 2
        for node in struck.nodes[:2]:
            node.restart()
        struck.nodes[2].go_on()
        prove(run)
        no_repetition(run)


@pytest.mark.parametrize("comes_back", [pytest.param(True, id="restarted", marks=LONG), pytest.param(False, id="gone")])
def test_a_node_dies_with_its_workers(struck: Fleet, tmp_path: Path, comes_back: bool) -> None:
    with site(120, latency=0.1) as child:
        run = Run(struck, child, tmp_path, properties=120, settings=SMALL, workers={"CONCURRENT_REQUESTS": 4})
        run.begin()
        # Whichever: on a busy machine one may be late at the start.
        node = run.wait_for(lambda: next((node for node in struck.nodes if node.jobs()["running"]), None))
        assert node is not None
        node.kill(workers=True)
        if comes_back:
            node.restart()
        prove(run)
        assert run.attempts() > 6


@LONG
def test_a_node_is_a_black_hole_for_longer_than_the_lease(struck: Fleet, tmp_path: Path) -> None:
    """One takes calls and does not answer, its workers go on; another one is stopped together with its workers, in the
    middle of their batches: a receipt that had come home would leave nothing to miss."""
    with site(240, latency=0.2) as child:
        # One at a time waits: a node that is late at the start gets some as well.
        settings = {**SMALL, "DISTRIBUTED_NODE_BACKLOG": 1}
        run = Run(struck, child, tmp_path, properties=240, settings=settings, workers={"CONCURRENT_REQUESTS": 1})
        run.begin()
        run.wait_for(lambda: all(node.workers() for node in struck.nodes))
        struck.nodes[1].stop(workers=True)
        struck.nodes[0].stop()
        run.wait_for(lambda: f"no sign of life on {struck.nodes[1].name}" in run.crawl.log)
        struck.nodes[0].go_on()
        struck.nodes[1].go_on()
        prove(run)


def test_a_node_is_a_black_hole_from_the_start(struck: Fleet, tmp_path: Path) -> None:
    """It takes calls and never answers; the crawl starts with the others, and is over before it answers again."""
    with site(120, latency=0.1) as child:
        settings = {**SMALL, "DISTRIBUTED_LEASE": 60}
        run = Run(struck, child, tmp_path, properties=120, hosts=GATES, settings=settings)
        struck.nodes[0].gate.turn(Weather.HANGS)
        run.begin()
        prove(run)
        assert len(run.crawls) == 1
        assert run.attempts_on("gate1") == 0
        no_repetition(run)


@LONG
@pytest.mark.parametrize("weather", [Weather.HANGS, pytest.param(Weather.ERROR, marks=LONG)])
def test_no_node_can_be_used_at_the_start_for_a_while(struck: Fleet, tmp_path: Path, weather: Weather) -> None:
    """A start waits as long as a crawl does whose nodes are gone."""
    with site(120) as child:
        settings = {**SMALL, "DISTRIBUTED_TIMEOUT": 1}
        run = Run(struck, child, tmp_path, properties=120, hosts=GATES, settings=settings)
        for node in struck.nodes:
            node.gate.turn(weather)
        crawl = run.begin()
        run.wait_for(lambda: "gate3" in crawl.log)  # it has noticed
        for node in struck.nodes:
            node.gate.turn(Weather.FAIR)
        prove(run)
        assert len(run.crawls) == 1, run.describe()


def test_answers_that_are_nonsense_late_or_lost(struck: Fleet, tmp_path: Path) -> None:
    """All three nodes at once, while the batches are being sent; then the weather clears up."""
    with site(120) as child:
        run = Run(struck, child, tmp_path, properties=120, hosts=GATES, settings={**SMALL, "DISTRIBUTED_TIMEOUT": 1})
        run.begin()
        run.wait_for(lambda: "on 3 nodes" in run.crawl.log)
        for node, weather in zip(struck.nodes, (Weather.HANGS, Weather.ERROR, Weather.LOSES), strict=True):
            node.gate.turn(weather)
        run.wait_for(lambda: run.crawl.log.count("it gets no batches") >= 3)
        struck.nodes[1].gate.turn(Weather.HTML)
        run.wait_for(lambda: "answered HTML" in run.crawl.log)
        for node in struck.nodes:
            node.gate.turn(Weather.FAIR)
        prove(run)


def test_every_job_is_delivered_twice(struck: Fleet, tmp_path: Path) -> None:
    """Scrapyd runs a job twice that is posted twice with one id: the second worker of it does nothing."""
    with site(120, latency=0.1) as child:
        run = Run(struck, child, tmp_path, properties=120, hosts=GATES, settings={**SMALL, "DISTRIBUTED_LEASE": 60})
        for node in struck.nodes:
            node.gate.deliver_twice(100)
        run.begin()
        prove(run)
        assert sum(node.gate.doubled for node in struck.nodes) >= 6  # one more where a slow machine cuts a batch by age
        no_repetition(run)


@pytest.mark.parametrize("scheme", ["file", pytest.param("upload", marks=LONG)])
def test_the_disk_of_a_node_is_full(struck: Fleet, tmp_path: Path, scheme: str) -> None:
    """Its workers can write neither their feeds nor their logs to the end; the others do its work."""
    with site(240) as child:
        settings = {"DISTRIBUTED_BATCH_SIZE": 40}
        run = Run(struck, child, tmp_path, properties=240, scheme=scheme, settings=settings)
        struck.nodes[0].fill_disk(6000)
        run.begin()
        prove(run)


@LONG
def test_the_disk_of_a_node_is_full_and_is_freed(struck: Fleet, tmp_path: Path) -> None:
    """Not a byte can be written on two of three nodes: no job, no log, no receipt; later it can."""
    with site(240) as child:
        run = Run(struck, child, tmp_path, properties=240, settings={"DISTRIBUTED_BATCH_SIZE": 20})
        for node in struck.nodes[:2]:
            node.fill_disk(0)
        run.begin()
        run.wait_for(lambda: run.settled() > 40)
        for node in struck.nodes[:2]:
            node.free_disk()
        prove(run)


@LONG
def test_nodes_that_forget_what_has_finished(tmp_path: Path) -> None:
    """One that remembers a single finished job: what is not known there is not what did not run."""
    with fleet(tmp_path, conf="finished_to_keep = 1", count=1, max_proc=4) as nodes, site(40) as child:
        (tmp_path / "run").mkdir()
        settings = {"DISTRIBUTED_BATCH_SIZE": 5, "DISTRIBUTED_POLL_INTERVAL": 3, "DISTRIBUTED_LEASE": 60}
        run = Run(nodes, child, tmp_path / "run", properties=40, hosts=["scrapyd1"], settings=settings)
        run.begin()
        run.wait_for(lambda: nodes.nodes[0].jobs()["finished"])
        prove(run)
        assert len(nodes.nodes[0].jobs()["finished"]) == 1
        no_repetition(run)


@LONG
def test_more_jobs_finish_between_two_looks_than_a_node_remembers(struck: Fleet, tmp_path: Path) -> None:
    """A stock node remembers 100; 110 jobs are gone through while the coordinator is dead."""
    with site(110) as child:
        settings = {"DISTRIBUTED_BATCH_SIZE": 1, "DISTRIBUTED_NODE_BACKLOG": 110, "DISTRIBUTED_LEASE": 60}
        run = Run(struck, child, tmp_path, properties=110, hosts=["scrapyd1"], settings=settings)
        run.begin()
        run.wait_for(lambda: (state := run.state()) and len(state["batches"]) == 110, 60)
        run.wait_for(
            lambda: {batch["attempt_state"] for batch in run.crawl.run()["batches"]} <= {"sent", "accepted"}, 120
        )
        run.crawl.end()
        run.wait_for(lambda: not (jobs := struck.nodes[0].jobs())["pending"] and not jobs["running"], 400)
        prove(run, seconds=120)
        no_repetition(run)


OTHER_LISTS = {
    "reordered": lambda nodes: [node.name for node in reversed(nodes)],
    "other-names": lambda nodes: [node.address for node in nodes],
    "other-names-reordered": lambda nodes: [node.address for node in reversed(nodes)],
    "one-fewer": lambda nodes: [node.name for node in nodes[1:]],
}
SHORT_LIST = "other-names-reordered"


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case == SHORT_LIST else LONG) for case in OTHER_LISTS])
def test_the_nodes_are_listed_otherwise_the_next_time(struck: Fleet, tmp_path: Path, case: str) -> None:
    """Jobs that went to a node under another name are still its jobs; those of a node that is left out go to others."""
    with site(120, latency=0.1) as child:
        settings = {**SMALL, "DISTRIBUTED_LEASE": 60}
        run = Run(struck, child, tmp_path, properties=120, settings=settings, workers={"CONCURRENT_REQUESTS": 2})
        run.begin()
        run.wait_for(lambda: child.stats()["properties_served"] > 20)
        run.crawl.end()
        run.hosts = OTHER_LISTS[case](struck.nodes)
        prove(run)
        if case != "one-fewer":
            no_repetition(run)


@LONG
def test_a_node_that_dies_for_good_costs_no_more_than_its_share_and_a_lease(
    struck: Fleet, tmp_path: Path, figures: list[str]
) -> None:
    """Pages are slow here, so that the nodes and not this machine are what limits a crawl."""
    took = {}
    for case in ("in peace", "with one of three nodes killed in the middle"):
        with site(1800, latency=0.25) as child:
            settings = {"DISTRIBUTED_BATCH_SIZE": 75}
            folder = tmp_path / str(len(took))
            folder.mkdir()
            workers = {"CONCURRENT_REQUESTS": 4}
            run = Run(struck, child, folder, properties=1800, settings=settings, workers=workers)
            run.begin()
            if took:
                run.wait_for(lambda run=run: run.settled() > 800, 90)
                struck.nodes[2].kill(workers=True)
            started = time.monotonic()
            prove(run, seconds=120)
            assert time.monotonic() > started
            took[case] = run.seconds
    peace, struck_time = took.values()
    figures.append(f"1,800 slow pages: {', '.join(f'{seconds:.1f} s {case}' for case, seconds in took.items())}")
    assert struck_time <= peace * 1.5 + TIMES["DISTRIBUTED_LEASE"] * slowness()

"""What ``scrapy monitor`` shows of shared runs and of the workers that have joined them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from awaiting import awaited
from ledgers import IDENTITY, receipt
from scrapy_command import scrapy
from shared_runs import SharedRun
from tiny_project import write_project
from valkey_child import ValkeyChild

from scrapy_distributed.monitor.run_state import RunState
from scrapy_distributed.monitor.shared_state import SharedState, SharedWatch
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.shared.server import Server


async def look(shared: SharedRun, *, watch: SharedWatch | None = None) -> SharedState:
    own = watch or SharedWatch(shared.server.address, shared.project)
    try:
        return await own.look()
    finally:
        if watch is None:
            await own.close()


async def one(shared: SharedRun) -> RunState:
    (run,) = (await look(shared)).runs
    return run


@awaited
async def test_a_run_and_who_works_at_it(shared: SharedRun) -> None:
    await shared.nothing("other")
    await shared.add(*range(10))
    claimed = await shared.claim(4)
    await shared.worker().renew(claimed, {"settled": 3, "items": 7, "pages": 9})
    found = await look(shared)
    assert [(one.name, one.host, one.slots, one.running, one.version) for one in found.workers] == [
        ("other", "h", 1, 0, "4f2a"), ("w1", "h", 1, 1, "4f2a"),
    ]  # fmt: skip
    assert found.workers[1].line == "worker 1 on h: 1 of 1 slot at work, code 4f2a"
    (run,) = found.runs
    assert run.line == "crawl s: 3 of 10 requests settled (30 %), 7 items, 1 of 2 slots at work"
    told = run.as_dict()
    assert (told["ledger"], told["run"], told["state"]) == (str(shared.server.address), shared.name, "running")
    assert (told["requests"]["queued"], told["requests"]["in_flight"]) == (6, 4)
    (job,) = told["jobs"]
    assert (job["node"], job["size"], job["settled"], job["items"], job["pages"]) == ("w1", 4, 3, 7, 9)
    assert job["job"] == claimed.attempt.job
    assert [(node["name"], node["state"], node["running"]) for node in told["nodes"]] == [
        ("other", "well", 0), ("w1", "well", 1),
    ]  # fmt: skip


@awaited
async def test_how_fast_it_goes_is_told_from_the_second_look_on(shared: SharedRun) -> None:
    watch = SharedWatch(shared.server.address, shared.project)
    await shared.add(*range(10))
    claimed = await shared.claim(4)
    assert "/min" not in (await look(shared, watch=watch)).runs[0].line
    await shared.worker().settle(claimed, receipt(claimed.attempt))
    assert "/min, less than a minute for the rest" in (await look(shared, watch=watch)).runs[0].line
    await watch.close()


@awaited
async def test_what_is_wrong_with_a_worker(shared: SharedRun) -> None:
    await shared.nothing("w1")
    worker = shared.worker("w2", version="9c1b")
    worker.joined = replace(worker.joined, state="benched for 40 s: \x1b[2J")
    await shared.nothing("w2")
    await shared.server.command("ZADD", shared.intake.keys.all + ":heard", 1, "w1")
    found = await look(shared)
    assert [one.line for one in found.workers] == [
        "worker 1 on h: 0 of 1 slot at work, code 9c1b, benched for 40 s: \\x1b[2J"
    ]
    rows = found.runs[0].as_dict()["nodes"]
    assert [(row["state"], row["why"]) for row in rows if row["name"] == "w2"] == [
        ("trouble", "benched for 40 s: \x1b[2J")
    ]


@awaited
async def test_the_state_of_a_run(shared: SharedRun) -> None:
    await shared.add(1)
    claimed = await shared.claim()
    await shared.worker().reject(claimed, "killed", counts=True)
    claimed = await shared.claim()
    await shared.worker().settle(claimed, receipt(claimed.attempt, failed={"dns": [0]}, again=1))
    await shared.intake.walked()
    run = await one(shared)
    assert run.state == "running", "its coordinator is there"
    assert run.reasons == {"failed: dns": 1}
    assert [(event.what, event.words) for event in run.events] == [("batch 1", "does not count, on w1: killed")]
    await shared.intake.leave_walk()
    assert (await one(shared)).state == "interrupted"
    await shared.store()
    assert (await one(shared)).state == "over"
    stopped = await SharedRun.begin(shared.server, project=shared.project)
    await stopped.control.stop("cancelled")
    await stopped.intake.stored()
    assert (await one(shared)).state == "stopped"
    other = await SharedRun.begin(shared.server, project=shared.project, identity={**IDENTITY, "spider": "t"})
    assert [run.run and run.run.name for run in (await look(shared)).runs] == [stopped.name, other.name]


@awaited
async def test_a_server_that_is_away_is_a_problem(tmp_path: Path) -> None:
    watch = SharedWatch(RedisAddress.from_url(f"unix://{tmp_path}/none"), "p")
    found = await watch.look()
    await watch.close()
    assert found.runs == found.workers == ()
    assert found.server[0].kind == "unreachable"


def test_the_command(child: ValkeyChild, tmp_path: Path) -> None:
    @awaited
    async def begun() -> None:
        server = await Server.connect(child.address)
        shared = await SharedRun.begin(server, project="monitored")
        await shared.add(1, 2)
        await shared.claim(1)
        await server.close()

    begun()
    folder = write_project(tmp_path / "project")
    with (folder / "tiny" / "settings.py").open("a") as file:
        file.write(f"DISTRIBUTED_TARGET_HOSTS = ['{child.url}']\nDISTRIBUTED_PROJECT = 'monitored'\n")
    done = scrapy(folder, "monitor", "--once")
    assert done.returncode == 0, done.stderr
    assert "worker 1 on h: 1 of 1 slot at work" in done.stdout
    assert "crawl s: 0 of 2 requests settled (0 %), 0 items, 1 of 1 slot at work" in done.stdout
    done = scrapy(folder, "monitor", "--once", "--json")
    told: dict[str, Any] = json.loads(done.stdout)
    assert [worker["name"] for worker in told["workers"]] == ["w1"]
    assert told["runs"][0]["state"] == "running"
    assert told["nodes"] == []
    done = scrapy(folder, "monitor", "--once", f"unix://{tmp_path}/none")
    assert (done.returncode, "unreachable: Redis at" in done.stdout) == (1, True), done.stderr
    done = scrapy(tmp_path, "monitor", "--once", child.url)
    assert (done.returncode, "expected --project" in done.stderr) == (2, True), done.stderr

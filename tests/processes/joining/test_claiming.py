"""A worker that takes nothing for a while."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from awaiting import awaited
from shared_runs import VERSION, SharedRun
from worker_stand import eventually

from scrapy_distributed.agent.agent import Agent
from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.joining import claiming as module
from scrapy_distributed.joining.bench import LONGEST_PAUSE, Bench
from scrapy_distributed.joining.claiming import LONGEST_WAIT, Joining
from scrapy_distributed.joining.one_batch import Tools
from scrapy_distributed.joining.reach import Reach
from scrapy_distributed.shared.claims import AWAY_SECONDS
from scrapy_distributed.shared.pace import Pace


@awaited
async def test_it_is_not_forgotten_meanwhile_however_long_that_is(
    shared: SharedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LONGEST_WAIT < AWAY_SECONDS < LONGEST_PAUSE
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.1)
    await shared.add(1)
    bench, reactor = Bench(), None
    while bench.pause < LONGEST_PAUSE:
        bench.bad("no disk", time.monotonic() + 10**6 * bench.pause)
    agent: Any = Agent(JobFiles(tmp_path), slots=1, reactor=reactor)
    joining = Joining(
        Tools(shared.worker(), agent, Reach(), Pace(), bench), version=lambda: VERSION, refusal=lambda template: "",
        wait=lambda event, seconds: asyncio.sleep(seconds, event), leave_seconds=1.0,
    )  # fmt: skip
    working = asyncio.ensure_future(joining.run())

    async def shown() -> bool:
        state = [row.state for row in (await shared.intake.state()).workers]
        return any("benched for" in one and one.endswith("the last one: no disk") for one in state)

    for _ in range(2):
        await eventually(shown)
        await shared.server.command("DEL", f"{shared.intake.keys.all}:workers")  # as if it was forgotten
    await eventually(shown)
    joining.leave()
    assert await working == 0
    assert (await shared.intake.state()).workers == ()
    assert await shared.counts() == {"diverted": 1, "queued": 1}

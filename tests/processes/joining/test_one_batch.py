"""A batch of a worker that is told to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from awaiting import awaited
from ledgers import body
from shared_runs import SharedRun

from scrapy_distributed.agent.agent import Agent
from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.joining.bench import Bench
from scrapy_distributed.joining.one_batch import OneBatch, Tools
from scrapy_distributed.joining.reach import Reach
from scrapy_distributed.shared.pace import Pace
from scrapy_distributed.wire.job_template import JobTemplate


@awaited
async def test_one_that_is_told_so_before_it_has_taken_its_first_step_starts_no_job(
    shared: SharedRun, tmp_path: Path
) -> None:
    await shared.add(1, 2)
    reactor: Any = None  # with which no job can be started
    agent = Agent(JobFiles(tmp_path), slots=1, reactor=reactor)
    template = JobTemplate(project="p", spider="s", version="", settings={}, args={})
    tools = Tools(shared.worker(), agent, Reach(), Pace(), Bench())
    batch = OneBatch(await shared.claim(), template, tools)
    batch.leave()
    await batch.run()
    again = await shared.claim(name="w2")
    assert (again.bodies, again.attempt.label, again.batch.failures) == ([body(1), body(2)], "1.2", 0)

"""Jobs that can't be started for a while."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from scrapy_distributed.agent.agent import RETRY_SECONDS, Agent
from scrapy_distributed.agent.job_files import JobFiles


def test_they_are_tried_once_a_second_and_that_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "jobs"
    folder.touch()  # so that no log can be made there
    clock = Clock()
    agent = Agent(JobFiles(folder), slots=2, reactor=clock)
    for job in ("a", "b", "c"):
        agent.submit(job, [])
    for _ in range(3):
        clock.advance(RETRY_SECONDS)
        assert len(clock.getDelayedCalls()) == 1
    assert agent.pending == 3
    assert [record.getMessage()[:41] for record in caplog.records] == ["Job a can't be started now, trying again:"]

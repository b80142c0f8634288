"""Workers on this machine as carrier: what is said where their files can't be reached."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from scrapy_distributed.agent.agent import Agent
from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.dispatch.local_carrier import LocalCarrier
from scrapy_distributed.errors import NodeRefusedError
from scrapy_distributed.ledger.states import Attempt, AttemptState

ATTEMPT = Attempt(run="r", batch=1, number=1, node="local", token="ab", state=AttemptState.SENT, positions=1)


@pytest_twisted.ensureDeferred
async def test_a_folder_that_can_t_be_reached_says_nothing_of_a_job(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    folder.touch()  # so that even root finds no way
    clock = Clock()
    agent = Agent(JobFiles(folder), slots=2, reactor=clock)
    carrier = LocalCarrier(agent, command=["crawl", "x"], ledger=tmp_path / "x.sqlite", clock=clock)
    assert carrier.remembers(ATTEMPT)
    with pytest.raises(NodeRefusedError, match=r"whether job .* runs can't be seen: .*Not a directory"):
        await carrier.state(ATTEMPT)
    with pytest.raises(NodeRefusedError, match=r"the receipt of job .* can't be read"):
        await carrier.receipt(ATTEMPT)
    with pytest.raises(NodeRefusedError, match=r"the items of job .* can't be read"):
        await carrier.items(ATTEMPT, BytesIO(), size=1, digest="")
    assert await carrier.log_end(ATTEMPT) is None
    carrier.done(ATTEMPT)

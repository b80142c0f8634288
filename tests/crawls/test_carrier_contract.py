"""What the dispatch leans on, asked of all that runs jobs: a real Scrapyd, and workers on this machine."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest
import pytest_twisted
from scrapyd_child import start
from tiny_project import tiny_egg, write_project
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from until import until

from scrapy_distributed.agent.agent import Agent
from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.dispatch.carrier import Carrier
from scrapy_distributed.dispatch.flight import Signal
from scrapy_distributed.dispatch.local_carrier import LocalCarrier
from scrapy_distributed.dispatch.scrapyd_carrier import ScrapydCarrier
from scrapy_distributed.errors import NodeItemsError
from scrapy_distributed.fleet.node import Node
from scrapy_distributed.ledger.states import Attempt, AttemptState
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.wire.receipt import Receipt

JOB = JobTemplate(
    project="tiny",
    spider="waiting",
    version="",
    settings={
        "ADDONS": '{"scrapy_distributed.Addon": 500}', "DISTRIBUTED_ITEMS": "home",
        "DISTRIBUTED_RECEIPT_INTERVAL": "0.1", "FEEDS": "{}",
    },
    args={},
)  # fmt: skip


@pytest.fixture(scope="module", params=["local", "scrapyd"])
def carrier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carrier]:
    """With one slot, and a spider that waits until it is told to end."""
    folder = tmp_path_factory.mktemp("carrier")
    if request.param == "local":
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(write_project(folder / "project"))
            agent = Agent(JobFiles(folder / "jobs"), slots=1, reactor=reactor)
        agent.open()
        local = LocalCarrier(agent, command=("crawl", "waiting"), ledger=folder / "x", clock=reactor)
        yield local
        pytest_twisted.blockon(Deferred.fromCoroutine(local.close()))
        return
    with start(folder, poll_interval=0.1, max_proc=1) as child:
        node = Node(address=child.address, deadline_seconds=30)
        pytest_twisted.blockon(Deferred.fromCoroutine(node.addversion("tiny", "1", tiny_egg(folder / "project"))))
        there = ScrapydCarrier(node, project="tiny", spider="waiting", feed=False)
        yield there
        pytest_twisted.blockon(Deferred.fromCoroutine(there.close()))


@pytest.fixture
def attempt(request: pytest.FixtureRequest) -> Callable[[int], Attempt]:
    """Of a run of each test's own."""
    name = "".join(character for character in request.node.originalname if character.isalnum())
    return lambda number: Attempt(
        run=name, batch=number, number=1, node="n", token="t", state=AttemptState.SENT, positions=0
    )


async def reaches(carrier: Carrier, attempt: Attempt, state: str | None) -> None:
    async def has() -> bool:
        return await carrier.state(attempt) == state

    await until(has)


async def final(carrier: Carrier, attempt: Attempt) -> Receipt:
    await reaches(carrier, attempt, "finished")
    data = await carrier.receipt(attempt)
    assert data is not None, await carrier.log_end(attempt)
    receipt = Receipt.from_json(data)
    assert receipt.final
    return receipt


async def at_work(carrier: Carrier, attempt: Attempt) -> None:
    """Before that INT just ends its process."""

    async def beats() -> bool:
        data = await carrier.receipt(attempt)
        return data is not None and Receipt.from_json(data).sequence > 3

    await until(beats)


@pytest_twisted.ensureDeferred
async def test_a_job_runs_until_it_is_told_to_end_and_reports(
    carrier: Carrier, attempt: Callable[[int], Attempt]
) -> None:
    one = attempt(1)
    assert await carrier.state(one) is None
    await carrier.send(one, "[]", JOB)
    await at_work(carrier, one)
    await reaches(carrier, one, "running")
    assert (await carrier.look()).running == 1
    assert carrier.remembers(one)
    assert await carrier.cancel(one, Signal.INT) == "running"
    receipt = await final(carrier, one)
    assert receipt.job == one.job
    assert receipt.finish_reason == "shutdown"
    log = await carrier.log_end(one)
    assert log is not None
    assert "Spider closed (shutdown)" in log


@pytest_twisted.ensureDeferred
async def test_one_that_waits_is_taken_back(carrier: Carrier, attempt: Callable[[int], Attempt]) -> None:
    first, second = attempt(1), attempt(2)
    await carrier.send(first, "[]", JOB)
    await reaches(carrier, first, "running")
    await carrier.send(second, "[]", JOB)
    await reaches(carrier, second, "pending")
    assert (await carrier.look()).pending == 1
    assert await carrier.cancel(second, Signal.INT) == "pending"
    assert await carrier.state(second) is None
    await at_work(carrier, first)
    await carrier.cancel(first, Signal.INT)
    await final(carrier, first)
    assert await carrier.receipt(second) is None


@pytest_twisted.ensureDeferred
async def test_one_that_is_killed_leaves_no_final_receipt(carrier: Carrier, attempt: Callable[[int], Attempt]) -> None:
    one = attempt(1)
    await carrier.send(one, "[]", JOB)
    await at_work(carrier, one)
    assert await carrier.cancel(one, Signal.KILL) == "running"
    await reaches(carrier, one, "finished")
    data = await carrier.receipt(one)
    assert data is not None
    assert not Receipt.from_json(data).final


@pytest_twisted.ensureDeferred
async def test_of_one_that_it_never_had_it_knows_nothing(carrier: Carrier, attempt: Callable[[int], Attempt]) -> None:
    one = attempt(1)
    assert await carrier.state(one) is None
    assert await carrier.receipt(one) is None
    assert not await carrier.log_end(one)
    assert await carrier.cancel(one, Signal.INT) is None
    with pytest.raises(NodeItemsError):
        await carrier.items(one, io.BytesIO(), size=0, digest="0" * 64)


@pytest_twisted.ensureDeferred
async def test_its_items_are_those_that_its_receipt_tells_of(
    carrier: Carrier, attempt: Callable[[int], Attempt]
) -> None:
    one = attempt(1)
    await carrier.send(one, "[]", JOB)
    await at_work(carrier, one)
    await carrier.cancel(one, Signal.INT)
    file = (await final(carrier, one)).items_file
    assert file is not None
    into = io.BytesIO()
    await carrier.items(one, into, size=file.size, digest=file.digest)
    assert len(into.getvalue()) == file.size
    for size, digest in ((file.size + 1, file.digest), (file.size, "0" * 64)):
        with pytest.raises(NodeItemsError):
            await carrier.items(one, io.BytesIO(), size=size, digest=digest)
    carrier.done(one)

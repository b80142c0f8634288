"""What ``scrapy monitor`` shows, from polling to words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest
import pytest_twisted
from fake_scrapyd import FakeJob, FakeScrapyd, Fault
from shown import plain
from twisted.internet.defer import Deferred

from scrapy_distributed.fleet.node import Node, NodeAddress
from scrapy_distributed.monitor.node_state import HEAVY_BACKLOG, NodeState
from scrapy_distributed.monitor.snapshot import Snapshot, as_json, poll

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


@pytest.fixture
def fake() -> Iterator[FakeScrapyd]:
    fake = FakeScrapyd(projects={"p": {"1": ["s"]}, "q": {"1": ["s"]}}).listen()
    yield fake
    pytest_twisted.blockon(Deferred.fromCoroutine(fake.close()))


@pytest.fixture
def node(fake: FakeScrapyd) -> Iterator[Node]:
    node = Node(address=fake.address, deadline_seconds=5)
    yield node
    pytest_twisted.blockon(Deferred.fromCoroutine(node.close()))


def job(number: int, state: str, project: str = "p") -> FakeJob:
    return FakeJob(str(number), project, "s", None, {}, {}, state=state)


def snapshot(*nodes: NodeState, project: str | None = "p") -> Snapshot:
    return Snapshot(time=NOON, project=project, nodes=nodes)


@pytest_twisted.ensureDeferred
async def test_jobs_of_the_project_are_counted(fake: FakeScrapyd, node: Node) -> None:
    fake.jobs = [job(1, "pending"), job(2, "running"), job(3, "running"), job(4, "finished"), job(5, "running", "q")]
    assert plain(await poll([node], "p")) == ["fake1 running: 2, finished: 1, pending: 1"]
    assert plain(await poll([node], None)) == ["fake1 running: 3, finished: 1, pending: 1"]


@pytest_twisted.ensureDeferred
async def test_a_heavy_backlog_is_not_listed(fake: FakeScrapyd, node: Node) -> None:
    fake.jobs = [job(number, "pending") for number in range(HEAVY_BACKLOG + 1)]
    assert plain(await poll([node], "p")) == ["fake1 running: 0, finished: 0, pending: 21 (of all projects)"]
    assert fake.requests == ["GET daemonstatus.json"]


@pytest_twisted.ensureDeferred
async def test_one_failing_node_hides_no_other(fake: FakeScrapyd, node: Node) -> None:
    dead = Node(address=NodeAddress(name="dead1", url="http://127.0.0.1:1"))
    fake_2 = FakeScrapyd(faults={"*": Fault.SERVER_ERROR}).listen()
    ill = Node(address=fake_2.address)
    unknown = await poll([dead, node, ill], "p")
    await ill.close()
    await fake_2.close()
    lines = plain(unknown)
    assert lines[0].startswith("dead1 unreachable: connection refused at http://127.0.0.1:1: is Scrapyd running there")
    assert lines[1] == "fake1 running: 0, finished: 0, pending: 0"
    assert lines[2].startswith("fake1 failing: daemonstatus.json answered HTTP 500")
    assert not unknown.healthy
    [line] = plain(await poll([node], "nope"))
    assert line == "fake1 refused: project 'nope' not found: deploy it: scrapy fleet deploy"


def test_json() -> None:
    shown = snapshot(
        NodeState(name="a", url="http://a:1", running=1, finished=2, pending=3),
        NodeState(name="b", url="http://b:1", problem="gone", kind="unreachable"),
    )
    assert "\n" not in as_json(shown)
    a, b = ({"name": name, "url": f"http://{name}:1", "all_projects": False} for name in "ab")
    assert json.loads(as_json(shown)) == {
        "time": "2026-01-01T12:00:00+00:00",
        "project": "p",
        "nodes": [
            {**a, "running": 1, "finished": 2, "pending": 3, "problem": None},
            {**b, "running": None, "finished": None, "pending": None, "problem": "gone"},
        ],
        "workers": [],
        "runs": [],
    }


def test_lines() -> None:
    many = NodeState(name="a", url="", running=1, finished=2, pending=30, all_projects=True)
    assert plain(snapshot(many)) == ["a running: 1, finished: 2, pending: 30 (of all projects)"]
    assert plain(snapshot(many, project=None)) == ["a running: 1, finished: 2, pending: 30"]

"""The fake nodes of the benchmarks, asked as a coordinator asks: what they answer is what a real Scrapyd would."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_twisted
from until import until

from scrapy_distributed.errors import NodeRefusedError
from scrapy_distributed.fleet.node import Node, NodeAddress
from scrapy_distributed.wire.payload import START_URL, encode_payload
from scrapy_distributed.wire.receipt import Receipt

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "fake_fleet.py"


@contextmanager
def fake_nodes(count: int, *, seconds: float, slots: int) -> Iterator[list[Node]]:
    """Nodes with the spider ``quick`` whose jobs take *seconds* a request."""
    command = [sys.executable, str(SCRIPT), str(count), "quick", str(seconds), str(slots)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        hosts = child.stdout.readline().strip().split(",")
        try:
            yield [Node(address=NodeAddress(name=host, url=f"http://{host}")) for host in hosts]
        finally:
            child.communicate()


async def schedule(node: Node, job: str, size: int) -> None:
    payload = encode_payload([f'"http://a/{number}"' for number in range(size)])
    args = {"batch": "1", "text": "é = & ?"}
    assert await node.schedule("p", "quick", jobid=job, settings={START_URL: payload, "A": "1"}, args=args) == job


async def receipt(node: Node, job: str) -> Receipt | None:
    content = await node.receipt("p", "quick", job)
    return None if content is None else Receipt.from_json(content)


@pytest_twisted.ensureDeferred
async def test_jobs_wait_for_a_slot_run_and_end_on_a_clock() -> None:
    with fake_nodes(1, seconds=0.05, slots=1) as [node]:
        await schedule(node, "a", 4)
        await schedule(node, "b", 1)
        assert await node.status("a", "p") == "running"
        assert await node.status("b", "p") == "pending"
        assert await node.status("c", "p") is None
        status = await node.daemonstatus()
        assert (status.pending, status.running, status.finished) == (1, 1, 0)
        jobs = await node.listjobs("p")
        assert [[job.id for job in state] for state in (jobs.pending, jobs.running, jobs.finished)] == [
            ["b"],
            ["a"],
            [],
        ]
        first = await receipt(node, "a")
        assert first is not None
        assert (first.final, first.size) == (False, 4)
        assert await receipt(node, "b") is None

        async def ended() -> bool:
            return (await node.daemonstatus()).finished == 2

        await until(ended)
        last = await receipt(node, "a")
        assert last is not None
        assert (last.final, last.settled, last.stored, last.finish_reason) == (True, 15, True, "finished")
        assert last.sequence > first.sequence
        assert await node.status("b", "p") == "finished"
        await node.close()


@pytest_twisted.ensureDeferred
async def test_jobs_are_cancelled() -> None:
    with fake_nodes(1, seconds=60, slots=1) as [node]:
        for job in "abc":
            await schedule(node, job, 2)
        assert await node.cancel("p", "c") == "pending"
        assert await node.status("c", "p") is None
        assert await node.cancel("p", "a") == "running"
        ended = await receipt(node, "a")
        assert ended is not None
        assert (ended.final, ended.settled, ended.finish_reason) == (True, 0, "shutdown")
        assert await node.status("b", "p") == "running"
        assert await node.cancel("p", "b", "KILL") == "running"
        killed = await receipt(node, "b")
        assert killed is not None
        assert not killed.final
        assert await node.cancel("p", "b") is None
        assert (await node.daemonstatus()).finished == 2
        await node.close()


@pytest_twisted.ensureDeferred
async def test_what_a_preflight_asks_for() -> None:
    with fake_nodes(2, seconds=0, slots=1) as nodes:
        for node in nodes:
            assert await node.listversions("p") == ["1"]
            assert await node.listspiders("p", "1") == ["quick"]
            assert (await node.serves("logs"), await node.serves("items")) == (True, False)
            assert await node.log_tail("p", "quick", "a") is None
            await schedule(node, "a", 1)
            done = await receipt(node, "a")
            assert done is not None
            assert done.final
            await node.close()


@pytest_twisted.ensureDeferred
async def test_an_unknown_spider_is_refused() -> None:
    with fake_nodes(1, seconds=0, slots=1) as [node]:
        with pytest.raises(NodeRefusedError, match="spider 'nope' not found"):
            await node.schedule("p", "nope", jobid="a", settings={START_URL: "[]"})
        await node.close()

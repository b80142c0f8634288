"""What a node, or what stands before it, can't do to the coordinator: take its sockets, its memory, its time."""

from __future__ import annotations

import io
import os
import re
import stat
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from certificate import make
from raw_node import GOOD, RawNode, raw_node
from shown import plain
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from until import until

from scrapy_distributed.errors import (
    NodeAmbiguousError,
    NodeError,
    NodeRefusedError,
    NodeTooLongError,
    NodeUnauthorizedError,
)
from scrapy_distributed.fleet import node as node_module
from scrapy_distributed.fleet.connection import MAX_HEAD_BYTES, Limit
from scrapy_distributed.fleet.node import LIMITS, DaemonStatus, Node, NodeAddress
from scrapy_distributed.monitor.snapshot import poll

MIB = 2**20
CALLS: dict[str, Callable[[Node], Awaitable[Any]]] = {
    "daemonstatus": lambda node: node.daemonstatus(),
    "schedule": lambda node: node.schedule("p", "s", jobid="j"),
    "cancel": lambda node: node.cancel("p", "j"),
    "status": lambda node: node.status("j"),
    "addversion": lambda node: node.addversion("p", "1", b"egg"),
    "listprojects": lambda node: node.listprojects(),
    "listversions": lambda node: node.listversions("p"),
    "listspiders": lambda node: node.listspiders("p"),
    "listjobs": lambda node: node.listjobs("p"),
    "delversion": lambda node: node.delversion("p", "1"),
    "delproject": lambda node: node.delproject("p"),
    "receipt": lambda node: node.receipt("p", "s", "j"),
    "items": lambda node: node.items("p", "s", "j", io.BytesIO(), size=10 * MIB, digest=""),
    "log_tail": lambda node: node.log_tail("p", "s", "j"),
    "serves": lambda node: node.serves("logs"),
}


@pytest.fixture(scope="module")
def raw() -> Iterator[RawNode]:
    with raw_node() as server:
        yield server


@pytest.fixture(scope="module")
def raw_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawNode]:
    served, known = make(tmp_path_factory.mktemp("tls"))
    with pytest.MonkeyPatch.context() as patch, raw_node(served) as server:
        patch.setenv("SSL_CERT_FILE", str(known))
        yield server


@pytest.fixture(autouse=True)
def _short_deploys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_module, "ADDVERSION_SECONDS", 0.0)


@asynccontextmanager
async def node_at(raw: RawNode, name: str, seconds: float = 120) -> AsyncIterator[Node]:
    node = Node(address=NodeAddress(name="n", url=raw.url(name)), deadline_seconds=seconds)
    try:
        yield node
    finally:
        await node.close()


def sockets() -> int:
    """Open ones of this process. The server is another one."""
    found = 0
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):  # the listing's own
            found += stat.S_ISSOCK(os.fstat(int(name)).st_mode)
    return found


async def outcome(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except NodeError as error:
        return error


async def side_by_side(*calls: Awaitable[Any]) -> list[Any]:
    """What each returns, or the error of the node."""
    results = await DeferredList([Deferred.fromCoroutine(outcome(call)) for call in calls])
    return [result for _, result in results]


async def all_calls(node: Node) -> dict[str, Any]:
    return dict(zip(CALLS, await side_by_side(*(call(node) for call in CALLS.values())), strict=True))


async def settled(count: int) -> bool:
    """A connection that is aborted is closed in the next turn of the event loop."""
    await deferLater(reactor, 0)
    return sockets() == count


# Sockets


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", ["silent", "drip"])
async def test_a_call_that_is_late_keeps_no_socket(raw: RawNode, name: str) -> None:
    """One a minute would take all that a process may have within a day."""
    before, sent = sockets(), raw.sent(name)
    async with node_at(raw, name, seconds=1) as node:
        late = await side_by_side(*(node.daemonstatus() for _ in range(12)))
        assert raw.sent(name) >= sent + len(late)
        assert all(isinstance(one, NodeAmbiguousError) and "within 1 s" in str(one) for one in late)
        assert await settled(before)


@pytest_twisted.ensureDeferred
async def test_a_call_that_is_cancelled_keeps_no_socket(raw: RawNode) -> None:
    before, sent = sockets(), raw.sent("drip")
    async with node_at(raw, "drip") as node:
        calls = [Deferred.fromCoroutine(outcome(call(node))) for call in CALLS.values()]

        async def in_the_body() -> bool:
            return raw.sent("drip") >= sent + 3 * len(calls)

        await until(in_the_body)
        for call in calls:
            call.cancel()
        assert [type(await call) for call in calls] == [NodeAmbiguousError] * len(calls)
        assert await settled(before)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", ["good", "silent", "drip", "unread", "last"])
async def test_a_node_that_is_closed_leaves_no_socket(raw: RawNode, name: str) -> None:
    before = sockets()
    async with node_at(raw, name) as node:
        call = Deferred.fromCoroutine(outcome(node.daemonstatus()))
        other = Deferred.fromCoroutine(outcome(node.schedule("p", "s", jobid="j", args={"a": "x" * 100_000})))

        async def connected() -> bool:
            return call.called or sockets() >= before + 2

        await until(connected)
        answered = call.called
        await node.close()
        assert sockets() == before
        assert isinstance(await call, DaemonStatus if answered and name in ("good", "last") else NodeError)
        await other
        if name == "good":  # it can be used again
            assert (await node.daemonstatus()).node_name == "raw"


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", ["silent", "drip", "last", "flood", "headers", "encoded:gzip", "good"])
async def test_nobody_waits_for_the_end_of_tls(raw_tls: RawNode, name: str) -> None:
    """Nor does a pool that closes what is idle. The other side never says that it has ended too."""
    before = sockets()
    async with node_at(raw_tls, name, seconds=3 if name in ("silent", "drip") else 60) as node:
        found = await side_by_side(*(node.daemonstatus() for _ in range(12)))
        assert {type(one) for one in found} == {DaemonStatus if name in ("good", "last") else NodeAmbiguousError}
        assert await settled(before + (8 if name == "good" else 0))
    assert sockets() == before


@pytest_twisted.ensureDeferred
async def test_what_has_not_been_sent_holds_no_socket(raw: RawNode) -> None:
    """A node that answers and does not read on: a polite end would come after the last byte of the egg."""
    before = sockets()
    async with node_at(raw, "unread", seconds=1) as node:
        for found in await side_by_side(*(node.addversion("p", "1", os.urandom(5 * MIB)) for _ in range(3))):
            assert isinstance(found, NodeAmbiguousError)
        assert await settled(before)


@pytest_twisted.ensureDeferred
async def test_a_kept_connection_that_fails_is_not_kept(raw: RawNode) -> None:
    before = sockets()
    async with node_at(raw, "fourth", seconds=1) as node:
        for _ in range(3):
            assert (await node.daemonstatus()).node_name == "raw"
        assert sockets() == before + 1
        assert isinstance(await outcome(node.daemonstatus()), NodeAmbiguousError)
        assert await settled(before)
        assert (await node.daemonstatus()).node_name == "raw"


@pytest_twisted.ensureDeferred
async def test_a_file_over_tls(raw_tls: RawNode) -> None:
    before, file = sockets(), io.BytesIO()
    async with node_at(raw_tls, "good") as node:
        await node.items("p", "s", "j", file, size=len(GOOD), digest=sha256(GOOD).hexdigest())
    assert file.getvalue() == GOOD
    assert sockets() == before


@pytest_twisted.ensureDeferred
async def test_a_file_that_our_disk_does_not_take_keeps_no_socket(raw: RawNode, tmp_path: Path) -> None:
    before, path = sockets(), tmp_path / "read only"
    path.touch()
    async with node_at(raw, "flood") as node:
        with open(path, "rb") as file, pytest.raises(io.UnsupportedOperation):
            await node.items("p", "s", "j", file, size=10 * MIB, digest="")
        assert await settled(before)


# Memory and time


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", ["flood", "chunks", "headers", "status line", "early", "encoded:gzip", "bomb:2"])
async def test_what_has_no_end_costs_little(raw: RawNode, name: str) -> None:
    before, began = sockets(), time.process_time()
    tracemalloc.start()
    try:
        async with node_at(raw, name) as node:
            found = await side_by_side(node.daemonstatus(), node.cancel("p", "j"), node.serves("logs"))
            assert await settled(before)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * MIB
    assert time.process_time() - began < 10
    for one in found:
        assert one is True or isinstance(one, NodeAmbiguousError)


@pytest_twisted.ensureDeferred
async def test_a_file_is_not_held_in_memory(raw: RawNode, tmp_path: Path) -> None:
    content = b"0123456789" * 5_000_000 + b"the end"
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        async with node_at(raw, f"all:{len(content) - 7}") as node:
            with open(tmp_path / "items", "wb") as file:
                await node.items("p", "s", "j", file, size=len(content), digest=sha256(content).hexdigest())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 2 * MIB
    assert (tmp_path / "items").read_bytes() == content


@pytest_twisted.ensureDeferred
async def test_a_head_has_an_end(raw: RawNode) -> None:
    """And is not read until the call is late."""
    for name in ("headers", "status line", "early"):
        async with node_at(raw, name) as node:
            for found in await side_by_side(node.daemonstatus(), node.receipt("p", "s", "j"), node.serves("logs")):
                assert isinstance(found, NodeAmbiguousError)
                assert name == "status line" or f"more than {MAX_HEAD_BYTES:,} bytes" in str(found)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [(401, NodeUnauthorizedError, "credentials"), (403, NodeRefusedError, "HTTP 403"),
     (500, NodeAmbiguousError, "HTTP 500"), (302, NodeRefusedError, "redirect")],
)  # fmt: skip
async def test_a_long_page_of_an_error_does_not_hide_its_code(
    raw: RawNode, code: int, kind: type[NodeError], words: str
) -> None:
    before = sockets()
    async with node_at(raw, f"code:{code}") as node:
        for found in (await all_calls(node)).values():
            assert type(found) is kind
            assert words in str(found)
        assert await settled(before)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "br", "zstd", "gzip, gzip", "identity, GZIP", "x"])
async def test_what_is_compressed_is_not_read(raw: RawNode, encoding: str) -> None:
    async with node_at(raw, f"encoded:{encoding}") as node:
        for found in (await all_calls(node)).values():
            assert type(found) is NodeAmbiguousError
            assert re.search("compressed answer .*is there a proxy in between that compresses", str(found))


@pytest_twisted.ensureDeferred
async def test_nothing_compressed_is_asked_for_and_no_cookie_is_kept(raw: RawNode) -> None:
    async with node_at(raw, "asked") as node:
        for _ in range(2):
            assert (await node.daemonstatus()).node_name == "Accept-Encoding: identity"


# Limits


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("call", [name for name in CALLS if f"{name}.json" in LIMITS])
async def test_each_endpoint_has_its_limit(raw: RawNode, call: str) -> None:
    limit = LIMITS[f"{call}.json"].bytes
    async with node_at(raw, f"long:{limit}") as node:
        assert "more than" not in str(await outcome(CALLS[call](node)))
    async with node_at(raw, f"long:{limit + 1}") as node:
        found = await outcome(CALLS[call](node))
    assert type(found) is (NodeTooLongError if call == "listjobs" else NodeAmbiguousError)
    assert f"more than {limit:,} bytes" in str(found)


def test_an_answer_has_the_size_of_what_is_asked() -> None:
    assert LIMITS["daemonstatus.json"].bytes == LIMITS["status.json"].bytes == 64 * 1024
    assert max(limit.bytes for limit in LIMITS.values()) == LIMITS["listjobs.json"].bytes == 8 * MIB


@pytest_twisted.ensureDeferred
async def test_a_long_list_of_jobs_is_no_fault_of_its_node(raw: RawNode) -> None:
    async with node_at(raw, "jobs:3") as node:
        assert plain(await poll([node], "p")) == ["n running: 0, finished: 0, pending: 3"]
    async with node_at(raw, "jobs:200000") as node:
        found = await poll([node], "p")
        assert found.healthy
        assert plain(found) == ["n running: 2, finished: 3, pending: 1 (of all projects)"]
        with pytest.raises(NodeTooLongError, match=r"list of jobs is too long to be read.*finished_to_keep"):
            await node.listjobs("p")


@pytest_twisted.ensureDeferred
async def test_the_end_of_a_log_where_a_proxy_sends_all_of_it(raw: RawNode, monkeypatch: pytest.MonkeyPatch) -> None:
    tracemalloc.start()
    async with node_at(raw, "all:30000000") as node:
        assert await node.log_tail("p", "s", "j", max_bytes=20) == "4567890123456789the end"[-20:]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MIB
    monkeypatch.setattr(node_module, "LOG_LIMIT", Limit(bytes=100, words=node_module.LOG_LIMIT.words))
    async with node_at(raw, "all:1000") as node:
        found = await node.log_tail("p", "s", "j")
    assert found is not None
    assert re.search(r"not read: n: .*let a proxy pass on Range", found)


@pytest_twisted.ensureDeferred
async def test_a_long_listing_of_the_logs(raw: RawNode) -> None:
    before = sockets()
    async with node_at(raw, "all:5000000") as node:
        assert await node.serves("logs")
        assert await settled(before)


# What is no answer


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", ["promise", "cut head", "nothing", "deep", "more", "lines:30000", "lists:60000"])
async def test_lies_and_nonsense(raw: RawNode, name: str) -> None:
    before = sockets()
    async with node_at(raw, name) as node:
        for _ in range(3):  # also over what was kept
            found = await all_calls(node)
            for call, one in found.items():
                if call not in ("receipt", "log_tail", "serves"):
                    assert isinstance(one, NodeError) or name in ("more", "lists:60000")
        await deferLater(reactor, 0)
        assert sockets() <= before + 8
    assert sockets() == before


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", ["lines:500000", "lists:1000000"])
async def test_the_longest_answers_are_read_in_no_time(raw: RawNode, name: str) -> None:
    async with node_at(raw, name) as node:
        began = time.process_time()
        assert isinstance(await outcome(node.schedule("p", "s", jobid="j")), NodeError)
        assert time.process_time() - began < 2

"""What the loops of a coordinator do with a shared run, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from awaiting import awaited
from ledgers import IDENTITY, body, key
from scrapy import Spider
from scrapy.settings import Settings
from scrapy.statscollectors import MemoryStatsCollector
from valkey_child import ValkeyChild, valkey

from scrapy_distributed.coordinator.buffer import PART, Buffer
from scrapy_distributed.coordinator.shared_run import SharedRun
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.shared.control import Control
from scrapy_distributed.shared.harvest import Harvest
from scrapy_distributed.shared.intake import Intake, State
from scrapy_distributed.shared.run_rules import RunRules
from scrapy_distributed.shared.server import Server

_PROJECTS = count(1)


@pytest.fixture(scope="module")
def child() -> Iterator[ValkeyChild]:
    with valkey(appendonly="yes") as child:
        yield child


class Rig:
    """A coordinator's side of a run of its own project. *done*: what it says of its walk."""

    def __init__(self, child: ValkeyChild) -> None:
        self.server = Server(child.address)
        self.intake = Intake(self.server, f"p{next(_PROJECTS)}", owner="here")
        self.buffer = Buffer()
        self.done = False
        self.safe = True
        self.failures: list[BaseException] = []
        self.changes = 0
        self.stats: Any = MemoryStatsCollector(SimpleNamespace(settings=Settings()))  # type: ignore[arg-type]

    async def begin(self) -> SharedRun:
        await self.intake.begin(
            IDENTITY, spider="s", template="{}", version="1", rules=RunRules(max_attempts=3), resume=True
        )
        harvest = Harvest(self.server, self.intake.keys.project, self.intake.run, owner=self.intake.owner)
        self.run = SharedRun(
            self.intake, harvest, buffer=self.buffer,
            spider=Spider("s"), stats=self.stats, walk_is_done=lambda: self.done, own_is_safe=lambda: self.safe,
            changed=self._changed, failed=self.failures.append,
        )  # fmt: skip
        assert await self.run.take()
        self.run.start()
        return self.run

    def find(self, *numbers: int) -> None:
        self.buffer.put([(key(number), body(number)) for number in numbers], {})
        self.run.filled()

    async def state(self) -> State:
        return await self.intake.state()

    def _changed(self) -> None:
        self.changes += 1

    async def end(self) -> None:
        await self.run.stop()
        await self.server.close()
        assert self.failures == []


async def until(check: Callable[[], object], seconds: float = 20) -> None:
    async def comes_true() -> None:
        while not check():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(comes_true(), seconds)


@awaited
async def test_what_is_found_is_added_and_then_the_walk_is_done(child: ValkeyChild) -> None:
    rig = Rig(child)
    run = await rig.begin()
    rig.find(*range(PART + 5), 3)
    rig.done = True
    run.filled()
    await until(lambda: run.walked)
    state = await rig.state()
    assert (state.balance.diverted, state.balance.duplicates, state.balance.queued) == (PART + 5, 1, PART + 5)
    assert state.walked is not None
    assert rig.stats.get_value("distributed/diverted") == PART + 5
    assert rig.stats.get_value("distributed/duplicates") == 1
    await rig.end()


@awaited
async def test_a_walk_is_not_done_before_what_was_scraped_is_kept(child: ValkeyChild) -> None:
    rig = Rig(child)
    run = await rig.begin()
    rig.done, rig.safe = True, False
    run.filled()
    await asyncio.sleep(0.2)
    assert (await rig.state()).walked is None
    rig.safe = True
    run.filled()
    await until(lambda: run.walked)
    rig.done = False  # a spider has more to crawl when it is idle
    run.filled()
    await until(lambda: not run.walked)
    assert (await rig.state()).walked is None
    await rig.end()


@awaited
async def test_it_is_settled_only_as_of_a_look_after_the_last_was_added(child: ValkeyChild) -> None:
    rig = Rig(child)
    run = await rig.begin()
    await until(lambda: run.settled)
    rig.find(1)
    assert not run.settled
    await until(lambda: run.all_added)
    assert not run.settled
    await until(lambda: run.state is not None and run.state.balance.queued == 1)
    assert not run.settled
    await rig.end()


@awaited
async def test_a_coordinator_that_has_lost_the_walk_adds_nothing_more_and_says_so(child: ValkeyChild) -> None:
    rig = Rig(child)
    run = await rig.begin()
    await until(lambda: run.state is not None)
    name = rig.intake.keys.of(rig.intake.run)
    await rig.server.command("HSET", name, "owner", "there", "owner_until", 10**15)
    changes = rig.changes
    rig.find(1)
    await until(lambda: run.superseded)
    assert not run.owned
    assert rig.changes > changes
    assert (await rig.state()).balance.diverted == 0
    await rig.end()


@awaited
async def test_while_the_server_is_away_nothing_is_lost_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with valkey(appendonly="yes", appendfsync="always") as child:
        rig = Rig(child)
        run = await rig.begin()
        rig.find(1, 2)
        await until(lambda: run.all_added)
        child.kill()
        rig.find(2, 3)
        await until(lambda: "can't be used now" in caplog.text)
        await asyncio.sleep(1)
        assert not run.all_added
        child.start()
        await until(lambda: run.all_added)
        balance = (await rig.state()).balance
        assert (balance.diverted, balance.duplicates) == (3, 1)
        assert caplog.text.count("can't be used now") == 1
        await rig.end()


@awaited
async def test_what_was_added_is_added_once_also_where_the_server_is_away_right_after_that(
    child: ValkeyChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(child)
    run = await rig.begin()
    script, faults = rig.server.script, [LedgerUnavailableError("away")]

    async def loses_an_answer(name: str, *args: Any) -> Any:
        answer = await script(name, *args)
        if name == "add" and faults:
            raise faults.pop()
        return answer

    monkeypatch.setattr(rig.server, "script", loses_an_answer)
    rig.find(1, 2)
    await until(lambda: not faults)
    rig.find(2, 3)
    await until(lambda: run.all_added)
    balance = (await rig.state()).balance
    assert (balance.diverted, balance.duplicates) == (3, 1)
    await rig.end()


@awaited
async def test_a_server_that_has_forgotten_requests_is_not_told_that_the_walk_is_done(child: ValkeyChild) -> None:
    rig = Rig(child)
    run = await rig.begin()
    rig.find(1, 2)
    await until(lambda: run.all_added and run.settled is False)
    await rig.server.command("HINCRBY", rig.intake.keys.of(rig.intake.run), "adds", -1)
    rig.done = True
    run.filled()
    await until(lambda: len(rig.failures) == 2)  # of who adds, and of who looks on
    (message,) = set(map(str, rig.failures))
    assert "has forgotten what it had taken" in message
    assert "give the same command again" in message
    assert (await rig.state()).walked is None
    rig.failures.clear()
    await rig.end()


@awaited
async def test_a_server_that_has_forgotten_the_end_of_the_walk_is_told_again(child: ValkeyChild) -> None:
    rig = Rig(child)
    run = await rig.begin()
    rig.done = True
    run.filled()
    await until(lambda: run.walked)
    name = rig.intake.keys.of(rig.intake.run)
    await rig.server.commands([("HDEL", name, "walked", "ended")])
    for _ in range(200):
        await asyncio.sleep(0.05)
        if (await rig.state()).walked is not None:
            break
    assert (await rig.state()).walked is not None
    await rig.end()


@awaited
async def test_a_run_goes_on_where_its_walk_does_after_it_had_come_to_its_end(child: ValkeyChild) -> None:
    rig = Rig(child)
    run = await rig.begin()
    rig.done = True
    run.filled()
    await until(lambda: run.state is not None and run.state.ended is not None)
    rig.done = False  # a spider has more to crawl when it is idle
    rig.find(1)
    await until(lambda: run.all_added and not run.walked)
    state = await rig.state()
    assert (state.ended, state.balance.queued) == (None, 1)
    assert await rig.server.command("LRANGE", f"{rig.intake.keys.all}:open", 0, -1) == [rig.intake.run.encode()]
    await until(lambda: run.state is not None and run.state.ended is None)
    assert not run.settled
    await rig.end()


@awaited
async def test_what_is_added_to_a_run_that_was_stopped_and_is_over_is_not_crawled(child: ValkeyChild) -> None:
    rig = Rig(child)
    run = await rig.begin()
    await Control(rig.server, rig.intake.keys.project, rig.intake.run).stop("closespider_timeout")
    rig.find(1, 2)
    await until(lambda: run.all_added)
    rig.find(3)
    await until(lambda: run.all_added)
    state = await rig.state()
    assert state.ended is not None
    assert (state.balance.diverted, state.balance.queued, state.balance.not_crawled) == (3, 0, 3)
    await rig.end()


@awaited
async def test_what_was_scraped_is_kept_also_where_a_walk_goes_on_and_ends_while_the_server_is_away(
    child: ValkeyChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(child)
    run = await rig.begin()
    rig.done = True
    run.filled()
    await until(lambda: run.walked)
    asked: list[bool] = []
    run.own_is_safe = lambda: not asked.append(True)  # type: ignore[func-returns-value]
    add, faults = rig.intake.add, [LedgerUnavailableError("away")]

    async def add_later(*args: Any) -> Any:
        if faults:
            raise faults.pop()
        return await add(*args)

    monkeypatch.setattr(rig.intake, "add", add_later)
    rig.done = False
    rig.find(1)
    run.walks_on()
    await until(lambda: not faults)
    rig.done = True  # and an item was scraped
    run.filled()
    await until(lambda: run.all_added and run.walked)
    await until(lambda: asked)
    await rig.end()


@awaited
async def test_a_walk_that_went_on_while_the_server_was_away_is_not_called_done(
    child: ValkeyChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(child)
    run = await rig.begin()
    walked, calls = rig.intake.walked, []

    async def away_at_first() -> None:
        calls.append(rig.done)
        if len(calls) == 1:
            rig.done = False  # meanwhile
            run.walks_on()
            raise LedgerUnavailableError("away")
        await walked()

    monkeypatch.setattr(rig.intake, "walked", away_at_first)
    rig.done = True
    run.filled()
    await until(lambda: calls)
    await asyncio.sleep(0.5)
    assert calls == [True]
    assert (await rig.state()).ended is None
    rig.done = True
    run.filled()
    await until(lambda: run.state is not None and run.state.ended is not None)
    await rig.end()

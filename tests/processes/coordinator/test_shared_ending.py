"""What a coordinator tells the server of its walk when its crawl is closed, on a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from awaiting import awaited
from ledgers import IDENTITY, body, key
from scrapy import Spider
from scrapy.utils.test import get_crawler
from valkey_child import ValkeyChild, valkey

from scrapy_distributed.config.config import Config
from scrapy_distributed.coordinator.buffer import Buffer
from scrapy_distributed.coordinator.home_book import HomeBook
from scrapy_distributed.coordinator.shared_ending import SharedEnding
from scrapy_distributed.coordinator.shared_run import SharedRun
from scrapy_distributed.coordinator.walk import CUT_OFF, DROPPED, Walk
from scrapy_distributed.shared.account import Account
from scrapy_distributed.shared.control import Control
from scrapy_distributed.shared.harvest import Harvest
from scrapy_distributed.shared.intake import Intake
from scrapy_distributed.shared.run_rules import RunRules
from scrapy_distributed.shared.server import Server

_PROJECTS = count(1)


@pytest.fixture(scope="module")
def child() -> Iterator[ValkeyChild]:
    with valkey() as child:
        yield child


class Rig:
    """A coordinator whose crawl is closed. *safe*: whether a later command has what was scraped here."""

    def __init__(self, child: ValkeyChild, folder: Path, *, safe: bool) -> None:
        self.server = Server(child.address)
        self.intake = Intake(self.server, f"e{next(_PROJECTS)}", owner="here")
        crawler = get_crawler(Spider, {"DISTRIBUTED_TARGET_HOSTS": str(child.address)})
        crawler.spider = Spider("s")
        walk: Any = SimpleNamespace(
            done=True, failed=False, lost={}, waits=False, give_up=lambda: None, is_done=lambda: None,
            is_cut_off=lambda: Walk.is_cut_off(walk), crawler=crawler,
        )  # fmt: skip
        self.walk = walk
        diversion: Any = SimpleNamespace(taken=[], diverter="", divert=list)
        self.kept = 0  # how often what was scraped here was kept
        keeper: Any = SimpleNamespace(own_is_safe=lambda: self._keep(safe), ended=lambda: None, idle=True)
        self.book = HomeBook(folder, entered=lambda keys: None)
        self.ending = SharedEnding(
            crawler, config=Config.from_settings(crawler.settings), walk=walk, diversion=diversion,
            keeper=keeper, book=self.book, clock=None,
        )  # fmt: skip
        assert crawler.stats is not None
        self.run = SharedRun(
            self.intake, Harvest(self.server, self.intake.keys.project, "", owner=""), buffer=Buffer(),
            spider=crawler.spider, stats=crawler.stats, walk_is_done=lambda: False, own_is_safe=lambda: False,
            changed=lambda: None, failed=lambda error: None,
        )  # fmt: skip

    def _keep(self, safe: bool) -> bool:
        self.kept += safe
        return safe

    async def begin(self) -> None:
        await self.intake.begin(
            IDENTITY, spider="s", template="{}", version="1", rules=RunRules(max_attempts=3), resume=True
        )
        self.book.begin(self.intake.run, IDENTITY)
        self.ending.run = self.run
        assert await self.run.take()

    async def close(self) -> bool:
        """Returns whether the walk is done then."""
        self.run.state = await self.intake.state()
        await self.ending._report("shutdown", stored=True)
        state = await self.intake.state()
        self.book.close()
        await self.server.close()
        return state.walked is not None


async def until(check: Callable[[], object], seconds: float = 60) -> None:
    async def comes_true() -> None:
        while not check():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(comes_true(), seconds)


@pytest.mark.parametrize("safe", [True, False])
@awaited
async def test_a_walk_is_not_done_before_what_was_scraped_is_kept(
    child: ValkeyChild, tmp_path: Path, safe: bool
) -> None:
    rig = Rig(child, tmp_path, safe=safe)
    await rig.begin()
    await rig.intake.add([(key(1), body(1))])
    assert await rig.close() == safe


@awaited
async def test_what_can_not_be_kept_does_not_hold_up_a_run_of_which_nothing_is_left(
    child: ValkeyChild, tmp_path: Path
) -> None:
    rig = Rig(child, tmp_path, safe=False)
    await rig.begin()
    assert await rig.close()


@awaited
async def test_a_coordinator_that_has_lost_its_walk_writes_nothing_of_the_end(
    child: ValkeyChild, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(child, tmp_path, safe=True)
    await rig.begin()
    rig.walk.lost = {"dns": 1}
    await rig.intake.leave_walk()
    heir = Intake(rig.server, rig.intake.keys.project, owner="there")
    heir.run = rig.intake.run
    assert (await heir.walk(60)).is_ours
    assert not await rig.close()
    (line,) = caplog.messages
    assert "its walk is another coordinator's by now: that one writes the result" in line


@awaited
async def test_a_walk_that_went_on_is_not_done(child: ValkeyChild, tmp_path: Path) -> None:
    rig = Rig(child, tmp_path, safe=True)
    await rig.begin()
    await rig.intake.add([(key(1), body(1))])
    await rig.run.say_walked(True)
    rig.walk.done = False
    assert not await rig.close()


@awaited
async def test_what_was_scraped_is_kept_when_a_run_is_stopped_as_it_is_not_walked_again(
    child: ValkeyChild, tmp_path: Path
) -> None:
    rig = Rig(child, tmp_path, safe=True)
    await rig.begin()
    rig.walk.done = False
    rig.run.state = await rig.intake.state()
    rig.ending.crawler.crawling = True
    rig.ending.why.asked("closespider_timeout", idle=False)
    await rig.ending._stop(rig.run)
    state = await rig.intake.state()
    assert state.stopped == "closespider_timeout"
    assert state.walked is not None
    assert rig.kept == 1
    await rig.close()


@awaited
async def test_the_result_of_a_run_that_is_over_is_not_stored_by_who_has_not_come_to_write_it(
    child: ValkeyChild, tmp_path: Path
) -> None:
    """It was closed while it took the run up."""
    rig = Rig(child, tmp_path, safe=False)
    await rig.begin()
    await rig.intake.walked()
    rig.walk.done = False
    rig.run.state = await rig.intake.state()
    assert rig.run.state.ended is not None
    assert not await rig.ending._report("shutdown", stored=True)
    state = await rig.intake.state()
    assert not state.stored
    rig.book.close()
    await rig.server.close()


@awaited
async def test_a_run_is_stopped_also_where_its_crawl_had_only_waited_for_its_end(
    child: ValkeyChild, tmp_path: Path
) -> None:
    rig = Rig(child, tmp_path, safe=True)
    await rig.begin()
    await rig.intake.add([(key(1), body(1))])
    rig.run.state = await rig.intake.state()
    rig.ending.crawler.crawling = True
    rig.ending.why.asked("closespider_pagecount", idle=False)
    rig.run.start()
    closing = asyncio.ensure_future(rig.ending._bring_home())
    await asyncio.sleep(0.3)
    rig.ending.why.asked("closespider_itemcount", idle=True)
    await asyncio.wait_for(closing, 20)
    state = await rig.intake.state()
    assert (state.stopped, state.balance.not_crawled) == ("closespider_itemcount", 1)
    rig.book.close()
    await rig.server.close()


@awaited
async def test_what_a_stop_finds_in_the_buffer_and_nobody_waits_for_is_told(
    child: ValkeyChild, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server takes nothing more, somebody else has stopped the run, and Ctrl-C came twice."""
    rig = Rig(child, tmp_path, safe=True)
    await rig.begin()
    await rig.intake.walk_on()
    rig.walk.done = False
    rig.ending.harvest = SimpleNamespace(idle=True)  # type: ignore[assignment]
    rig.run.buffer.put([(key(1), body(1))], {})
    await Control(rig.server, rig.intake.keys.project, rig.intake.run).stop("cancelled")
    rig.run.state = await rig.intake.state()
    rig.ending.why.asked("cancelled", idle=False)
    await rig.ending._bring_home()
    assert "what it had found and scraped last may be missing" in caplog.text
    assert not await rig.ending._report("cancelled", stored=True)
    account = Account(rig.server, rig.intake.keys.project, rig.intake.run)
    assert (await account.losses()).own == {CUT_OFF: 1}
    assert (await rig.intake.state()).unadded
    rig.book.close()
    await rig.server.close()


@pytest.mark.parametrize("reason", ["shutdown", "closespider_timeout"])
def test_a_crawl_that_closes_when_all_is_added_has_lost_nothing(
    child: ValkeyChild, tmp_path: Path, reason: str
) -> None:
    @awaited
    async def closes() -> None:
        rig = Rig(child, tmp_path, safe=True)
        await rig.begin()
        await rig.intake.walk_on()
        assert (await rig.intake.state()).unadded
        rig.walk.done = False
        rig.ending.clock = SimpleNamespace(seconds=time.monotonic)
        rig.ending.harvest = SimpleNamespace(idle=True)  # type: ignore[assignment]
        rig.ending.crawler.crawling = True
        rig.ending.why.asked(reason, idle=False)
        rig.run.start()
        rig.run.buffer.put([(key(1), body(1))], {})
        await asyncio.wait_for(rig.ending._bring_home(), 60)
        stopped = reason != "shutdown"
        assert (await rig.intake.state()).unadded is not stopped
        assert await rig.ending._report(reason, stored=True) is stopped
        assert not (await rig.intake.state()).unadded
        rig.book.close()
        await rig.server.close()

    closes()


@pytest.mark.parametrize("done", [True, False])
def test_what_was_dropped_for_a_walk_that_is_then_stopped_is_told(
    child: ValkeyChild, tmp_path: Path, done: bool
) -> None:
    """Its pages still keep items of workers out."""

    @awaited
    async def is_told() -> None:
        rig = Rig(child, tmp_path, safe=True)
        await rig.begin()
        before = await rig.intake.begin_own("h", anew=True)
        await rig.intake.stage_own(before, 0, b"one\n", 1)
        await rig.run.own.begin(anew=True)
        rig.walk.done = done
        await rig.intake.walked()
        await rig.close()
        assert await lost_own(rig, child) == ({} if done else {DROPPED: 1})

    is_told()


@awaited
async def test_a_walk_before_which_nothing_was_scraped_drops_nothing(child: ValkeyChild, tmp_path: Path) -> None:
    rig = Rig(child, tmp_path, safe=True)
    await rig.begin()
    await rig.intake.begin_own("h", anew=True)
    await rig.run.own.begin(anew=True)
    rig.walk.done = False
    await rig.close()
    assert await lost_own(rig, child) == {}


async def lost_own(rig: Rig, child: ValkeyChild) -> Mapping[str, int]:
    """What is lost of its own crawl."""
    server = await Server.connect(child.address)
    try:
        return (await Account(server, rig.intake.keys.project, rig.intake.run).losses()).own
    finally:
        await server.close()


class Engine:
    """One with nothing to crawl. *closed*: why it was told to close."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    def spider_is_idle(self) -> bool:
        return True

    async def close_spider_async(self, *, reason: str) -> None:
        self.closed.append(reason)


@pytest.mark.parametrize("reason", ["closespider_pagecount", "closespider_timeout"])
def test_a_crawl_that_loses_its_walk_while_it_closes_ends(
    child: ValkeyChild, tmp_path: Path, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    """It waits for what workers have under way, and takes home what they bring."""

    @awaited
    async def ends() -> None:
        rig = Rig(child, tmp_path, safe=True)
        await rig.begin()
        engine: Any = Engine()
        rig.ending.crawler.engine = engine
        rig.ending.crawler.crawling = True
        rig.ending.harvest = SimpleNamespace(idle=False)  # type: ignore[assignment]
        rig.run.changed = rig.ending.changed
        rig.ending.why.asked(reason, idle=False)
        rig.run.start()
        closing = asyncio.ensure_future(rig.ending._bring_home())
        await until(lambda: rig.run.state is not None and rig.run.settled)
        assert not closing.done()
        name = rig.intake.keys.of(rig.intake.run)
        await rig.server.command("HSET", name, "owner", "there", "owner_until", 10**15)
        rig.run.buffer.put([(key(1), body(1))], {})
        rig.run.filled()
        await asyncio.wait_for(closing, 20)
        assert caplog.text.count("Another coordinator has taken this crawl over") == 1
        assert not await rig.ending._report(reason, stored=True)
        assert engine.closed == []  # it was closing
        rig.book.close()
        await rig.server.close()

    ends()

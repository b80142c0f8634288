"""How a coordinator takes a run over from another one, on a real server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from awaiting import awaited
from ledgers import IDENTITY
from scrapy import Spider
from scrapy.utils.test import get_crawler
from shared_runs import SharedRun
from valkey_child import ValkeyChild, valkey

from scrapy_distributed.coordinator.buffer import Buffer
from scrapy_distributed.coordinator.home_book import HomeBook
from scrapy_distributed.coordinator.shared_entrance import Entrance
from scrapy_distributed.coordinator.shared_run import SharedRun as Run
from scrapy_distributed.shared.harvest import Harvest
from scrapy_distributed.shared.intake import Intake
from scrapy_distributed.shared.server import Server


@pytest.fixture(scope="module")
def child() -> Iterator[ValkeyChild]:
    with valkey() as child:
        yield child


class Heir:
    """A coordinator that waits for the walk of *shared*, in another *folder*. *meanwhile*: what happens right before it
    takes the walk."""

    def __init__(self, shared: SharedRun, folder: Path, meanwhile: Callable[[], Awaitable[None]]) -> None:
        intake = Intake(shared.server, shared.project)
        intake.run = shared.name
        stats: Any = get_crawler(Spider).stats
        harvest = Harvest(shared.server, shared.project, shared.name, owner=intake.owner)
        self.run = Run(
            intake, harvest, buffer=Buffer(), spider=Spider("s"), stats=stats, walk_is_done=lambda: False,
            own_is_safe=lambda: True, changed=lambda: None, failed=lambda error: None,
        )  # fmt: skip
        take, run = self.run.take, self.run

        async def takes() -> bool:
            await meanwhile()
            return await take()

        run.take = takes  # type: ignore[method-assign]
        self.ending: Any = SimpleNamespace(closing=False, passive=False, close=lambda reason: None)
        self.book = HomeBook(folder, entered=lambda keys: None)

    async def owns(self) -> bool:
        entrance = Entrance(self.run.intake.server, self.book, ending=self.ending, extra={})
        try:
            return await entrance.owns(self.run, IDENTITY, home=False)
        finally:
            self.book.close()


@awaited
async def test_who_takes_a_run_over_knows_what_was_told_of_it_right_before(child: ValkeyChild, tmp_path: Path) -> None:
    server = await Server.connect(child.address)
    shared = await SharedRun.begin(server)

    async def is_stopped_and_left() -> None:
        await shared.control.stop("cancelled")
        await shared.intake.leave_walk()

    heir = Heir(shared, tmp_path, is_stopped_and_left)
    assert await heir.owns()
    assert heir.run.state is not None
    assert heir.run.state.walked is not None
    assert heir.run.state.stopped == "cancelled"
    await server.close()


@awaited
async def test_a_run_whose_result_was_written_right_before_is_not_taken_over(
    child: ValkeyChild, tmp_path: Path
) -> None:
    server = await Server.connect(child.address)
    shared = await SharedRun.begin(server)

    async def is_stored_and_left() -> None:
        await shared.intake.walked()
        await shared.intake.stored()
        await shared.intake.leave_walk()

    heir = Heir(shared, tmp_path, is_stored_and_left)
    assert not await heir.owns()
    assert heir.ending.passive
    assert not heir.run.owned
    assert (await shared.intake.state()).owner == ""
    await server.close()

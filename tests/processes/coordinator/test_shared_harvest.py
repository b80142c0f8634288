"""What comes home from the attempts of a shared run, on a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from awaiting import awaited
from ledgers import IDENTITY, receipt
from scrapy import Spider
from shared_runs import SharedRun
from valkey_child import ValkeyChild, valkey

from scrapy_distributed.coordinator.home_book import HomeBook
from scrapy_distributed.coordinator.shared_harvest import IntoSpool, SharedHarvest
from scrapy_distributed.items.lines import ItemWriter
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.shared.server import Server

PAGE = "aa" * 20


@pytest.fixture(scope="module")
def child() -> Iterator[ValkeyChild]:
    with valkey() as child:
        yield child


def lines(*items: tuple[int, str, str]) -> bytes:
    """Of (position, page, name)."""
    writer = ItemWriter()
    return b"".join(
        line for position, page, name in items
        for line in writer.lines({"name": name}, position=position, page=page)
    )  # fmt: skip


class Rig:
    """A coordinator's side of *shared*, with its items in *folder*."""

    def __init__(self, shared: SharedRun, folder: Path) -> None:
        self.shared = shared
        self.came: list[Attempt] = []
        self.spool = Spool(folder / "ledger.sqlite", Spider)
        self.book = HomeBook(self.spool.beside, entered=lambda keys: None)
        self.book.begin(shared.name, IDENTITY)
        self.spool.begin(shared.name, ())
        run: Any = SimpleNamespace(
            sure=lambda call: call(), look_again=lambda: None, changed=lambda: None, has_taken=lambda: None,
            news=lambda: asyncio.sleep(0.01),
        )  # fmt: skip
        self.harvest = SharedHarvest(
            run, shared.harvest, destination=IntoSpool(self.book, self.came.append), spool=self.spool, book=self.book,
            spider=Spider("s"), fingerprint=lambda request: b"", counts=lambda home: None, clock=None,
        )  # fmt: skip

    async def names(self, attempts: int) -> list[str]:
        """Of the items of so many attempts, in the spool."""
        bringing = asyncio.ensure_future(self.harvest.bring())
        while len(self.came) < attempts and not bringing.done():
            await asyncio.sleep(0.01)
        bringing.cancel()
        files = [self.spool.folder / attempt.spool_name for attempt in self.came]
        return [json.loads(line)[-1]["name"] for file in files for line in file.read_bytes().splitlines()]


@awaited
async def test_a_page_of_a_request_that_goes_out_again_comes_with_the_attempt_that_settles_it(
    child: ValkeyChild, tmp_path: Path
) -> None:
    """It has brought items in the first one as well, which do not count."""
    server = await Server.connect(child.address)
    shared = await SharedRun.begin(server)
    worker = shared.worker()
    await shared.add(1, 2)
    first = await shared.claim()
    await worker.stage_items(first, 0, lines((0, "", "one"), (1, PAGE, "below two")))
    await worker.settle(first, receipt(first.attempt, 0b01, finish_reason="shutdown", items=2), lines=1)
    second = await shared.claim()
    await worker.stage_items(second, 0, lines((0, "", "two"), (0, PAGE, "below two")))
    await worker.settle(second, receipt(second.attempt, items=2), lines=1)
    assert (second.attempt.batch, second.attempt.size) == (first.attempt.batch, 1)
    rig = Rig(shared, tmp_path)
    assert await rig.names(2) == ["one", "two", "below two"]
    rig.book.close()
    await server.close()

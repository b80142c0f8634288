"""Items of the attempts of a shared run go into a stream, on a real server: by a coordinator, and by the next one, in
another folder, from where the first one has ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from errno import EIO
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
from awaiting import awaited
from ledgers import IDENTITY, receipt
from scrapy import Field, Item, Spider
from scrapy.settings import Settings
from scrapy.utils.test import get_crawler
from shared_runs import SharedRun, begun
from twisted.internet.task import Clock
from valkey_child import ValkeyChild, valkey

from scrapy_distributed.coordinator import into_stream
from scrapy_distributed.coordinator.buffer import Buffer
from scrapy_distributed.coordinator.home_book import HomeBook
from scrapy_distributed.coordinator.into_stream import IntoStream
from scrapy_distributed.coordinator.shared_harvest import SharedHarvest
from scrapy_distributed.coordinator.shared_run import SharedRun as Run
from scrapy_distributed.dispatch import room
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.items.lines import ItemWriter
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.shared.harvest import Entry, Home, Streamed

PAGE = "aa" * 20
PART = 3


class Price(Item):
    name = Field()
    cents = Field(serializer=str)


class StrangeError(Exception):
    """None that a feed knows."""


def fails(value: object) -> object:
    raise StrangeError(value)


class Strange(Item):
    """What can't be written as JSON: by its kind, or as its serializer fails."""

    name = Field(serializer=lambda value: object())
    other = Field(serializer=fails)


def rated(value: object) -> str:
    if str(value) in Rated.away:
        raise ConnectionError("the service with the rates is away")
    return str(value)


class Rated(Item):
    number = Field(serializer=rated)

    away: ClassVar[set[str]] = set()  # for which numbers its service does not answer


class EndedError(Exception):
    """The coordinator was killed."""


@pytest.fixture(scope="module")
def child() -> Iterator[ValkeyChild]:
    with valkey() as child:
        yield child


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(into_stream, "PART", PART)


def lines(*items: tuple[int, str, Any]) -> bytes:
    """Of (position, page, item)."""
    writer = ItemWriter()
    return b"".join(line for position, page, item in items for line in writer.lines(item, position=position, page=page))


async def settle(shared: SharedRun, requests: int, *staged: tuple[int, str, Any], parts: int = 1) -> None:
    """An attempt at so many *requests* has brought these."""
    first = (await shared.intake.state()).balance.diverted
    await shared.add(*range(first, first + requests))
    claimed = await shared.claim()
    text = lines(*staged)
    rows = text.splitlines(keepends=True)
    for index in range(parts):
        some = rows[index * len(rows) // parts : (index + 1) * len(rows) // parts]
        await shared.worker().stage_items(claimed, index, b"".join(some))
    await shared.worker().settle(claimed, receipt(claimed.attempt, items=len(staged)), lines=parts)


class Coordinator:
    """One at *shared*, in a *folder* of its own, which ends after so many calls that *publish*."""

    def __init__(self, shared: SharedRun, folder: Path, *, publish: int = 1000, **settings: Any) -> None:
        self.shared = shared
        self.calls = publish
        stats: Any = get_crawler(Spider).stats
        spool = Spool(folder / "ledger.sqlite", Spider)
        book = HomeBook(spool.beside, entered=lambda keys: None)
        spider = Spider("s")
        self.run = Run(
            shared.intake, shared.harvest, buffer=Buffer(), spider=spider, stats=stats, walk_is_done=lambda: False,
            own_is_safe=lambda: True, changed=lambda: None, failed=lambda error: None,
        )  # fmt: skip
        harvest: Any = self.run.harvest
        self._publish = harvest.publish
        harvest.publish = self.publish
        book.begin(shared.name, IDENTITY)
        spool.begin(shared.name, ())
        destination = IntoStream(self.run, spider=spider, settings=Settings(settings))
        self.harvest = SharedHarvest(
            self.run, self.run.harvest, destination=destination, spool=spool, book=book, spider=spider,
            fingerprint=lambda request: b"", counts=lambda home: None, clock=Clock(),
        )  # fmt: skip
        self.book = book

    async def publish(self, home: Home, *given: Any) -> Streamed:
        self.calls -= 1
        if self.calls < 0:
            raise EndedError
        streamed: Streamed = await self._publish(home, *given)
        return streamed

    async def bring(self) -> None:
        """Until all has come."""
        bringing = asyncio.ensure_future(self.harvest.bring())
        try:
            while (await self.shared.intake.state()).home and not bringing.done():
                await asyncio.sleep(0.01)
            if bringing.done():
                bringing.result()
        finally:
            bringing.cancel()
            self.book.close()


async def stream(shared: SharedRun) -> list[Any]:
    rows = await shared.server.command("XRANGE", shared.key("items"), "-", "+")
    return [json.loads(row[row.index(b"item") + 1]) for _, row in rows]


async def numbers(shared: SharedRun) -> list[str]:
    """Those of the entries."""
    rows = await shared.server.command("XRANGE", shared.key("items"), "-", "+")
    return [row[row.index(b"number") + 1].decode() for _, row in rows]


NAMES = [(number % 2, "", {"name": f"n{number}"}) for number in range(8)]


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_the_next_one_goes_on_where_the_first_has_ended(child: ValkeyChild, tmp_path: Path, calls: int) -> None:
    @awaited
    async def goes_on() -> None:
        async with begun(child.address) as shared:
            await settle(shared, 2, *NAMES, parts=2)
            with pytest.raises(EndedError):
                await Coordinator(shared, tmp_path / "one", publish=calls).bring()
            assert len(await stream(shared)) == calls * PART
            await Coordinator(shared, tmp_path / "two").bring()
            assert await stream(shared) == [item for _, _, item in NAMES]
            assert (await shared.account.results()).good
            assert await shared.staged() == []

    goes_on()


@awaited
async def test_a_page_brings_its_items_once_whoever_takes_them(child: ValkeyChild, tmp_path: Path) -> None:
    """The first one is killed amid the items of an attempt that was the first to bring the page; nothing that only it
    knows decides what counts."""
    async with begun(child.address) as shared:
        shared_page = [(0, PAGE, {"name": f"page {number}"}) for number in range(2)]
        await settle(shared, 1, *NAMES[::2], *shared_page)
        await settle(shared, 1, *shared_page, NAMES[0])
        with pytest.raises(EndedError):
            await Coordinator(shared, tmp_path / "one", publish=1).bring()
        await Coordinator(shared, tmp_path / "two").bring()
        expected = [*NAMES[::2], *shared_page, NAMES[0]]
        assert await stream(shared) == [item for _, _, item in expected]
        results = await shared.account.results()
        assert (results.counted, results.good) == (len(expected), True)


@awaited
async def test_items_are_what_a_feed_of_json_lines_has(child: ValkeyChild, tmp_path: Path) -> None:
    async with begun(child.address) as shared:
        await settle(shared, 1, (0, "", Price(name="tée", cents=3)), (0, "", {"name": "tée", "more": 1}))
        given = {"FEED_EXPORT_ENCODING": "utf-8", "FEED_EXPORT_FIELDS": ["cents", "name"]}
        await Coordinator(shared, tmp_path, **given).bring()
        rows = await shared.server.command("XRANGE", shared.key("items"), "-", "+")
        entries = [Entry(row[1], row[3].decode()) for _, row in rows]
        assert entries == [
            Entry('{"cents": "3", "name": "tée"}'.encode(), f"{__name__}.Price"),
            Entry('{"name": "tée"}'.encode(), "dict"),
        ]


@awaited
async def test_what_json_can_not_express_is_told_and_all_others_are_there(
    child: ValkeyChild, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with begun(child.address) as shared:
        await settle(shared, 1, NAMES[0], (0, "", Strange(name="a")), NAMES[2], (0, "", Strange(other="b")))
        await Coordinator(shared, tmp_path).bring()
        assert await stream(shared) == [NAMES[0][2], NAMES[2][2]]
        results = await shared.account.results()
        assert (results.counted, results.there, results.lost, results.good) == (2, 2, 2, False)
        assert "2 items missing there" in results.lines()[-1]
    assert "2 items of batch 1 can't be written as JSON, and are not in the stream" in caplog.text


@awaited
async def test_an_item_that_could_not_be_written_is_not_put_there_by_the_next_one(
    child: ValkeyChild, tmp_path: Path
) -> None:
    """Its serializer needs a service that was away for the first coordinator, which was killed amid the attempt."""
    async with begun(child.address) as shared:
        items = [(0, "", Rated(number=number)) for number in range(8)]
        await settle(shared, 1, *items)
        Rated.away = {"1", "4"}
        with pytest.raises(EndedError):
            await Coordinator(shared, tmp_path / "one", publish=1).bring()
        assert await numbers(shared) == ["1", "3"]
        Rated.away = {"4"}
        await Coordinator(shared, tmp_path / "two").bring()
        assert await stream(shared) == [{"number": str(number)} for number in (0, 2, 3, 5, 6, 7)]
        assert await numbers(shared) == ["1", "3", "4", "6", "7", "8"]
        results = await shared.account.results()
        assert (results.counted, results.put, results.lost, results.good) == (6, 6, 2, False)


@awaited
async def test_a_draft_that_can_not_be_read_for_a_moment_is_gone_on_with(
    child: ValkeyChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first part is in the stream by then."""
    real, turns = into_stream.lines_of, count()

    def fails_once(file: Any, spider: type[Spider]) -> Iterator[Any]:
        turn = next(turns)
        for number, line in enumerate(real(file, spider)):
            if turn == 0 and number == 2 * PART:
                raise OSError(EIO, "Input/output error")
            yield line

    monkeypatch.setattr(into_stream, "lines_of", fails_once)
    monkeypatch.setattr(room, "FIRST_PAUSE", 0.01)
    async with begun(child.address) as shared:
        await settle(shared, 2, *NAMES)
        coordinator = Coordinator(shared, tmp_path)
        await coordinator.bring()
        assert await stream(shared) == [item for _, _, item in NAMES]
        await coordinator.run.look()  # the server has what it was told of
        assert (await shared.account.results()).good
    assert next(turns) == 2


@awaited
async def test_items_that_can_not_be_read_are_missing_and_told(
    child: ValkeyChild, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with begun(child.address) as shared:
        await shared.add(1)
        claimed = await shared.claim()
        await shared.worker().stage_items(claimed, 0, b"no line of an item\n")
        await shared.worker().settle(claimed, receipt(claimed.attempt, items=1), lines=1)
        await Coordinator(shared, tmp_path).bring()
        results = await shared.account.results()
        assert (results.counted, results.lost, results.good) == (0, 1, False)
        assert "1 item missing there, can't be read or can't be written as JSON" in results.lines()[-1]
    assert "Items of batch 1 from w1 can't be read" in caplog.text


@awaited
async def test_a_server_that_has_forgotten_entries_is_noticed(child: ValkeyChild, tmp_path: Path) -> None:
    """How many readers may have seen is kept for check."""
    async with begun(child.address) as shared:
        await settle(shared, 1, *NAMES[::2])
        coordinator = Coordinator(shared, tmp_path)
        home = await shared.harvest.first()
        assert home is not None
        entries = [Entry(b"{}", "dict")] * 2
        assert await coordinator.run.publish(home, 0, entries) == (2, 0)
        await shared.server.command("HDEL", shared.key("attempt", home.token.rpartition(".")[0]), "streamed")
        await shared.server.command("HDEL", shared.key(), "streamed")
        for _ in range(2):
            with pytest.raises(LedgerError, match="has forgotten what it had taken"):
                await coordinator.run.publish(home, 2, entries)
        results = await shared.account.results()
        assert results.reread == 2
        assert "2 entries forgotten by the server" in results.lines()[-1]
        coordinator.book.close()

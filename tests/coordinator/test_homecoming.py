"""What has come home goes into the feeds of the coordinator. A real ledger, a real spool, Scrapy's own exporter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from ledgers import IDENTITY, a_batch, receipt
from scrapy import Spider, signals
from scrapy.extensions.feedexport import FeedExporter
from scrapy.utils.defer import deferred_from_coro
from scrapy.utils.test import get_crawler
from twisted.internet import reactor

from scrapy_distributed.coordinator.homecoming import Homecoming
from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.items.lines import ItemWriter
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.rules import Haul
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt


class Command:
    """One command of the run of the ledger in *folder*, with the feed out.jl there. *heard*: the items that were told
    by ``item_scraped``; *changes*: how often it was told that all is in."""

    def __init__(self, folder: Path, *, feed: bool = True, **options: Any) -> None:
        self.out = folder / "out.jl"
        feeds = {str(self.out): {"format": "jl", "overwrite": True, **options}} if feed else {}
        self.crawler = get_crawler(Spider, {"FEEDS": feeds, "EXTENSIONS": {}})
        self.crawler.spider = Spider(name="s")
        self.exporter = FeedExporter.from_crawler(self.crawler) if feed else None
        self.crawler.get_extension = lambda kind: self.exporter  # type: ignore[method-assign,assignment,return-value]
        self.ledger = Ledger(folder / "s.sqlite")
        self.spool = Spool(self.ledger.path, Spider)
        self.heard: list[Any] = []
        self.changes = 0
        self.homecoming = Homecoming(
            self.crawler, spool=self.spool, ledger=self.ledger.harvest, pipelines=(), clock=reactor,
            changed=self._changed, ledger_failed=lambda error: pytest.fail(str(error)),
        )  # fmt: skip
        self.crawler.signals.connect(self._hear, signals.item_scraped)

    def _changed(self) -> None:
        self.changes += 1

    def _hear(self, item: Any) -> None:
        self.heard.append(item["n"])

    async def begin(self) -> None:
        if self.exporter is not None:
            assert self.crawler.spider is not None
            self.exporter.open_spider(self.crawler.spider)
        walk = self.ledger.begin(IDENTITY, resume=True)
        self.homecoming.begin(self.ledger.run, walk=walk)

    def bring(self, *numbers: Any, batch: int) -> Attempt:
        """An attempt counts that has these."""
        attempt = a_batch(self.ledger, batch)
        self.keep(attempt, *numbers)
        return attempt

    def keep(self, attempt: Attempt, *numbers: Any) -> None:
        writer = ItemWriter()
        data = b"".join(line for number in numbers for line in writer.lines({"n": number}, position=0))
        with self.spool.draft() as draft:
            draft.file.write(data)
            draft.keep(attempt.spool_name)
        haul = Haul(items=len(numbers), size=len(data), digest=sha256(data).hexdigest())
        self.ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=1, haul=haul)
        self.homecoming.came(attempt)

    def scrape(self, *numbers: Any) -> None:
        """The coordinator itself."""
        for number in numbers:
            item = {"n": number}
            self.crawler.signals.send_catch_log(
                signals.item_scraped, item=item, response=None, spider=self.crawler.spider
            )

    async def finish(self) -> None:
        await deferred_from_coro(self.homecoming.finish())

    async def end(self) -> bool:
        await self.finish()
        return bool(await deferred_from_coro(self.homecoming.close()))

    def drop(self) -> None:
        """As kill -9 does."""
        self.ledger.close()
        self.homecoming.own.close()
        for slot in self.exporter.slots if self.exporter is not None else ():
            if slot.file is not None:
                slot.file.close()

    def written(self) -> list[Any]:
        return [json.loads(line)["n"] for line in self.out.read_text().splitlines()]


Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """The next command of a run; the one before is dropped as by kill -9."""
    made: list[Command] = []

    def start(**options: Any) -> Command:
        for earlier in made:
            earlier.drop()
        made.append(Command(tmp_path, **options))
        return made[-1]

    yield start
    made[-1].drop()


@pytest_twisted.ensureDeferred
async def test_what_is_new_is_told_and_written_each_once(start: Start) -> None:
    command = start()
    await command.begin()
    assert command.homecoming.idle
    command.scrape(1)
    command.bring(2, 3, batch=0)
    command.bring(4, batch=1)
    assert await command.end()
    assert command.homecoming.idle
    assert command.changes > 0
    assert command.written() == command.heard == [1, 2, 3, 4]


@pytest.mark.parametrize("walked", [True, False])
@pytest_twisted.ensureDeferred
async def test_what_an_earlier_command_has_told_of_is_written_again_and_not_told(start: Start, walked: bool) -> None:
    first = start()
    await first.begin()
    first.scrape(1)
    first.bring(3, batch=1)
    first.bring(2, batch=0)
    await first.finish()
    assert first.homecoming.own_is_safe()
    if walked:
        first.ledger.intake.walked()
    second = start()
    await second.begin()
    if not walked:
        second.scrape(1)  # its walk begins anew
    second.bring(5, batch=2)
    assert await second.end()
    assert sorted(second.written()) == [1, 2, 3, 5]
    assert second.heard == ([5] if walked else [1, 5])
    own = sorted(path.name for path in second.spool.folder.glob("own-*"))
    assert own == (["own-1.jl", "own-2.jl"] if walked else ["own-1.jl"])
    third = start()
    await third.begin()
    assert await third.end()
    assert sorted(third.written()) == ([1, 2, 3, 5] if walked else [2, 3, 5])
    assert third.heard == []


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_appended_to_leaves_no_copy_of_what_the_run_has_written(start: Start) -> None:
    """Also where it was killed: what it had written by then is known after each file of the spool."""
    left = b'{"n": "older"}\n'
    for batch, item in enumerate("abc"):
        command = start(overwrite=False)
        command.out.write_bytes(left)  # a command that is killed does not close its file
        await command.begin()
        command.bring(9000 * item, batch=batch)
        await command.finish()
        left = command.out.read_bytes()
        assert len(left) > 9000 * (batch + 1)
        assert list(command.spool.folder.glob("*.cut")) == []
    assert await command.end()
    assert [(found[0], len(found)) for found in command.written()] == [("o", 5), ("a", 9000), ("b", 9000), ("c", 9000)]


@pytest_twisted.ensureDeferred
async def test_files_of_the_run_that_are_missing_are_told_and_the_feed_is_left_alone(start: Start) -> None:
    first = start()
    await first.begin()
    attempt = first.bring(1, batch=0)
    assert await first.end()
    second = start()
    second.spool.beside.joinpath(first.ledger.run, attempt.spool_name).unlink()
    with pytest.raises(LedgerError) as refused:
        await second.begin()
    folder = second.spool.folder
    assert str(refused.value) == (
        f"{folder / attempt.spool_name}: items that have come home are lost, those of batch 1: found no file, expected"
        " 1 item in 14 bytes. Put back what is missing, or let it be crawled again: scrapy batches retry --lost-items"
        f" --ledger {second.ledger.path}, then the same crawl command"
    )
    await second.end()
    assert second.written() == [1]


@pytest_twisted.ensureDeferred
async def test_where_nothing_can_be_kept_it_does_not_begin(start: Start) -> None:
    command = start()
    command.spool.beside.write_bytes(b"")
    with pytest.raises(LedgerError, match="can't keep the items of this run"):
        await command.begin()


@pytest_twisted.ensureDeferred
async def test_own_items_that_can_not_be_kept_are_told_once_and_are_not_safe(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    command = start()
    assert not command.homecoming.own_is_safe()
    await command.begin()
    assert command.homecoming.own_is_safe()
    command.scrape(1, open, len)
    command.scrape(2)
    assert not command.homecoming.own_is_safe()
    assert caplog.text.count("An item that was scraped here can't be kept for a later command") == 1


@pytest_twisted.ensureDeferred
async def test_a_feed_that_lacks_an_item_is_not_stored_and_the_next_command_writes_it(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = start()
    await first.begin()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        assert first.exporter is not None
        patch.setattr(first.exporter.slots[0].storage, "open", full)
        first.bring(1, batch=0)
        await first.finish()
    first.bring(2, batch=1)
    assert not await first.end()
    assert "A feed can't be written" in caplog.text
    second = start()
    await second.begin()
    assert await second.end()
    assert second.written() == [1, 2]


def change_a_digit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"n":1', b'"n":7'))


@pytest.mark.parametrize("feed", [True, False])
@pytest.mark.parametrize("damage", [Path.unlink, change_a_digit])
@pytest_twisted.ensureDeferred
async def test_of_what_is_lost_nothing_is_written_and_it_is_crawled_again_when_that_is_wished(
    start: Start, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], feed: bool
) -> None:
    first = start(feed=feed)
    await first.begin()
    lost = [first.bring(1, batch=0), first.bring(2, 3, batch=1)][0]
    await first.finish()
    first.ledger.intake.walked()
    damage(first.spool.folder / lost.spool_name)
    first.homecoming.came(lost)
    assert not await first.end()
    assert caplog.text.count("lost, those of batch 1: found ") == 1
    assert "retry --lost-items --ledger" in caplog.text
    first.drop()
    with closing(Ledger(first.ledger.path)) as ledger:  # as the command does
        assert ledger.control.lose_items([lost.spool_name]) == 1
    second = start(feed=feed)
    await second.begin()
    assert not second.ledger.account.settled()
    (batch,) = [number for number, _ in second.ledger.bookings.ready()]
    again = second.ledger.bookings.bind(batch, "n1", "http://n1")[0]
    second.keep(again, 1)
    assert await second.end()
    assert second.ledger.account.end()
    if feed:
        assert sorted(second.written()) == [1, 2, 3]


@pytest.mark.parametrize("feed", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_run_does_not_end_without_what_a_ledger_that_can_not_be_read_has_kept_from_the_feeds(
    start: Start, monkeypatch: pytest.MonkeyPatch, feed: bool
) -> None:
    def fail(attempt: Attempt) -> None:
        raise LedgerUnavailableError("disk I/O error")

    command = start(feed=feed)
    await command.begin()
    monkeypatch.setattr(command.ledger.harvest, "file", fail)
    with pytest.raises(LedgerUnavailableError):
        command.bring(1, batch=0)
    assert not await command.end()


@pytest_twisted.ensureDeferred
async def test_a_ledger_that_can_not_note_what_was_appended_is_no_harm_to_the_feed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(written: Any) -> None:
        raise LedgerUnavailableError("disk is full")

    command = start(overwrite=False)
    await command.begin()
    monkeypatch.setattr(command.ledger.harvest, "has_appended", fail)
    command.bring(1, batch=0)
    command.bring(2, batch=1)
    assert await command.end()
    assert command.written() == [1, 2]


@pytest_twisted.ensureDeferred
async def test_all_that_is_lost_is_told_in_the_end(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    command = start()
    await command.begin()
    for batch in range(3):
        attempt = command.bring(batch, batch=batch)
        (command.spool.folder / attempt.spool_name).unlink()
    command.bring(7, batch=7)
    assert not await command.end()
    assert command.written() == [7]
    assert "found no file, expected 1 item in 14 bytes (3 such files)." in caplog.text
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("which", [1, 2])
@pytest_twisted.ensureDeferred
async def test_own_items_that_are_lost_are_told_also_the_last_ones_and_scraped_again(start: Start, which: int) -> None:
    """A file in the middle leaves a gap in the numbers, and its name is not given again."""
    for number in (1, 2):
        command = start()
        await command.begin()
        command.scrape(number)
        assert command.homecoming.own_is_safe()
        command.ledger.intake.walked()
    later = start()
    (command.spool.folder / f"own-{which}.jl").unlink()
    with pytest.raises(LedgerError, match=rf"own-{which}\.jl: .*, those of what the coordinator has scraped: found no"):
        await later.begin()
    assert later.ledger.control.lose_items([f"own-{which}.jl"]) == 0
    again = start()
    await again.begin()
    again.scrape(1, 2)
    assert again.homecoming.own_is_safe()
    assert await again.end()
    assert again.written() == [1, 2]


@pytest_twisted.ensureDeferred
async def test_what_a_killed_command_has_written_after_its_items_were_safe_is_no_damage(start: Start) -> None:
    first = start()
    await first.begin()
    first.scrape(1)
    assert first.homecoming.own_is_safe()
    first.ledger.intake.walked()
    with (first.spool.folder / "own-1.jl").open("ab") as torn:
        torn.write(b'[null,0,{"n"')
    second = start()
    await second.begin()
    assert await second.end()
    assert second.written() == [1]


@pytest_twisted.ensureDeferred
async def test_without_a_feed_they_are_told_and_stay_in_the_spool(start: Start) -> None:
    command = start(feed=False)
    await command.begin()
    attempt = command.bring(1, 2, batch=0)
    assert await command.end()
    assert command.heard == [1, 2]
    lines = command.spool.lines(attempt.spool_name, command.ledger.harvest.file(attempt))
    assert [line.item["n"] for line in lines] == [1, 2]


@pytest_twisted.ensureDeferred
async def test_what_earlier_runs_have_left_is_removed_when_this_one_is_over(start: Start) -> None:
    first = start()
    await first.begin()
    first.bring(1, batch=0)
    assert await first.end()
    first.ledger.intake.walked()
    assert first.ledger.account.end()
    first.homecoming.ended()
    assert first.spool.folder.exists()
    second = start()
    await second.begin()
    assert first.spool.folder.exists()
    second.homecoming.ended()
    assert not first.spool.folder.exists()
    assert second.spool.folder.exists()

"""What a coordinator scrapes itself, where workers write feeds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from ledgers import IDENTITY
from scrapy import Spider, signals
from scrapy.crawler import Crawler
from scrapy.utils.defer import deferred_from_coro
from scrapy.utils.test import get_crawler

from scrapy_distributed.config.config import Config
from scrapy_distributed.coordinator.own_feed import OwnFeed, own_url
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.records import AcceptedAttempt
from scrapy_distributed.ledger.sqlite import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "l.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        yield ledger


class Command:
    """One command of a coordinator whose workers write to *folder*."""

    def __init__(self, ledger: Ledger, folder: Path, *, walk: bool, **settings: Any) -> None:
        url = f"file://{folder}/%(batch)s_%(name)s.jl"
        self.crawler: Crawler = get_crawler(Spider, {"DISTRIBUTED_TARGET_FEED_URL": url, **settings})
        self.crawler.spider = Spider(name="s")
        self.ledger = ledger
        config = Config.from_settings(self.crawler.settings)
        spool = Spool(ledger.path, Spider)
        self.feed = OwnFeed(self.crawler, config=config, spool=spool, ledger=ledger.harvest)
        self.feed.begin(ledger.run, walk=walk)

    async def scrape(self, *numbers: int) -> None:
        for number in numbers:
            await deferred_from_coro(
                self.crawler.signals.send_catch_log_async(
                    signals.item_scraped, item={"n": number}, response=None, spider=self.crawler.spider
                )
            )

    def leave(self) -> None:
        """As when it is killed."""
        assert self.feed.exporter is not None
        self.feed.own.close()
        for slot in self.feed.exporter.slots:
            slot.file.close()

    async def close(self) -> bool:
        return bool(await deferred_from_coro(self.feed.close()))

    def accepted(self) -> list[AcceptedAttempt]:
        with closing(LedgerReader(self.ledger.path)) as reader:
            return reader.accepted(1)


def written(folder: Path) -> list[str]:
    return sorted(path.read_text() for path in folder.iterdir())


@pytest_twisted.ensureDeferred
async def test_it_goes_where_the_feeds_go_as_a_batch_0(ledger: Ledger, tmp_path: Path) -> None:
    command = Command(ledger, tmp_path / "items", walk=True)
    await command.scrape(1, 2)
    assert command.feed.own_is_safe()
    assert await command.close()
    ((path,),) = [list((tmp_path / "items").iterdir())]
    assert (path.read_text(), path.name[:2], path.name[-5:]) == ('{"n": 1}\n{"n": 2}\n', "0-", "_s.jl")
    (batch,) = command.accepted()
    assert (batch.label, batch.items) == ("0", 2)
    assert [(file.url, file.items) for file in batch.feeds] == [(f"file://{path}", 2)]


@pytest_twisted.ensureDeferred
async def test_without_items_there_is_no_feed(ledger: Ledger, tmp_path: Path) -> None:
    command = Command(ledger, tmp_path / "items", walk=True)
    assert await command.close()
    assert not (tmp_path / "items").exists()
    assert command.accepted() == []


@pytest_twisted.ensureDeferred
async def test_what_a_killed_command_had_not_stored_is_written_by_the_next(ledger: Ledger, tmp_path: Path) -> None:
    first = Command(ledger, tmp_path / "items", walk=True)
    await first.scrape(1)
    assert first.feed.own_is_safe()  # and the walk is done; then it is killed
    first.leave()
    second = Command(ledger, tmp_path / "items", walk=False)
    await second.scrape(2)
    assert await second.close()
    assert written(tmp_path / "items")[-1] == '{"n": 1}\n{"n": 2}\n'
    third = Command(ledger, tmp_path / "items", walk=False)  # nothing is left for it
    await third.scrape(3)
    assert await third.close()
    assert [batch.items for batch in third.accepted()] == [2, 1]


@pytest.mark.parametrize("which", [1, 2])
@pytest_twisted.ensureDeferred
async def test_what_is_lost_of_what_was_not_stored_is_told_and_scraped_again(
    ledger: Ledger, tmp_path: Path, which: int
) -> None:
    for number in (1, 2):
        command = Command(ledger, tmp_path / "items", walk=number == 1)
        await command.scrape(number)
        assert command.feed.own_is_safe()
        command.leave()
    ledger.intake.walked()
    (tmp_path / "l.sqlite.items" / ledger.run / f"own-{which}.jl").unlink()
    with pytest.raises(LedgerError, match=rf"own-{which}\.jl: .*found no file, expected 1 item.*retry --lost-items"):
        Command(ledger, tmp_path / "items", walk=False)
    ledger.control.lose_items([f"own-{which}.jl"])
    again = Command(ledger, tmp_path / "items", walk=ledger.begin(IDENTITY, resume=True))
    await again.scrape(1, 2)
    assert await again.close()
    assert [batch.items for batch in again.accepted()] == [2]


@pytest_twisted.ensureDeferred
async def test_a_walk_that_is_run_again_scrapes_it_again(ledger: Ledger, tmp_path: Path) -> None:
    first = Command(ledger, tmp_path / "items", walk=True)
    await first.scrape(1)
    assert await first.close()
    second = Command(ledger, tmp_path / "items", walk=True)
    await second.scrape(1)
    assert await second.close()
    (batch,) = second.accepted()
    assert batch.items == 1
    assert len(written(tmp_path / "items")) == 2  # only one of them counts


@pytest_twisted.ensureDeferred
async def test_a_place_that_refuses_is_told_once_and_tried_again(
    ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "items").write_text("no folder")
    first = Command(ledger, tmp_path / "items", walk=True)
    with caplog.at_level(logging.ERROR):
        await first.scrape(1, 2)
    assert caplog.text.count("can't be written. They are kept") == 1
    assert first.feed.own_is_safe()
    assert not await first.close()
    assert first.accepted() == []
    (tmp_path / "items").unlink()
    second = Command(ledger, tmp_path / "items", walk=False)
    assert await second.close()
    assert written(tmp_path / "items") == ['{"n": 1}\n{"n": 2}\n']


@pytest.mark.parametrize(
    ("feed", "expected"),
    [
        ("ftp://h/%(batch)s_%(name)s.jl", "ftp://h/0-t_%(name)s.jl"),
        ("ftp://h/%%(batch)s/%(batch)s.jl", "ftp://h/%%(batch)s/0-t.jl"),
        ("ftp://h/%(batch)s/%(_job)s.jl", "ftp://h/0/r-0-1-t.jl"),
    ],
)
def test_its_name_has_what_only_jobs_have(feed: str, expected: str) -> None:
    assert own_url(feed, token="t", job="r-0-1-t") == expected

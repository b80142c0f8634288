"""What a feed was to get is in its files, or can't be expressed there; else it is not stored. Scrapy's own exporter."""

from __future__ import annotations

import contextlib
import errno
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import scrapy
from scrapy import signals
from scrapy.exporters import JsonLinesItemExporter
from scrapy.extensions.feedexport import FileFeedStorage, ItemFilter
from scrapy.utils.defer import deferred_from_coro
from scrapy.utils.test import get_crawler
from twisted.internet.defer import Deferred

from scrapy_distributed.feeds.feeds import Feeds

FULL = OSError(errno.ENOSPC, "No space left on device")


class Place(FileFeedStorage):
    """A folder whose *wrong* is asked what to do before each step: it may raise."""

    wrong: Callable[[str, bytes, Any], None] = staticmethod(lambda step, data, file: None)
    unbuffered = False

    def open(self, spider: Any) -> Any:
        Place.wrong("open", b"", None)
        file = super().open(spider)
        return (Raw if Place.unbuffered else File)(file)


class File:
    """Passes on what is written."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def write(self, data: bytes) -> int:
        Place.wrong("write", data, self.own)
        return int(self.own.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)


class Raw(io.RawIOBase):
    """A file that may take less than it is given."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return int(self.own.write(data[:5] if b"two" in bytes(data) else data))

    def close(self) -> None:
        self.own.close()


class Plugin:
    """Post-processing that fails at the item with the two, once it has written."""

    def __init__(self, file: Any, feed_options: dict[str, Any]) -> None:
        self.file = file

    def write(self, data: bytes) -> int:
        self.file.write(data)
        if b"two" in data:
            raise TypeError("a bug of the plugin")
        return 1  # and it says of nothing how much it was

    def close(self) -> None:
        pass


class Swallows(JsonLinesItemExporter):
    def export_item(self, item: Any) -> None:
        with contextlib.suppress(OSError):
            super().export_item(item)


class Closed(JsonLinesItemExporter):
    """Fails at its end."""

    def finish_exporting(self) -> None:
        raise FULL


class Picky(ItemFilter):
    """Fails at the item with the two, as the option ``raises`` says."""

    def accepts(self, item: Any) -> bool:
        assert self.feed_options is not None
        if item["n"] == "two":
            raise {"lookup": KeyError("n"), "disk": FULL}[self.feed_options["raises"]]
        return True


def from_disk(value: Any) -> Any:
    """A serializer that reads a file for the item with the two."""
    if value == "two":
        raise FULL
    return value


def no_number(value: Any) -> Any:
    """A serializer that does so, and has its own word for it."""
    try:
        return from_disk(value)
    except OSError:
        raise ValueError("no number") from None


def too_large(value: Any) -> Any:
    if value == "two":
        raise OverflowError("too large")
    return value


def an_item(serializer: Any) -> Any:
    return type("Item", (scrapy.Item,), {"n": scrapy.Field(serializer=serializer)})


def once(step: str, error: Exception, *, half: bool = False) -> Callable[[str, bytes, Any], None]:
    """What is wrong when the item with the two comes, and never again; *half* of it is written then."""
    left = [error]

    def wrong(now: str, data: bytes, file: Any) -> None:
        if now == step and left and (step == "open" or b"two" in data):
            if half:
                file.write(data[: len(data) // 2])
            raise left.pop()

    return wrong


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test sets is gone after it."""
    monkeypatch.setattr(Place, "wrong", Place.wrong)
    monkeypatch.setattr(Place, "unbuffered", False)


def feeds_of(folder: Path, items: list[Any], feeds: dict[str, dict[str, Any]]) -> Deferred[Any]:
    """Whether the feeds of a crawl with these *items* are stored, what is unexported, and the items of the files."""
    return deferred_from_coro(_crawl(folder, items, feeds))


async def _crawl(folder: Path, items: list[Any], feeds: dict[str, dict[str, Any]]) -> tuple[bool, int, list[int]]:
    settings = {
        "FEEDS": {f"file://{folder}/{name}": {"format": "jsonlines", **options} for name, options in feeds.items()},
        "FEED_STORAGES": {"file": Place},
        "FEED_EXPORTERS": {"swallows": Swallows, "closed": Closed},
        "TELNETCONSOLE_ENABLED": False,
    }
    crawler = get_crawler(scrapy.Spider, settings)
    crawler.spider = spider = crawler._create_spider("s")
    watched = Feeds(crawler)
    assert watched.exporter is not None
    crawler.signals.connect(watched.file_closed, signals.feed_slot_closed)
    crawler.signals.connect(watched.close, signals.feed_exporter_closed)
    watched.exporter.open_spider(spider)
    lacks = False
    for item in items:
        crawler.signals.send_catch_log(signals.item_scraped, item=item, response=None, spider=spider)
        lacks = lacks or watched.lacks_items  # a part of a feed may be closing just now
    await watched.exporter.close_spider(spider)
    assert watched.closed
    assert crawler.stats is not None
    files = [file.items for file in sorted(watched.files, key=lambda file: (file.feed, file.url))]
    stored = watched.stored(crawler.stats.get_stats())
    assert not (lacks and stored)
    return stored, watched.unexported, files


ITEMS = [{"n": n} for n in ("one", "two", "three", "four")]
ONE: dict[str, dict[str, Any]] = {"1.jl": {}}
LATIN = [{"n": 1}, {"n": "\u20ac"}, {"n": 3}]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("wrong", "feeds"),
    [
        (once("open", FULL), ONE),
        (once("open", FULL), {"1.json": {"format": "json"}}),
        (once("open", ValueError("not now")), ONE),
        (once("write", FULL), ONE),
        (once("write", FULL, half=True), ONE),
        (once("write", FULL, half=True), {"1.csv": {"format": "csv"}}),
        (once("write", FULL, half=True), {"1.xml": {"format": "xml"}}),
        (once("write", FULL), {"1.pickle": {"format": "pickle"}}),
        (once("write", FULL), {"1.marshal": {"format": "marshal"}}),
        (once("write", ValueError("write to closed file")), ONE),
        (once("write", FULL), {"1.jl": {"format": "swallows"}}),
        (once("write", FULL), {"1.jl": {}, "2.csv": {"format": "csv"}}),
        (once("write", FULL), {"%(batch_id)d.jl": {"batch_item_count": 1}}),
    ],
)
async def test_a_place_that_refuses_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any, feeds: dict[str, dict[str, Any]]
) -> None:
    monkeypatch.setattr(Place, "wrong", wrong)
    stored, _, files = await feeds_of(tmp_path, ITEMS, feeds)
    assert not stored
    assert sum(files) >= 3, "Scrapy has gone on"


@pytest_twisted.ensureDeferred
async def test_all_is_well(tmp_path: Path) -> None:
    gzip = "scrapy.extensions.postprocessing.GzipPlugin"
    feeds: dict[str, dict[str, Any]] = {
        "1.jl": {}, "2.csv": {"format": "csv"}, "3.json": {"format": "json"}, "4.xml": {"format": "xml"},
        "5.pickle": {"format": "pickle"}, "6.marshal": {"format": "marshal"}, "7.gz": {"postprocessing": [gzip]},
        "%(batch_id)d.8.jl": {"batch_item_count": 3}, "9.jl": {"item_classes": [scrapy.Item]},
    }  # fmt: skip
    assert await feeds_of(tmp_path, ITEMS, feeds) == (True, 0, [4, 4, 4, 4, 4, 4, 4, 3, 1, 0])
    assert [json.loads(line) for line in (tmp_path / "1.jl").read_text().splitlines()] == ITEMS


@pytest_twisted.ensureDeferred
async def test_a_file_that_takes_less_than_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "unbuffered", True)
    assert await feeds_of(tmp_path, ITEMS[:1], ONE) == (True, 0, [1])
    assert await feeds_of(tmp_path, ITEMS, {"2.jl": {}}) == (False, 0, [4])


@pytest_twisted.ensureDeferred
async def test_post_processing_that_fails(tmp_path: Path) -> None:
    feeds = {"1.jl": {"postprocessing": [Plugin]}}
    assert (await feeds_of(tmp_path, ITEMS, feeds))[0] is False
    assert await feeds_of(tmp_path, ITEMS[2:], feeds) == (True, 0, [2])


@pytest_twisted.ensureDeferred
async def test_a_file_that_can_not_be_ended(tmp_path: Path) -> None:
    """Scrapy says nothing of it."""
    assert (await feeds_of(tmp_path, ITEMS, {"1.jl": {"format": "closed"}}))[0] is False
    feeds = {"%(batch_id)d.jl": {"batch_item_count": 2}, "other.jl": {"format": "closed"}}
    assert (await feeds_of(tmp_path, ITEMS, feeds))[0] is False


@pytest_twisted.ensureDeferred
async def test_a_feed_without_items_that_can_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "wrong", once("open", FULL))
    assert await feeds_of(tmp_path, [], {"1.jl": {"store_empty": True}}) == (False, 0, [0])
    assert await feeds_of(tmp_path, [], {"1.jl": {"store_empty": False}}) == (True, 0, [0])


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("items", "feeds", "unexported"),
    [
        ([*ITEMS, {"n": object()}], ONE, 1),
        ([*ITEMS, {"n": object()}], {"1.json": {"format": "json"}, "2.jl": {}}, 2),
        (LATIN, {"1.jl": {"encoding": "latin-1"}}, 1),
        (LATIN, {"1.csv": {"format": "csv", "encoding": "latin-1"}}, 1),
        ([*ITEMS, {"n": lambda: 0}], {"1.pickle": {"format": "pickle"}}, 1),
        ([*ITEMS, {"n": object()}], {"1.marshal": {"format": "marshal"}}, 1),
        ([an_item(too_large)(n=n) for n in ("one", "two", "three")], ONE, 1),
        (ITEMS, {"1.jl": {"item_filter": Picky, "raises": "lookup"}, "2.jl": {}}, 2),
        ([{"n": 1}, {"n": {2}, "x": object()}], {"1.jl": {}, "2.jl": {"item_filter": Picky, "raises": "lookup"}}, 2),
    ],
)
async def test_an_item_that_a_format_can_not_express(
    tmp_path: Path, items: list[Any], feeds: dict[str, dict[str, Any]], unexported: int
) -> None:
    stored, missing, files = await feeds_of(tmp_path, items, feeds)
    assert (stored, missing) == (True, unexported)
    assert sum(files) == len(items) * len(feeds) - unexported


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("items", "feeds"),
    [
        ([an_item(from_disk)(n=n) for n in ("one", "two", "three")], ONE),
        ([an_item(no_number)(n=n) for n in ("one", "two", "three")], ONE),
        (ITEMS, {"1.jl": {"item_filter": Picky, "raises": "disk"}}),
        ([{"n": "two", "x": object()}], {"1.jl": {}, "2.jl": {"item_filter": Picky, "raises": "disk"}}),
    ],
)
async def test_what_is_not_clearly_the_item_s_fault(
    tmp_path: Path, items: list[Any], feeds: dict[str, dict[str, Any]]
) -> None:
    assert (await feeds_of(tmp_path, items, feeds))[0] is False

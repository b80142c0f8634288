"""The signal of an item that has come home: each receiver gets what it gets from Scrapy."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from pydispatch import dispatcher
from scrapy import Spider, signals
from scrapy.crawler import Crawler
from scrapy.utils.defer import deferred_from_coro
from scrapy.utils.test import get_crawler
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from scrapy_distributed.coordinator.item_signal import ItemSignal

Heard = list[tuple[Any, ...]]


@pytest.fixture
def crawler() -> Crawler:
    crawler = get_crawler(Spider)
    crawler.spider = Spider(name="s")
    return crawler


def plain(receiver: Any) -> Any:
    """As if it were Scrapy's own."""
    receiver.__module__ = "scrapy.extensions.some"
    return receiver


class Listener:
    __module__ = "scrapy.extensions.some"

    def __init__(self, heard: Heard) -> None:
        self.heard = heard

    @plain
    def method(self, item: Any, spider: Any) -> None:
        self.heard.append(("method", item, spider))

    def __call__(self, response: Any, item: Any) -> None:
        self.heard.append(("object", response, item))


def every_kind(heard: Heard) -> list[Any]:
    """Receivers that note what they get in *heard*."""

    @plain
    def nothing() -> None:
        heard.append(("nothing",))

    @plain
    def fails(item: Any) -> None:
        heard.append(("fails", item))
        raise ValueError("of a receiver")

    @plain
    def unusual(signal: Any, sender: Any, other: Any = 5) -> None:
        heard.append(("unusual", signal, sender, other))

    @plain
    def keyword(item: Any, *, spider: Any = "not told") -> None:
        heard.append(("keyword", item, spider))

    @plain
    def everything(item: Any, **others: Any) -> None:
        heard.append(("everything", item, others))

    @plain
    def too_much(item: Any, missing: Any) -> None:
        heard.append(("too much", item, missing))

    return [nothing, fails, unusual, keyword, everything, too_much, Listener(heard).method]


async def send(signal: ItemSignal, item: Any) -> bool:
    """Whether something was awaited."""
    answer = signal.send(item)
    if answer is not None:
        await answer
    return answer is not None


def in_scrapys_way(crawler: Crawler, item: Any) -> Any:
    return crawler.signals.send_catch_log_async(
        signal=signals.item_scraped, item=item, response=None, spider=crawler.spider
    )


@pytest_twisted.ensureDeferred
async def test_each_receiver_gets_what_scrapy_gives_it_and_a_failure_is_logged_alike(
    crawler: Crawler, caplog: pytest.LogCaptureFixture
) -> None:
    heard: Heard = []
    receivers = every_kind(heard)
    for receiver in receivers:
        crawler.signals.connect(receiver, signals.item_scraped, weak=False)
    logged = []
    told = []
    for way in (lambda: in_scrapys_way(crawler, {"n": 1}), lambda: send(ItemSignal(crawler), {"n": 1})):
        awaited = await deferred_from_coro(way())
        told.append(list(heard))
        logged.append([(one.name, one.levelname, one.getMessage()) for one in caplog.records])
        assert [one.spider for one in caplog.records] == [crawler.spider] * 2  # type: ignore[attr-defined]
        heard.clear()
        caplog.clear()
    assert awaited is False
    assert told[0] == told[1]
    assert len(told[0]) == len(receivers) - 1
    assert logged[0] == logged[1]


@pytest_twisted.ensureDeferred
async def test_who_is_connected_counts_at_each_item(crawler: Crawler) -> None:
    heard: Heard = []
    signal = ItemSignal(crawler)

    async def told() -> list[str]:
        heard.clear()
        await send(signal, {})
        return [name for name, *_ in heard]

    assert await told() == []
    listener = Listener(heard)
    crawler.signals.connect(listener.method, signals.item_scraped)
    assert await told() == ["method"]
    crawler.signals.connect(listener, signals.item_scraped)
    crawler.signals.connect(listener.method, signals.item_scraped)
    assert await told() == ["object", "method"]
    crawler.signals.disconnect(listener, signals.item_scraped)
    assert await told() == ["method"]
    del listener
    gc.collect()
    assert await told() == []


@pytest_twisted.ensureDeferred
async def test_receivers_of_all_senders_and_of_all_signals_are_told_and_those_of_others_are_not(
    crawler: Crawler,
) -> None:
    heard: Heard = []

    def hear(item: Any, name: str) -> None:
        heard.append((name,))

    def named(name: str) -> Callable[..., None]:
        return plain(lambda item: hear(item, name))  # type: ignore[no-any-return]

    places = {
        "sender": (crawler, dispatcher.Any), "signal": (dispatcher.Any, signals.item_scraped),
        "all": (dispatcher.Any, dispatcher.Any), "other": (object(), signals.item_scraped),
    }  # fmt: skip
    receivers = {name: named(name) for name in places}
    item_signal = ItemSignal(crawler)
    told = {}
    try:
        for name, (sender, signal) in places.items():
            dispatcher.connect(receivers[name], signal, sender, weak=False)
            await send(item_signal, {})
            told[name] = [found for (found,) in heard]
            heard.clear()
    finally:
        for name, (sender, signal) in places.items():
            dispatcher.disconnect(receivers[name], signal, sender, weak=False)
    assert told == {
        "sender": ["sender"], "signal": ["sender", "signal"], "all": ["sender", "signal", "all"],
        "other": ["sender", "signal", "all"],
    }  # fmt: skip


@pytest_twisted.ensureDeferred
async def test_one_that_may_wait_is_waited_for(crawler: Crawler) -> None:
    heard: Heard = []

    def later(item: Any) -> Deferred[None]:
        return deferLater(reactor, 0, heard.append, ("later", item))  # type: ignore[arg-type]

    @plain
    async def slow(item: Any) -> None:
        heard.append(("slow", item))

    listener = Listener(heard)
    signal = ItemSignal(crawler)
    crawler.signals.connect(listener.method, signals.item_scraped)
    assert not await deferred_from_coro(send(signal, 1))
    for receiver in (later, slow):
        crawler.signals.connect(receiver, signals.item_scraped)
        assert await deferred_from_coro(send(signal, 2))
        crawler.signals.disconnect(receiver, signals.item_scraped)
    assert not await deferred_from_coro(send(signal, 3))
    spider = crawler.spider
    assert heard == [
        ("method", 1, spider), ("method", 2, spider), ("later", 2), ("method", 2, spider), ("slow", 2),
        ("method", 3, spider),
    ]  # fmt: skip

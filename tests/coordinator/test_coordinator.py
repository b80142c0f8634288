"""Scrapy's hooks of a coordinator: what pages yield, what the start yields, and how it ends if it can't begin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from ledgers import states
from scrapy import Request
from scrapy.core.spidermw import SpiderMiddlewareManager
from scrapy.http import Response
from scrapy.utils.asyncgen import as_async_generator
from scrapy.utils.defer import deferred_from_coro
from stopped_engine import Stopped, target
from until import until

from scrapy_distributed.coordinator.diversion import BUFFER
from scrapy_distributed.errors import ConfigError, FleetUnusableError, LedgerUnavailableError


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Stopped]:
    stopped = Stopped(tmp_path / "ledger.sqlite")
    yield stopped
    stopped.ledger.close()


async def each(outputs: Iterable[Any], error: Exception | None = None) -> AsyncIterator[Any]:
    for output in outputs:
        yield output
    if error is not None:
        raise error


def each_at_once(outputs: Iterable[Any], error: Exception | None = None) -> Iterator[Any]:
    yield from outputs
    if error is not None:
        raise error


async def hook(stopped: Stopped, asynchronous: bool, outputs: list[Any], error: Exception | None) -> list[Any]:
    """What goes on of a page that yields *outputs*, and then breaks off with *error*, if it is one."""
    response = Response("http://a.example/")
    passed = []
    with pytest.raises(ValueError, match="of the spider") if error else nullcontext():
        if asynchronous:
            async for output in stopped.coordinator.process_spider_output_async(response, each(outputs, error)):
                passed.append(output)
        else:
            for output in stopped.coordinator.process_spider_output(response, each_at_once(outputs, error)):
                passed.append(output)
    return passed


# Pages


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("error", [None, ValueError("of the spider")])
@pytest_twisted.ensureDeferred
async def test_what_a_page_has_yielded_for_the_fleet_is_diverted_at_its_end_also_with_an_error(
    stopped: Stopped, asynchronous: bool, error: Exception | None
) -> None:
    stopped.begin()
    link, odd = Request("http://a.example/next"), target(9, open=object())
    passed = await hook(stopped, asynchronous, [{"n": 1}, target(1), odd, link, target(2)], error)
    assert passed == [{"n": 1}, link, odd]  # which can't travel
    assert states(stopped.ledger) == {"diverted": 2, "queued": 2}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_page_of_very_many_is_diverted_before_its_end(stopped: Stopped, asynchronous: bool) -> None:
    stopped.begin()
    odd = target(-1, open=object())
    passed = await hook(stopped, asynchronous, [odd, *map(target, range(BUFFER)), {"n": 1}], None)
    assert passed == [odd, {"n": 1}]
    assert states(stopped.ledger) == {"diverted": BUFFER, "queued": BUFFER}


@pytest_twisted.ensureDeferred
async def test_a_page_has_no_mark_that_a_copy_of_its_meta_would_pass_on(stopped: Stopped) -> None:
    stopped.begin()
    odd = target(1, open=object())
    assert await hook(stopped, True, [odd], None) == [odd]
    assert odd.meta["distributed_here"]
    chain = SpiderMiddlewareManager(stopped.coordinator, crawler=stopped.crawler)

    async def scrape(response: Any, request: Request) -> Iterable[Any]:
        return [{"meta": sorted(response.meta)}]

    passed = await deferred_from_coro(chain.scrape_response_async(scrape, Response(odd.url, request=odd), odd))
    assert [output async for output in as_async_generator(passed)] == [{"meta": ["open"]}]


class Mends:
    """Spider middleware of a project: an item in place of an error."""

    def process_spider_exception(self, response: Response, exception: Exception) -> list[Any]:
        return [{"mended": str(exception)}]


@pytest_twisted.ensureDeferred
async def test_what_a_middleware_of_the_project_makes_of_an_error_goes_on(stopped: Stopped) -> None:
    stopped.begin()
    chain = SpiderMiddlewareManager(stopped.coordinator, Mends(), crawler=stopped.crawler)
    request = Request("http://a.example/")

    async def scrape(response: Any, request: Request) -> Iterable[Any]:
        return each_at_once([{"n": 1}, target(1)], ValueError("of the spider"))

    passed = await deferred_from_coro(chain.scrape_response_async(scrape, Response(request.url), request))
    outputs = [output async for output in as_async_generator(passed)]
    assert outputs == [{"n": 1}, {"mended": "of the spider"}]
    assert states(stopped.ledger) == {"diverted": 1, "queued": 1}


# The start


@pytest_twisted.ensureDeferred
async def test_a_start_of_very_many_leaves_time_for_sending_them(stopped: Stopped) -> None:
    stopped.begin()
    first, last = Request("http://a.example/"), Request("http://a.example/last")
    passed = []

    async def walk() -> None:
        start = each([first, *map(target, range(BUFFER + 1)), last])
        async for output in stopped.coordinator._start(start, walk=True):
            passed.append(output)

    async def waits() -> bool:
        return bool(stopped.clock.getDelayedCalls())

    walking = deferred_from_coro(walk())
    await until(waits)
    assert passed == [first]
    assert states(stopped.ledger)["diverted"] == BUFFER
    stopped.clock.advance(0)
    await walking
    assert passed == [first, last]
    assert states(stopped.ledger)["diverted"] == BUFFER + 1


@pytest_twisted.ensureDeferred
async def test_a_start_that_fails_makes_the_next_run_walk_again(stopped: Stopped) -> None:
    stopped.begin()
    with pytest.raises(ValueError, match="of the spider"):
        async for _ in stopped.coordinator._start(each([target(1)], ValueError("of the spider")), walk=True):
            pass
    assert stopped.coordinator.walk.failed


@pytest_twisted.ensureDeferred
async def test_a_start_whose_walk_is_done_is_not_walked_again(stopped: Stopped) -> None:
    stopped.begin()
    assert [output async for output in stopped.coordinator._start(each([{"n": 1}]), walk=False)] == []


# Where it can't begin


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (ConfigError("no such spider"), "start_refused", "The crawl does not start: no such spider"),
        (FleetUnusableError("all are away"), "fleet_unusable", "The crawl does not start: all are away"),
        (LedgerUnavailableError("disk is full"), "ledger_failed", "can't be written: disk is full"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_it_closes_with_the_reason_and_leaves_the_start_alone(
    stopped: Stopped, caplog: pytest.LogCaptureFixture, error: Exception, reason: str, words: str
) -> None:
    coordinator = stopped.coordinator

    async def begin() -> bool:
        raise error

    async def start() -> AsyncIterator[Any]:
        pytest.fail("it has been walked")
        yield

    coordinator._begin = begin  # type: ignore[method-assign]
    assert [output async for output in coordinator._run(start())] == []

    async def has_closed() -> bool:
        return bool(stopped.closed)

    await until(has_closed)
    assert stopped.closed == [reason]
    assert words in caplog.text

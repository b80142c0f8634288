"""What workers find: read, kept and diverted by the coordinator. Its fleet is one that takes as many batches as it is
told to; the ledger is a real one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from http.cookiejar import Cookie
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from ledgers import IDENTITY, divert, queued, receipt, states
from scrapy import Spider
from scrapy.utils.test import get_crawler
from taker import Taker
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, LoopingCall, deferLater

from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import ItemsGo
from scrapy_distributed.coordinator.coordinator import Coordinator
from scrapy_distributed.coordinator.nodes import Nodes
from scrapy_distributed.errors import WireError
from scrapy_distributed.fleet.node import Node, NodeAddress
from scrapy_distributed.ledger.finds import Finds
from scrapy_distributed.wire.payload import encode_payload
from scrapy_distributed.wire.request import decode_requests
from scrapy_distributed.wire.session import encode_session, with_session


class Plain(Spider):
    name = "plain"


Started = Callable[..., tuple[Coordinator, Taker]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Started]:
    """Begins, or takes up, the run of one ledger. What was begun before is dropped as by kill -9."""
    coordinators: list[Coordinator] = []

    def start(clock: Any = None, **settings: Any) -> tuple[Coordinator, Taker]:
        for earlier in coordinators:
            earlier.ledger.close()
        given = {"LEDGER": tmp_path / "ledger.sqlite", "BATCH_SIZE": "auto", **settings}
        crawler = get_crawler(Plain, {f"DISTRIBUTED_{name}": str(value) for name, value in given.items()})
        crawler.spider = Plain.from_crawler(crawler)
        downloader = SimpleNamespace(middleware=SimpleNamespace(middlewares=[]))
        crawler.engine = SimpleNamespace(  # type: ignore[assignment]
            spider_is_idle=lambda: True, downloader=downloader
        )
        node = Node(address=NodeAddress(name="n1", url="http://n1:6800"), client=HTTPClient(None), clock=Clock())
        nodes = Nodes([node], project="p", spider=crawler.spider, feed=True, clock=Clock())
        coordinator = Coordinator(
            crawler, command=CommandLine(), config=Config.from_settings(crawler.settings), nodes=nodes,
            items_go=ItemsGo.FEEDS, clock=clock or Clock(),
        )  # fmt: skip
        coordinators.append(coordinator)
        coordinator.ledger.begin(IDENTITY, resume=True)
        taker = Taker(coordinator.ledger)
        coordinator.dispatcher = taker  # type: ignore[assignment]
        coordinator.cutter.start()
        return coordinator, taker

    yield start
    coordinators[-1].ledger.close()


TARGET = '{"url":"http://a.example/%d/page.html","meta":{"depth":3,"link_text":"what it is"}}'


def payloads(count: int, size: int = 2_000) -> tuple[str, ...]:
    return tuple(
        encode_payload([TARGET % number for number in range(start, min(start + size, count))])
        for start in range(0, count, size)
    )


def find(coordinator: Coordinator, numbers: range) -> None:
    """The walk finds the requests *numbers*."""
    coordinator.cutter.add(divert(coordinator.ledger, *numbers))
    coordinator.cutter.cut()


@pytest_twisted.ensureDeferred
async def test_many_finds_leave_time_for_others(start: Started) -> None:
    """A node chooses how many there are; meanwhile others are looked at."""
    count = 6_000
    coordinator, taker = start(BATCH_SIZE=1000, clock=reactor)
    taker.room = 1
    find(coordinator, range(1000))
    final = receipt(taker.attempts[0], targets=payloads(count))
    turns = [time.process_time()]
    looker = LoopingCall(lambda: turns.append(time.process_time()))
    looking = looker.start(0)
    finds = await coordinator.discoveries.read(taker.attempts[0], final)
    assert len(queued(coordinator.ledger)) == 0  # nothing of it counts yet
    coordinator.ledger.verdicts.settle(taker.attempts[0], final, max_attempts=1, found=finds)
    coordinator._accepted("n1", taker.attempts[0], final, 1.0)
    while coordinator.discoveries.waits:
        await deferLater(reactor, 0.001)
    looker.stop()
    await looking
    assert states(coordinator.ledger) == {"diverted": count + 1000, "crawled": 1000, "queued": count}
    longest = max(after - before for before, after in pairwise(turns))
    assert longest < (turns[-1] - turns[0]) / 4


def test_what_was_found_and_not_diverted_is_kept_for_the_next_start(start: Started) -> None:
    coordinator, taker = start(BATCH_SIZE=10)
    taker.room = 1
    find(coordinator, range(10))
    coordinator.ledger.intake.walked()
    final = receipt(taker.attempts[0], targets=payloads(30, 10))
    finds = [Finds.of(coordinator.diverter.found(decode_requests(payload, coordinator.spider), b"job"))
             for payload in final.targets]  # fmt: skip
    coordinator.ledger.verdicts.settle(taker.attempts[0], final, max_attempts=1, found=finds)
    coordinator._accepted("n1", taker.attempts[0], final, 1.0)
    assert coordinator.crawler.stats is not None
    assert coordinator.crawler.stats.get_value("distributed/found_by_workers") == 10
    assert not coordinator.ending.done
    coordinator, taker = start(BATCH_SIZE=10)
    taker.room = 9
    coordinator.discoveries.stop()
    coordinator.discoveries.divert()
    coordinator.clock.advance(0)
    assert states(coordinator.ledger) == {"diverted": 40, "crawled": 10, "queued": 30}
    coordinator, taker = start(BATCH_SIZE=10)
    taker.room = 9
    coordinator.discoveries.divert()
    for _ in range(3):
        coordinator.clock.advance(0)
    assert not coordinator.discoveries.waits
    assert [attempt.size for attempt in taker.attempts] == [10, 10, 10]


@pytest_twisted.ensureDeferred
async def test_nothing_is_taken_of_a_receipt_whose_last_target_is_bad(start: Started) -> None:
    coordinator, taker = start(BATCH_SIZE=10)
    taker.room = 1
    find(coordinator, range(10))
    bad = '[{"url":"http://a.example/","meta":{"proxy":"http://b"}}]'
    stats = {"distributed/startup_seconds": 1, "distributed/job_seconds": 2}
    reading = Deferred.fromCoroutine(
        coordinator.discoveries.read(
            taker.attempts[0], receipt(taker.attempts[0], targets=(*payloads(5), bad), stats=stats)
        )
    )
    coordinator.clock.advance(0)
    with pytest.raises(WireError, match=r"<GET http://a.example/>: meta\['proxy'\]"):
        await reading
    assert states(coordinator.ledger) == {"diverted": 10, "in_flight": 10}
    assert not coordinator.cutter.size.jobs


COOKIE = Cookie(0, "a", "1", None, False, "a.example", False, False, "/", True, False, None, True, None, None, {})
SESSIONS = {session.id: session for session in (encode_session(jar, [COOKIE]) for jar in (None, "b"))}
MINE, OTHER = SESSIONS


def found(session: Any, **values: Any) -> str:
    return json.dumps([{"url": "http://a.example/1", **values, "_session": session}])


@pytest_twisted.ensureDeferred
async def test_what_is_found_keeps_the_cookies_of_its_batch(start: Started) -> None:
    coordinator, taker = start(BATCH_SIZE=1)
    taker.room = 1
    coordinator.ledger.intake.divert([(b"a", with_session('"http://a.example/0"', MINE))], SESSIONS)
    coordinator.cutter.start()
    coordinator.cutter.cut()
    (attempt,) = taker.attempts
    (finds,) = await coordinator.discoveries.read(attempt, receipt(attempt, targets=(found(MINE),)))
    ((_, text),) = Finds.unpacked(finds.packed)
    assert text == with_session('"http://a.example/1"', MINE)


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (found("0" * 16), "cookies that its batch does not have"), (found(1), "cookies that its batch does not have"),
        (found([MINE]), "cookies that its batch does not have"), (found(OTHER), "cookies that its batch does not have"),
        (found(MINE, meta={"cookiejar": "b"}), "cookies of another jar than its own"),
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_a_node_chooses_no_cookies(start: Started, target: str, why: str) -> None:
    """Those of another batch are in the ledger as well."""
    coordinator, taker = start(BATCH_SIZE=1, FOUND_META="cookiejar")
    taker.room = 1
    bodies = [with_session('"http://a.example/0"', session) for session in SESSIONS]
    coordinator.ledger.intake.divert([(one.encode(), one) for one in bodies], SESSIONS)
    coordinator.cutter.start()
    coordinator.cutter.cut()
    (attempt,) = taker.attempts
    with pytest.raises(WireError, match=why):
        await coordinator.discoveries.read(attempt, receipt(attempt, targets=(target,)))

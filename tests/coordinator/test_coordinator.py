"""How a coordinator ends that can't begin."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from scrapy import Spider
from scrapy.utils.test import get_crawler
from treq.client import HTTPClient
from twisted.internet.task import Clock
from until import until

from scrapy_distributed.config.config import Config
from scrapy_distributed.coordinator.coordinator import Coordinator
from scrapy_distributed.errors import ConfigError, FleetUnusableError, LedgerUnavailableError
from scrapy_distributed.fleet.node import Node, NodeAddress


class Plain(Spider):
    name = "plain"


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
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, reason: str, words: str
) -> None:
    crawler = get_crawler(Plain, {"DISTRIBUTED_LEDGER": str(tmp_path / "ledger.sqlite")})
    crawler.spider = Plain.from_crawler(crawler)
    closed: list[str] = []

    async def close_spider_async(*, reason: str) -> None:
        closed.append(reason)

    crawler.engine = SimpleNamespace(  # type: ignore[assignment]
        close_spider_async=close_spider_async, downloader=SimpleNamespace(middleware=SimpleNamespace(middlewares=[]))
    )
    node = Node(address=NodeAddress(name="n1", url="http://n1:6800"), client=HTTPClient(None), clock=Clock())
    config = Config.from_settings(crawler.settings)
    coordinator = Coordinator(crawler, config=config, project="p", nodes=[node], clock=Clock())

    async def begin() -> bool:
        raise error

    async def start() -> AsyncIterator[Any]:
        pytest.fail("it has been walked")
        yield

    coordinator._begin = begin  # type: ignore[method-assign]
    assert [output async for output in coordinator._run(start())] == []

    async def has_closed() -> bool:
        return bool(closed)

    await until(has_closed)
    assert closed == [reason]
    assert words in caplog.text
    coordinator.ledger.close()

"""How it is said that a crawl does not start."""

from __future__ import annotations

import gc
import logging

import pytest

from scrapy_distributed.coordinator.refused import say_alone
from scrapy_distributed.errors import ConfigError


def test_a_refusal_stands_alone_in_the_log_and_nothing_else_is_changed(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("asyncio")
    before = list(log.filters)
    refused, other = ConfigError("no such rule"), ConfigError("of a crawl that a script has begun before")
    say_alone(refused)
    log.error("Task exception was never retrieved", exc_info=other)
    log.error("Task exception was never retrieved", exc_info=refused)
    first, last = caplog.records
    assert (first.message, first.exc_info and first.exc_info[1]) == ("Task exception was never retrieved", other)
    assert (last.message, last.exc_info) == ("The crawl does not start: no such rule", None)
    caplog.clear()
    del refused, first, last
    gc.collect()
    assert log.filters == before

"""Which role a crawl has, and how the plugin gets into it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from scrapy import Spider
from scrapy.exceptions import NotConfigured
from scrapy.extensions.feedexport import FeedExporter
from scrapy.settings import Settings
from scrapy.utils.test import get_crawler

from scrapy_distributed import Addon
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.middleware import DistributedSpiderMiddleware

PATH = "scrapy_distributed.middleware.DistributedSpiderMiddleware"


class Plain(Spider):
    name = "plain"


def role(spider: Spider | None = None, **settings: Any) -> str:
    """``worker``, ``coordinator``, or ``none``; the two are not built."""
    crawler = get_crawler(Plain, {f"DISTRIBUTED_{name.upper()}": value for name, value in settings.items()})
    crawler.spider = spider
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (("worker", "Worker"), ("coordinator", "Coordinator")):
            patch.setattr(
                f"scrapy_distributed.{module}.{module}.{name}.from_crawler", lambda crawler, module=module: module
            )
        try:
            return str(DistributedSpiderMiddleware.from_crawler(crawler))
        except NotConfigured:
            return "none"


def test_a_batch_makes_a_worker_whatever_else_is_set() -> None:
    assert role(Plain(), start_url="[]") == "worker"
    assert role(Plain(), start_url="[]", enabled=False, target_hosts="h", target_rule=1) == "worker"
    assert role(Plain(), start_url="") == "worker"  # which refuses it: never a crawl of the whole site on a node
    assert role(Plain(), start_url=[]) == "worker"


def test_without_a_batch_it_is_a_coordinator_unless_turned_off() -> None:
    assert role(Plain()) == "coordinator"
    assert role(Plain(), target_hosts="h") == "coordinator"
    assert role(Plain(), enabled=False) == "none"
    assert role(Plain(), enabled="False", target_hosts="h", target_rule=1) == "none"


def test_a_command_that_borrows_a_spider_has_no_role() -> None:
    assert role(None) == "none"  # scrapy shell
    assert role(None, start_url="[]") == "none"
    borrowed = Plain()

    async def start() -> None: ...

    start.__module__ = "scrapy.commands.fetch"
    borrowed.start = start  # type: ignore[method-assign, assignment]
    assert role(borrowed) == "none"
    assert role(borrowed, batch_size="wrong") == "none"


def test_a_wrong_setting_stops_the_crawl() -> None:
    with pytest.raises(ConfigError, match="DISTRIBUTED_BATCH_SIZE"):
        role(Plain(), batch_size="wrong")
    with pytest.raises(ConfigError, match="DISTRIBUTED_LEASE"):
        role(Plain(), start_url="[]", lease="wrong")


@pytest.mark.parametrize(("name", "value"), [("BATCH_SIZE", "wrong"), ("START_URL", "nonsense")])
def test_a_crawl_that_is_refused_has_no_spider_so_that_any_scrapy_ends_with_1(name: str, value: str) -> None:
    crawler = get_crawler(Plain, {f"DISTRIBUTED_{name}": value})
    crawler.spider = Plain()
    with pytest.raises(ValueError, match=name):
        DistributedSpiderMiddleware.from_crawler(crawler)
    assert crawler.spider is None


def test_what_lacks_something_is_refused_and_does_not_crawl_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a ``NotConfigured`` Scrapy only warns, and goes on without the middleware."""

    def lacks(crawler: Any) -> None:
        raise NotConfigured("no scrapy.cfg")

    monkeypatch.setattr("scrapy_distributed.coordinator.coordinator.Coordinator.from_crawler", lacks)
    crawler = get_crawler(Plain)
    crawler.spider = Plain()
    with pytest.raises(ConfigError, match="found NotConfigured: no"):
        DistributedSpiderMiddleware.from_crawler(crawler)


def order(settings: Settings) -> int | None:
    found = [value for key, value in settings.getdict("SPIDER_MIDDLEWARES").items()
             if key == PATH or key is DistributedSpiderMiddleware]  # fmt: skip
    assert len(found) == 1
    value: int | None = found[0]
    return value


def test_the_add_on_activates_the_middleware() -> None:
    settings = Settings()
    Addon().update_settings(settings)
    assert order(settings) == 100


@pytest.mark.parametrize("key", [PATH, DistributedSpiderMiddleware])
@pytest.mark.parametrize("value", [543, None])
def test_the_add_on_leaves_the_order_that_a_project_has_given(key: Any, value: int | None) -> None:
    settings = Settings({"SPIDER_MIDDLEWARES": {key: value}})
    Addon().update_settings(settings)
    assert order(settings) == value


def test_the_add_on_reaches_a_spider_that_has_middlewares_of_its_own() -> None:
    class Own(Spider):
        name = "own"
        custom_settings = {"SPIDER_MIDDLEWARES": {"scrapy.spidermiddlewares.depth.DepthMiddleware": 900}}

    crawler = get_crawler(Own, {"ADDONS": {Addon: 500}, "SPIDER_MIDDLEWARES": {PATH: 7}})
    assert order(crawler.settings) == 100


@pytest.mark.parametrize(("settings", "warned"), [({"DISTRIBUTED_START_URL": "[]"}, False), ({}, True)])
def test_a_job_is_not_warned_of_how_we_have_named_its_feed(settings: dict[str, str], warned: bool) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        Addon().update_settings(Settings(settings))
        FeedExporter.from_crawler(get_crawler(Plain, {"FEED_URI": "file:///items.jl"}))
    assert any("`FEED_URI`" in str(warning.message) for warning in told) is warned

"""How often a site is asked, as it is said: what Scrapy's own downloader does with the settings is the oracle."""

from __future__ import annotations

from typing import Any

import pytest
from scrapy import Request, Spider
from scrapy.core.downloader import Downloader
from scrapy.settings import Settings
from scrapy.utils.test import get_crawler

from scrapy_distributed.config.politeness import ATTRIBUTES_WIN, politeness, settings_of_worker

BY_DOMAIN = "8 at once (CONCURRENT_REQUESTS_PER_DOMAIN). With one job at a time on each node (3) that is 24 at once"


@pytest.mark.filterwarnings("ignore:The CONCURRENT_REQUESTS_PER_IP setting")
@pytest.mark.parametrize(
    ("settings", "job", "words"),
    [
        ({}, {}, BY_DOMAIN),
        ({"CONCURRENT_REQUESTS": 0}, {}, BY_DOMAIN),
        ({"DOWNLOAD_SLOTS": None, "AUTOTHROTTLE_ENABLED": None}, {}, BY_DOMAIN),
        (
            {"DOWNLOAD_DELAY": 3},
            {},
            "0.333 a second on average (DOWNLOAD_DELAY = 3). With one job at a time on each node (3) that is 1 a"
            " second",
        ),
        ({"DOWNLOAD_DELAY": 3}, {"DOWNLOAD_DELAY": "0.001"}, "1,000 a second on average (DOWNLOAD_DELAY = 0.001)"),
        ({"DOWNLOAD_DELAY": 3}, {"DOWNLOAD_DELAY": "0"}, BY_DOMAIN),
        ({"CONCURRENT_REQUESTS": 4}, {}, "4 at once (CONCURRENT_REQUESTS)"),
        ({"CONCURRENT_REQUESTS_PER_IP": 2}, {}, "2 at once (CONCURRENT_REQUESTS_PER_IP)"),
        (
            {"AUTOTHROTTLE_ENABLED": True},
            {},
            "1 at once on average (AUTOTHROTTLE_TARGET_CONCURRENCY). With one job at a time on each node (3) that is 3"
            " at once on average",
        ),
        (
            {"AUTOTHROTTLE_ENABLED": True, "AUTOTHROTTLE_TARGET_CONCURRENCY": 20, "DOWNLOAD_DELAY": 0.5},
            {},
            "8 at once (CONCURRENT_REQUESTS_PER_DOMAIN) and 2 a second on average (DOWNLOAD_DELAY = 0.5). With one job"
            " at a time on each node (3) that is 24 at once and 6 a second on average",
        ),
        (
            {"DOWNLOAD_SLOTS": {"a": {"delay": 2}, "b": {"concurrency": 2}, "c": {}, "d": {}, "e": {}}},
            {},
            "8 at once (CONCURRENT_REQUESTS_PER_DOMAIN), by DOWNLOAD_SLOTS a: 0.5 a second on average, b: 2 at once,"
            " c: 8 at once, and 2 more. With one job",
        ),
    ],
)
def test_what_a_site_gets_of_one_worker_and_of_one_on_each_node(
    settings: dict[str, Any], job: dict[str, str], words: str
) -> None:
    said = politeness(Settings(settings), job, None, nodes=3)
    assert said.startswith(f"from each worker at most {words}")
    assert said.endswith("a node runs as many as its max_proc lets it. What is crawled here comes on top")


@pytest.mark.parametrize("settings", [{"DOWNLOAD_DELAY": "slow"}, {"DOWNLOAD_SLOTS": {"a": 3}}])
def test_what_scrapy_can_not_read_is_told(settings: dict[str, Any]) -> None:
    assert politeness(Settings(settings), {}, None, nodes=3).startswith("not known, a job can't read its settings: ")


@pytest.mark.filterwarnings("ignore:The 'download_delay' spider attribute")
@pytest.mark.parametrize("given", [{}, {"DOWNLOAD_DELAY": 5}])
def test_a_spiders_attributes_are_read_as_the_downloader_reads_them(given: dict[str, Any]) -> None:
    class Slow(Spider):
        name = "slow"
        download_delay = 2
        custom_settings = given

    crawler = get_crawler(Slow, {"DOWNLOAD_DELAY": 1})
    crawler.spider = Slow.from_crawler(crawler)
    _, slot = Downloader(crawler)._get_slot(Request("http://a.example/"))
    project = Settings({"DOWNLOAD_DELAY": 1})
    Slow.update_settings(project)  # as the doctor has them
    assert settings_of_worker(crawler.settings, {}, crawler.spider).getfloat("DOWNLOAD_DELAY") == slot.delay
    assert settings_of_worker(project, {}, Slow).getfloat("DOWNLOAD_DELAY") == slot.delay
    of_job = settings_of_worker(project, {"DOWNLOAD_DELAY": "7"}, Slow).getfloat("DOWNLOAD_DELAY")
    assert of_job == (2 if ATTRIBUTES_WIN else 7)

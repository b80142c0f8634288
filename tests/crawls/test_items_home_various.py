"""Spiders of every kind, and settings that many projects have: the same command gives the items of a local crawl."""

from __future__ import annotations

import pytest
from homing import Case, Compared, complaints

OF_ONE_SPIDER = {
    "throttled": {"AUTOTHROTTLE_ENABLED": True, "AUTOTHROTTLE_START_DELAY": 0.1, "AUTOTHROTTLE_MAX_DELAY": 0.2},
    "delayed": {"DOWNLOAD_DELAY": 0.05, "CONCURRENT_REQUESTS_PER_DOMAIN": 1},
    "cached": {"HTTPCACHE_ENABLED": True},
    "robots": {"ROBOTSTXT_OBEY": True},
    "breadth_first": {
        "DEPTH_PRIORITY": 1, "SCHEDULER_DISK_QUEUE": "scrapy.squeues.PickleFifoDiskQueue",
        "SCHEDULER_MEMORY_QUEUE": "scrapy.squeues.FifoMemoryQueue",
    },
    "one_by_one": {"CONCURRENT_REQUESTS": 1, "CONCURRENT_ITEMS": 1},
}  # fmt: skip
SPIDERS = (
    "api", "posted", "searched", "mapped", "xml_feed", "csv_feed", "hooks", "statuses", "statuses_by_meta", "deep",
    "headers", "awaiting", "blobs", "with_files", "listed",
)  # fmt: skip
OF_SCRAPY = "ScrapyDeprecationWarning"  # of what many spiders use all the same
HOSTS = "local:2"
OWN_FOLDER = {"with_files": {"FILES_STORE": "{folder}"}}  # what is there already counts as up to date
CASES = {name: Case(name, ["jl"], OWN_FOLDER.get(name)) for name in SPIDERS} | {
    name: Case("plain", ["jl"], settings) for name, settings in OF_ONE_SPIDER.items()
}


@pytest.mark.parametrize("name", CASES)
def test_the_items_of_a_local_crawl(compared: Compared, name: str) -> None:
    fleet, local = compared.files(name)
    crawl = compared.crawl(name)
    assert len(local["out.jl"]) >= 5
    assert fleet == local, crawl.log
    assert crawl.balance()["diverted"] >= 4
    assert crawl.process.returncode == 0


@pytest.mark.parametrize("name", CASES)
def test_nothing_to_complain_of(compared: Compared, name: str) -> None:
    told = [line for line in complaints(compared.crawl(name)) if OF_SCRAPY not in line]
    assert told == []

"""Targets that a worker in a child process finds: reported, or crawled where nobody would hear of them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from worker_crawl import (
    CRAWL_SPIDER,
    MODES,
    SECONDS,
    Running,
    Site,
    again_of,
    outcome_of,
)

from scrapy_distributed.wire.payload import url_of
from scrapy_distributed.wire.receipt import Receipt

# Targets that a worker finds


def elements_of(receipt: Receipt) -> list[Any]:
    return [element for elements in receipt.found() for element in elements]


def found_in(receipt: Receipt, site: Site) -> list[str]:
    """The targets in *receipt*, without the site's address, sorted."""
    return sorted(url_of(element).removeprefix(site.url) for element in elements_of(receipt))


TARGETS = {"DISTRIBUTED_TARGET_RULE": "1", "DISTRIBUTED_TARGET_CALLBACKS": "target"}


def target_requests(site: Site) -> list[Any]:
    return [
        {"url": f"{site.url}/target?own", "callback": "target", "priority": 9},  # its own start matches, and is crawled
        {"url": f"{site.url}/ok?1,2,3", "callback": "targets"},
        {"url": f"{site.url}/ok?2,3,4,own", "callback": "targets", "meta": {"depth": 5}},
        {"url": f"{site.url}/ok?a", "callback": "targets_by_meta"},
        {"url": f"{site.url}/ok?b", "callback": "targets_of_all_kinds"},
        {"url": f"{site.url}/ok?c", "callback": "targets_by_copies", "errback": "errback_item"},
        {"url": f"{site.url}/404?0", "errback": "errback_target", "meta": {"page": "404"}},
        {"url": f"{site.url}/404?1", "errback": "errback_target_async", "meta": {"page": "404_async"}},
        {"url": "REFUSED?0", "errback": "errback_target", "meta": {"page": "refused"}},
        {"url": "REFUSED?1", "errback": "errback_target_async", "meta": {"page": "refused_async"}},
        {"url": f"{site.url}/redirect", "callback": "target", "meta": {"rule": 1}},
        {"url": f"{site.url}/500", "callback": "target", "meta": {"rule": 1}},
    ]


def check_that_targets_are_as_the_spider_meant_them(receipt: Receipt, site: Site) -> None:
    found = {url_of(element).removeprefix(site.url): element for element in elements_of(receipt)}
    assert "distributed_" not in json.dumps(found)
    assert found["/target?1"]["meta"] == {"page": "1", "depth": 1}
    assert found["/target?4"]["meta"] == {"page": "4", "depth": 6}  # as deep as on the coordinator
    assert found["/target?1"]["headers"] == {"Referer": [f"{site.url}/ok?1,2,3"]}
    assert found["/target?rule"]["errback"] == "errback_item"
    assert found["/target?copy"]["errback"] == "errback_item"
    assert "errback" not in found["/target?copied_meta"]
    assert found["/target?refused"] == {"url": f"{site.url}/target?refused", "callback": "target"}
    assert {found[name]["callback"] for name in ("/target?1", "/target?copy", "/target?copied_meta")} == {"target"}


@MODES
def test_targets_that_it_finds_are_reported_and_not_crawled(tmp_path: Path, site: Site, mode: dict[str, str]) -> None:
    crawl = Running(tmp_path, site, target_requests(site), **TARGETS, **mode).end()
    receipt = crawl.receipt
    assert receipt is not None, crawl.said + crawl.log
    assert found_in(receipt, site) == [
        "/target?1", "/target?2", "/target?3", "/target?4", "/target?404", "/target?404_async", "/target?again",
        "/target?again", "/target?copied_meta", "/target?copy", "/target?refused",
        "/target?refused_async", "/target?rule",
    ]  # fmt: skip
    check_that_targets_are_as_the_spider_meant_them(receipt, site)
    asked = sorted(path for path in site.asked if path.startswith("/target"))
    # The second can't travel. Of the first nobody but the worker says that it is a target: its callback is not named.
    assert asked == ["/target?meta", "/target?own", "/target?stuck"]
    items = [item for item in crawl.items if "target" in item]
    urls = sorted(item["target"].removeprefix(site.url) for item in items)
    assert urls == ["/ok?redirected", "/target?own", "/target?stuck"]

    failed, refused = "failed: http 404", "failed: refused"
    assert outcome_of(receipt) == [*["crawled"] * 6, failed, failed, refused, refused, "crawled", "failed: http 500"]
    assert (receipt.final, receipt.stored, receipt.clean) == (True, True, True)
    assert again_of(receipt) == [False] * 11 + [True]  # the others have led to requests, which the receipt reports
    stats = {name: value for name, value in receipt.stats.items() if name.startswith("distributed/")}
    assert 0 < stats.pop("distributed/startup_seconds") < stats.pop("distributed/job_seconds") < SECONDS
    assert stats == {
        "distributed/requests": 12,
        "distributed/targets_reported": 13,
        "distributed/targets_duplicates": 4,  # 2, 3, and the batch's own page twice
        "distributed/offsite": 1,
        "distributed/unsupported_scheme": 1,
        "distributed/local/not_serializable": 1,
        "distributed/local/not_reportable": 1,
    }


def test_a_spider_that_marks_its_targets_reports_them(tmp_path: Path, site: Site) -> None:
    requests = [{"url": f"{site.url}/ok?a", "callback": "targets_by_meta"}]
    receipt = Running(tmp_path, site, requests).end().receipt
    assert receipt is not None
    (element,) = elements_of(receipt)
    assert element["url"] == f"{site.url}/target?meta"
    assert (element["meta"], element["cb_kwargs"]) == ({"depth": 1}, {"a": 1})


@pytest.mark.parametrize(
    ("job", "settings"),
    [("job", {"DISTRIBUTED_WORKER_TARGETS": "follow"}), ("", {})],
    ids=["if it is told so", "if nobody takes its receipt"],
)
def test_targets_that_it_finds_are_crawled(tmp_path: Path, site: Site, job: str, settings: dict[str, str]) -> None:
    crawl = Running(tmp_path, site, target_requests(site), job=job, **TARGETS, **settings).end()
    asked = {path for path in site.asked if path.startswith("/target")}
    pages = ["1", "2", "3", "4", "404", "404_async", "again", "copied_meta", "copy", "meta", "own", "refused",
             "refused_async", "rule", "stuck"]  # fmt: skip
    assert asked == {f"/target?{page}" for page in pages}
    assert len([item for item in crawl.items if "target" in item]) >= len(asked)
    if job:
        assert crawl.receipt is not None
        assert crawl.receipt.targets == ()
        assert not [name for name in crawl.receipt.stats if "targets" in name]
    else:
        assert crawl.receipt is None


def test_targets_are_in_the_final_receipt_alone_also_of_a_crawl_that_ends_early(tmp_path: Path, site: Site) -> None:
    requests = [{"url": f"{site.url}/ok?1", "callback": "targets"}, *(f"{site.url}/hold?{n}" for n in range(4))]
    running = Running(tmp_path, site, requests, DISTRIBUTED_RECEIPT_INTERVAL="0.05", CONCURRENT_REQUESTS="2", **TARGETS)
    first = running.when(lambda receipt: receipt.settled == 0b00001)
    assert first.targets == ()
    assert site.held.wait(SECONDS)
    running.process.send_signal(signal.SIGINT)
    running.when(lambda receipt: "Received SIGINT" in running.log.read_text())
    site.release.set()
    receipt = running.end().receipt
    assert receipt is not None
    assert (receipt.final, receipt.finish_reason, found_in(receipt, site)) == (True, "shutdown", ["/target?1"])


@MODES
def test_rules_find_targets_on_a_worker(tmp_path: Path, site: Site, mode: dict[str, str]) -> None:
    """What another rule finds is crawled on the worker, and the targets on those pages are reported as well."""
    requests = [{"url": f"{site.url}/links?item1,item2,more1,links%3Fmore,item4", "meta": {"rule": 1}}]
    crawl = Running(tmp_path, site, requests, spiders=CRAWL_SPIDER, DISTRIBUTED_TARGET_RULE="1", **mode).end()
    receipt = crawl.receipt
    assert receipt is not None, crawl.said + crawl.log
    assert found_in(receipt, site) == ["/item1", "/item2", "/item4"]
    assert {path for path in site.asked if path != "/robots.txt"} >= {"/more1"}
    assert not [path for path in site.asked if path.startswith("/item")]
    (element, *_) = elements_of(receipt)
    assert element["meta"] == {"rule": 1, "link_text": "item1", "depth": 1}
    assert not {"callback", "errback"} & set(element)  # CrawlSpider's own
    assert outcome_of(receipt) == ["crawled"]

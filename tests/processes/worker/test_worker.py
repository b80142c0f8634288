"""Real crawls of a worker in a child process: every ending of a request, and what the receipt says of it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import scrapy
from crawling import wait_for
from worker_crawl import (
    ENDINGS,
    ERRBACKS_WITH_OUTPUT,
    MODES,
    SECONDS,
    Running,
    Site,
    again_of,
    outcome_of,
    requests_of,
)


@MODES
def test_every_ending_has_its_name(tmp_path: Path, site: Site, mode: dict[str, str]) -> None:
    crawl = Running(tmp_path, site, requests_of(site), **mode).end()
    receipt = crawl.receipt
    assert receipt is not None, crawl.said + crawl.log
    found = list(zip([ending[:3] for ending in ENDINGS], outcome_of(receipt), strict=True))
    expected = [(ending[:3], ending[4]) for ending in ENDINGS]
    assert found == expected
    assert (crawl.code, receipt.final, receipt.finish_reason) == (0, True, "finished")
    assert receipt.stored
    assert receipt.clean
    assert receipt.settled == (1 << len(ENDINGS)) - 1
    assert receipt.items == len(crawl.items)
    assert receipt.feeds == ((f"file://{tmp_path}/items.jl", len(crawl.items), 0),)
    assert receipt.targets == ()
    expected_again = [
        outcome.startswith("failed: ") and callback is None and errback not in ERRBACKS_WITH_OUTPUT
        and "item" not in outcome and "recovered" not in path
        for path, callback, errback, _, outcome in ENDINGS
    ]  # fmt: skip
    assert again_of(receipt) == expected_again
    assert 10 < sum(expected_again) < 20
    urls = [item["url"].removeprefix(site.url) for item in crawl.items if "url" in item]
    expected_urls = ["/ok?0", "/ok?2", "/ok?3", "/ok?4", "/ok?6", "/ok?7", "/ok?8", "/ok?redirected", "/404?8",
                     "/ok?from404", "/ok?errback_item", "/ok?errback_async",
                     "/ok?15", "/ok?down0", "/ok?down1", "/ok?down2", "/ok?twice",
                     "/ok?farextra", "/ok?nearextra"]  # fmt: skip
    assert sorted(set(urls)) == sorted({*expected_urls, "/ok?farrecovered_async", "/ok?farrecovered_late"})
    failures = [item["failed"] for item in crawl.items if "failed" in item]
    assert len(failures) == 9  # errback_item, errback_async, errback_coroutine, errback_async_raises; one followed
    assert {"from": "near"} in crawl.items
    assert {"from": "far"} in crawl.items
    recovered = [item["recovered"] for item in crawl.items if "recovered" in item]
    assert sorted(recovered) == ["far"] * 4 + ["near"] * 2

    followed = {name: value for name, value in receipt.stats.items() if name.startswith("distributed/followed/")}
    assert followed == {
        "distributed/followed/failed/refused": 2,
        "distributed/followed/failed/http 404": 1,
        "distributed/followed/filtered/offsite": 1,
        "distributed/followed/filtered/duplicate": 3,  # two errbacks of the same name lead to one page each; twice
        "distributed/followed/failed/callback ValueError": 1,
    }
    assert receipt.pages == receipt.stats["response_received_count"] > 20
    assert site.asked.count("/500") == 2  # the retry is the same request


@MODES
def test_interrupted_it_reports_what_is_done_and_whether_its_feed_is_clean(
    tmp_path: Path, site: Site, mode: dict[str, str]
) -> None:
    requests = [
        {"url": f"{site.url}/ok?1"},
        {"url": f"{site.url}/hold?own", "callback": "nothing"},
        {"url": f"{site.url}/ok?2", "callback": "raises"},
        {"url": f"{site.url}/ok?3", "callback": "follow_to_hold"},
        {"url": f"{site.url}/404?4", "errback": "errback_item", "meta": {"ok": f"{site.url}/ok?4"}},
        {"url": f"{site.url}/404?5", "errback": "errback_async"},
    ]
    mode = mode | {"DISTRIBUTED_RECEIPT_INTERVAL": "0.05", "DOWNLOAD_DELAY": "0"}
    running = Running(tmp_path, site, requests, **mode)
    first = running.when(lambda receipt: receipt.items == 6 and receipt.settled == 0b110101)
    later = running.when(lambda receipt: receipt.sequence > first.sequence + 2)
    assert (first.final, first.stored, first.finish_reason, later.final) == (False, False, "", False)
    failed = {reason: sorted(positions) for reason, positions in first.failed.items()}
    assert (first.size, failed, first.clean) == (6, {"callback ValueError": [2], "http 404": [4, 5]}, False)
    running.process.send_signal(signal.SIGINT)
    running.when(lambda receipt: "Received SIGINT" in running.log.read_text())
    site.release.set()
    crawl = running.end()
    receipt = crawl.receipt
    assert receipt is not None
    assert (receipt.final, receipt.stored, receipt.finish_reason) == (True, True, "shutdown")
    assert receipt.sequence > later.sequence
    assert receipt.activity > later.activity >= first.activity > 0
    assert receipt.items == len(crawl.items)
    # What had been asked for is answered and taken to its end; nothing is lost without a name.
    for position, outcome in enumerate(outcome_of(receipt)):
        assert outcome in ("crawled", "open", "failed: callback ValueError", "failed: http 404"), position
    assert receipt.clean == (outcome_of(receipt)[3] != "open")


def test_interrupted_with_follow_up_requests_queued_the_feed_is_not_clean(tmp_path: Path, site: Site) -> None:
    requests = [{"url": f"{site.url}/ok", "callback": "follow_to_hold"},
                *({"url": f"{site.url}/hold?{n}", "callback": "nothing", "priority": 1} for n in range(2))]  # fmt: skip
    running = Running(tmp_path, site, requests, DISTRIBUTED_RECEIPT_INTERVAL="0.05", CONCURRENT_REQUESTS="1",
                      ROBOTSTXT_OBEY="False")  # fmt: skip
    running.when(lambda receipt: receipt.items == 1)
    assert site.held.wait(SECONDS)
    running.process.send_signal(signal.SIGINT)
    running.when(lambda receipt: "Received SIGINT" in running.log.read_text())
    site.release.set()
    crawl = running.end()
    receipt = crawl.receipt
    assert receipt is not None
    assert receipt.final
    assert outcome_of(receipt)[0] == "open"
    assert "/hold?followed" not in site.asked
    assert not receipt.clean


def test_a_killed_worker_leaves_a_receipt_that_is_not_final(tmp_path: Path, site: Site) -> None:
    requests = [f"{site.url}/ok", f"{site.url}/hold"]
    running = Running(tmp_path, site, requests, DISTRIBUTED_RECEIPT_INTERVAL="0.05")
    running.when(lambda receipt: receipt.settled == 0b01 and receipt.items == 1)
    running.process.kill()
    crawl = running.end()
    assert crawl.receipt is not None
    assert not crawl.receipt.final
    assert crawl.items == []  # buffered: what a running receipt says is no proof


def test_a_spider_that_closes_itself_leaves_the_rest(tmp_path: Path, site: Site) -> None:
    requests = [{"url": f"{site.url}/ok?0", "priority": 2},
                {"url": f"{site.url}/ok?1", "priority": 1, "callback": "closes"},
                *(f"{site.url}/hold?{n}" for n in range(4))]  # fmt: skip
    running = Running(tmp_path, site, requests, CONCURRENT_REQUESTS="1", DISTRIBUTED_RECEIPT_INTERVAL="0.05")
    running.when(lambda receipt: "Closing spider (enough)" in running.log.read_text())
    site.release.set()
    receipt = running.end().receipt
    assert receipt is not None
    assert (receipt.final, receipt.stored, receipt.clean, receipt.finish_reason) == (True, True, True, "enough")
    outcomes = outcome_of(receipt)
    assert outcomes[:2] == ["crawled", "crawled"]
    assert outcomes[2:].count("open") >= 3
    assert set(outcomes) <= {"crawled", "open"}


def test_stats_that_are_not_kept_are_refused(tmp_path: Path, site: Site) -> None:
    crawl = Running(tmp_path, site, [f"{site.url}/ok"], STATS_CLASS="scrapy.statscollectors.DummyStatsCollector").end()
    assert crawl.receipt is None
    assert "ConfigError: STATS_CLASS: found one that keeps nothing" in crawl.log


NO_ROBOTS = {"ROBOTSTXT_OBEY": "False"}
DELAY = {"DOWNLOAD_DELAY": "3", "RANDOMIZE_DOWNLOAD_DELAY": "False"}


@pytest.mark.parametrize(
    ("settings", "waits"),
    [
        (DELAY, True),
        (DELAY | {"TWISTED_REACTOR_ENABLED": "False"}, True),
        ({"DOWNLOAD_SLOTS": '{"127.0.0.1": {"delay": 3, "randomize_delay": false}}'}, True),
        (DELAY | {"DOWNLOAD_SLOTS": '{"127.0.0.1": {"delay": 0}}'}, False),
        (DELAY | {"AUTOTHROTTLE_ENABLED": "True"}, False),
        (DELAY | {"DISTRIBUTED_SLOT_FREE_SINCE": "1"}, False),
        (DELAY | {"DISTRIBUTED_SLOT_FREE_SINCE": "1e9"}, False),
        (DELAY | {"DISTRIBUTED_SLOT_FREE_SINCE": "1e11"}, True),  # its clock was set back
        ({}, False),
    ],
)
def test_what_it_asks_first_waits_for_the_delay_after_its_start(
    tmp_path: Path, site: Site, settings: dict[str, str], waits: bool
) -> None:
    """Of its process, unless it is told when the job before it in its slot has ended."""
    if "TWISTED_REACTOR_ENABLED" in settings and scrapy.version_info < (2, 15):
        pytest.skip("TWISTED_REACTOR_ENABLED is a setting of Scrapy 2.15 and later")
    receipt = Running(tmp_path, site, [f"{site.url}/ok"], **NO_ROBOTS, **settings).end().receipt
    assert receipt is not None
    assert receipt.settled == 1
    assert (receipt.stats["distributed/job_seconds"] >= 3) is waits
    assert receipt.stats["distributed/startup_seconds"] < 3


def test_an_empty_batch_is_a_probe_that_comes_home(tmp_path: Path, site: Site) -> None:
    receipt = Running(tmp_path, site, [], FEED_URI="").end().receipt
    assert receipt is not None
    assert (receipt.final, receipt.size, receipt.settled, receipt.finish_reason) == (True, 0, 0, "finished")


def test_a_receipt_that_cannot_be_written_does_not_stop_the_crawl(tmp_path: Path, site: Site) -> None:
    folder = tmp_path / "logs" / "p" / "s.receipts"
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder should be")
    running = Running(tmp_path, site, [f"{site.url}/ok"])
    crawl = running.end()
    assert (crawl.code, crawl.receipt) == (0, None)
    assert crawl.items == [{"url": f"{site.url}/ok"}]
    assert "Can't write the receipt" in crawl.log


# Activity


def test_activity_stands_while_nothing_happens_and_never_falls(tmp_path: Path, site: Site) -> None:
    requests = [f"{site.url}/ok?1", {"url": f"{site.url}/hold", "callback": "follow_down"}]
    running = Running(tmp_path, site, requests, DISTRIBUTED_RECEIPT_INTERVAL="0.05")
    since: dict[int, int] = {}  # activity -> the first sequence with it
    standing = running.when(
        lambda receipt: receipt.sequence >= since.setdefault(receipt.activity, receipt.sequence) + 5
    )
    assert site.held.is_set()
    assert standing.activity == max(since)
    assert sorted(since, key=since.__getitem__) == sorted(since)
    site.release.set()
    receipt = running.end().receipt
    assert receipt is not None
    assert receipt.activity > standing.activity


# One job, one worker


def test_a_second_worker_of_the_same_job_is_refused_and_touches_nothing(tmp_path: Path, site: Site) -> None:
    """Scrapyd runs a job twice that it is told twice."""
    requests = [f"{site.url}/ok", f"{site.url}/hold"]
    first = Running(tmp_path, site, requests, DISTRIBUTED_RECEIPT_INTERVAL="600")
    claimed = first.when(lambda receipt: receipt.sequence == 3)  # claimed, opened, its first request sent
    assert site.held.wait(SECONDS)
    wait_for(lambda: len(site.asked) == 3)  # robots.txt, and both of them, in whatever order
    asked = list(site.asked)
    written = first.receipt_file.read_bytes()
    second = Running(tmp_path, site, requests, LOG_FILE=str(first.log.with_name("second.log"))).end()
    assert "ConfigError: _job: found 'job', whose receipt" in first.log.with_name("second.log").read_text()
    assert site.asked == asked
    assert first.receipt_file.read_bytes() == written
    assert [file.name for file in first.receipt_file.parent.iterdir()] == ["job.json"]
    assert second.items == []
    site.release.set()
    crawl = first.end()
    receipt = crawl.receipt
    assert receipt is not None
    assert (receipt.final, receipt.settled, receipt.items, len(crawl.items)) == (True, 0b11, 2, 2)
    assert receipt.sequence > claimed.sequence

    third = Running(tmp_path, site, requests).end()  # and when the first has ended
    assert third.receipt == receipt
    assert third.items == crawl.items


def test_a_worker_that_is_refused_for_another_reason_claims_nothing(tmp_path: Path, site: Site) -> None:
    Running(tmp_path, site, [f"{site.url}/ok"], FEED_URI="gopher://host/7.jl").end()
    assert not (tmp_path / "logs" / "p" / "s.receipts").exists()
    receipt = Running(tmp_path, site, [f"{site.url}/ok"]).end().receipt
    assert receipt is not None
    assert receipt.final

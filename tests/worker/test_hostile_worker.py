"""A worker among hostile values, and an honest worker, whatever its project does: what it sends is never refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile import TRAP, Trap, element, forged
from scrapy import Request
from scrapy.exceptions import CloseSpider
from scrapy.utils.test import get_crawler
from twisted.internet.error import DNSLookupError
from twisted.python.failure import Failure

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.middleware import DistributedSpiderMiddleware
from scrapy_distributed.wire.payload import PREFIX
from scrapy_distributed.wire.reasons import reason_of
from scrapy_distributed.wire.receipt import MAX_FEEDS, MAX_STATS, Receipt
from scrapy_distributed.worker.outcomes import Outcomes
from scrapy_distributed.worker.worker import Worker


def test_a_batch_that_is_refused_starts_no_crawl() -> None:
    for value in ('["file:///etc/passwd"]', element(callback="__init__"), "", "{}", PREFIX):
        crawler = get_crawler(Trap, {"DISTRIBUTED_START_URL": value, "DISTRIBUTED_TARGET_HOSTS": "a"})
        crawler.spider = TRAP
        with pytest.raises(ValueError, match="DISTRIBUTED_START_URL"):  # NotConfigured would be a crawl without us
            DistributedSpiderMiddleware.from_crawler(crawler)


def test_an_errback_that_closes_the_spider_is_told(tmp_path: Path) -> None:
    """Scrapy takes what the errback of a failed download raises past the spider middlewares."""
    worker = a_worker(tmp_path)

    def gives_up(failure: Any) -> None:
        raise CloseSpider("banned")

    failure = Failure(DNSLookupError())
    request = Request("http://a/", errback=gives_up)
    failure.request = worker.tickets.put(request, worker.outcomes.start(0))  # type: ignore[attr-defined]
    with pytest.raises(CloseSpider):
        worker.errbacks.called(worker.spider, failure)
    assert worker.crawler.stats.get_value("distributed/closed_itself") == 1


@pytest.mark.parametrize(
    ("reason", "itself"),
    [("quota", True), ("cancelled", True), ("shutdown", False), ("finished", False), ("memusage_exceeded", False),
     ("closespider_timeout", False)],
)  # fmt: skip
def test_a_spider_that_closes_for_a_reason_of_its_own_is_told(tmp_path: Path, reason: str, itself: bool) -> None:
    worker = a_worker(tmp_path)
    worker._spider_closed(reason)
    assert bool(worker.crawler.stats.get_value("distributed/closed_itself")) is itself


# An honest worker, whatever its project does


def a_worker(folder: Path, **arguments: Any) -> Worker:
    crawler = get_crawler(Trap, {"DISTRIBUTED_START_URL": '["http://a/"]', "LOG_FILE": str(folder / "s" / "j.log")})
    crawler.spider = Trap(**{"_job": "j"} | arguments)
    return Worker.from_crawler(crawler)


def written(worker: Worker) -> Receipt:
    assert worker.reporter.file is not None
    return Receipt.from_json(worker.reporter.file.read_bytes(), size=1)


@pytest.mark.parametrize("job", ["../../x", "/x", "a/b", "a\0"])
def test_a_worker_writes_nothing_outside_of_its_folder(job: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    with pytest.raises(ConfigError, match="job id"):
        a_worker(folder, _job=job)
    assert list(tmp_path.iterdir()) == []


def test_what_exceptions_and_spiders_say_travels() -> None:
    for name in ("x" * 5_000, "a\n\x1b[2J"):
        outcomes = Outcomes(2)
        first, second = outcomes.start(0), outcomes.start(1)
        outcomes.note(first, *reason_of(type(name, (Exception,), {})()))
        outcomes.end(first)
        outcomes.note(outcomes.follow(1), "failed", f"callback {name}")
        outcomes.end(second)
        text = forged(size=2, settled="AQ==", failed=outcomes.by_reason("failed"))
        ((reason, positions),) = Receipt.from_json(text).failed.items()
        assert (reason[:10], positions) == (f"download {name[0]}", [0])
        assert all(len(reason) < 300 and reason.isprintable() for _, reason in outcomes.followed)


def test_the_receipt_of_an_honest_worker_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """100,000 items in files of 100 each, a stat for each of 10,000 things, and a spider that closes with a story."""
    worker = a_worker(tmp_path)
    worker.crawler.stats.set_value("\ud800", 1)
    worker.crawler.stats.set_value("inf", float("inf"))
    worker.crawler.stats.set_value("text", "abc")
    for number in range(10_000):
        worker.crawler.stats.inc_value(f"price/{number}")
    worker.feeds.files = [(f"file:///shared/items/{number}.jl", 100) for number in range(1000)]
    worker._spider_closed("asked for:\n\ud800" + "x" * 5_000)
    report = written(worker)
    assert (report.final, report.stored, len(report.feeds), len(report.stats)) == (True, True, 1000, MAX_STATS)
    assert report.finish_reason.startswith("asked for:??xxx")
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "stats are not in the receipt" in warning


def test_what_does_not_fit_is_told_and_does_not_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is left out without a word: a feed that is not in the receipt would be missing in the merged items."""
    worker = a_worker(tmp_path)
    worker.feeds.files = [(f"file:///{number}", 1) for number in range(MAX_FEEDS + 1)]
    worker.reporter.at_work()
    assert not written(worker).final
    worker._spider_closed("finished")
    report = written(worker)
    assert (report.final, report.stored, report.feeds, report.finish_reason) == (True, False, (), "finished")
    assert "so it does not count: no receipt: expected at most 50,000 feeds (set FEED_EXPORT_BATCH" in caplog.text

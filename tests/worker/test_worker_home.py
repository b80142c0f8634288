"""Which items of a worker go home, of which request and page; its crawl is a fake, its file a real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from scrapy import Request, Spider
from scrapy.http import Response
from scrapy.utils.test import get_crawler
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from scrapy_distributed.items.lines import Line
from scrapy_distributed.items.spool import lines_of
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.worker import items_file
from scrapy_distributed.worker.worker import Worker

START = '["http://a/0","http://a/1"]'


class Shop(Spider):
    name = "s"

    def parse_item(self, response: Any) -> None:
        """Of what goes to the fleet."""


class Crawl:
    """A worker of a batch of two; *closed*: why its engine was told to close."""

    def __init__(self, folder: Path, start: str = START) -> None:
        settings = {
            "DISTRIBUTED_START_URL": start, "DISTRIBUTED_ITEMS": "home", "LOG_FILE": str(folder / "s" / "j.log"),
            "DISTRIBUTED_TARGET_CALLBACKS": "parse_item",
        }  # fmt: skip
        crawler = get_crawler(Shop, settings)
        crawler.spider = Shop(_job="j")
        self.closed: list[str] = []
        crawler.engine = SimpleNamespace(  # type: ignore[assignment]
            close_spider_async=self._close, downloader=SimpleNamespace(middleware=SimpleNamespace(middlewares=[]))
        )
        self.worker = Worker.from_crawler(crawler)
        self.requests: list[Request] = []
        assert Deferred.fromCoroutine(self._begin()).called

    async def _close(self, *, reason: str) -> None:
        self.closed.append(reason)

    async def _begin(self) -> None:
        async def own() -> Any:
            raise AssertionError("the spider's own start")
            yield

        self.requests = [request async for request in self.worker.process_start(own())]

    def follow(self, start: int, url: str, **options: Any) -> Request:
        """A request that the page of the one at *start* has led to."""
        page = answer(self.requests[start])
        (request,) = self.worker.process_spider_output(page, [Request(url, **options)])
        assert isinstance(request, Request)
        return request

    def scrape(self, item: Any, request: Request | None) -> None:
        self.worker._item_scraped(item, None if request is None else answer(request))

    @property
    def file(self) -> items_file.ItemsFileWriter:
        assert self.worker.reporter.items_file is not None
        return self.worker.reporter.items_file

    def lines(self) -> list[Line]:
        self.file._file.flush()
        with Path(self.file._file.name).open("rb") as written:
            return [line for _, line in lines_of(written, Shop) if line is not None]

    def page_of(self, request: Request) -> str:
        return self.worker.fingerprint(request).hex()


def answer(request: Request) -> Response:
    return Response(request.url, request=request)


def redirected(request: Request, url: str) -> Request:
    return request.replace(url=url, meta={**request.meta, "redirect_urls": [request.url]})


@pytest.fixture
def crawl(tmp_path: Path) -> Iterator[Crawl]:
    crawl = Crawl(tmp_path)
    yield crawl
    crawl.file.close()


def test_each_item_has_its_start_request_and_the_page_that_is_not_that_request_itself(crawl: Crawl) -> None:
    first, second = crawl.requests
    shared = crawl.follow(0, "http://a/shared")
    landed = redirected(second, "http://a/landed")
    for number, request in enumerate([first, second, shared, landed, None]):
        crawl.scrape({"n": number}, request)
    pages = [crawl.page_of(Request(url)) for url in ("http://a/shared", "http://a/landed")]
    assert crawl.lines() == [
        (0, "", {"n": 0}), (1, "", {"n": 1}), (0, pages[0], {"n": 2}), (1, pages[1], {"n": 3}), (None, "", {"n": 4}),
    ]  # fmt: skip
    assert crawl.worker.reporter.items == 5


def test_what_no_dupe_filter_looks_at_is_of_no_page(tmp_path: Path) -> None:
    crawl = Crawl(tmp_path, '[{"url":"http://a/0","dont_filter":true},"http://a/1"]')
    for request in (redirected(crawl.requests[0], "http://a/x"), crawl.follow(1, "http://a/y", dont_filter=True)):
        crawl.scrape({}, request)
    assert [(line.position, line.page) for line in crawl.lines()] == [(0, ""), (1, "")]
    crawl.file.close()


def test_a_key_that_is_too_long_to_be_told_is_no_page(crawl: Crawl) -> None:
    crawl.worker.fingerprint = lambda request: b"x" * 65
    crawl.scrape({}, crawl.follow(0, "http://a/shared"))
    assert [line.page for line in crawl.lines()] == [""]


def test_an_item_that_can_not_travel_fails_its_request_and_is_told_once(
    crawl: Crawl, caplog: pytest.LogCaptureFixture
) -> None:
    crawl.scrape({"file": open}, crawl.requests[1])
    crawl.scrape({"file": open}, crawl.requests[0])
    crawl.scrape({"file": open}, None)
    crawl.scrape({"n": 1}, crawl.requests[1])
    assert [line.item for line in crawl.lines()] == [{"n": 1}]
    reason = "item can't come home: file builtin_function_or_method"
    assert crawl.worker.outcomes.noted == dict.fromkeys([0, 1], (Outcome.FAILED, reason))
    assert caplog.text.count(f"An {reason}, of <200 http://a/1>") == 1
    assert len(caplog.records) == 1
    assert crawl.file.left_out == 1  # of the one that is of no request


@pytest_twisted.ensureDeferred
async def test_a_file_that_can_not_be_written_ends_the_job_with_what_it_had(
    crawl: Crawl, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    own = crawl.file._file
    crawl.file._file = SimpleNamespace(writelines=full, close=own.close)  # type: ignore[assignment]
    for number in range(3):
        crawl.scrape({"n": number}, crawl.requests[0])
    await deferLater(reactor, 0)
    assert crawl.closed == ["items_refused"]
    assert caplog.text.count("the file of its items can't be written: [Errno 28] No space left on device") == 1
    assert crawl.file.close() is None


@pytest_twisted.ensureDeferred
async def test_a_file_that_is_full_ends_the_job_once_and_what_still_comes_is_kept(
    crawl: Crawl, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(items_file, "MAX_ITEMS_BYTES", 60)
    for number in range(5):
        crawl.scrape({"n": number}, crawl.requests[0])
    await deferLater(reactor, 0)
    assert crawl.closed == ["items_full"]
    assert caplog.text.count("more items than can come home at once") == 1
    assert [line.item["n"] for line in crawl.lines()] == list(range(5))

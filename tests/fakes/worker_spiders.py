"""Spiders and components for the crawls of ``worker_crawl.py``; a child process runs this file with ``runspider``."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import scrapy
from scrapy import Request
from scrapy.exceptions import CloseSpider, IgnoreRequest


class Fresh:
    """Downloader middleware: swaps a request for another that knows nothing of it, and ignores a response."""

    def process_request(self, request):
        if "/swapped" in request.url:
            return Request(request.url.replace("/swapped", "/ok"), callback=request.callback)
        if "/other_scheme" in request.url:
            return request.replace(url="foo://127.0.0.1/")
        return None

    def process_response(self, request, response):
        if "/ignored" in request.url:
            raise IgnoreRequest("not wanted")
        return response


class Picky:
    """Item pipeline."""

    def process_item(self, item):
        if item.get("bad"):
            raise KeyError("bad")
        return item


class Extra:
    """Spider middleware: one more item a page, and an item in place of an exception; by subclass on its own pages."""

    mark = ""

    def process_spider_output(self, response, result):
        yield from result
        if f"{self.mark}extra" in response.url:
            yield {"from": self.mark}

    async def process_spider_output_async(self, response, result):
        async for output in result:
            yield output
        if f"{self.mark}extra" in response.url:
            yield {"from": self.mark}

    def process_spider_exception(self, response, exception):
        return [{"recovered": self.mark}] if f"{self.mark}recovered" in response.url else None


class Near(Extra):
    mark = "near"


class Far(Extra):
    mark = "far"


class FirstOnly:
    """Item filter that remembers: of items with the same ``url`` it takes the first."""

    def __init__(self, feed_options):
        self.seen = set()

    def accepts(self, item):
        new = item.get("url") not in self.seen
        self.seen.add(item.get("url"))
        return new


class NoneOf:
    """Item filter that takes nothing."""

    def __init__(self, feed_options):
        pass

    def accepts(self, item):
        return False


def with_password(params, spider):
    """``FEED_URI_PARAMS``"""
    return {**params, "word": os.environ["WORD"]}


class NoStore:
    """Feed storage that takes everything and stores nothing."""

    def __init__(self, uri, *, feed_options=None):
        self.uri = uri

    def open(self, spider):
        import tempfile

        return tempfile.TemporaryFile()

    def store(self, file):
        file.close()
        logging.info("At store: %s", Path("logs/p/s.receipts/job.json").read_text())
        Path("uri").write_text(self.uri)
        raise OSError(f"disk full at {self.uri}")


class Keep(NoStore):
    """The same, and says that it has stored it."""

    def store(self, file):
        file.close()


class Endings(scrapy.Spider):
    name = "s"
    allowed_domains = ["127.0.0.1"]
    custom_settings = {
        "SPIDER_MIDDLEWARES": {"scrapy_distributed.middleware.DistributedSpiderMiddleware": 100, Near: 50, Far: 500},
        "DOWNLOADER_MIDDLEWARES": {Fresh: 1},
        "ITEM_PIPELINES": {Picky: 1},
        "FEED_STORAGES": {"nostore": NoStore, "keep": Keep},
        "ROBOTSTXT_OBEY": True,
        "RETRY_TIMES": 1,
        "REDIRECT_MAX_TIMES": 3,
        "TELNETCONSOLE_ENABLED": False,
        "DNS_TIMEOUT": 1,
    }

    async def start(self):
        raise AssertionError("a worker has no start of its own")
        yield

    def parse(self, response, a=None):
        yield {"url": response.url}

    def nothing(self, response):
        return None

    def a_list(self, response):
        return [{"url": response.url}]

    def raises(self, response):
        raise ValueError("no")

    def item_then_raises(self, response):
        yield {"url": response.url}
        raise ValueError("no")

    async def parse_async(self, response):
        yield {"url": response.url}

    async def coroutine(self, response):
        return [{"url": response.url}]

    async def raises_async(self, response):
        yield {"url": response.url}
        raise LookupError("no")

    def bad_item(self, response):
        yield {"bad": True}
        yield {"url": response.url}

    def not_for_json(self, response):
        yield {"url": "a"}
        yield {"url": "b", "thing": object()}

    def follow_refused(self, response):
        yield Request(self.refused)

    def follow_refused_errback(self, response):
        yield Request(self.refused + "followed", errback=self.errback_item)

    def follow_404(self, response):
        yield response.follow("/404?followed")

    def follow_offsite(self, response):
        yield Request("http://elsewhere.invalid/")

    def follow_raises(self, response):
        yield response.follow("/ok?raises", callback=self.raises)

    def follow_down(self, response):
        depth = response.meta["depth"]
        yield {"url": response.url}
        if depth < 3:
            yield response.follow(f"/ok?down{depth}", callback=self.follow_down, meta=response.meta)

    def follow_twice(self, response):
        request = response.follow("/ok?twice")
        return [request, request]

    def follow_to_hold(self, response):
        yield {"url": response.url}
        yield response.follow("/hold?followed")

    def closes(self, response):
        raise CloseSpider("enough")

    # Targets, by callback, rule or meta

    def targets(self, response):
        for page in response.url.partition("?")[2].split(","):
            yield response.follow(f"/target?{page}", callback=self.target, meta={"page": page})

    def target(self, response):
        yield {"target": response.url}

    def targets_by_meta(self, response):
        yield response.follow("/target?meta", meta={"distributed": True}, cb_kwargs={"a": 1})
        yield response.follow("/ok?not_meant", meta={"distributed": "yes"})
        yield {"url": response.url}

    async def targets_of_all_kinds(self, response):
        yield response.follow("/target?rule", callback=self.target, meta={"rule": 1}, errback=self.errback_item)
        for _ in range(2):
            yield response.follow("/target?again", callback=self.target, dont_filter=True)
        yield response.follow("/target?own", callback=self.target)
        yield Request("http://elsewhere.invalid/target", callback=self.target)
        yield Request("ftp://127.0.0.1/target", callback=self.target)
        yield response.follow("/target?stuck", callback=self.target, meta={"rule": 1, "key": object()})

    def targets_by_copies(self, response):
        yield response.request.replace(url=response.urljoin("/target?copy"), callback=self.target)
        yield response.follow("/target?copied_meta", callback=self.target, meta=response.meta)
        yield response.follow("/ok?copied_meta", meta=response.meta)
        yield response.request.replace(url=response.urljoin("/ok?copy"), callback=self.parse)

    def errback_target(self, failure):
        yield Request(self.ok.replace("/ok", "/target?") + failure.request.meta["page"], callback=self.target)

    async def errback_target_async(self, failure):
        yield Request(self.ok.replace("/ok", "/target?") + failure.request.meta["page"], callback=self.target)

    def errback_none(self, failure):
        return None

    def errback_raises(self, failure):
        raise RuntimeError("no")

    def errback_failure(self, failure):
        return failure

    def errback_item(self, failure):
        yield {"failed": failure.request.url}
        yield Request(failure.request.meta["ok"] if "ok" in failure.request.meta else self.ok + "?errback_item")

    async def errback_async(self, failure):
        yield {"failed": failure.request.url}
        yield Request(self.ok + "?errback_async", callback=self.parse_async)

    async def errback_coroutine(self, failure):
        return [{"failed": failure.request.url}]

    async def errback_async_raises(self, failure):
        yield {"failed": failure.request.url}
        raise RuntimeError("no")

"""Spiders that send out every kind of request, and yield as items what has arrived of them."""

from __future__ import annotations

import asyncio
import enum
import random
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import scrapy
from scrapy import FormRequest, Request
from scrapy.http import JsonRequest, Response
from scrapy.linkextractors import LinkExtractor
from scrapy.spiders import CrawlSpider, Rule

MARK = {"distributed": True}


class TrialSpider(scrapy.Spider):
    """Starts at the site's first index page."""

    batch: str | None = None  # on a worker it has one
    allowed_domains = ["127.0.0.1", "no-such-host.invalid"]

    def __init__(self, site: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.site = site

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.site}/index_00000.html")

    @property
    def place(self) -> str:
        return "worker" if self.batch else "coordinator"


class PlainSpider(TrialSpider):
    """No rules: by ``meta["distributed"]``, and by the names of callbacks, all of which are coroutines."""

    name = "plain"
    custom_settings = {"DISTRIBUTED_TARGET_CALLBACKS": ["parse_named", "parse_list"]}

    async def parse(self, response: Response) -> AsyncIterator[Any]:
        def marked(path: str, callback: Any = self.parse_echo, **kwargs: Any) -> Request:
            return Request(f"{self.site}{path}", callback, meta=dict(MARK), **kwargs)

        yield Request(
            f"{self.site}/echo?post",
            self.parse_echo,
            method="POST",
            body="ü\0=1".encode(),
            headers={"X-Trial": ["one", "two"]},
            cookies={"session": "abc"},
            meta={**MARK, "note": {"deep": [1, 2.5, None, "é"]}, "cookiejar": 1},  # no other request gets the cookie
            cb_kwargs={"number": 7, "text": "ß"},
            priority=5,
            flags=["flag"],
        )
        yield JsonRequest(f"{self.site}/echo?json", data={"a": [1]}, callback=self.parse_named)
        yield FormRequest(f"{self.site}/echo?form", formdata={"q": "a b"}, callback=self.parse_list)
        for path in ("/echo?b=1&a=2", "/echo?a=2&b=1", "/echo?a=2&b=1#fragment"):
            yield marked(path)
        for _ in range(2):
            yield marked("/echo?again", dont_filter=True)
        yield marked("/echo?leads", self.parse_leading)
        yield marked("/status/404", errback=self.note_error)
        # What stays here.
        yield Request(f"{self.site}/echo?unmarked", self.parse_echo)
        yield marked("/echo?large", method="POST", body=random.Random(0).randbytes(200_000))
        yield marked("/echo?object", cb_kwargs={"thing": object()})
        # What nobody may fetch.
        yield Request("http://elsewhere.invalid/", self.parse_echo, meta=dict(MARK))
        yield Request("file:///etc/hostname", self.parse_echo, meta=dict(MARK))

    async def parse_echo(self, response: Any, **kwargs: Any) -> AsyncIterator[Any]:
        await asyncio.sleep(0)
        yield self.arrived(response)

    async def parse_named(self, response: Any) -> AsyncIterator[Any]:
        yield self.arrived(response)

    async def parse_list(self, response: Any) -> list[Any]:
        return [self.arrived(response)]

    async def parse_leading(self, response: Any) -> AsyncIterator[Any]:
        yield self.arrived(response)
        yield Request(f"{self.site}/echo?further", self.parse_further)

    def parse_further(self, response: Any) -> Iterator[Any]:
        yield self.arrived(response)
        yield Request(f"{self.site}/echo?furthest", self.parse_echo)

    async def note_error(self, failure: Any) -> AsyncIterator[Any]:
        yield {"case": "errback", "place": self.place, "status": failure.value.response.status}

    def arrived(self, response: Any) -> dict[str, Any]:
        request, echo = response.request, response.json()
        return {
            "case": request.url.partition("?")[2],
            "place": self.place,
            "class": type(request).__name__,
            "method": echo["method"],
            "body": echo["body"] if len(echo["body"]) < 100 else "long",
            "trial": [value.decode() for value in request.headers.getlist("X-Trial")],
            "cookie": echo["headers"].get("cookie"),
            "note": request.meta.get("note"),
            "kwargs": {name: value for name, value in request.cb_kwargs.items() if name != "thing"},
            "priority": request.priority,
            "flags": request.flags,
            "argv": sys.orig_argv,
            "reactor": "twisted.internet.reactor" in sys.modules,
        }


class RulesSpider(CrawlSpider):
    """Two of three rules are crawled by the fleet."""

    name = "rules"
    batch: str | None = None
    custom_settings = {"DISTRIBUTED_TARGET_RULE": "1,2"}
    rules = (
        Rule(LinkExtractor(restrict_css="a.next")),
        Rule(LinkExtractor(allow=r"/property_\d*[02468]\.html"), callback="parse_even", cb_kwargs={"kind": "even"}),
        Rule(LinkExtractor(allow=r"/property_"), callback="parse_odd", errback="note_error"),
    )

    def __init__(self, site: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.site = site
        self.start_urls = [f"{site}/index_00000.html"]

    async def parse_even(self, response: Response, kind: str) -> AsyncIterator[Any]:
        yield {"url": response.url, "kind": kind, "batch": self.batch, "text": response.meta["link_text"]}

    def parse_odd(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url, "kind": "odd", "batch": self.batch, "text": response.meta["link_text"]}

    def note_error(self, failure: Any) -> None:
        """Named by a rule."""


class Kind(str, enum.Enum):
    """What JSON would make a text of."""

    SALE = "sale"


class PeculiarSpider(TrialSpider):
    """What other spiders do not have: an attribute ``rules`` without rules, a folder for its state, an Enum."""

    name = "peculiar"
    custom_settings = {"JOBDIR": "state", "DISTRIBUTED_TARGET_CALLBACKS": ["parse_item"]}
    rules = {"title": "h1"}

    async def parse(self, response: Response) -> AsyncIterator[Any]:
        for number, kind in enumerate(("house", "flat", Kind.SALE)):
            url = f"{self.site}/property_{number:06d}.html"
            yield Request(url, self.parse_item, cb_kwargs={"kind": kind})

    def parse_item(self, response: Response, kind: str) -> Iterator[Any]:
        yield {"url": response.url, "kind": kind.name if isinstance(kind, Kind) else kind, "place": self.place}


class FailingSpider(TrialSpider):
    """Requests that end in each of the ways in which a request can end; *closed* is a port where nobody listens."""

    name = "failing"
    custom_settings = {"RETRY_ENABLED": False}

    async def parse(self, response: Response) -> AsyncIterator[Any]:
        for url, callback in {
            f"{self.site}/echo?good": self.parse_good,
            f"{self.site}/status/404": self.parse_good,
            f"{self.site}/status/500": self.parse_good,
            "http://no-such-host.invalid/": self.parse_good,
            f"http://127.0.0.1:{self.closed}/": self.parse_good,
            f"{self.site}/echo?callback": self.parse_raising,
            f"{self.site}/echo?item": self.parse_refused,
            f"{self.site}/echo?follow": self.parse_following,
            f"{self.site}/redirect?to=http://elsewhere.invalid/": self.parse_good,
        }.items():
            yield Request(url, callback, meta=dict(MARK))

    def parse_good(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url}

    def parse_raising(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url}
        raise ValueError("this page is not as expected")

    def parse_refused(self, response: Response) -> Iterator[Any]:
        yield {"refuse": response.url}

    def parse_following(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url}
        yield Request(f"{self.site}/status/410", self.parse_good)


class MendedSpider(TrialSpider):
    """Four pages of which the parser makes nothing before there is a file *mended*, and one that takes its time."""

    name = "mended"

    async def start(self) -> AsyncIterator[Any]:
        for number in range(4):
            yield Request(f"{self.site}/echo?{number}", self.parse_price, meta=dict(MARK))
        yield Request(f"{self.site}/property_000000.html", self.parse, meta=dict(MARK))

    def parse(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url}

    def parse_price(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url}
        if not Path(self.mended).exists():
            raise ValueError("no price on page")
        yield {"url": response.url, "price": 7}


class LongSpider(TrialSpider):
    """5,000 URLs of 310 characters, most of them random: 1.5 MB of JSON."""

    name = "long"

    async def start(self) -> AsyncIterator[Any]:
        for url in long_urls(self.site):
            yield Request(url, meta=dict(MARK))

    def parse(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url, "longest_argument": max(map(len, sys.orig_argv))}


def long_urls(site: str) -> list[str]:
    rng = random.Random(0)
    return [f"{site}/property_{number:06d}.html?q={rng.randbytes(130).hex()}" for number in range(5000)]

"""Scrapy's own download handler and the lean one, asked the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import pytest_twisted
from answering import OLD, Server
from scrapy import Request, Spider
from scrapy.core.downloader.handlers.http11 import HTTP11DownloadHandler
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.utils.misc import build_from_crawler
from scrapy.utils.test import get_crawler
from twisted.internet.defer import Deferred

from scrapy_distributed.fast.http_handler import HTTPDownloadHandler


def asynchronous(test: Callable[..., Awaitable[None]]) -> Any:
    """Run *test* on the loop of the reactor, as an asyncio task."""

    async def run(*args: Any, **kwargs: Any) -> None:
        await Deferred.fromFuture(asyncio.ensure_future(test(*args, **kwargs)))

    run.__signature__ = __import__("inspect").signature(test)  # type: ignore[attr-defined]
    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return pytest_twisted.ensureDeferred(run)


def crawler_with(**settings: Any) -> Crawler:
    crawler = get_crawler(Spider, settings)
    crawler.spider = Spider(name="s")
    return crawler


shared_crawler = cache(crawler_with)
"""Where nothing connects to its signals: making one takes longer than most answers."""


class Both:
    """The two handlers, with the same settings."""

    def __init__(self, crawler: Crawler | None = None, **settings: Any) -> None:
        self.crawler = crawler or crawler_with(**settings)
        self.stock = build_from_crawler(HTTP11DownloadHandler, self.crawler)
        self.lean = build_from_crawler(HTTPDownloadHandler, self.crawler)

    async def close(self) -> None:
        await self.stock.close()
        await self.lean.close()


async def outcome(handler: Any, request: Request) -> tuple[Any, ...]:
    """What becomes of *request*, in what can be compared."""
    try:
        response: Response = await handler.download_request(request)
    except Exception as error:
        return (type(error),)
    assert request.meta["download_latency"] > 0
    return (
        type(response), response.status, response.url, dict(response.headers), response.body, response.flags,
        response.protocol, str(response.ip_address), type(response.certificate),
    )  # fmt: skip


def alike(found: tuple[Any, ...]) -> tuple[Any, ...]:
    """*found* without the address that an empty body has with the lean handler alone."""
    return (*found[:7], "", *found[8:]) if OLD and len(found) > 1 and not found[4] else found


async def compare(server: Server, *requests: Request, **settings: Any) -> list[tuple[Any, ...]]:
    """The outcomes of *requests*, one after the other: the same of both handlers, and the server was asked the same."""
    both = Both(shared_crawler(**settings))
    server.asked = []
    try:
        stock = [await outcome(both.stock, request.copy()) for request in requests]
        asked, server.asked, server.over[:] = server.asked, [], []
        lean = [await outcome(both.lean, request.copy()) for request in requests]
    finally:
        await both.close()
    assert [alike(found) for found in lean] == [alike(found) for found in stock]
    assert server.asked == asked
    return lean


def path_of(name: str) -> str:
    return "/" + name.replace(" ", "_")

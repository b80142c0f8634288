"""What a batch is given is in the worker's jars before its first page; what pages set stays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from scrapy import Request
from scrapy.downloadermiddlewares.cookies import CookiesMiddleware
from scrapy.http import Response

from scrapy_distributed.divert.jars import Jars
from scrapy_distributed.errors import WireError
from scrapy_distributed.worker.sessions import Sessions

SITE = "http://www.a.example/"


def cookie(value: str, **values: Any) -> dict[str, Any]:
    return {"name": "sid", "value": value, "domain": "www.a.example", **values}


FOUND: dict[str, Any] = {
    "a": [None, [cookie("old"), cookie("deep", path="/deep"), cookie("safe", name="safe", secure=True)]],
    "b": [None, [cookie("new")]],
    "c": ["jar", [cookie("other"), cookie("over", name="over", expires=1)]],
}
ELEMENTS = [{"url": SITE, "_session": "a"}, SITE, {"url": SITE, "_session": "b"}, {"url": SITE, "_session": "c"}]


@pytest.fixture
def middleware() -> CookiesMiddleware:
    made = CookiesMiddleware()
    made.crawler = SimpleNamespace(spider=None)  # type: ignore[assignment]
    Sessions(ELEMENTS, FOUND).put(jars(made))
    return made


def jars(middleware: Any) -> Jars:
    crawler: Any = SimpleNamespace(get_downloader_middleware=lambda cls: middleware)
    return Jars(crawler)


def header(middleware: CookiesMiddleware, url: str = SITE, **meta: Any) -> bytes | None:
    request = Request(url, meta=meta)
    middleware.process_request(request)
    return request.headers.get("Cookie")


def test_each_jar_sends_its_own_and_the_later_one_wins(middleware: CookiesMiddleware) -> None:
    assert header(middleware) == b"sid=new"
    assert header(middleware, SITE + "deep/1") == b"sid=deep; sid=new"
    assert header(middleware, SITE.replace("http", "https")) == b"sid=new; safe=safe"
    assert header(middleware, cookiejar="jar") == b"sid=other"
    assert header(middleware, "http://b.example/") is None
    assert header(middleware, dont_merge_cookies=True) is None


def test_what_a_page_sets_is_sent_from_then_on(middleware: CookiesMiddleware) -> None:
    middleware.process_response(Request(SITE), Response(SITE, headers={"Set-Cookie": "sid=newest; Path=/"}))
    assert header(middleware) == b"sid=newest"


def test_a_worker_without_jars_goes_on() -> None:
    Sessions(ELEMENTS, FOUND).put(jars(None))


def test_what_is_found_has_the_session_of_its_start_request_where_the_jar_is_the_same() -> None:
    sessions = Sessions(ELEMENTS, FOUND)
    plain, of_jar = Request(SITE), Request(SITE, meta={"cookiejar": "jar"})
    assert [sessions.passed_on(position, plain) for position in range(4)] == ["a", None, "b", None]
    assert [sessions.passed_on(position, of_jar) for position in range(4)] == [None, None, None, "c"]
    assert sessions.passed_on(0, Request(SITE, meta={"dont_merge_cookies": True})) is None


@pytest.mark.parametrize(
    ("elements", "found", "message"),
    [
        ([SITE, {"url": SITE, "_session": "d"}], FOUND, "element 1 of the batch names cookies that are not in it"),
        ([{"url": SITE, "_session": ["a"]}], FOUND, "element 0 of the batch names cookies that are not in it"),
        (
            [],
            {"a": [None, [{"name": 1}]]},
            "cookies of requests can't be read: name of a cookie: found int, expected str",
        ),
    ],
)
def test_a_batch_that_is_not_whole_is_refused(elements: list[Any], found: dict[str, Any], message: str) -> None:
    with pytest.raises(WireError, match=message):
        Sessions(elements, found)

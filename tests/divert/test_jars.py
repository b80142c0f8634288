"""Which cookies go with a request is asked of the crawl's own jars, and nothing of it is left in jar or request."""

from __future__ import annotations

import logging
import time
from http.cookiejar import DefaultCookiePolicy
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scrapy import Request, Spider
from scrapy.downloadermiddlewares.cookies import CookiesMiddleware
from scrapy.http import Response
from scrapy.http.cookies import CookieJar
from scrapy.settings import Settings

from scrapy_distributed.divert import jars as module
from scrapy_distributed.divert.jars import Jars

SITE = "https://www.a.example"


class Own(CookiesMiddleware):
    """A project's."""


class NoJars:
    """Another."""


def jars(middleware: Any, **settings: Any) -> Jars:
    crawler: Any = SimpleNamespace(
        spider=Spider(name="s"), settings=Settings(settings), get_downloader_middleware=lambda cls: middleware
    )
    return Jars(crawler)


@pytest.fixture(params=[CookiesMiddleware, Own])
def middleware(request: pytest.FixtureRequest) -> CookiesMiddleware:
    made: CookiesMiddleware = request.param()
    made.crawler = SimpleNamespace(spider=None)  # type: ignore[assignment]
    return made


def visit(middleware: CookiesMiddleware, *cookies: str, url: str = SITE, **meta: Any) -> None:
    """A page of *url* sets *cookies*."""
    headers: Any = {"Set-Cookie": [f"{cookie}" for cookie in cookies]}
    middleware.process_response(Request(url, meta=meta), Response(url, headers=headers))


def names(jars: Jars, url: str, **meta: Any) -> list[str]:
    jars.forget()
    return sorted(f"{cookie.name}={cookie.value}" for cookie in jars.sent(Request(url, meta=meta)))


def test_path_domain_secure_and_expiry_decide(middleware: CookiesMiddleware) -> None:
    visit(
        middleware, "a=1; Path=/", "b=2; Path=/deep", "c=3; Secure; Path=/", "d=4; Domain=a.example; Path=/",
        "e=5; Max-Age=100; Path=/", "f=6; Domain=b.example", "g=7; Max-Age=0",
    )  # fmt: skip
    found = jars(middleware)
    assert names(found, f"{SITE}/") == ["a=1", "c=3", "d=4", "e=5"]
    assert names(found, f"{SITE}/deep/x") == ["a=1", "b=2", "c=3", "d=4", "e=5"]
    assert names(found, "http://www.a.example/") == ["a=1", "d=4", "e=5"]
    assert names(found, "http://other.a.example/") == ["d=4"]
    assert names(found, "http://b.example/") == []


def test_what_is_known_of_a_jar_ends_with_the_first_of_its_cookies(
    middleware: CookiesMiddleware, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(middleware, "a=1; Max-Age=50; Path=/", "b=2; Max-Age=1000; Path=/")
    found, now = jars(middleware), time.time()
    assert names(found, f"{SITE}/") == ["a=1", "b=2"]
    processed = middleware.jars[None].processed
    assert names(found, f"{SITE}/") == ["a=1", "b=2"]
    assert middleware.jars[None].processed == processed
    monkeypatch.setattr(time, "time", lambda: now + 60)
    assert names(found, f"{SITE}/") == ["b=2"]
    visit(middleware, "b=3; Path=/")
    assert names(found, f"{SITE}/") == ["b=3"]


@pytest.mark.parametrize("limit", ["FEW", "MOST_SENT"])
def test_of_large_jars_and_many_sites_nothing_is_known(
    middleware: CookiesMiddleware, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(module, limit, 0)
    visit(middleware, *(f"a{number}=1; Path=/" for number in range(3)))
    found = jars(middleware)
    for _ in range(3):
        before = middleware.jars[None].processed
        assert len(names(found, f"{SITE}/")) == 3
        assert middleware.jars[None].processed > before


@pytest.mark.parametrize(
    "url", [f"{SITE}/deep/x", f"{SITE}:444/", "http://a.example/", "http://127.0.0.1/", "http://b/"]
)
def test_they_are_those_that_the_middleware_sends(middleware: CookiesMiddleware, url: str) -> None:
    visit(middleware, "a=1; Path=/", "b=2; Path=/deep", "d=4; Domain=a.example", "p=5; Port=444")
    visit(middleware, "i=1", url="http://127.0.0.1/x")
    visit(middleware, "l=1", url="http://b/")
    sent = Request(url)
    middleware.process_request(sent)
    header = (sent.headers.get("Cookie") or b"").decode()
    assert names(jars(middleware), url) == sorted(part for part in header.split("; ") if part)


PATHS = ["", "/", "/deep", "/deep/", "/deep/x", "/deeper", "/%64eep/x", "/deep%2fx", "/deep[x]/y", "/deep;a=1", "/é/x"]


@given(st.lists(st.sampled_from(PATHS).flatmap(lambda path: st.sampled_from([path, path + "?a=/deep", path + "#b"]))))
def test_those_that_are_asked_for_once_are_those_of_each(paths: list[str]) -> None:
    made = CookiesMiddleware()
    made.crawler = SimpleNamespace(spider=None)  # type: ignore[assignment]
    for path in ("/", "/deep", "/deep/", "/deeper/", "/deep/x", "/deep[x]", "/%C3%A9"):
        visit(made, f"p={len(path)}; Path={path}")
    together = jars(made)
    for path in paths:
        cookies = together.sent(Request(SITE + path))
        assert sorted(f"{cookie.name}={cookie.value}" for cookie in cookies) == names(jars(made), SITE + path)


def test_what_a_jar_has_decided_holds_until_it_is_forgotten(middleware: CookiesMiddleware) -> None:
    found = jars(middleware)
    assert found.sent(Request(SITE)) == ()
    for value in ("1", "2"):
        visit(middleware, f"a={value}; Path=/", "b=3; Path=/b")
        found.forget()
        for path, values in (("/x", [value]), ("/b", [value, "3"]), ("/y", [value])):
            assert sorted(cookie.value for cookie in found.sent(Request(SITE + path))) == values
    processed = middleware.jars[None].processed
    assert len({found.sent(Request(f"{SITE}/{number}")) for number in range(9)}) == 1
    assert middleware.jars[None].processed == processed


def test_a_policy_of_the_project_is_asked_for_each(middleware: CookiesMiddleware) -> None:
    class Odd(DefaultCookiePolicy):
        def return_ok(self, cookie: Any, request: Any) -> bool:
            return request.get_full_url().endswith("1")

    middleware.jars[None] = CookieJar(Odd())
    visit(middleware, "a=1")
    found = jars(middleware)
    assert [len(found.sent(Request(f"{SITE}/{number}"))) for number in range(3)] == [0, 1, 0]


def test_each_jar_has_its_own(middleware: CookiesMiddleware) -> None:
    visit(middleware, "a=1", cookiejar="one")
    visit(middleware, "a=2", cookiejar=2)
    found = jars(middleware)
    assert names(found, SITE, cookiejar="one") == ["a=1"]
    assert names(found, SITE, cookiejar=2) == ["a=2"]
    assert names(found, f"{SITE}/") == names(found, SITE, cookiejar="three") == []
    assert names(found, SITE, cookiejar=2, dont_merge_cookies=True) == []
    assert "three" not in middleware.jars
    visit(middleware, "a=3")
    found.forget()
    asked = [found.sent(Request(f"{SITE}/", meta=meta)) for meta in ({}, {"cookiejar": "one"}, {"cookiejar": 2})]
    assert [cookie.value for (cookie,) in asked] == ["3", "1", "2"]


@pytest.mark.parametrize("headers", [{}, {"Cookie": "own=1"}])
def test_request_and_jar_are_as_they_were(middleware: CookiesMiddleware, headers: dict[str, str]) -> None:
    own = DefaultCookiePolicy()
    middleware.jars[None] = jar = CookieJar(own)
    visit(middleware, "a=1")
    request = Request(SITE, headers=headers)
    assert len(jars(middleware).sent(request)) == 1
    assert request.headers == Request(SITE, headers=headers).headers
    assert jar.jar._policy is own  # type: ignore[attr-defined]


def test_the_policy_is_put_back_though_it_raises(middleware: CookiesMiddleware) -> None:
    class Broken(DefaultCookiePolicy):
        def return_ok(self, cookie: Any, request: Any) -> bool:
            raise ValueError("broken")

    broken = Broken()
    middleware.jars[None] = jar = CookieJar(broken)
    visit(middleware, "a=1")
    with pytest.raises(ValueError, match="broken"):
        jars(middleware).sent(Request(SITE))
    assert jar.jar._policy is broken  # type: ignore[attr-defined]


def test_what_is_put_is_sent(middleware: CookiesMiddleware) -> None:
    visit(middleware, "a=1; Path=/x; Secure; HttpOnly", "b=2")
    cookies = jars(middleware).sent(Request(f"{SITE}/x"))
    there = type(middleware)()
    there.crawler = middleware.crawler
    jars(there).put("new", cookies)
    assert names(jars(there), f"{SITE}/x", cookiejar="new") == ["a=1", "b=2"]
    assert names(jars(there), "http://www.a.example/x", cookiejar="new") == ["b=2"]
    (one,) = [cookie for cookie in there.jars["new"] if cookie.name == "a"]
    assert one.has_nonstandard_attr("HttpOnly")


def test_what_has_become_of_a_cookie(middleware: CookiesMiddleware) -> None:
    visit(middleware, "a=1; Path=/", "b=1; Path=/")
    found = jars(middleware)
    before = {cookie.name: cookie for cookie in found.sent(Request(SITE))}
    visit(middleware, "a=2; Path=/", "a=3; Path=/x", "b=1; Max-Age=0; Path=/")
    assert found.now(None, before["a"]).value == "2"
    assert found.now(None, before["b"]) is before["b"]
    assert found.now("other", before["a"]) is before["a"]


@pytest.mark.parametrize(
    ("middleware", "settings", "lines"),
    [
        (CookiesMiddleware(), {}, 0),
        (Own(), {}, 0),
        (None, {"COOKIES_ENABLED": False}, 0),
        (None, {}, 1),
        (NoJars(), {}, 1),
    ],
)
def test_a_crawl_without_jars_is_told_so(
    middleware: Any, settings: dict[str, Any], lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    found = jars(middleware, **settings)
    found.warn()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * lines
    assert found.sent(Request(SITE)) == ()
    found.put(None, [])

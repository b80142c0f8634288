"""Sessions are of the jars as they stand when a request is diverted, and once more when its batch is cut."""

from __future__ import annotations

import json
from http.cookiejar import Cookie
from types import SimpleNamespace
from typing import Any

import pytest
from scrapy import Request
from scrapy.downloadermiddlewares.cookies import CookiesMiddleware
from scrapy.http import Response

from scrapy_distributed.coordinator import sessions as module
from scrapy_distributed.coordinator.sessions import Sessions
from scrapy_distributed.divert.jars import Jars
from scrapy_distributed.wire.session import MAX_SESSION, Session

SITE = "http://www.a.example"


class Rig:
    """A crawl's jars, and the sessions that are made of them."""

    def __init__(self) -> None:
        self.middleware = CookiesMiddleware()
        crawler: Any = SimpleNamespace(spider=None, get_downloader_middleware=lambda cls: self.middleware)
        self.middleware.crawler = crawler
        self.sessions = Sessions(Jars(crawler))

    def visit(self, *cookies: str, **meta: Any) -> None:
        headers: Any = {"Set-Cookie": list(cookies)}
        self.middleware.process_response(Request(SITE, meta=meta), Response(SITE, headers=headers))

    def of(self, path: str = "/", **meta: Any) -> Session | None:
        """That of a request, as the ledger is given it."""
        session = self.sessions.of(Request(SITE + path, meta=meta))
        taken = self.sessions.taken()
        assert list(taken) == ([] if session is None else [session])
        return None if session is None else taken[session]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def told(session: Session | None) -> Any:
    """Its jar, and name -> value."""
    assert session is not None
    jar, cookies = json.loads(session.text)
    return jar, {cookie["name"]: cookie["value"] for cookie in cookies}


def test_none_where_nothing_would_be_sent(rig: Rig) -> None:
    assert rig.of() is None
    rig.visit("a=1; Path=/x")
    assert rig.of() is None
    assert told(rig.of("/x")) == (None, {"a": "1"})
    assert rig.of("/x", cookiejar=1) is None
    assert rig.of("/x", dont_merge_cookies=True) is None


def test_the_same_cookies_are_the_same_session(rig: Rig) -> None:
    rig.visit("a=1; Path=/", "b=1; Path=/b")
    assert rig.of("/1") == rig.of("/2") != rig.of("/b")
    rig.visit("a=1; Path=/")
    assert rig.of("/1") == rig.of("/2")
    rig.visit("a=1; Path=/", cookiejar="x")
    assert told(rig.of(cookiejar="x")) == ("x", {"a": "1"})


def test_a_session_is_renewed_where_its_jar_has_other_values(rig: Rig) -> None:
    rig.visit("a=1; Path=/", "b=1; Path=/", "b=1; Path=/")
    before = rig.of()
    assert before is not None
    assert rig.sessions.renewed(before.id) is None
    rig.visit("a=2; Max-Age=60; Path=/", "c=1; Path=/")
    rig.visit("b=3; Path=/", cookiejar="other")
    after = rig.sessions.renewed(before.id)
    assert told(after) == (None, {"a": "2", "b": "1"})
    rig.visit("a=3; Path=/")
    assert after is not None
    assert told(rig.sessions.renewed(after.id)) == told(rig.sessions.renewed(before.id)) == (None, {"a": "3", "b": "1"})


def test_what_the_jar_has_no_more_and_what_is_too_long_stays(rig: Rig) -> None:
    rig.visit("a=1; Path=/", "b=1; Path=/")
    session = rig.of()
    assert session is not None
    rig.visit("a=1; Path=/; Max-Age=0", f"b={'b' * MAX_SESSION}; Path=/")
    assert rig.sessions.renewed(session.id) is None


def test_what_an_earlier_coordinator_has_diverted_goes_as_it_was(rig: Rig) -> None:
    rig.visit("sid=member; Path=/")
    session = rig.of()
    assert session is not None
    again = Rig()
    again.visit("sid=guest; Path=/")
    assert again.sessions.renewed(session.id) is None


def test_no_more_are_remembered_than_there_is_room_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    made: list[Session] = []
    for number in range(5):
        rig.visit(f"a={number}; Path=/")
        session = rig.of()
        assert session is not None
        made.append(session)
    rig.visit("a=9; Path=/")
    assert [rig.sessions.renewed(session.id) is None for session in made[:3]] == [True, True, False]
    assert len(rig.sessions._by_cookies) == len(rig.sessions._cookies) == 3


def test_cookies_are_told_apart_by_identity() -> None:
    """A jar replaces what is set anew."""
    assert Cookie.__eq__ is object.__eq__
    assert Cookie.__hash__ is object.__hash__

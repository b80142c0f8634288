"""The quick fingerprint is Scrapy's own, to the byte."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scrapy import Request
from scrapy.utils.request import RequestFingerprinter, fingerprint

from scrapy_distributed.divert.fingerprint import QuickFingerprinter, _is_canonical, fingerprinter_of, quick_fingerprint

HOSTS = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}(:[0-5]?[0-9]{1,4})?", fullmatch=True)
PATHS = st.text("abcXYZ019/._~-", max_size=60)
ANYTHING = st.text(st.characters(min_codepoint=33, max_codepoint=0x24F), max_size=40)


@given(st.sampled_from(["http", "https"]), HOSTS, PATHS, st.sampled_from(["GET", "HEAD", "PUT"]))
@example("http", "a", "..//./b/../c", "GET")
@example("http", "a:80", "", "GET")
@example("https", "a:443", "~b/", "GET")
@example("http", "xn--bcher-kva.example", "a.html", "GET")
def test_canonical_urls(scheme: str, host: str, path: str, method: str) -> None:
    request = Request(f"{scheme}://{host}/{path}", method=method)
    expected = fingerprint(Request(request.url, method=method))
    assert quick_fingerprint(request) == QuickFingerprinter().fingerprint(request) == expected


@given(ANYTHING, ANYTHING, st.binary(max_size=20))
def test_whatever_else_may_come(path: str, query: str, body: bytes) -> None:
    request = Request(f"http://Example.com/{path}?{query}", method="POST", body=body)
    assert quick_fingerprint(request) == fingerprint(request)


def test_the_quick_way_is_taken_for_ordinary_links_only() -> None:
    assert _is_canonical("http://127.0.0.1:8000/property_000001.html")
    for url in (
        "http://a/?b=1",
        "http://a/b#c",
        "http://A/b",
        "http://a/%7Eb",
        "http://a",
        "http://u@a/b",
        "http://a/b c",
    ):
        assert not _is_canonical(url)


def test_a_verbatim_url_is_the_same_where_it_is_canonical() -> None:
    request = Request("http://a/b", meta={"verbatim_url": True})
    assert quick_fingerprint(request) == fingerprint(request)


class Own:
    def fingerprint(self, request: Request) -> bytes:
        return b"own"


@pytest.mark.parametrize("kind", [Own, type("Sub", (RequestFingerprinter,), {"fingerprint": Own.fingerprint})])
def test_the_fingerprinter_of_a_project_is_asked(kind: type) -> None:
    crawler = SimpleNamespace(request_fingerprinter=kind())
    assert fingerprinter_of(crawler)(Request("http://a/b")) == b"own"  # type: ignore[arg-type]


def test_scrapys_own_is_replaced() -> None:
    crawler = SimpleNamespace(request_fingerprinter=RequestFingerprinter())
    assert fingerprinter_of(crawler) is quick_fingerprint  # type: ignore[arg-type]

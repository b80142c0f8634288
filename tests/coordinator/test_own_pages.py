"""A page that the coordinator and workers come upon brings its items once, whoever is first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ledgers import IDENTITY
from scrapy import Request, Spider
from scrapy.http import HtmlResponse
from scrapy.utils.request import RequestFingerprinter
from scrapy.utils.test import get_crawler

from scrapy_distributed.coordinator.own_pages import OwnPages
from scrapy_distributed.coordinator.walk import TRIED
from scrapy_distributed.divert.fingerprint import quick_fingerprint
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.sqlite import Ledger

URL = "http://shop.invalid/list/1"


def answer(url: str = URL, **request: Any) -> HtmlResponse:
    return HtmlResponse(url, request=Request(url, **request))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.begin(IDENTITY, resume=True)
    yield ledger
    ledger.close()


@pytest.fixture
def own_pages(ledger: Ledger) -> OwnPages:
    crawler = get_crawler(Spider)
    crawler.request_fingerprinter = RequestFingerprinter(crawler)
    return pages_of(crawler, ledger)


def pages_of(crawler: Any, ledger: Ledger) -> OwnPages:
    return OwnPages(crawler, ledger.harvest, begun=lambda: True, ledger_failed=lambda error: None)


def key(url: str) -> bytes:
    return quick_fingerprint(Request(url))


def test_who_is_second_brings_nothing(ledger: Ledger, own_pages: OwnPages) -> None:
    first, second = answer(), answer("http://shop.invalid/list/2")
    assert [own_pages.is_welcome(first), own_pages.is_welcome(first)] == [True, True]  # two of its items
    assert [ledger.harvest.enter_pages([key(one.url)]) for one in (first, second)] == [False, True]
    assert [own_pages.is_welcome(first), own_pages.is_welcome(second)] == [True, False]


@pytest.mark.parametrize(
    ("request_of", "filtered"),
    [
        ({}, True),
        ({"dont_filter": True}, False),
        ({"dont_filter": True, "meta": {"retry_times": 1}}, True),
        ({"dont_filter": True, "meta": {TRIED: 1}}, True),
    ],
)
def test_what_no_dupe_filter_looks_at_is_of_no_page(
    ledger: Ledger, own_pages: OwnPages, request_of: dict[str, Any], filtered: bool
) -> None:
    ledger.harvest.enter_pages([key(URL)])
    response = answer(**request_of)
    assert own_pages.page(response) == (key(URL).hex() if filtered else "")
    assert own_pages.is_welcome(response) is not filtered


def test_where_nothing_filters_no_response_has_a_page(ledger: Ledger) -> None:
    crawler = get_crawler(Spider, {"DUPEFILTER_CLASS": "scrapy.dupefilters.BaseDupeFilter"})
    crawler.request_fingerprinter = RequestFingerprinter(crawler)
    pages = pages_of(crawler, ledger)
    assert [pages.page(answer(meta=meta)) for meta in ({}, {"retry_times": 1})] == ["", ""]


def test_an_item_of_no_response_is_of_no_page(own_pages: OwnPages) -> None:
    assert own_pages.page(None) == ""
    assert own_pages.is_welcome(None)


def test_a_later_command_knows_them_from_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "ledger.sqlite", Spider)
    files = {}
    spool.begin("run", [])
    for name, page in (("own-1.jl", key(URL).hex()), ("own-2.jl", "")):
        own = spool.begin_own(name)
        for number in range(2):
            own.add({"number": number}, page=page)
        file = own.sync()
        assert file is not None
        files[name] = file
        own.close()
    assert list(spool.own_pages(files)) == [key(URL), key(URL)]
    assert [line.item["number"] for name, file in files.items() for line in spool.lines(name, file)] == [0, 1, 0, 1]

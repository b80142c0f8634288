"""Items come home: the files of a crawl of the fleet are those of a local one, up to the order of their items."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest
from homing import FORMATS, Case, Compared, Home, complaints, items

CASES = {
    "plain_dict": Case("plain_dict"),
    "item_fields": Case("item_fields"),
    "data_class": Case("data_class"),
    "attrs_class": Case("attrs_class"),
    **({"pydantic": Case("pydantic")} if find_spec("pydantic") else {}),
    "nested": Case("nested"),
    "item_loader": Case("item_loader"),
    "values": Case("values", ["jl", "json", "csv", "pickle"]),
    "uneven": Case("uneven"),
    "bytes": Case("bytes", ["csv", "pickle"]),
    "chain": Case("chain"),
    "meta_chain": Case("meta_chain"),
    "errback": Case("errback"),
    "rules": Case("rules"),
    "here": Case("here"),
    "back": Case("back"),
    "following_rules": Case("following_rules"),
    "stuck": Case("stuck"),
    "nameless": Case("nameless", ["jl"]),
    "shared": Case("shared"),
    "unfiltered": Case("unfiltered"),
    "each_time": Case("each_time"),
    "redirects": Case("redirects"),
    "refreshes": Case("refreshes"),
    "groups": Case("groups"),
    "few": Case("few"),
    "nothing": Case("nothing"),
}
COMPLAINS = {
    "stuck": ["Crawled here, it can't travel", "Matched, and crawled here as they could not travel: "],
    "nameless": ["Crawled here, it can't travel", "Matched, and crawled here as they could not travel: 12 requests"],
    "errback": ["See why: scrapy batches failed"],
    "redirects": ["See why: scrapy batches failed"],
}
"""Of requests that can't travel the first is told, and at the end how many; and once that pages are not there."""


@pytest.mark.parametrize("name", CASES)
def test_the_files_of_a_local_crawl(compared: Compared, name: str) -> None:
    fleet, local = compared.files(name)
    assert local.keys() == CASES[name].feeds.keys()
    assert fleet == local, compared.crawl(name).log


@pytest.mark.parametrize("name", CASES)
def test_nothing_to_complain_of(compared: Compared, name: str) -> None:
    crawl = compared.crawl(name)
    said, expected = complaints(crawl), COMPLAINS.get(name, [])
    assert len(said) == len(expected), said
    assert all(words in line for words, line in zip(expected, said, strict=True)), said
    assert crawl.process.returncode == 0
    assert crawl.balance()["diverted"] > 0


def test_the_account_is_good(compared: Compared, home: Home) -> None:
    assert home.project.account(compared.crawl("redirects"))["verdict"] == "settled"


@pytest.mark.parametrize("name", ["shared", "redirects", "few"])
def test_each_item_is_told_once_to_those_who_listen(compared: Compared, name: str) -> None:
    crawl = compared.crawl(name)
    assert crawl.stat("item_scraped_count") == len(items(crawl.folder / "out.jl"))


def test_it_is_said_where_they_go_before_the_first_batch(compared: Compared) -> None:
    log = compared.crawl("plain_dict").log
    (said,) = re.findall(r"INFO: (Items: .*)", log)
    assert log.index(said) < log.index("Batch 1 ")
    assert re.fullmatch(
        r"Items: they come home by way of \S+/ledger\.sqlite\.items/\S+, and are written here to .*", said
    )
    assert all(f"/out.{ending}'" in said for ending in FORMATS)

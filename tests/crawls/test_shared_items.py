"""What workers that join bring home: the files of a shared run are those of a local crawl, up to the order of items."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crawling import Project
from homing import Case, Compared, Home, complaints
from shop import Shop
from valkey_child import ValkeyChild, valkey

CASES = {
    "item_fields": Case("item_fields"),
    "nested": Case("nested"),
    "values": Case("values", ["jl", "json", "csv", "pickle"]),
    "chain": Case("chain"),
    "errback": Case("errback"),
    "rules": Case("rules"),
    "here": Case("here"),
    "back": Case("back"),
    "following_rules": Case("following_rules"),
    "stuck": Case("stuck"),
    "shared": Case("shared"),
    "unfiltered": Case("unfiltered"),
    "each_time": Case("each_time"),
    "redirects": Case("redirects"),
    "groups": Case("groups"),
    "few": Case("few"),
    "nothing": Case("nothing"),
}
COMPLAINS = {
    "stuck": ["Crawled here, it can't travel", "Matched, and crawled here as they could not travel: "],
}


@pytest.fixture(scope="module")
def queue() -> Iterator[ValkeyChild]:
    with valkey(appendonly="yes") as child:
        yield child


@pytest.fixture(scope="module")
def compared(queue: ValkeyChild, shop_child: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compared]:
    project = Project(tmp_path_factory.mktemp("shared"), {}, settings="trial.home_settings", name="home")
    folder = tmp_path_factory.mktemp("worker")
    try:
        project.scrapy("worker", queue.url, "--slots", "2", "--logs", str(folder / "jobs"), folder=folder)
        with Compared(Home(project, shop_child), CASES, tmp_path_factory.mktemp("compared"), queue.url) as compared:
            yield compared
    finally:
        project.end()


@pytest.mark.parametrize("name", CASES)
def test_the_files_of_a_local_crawl(compared: Compared, name: str) -> None:
    shared, local = compared.files(name)
    assert local.keys() == CASES[name].feeds.keys()
    assert shared == local, compared.crawl(name).log


@pytest.mark.parametrize("name", CASES)
def test_nothing_to_complain_of(compared: Compared, name: str) -> None:
    crawl = compared.crawl(name)
    said = [line for line in complaints(crawl) if "No worker has joined yet" not in line]
    expected = COMPLAINS.get(name, [])
    assert len(said) == len(expected), said
    assert all(words in line for words, line in zip(expected, said, strict=True)), said
    assert crawl.process.returncode == 0
    assert crawl.stat("distributed/difference") == 0

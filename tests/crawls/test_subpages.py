"""A page that pages of several jobs link is fetched once for the whole fleet where its callback is named, not once for
each job; and where it has an item for each of them, each has its item."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from crawling import Crawl, Project
from homing import AT_ONCE, PATIENCE, Case, Home, complaints, content
from shop import MAKERS, PRODUCTS, shop

SPIDERS = ("named", "named_beside_rule", "shared", "each_of_them", "carried")
SMALL = {"DISTRIBUTED_BATCH_SIZE": 2}  # so products of one maker are in different jobs


@dataclass(frozen=True, kw_only=True)
class Both:
    """The crawl of the *fleet*, how often it has fetched each maker's page, and what a *local* one has written."""

    fleet: Crawl
    visits: Mapping[str, int]
    local: Any


def on_both(project: Project, spider: str, folder: Path) -> Both:
    case = Case(spider, ["jl"], SMALL)
    with shop() as own:
        home = Home(project, own)
        (folder / "fleet").mkdir(parents=True)
        fleet = home.of(case, folder / "fleet").wait(PATIENCE)
        visits = {path: times for path, times in own.visits.items() if path.startswith("/maker/")}
        home.locally({"here": case}, folder / "local").wait(PATIENCE)
    return Both(fleet=fleet, visits=visits, local=content(folder / "local" / "here" / "out.jl"))


@pytest.fixture(scope="module")
def crawled(home_project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Both]]:
    folder = tmp_path_factory.mktemp("subpages")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        crawls = {spider: pool.submit(on_both, home_project, spider, folder / spider) for spider in SPIDERS}
        yield lambda spider: crawls[spider].result()


@pytest.mark.parametrize("spider", SPIDERS)
def test_the_items_of_a_local_crawl(crawled: Callable[[str], Both], spider: str) -> None:
    both = crawled(spider)
    assert both.local
    assert content(both.fleet.folder / "out.jl") == both.local, both.fleet.log
    assert both.fleet.process.returncode == 0
    assert complaints(both.fleet) == []


@pytest.mark.parametrize("spider", ["named", "named_beside_rule"])
def test_a_shared_page_is_fetched_once(crawled: Callable[[str], Both], spider: str) -> None:
    both = crawled(spider)
    assert both.visits == {f"/maker/{number}": 1 for number in range(MAKERS)}
    assert both.fleet.balance()["crawled"] == PRODUCTS + MAKERS


def test_where_it_is_not_named_each_job_fetches_it(crawled: Callable[[str], Both]) -> None:
    assert sum(crawled("shared").visits.values()) > MAKERS


@pytest.mark.parametrize("spider", ["each_of_them", "carried"])
def test_a_page_with_an_item_for_each_that_leads_to_it(crawled: Callable[[str], Both], spider: str) -> None:
    both = crawled(spider)
    assert sum(both.visits.values()) == PRODUCTS
    reported = spider == "each_of_them"  # the other's requests carry an object
    assert both.fleet.balance()["crawled"] == PRODUCTS * (2 if reported else 1)
    told = "by the jobs that found them as they could not be reported: 12 requests (not_serializable: 12)"
    assert (told in both.fleet.log) != reported

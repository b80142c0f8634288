"""Shared runs whose results are a stream in Redis: each item of a local crawl once, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crawling import Crawl, Project
from homing import Home
from shop import PRODUCTS, Shop
from streams import each_once, entries
from valkey_child import ValkeyChild, valkey


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("shared"), {}, settings="trial.home_settings", name="home")
    yield project
    project.end()


@pytest.fixture
def queue() -> Iterator[ValkeyChild]:
    with valkey(appendonly="yes") as child:
        yield child


@pytest.fixture
def here(project: Project, own_shop: Shop) -> Iterator[Home]:
    yield Home(project, own_shop)
    project.end()  # workers would stay for the next test


def start(
    here: Home, queue: ValkeyChild, folder: Path, spider: str = "plain_dict", *options: str, **settings: Any
) -> Crawl:
    given = {"DISTRIBUTED_TARGET_HOSTS": queue.url, "DISTRIBUTED_RESULTS": "redis", **settings}
    return here.crawl(spider, *options, folder=folder, settings=given)


def join(here: Home, queue: ValkeyChild, folder: Path, *options: str) -> Crawl:
    """A worker."""
    folder.mkdir(exist_ok=True)
    return here.project.scrapy("worker", queue.url, *options, "--logs", str(folder / "jobs"), folder=folder)


def locally(here: Home, folder: Path, spider: str) -> list[bytes]:
    """The lines that a local crawl writes."""
    alone = here.crawl(
        spider, "-O", str(folder / "out.jl"), folder=folder, settings={"DISTRIBUTED_ENABLED": False}
    ).wait()
    assert alone.process.returncode == 0, alone.log
    return sorted((folder / "out.jl").read_bytes().splitlines())


@pytest.mark.parametrize(
    "spider",
    ["plain_dict", "item_fields", "nested", "values", "rules", "here", "back", "redirects", "groups", "nothing"],
)
def test_a_stream_has_what_a_local_crawl_writes(here: Home, queue: ValkeyChild, tmp_path: Path, spider: str) -> None:
    join(here, queue, tmp_path / "worker", "--slots", "2")
    crawl = start(here, queue, tmp_path, spider).wait()
    assert crawl.process.returncode == 0, crawl.log
    found = each_once(entries(queue))
    assert sorted(entry.item for entry in found) == locally(here, tmp_path / "alone", spider), crawl.log

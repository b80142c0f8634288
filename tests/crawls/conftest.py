"""A project whose items come home, on the nodes of all end-to-end tests, and the shop that it crawls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crawling import Project, with_urls
from homing import Compared, Home
from scrapyd_child import ScrapydChild
from shop import Shop, shop
from valkey_child import ValkeyChild, valkey


@pytest.fixture(scope="session")
def home_project(nodes: list[ScrapydChild], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("home_project")
    project = Project(folder, with_urls(nodes), settings="trial.home_settings", name="home")
    try:
        project.deploy("scrapyd2", "scrapyd3", folder=tmp_path_factory.mktemp("home_deploy"))
        yield project
    finally:
        project.end()


@pytest.fixture(scope="module")
def shop_child() -> Iterator[Shop]:
    with shop() as child:
        yield child


@pytest.fixture
def own_shop() -> Iterator[Shop]:
    """One that only this test sees."""
    with shop() as child:
        yield child


@pytest.fixture
def queue() -> Iterator[ValkeyChild]:
    with valkey(appendonly="yes") as child:
        yield child


@pytest.fixture(scope="module")
def joining_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One that is deployed nowhere, for workers that join."""
    project = Project(tmp_path_factory.mktemp("shared"), {}, settings="trial.home_settings", name="home")
    yield project
    project.end()


@pytest.fixture
def here(joining_project: Project, own_shop: Shop) -> Iterator[Home]:
    """With the shop that only this test sees."""
    yield Home(joining_project, own_shop)
    joining_project.end()  # workers would stay for the next test


@pytest.fixture(scope="module")
def home(home_project: Project, shop_child: Shop) -> Home:
    return Home(home_project, shop_child)


@pytest.fixture(scope="module")
def compared(
    request: pytest.FixtureRequest, home: Home, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Compared]:
    """The ``CASES`` of the test's module; where it has ``HOSTS``, by these nodes."""
    hosts = getattr(request.module, "HOSTS", None)
    with Compared(home, request.module.CASES, tmp_path_factory.mktemp("compared"), hosts) as compared:
        yield compared

"""One fleet of three real Scrapyd nodes, with one project deployed to it, for all end-to-end tests."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from crawling import Project, SiteChild, site, with_urls
from scrapyd_child import ScrapydChild, start

# A shell starts what runs in its background with SIGINT ignored, and our children would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ScrapydChild]]:
    folder = tmp_path_factory.mktemp("fleet")
    with ExitStack() as stack:
        yield [stack.enter_context(start(folder, name=f"scrapyd{number}")) for number in (1, 2, 3)]


@pytest.fixture(scope="session")
def project(nodes: list[ScrapydChild], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """On the three nodes; ``distr`` is the example's, the rest are the spiders of ``trial``."""
    project = Project(tmp_path_factory.mktemp("project"), with_urls(nodes))
    try:
        project.deploy(folder=tmp_path_factory.mktemp("deploy"))
        yield project
    finally:
        project.end()


@pytest.fixture(scope="module")
def small_site() -> Iterator[SiteChild]:
    """60 properties on two index pages."""
    with site(60) as child:
        yield child


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port of this machine where connections are refused for as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])

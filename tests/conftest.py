"""One fleet of three real Scrapyd nodes, with one project deployed to it, for all end-to-end tests; options that leave
out the tests that start nodes, or any process; and nobody starts one unnoticed."""

from __future__ import annotations

import compileall
import gc
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import disk_usage, rmtree

import pytest
from crawling import Project, SiteChild, site, with_urls
from hypothesis import settings
from scrapyd_child import ScrapydChild, start

import scrapy_distributed
from scrapy_distributed.fleet.local_node import LocalNode

# Machines are shared: how long an example takes says nothing.
settings.register_profile("long", deadline=None, max_examples=100)
settings.register_profile("usual", deadline=None, max_examples=24)
settings.load_profile("usual")  # unless --hypothesis-profile says another

# A shell starts what runs in its background with SIGINT ignored, and our children would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

WITHOUT_NODES = "--without-nodes"
NODE_FIXTURES = {"nodes", "stock_project", "shared_fleet"}
"""What starts real nodes, and so does every fixture that wants one of them."""
NODE_MODULES = {"scrapyd_child", "arena", "demo", "scrapy_distributed.fleet.local_node"}
"""So may every test in a file that imports something of these."""

WITHOUT_PROCESSES = "--without-processes"
TESTS = Path(__file__).parent
PROCESS_FOLDERS = {"crawls", "processes", "chaos"}
"""Only tests in a folder of this name may start a process."""
PROCESS_EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
"""What Python tells before it starts one, whoever asks for it."""


MEMORY, ROOM = Path("/dev/shm"), 2 << 30
"""A folder in memory, where a machine has one, and the bytes that must be free in it."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Once: where PYTHONDONTWRITEBYTECODE is set, each of a thousand processes would compile the package for itself."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(scrapy_distributed.__file__).parent, quiet=2)
        own = Path(tempfile.mkdtemp(prefix="scrapy_distributed-tests-", dir=quick_folder()))
        config.add_cleanup(lambda: rmtree(own, ignore_errors=True))
        if config.option.basetemp is None:
            config.option.basetemp = str(own / "tests")
        # What a killed process leaves behind goes with the rest.
        os.environ["TMPDIR"] = tempfile.tempdir = str(own)
    config.pluginmanager.register(ProcessGuard())


def quick_folder() -> Path | None:
    """Where files of tests are: in memory, as they are many and most are synced; None for the usual place."""
    usable = "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK | os.X_OK)
    return MEMORY if usable and disk_usage(MEMORY).free > ROOM else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(WITHOUT_NODES, action="store_true", help="leave out the tests that may start a real Scrapyd")
    parser.addoption(WITHOUT_PROCESSES, action="store_true", help="leave out the tests that may start any process")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Not even imported: some have hundreds of megabytes to send."""
    return True if config.getoption(WITHOUT_PROCESSES) and collection_path.name in PROCESS_FOLDERS else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for option, left_out in ((WITHOUT_NODES, may_start_nodes), (WITHOUT_PROCESSES, may_start_processes)):
        if config.getoption(option):
            config.hook.pytest_deselected(items=[item for item in items if left_out(item)])
            items[:] = [item for item in items if not left_out(item)]


def pytest_collection_finish() -> None:
    """What is there by now stays: the collector is not to walk through it during each test."""
    gc.freeze()


def may_start_nodes(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    imported = {getattr(value, "__module__", None) for value in vars(item.module).values()}
    return not NODE_FIXTURES.isdisjoint(item.fixturenames) or not NODE_MODULES.isdisjoint(imported)


def may_start_processes(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    folders = item.path.relative_to(TESTS).parts
    return not PROCESS_FOLDERS.isdisjoint(folders)


class ProcessGuard:
    """A test that may start no process fails when it does, or when a fixture does that it is the first to want."""

    def __init__(self) -> None:
        self.refuses = False
        sys.addaudithook(self.hear)

    def hear(self, event: str, args: tuple[object, ...]) -> None:
        if self.refuses and event in PROCESS_EVENTS:
            folders = ", ".join(sorted(PROCESS_FOLDERS))
            pytest.fail(f"a process is started, by {event}: only tests in the folders {folders} may do that")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self.refuses = not may_start_processes(item)
        try:
            return (yield)
        finally:
            self.refuses = False


@pytest.fixture(scope="session", autouse=True)
def no_node_unnoticed(request: pytest.FixtureRequest) -> Iterator[None]:
    """So that what is left out stays what starts nodes."""

    def refuse(node: LocalNode) -> None:
        pytest.fail(f"a node is started in spite of {WITHOUT_NODES}: see NODE_FIXTURES and NODE_MODULES in {__file__}")

    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption(WITHOUT_NODES):
            patch.setattr(LocalNode, "spawn", refuse)
        yield


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ScrapydChild]]:
    """They start workers from a warm process, at a fifteenth of the CPU of Scrapyd's own way."""
    folder = tmp_path_factory.mktemp("fleet")
    with three_nodes(folder, warm=True) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def stock_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """On three nodes that start workers as Scrapyd does."""
    folder = tmp_path_factory.mktemp("stock")
    with three_nodes(folder, warm=False) as nodes:
        project = Project(folder / "project", with_urls(nodes))
        try:
            project.deploy(folder=folder)
            yield project
        finally:
            project.end()


@contextmanager
def three_nodes(folder: Path, *, warm: bool) -> Iterator[list[ScrapydChild]]:
    with ExitStack() as stack:
        yield [stack.enter_context(start(folder, name=f"scrapyd{number}", warm=warm)) for number in (1, 2, 3)]


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

"""One server for all tests of a process, and a connection to it for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from awaiting import run
from shared_runs import SharedRun
from valkey_child import ValkeyChild, valkey

from scrapy_distributed.shared.server import Server


@pytest.fixture(scope="session")
def child() -> Iterator[ValkeyChild]:
    with valkey() as child:
        yield child


@pytest.fixture
def server(child: ValkeyChild) -> Iterator[Server]:
    server = run(Server.connect(child.address))
    yield server
    run(server.close())


@pytest.fixture
def shared(server: Server) -> SharedRun:
    return run(SharedRun.begin(server))

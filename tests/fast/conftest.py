"""A server for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from answering import Server, listening


@pytest.fixture
def server() -> Iterator[Server]:
    yield from listening()

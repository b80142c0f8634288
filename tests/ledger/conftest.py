"""A ledger whose run has begun."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import IDENTITY

from scrapy_distributed.ledger.sqlite import Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "s.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        yield ledger

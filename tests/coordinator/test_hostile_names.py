"""Names of spiders that are paths, or nothing that a file may be called."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from scrapy_distributed.coordinator.identity import file_name
from scrapy_distributed.ledger.sqlite import Ledger


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "a\0b", "x" * 300, "\u00fc" * 200, "a/b", ".", "\ud800"])
def test_the_file_of_a_spiders_ledger_is_in_its_folder(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{file_name(name)}.sqlite"
    assert path.resolve().parent == tmp_path
    with closing(Ledger(path)):
        assert path.name != ".sqlite"


def test_two_spiders_do_not_share_a_ledger() -> None:
    assert len({file_name(name) for name in ("a/b", "a_b", "a b", ".a_b")}) == 4

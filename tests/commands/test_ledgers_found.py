"""Which ledgers a command is about."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from ledgers import IDENTITY
from scrapy.settings import Settings

from scrapy_distributed.commands import ledger_paths
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.sqlite_schema import is_held


@pytest.mark.parametrize("named", ["by the option", "by the setting", "as one of the project"])
def test_under_whatever_name_it_is_known_that_a_crawl_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    link = tmp_path / ".scrapy" / "distributed" / "link.sqlite"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "real.sqlite")
    with closing(Ledger(tmp_path / "real.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        settings = Settings({"DISTRIBUTED_LEDGER": str(link)} if named == "by the setting" else {})
        (found,) = ledger_paths(settings, str(link) if named == "by the option" else None)
        assert is_held(found)


def test_without_a_scrapy_cfg_they_are_where_a_crawl_puts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a job of a Scrapyd, and where the settings are named by the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRAPY_SETTINGS_MODULE", "shop.settings")
    assert ledger_paths(Settings()) == []
    (tmp_path / ".scrapy" / "distributed").mkdir(parents=True)
    (tmp_path / ".scrapy" / "distributed" / "s.sqlite").touch()
    assert ledger_paths(Settings()) == [tmp_path / ".scrapy" / "distributed" / "s.sqlite"]

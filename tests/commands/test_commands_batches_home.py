"""``scrapy batches`` of a run whose items come home."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from batches_command import Said
from ledgers import IDENTITY, a_batch, receipt

from scrapy_distributed.ledger.rules import Haul
from scrapy_distributed.ledger.sqlite import Ledger


def at_home(path: Path, *, stored: bool, unexported: int = 0) -> None:
    """A run of one batch: of 5 items of its job 3 came home."""
    with closing(Ledger(path)) as ledger:
        ledger.begin({**IDENTITY, "items": "home"}, resume=True)
        attempt = a_batch(ledger)
        ledger.verdicts.settle(attempt, receipt(attempt, items=5), max_attempts=1, haul=Haul(items=3, twice=1))
        ledger.intake.walked()
        ledger.harvest.set_unexported(unexported)
        if stored:
            assert ledger.account.end()


def test_show_says_how_many_items_came_home(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    at_home(tmp_path / "s.sqlite", stored=True)
    said = Said(capsys, "show", "1", "--ledger", "s.sqlite")
    assert "\n    5 items, 3 came home; 1 were left out, as their page had brought them before\n" in said.out


def test_check_is_not_content_before_the_feeds_are_stored(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    at_home(tmp_path / "s.sqlite", stored=False)
    said = Said(capsys, "check", "--ledger", "s.sqlite")
    assert (said.code, said.out.splitlines()[-1].strip()) == (1, "not stored yet")


def test_check_tells_what_the_feeds_here_could_not_express(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    at_home(tmp_path / "s.sqlite", stored=True, unexported=2)
    said = Said(capsys, "check", "--ledger", "s.sqlite")
    assert said.code == 1
    assert "2 items missing in feeds that count" in said.out


def test_merge_says_where_they_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    at_home(tmp_path / "s.sqlite", stored=True)
    said = Said(capsys, "merge", ".", "-O", "out.jl", "--ledger", "s.sqlite")
    assert said.code == 1
    assert "batch 1: its items came home: scrapy batches export writes them" in said.error

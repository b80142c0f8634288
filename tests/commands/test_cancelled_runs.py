"""Of which runs ``scrapy fleet cancel`` asks the crawl itself to end the jobs."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from batches_command import Answering, Said, show
from ledgers import IDENTITY, unfinished

from scrapy_distributed.commands.cancel import cancel_runs
from scrapy_distributed.ledger.sqlite_schema import hold


def test_the_crawl_is_asked_where_its_own_run_is_meant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.sqlite"
    older, newer = unfinished(path), unfinished(path, IDENTITY | {"arguments": "other"})
    show(path, run=older)
    for meant in (None, older):
        with Answering(path, "paused") as crawl:
            assert cancel_runs([path], [], "p", meant) == 0
        assert [(wish.what, wish.about) for wish in crawl.wishes] == [("cancel", meant or "")]
        assert capsys.readouterr().out == f"run {older}: paused\n"
    with closing(hold(path)):
        assert cancel_runs([path], [], "p", newer) == 0
    assert capsys.readouterr().out == ""


def test_by_its_ledger_as_well(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    unfinished(path)
    with Answering(path, "cancelled: so be it") as crawl:
        said = Said(capsys, "cancel", "--ledger", str(path))
    assert (said.code, said.out.splitlines()[1:]) == (0, ["  cancelled: so be it"])
    assert [(wish.what, wish.about) for wish in crawl.wishes] == [("cancel", "")]
    said = Said(capsys, "cancel", "--ledger", str(path))
    assert (said.code, "no crawl uses it now, so there is nothing to cancel" in said.error) == (2, True)

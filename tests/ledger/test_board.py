"""What a crawl shows of itself, as another process reads it."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.balance import Balance
from scrapy_distributed.ledger.board import Board, Event, JobRow, NodeRow, board_path, read_board, write_board
from scrapy_distributed.ledger.count import Count

BALANCE = Balance(diverted=20, duplicates=0, queued=8, in_flight=8, crawled=4, failed=0, filtered=0, dead=0)
COUNT = Count(
    time=9.0, balance=BALANCE, reported=1, items=4, rate=2.5, at_work=1, slots=4, walked=True, paused=False
)  # fmt: skip
NODE = NodeRow("n1", "http://n1:6800", "trouble", "gone", 5.0, "it is asked again", 12.5, 4, 2, 1, 1)
JOB = JobRow("r-000001-1-ab", 1, 1, "n1", "at work", 20, 5, 4, 6, 2.5, 3.0, 8.0)
BOARD = Board(run="r", written=10.0, count=COUNT, nodes=(NODE,), jobs=(JOB,), events=(Event(4.0, "n1", "trouble"),))


SHOWN = asdict(COUNT)


def forged(ledger: Path, **values: Any) -> None:
    write_board(ledger, BOARD)
    path = board_path(ledger)
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_it_is_read_as_it_was_written_last(tmp_path: Path) -> None:
    ledger = tmp_path / "s.sqlite"
    assert read_board(ledger) is None
    write_board(ledger, Board(run="older", written=1.0, count=COUNT, nodes=(), jobs=(), events=()))
    write_board(ledger, BOARD)
    assert read_board(ledger) == BOARD
    assert [path.name for path in tmp_path.iterdir()] == ["s.sqlite.board"]


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    write_board(tmp_path / "s.sqlite", BOARD)
    assert stat.S_IMODE(os.stat(board_path(tmp_path / "s.sqlite")).st_mode) == 0o600


@pytest.mark.parametrize("planted", ["a link", "a file that all can write"])
def test_what_somebody_else_has_put_there_gets_nothing(tmp_path: Path, planted: str) -> None:
    draft, victim = tmp_path / "s.sqlite.board.new", tmp_path / "victim"
    victim.write_text("mine")
    if planted == "a link":
        draft.symlink_to(victim)
    else:
        os.link(victim, draft)
        victim.chmod(0o666)
    write_board(tmp_path / "s.sqlite", BOARD)
    assert (victim.read_text(), read_board(tmp_path / "s.sqlite")) == ("mine", BOARD)


def test_one_that_was_left_half_written_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "s.sqlite.board.new").write_text("{" * 10_000)
    write_board(tmp_path / "s.sqlite", BOARD)
    assert read_board(tmp_path / "s.sqlite") == BOARD


@pytest.mark.parametrize(
    "values",
    [
        {"format": 99},
        {"more": 1},
        {"run": 3},
        {"written": "now"},
        {"written": -1},
        {"count": [1]},
        {"count": {**SHOWN, "reported": -5}},
        {"count": {**SHOWN, "rate": float("nan")}},
        {"count": {**SHOWN, "walked": "yes"}},
        {"count": {**SHOWN, "balance": {}}},
        {"count": {**SHOWN, "balance": {**SHOWN["balance"], "dead": 1.5}}},
        {"nodes": [["n1"]]},
        {"nodes": [[*NODE[:4], "long ago", *NODE[5:]]]},
        {"nodes": [[*NODE[:7], 2.5, *NODE[8:]]]},
        {"jobs": [[*JOB[:9], float("inf"), *JOB[10:]]]},
        {"jobs": [[*JOB[:4], 7, *JOB[5:]]]},
        {"jobs": 7},
        {"events": [[4.0, "n1", None]]},
    ],
    ids=str,
)
def test_what_a_crawl_does_not_write_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    ledger = tmp_path / "s.sqlite"
    forged(ledger)
    assert read_board(ledger) == BOARD
    forged(ledger, **values)
    with pytest.raises(LedgerError, match=r"s\.sqlite\.board: can't be read: .*; delete it"):
        read_board(ledger)


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    ledger = tmp_path / "s.sqlite"
    for text in ("", "[]", "nothing", "[" * 100_000):
        board_path(ledger).write_text(text)
        with pytest.raises(LedgerError, match="can't be read"):
            read_board(ledger)
    board_path(ledger).unlink()
    board_path(ledger).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="found a link"):
        read_board(ledger)

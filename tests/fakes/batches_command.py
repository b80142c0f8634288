"""``scrapy batches`` in this process, and ledgers for it."""

from __future__ import annotations

import json
import sqlite3
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import pytest
from ledgers import IDENTITY, a_batch, receipt, settled
from scrapy.settings import Settings

from scrapy_distributed.commands.batches import Command
from scrapy_distributed.ledger.balance import Balance
from scrapy_distributed.ledger.board import Board, write_board
from scrapy_distributed.ledger.count import Count
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.sqlite_schema import hold
from scrapy_distributed.ledger.wishes import Wish, Wishes


@pytest.fixture(autouse=True)
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scrapy.cfg").write_text("[settings]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scrapy.utils.project.inside_project", lambda: True)
    return tmp_path


def command_of(words: Sequence[str], path: Path) -> tuple[Command, list[str], Namespace]:
    """``scrapy batches`` with *words* for the ledger at *path*, and what its ``run`` gets; it can be called often."""
    command = Command()
    command.settings = Settings({})
    parser = ArgumentParser()
    command.add_options(parser)
    options, args = parser.parse_known_args([*words, "--ledger", str(path)])
    return command, args, options


class Said:
    """What a call of the command said, and its exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str, **settings: str) -> None:
        command = Command()
        command.settings = Settings(settings)
        parser = ArgumentParser()
        command.add_options(parser)
        options, args = parser.parse_known_args(words)
        capsys.readouterr()
        command.run(args, options)
        self.out, self.error = capsys.readouterr()
        self.code = command.exitcode

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def off_by_one(path: Path) -> str:
    run = settled(path)
    with closing(Ledger(path)) as ledger:
        ledger.store.db.execute("INSERT INTO request VALUES (1, x'00')")
    return run


def change(path: Path, script: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script)


def some_failed(path: Path) -> str:
    """Requests 0 (404, had begun), 1 (dns, had not), 2 (filtered) and 3."""
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger)
        ledger.intake.walked()
        report = receipt(attempt, failed={"http 404": [0], "dns": [1]}, filtered={"offsite": [2]}, again=0b10)
        ledger.verdicts.settle(attempt, report, max_attempts=1)
        assert ledger.account.end()
        return ledger.run


def show(path: Path, *, run: str) -> None:
    """As the crawl of *run* does while it uses the ledger at *path*."""
    balance = Balance(diverted=0, duplicates=0, queued=0, in_flight=0, crawled=0, failed=0, filtered=0, dead=0)
    count = Count(
        time=1.0, balance=balance, reported=0, items=0, rate=0.0, at_work=0, slots=1, walked=False, paused=False
    )
    write_board(path, Board(run=run, written=1.0, count=count, nodes=(), jobs=(), events=()))


class Answering:
    """A crawl that uses the ledger at *path*, and answers the first wish with *words*."""

    def __init__(self, path: Path, words: str) -> None:
        self.path = path
        self.words = words
        self.wishes: list[Wish] = []
        self._thread = Thread(target=self._answer, daemon=True)

    def __enter__(self) -> Answering:
        self._lock = hold(self.path)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join(10)
        self._lock.close()

    def _answer(self) -> None:
        wishes = Wishes(self.path)
        while not self.wishes:
            sleep(0.01)
            self.wishes = wishes.unanswered()
        for wish in self.wishes:
            wishes.answer(wish, self.words)

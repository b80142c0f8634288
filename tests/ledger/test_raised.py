"""What code of the project has raised on workers: kept with the run, each reason once."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from ledgers import a_batch, receipt

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.balance import RAISED_SHOWN, Raised, raised_lines
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.sums import MOST_REASONS

PRICE = Raised(reason="callback ValueError", example="no price (a.py:3)", requests=3, followed=1)
BESIDE = Raised(reason="callback KeyError", example="'x' (a.py:9)", requests=0, followed=2)


def test_the_first_of_a_reason_is_kept_and_all_are_counted(ledger: Ledger, path: Path) -> None:
    for example in ("no price (a.py:3)", "no name (a.py:4)"):
        first = not a_batches(ledger)
        attempt = a_batch(ledger, *((0, 1, 2) if first else (3, 4)))
        failed = {"callback ValueError": [0, 1] if first else [1], "http 404": [2] if first else [0]}
        followed = {"callback KeyError": 1} | ({"callback ValueError": 1} if first else {})
        examples = {"callback ValueError": example, "callback KeyError": "'x' (a.py:9)"}
        report = receipt(attempt, failed=failed, followed=followed, examples=examples)
        ledger.verdicts.settle(attempt, report, max_attempts=1)
    assert ledger.account.raised() == [PRICE, BESIDE]
    with closing(LedgerReader(path)) as reader:
        assert reader.raised(1) == [PRICE, BESIDE]
    assert raised_lines([PRICE, BESIDE]) == [
        "raised: callback ValueError: no price (a.py:3), 3 URLs, 1 page beside the batches",
        "raised: callback KeyError: 'x' (a.py:9), 2 pages beside the batches",
    ]


def a_batches(ledger: Ledger) -> int:
    (number,) = ledger.store.db.execute("SELECT count(*) FROM batch").fetchone()
    return int(number)


def test_an_attempt_that_does_not_count_tells_nothing(ledger: Ledger) -> None:
    attempt = a_batch(ledger, 0)
    report = receipt(attempt, failed={"callback ValueError": [0]}, examples={"callback ValueError": "x"}, stored=False)
    ledger.verdicts.settle(attempt, report, max_attempts=1)
    assert ledger.account.raised() == []


def test_what_nodes_make_up_has_a_limit(ledger: Ledger) -> None:
    for batch in range(3):
        attempt = a_batch(ledger, *range(60 * batch, 60 * batch + 60))
        reasons = {f"callback E{batch}x{number}": [number] for number in range(60)}
        report = receipt(attempt, failed=reasons, examples=dict.fromkeys(reasons, "x"))
        ledger.verdicts.settle(attempt, report, max_attempts=1)
    raised = ledger.account.raised()
    assert len(raised) == MOST_REASONS
    lines = raised_lines(raised)
    assert len(lines) == RAISED_SHOWN + 1
    assert lines[-1] == "raised: 90 other reasons; check --json names all"


def test_a_damaged_one_is_refused(ledger: Ledger, path: Path) -> None:
    attempt = a_batch(ledger, 0)
    report = receipt(attempt, failed={"callback E": [0]}, examples={"callback E": "x"})
    ledger.verdicts.settle(attempt, report, max_attempts=1)
    ledger.store.db.execute("UPDATE example SET text = x'00'")
    with closing(LedgerReader(path)) as reader, pytest.raises(LedgerError, match="expected a text"):
        reader.raised(1)

"""Receipts that can't be settled are rejected; a ledger that can't be written is no fault of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from court import Court
from hostile import is_fit_to_print

from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.receipt import Receipt


@pytest.mark.parametrize("error", [OverflowError("int too large"), UnicodeError("surrogates"), ValueError("a\n\x1bb")])
def test_a_receipt_that_can_not_be_settled_is_rejected(
    error: Exception, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next look at it would raise the same, and so on for ever."""
    court = Court(tmp_path / "s.sqlite")
    court.batch(0, 1)
    flight = court.send(court.members[0])

    async def fail(attempt: Attempt, report: Receipt) -> Any:
        raise error

    court.judge.read_targets = fail
    court.final(court.members[0], flight, targets=("[]",))
    ((state, reason),) = court.attempts()
    assert (state, court.members[0].flights) == ("rejected", {})
    assert reason.startswith(f"its receipt can't be settled: {type(error).__name__}: ")
    assert is_fit_to_print(reason)
    assert court.balance() == {"diverted": 2, "queued": 2}
    assert f"Receipt of job {flight.attempt.job} on n0" in caplog.text
    court.ledger.close()


def test_a_ledger_that_can_not_be_written_is_no_fault_of_a_receipt(tmp_path: Path) -> None:
    court = Court(tmp_path / "s.sqlite")
    court.batch(0, 1)
    flight = court.send(court.members[0])
    court.ledger.store.db.execute("PRAGMA query_only = 1")
    with pytest.raises(LedgerUnavailableError):
        court.final(court.members[0], flight)
    court.ledger.store.db.execute("PRAGMA query_only = 0")
    assert court.members[0].flights
    court.final(court.members[0], flight)
    assert court.balance() == {"diverted": 2, "crawled": 2}
    court.ledger.close()

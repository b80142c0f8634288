"""A server that is away for a while."""

from __future__ import annotations

import logging

import pytest
from awaiting import awaited

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.joining import reach as module
from scrapy_distributed.joining.reach import Reach


class Calls:
    """Raises *errors* one after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "well"


AWAY = LedgerUnavailableError("Redis at q can't be used now")


@awaited
async def test_a_call_is_made_again_until_it_is_answered_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.01, 0.02))
    assert await Reach().insist(Calls(AWAY, AWAY, AWAY)) == "well"
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("Redis at q can't be used now. What is under way here goes on")
    assert second.startswith("Redis can be used again, after 0.")


@awaited
async def test_what_is_of_no_use_any_more_is_not_asked_again() -> None:
    with pytest.raises(LedgerUnavailableError):
        await Reach().insist(Calls(AWAY), unless=lambda: True)


@awaited
async def test_a_server_that_refuses_from_the_start_is_told_and_later_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.01, 0.02))
    reach = Reach()
    with pytest.raises(LedgerError):
        await reach.insist(Calls(LedgerError("refuses us")))
    assert await reach.insist(Calls()) == "well"
    assert await reach.insist(Calls(LedgerError("refuses us"))) == "well"


@awaited
async def test_after_a_long_time_away_others_get_time_to_renew_their_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.05, 0.05))
    reach = Reach()
    await reach.insist(Calls(AWAY))
    assert reach.grace_seconds == 0
    monkeypatch.setattr(module, "LONG_SECONDS", 0.01)
    await reach.insist(Calls(AWAY))
    assert 0 < reach.grace_seconds <= module.GRACE_SECONDS

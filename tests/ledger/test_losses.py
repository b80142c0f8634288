"""What the balance of a run does not show: items that no feed could express, pages that failed beside the requests of
the fleet, and pages that two requests have led to."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from ledgers import IDENTITY, a_batch, bind, divert, receipt

from scrapy_distributed.ledger.balance import Losses
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.sqlite"


def key(number: int) -> str:
    """That of the request *number*, as ``divert`` enters it and a receipt tells it."""
    return number.to_bytes(20, "big").hex()


def losses(path: Path) -> Losses:
    with closing(LedgerReader(path)) as reader:
        return reader.losses(reader.runs()[-1].id)


def test_a_run_without_losses_says_nothing(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger)
        ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=3)
        assert ledger.account.losses() == Losses()
    assert losses(path) == Losses()
    assert Losses().none
    assert Losses().lines() == []


def test_what_accepted_attempts_have_lost_is_summed_and_of_others_nothing(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        for numbers in ((0, 1), (2, 3)):
            attempt = a_batch(ledger, *numbers)
            lost = receipt(attempt, unexported=2, followed={"http 404": 1, "timeout": 2})
            ledger.verdicts.settle(attempt, lost, max_attempts=3)
        rejected = a_batch(ledger, 4)
        ledger.verdicts.reject(rejected, "its feed was not stored", counts=False, max_attempts=3)
    found = losses(path)
    assert found == Losses(unexported=4, followed={"http 404": 2, "timeout": 4})
    assert found.lines() == [
        "4 items missing in feeds that count, as their format can't express them; the log of each job names its own",
        "failed on workers beside their batches: 6 (timeout: 4, http 404: 2); what they lead to is missing",
    ]


def test_what_the_own_crawl_has_lost_is_kept_with_the_run(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        ledger.intake.lost_own({"timeout": 3})
        ledger.intake.lost_own({"timeout": 4, "http 503": 1})
        ledger.intake.walked()
    assert losses(path).lines() == [
        "failed in the coordinator's own crawl: 5 (timeout: 4, http 503: 1); what they lead to is missing"
    ]


@pytest.mark.parametrize(
    ("landed", "twice"),
    [
        ({}, 0),
        ({0: 100}, 0),  # a page that nobody else leads to
        ({0: 1}, 1),  # one that is a request of its own, of the same batch
        ({0: 9}, 1),  # or of another one
        ({0: 100, 1: 100}, 1),
        ({0: 100, 1: 100, 2: 100}, 2),
        ({0: 9, 1: 9}, 2),
        ({0: 9, 1: 1, 2: 100}, 2),
    ],
)
def test_pages_to_which_two_requests_have_led_are_counted(path: Path, landed: dict[int, int], twice: int) -> None:
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger, 0, 1, 2)
        divert(ledger, 9)
        pairs = tuple((position, key(number)) for position, number in landed.items())
        ledger.verdicts.settle(attempt, receipt(attempt, landed=pairs), max_attempts=3)
        ledger.begin({**IDENTITY, "arguments": "other"}, resume=True)
        divert(ledger, 100)  # another run
    with closing(LedgerReader(path)) as reader:
        assert reader.losses(1).twice == twice
        assert reader.losses(2) == Losses()


def test_only_what_an_attempt_has_settled_has_landed_and_a_second_one_may_land_elsewhere(path: Path) -> None:
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger, 0, 1)
        divert(ledger, 9)
        ended_early = receipt(attempt, 0b01, landed=((0, key(100)), (1, key(9))), finish_reason="shutdown")
        ledger.verdicts.settle(attempt, ended_early, max_attempts=3)
        assert ledger.account.losses().twice == 0
        again = bind(ledger)
        ledger.verdicts.settle(again, receipt(again, landed=((0, key(9)),)), max_attempts=3)  # position 1 of the batch
        assert ledger.account.losses().twice == 1

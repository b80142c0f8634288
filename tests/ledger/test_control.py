"""Trying again what has failed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from ledgers import IDENTITY, a_batch, all_ready, cut, divert, outcomes, receipt
from ledgers import states as counts

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Fate
from scrapy_distributed.wire.payload import decode_payload


def test_a_retry_reopens_the_run_with_the_dead_and_the_failed_alone(ledger: Ledger, path: Path) -> None:
    attempt = a_batch(ledger, *range(6))
    report = receipt(attempt, 0b001111, failed={"http 503": [0], "callback": [1]}, filtered={"offsite": [2]},
                     again=0b1, finish_reason="shutdown")  # fmt: skip
    ledger.verdicts.settle(attempt, report, max_attempts=1)
    attempt, _ = ledger.bookings.bind(1, "n1")
    assert ledger.verdicts.reject(attempt, "killed", counts=True, max_attempts=1) is Fate.DEAD
    ledger.intake.walked()
    assert ledger.account.end()
    name = ledger.run
    ledger.close()
    with closing(Ledger(path)) as retried:
        assert retried.control.retry(lambda state, reason: reason == "http 404") == (0, 0)
    with closing(Ledger(path)) as retried:
        assert retried.control.retry(lambda state, reason: state in ("dead", "failed")) == (
            3,
            1,
        )  # the callback had begun
        assert retried.run == name
        assert counts(retried) == {"diverted": 6, "crawled": 1, "failed": 1, "filtered": 1, "queued": 3}
        assert retried.control.retry(lambda state, reason: True) == (0, 1)
    with closing(Ledger(path)) as again:
        assert not again.begin(IDENTITY, resume=True)  # its walk is done
        assert again.run == name
        assert divert(again, 0, 5) == []
        retried_urls = []
        new = all_ready(again)
        for number, avoid in new:
            assert avoid is None
            attempt, payload = again.bookings.bind(number, "n1")
            retried_urls += decode_payload(payload)
            assert again.verdicts.settle(attempt, receipt(attempt), max_attempts=1).fate is Fate.SETTLED
        assert sorted(retried_urls) == ["http://a/0", "http://a/4", "http://a/5"]
        assert counts(again) == {"diverted": 6, "duplicates": 2, "crawled": 4, "failed": 1, "filtered": 1}
        assert again.account.end()
        with closing(LedgerReader(path)) as reader:
            assert reader.children(1, 1) == [number for number, _ in new]
            assert reader.batches(1)[0].moved == 3


def test_a_retry_of_many_batches_makes_as_large_ones(ledger: Ledger) -> None:
    for number in range(1, 5):
        first = number * 10
        cut(ledger, divert(ledger, *range(first, first + 3)))
        attempt, _ = ledger.bookings.bind(number, "n1")
        report = receipt(attempt, failed={"dns": [0, 2]}, again=0b101)
        ledger.verdicts.settle(attempt, report, max_attempts=1)
    assert ledger.control.retry(lambda state, reason: True) == (8, 0)
    assert counts(ledger) == {"diverted": 12, "crawled": 4, "queued": 8}
    sent = [decode_payload(ledger.bookings.bind(number, "n1")[1]) for number, _ in all_ready(ledger)]
    assert [len(urls) for urls in sent] == [3, 3, 2]
    expected = [f"http://a/{number * 10 + position}" for number in range(1, 5) for position in (0, 2)]
    assert [url for urls in sent for url in urls] == expected


def test_a_retry_of_some_reasons_leaves_the_others(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(4))
    report = receipt(attempt, failed={"dns": [0, 3], "http 500": [1]}, again=0b1011)
    ledger.verdicts.settle(attempt, report, max_attempts=1)
    assert ledger.control.retry(lambda state, reason: reason == "dns") == (2, 0)
    assert outcomes(ledger) == [("failed", "http 500", "http://a/1")]
    assert counts(ledger) == {"diverted": 4, "crawled": 1, "failed": 1, "queued": 2}


def test_a_retry_works_while_the_batch_is_still_under_way(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(3))
    report = receipt(attempt, 0b001, failed={"dns": [0]}, again=0b1, finish_reason="shutdown")
    ledger.verdicts.settle(attempt, report, max_attempts=2)
    second, _ = ledger.bookings.bind(1, "n1")
    assert ledger.control.retry(lambda state, reason: True) == (1, 0)
    assert counts(ledger) == {"diverted": 3, "queued": 1, "in_flight": 2}
    assert ledger.verdicts.settle(second, receipt(second), max_attempts=2).fate is Fate.SETTLED
    assert counts(ledger) == {"diverted": 3, "queued": 1, "crawled": 2}


def test_there_is_nothing_to_try_again_in_a_new_ledger(path: Path) -> None:
    with closing(Ledger(path)) as ledger, pytest.raises(LedgerError, match="no run in it"):
        ledger.control.retry(lambda state, reason: True)

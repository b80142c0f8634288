"""Trying again what has failed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from ledgers import IDENTITY, a_batch, all_ready, cut, divert, key, outcomes, receipt
from ledgers import states as counts

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.rules import Haul
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Fate
from scrapy_distributed.ledger.wanted import Wanted
from scrapy_distributed.wire.payload import decode_payload
from scrapy_distributed.wire.reasons import DUPLICATE
from scrapy_distributed.wire.receipt import ItemsFile


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
        assert retried.control.retry(Wanted(reason="http 404")) == (0, 0, 0, 0)
    with closing(Ledger(path)) as retried:
        assert retried.control.retry(Wanted()) == (3, 1, 0, 1)  # the callback had begun
        assert retried.run == name
        assert counts(retried) == {"diverted": 6, "crawled": 1, "failed": 1, "filtered": 1, "queued": 3}
        assert retried.control.retry(Wanted())[:2] == (0, 1)
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
    assert ledger.control.retry(Wanted())[:2] == (8, 0)
    assert counts(ledger) == {"diverted": 12, "crawled": 4, "queued": 8}
    sent = [decode_payload(ledger.bookings.bind(number, "n1")[1]) for number, _ in all_ready(ledger)]
    assert [len(urls) for urls in sent] == [3, 3, 2]
    expected = [f"http://a/{number * 10 + position}" for number in range(1, 5) for position in (0, 2)]
    assert [url for urls in sent for url in urls] == expected


def test_a_retry_of_some_reasons_leaves_the_others(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(4))
    report = receipt(attempt, failed={"dns": [0, 3], "http 500": [1]}, again=0b1011)
    ledger.verdicts.settle(attempt, report, max_attempts=1)
    assert ledger.control.retry(Wanted(reason="dns"))[:2] == (2, 0)
    assert outcomes(ledger) == [("failed", "http 500", "http://a/1")]
    assert counts(ledger) == {"diverted": 4, "crawled": 1, "failed": 1, "queued": 2}


def test_a_retry_works_while_the_batch_is_still_under_way(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(3))
    report = receipt(attempt, 0b001, failed={"dns": [0]}, again=0b1, finish_reason="shutdown")
    ledger.verdicts.settle(attempt, report, max_attempts=2)
    second, _ = ledger.bookings.bind(1, "n1")
    assert ledger.control.retry(Wanted())[:2] == (1, 0)
    assert counts(ledger) == {"diverted": 3, "queued": 1, "in_flight": 2}
    assert ledger.verdicts.settle(second, receipt(second), max_attempts=2).fate is Fate.SETTLED
    assert counts(ledger) == {"diverted": 3, "queued": 1, "crawled": 2}


def test_what_had_begun_its_callback_goes_out_again_where_that_is_wanted(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(6))
    failed = {"callback ValueError": [0, 1, 2], "item KeyError": [3], "dns": [4]}
    examples = {"callback ValueError": "no price (a.py:3)", "item KeyError": "'x' (p.py:1)"}
    report = receipt(attempt, failed=failed, again=0b10000, examples=examples)
    ledger.verdicts.settle(attempt, report, max_attempts=1)
    assert ledger.control.retry(Wanted(reason="callback *")) == (0, 3, 0, 0)
    assert ledger.control.retry(Wanted(reason="[cd]*", begun=True), parts=2) == (4, 0, 3, 2)
    assert counts(ledger) == {"diverted": 6, "crawled": 1, "failed": 1, "queued": 4}
    assert [one.reason for one in ledger.account.raised()] == ["item KeyError"]
    sent = [decode_payload(ledger.bookings.bind(number, "n1")[1]) for number, _ in all_ready(ledger)]
    assert sent == [["http://a/0", "http://a/1"], ["http://a/2", "http://a/4"]]


def test_of_a_run_that_goes_on_it_is_that_run(path: Path) -> None:
    """Another one may have begun after it."""
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger, 0, 1)
        ledger.verdicts.settle(attempt, receipt(attempt, failed={"dns": [0]}, again=1), max_attempts=1)
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY | {"arguments": "other"}, resume=True)
    with closing(Ledger(path)) as ledger:
        assert ledger.control.retry(Wanted()) == (0, 0, 0, 0)
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        assert ledger.control.retry(Wanted()) == (1, 0, 0, 1)


def test_what_is_meant_is_told_and_read() -> None:
    wanted = Wanted(state="dead", reason="no *", begun=True, run="r")
    assert Wanted.from_text(wanted.as_text()) == wanted
    for text in (
        "",
        "x",
        "[]",
        "7",
        '{"more": 1}',
        '{"state": 7}',
        '{"reason": null}',
        '{"begun": "x"}',
        '{"run": 7}',
        "[" * 99_999,
    ):
        with pytest.raises(LedgerError, match="expected a state, a reason"):
            Wanted.from_text(text)


def test_there_is_nothing_to_try_again_in_a_new_ledger(path: Path) -> None:
    with closing(Ledger(path)) as ledger, pytest.raises(LedgerError, match="no run in it"):
        ledger.control.retry(Wanted())


# What has come home and is lost


def haul(*pages: int) -> Haul:
    return Haul(items=1, size=7, digest="ab", pages=[key(page) for page in pages])


def lose(path: Path, *names: str) -> int:
    """As the command does."""
    with closing(Ledger(path)) as ledger:
        return ledger.control.lose_items(names)


def test_all_that_an_attempt_had_settled_goes_out_again_and_its_pages_are_new(ledger: Ledger, path: Path) -> None:
    first, other = a_batch(ledger, *range(5)), a_batch(ledger, 7)
    report = receipt(first, 0b01111, failed={"http 404": [1]}, filtered={DUPLICATE: [2]}, finish_reason="shutdown",
                     items=4, unexported=1, followed={"dns": 1}, landed=((0, "aa"),))  # fmt: skip
    ledger.harvest.enter_pages([key(40)])
    ledger.verdicts.settle(first, report, max_attempts=3, haul=haul(40))
    ledger.harvest.enter_pages([key(41)])
    ledger.verdicts.settle(other, receipt(other, landed=((0, "aa"),)), max_attempts=3, haul=haul(41))
    rest = ledger.bookings.bind(first.batch, "n2", "http://n2")[0]
    ledger.verdicts.settle(rest, receipt(rest), max_attempts=3, haul=haul())
    ledger.intake.walked()
    assert ledger.account.losses().twice == 1
    assert ledger.account.end()
    ledger.close()
    assert lose(path, first.spool_name, "000009-1-ab.jl") == 4
    with closing(Ledger(path)) as again:
        assert not again.begin(IDENTITY, resume=True)
        assert counts(again) == {"diverted": 6, "queued": 4, "crawled": 2}
        assert list(again.harvest.files()) == [rest.spool_name, other.spool_name]
        assert [again.harvest.is_new_page(key(page)) for page in (40, 41)] == [True, False]
        assert again.account.losses().none
        (number,) = [number for number, _ in all_ready(again)]
        attempt, payload = again.bookings.bind(number, "n1", "http://n1")
        assert decode_payload(payload) == [f"http://a/{one}" for one in range(4)]
        report = receipt(attempt, filtered={DUPLICATE: [2]}, landed=((0, "aa"),))
        again.verdicts.settle(attempt, report, max_attempts=3, haul=haul(40))
        assert again.account.losses().twice == 1
        assert again.account.end()
    with closing(LedgerReader(path)) as reader:
        (run,) = reader.runs()
        lost = reader.attempts(run, 1)[0]
        assert (lost.state, lost.reason) == ("rejected", "its items came home and were lost there")


def test_what_was_tried_again_meanwhile_does_not_go_out_twice(ledger: Ledger, path: Path) -> None:
    attempt = a_batch(ledger, 0, 1, 2)
    report = receipt(attempt, failed={"dns": [0], "http 503": [1]}, again=0b11)
    ledger.verdicts.settle(attempt, report, max_attempts=3, haul=haul(), again=0b10)  # 1 is moved at once
    ledger.intake.walked()
    ledger.close()
    with closing(Ledger(path)) as retried:
        assert retried.control.retry(Wanted())[:2] == (1, 0)
    assert lose(path, attempt.spool_name) == 1
    assert lose(path, attempt.spool_name) == 0
    with closing(Ledger(path)) as again:
        again.begin(IDENTITY, resume=True)
        assert counts(again) == {"diverted": 3, "queued": 3}
        sent = [again.bookings.bind(number, "n1")[1] for number, _ in all_ready(again)]
        assert sorted(url for payload in sent for url in decode_payload(payload)) == ["http://a/0", "http://a/2"]


@pytest.mark.parametrize("stored", [False, True])
def test_own_items_are_scraped_again_unless_they_are_in_a_feed(ledger: Ledger, path: Path, stored: bool) -> None:
    ledger.harvest.set_own_files({"own-1.jl": ItemsFile(1, 9, "ab")})
    if stored:
        ledger.harvest.store_own(["own-1.jl"], [])
    ledger.intake.walked()
    assert ledger.account.end()
    ledger.close()
    assert lose(path, "own-1.jl") == 0
    with closing(Ledger(path)) as again:
        assert again.begin(IDENTITY, resume=True)  # its walk is to be done: of this run, or of another one
        assert (again.store.run_id == 1) is not stored

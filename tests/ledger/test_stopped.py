"""A run that a limit or the spider has stopped: what is left of it is not crawled, and each of that has a name."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from ledgers import IDENTITY, a_batch, bind, body, cut, divert, found_of, receipt, states

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.rules import Haul, Objection
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt, Blame
from scrapy_distributed.ledger.wanted import Wanted

WHY = "closespider_itemcount"


def stopped(ledger: Ledger) -> None:
    """A batch that is in part crawled, one under way, one ready, and two requests in none."""
    attempt = a_batch(ledger, 0, 1, 2)
    report = receipt(attempt, 0b011, failed={"dns": [1]}, again=0b10, finish_reason="shutdown", items=3)
    ledger.verdicts.settle(attempt, report, max_attempts=3)
    cut(ledger, divert(ledger, 3), divert(ledger, 4))
    bind(ledger)
    divert(ledger, 5, 6)
    ledger.account.stop(WHY)


def test_what_is_left_is_not_crawled_and_the_run_is_over(ledger: Ledger, path: Path) -> None:
    stopped(ledger)
    assert states(ledger) == {"diverted": 7, "crawled": 1, "failed": 1, "not_crawled": 5}
    assert (ledger.account.settled(), ledger.account.posted(), ledger.account.stopped) == (True, True, WHY)
    assert (ledger.bookings.ready(), ledger.bookings.live()) == ([], [])
    assert ledger.account.end()
    ledger.close()
    with closing(Ledger(path)) as later:
        assert later.begin(IDENTITY, resume=True)
        assert (later.run != ledger.run, later.account.stopped) == (True, None)
        assert divert(later, 0) == [body(0)]


def test_each_of_it_is_named(ledger: Ledger, path: Path) -> None:
    a_batch(ledger, 7, 8)
    with closing(LedgerReader(path)) as reader:
        assert list(reader.not_crawled(reader.runs()[-1])) == []
    stopped(ledger)
    with closing(LedgerReader(path)) as reader:
        (run,) = reader.runs()
        named = [(one.batch, one.position, one.url, one.state, one.reason) for one in reader.not_crawled(run)]
        left = [(1, 0, 7), (1, 1, 8), (2, 2, 2), (3, 0, 3), (4, 0, 4), (0, 0, 5), (0, 1, 6)]
        assert named == [
            (batch, position, f"http://a/{number}", "not crawled", WHY) for batch, position, number in left
        ]
        assert {batch.state for batch in reader.batches(run.id)} == {"not crawled"}
        assert (run.stopped, reader.balance(run.id).settled) == (WHY, True)


def test_no_attempt_counts_any_more(ledger: Ledger, path: Path) -> None:
    attempt = a_batch(ledger)
    lost = a_batch(ledger, 8, 9)
    ledger.verdicts.lose(lost, "no sign of life", counts=False, max_attempts=3)
    ledger.account.stop(WHY)
    objection = ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=3)
    assert objection == ("it was rejected before", Blame.NOBODY)
    with closing(LedgerReader(path)) as reader:
        run = reader.runs()[-1]
        reasons = [reader.attempts(run, batch)[0].reason for batch in (1, 2)]
    before = f"the crawl has ended before: {WHY}"
    assert reasons == [before, f"no sign of life; {before}"]
    assert states(ledger) == {"diverted": 6, "not_crawled": 6}


def test_its_items_are_counted(ledger: Ledger) -> None:
    assert ledger.account.items() == 0
    stopped(ledger)
    assert ledger.account.items() == 3


def test_a_run_whose_feeds_were_not_stored_is_taken_up_and_sends_nothing(ledger: Ledger, path: Path) -> None:
    stopped(ledger)
    ledger.close()
    with closing(Ledger(path)) as later:
        assert not later.begin(IDENTITY, resume=True)
        assert (later.run, later.account.stopped) == (ledger.run, WHY)
        cut(later, [body(5), body(6)])
        assert (later.bookings.ready(), later.account.settled()) == ([], True)
        assert states(later)["not_crawled"] == 5
        assert later.account.end()


def test_a_retry_goes_on_with_all_of_it(ledger: Ledger, path: Path) -> None:
    stopped(ledger)
    ledger.account.end()
    ledger.close()
    with closing(Ledger(path)) as retried:
        assert retried.control.retry(Wanted(state="dead"))[:2] == (0, 0)
        assert states(retried)["not_crawled"] == 5
        assert retried.control.retry(Wanted(state="not crawled", reason=WHY))[:2] == (5, 0)
    with closing(Ledger(path)) as again:
        assert again.begin(IDENTITY, resume=True)  # its walk was cut short, too
        assert again.run == ledger.run
        assert states(again) == {"diverted": 7, "crawled": 1, "failed": 1, "queued": 5}
        assert divert(again, 6) == []


def test_a_walk_that_was_cut_short_goes_on_also_where_nothing_is_left(ledger: Ledger, path: Path) -> None:
    ledger.account.stop(WHY)
    ledger.account.end()
    ledger.close()
    with closing(Ledger(path)) as retried:
        assert retried.control.retry(Wanted())[:2] == (0, 0)
    with closing(Ledger(path)) as again:
        assert again.begin(IDENTITY, resume=True)
        assert (again.run, again.account.stopped) == (ledger.run, None)


def partial(ledger: Ledger) -> Attempt:
    """An attempt that has stopped its run, with items of requests that it has not settled."""
    attempt = a_batch(ledger, 0, 1, 2)
    report = receipt(attempt, 0b101, failed={"dns": [2]}, again=0b100, clean=False, finish_reason=WHY, items=5)
    assert isinstance(ledger.verdicts.settle(attempt, report, max_attempts=3), Objection)
    ledger.verdicts.settle(attempt, report, max_attempts=3, stops=WHY)
    return attempt


def test_what_counts_in_part_stops_the_run_at_once_whatever_happens_then(ledger: Ledger, path: Path) -> None:
    partial(ledger)
    ledger.close()
    with closing(Ledger(path)) as later:
        later.begin(IDENTITY, resume=True)
        assert (later.run, later.account.stopped, later.bookings.ready()) == (ledger.run, WHY, [])
        assert states(later) == {"diverted": 3, "crawled": 1, "failed": 1, "not_crawled": 1}


def test_what_counts_in_part_does_not_where_the_run_goes_on_after_all(ledger: Ledger, path: Path) -> None:
    partial(ledger)
    ledger.account.stop(WHY)
    ledger.close()
    with closing(Ledger(path)) as retried:
        assert retried.control.retry(Wanted())[:2] == (3, 0)
        assert states(retried) == {"diverted": 3, "queued": 3}
    with closing(LedgerReader(path)) as reader:
        assert [one for one in reader.accepted(1) if one.batch] == []


def test_nor_where_it_goes_on_as_a_file_with_items_is_lost(ledger: Ledger, path: Path) -> None:
    home = a_batch(ledger, 4, 5)
    haul = Haul(items=2, size=7, digest="ab", pages=[])
    ledger.verdicts.settle(home, receipt(home), max_attempts=3, haul=haul)
    partial(ledger)
    ledger.account.stop(WHY)
    ledger.close()
    with closing(Ledger(path)) as retried:
        assert retried.control.lose_items(["none.jl"]) == 0
        assert states(retried) == {"diverted": 5, "crawled": 3, "failed": 1, "not_crawled": 1}
    with closing(Ledger(path)) as retried:
        assert retried.control.lose_items([home.spool_name]) == 4  # and that which nobody has settled
        assert states(retried) == {"diverted": 5, "queued": 5}
    with closing(LedgerReader(path)) as reader:
        assert [one for one in reader.accepted(1) if one.batch] == []


def test_while_its_crawl_closes_it_is_not_tried_again(ledger: Ledger, path: Path) -> None:
    dead = a_batch(ledger, 4, 5)
    ledger.verdicts.reject(dead, "killed", counts=True, max_attempts=1)
    partial(ledger)
    assert ledger.account.stopped is None  # only at the very end
    with pytest.raises(LedgerError, match=rf"the crawl is closing \({WHY}\): ask again when it has ended"):
        ledger.control.retry(Wanted())
    ledger.account.stop(WHY)
    ledger.account.end()
    assert states(ledger) == {"diverted": 5, "crawled": 1, "failed": 1, "not_crawled": 1, "dead": 2}
    with closing(LedgerReader(path)) as reader:
        assert [one.batch for one in reader.accepted(1)] == [2]


def test_what_workers_have_found_is_told_apart_before(ledger: Ledger) -> None:
    attempt = a_batch(ledger, 0)
    ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=1, found=found_of([0, 1], [2]))
    while ledger.intake.divert_found() is not None:
        pass
    ledger.account.stop(WHY)
    assert states(ledger) == {"diverted": 3, "duplicates": 1, "crawled": 1, "not_crawled": 2}

"""What a demo says of its outcome, from the ledger and from the items."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import ledgers
import pytest
from demo_results import RESULT, a_failure, a_shift, an_attempt
from result import Comparison, Failure, accepted, agreement, by_reason, read_account

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.sqlite import Ledger

# --- complete or not ---


def test_all_properties_once() -> None:
    assert RESULT.good
    assert RESULT.count == "2 items for 2 properties: each exactly once"
    assert replace(RESULT, items=1, properties=1).count == "1 item for 1 property: each exactly once"
    assert RESULT.pages_per_second == 1.5


@pytest.mark.parametrize("fault", ["missing", "twice", "unknown"])
def test_not_all_properties_once(fault: str) -> None:
    assert not replace(RESULT, **{fault: 1}).good


def test_the_faults_are_named() -> None:
    faulty = replace(RESULT, items=3000, properties=3000, missing=1200, twice=1)
    assert faulty.count == "3,000 items for 3,000 properties: 1,200 missing, 1 more than once"


@pytest.mark.parametrize("fault", ["balanced", "merged"])
def test_neither_balance_nor_feeds_may_lack(fault: str) -> None:
    assert not replace(RESULT, **{fault: False}).good


# --- words ---


def test_known_words_come_by_their_truth_and_also_without_an_estimate() -> None:
    assert RESULT.comparisons == [
        Comparison(word="pool", truth=0.11, estimate=a_shift("pool", 0.1)),
        Comparison(word="basement", truth=-0.2, estimate=None),
    ]


def test_other_words_are_those_that_only_some_titles_have() -> None:
    analysis = replace(RESULT.analysis, shifts=(a_shift("flat", 0.1), a_shift("in", 0.0, error=0.0)))
    others = replace(RESULT, analysis=analysis, truth={**RESULT.truth, "flat": 0.05}).others
    assert others == [Comparison(word="flat", truth=0.05, estimate=a_shift("flat", 0.1))]


@pytest.mark.parametrize(
    ("shift", "holds"), [(0.1, True), (0.119, True), (0.121, False), (0.081, True), (0.079, False)]
)
def test_the_truth_holds_within_two_standard_errors(shift: float, holds: bool) -> None:
    assert Comparison(word="pool", truth=0.1, estimate=a_shift("pool", shift)).holds is holds


def test_agreement_counts_only_what_can_be_measured() -> None:
    words = [
        Comparison(word="pool", truth=0.1, estimate=a_shift("pool", 0.1)),
        Comparison(word="garden", truth=0.1, estimate=a_shift("garden", 0.3)),
        Comparison(word="in", truth=0.0, estimate=a_shift("in", 0.0, error=0.0)),
        Comparison(word="quiet", truth=0.0, estimate=None),
    ]
    assert agreement(words).startswith("1 of 2 words have the truth within two standard errors")
    assert agreement(words[2:]) == "too few items to tell"


# --- the ledger ---


def test_only_attempts_that_count_have_items_and_every_node_is_named() -> None:
    attempts = (an_attempt(), an_attempt("2", "gone", "rejected"), an_attempt("2.2", items=5))
    account = replace(RESULT.account, attempts=attempts)
    assert replace(RESULT, account=account).items_by_node == {"n1": 7, "n2": 0, "gone": 0}


def test_requests_are_counted_by_reason() -> None:
    outcomes = [("failed", "http 404", "http://a/1"), ("dead", "killed", "http://a/2"), ("failed", "http 404", "x")]
    assert by_reason(a_failure(*outcome) for outcome in outcomes) == (
        Failure(state="failed", reason="http 404", count=2, example="http://a/1"),
        Failure(state="dead", reason="killed", count=1, example="http://a/2"),
    )


def test_account_of_a_settled_run(tmp_path: Path) -> None:
    run = ledgers.settled(tmp_path / "ledger.sqlite")
    account = read_account(tmp_path / "ledger.sqlite")
    assert account.run.name == run
    (attempt,) = account.attempts
    assert (attempt.label, attempt.node, attempt.size, attempt.items) == ("1", "n1", 4, 2)
    assert accepted(attempt)
    assert attempt.ended is not None
    assert account.run.started <= attempt.bound <= attempt.ended < account.run.started + 60
    assert account.failures == (
        Failure(state="failed", reason="http 404", count=1, example="http://a/1"),
        Failure(state="filtered", reason="offsite", count=1, example="http://a/2"),
    )


def test_account_of_a_run_with_attempts_that_do_not_count(tmp_path: Path) -> None:
    ledgers.halved(tmp_path / "ledger.sqlite")
    account = read_account(tmp_path / "ledger.sqlite")
    assert [attempt.label for attempt in account.attempts if accepted(attempt)] == ["2"]
    rejected = [attempt for attempt in account.attempts if not accepted(attempt)]
    assert {attempt.reason for attempt in rejected} == {"no receipt: killed"}
    assert [failure.state for failure in account.failures] == ["dead"]


def test_an_attempt_under_way_has_no_end(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin(ledgers.IDENTITY, resume=True)
        ledgers.a_batch(ledger)
    account = read_account(tmp_path / "ledger.sqlite")
    (attempt,) = account.attempts
    assert attempt.ended is None
    assert replace(RESULT, account=account).items_by_node == {"n1": 0, "n2": 0}


def test_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger there"):
        read_account(tmp_path / "ledger.sqlite")

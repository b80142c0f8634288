"""The balance: every diverted request in exactly one state, or the difference."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from scrapy_distributed.ledger.balance import Balance

STATES = ("queued", "in_flight", "crawled", "failed", "filtered", "dead")
NOTHING = Balance(diverted=0, duplicates=0, queued=0, in_flight=0, crawled=0, failed=0, filtered=0, dead=0)
counts = st.integers(0, 10**9)


@given(st.tuples(*[counts] * len(STATES)), counts)
def test_it_holds_where_the_states_add_up(values: tuple[int, ...], duplicates: int) -> None:
    balance = Balance(diverted=sum(values), duplicates=duplicates, **dict(zip(STATES, values, strict=True)))
    assert balance.holds
    assert balance.difference == 0
    assert balance.ended == sum(values[2:])
    assert balance.settled == (values[0] == values[1] == 0)


@given(st.sampled_from(STATES), st.integers(1, 1000))
def test_each_state_counts_and_a_difference_has_a_sign(state: str, number: int) -> None:
    missing = replace(NOTHING, diverted=number)
    assert (missing.difference, missing.holds, missing.settled) == (number, False, False)
    twice = replace(NOTHING, **{state: number})
    assert (twice.difference, twice.holds, twice.settled) == (-number, False, False)


def test_it_says_itself_in_words_and_as_a_dict() -> None:
    balance = Balance(diverted=21, duplicates=9, queued=1, in_flight=2, crawled=3, failed=4, filtered=5, dead=6)
    assert str(balance) == "21 diverted = 1 queued + 2 in flight + 3 crawled + 4 failed + 5 filtered + 6 dead"
    assert str(replace(balance, diverted=1000)).startswith("1,000 diverted != ")
    assert " != " in str(replace(balance, dead=7))
    stopped = replace(balance, diverted=25, not_crawled=4)
    assert stopped.holds
    assert str(stopped).endswith(" + 6 dead + 4 not crawled")
    assert balance.as_dict() == {
        "diverted": 21, "duplicates": 9, "queued": 1, "in_flight": 2, "crawled": 3, "failed": 4, "filtered": 5,
        "dead": 6, "not_crawled": 0, "difference": 0,
    }  # fmt: skip

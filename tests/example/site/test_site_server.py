"""The truth that the example's site tells, against the properties that it makes."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict

import pytest
from http_messages import Request
from market import FACTORS, make_property, true_shifts
from site_server import Site

PROPERTIES = 20_000


def shifts_of_properties() -> dict[str, float]:
    """The shift of each word, counted by hand: means over words, each once a title."""
    count: Counter[str] = Counter()
    price: defaultdict[str, float] = defaultdict(float)
    for number in range(PROPERTIES):
        made = make_property(number)
        for word in set(re.findall(r"\w+", made.title.lower())):
            count[word] += 1
            price[word] += made.price
    words, total = count.total(), sum(price.values())
    mean = total / words
    return {word: (price[word] / n - (total - price[word]) / (words - n)) / mean for word, n in count.items()}


def test_true_shifts_are_those_of_many_properties() -> None:
    found, truth = shifts_of_properties(), true_shifts()
    assert found.keys() == truth.keys()
    for word, shift in truth.items():
        assert found[word] == pytest.approx(shift, abs=0.01), word


def test_words_that_move_prices_are_in_the_order_of_their_factors() -> None:
    truth = true_shifts()
    by_shift = sorted(FACTORS, key=lambda word: truth[word])
    assert sorted(FACTORS, key=lambda word: FACTORS[word]) == by_shift
    assert truth["jacuzzi"] > 0.1
    assert truth["basement"] < -0.1
    assert truth["furnished"] == pytest.approx(truth["quiet"])


def test_the_truth_is_served() -> None:
    site = Site(properties=31)
    answer = site.answer(Request(method="GET", target="/truth.json", headers={}, body=b""))
    assert json.loads(answer.body) == {
        "properties": 31,
        "index_pages": 2,
        "factors": FACTORS,
        "shifts": true_shifts(),
    }


def test_a_property_does_not_depend_on_those_asked_for_before() -> None:
    first = make_property(7)
    assert make_property(8) != first
    assert make_property(7) == first
    assert make_property(7, seed=1) != first

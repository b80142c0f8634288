"""What becomes of the requests of a batch, as a pure class."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.spidermiddlewares.httperror import HttpError
from twisted.internet import error as network

from scrapy_distributed.wire.bitmap import bits
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.wire.reasons import DUPLICATE, reason_of
from scrapy_distributed.wire.receipt import MAX_EXAMPLES
from scrapy_distributed.worker.outcomes import LOST, Outcomes

# Outcomes


def test_a_start_request_is_settled_when_nothing_that_it_led_to_is_open() -> None:
    outcomes = Outcomes(2)
    first, second = outcomes.start(0), outcomes.start(1)
    below = outcomes.follow(0)
    outcomes.end(first)
    assert outcomes.settled == 0b00
    further = outcomes.follow(0)
    outcomes.end(below)
    outcomes.end(second)
    assert outcomes.settled == 0b10
    outcomes.end(further)
    assert outcomes.settled == 0b11
    assert outcomes.noted == {}


def test_a_request_that_follows_late_opens_its_start_request_again() -> None:
    outcomes = Outcomes(1)
    start = outcomes.start(0)
    outcomes.end(start)
    late = outcomes.follow(0)
    assert outcomes.settled == 0
    outcomes.end(late)
    assert outcomes.settled == 1


def test_nothing_is_settled_before_it_has_begun() -> None:
    outcomes = Outcomes(3)
    outcomes.end(outcomes.start(1))
    assert outcomes.settled == 0b010


def test_the_end_may_be_told_any_number_of_times() -> None:
    outcomes = Outcomes(1)
    start = outcomes.start(0)
    below = outcomes.follow(0)
    for _ in range(3):
        outcomes.end(start)
    assert outcomes.settled == 0
    outcomes.end(below)
    assert outcomes.settled == 1


def test_the_first_note_wins() -> None:
    outcomes = Outcomes(1)
    start = outcomes.start(0)
    outcomes.note(start, "failed", "http 404")
    outcomes.note(start, "failed", "errback ValueError")
    outcomes.end(start)
    assert outcomes.by_reason("failed") == {"http 404": [0]}
    assert outcomes.by_reason("filtered") == {}


def test_an_item_error_after_the_end_of_its_request_is_still_noted() -> None:
    outcomes = Outcomes(1)
    start = outcomes.start(0)
    outcomes.end(start)
    outcomes.note(start, "failed", "item KeyError")
    assert outcomes.by_reason("failed") == {"item KeyError": [0]}


def test_a_note_further_down_is_counted_and_does_not_fail_the_start_request() -> None:
    outcomes = Outcomes(1)
    start = outcomes.start(0)
    below = outcomes.follow(0)
    outcomes.note(below, "failed", "http 404")
    outcomes.end(below)
    outcomes.note(below, "failed", "late")
    outcomes.end(start)
    assert outcomes.failed_follow_ups() == {"http 404": 1}
    assert outcomes.by_reason("failed") == {}


def test_a_note_of_an_unsettled_request_is_not_reported() -> None:
    outcomes = Outcomes(1)
    outcomes.note(outcomes.start(0), "failed", "http 404")
    assert outcomes.by_reason("failed") == {}


def test_a_feed_is_clean_while_all_its_items_are_of_settled_requests() -> None:
    outcomes = Outcomes(2)
    first = outcomes.start(0)
    outcomes.start(1)
    assert outcomes.clean
    outcomes.item(0)
    assert not outcomes.clean
    outcomes.end(first)
    assert outcomes.clean
    outcomes.item(1)
    assert not outcomes.clean


def test_what_is_open_at_the_end_is_lost_and_named() -> None:
    outcomes = Outcomes(3)
    outcomes.end(outcomes.start(0))
    outcomes.note(outcomes.start(1), "failed", "http 404")
    outcomes.start(2)
    outcomes.item(2)
    outcomes.lose_open()
    assert outcomes.settled == 0b111
    assert outcomes.by_reason("failed") == {"http 404": [1], LOST: [2]}
    assert outcomes.clean


def test_what_the_crawl_was_never_given_is_not_lost_on_the_worker() -> None:
    """Its start has failed: these go out again."""
    outcomes = Outcomes(3)
    outcomes.end(outcomes.start(0))
    outcomes.start(1)
    outcomes.lose_open()
    assert outcomes.settled == 0b011
    assert outcomes.by_reason("failed") == {LOST: [1]}


def test_what_failed_before_its_callback_and_put_out_nothing_may_be_tried_again() -> None:
    outcomes = Outcomes(7)
    tickets = [outcomes.start(position) for position in range(7)]
    outcomes.note(tickets[0], "failed", "refused", early=True)
    outcomes.note(tickets[1], "failed", "callback ValueError")
    outcomes.note(tickets[1], "failed", "refused", early=True)  # the first note wins
    outcomes.note(tickets[2], "filtered", "robots.txt", early=True)
    for position in (3, 4, 5, 6):
        outcomes.note(tickets[position], "failed", "refused", early=True)
    outcomes.item(3)
    outcomes.found(4)
    below = outcomes.follow(5)
    outcomes.note(below, "failed", "refused", early=True)
    outcomes.end(below)
    for ticket in tickets[:6]:
        outcomes.end(ticket)
    assert outcomes.settled == 0b0111111
    assert outcomes.again == 0b0000001
    outcomes.end(tickets[6])
    assert outcomes.again == 0b1000001
    outcomes.item(0)
    assert outcomes.again == 0b1000000


def test_what_is_lost_is_not_tried_again() -> None:
    outcomes = Outcomes(2)
    outcomes.start(0)
    outcomes.lose_open()
    assert outcomes.again == 0


@given(data=st.data())
def test_again_is_what_a_plain_model_says(data: st.DataObject) -> None:
    """A model of one start request: it may be tried again if its first note was an early failure, and that is all."""
    outcomes = Outcomes(3)
    start = outcomes.start(1)
    tickets, noted, gave = [start], "", False
    steps = st.sampled_from(["follow", "item", "found", "end", "early", "late", "filtered"])
    for step in data.draw(st.lists(steps, max_size=12)):
        before = outcomes.steps
        ticket = data.draw(st.sampled_from(tickets))
        if step == "follow":
            tickets.append(outcomes.follow(1))
        elif step == "end":
            outcomes.end(ticket)
        elif step in ("item", "found"):
            getattr(outcomes, step)(1)
        else:
            outcomes.note(ticket, "filtered" if step == "filtered" else "failed", step, early=step != "late")
            noted = noted or (step if ticket == start else "")
        if step in ("follow", "item", "found"):
            gave = True
            assert outcomes.steps > before
        assert outcomes.steps >= before
        assert bool(outcomes.again) == (noted == "early" and not gave and outcomes.settled == 0b010)
        assert outcomes.again in (0, 0b010)
        if outcomes.again:
            assert outcomes.by_reason("failed") == {"early": [1]}


@given(data=st.data())
def test_settled_is_what_a_plain_model_says(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 6))
    outcomes = Outcomes(size)
    begun: set[int] = set()
    live: list[tuple[int, int]] = []
    for _ in range(data.draw(st.integers(0, 40))):
        step = data.draw(st.sampled_from(["start", "follow", "end"]))
        if step == "start" and len(begun) < size:
            live.append(outcomes.start(len(begun)))
            begun.add(len(begun))
        elif step == "follow" and live:
            live.append(outcomes.follow(data.draw(st.sampled_from(live))[0]))
        elif step == "end" and live:
            ticket = data.draw(st.sampled_from(live))
            live.remove(ticket)
            outcomes.end(ticket)
        assert set(bits(outcomes.settled)) == begun - {position for position, _ in live}
    assert len({serial for _, serial in live}) == len(live)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (HttpError(Response("http://a/", status=404)), ("failed", "http 404")),
        (IgnoreRequest("Forbidden by robots.txt"), ("filtered", "robots.txt")),
        (IgnoreRequest("Filtered offsite request to 'b'"), ("filtered", "offsite")),
        (IgnoreRequest("max redirections reached"), ("failed", "too many redirects")),
        (IgnoreRequest(), ("filtered", "ignored")),
        (network.DNSLookupError(), ("failed", "dns")),
        (network.TimeoutError(), ("failed", "timeout")),
        (network.TCPTimedOutError(), ("failed", "timeout")),
        (network.ConnectionRefusedError(), ("failed", "refused")),
        (network.ConnectionLost(), ("failed", "connection lost")),
        (OSError(), ("failed", "download OSError")),
    ],
)
def test_reasons_have_stable_names(error: Exception, expected: tuple[str, str]) -> None:
    assert reason_of(error) == expected


def test_a_crawl_that_ends_early_has_not_settled_what_another_request_stands_for() -> None:
    outcomes = Outcomes(3)
    leads, duplicate, offsite = outcomes.start(0), outcomes.start(1), outcomes.start(2)
    outcomes.follow(0)  # to the page of the second one, and never ends
    outcomes.end(leads)
    outcomes.note(duplicate, Outcome.FILTERED, DUPLICATE)
    outcomes.end(duplicate)
    outcomes.note(offsite, Outcome.FILTERED, "offsite")
    outcomes.end(offsite)
    outcomes.reopen_duplicates()
    assert outcomes.settled == 0b100
    assert outcomes.by_reason(Outcome.FILTERED) == {"offsite": [2]}


def test_what_fails_after_its_pages_fails_its_start_request_unless_that_has_an_outcome() -> None:
    outcomes = Outcomes(2)
    first, second = outcomes.start(0), outcomes.start(1)
    outcomes.end(first)
    outcomes.fail(0, "item can't come home: lock")
    outcomes.note(second, Outcome.FAILED, "http 404")
    outcomes.end(second)
    outcomes.fail(1, "item can't come home: lock")
    assert outcomes.by_reason(Outcome.FAILED) == {"item can't come home: lock": [0], "http 404": [1]}


def test_of_each_kind_of_error_that_is_reported_the_first_is_told() -> None:
    outcomes = Outcomes(4)
    first, second, third, unsettled = map(outcomes.start, range(4))
    outcomes.note(first, "failed", "http 404")
    outcomes.note(first, "failed", "callback KeyError", example="of what had failed")
    outcomes.note(second, "failed", "callback ValueError", example="no price (a.py:3)")
    outcomes.note(third, "failed", "callback ValueError", example="no name (a.py:9)")
    below = outcomes.follow(1)
    outcomes.note(below, "failed", "callback TypeError", example="beside (a.py:12)")
    outcomes.note(unsettled, "failed", "callback IndexError", example="goes out again")
    for ticket in (first, second, third, below):
        outcomes.end(ticket)
    assert outcomes.reported_examples() == {
        "callback ValueError": "no price (a.py:3)", "callback TypeError": "beside (a.py:12)",
    }  # fmt: skip


def test_no_more_examples_than_a_receipt_takes() -> None:
    outcomes = Outcomes(2 * MAX_EXAMPLES)
    for position in range(outcomes.size):
        ticket = outcomes.start(position)
        outcomes.note(ticket, "failed", f"callback E{position}", example="x")
        outcomes.end(ticket)
    assert len(outcomes.reported_examples()) == MAX_EXAMPLES

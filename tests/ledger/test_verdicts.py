"""What becomes of attempts, and of their batches: settled, again, halved, dead, tried on another node."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ledgers import IDENTITY, a_batch, all_ready, body, cut, divert, dump, feeds, key, outcomes, queued, receipt
from ledgers import states as counts

from scrapy_distributed.ledger.finds import Finds
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import AttemptState, Blame, Fate
from scrapy_distributed.wire.payload import decode_payload

# Attempts


def test_a_full_receipt_settles_the_batch(ledger: Ledger) -> None:
    attempt = a_batch(ledger)
    assert not ledger.account.posted()
    ledger.bookings.sent(attempt)
    assert ledger.account.posted()
    assert not ledger.account.settled()
    report = receipt(attempt, failed={"http 404": [1]}, filtered={"offsite": [3]}, items=5,
                     feeds=(("ftp://h/1.jl", 5),), stats={"pages": 3})  # fmt: skip
    assert ledger.verdicts.objection(attempt, report) is None
    settlement = ledger.verdicts.settle(attempt, report, max_attempts=3)
    assert (settlement.fate, settlement.again) == (Fate.SETTLED, 0)
    assert counts(ledger) == {"diverted": 4, "crawled": 2, "failed": 1, "filtered": 1}
    assert ledger.account.settled()
    assert ledger.bookings.live() == []
    assert ledger.account.worker_stats() == ({"pages": 3}, 0)


def test_the_second_attempt_has_exactly_what_is_not_settled_in_order(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(6))
    ledger.verdicts.settle(
        attempt, receipt(attempt, 0b010110, finish_reason="shutdown", failed={"dns": [2]}), max_attempts=3
    )
    assert counts(ledger) == {"diverted": 6, "queued": 3, "crawled": 2, "failed": 1}
    assert ledger.bookings.ready()[:1] == [(1, "n1")]
    second, payload = ledger.bookings.bind(1, "n2")
    assert decode_payload(payload) == ["http://a/0", "http://a/3", "http://a/5"]
    assert (second.label, second.positions, second.size) == ("1.2", 0b101001, 3)
    ledger.verdicts.settle(
        second, receipt(second, 0b101, failed={"timeout": [2]}, finish_reason="shutdown"), max_attempts=3
    )
    third, payload = ledger.bookings.bind(1, "n1")
    assert decode_payload(payload) == ["http://a/3"]
    assert ledger.verdicts.settle(third, receipt(third), max_attempts=3).fate is Fate.SETTLED
    assert counts(ledger) == {"diverted": 6, "crawled": 4, "failed": 2}
    ledger.close()
    with closing(LedgerReader(ledger.path)) as reader:
        outcomes = [(outcome.position, outcome.reason, outcome.url) for outcome in reader.outcomes(1)]
    assert outcomes == [(2, "dns", "http://a/2"), (5, "timeout", "http://a/5")]


def test_a_batch_that_never_ran_uses_up_no_attempt(ledger: Ledger) -> None:
    attempt = a_batch(ledger)
    for _ in range(5):
        ledger.verdicts.unsent(attempt, "n1: connection refused")
        assert counts(ledger) == {"diverted": 4, "queued": 4}
        attempt, _ = ledger.bookings.bind(1, "n2")
    assert attempt.label == "1.6"
    assert ledger.verdicts.reject(attempt, "no receipt", counts=True, max_attempts=2) is Fate.AGAIN
    assert counts(ledger) == {"diverted": 4, "queued": 4}


@pytest.mark.parametrize(
    ("values", "reason", "blame"),
    [
        ({"stored": False}, "its feed was not stored", Blame.NODE),
        ({"clean": False, "finish_reason": "shutdown"}, "it ended early (shutdown) with items", Blame.BATCH),
        ({"size": 3, "settled": 0b111}, "its receipt speaks of 3 requests, sent were 4", Blame.NODE),
    ],
)
def test_a_receipt_that_cannot_count_is_rejected_whole(
    ledger: Ledger, values: dict[str, Any], reason: str, blame: Blame
) -> None:
    attempt = a_batch(ledger)
    report = receipt(attempt, **({"feeds": (("f", 1),)} | values))
    objected = ledger.verdicts.objection(attempt, report)
    assert objected is not None
    assert reason in objected.reason
    assert objected.blame is blame
    before = dump(ledger)
    found = [Finds.of([(key(7), body(7))])]
    assert ledger.verdicts.settle(attempt, report, max_attempts=2, found=found) == objected
    assert dump(ledger) == before
    assert divert(ledger, 7) == [body(7)]  # nor was it taken for seen
    assert ledger.verdicts.reject(attempt, objected[0], counts=True, max_attempts=2) is Fate.AGAIN
    assert counts(ledger) == {"diverted": 5, "queued": 5}
    assert feeds(ledger) == []
    second, _ = ledger.bookings.bind(1, "n2")
    assert second.size == 4


def test_what_has_ended_is_not_accepted_and_what_was_accepted_stays_so(ledger: Ledger) -> None:
    first = a_batch(ledger)
    ledger.verdicts.unsent(first, "refused")
    assert ledger.verdicts.objection(first, receipt(first)) == ("it was unsent before", Blame.NOBODY)
    second, _ = ledger.bookings.bind(1, "n1")
    ledger.verdicts.reject(second, "no receipt", counts=False, max_attempts=3)
    assert ledger.verdicts.objection(second, receipt(second)) == ("it was rejected before", Blame.NOBODY)
    third, _ = ledger.bookings.bind(1, "n1")
    ledger.verdicts.settle(third, receipt(third, 0b0011, feeds=(("third", 2),)), max_attempts=3)
    assert ledger.verdicts.objection(third, receipt(third)) == ("it was accepted before", Blame.NOBODY)
    for _ in range(3):
        ledger.verdicts.reject(third, "again", counts=True, max_attempts=1)
    assert counts(ledger) == {"diverted": 4, "crawled": 2, "queued": 2}
    assert feeds(ledger) == ["third"]


# Failures: halves, and what is dead


def test_what_is_left_when_the_only_attempt_is_used_up_is_dead_with_the_reason(ledger: Ledger) -> None:
    attempt = a_batch(ledger)
    settled = ledger.verdicts.settle(attempt, receipt(attempt, 0b0001, finish_reason="shutdown"), max_attempts=1)
    assert settled.fate is Fate.AGAIN  # progress: not counted
    attempt, _ = ledger.bookings.bind(1, "n1")
    assert ledger.verdicts.reject(attempt, "another was first", counts=False, max_attempts=1) is Fate.AGAIN
    attempt, _ = ledger.bookings.bind(1, "n1")
    assert ledger.verdicts.reject(attempt, "no receipt: MemoryError", counts=True, max_attempts=1) is Fate.DEAD
    assert counts(ledger) == {"diverted": 4, "crawled": 1, "dead": 3}
    assert ledger.account.settled()
    assert outcomes(ledger) == [("dead", "no receipt: MemoryError", f"http://a/{number}") for number in (1, 2, 3)]


def test_an_accepted_attempt_without_any_outcome_is_a_failure(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(1))
    early = receipt(attempt, 0, finish_reason="shutdown")
    assert ledger.verdicts.settle(attempt, early, max_attempts=2).fate is Fate.AGAIN
    attempt, _ = ledger.bookings.bind(1, "n1")
    assert (
        ledger.verdicts.settle(attempt, receipt(attempt, 0, finish_reason="shutdown"), max_attempts=2).fate is Fate.DEAD
    )
    assert outcomes(ledger) == [("dead", "ended early: shutdown", "http://a/0")]


def test_a_batch_that_has_died_twice_goes_out_as_two_halves_that_know_it(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(5))
    ledger.verdicts.settle(attempt, receipt(attempt, 0b00010, finish_reason="shutdown"), max_attempts=3)
    for fate in (Fate.AGAIN, Fate.HALVED):
        attempt, _ = ledger.bookings.bind(1, "n1")
        assert ledger.verdicts.reject(attempt, "killed", counts=True, max_attempts=3) is fate
    assert counts(ledger) == {"diverted": 5, "crawled": 1, "queued": 4}
    assert all_ready(ledger) == [(2, "n1"), (3, "n1")]
    assert ledger.bookings.ready() == [(2, "n1")]  # the first of each node
    with closing(LedgerReader(ledger.path)) as reader:
        whole, *halves = reader.batches(1)
        assert (whole.state, whole.crawled, whole.moved, whole.parent) == ("settled", 1, 4, None)
        assert [(half.parent, half.size, half.state) for half in halves] == [(1, 2, "ready"), (1, 2, "ready")]
        assert reader.children(1, 1) == [2, 3]
        assert list(reader.outcomes(1)) == []
    sent = [decode_payload(ledger.bookings.bind(number, "n1")[1]) for number in (2, 3)]
    assert sent == [["http://a/0", "http://a/2"], ["http://a/3", "http://a/4"]]


def halvings(size: int, poison: int) -> int:
    """How often a batch is halved until *poison* stands alone."""
    count = 0
    while size > 1:
        middle = (size + 1) // 2
        size, poison = (middle, poison) if poison < middle else (size - middle, poison - middle)
        count += 1
    return count


@pytest.mark.parametrize("max_attempts", [2, 3, 4])
@pytest.mark.parametrize("size", range(1, 10))
def test_a_poisonous_request_stands_alone_in_the_end_and_takes_no_other_with_it(
    ledger: Ledger, size: int, max_attempts: int
) -> None:
    poison = (size * 7 + max_attempts) % size
    cut(ledger, divert(ledger, *range(size)))
    deaths, fates = 0, []
    while ready := ledger.bookings.ready():
        attempt, payload = ledger.bookings.bind(ready[0][0], "n1")
        if f"http://a/{poison}" in decode_payload(payload):
            deaths += 1
            fates.append(ledger.verdicts.reject(attempt, f"death {deaths}", counts=True, max_attempts=max_attempts))
        else:
            assert ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=max_attempts).fate is Fate.SETTLED
        assert counts(ledger)["diverted"] == size
    assert deaths == halvings(size, poison) + max_attempts
    assert fates.count(Fate.HALVED) == halvings(size, poison)
    assert fates[-1] is Fate.DEAD
    assert counts(ledger) == {"diverted": size, "dead": 1} | ({"crawled": size - 1} if size > 1 else {})
    assert outcomes(ledger) == [("dead", f"death {deaths}", f"http://a/{poison}")]
    with closing(LedgerReader(ledger.path)) as reader:
        batches = {batch.number: batch for batch in reader.batches(1)}
        for number, batch in batches.items():
            children = [batches[child].size for child in reader.children(1, number)]
            assert batch.moved == sum(children)
            assert len(children) in (0, 2)


def test_a_death_that_is_not_the_batchs_failure_halves_nothing(ledger: Ledger) -> None:
    attempt = a_batch(ledger)
    for _ in range(5):
        assert ledger.verdicts.reject(attempt, "its feed was not stored", counts=False, max_attempts=2) is Fate.AGAIN
        attempt, _ = ledger.bookings.bind(1, "n1")
    assert ledger.verdicts.lose(attempt, "silent", counts=False, max_attempts=2) is Fate.AGAIN
    assert [number for number, _ in ledger.bookings.ready()] == [1]


# Orphans


def test_the_orphan_that_is_first_wins_and_the_other_is_fenced(ledger: Ledger) -> None:
    first = a_batch(ledger)
    ledger.bookings.sent(first)
    assert ledger.verdicts.lose(first, "no sign of life", counts=True, max_attempts=3) is Fate.AGAIN
    assert counts(ledger) == {"diverted": 4, "queued": 4}
    second, _ = ledger.bookings.bind(1, "n2")
    assert {attempt.state for attempt in ledger.bookings.live()} == {AttemptState.UNKNOWN, AttemptState.BOUND}
    assert ledger.verdicts.settle(first, receipt(first, feeds=(("first", 1),)), max_attempts=3).fate is Fate.SETTLED
    assert counts(ledger) == {"diverted": 4, "crawled": 4}
    late = receipt(second, feeds=(("second", 1),))
    assert ledger.verdicts.objection(second, late) == (
        "what it was sent is settled, or in another batch, already",
        Blame.NOBODY,
    )
    assert ledger.verdicts.reject(second, "fenced", counts=True, max_attempts=1) is Fate.SETTLED
    assert counts(ledger) == {"diverted": 4, "crawled": 4}
    assert feeds(ledger) == ["first"]


def test_an_orphan_of_a_dead_batch_comes_too_late(ledger: Ledger) -> None:
    first = a_batch(ledger)
    assert ledger.verdicts.lose(first, "no sign of life", counts=False, max_attempts=1) is Fate.AGAIN
    second, _ = ledger.bookings.bind(1, "n2")
    assert ledger.verdicts.lose(second, "no sign of life", counts=True, max_attempts=1) is Fate.DEAD
    assert counts(ledger) == {"diverted": 4, "dead": 4}
    for attempt in (first, second):
        assert ledger.verdicts.objection(attempt, receipt(attempt)) is not None
        assert ledger.verdicts.reject(attempt, "too late", counts=True, max_attempts=1) is Fate.SETTLED
    assert counts(ledger) == {"diverted": 4, "dead": 4}


def test_an_orphan_of_a_halved_batch_comes_too_late(ledger: Ledger) -> None:
    first = a_batch(ledger)
    assert ledger.verdicts.lose(first, "no sign of life", counts=True, max_attempts=3) is Fate.AGAIN
    second, _ = ledger.bookings.bind(1, "n2")
    assert ledger.verdicts.lose(second, "no sign of life", counts=True, max_attempts=3) is Fate.HALVED
    for attempt in (first, second):
        assert ledger.verdicts.objection(attempt, receipt(attempt)) is not None
        assert ledger.verdicts.reject(attempt, "too late", counts=True, max_attempts=3) is Fate.SETTLED
    assert counts(ledger) == {"diverted": 4, "queued": 4}
    assert [number for number, _ in all_ready(ledger)] == [2, 3]


def test_what_is_lost_may_go_out_in_parts_each_with_the_failures_of_its_batch(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(7))
    early = receipt(attempt, 0b1, finish_reason="shutdown")
    ledger.verdicts.settle(attempt, early, max_attempts=3)
    second, _ = ledger.bookings.bind(1, "n2")
    assert ledger.verdicts.lose(second, "down", counts=True, max_attempts=3, parts=4) is Fate.DIVIDED
    assert all_ready(ledger) == [(2, "n2"), (3, "n2"), (4, "n2")]
    parts = [ledger.bookings.bind(batch, "n3")[0] for batch in (2, 3, 4)]
    assert [part.size for part in parts] == [2, 2, 2]
    assert ledger.verdicts.objection(second, receipt(second)) is not None
    assert counts(ledger) == {"diverted": 7, "crawled": 1, "in_flight": 6}
    assert ledger.verdicts.lose(parts[0], "down", counts=True, max_attempts=3) is Fate.HALVED


def test_one_request_is_not_divided(ledger: Ledger) -> None:
    attempt = a_batch(ledger, 1)
    assert ledger.verdicts.lose(attempt, "down", counts=False, max_attempts=3, parts=4) is Fate.AGAIN
    assert all_ready(ledger) == [(1, "n1")]


def test_an_orphan_that_ends_does_not_take_the_batch_from_the_attempt_under_way(ledger: Ledger) -> None:
    first = a_batch(ledger)
    ledger.verdicts.lose(first, "no sign of life", counts=True, max_attempts=3)
    second, _ = ledger.bookings.bind(1, "n2")
    ledger.verdicts.reject(first, "no receipt", counts=True, max_attempts=3)
    assert ledger.bookings.ready() == []
    assert counts(ledger) == {"diverted": 4, "in_flight": 4}
    assert ledger.verdicts.settle(second, receipt(second), max_attempts=3).fate is Fate.SETTLED


def test_a_lost_attempt_that_reports_nothing_is_not_counted_twice(ledger: Ledger) -> None:
    first = a_batch(ledger)
    ledger.verdicts.lose(first, "no sign of life", counts=True, max_attempts=2)
    second, _ = ledger.bookings.bind(1, "n2")
    early = receipt(first, 0, finish_reason="shutdown")
    assert ledger.verdicts.settle(first, early, max_attempts=2).fate is Fate.AGAIN
    assert counts(ledger) == {"diverted": 4, "in_flight": 4}
    assert ledger.verdicts.settle(second, receipt(second), max_attempts=2).fate is Fate.SETTLED


def test_a_replacement_is_not_blamed_for_what_an_orphan_has_settled(ledger: Ledger) -> None:
    orphan = a_batch(ledger)
    ledger.bookings.sent(orphan)
    ledger.verdicts.lose(orphan, "silent", counts=True, max_attempts=2)
    replacement, _ = ledger.bookings.bind(orphan.batch, "n2")
    ledger.bookings.sent(replacement)
    assert ledger.verdicts.settle(orphan, receipt(orphan, 0b11), max_attempts=2).fate is Fate.AGAIN
    objected = ledger.verdicts.objection(replacement, receipt(replacement))
    assert objected is not None
    assert objected[1] is Blame.NOBODY
    assert ledger.verdicts.reject(replacement, objected[0], counts=False, max_attempts=2) is Fate.AGAIN
    assert ledger.account.balance().queued == 2


# Failed requests that are tried on another node


def test_failed_requests_are_tried_on_another_node_once(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(6))
    report = receipt(attempt, failed={"dns": [1, 4], "timeout": [5]}, again=0b110010)
    settlement = ledger.verdicts.settle(attempt, report, max_attempts=3, again=0b010010)
    assert (settlement.fate, settlement.again) == (Fate.SETTLED, 2)
    assert counts(ledger) == {"diverted": 6, "crawled": 3, "failed": 1, "queued": 2}
    assert queued(ledger) == []
    assert not ledger.account.settled()
    assert not ledger.account.posted()
    assert ledger.intake.cut_again(2, all_of_it=False) == 1
    assert ledger.bookings.ready() == [(2, "n1")]
    second, payload = ledger.bookings.bind(2, "n2")
    assert decode_payload(payload) == ["http://a/1", "http://a/4"]
    report = receipt(second, failed={"dns": [0, 1]}, again=0b11)
    assert ledger.verdicts.settle(second, report, max_attempts=3, again=0b11).again == 0
    assert counts(ledger) == {"diverted": 6, "crawled": 3, "failed": 3}
    assert ledger.intake.cut_again(1, all_of_it=True) == 0
    assert ledger.account.settled()
    assert [url for _, _, url in outcomes(ledger)] == ["http://a/5", "http://a/1", "http://a/4"]


def test_halves_of_what_was_tried_elsewhere_are_not_tried_a_third_time(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(2))
    ledger.verdicts.settle(attempt, receipt(attempt, failed={"dns": [0, 1]}, again=0b11), max_attempts=2, again=0b11)
    ledger.intake.cut_again(9, all_of_it=True)
    for _ in range(2):
        attempt, _ = ledger.bookings.bind(2, "n2")
        ledger.verdicts.reject(attempt, "killed", counts=True, max_attempts=2)
    assert all_ready(ledger) == [(3, "n2"), (4, "n2")]
    attempt, _ = ledger.bookings.bind(3, "n2")
    assert (
        ledger.verdicts.settle(attempt, receipt(attempt, failed={"dns": [0]}, again=1), max_attempts=2, again=1).again
        == 0
    )


def test_only_what_a_receipt_allows_is_tried_again_also_of_a_second_attempt(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(4))
    ledger.verdicts.settle(attempt, receipt(attempt, 0b0101, finish_reason="shutdown"), max_attempts=3)
    attempt, _ = ledger.bookings.bind(1, "n2")  # requests 1 and 3
    report = receipt(attempt, failed={"dns": [0, 1]}, again=0b10)
    assert ledger.verdicts.settle(attempt, report, max_attempts=3, again=0b11).again == 1
    assert ledger.intake.cut_again(1, all_of_it=False) == 1
    assert decode_payload(ledger.bookings.bind(2, "n1")[1]) == ["http://a/3"]
    assert outcomes(ledger) == [("failed", "dns", "http://a/1")]


def test_what_is_to_be_tried_again_is_closed_by_node_and_size_and_survives_a_restart(
    ledger: Ledger, path: Path
) -> None:
    for number, (node, size) in enumerate([("n1", 3), ("n2", 2), ("n1", 2)], start=1):
        first = number * 10
        cut(ledger, divert(ledger, *range(first, first + size)))
        attempt, _ = ledger.bookings.bind(number, node)
        everything = (1 << size) - 1
        failed = receipt(attempt, failed={"dns": list(range(size))}, again=everything)
        assert ledger.verdicts.settle(attempt, failed, max_attempts=3, again=everything).again == size
    open_request = divert(ledger, 1)
    ledger.close()
    with closing(Ledger(path)) as again:
        again.begin(IDENTITY, resume=True)
        assert queued(again) == open_request
        assert divert(again, 10, 20) == []
        assert again.intake.cut_again(6, all_of_it=False) == 0
        assert again.intake.cut_again(4, all_of_it=False) == 2  # of n1: 4 and the rest
        assert all_ready(again) == [(4, "n1"), (5, "n1")]
        assert again.intake.cut_again(4, all_of_it=True) == 1
        assert all_ready(again) == [(4, "n1"), (5, "n1"), (6, "n2")]
        assert again.bookings.ready() == [(4, "n1"), (6, "n2")]
        sent = [len(decode_payload(again.bookings.bind(number, "n3")[1])) for number in (4, 5, 6)]
        assert sent == [4, 1, 2]
        assert queued(again) == open_request
        assert counts(again) == {"diverted": 8, "duplicates": 2, "queued": 1, "in_flight": 7}

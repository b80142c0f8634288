"""The ledger: every request in exactly one state after every transition, also after a kill; one writer."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from file_limit import file_limit
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ledgers import (
    IDENTITY,
    TABLES,
    a_batch,
    all_ready,
    body,
    divert,
    dump,
    feeds,
    found_of,
    key,
    outcomes,
    receipt,
    rows_of,
)
from ledgers import states as counts

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import READY, UNPOSTED, UNSETTLED, Finds, Ledger
from scrapy_distributed.ledger.sqlite_schema import APPLICATION, FORMAT
from scrapy_distributed.ledger.sqlite_seen import BUCKET_BYTES, Seen
from scrapy_distributed.ledger.states import Attempt, AttemptState, Blame, Fate
from scrapy_distributed.wire import payload
from scrapy_distributed.wire.bitmap import bits
from scrapy_distributed.wire.payload import decode_payload


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "s.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        yield ledger


# De-duplication and batches


def test_a_key_is_diverted_once(ledger: Ledger) -> None:
    assert divert(ledger, 1, 2, 1) == [body(1), body(2)]
    assert divert(ledger, 2, 3) == [body(3)]
    assert divert(ledger) == []
    assert counts(ledger) == {"diverted": 3, "duplicates": 2, "queued": 3}
    assert ledger.queued() == [body(1), body(2), body(3)]


def test_a_batch_leaves_the_queue_and_the_rest_stays_open(ledger: Ledger) -> None:
    bodies = divert(ledger, 1, 2, 3, 4, 5)
    assert ledger.close_batches([bodies[:2], bodies[2:4]], bodies[4:]) == 2
    assert ledger.queued() == [body(5)]
    assert counts(ledger) == {"diverted": 5, "queued": 5}
    assert ledger.ready()[:1] == [(1, None)]
    attempt, payload = ledger.bind(1, "n1")
    assert counts(ledger) == {"diverted": 5, "queued": 3, "in_flight": 2}
    assert decode_payload(payload) == ["http://a/1", "http://a/2"]
    assert (attempt.label, attempt.node, attempt.size, attempt.state) == ("1", "n1", 2, AttemptState.BOUND)
    assert ledger.ready()[:1] == [(2, None)]


def test_a_batch_over_the_ceiling_is_split(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MAX_VALUE_BYTES", 60)
    assert ledger.close_batches([divert(ledger, *range(10))], []) == 4
    arrived = []
    while ready := ledger.ready():
        arrived += decode_payload(ledger.bind(ready[0][0], "n")[1])
    assert arrived == [f"http://a/{number}" for number in range(10)]
    assert counts(ledger) == {"diverted": 10, "in_flight": 10}


def test_an_empty_batch_is_none(ledger: Ledger) -> None:
    assert ledger.close_batches([[]], []) == 0
    assert ledger.ready() == []
    assert ledger.settled()


# Attempts


def test_a_full_receipt_settles_the_batch(ledger: Ledger) -> None:
    attempt = a_batch(ledger)
    assert not ledger.posted()
    ledger.sent(attempt)
    assert ledger.posted()
    assert not ledger.settled()
    report = receipt(attempt, failed={"http 404": [1]}, filtered={"offsite": [3]}, items=5,
                     feeds=(("ftp://h/1.jl", 5),), stats={"pages": 3})  # fmt: skip
    assert ledger.objection(attempt, report) is None
    settlement = ledger.settle(attempt, report, max_attempts=3)
    assert (settlement.fate, settlement.again) == (Fate.SETTLED, 0)
    assert counts(ledger) == {"diverted": 4, "crawled": 2, "failed": 1, "filtered": 1}
    assert ledger.settled()
    assert ledger.live() == []
    assert ledger.worker_stats() == {"pages": 3}


def test_the_second_attempt_has_exactly_what_is_not_settled_in_order(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(6))
    ledger.settle(attempt, receipt(attempt, 0b010110, finish_reason="shutdown", failed={"dns": [2]}), max_attempts=3)
    assert counts(ledger) == {"diverted": 6, "queued": 3, "crawled": 2, "failed": 1}
    assert ledger.ready()[:1] == [(1, "n1")]
    second, payload = ledger.bind(1, "n2")
    assert decode_payload(payload) == ["http://a/0", "http://a/3", "http://a/5"]
    assert (second.label, second.positions, second.size) == ("1.2", 0b101001, 3)
    ledger.settle(second, receipt(second, 0b101, failed={"timeout": [2]}, finish_reason="shutdown"), max_attempts=3)
    third, payload = ledger.bind(1, "n1")
    assert decode_payload(payload) == ["http://a/3"]
    assert ledger.settle(third, receipt(third), max_attempts=3).fate is Fate.SETTLED
    assert counts(ledger) == {"diverted": 6, "crawled": 4, "failed": 2}
    ledger.close()
    with closing(LedgerReader(ledger.path)) as reader:
        outcomes = [(outcome.position, outcome.reason, outcome.url) for outcome in reader.outcomes(1)]
    assert outcomes == [(2, "dns", "http://a/2"), (5, "timeout", "http://a/5")]


def test_a_batch_that_never_ran_uses_up_no_attempt(ledger: Ledger) -> None:
    attempt = a_batch(ledger)
    for _ in range(5):
        ledger.unsent(attempt, "n1: connection refused")
        assert counts(ledger) == {"diverted": 4, "queued": 4}
        attempt, _ = ledger.bind(1, "n2")
    assert attempt.label == "1.6"
    assert ledger.reject(attempt, "no receipt", counts=True, max_attempts=2) is Fate.AGAIN
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
    objected = ledger.objection(attempt, report)
    assert objected is not None
    assert reason in objected[0]
    assert objected[1] is blame
    before = dump(ledger)
    with pytest.raises(ValueError, match=f"{attempt.job} can't be accepted"):
        ledger.settle(attempt, report, max_attempts=2, found=[Finds.of([(key(7), body(7))])])
    assert dump(ledger) == before
    assert divert(ledger, 7) == [body(7)]  # nor was it taken for seen
    assert ledger.reject(attempt, objected[0], counts=True, max_attempts=2) is Fate.AGAIN
    assert counts(ledger) == {"diverted": 5, "queued": 5}
    assert feeds(ledger) == []
    second, _ = ledger.bind(1, "n2")
    assert second.size == 4


def test_what_has_ended_is_not_accepted_and_what_was_accepted_stays_so(ledger: Ledger) -> None:
    first = a_batch(ledger)
    ledger.unsent(first, "refused")
    assert ledger.objection(first, receipt(first)) == ("it was unsent before", Blame.NOBODY)
    second, _ = ledger.bind(1, "n1")
    ledger.reject(second, "no receipt", counts=False, max_attempts=3)
    assert ledger.objection(second, receipt(second)) == ("it was rejected before", Blame.NOBODY)
    third, _ = ledger.bind(1, "n1")
    ledger.settle(third, receipt(third, 0b0011, feeds=(("third", 2),)), max_attempts=3)
    assert ledger.objection(third, receipt(third)) == ("it was accepted before", Blame.NOBODY)
    for _ in range(3):
        ledger.reject(third, "again", counts=True, max_attempts=1)
    assert counts(ledger) == {"diverted": 4, "crawled": 2, "queued": 2}
    assert feeds(ledger) == ["third"]


# Failures: halves, and what is dead


def test_what_is_left_when_the_only_attempt_is_used_up_is_dead_with_the_reason(ledger: Ledger) -> None:
    attempt = a_batch(ledger)
    settled = ledger.settle(attempt, receipt(attempt, 0b0001, finish_reason="shutdown"), max_attempts=1)
    assert settled.fate is Fate.AGAIN  # progress: not counted
    attempt, _ = ledger.bind(1, "n1")
    assert ledger.reject(attempt, "another was first", counts=False, max_attempts=1) is Fate.AGAIN
    attempt, _ = ledger.bind(1, "n1")
    assert ledger.reject(attempt, "no receipt: MemoryError", counts=True, max_attempts=1) is Fate.DEAD
    assert counts(ledger) == {"diverted": 4, "crawled": 1, "dead": 3}
    assert ledger.settled()
    assert outcomes(ledger) == [("dead", "no receipt: MemoryError", f"http://a/{number}") for number in (1, 2, 3)]


def test_an_accepted_attempt_without_any_outcome_is_a_failure(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(1))
    early = receipt(attempt, 0, finish_reason="shutdown")
    assert ledger.settle(attempt, early, max_attempts=2).fate is Fate.AGAIN
    attempt, _ = ledger.bind(1, "n1")
    assert ledger.settle(attempt, receipt(attempt, 0, finish_reason="shutdown"), max_attempts=2).fate is Fate.DEAD
    assert outcomes(ledger) == [("dead", "ended early: shutdown", "http://a/0")]


def test_a_batch_that_has_died_twice_goes_out_as_two_halves_that_know_it(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(5))
    ledger.settle(attempt, receipt(attempt, 0b00010, finish_reason="shutdown"), max_attempts=3)
    for fate in (Fate.AGAIN, Fate.HALVED):
        attempt, _ = ledger.bind(1, "n1")
        assert ledger.reject(attempt, "killed", counts=True, max_attempts=3) is fate
    assert counts(ledger) == {"diverted": 5, "crawled": 1, "queued": 4}
    assert all_ready(ledger) == [(2, "n1"), (3, "n1")]
    assert ledger.ready() == [(2, "n1")]  # the first of each node
    with closing(LedgerReader(ledger.path)) as reader:
        whole, *halves = reader.batches(1)
        assert (whole.state, whole.crawled, whole.moved, whole.parent) == ("settled", 1, 4, None)
        assert [(half.parent, half.size, half.state) for half in halves] == [(1, 2, "ready"), (1, 2, "ready")]
        assert reader.children(1, 1) == [2, 3]
        assert list(reader.outcomes(1)) == []
    sent = [decode_payload(ledger.bind(number, "n1")[1]) for number in (2, 3)]
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
    ledger.close_batches([divert(ledger, *range(size))], [])
    deaths, fates = 0, []
    while ready := ledger.ready():
        attempt, payload = ledger.bind(ready[0][0], "n1")
        if f"http://a/{poison}" in decode_payload(payload):
            deaths += 1
            fates.append(ledger.reject(attempt, f"death {deaths}", counts=True, max_attempts=max_attempts))
        else:
            assert ledger.settle(attempt, receipt(attempt), max_attempts=max_attempts).fate is Fate.SETTLED
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
        assert ledger.reject(attempt, "its feed was not stored", counts=False, max_attempts=2) is Fate.AGAIN
        attempt, _ = ledger.bind(1, "n1")
    assert ledger.lose(attempt, "silent", counts=False, max_attempts=2) is Fate.AGAIN
    assert [number for number, _ in ledger.ready()] == [1]


# Orphans


def test_the_orphan_that_is_first_wins_and_the_other_is_fenced(ledger: Ledger) -> None:
    first = a_batch(ledger)
    ledger.sent(first)
    assert ledger.lose(first, "no sign of life", counts=True, max_attempts=3) is Fate.AGAIN
    assert counts(ledger) == {"diverted": 4, "queued": 4}
    second, _ = ledger.bind(1, "n2")
    assert {attempt.state for attempt in ledger.live()} == {AttemptState.UNKNOWN, AttemptState.BOUND}
    assert ledger.settle(first, receipt(first, feeds=(("first", 1),)), max_attempts=3).fate is Fate.SETTLED
    assert counts(ledger) == {"diverted": 4, "crawled": 4}
    late = receipt(second, feeds=(("second", 1),))
    assert ledger.objection(second, late) == ("what it was sent is settled, or in another batch, already", Blame.NOBODY)
    assert ledger.reject(second, "fenced", counts=True, max_attempts=1) is Fate.SETTLED
    assert counts(ledger) == {"diverted": 4, "crawled": 4}
    assert feeds(ledger) == ["first"]


def test_an_orphan_of_a_dead_batch_comes_too_late(ledger: Ledger) -> None:
    first = a_batch(ledger)
    assert ledger.lose(first, "no sign of life", counts=False, max_attempts=1) is Fate.AGAIN
    second, _ = ledger.bind(1, "n2")
    assert ledger.lose(second, "no sign of life", counts=True, max_attempts=1) is Fate.DEAD
    assert counts(ledger) == {"diverted": 4, "dead": 4}
    for attempt in (first, second):
        assert ledger.objection(attempt, receipt(attempt)) is not None
        assert ledger.reject(attempt, "too late", counts=True, max_attempts=1) is Fate.SETTLED
    assert counts(ledger) == {"diverted": 4, "dead": 4}


def test_an_orphan_of_a_halved_batch_comes_too_late(ledger: Ledger) -> None:
    first = a_batch(ledger)
    assert ledger.lose(first, "no sign of life", counts=True, max_attempts=3) is Fate.AGAIN
    second, _ = ledger.bind(1, "n2")
    assert ledger.lose(second, "no sign of life", counts=True, max_attempts=3) is Fate.HALVED
    for attempt in (first, second):
        assert ledger.objection(attempt, receipt(attempt)) is not None
        assert ledger.reject(attempt, "too late", counts=True, max_attempts=3) is Fate.SETTLED
    assert counts(ledger) == {"diverted": 4, "queued": 4}
    assert [number for number, _ in all_ready(ledger)] == [2, 3]


def test_an_orphan_that_ends_does_not_take_the_batch_from_the_attempt_under_way(ledger: Ledger) -> None:
    first = a_batch(ledger)
    ledger.lose(first, "no sign of life", counts=True, max_attempts=3)
    second, _ = ledger.bind(1, "n2")
    ledger.reject(first, "no receipt", counts=True, max_attempts=3)
    assert ledger.ready() == []
    assert counts(ledger) == {"diverted": 4, "in_flight": 4}
    assert ledger.settle(second, receipt(second), max_attempts=3).fate is Fate.SETTLED


def test_a_lost_attempt_that_reports_nothing_is_not_counted_twice(ledger: Ledger) -> None:
    first = a_batch(ledger)
    ledger.lose(first, "no sign of life", counts=True, max_attempts=2)
    second, _ = ledger.bind(1, "n2")
    early = receipt(first, 0, finish_reason="shutdown")
    assert ledger.settle(first, early, max_attempts=2).fate is Fate.AGAIN
    assert counts(ledger) == {"diverted": 4, "in_flight": 4}
    assert ledger.settle(second, receipt(second), max_attempts=2).fate is Fate.SETTLED


def test_a_replacement_is_not_blamed_for_what_an_orphan_has_settled(ledger: Ledger) -> None:
    orphan = a_batch(ledger)
    ledger.sent(orphan)
    ledger.lose(orphan, "silent", counts=True, max_attempts=2)
    replacement, _ = ledger.bind(orphan.batch, "n2")
    ledger.sent(replacement)
    assert ledger.settle(orphan, receipt(orphan, 0b11), max_attempts=2).fate is Fate.AGAIN
    objected = ledger.objection(replacement, receipt(replacement))
    assert objected is not None
    assert objected[1] is Blame.NOBODY
    assert ledger.reject(replacement, objected[0], counts=False, max_attempts=2) is Fate.AGAIN
    assert ledger.balance().queued == 2


# Failed requests that are tried on another node


def test_failed_requests_are_tried_on_another_node_once(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(6))
    report = receipt(attempt, failed={"dns": [1, 4], "timeout": [5]}, again=0b110010)
    settlement = ledger.settle(attempt, report, max_attempts=3, again=0b010010)
    assert (settlement.fate, settlement.again) == (Fate.SETTLED, 2)
    assert counts(ledger) == {"diverted": 6, "crawled": 3, "failed": 1, "queued": 2}
    assert ledger.queued() == []
    assert not ledger.settled()
    assert not ledger.posted()
    assert ledger.close_again(2, all_of_it=False) == 1
    assert ledger.ready() == [(2, "n1")]
    second, payload = ledger.bind(2, "n2")
    assert decode_payload(payload) == ["http://a/1", "http://a/4"]
    report = receipt(second, failed={"dns": [0, 1]}, again=0b11)
    assert ledger.settle(second, report, max_attempts=3, again=0b11).again == 0
    assert counts(ledger) == {"diverted": 6, "crawled": 3, "failed": 3}
    assert ledger.close_again(1, all_of_it=True) == 0
    assert ledger.settled()
    assert [url for _, _, url in outcomes(ledger)] == ["http://a/5", "http://a/1", "http://a/4"]


def test_halves_of_what_was_tried_elsewhere_are_not_tried_a_third_time(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(2))
    ledger.settle(attempt, receipt(attempt, failed={"dns": [0, 1]}, again=0b11), max_attempts=2, again=0b11)
    ledger.close_again(9, all_of_it=True)
    for _ in range(2):
        attempt, _ = ledger.bind(2, "n2")
        ledger.reject(attempt, "killed", counts=True, max_attempts=2)
    assert all_ready(ledger) == [(3, "n2"), (4, "n2")]
    attempt, _ = ledger.bind(3, "n2")
    assert ledger.settle(attempt, receipt(attempt, failed={"dns": [0]}, again=1), max_attempts=2, again=1).again == 0


def test_only_what_a_receipt_allows_is_tried_again_also_of_a_second_attempt(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(4))
    ledger.settle(attempt, receipt(attempt, 0b0101, finish_reason="shutdown"), max_attempts=3)
    attempt, _ = ledger.bind(1, "n2")  # requests 1 and 3
    report = receipt(attempt, failed={"dns": [0, 1]}, again=0b10)
    assert ledger.settle(attempt, report, max_attempts=3, again=0b11).again == 1
    assert ledger.close_again(1, all_of_it=False) == 1
    assert decode_payload(ledger.bind(2, "n1")[1]) == ["http://a/3"]
    assert outcomes(ledger) == [("failed", "dns", "http://a/1")]


def test_what_is_to_be_tried_again_is_closed_by_node_and_size_and_survives_a_restart(
    ledger: Ledger, path: Path
) -> None:
    for number, (node, size) in enumerate([("n1", 3), ("n2", 2), ("n1", 2)], start=1):
        first = number * 10
        ledger.close_batches([divert(ledger, *range(first, first + size))], [])
        attempt, _ = ledger.bind(number, node)
        everything = (1 << size) - 1
        failed = receipt(attempt, failed={"dns": list(range(size))}, again=everything)
        assert ledger.settle(attempt, failed, max_attempts=3, again=everything).again == size
    open_request = divert(ledger, 1)
    ledger.close()
    with closing(Ledger(path)) as again:
        again.begin(IDENTITY, resume=True)
        assert again.queued() == open_request
        assert divert(again, 10, 20) == []
        assert again.close_again(6, all_of_it=False) == 0
        assert again.close_again(4, all_of_it=False) == 2  # of n1: 4 and the rest
        assert all_ready(again) == [(4, "n1"), (5, "n1")]
        assert again.close_again(4, all_of_it=True) == 1
        assert all_ready(again) == [(4, "n1"), (5, "n1"), (6, "n2")]
        assert again.ready() == [(4, "n1"), (6, "n2")]
        sent = [len(decode_payload(again.bind(number, "n3")[1])) for number in (4, 5, 6)]
        assert sent == [4, 1, 2]
        assert again.queued() == open_request
        assert counts(again) == {"diverted": 8, "duplicates": 2, "queued": 1, "in_flight": 7}


# Targets that workers find


def test_found_targets_are_queued_once_and_known_ones_are_duplicates(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(2))
    ledger.settle(attempt, receipt(attempt), max_attempts=3, found=iter(found_of((7, 0, 8, 7), (8, 1))))
    assert counts(ledger) == {"diverted": 8, "crawled": 2, "queued": 6}  # until somebody has looked at them
    assert ledger.divert_found() == (4, [body(7), body(8)])
    assert not ledger.settled()
    assert ledger.divert_found() == (2, [])
    assert ledger.divert_found() is None
    assert ledger.queued() == [body(7), body(8)]
    assert counts(ledger) == {"diverted": 4, "duplicates": 4, "crawled": 2, "queued": 2}
    assert divert(ledger, 8) == []
    assert not ledger.settled()


def test_a_run_is_not_over_while_found_targets_wait(ledger: Ledger, path: Path) -> None:
    attempt = a_batch(ledger, *range(2))
    ledger.walked()
    ledger.settle(attempt, receipt(attempt), max_attempts=3, found=found_of((0, 1)))
    assert (ledger.settled(), ledger.posted(), ledger.end()) == (False, False, False)
    ledger.close()
    with closing(Ledger(path)) as again:  # as after kill -9
        again.begin(IDENTITY, resume=True)
        assert again.divert_found() == (2, [])
        assert (again.settled(), again.posted(), again.end()) == (True, True, True)


def test_found_targets_that_are_damaged_are_told(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(2))
    ledger.settle(attempt, receipt(attempt), max_attempts=3, found=found_of((0, 1)))
    for damaged in (b"", b"x", zlib.compress(b"no hex"), zlib.compress(b"\xff")):
        ledger._db.execute("UPDATE found SET packed = ?", (damaged,))
        with pytest.raises(LedgerUnavailableError, match="damaged: targets that were found"):
            ledger.divert_found()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT ON found", "INSERT ON queued", "INSERT ON outcome",
        "UPDATE OF state ON attempt", "UPDATE OF settled ON batch",
    ],
)  # fmt: skip
def test_found_targets_are_in_the_ledger_if_and_only_if_their_finder_is_accepted(
    ledger: Ledger, statement: str
) -> None:
    attempt = a_batch(ledger, *range(4))
    divert(ledger, 5)
    before = dump(ledger)
    report = receipt(attempt, failed={"dns": [1]}, filtered={"offsite": [2]}, again=0b10)
    found = found_of((5, 7, 8))
    ledger._db.execute(f"CREATE TEMP TRIGGER no BEFORE {statement} BEGIN SELECT RAISE(ABORT, 'no luck'); END")
    for _ in range(2):
        with pytest.raises(LedgerUnavailableError, match="no luck"):
            ledger.settle(attempt, report, max_attempts=3, found=found, again=0b10)
        assert dump(ledger) == before
        assert not ledger._db.in_transaction
    ledger._db.execute("DROP TRIGGER no")
    settlement = ledger.settle(attempt, report, max_attempts=3, found=found, again=0b10)
    assert settlement.again == 1
    assert ledger.divert_found() == (3, [body(7), body(8)])
    expected = {"diverted": 7, "duplicates": 1, "crawled": 2, "filtered": 1, "queued": 4}
    assert counts(ledger) == expected


# Trying again what has failed


def test_a_retry_reopens_the_run_with_the_dead_and_the_failed_alone(ledger: Ledger, path: Path) -> None:
    attempt = a_batch(ledger, *range(6))
    report = receipt(attempt, 0b001111, failed={"http 503": [0], "callback": [1]}, filtered={"offsite": [2]},
                     again=0b1, finish_reason="shutdown")  # fmt: skip
    ledger.settle(attempt, report, max_attempts=1)
    attempt, _ = ledger.bind(1, "n1")
    assert ledger.reject(attempt, "killed", counts=True, max_attempts=1) is Fate.DEAD
    ledger.walked()
    assert ledger.end()
    name = ledger.run
    ledger.close()
    with closing(Ledger(path)) as retried:
        assert retried.retry(lambda state, reason: reason == "http 404") == (0, 0)
    with closing(Ledger(path)) as retried:
        assert retried.retry(lambda state, reason: state in ("dead", "failed")) == (3, 1)  # the callback had begun
        assert retried.run == name
        assert counts(retried) == {"diverted": 6, "crawled": 1, "failed": 1, "filtered": 1, "queued": 3}
        assert retried.retry(lambda state, reason: True) == (0, 1)
    with closing(Ledger(path)) as again:
        assert not again.begin(IDENTITY, resume=True)  # its walk is done
        assert again.run == name
        assert divert(again, 0, 5) == []
        retried_urls = []
        new = all_ready(again)
        for number, avoid in new:
            assert avoid is None
            attempt, payload = again.bind(number, "n1")
            retried_urls += decode_payload(payload)
            assert again.settle(attempt, receipt(attempt), max_attempts=1).fate is Fate.SETTLED
        assert sorted(retried_urls) == ["http://a/0", "http://a/4", "http://a/5"]
        assert counts(again) == {"diverted": 6, "duplicates": 2, "crawled": 4, "failed": 1, "filtered": 1}
        assert again.end()
        with closing(LedgerReader(path)) as reader:
            assert reader.children(1, 1) == [number for number, _ in new]
            assert reader.batches(1)[0].moved == 3


def test_a_retry_of_many_batches_makes_as_large_ones(ledger: Ledger) -> None:
    for number in range(1, 5):
        first = number * 10
        ledger.close_batches([divert(ledger, *range(first, first + 3))], [])
        attempt, _ = ledger.bind(number, "n1")
        report = receipt(attempt, failed={"dns": [0, 2]}, again=0b101)
        ledger.settle(attempt, report, max_attempts=1)
    assert ledger.retry(lambda state, reason: True) == (8, 0)
    assert counts(ledger) == {"diverted": 12, "crawled": 4, "queued": 8}
    sent = [decode_payload(ledger.bind(number, "n1")[1]) for number, _ in all_ready(ledger)]
    assert [len(urls) for urls in sent] == [3, 3, 2]
    expected = [f"http://a/{number * 10 + position}" for number in range(1, 5) for position in (0, 2)]
    assert [url for urls in sent for url in urls] == expected


def test_a_retry_of_some_reasons_leaves_the_others(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(4))
    report = receipt(attempt, failed={"dns": [0, 3], "http 500": [1]}, again=0b1011)
    ledger.settle(attempt, report, max_attempts=1)
    assert ledger.retry(lambda state, reason: reason == "dns") == (2, 0)
    assert outcomes(ledger) == [("failed", "http 500", "http://a/1")]
    assert counts(ledger) == {"diverted": 4, "crawled": 1, "failed": 1, "queued": 2}


def test_a_retry_works_while_the_batch_is_still_under_way(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(3))
    report = receipt(attempt, 0b001, failed={"dns": [0]}, again=0b1, finish_reason="shutdown")
    ledger.settle(attempt, report, max_attempts=2)
    second, _ = ledger.bind(1, "n1")
    assert ledger.retry(lambda state, reason: True) == (1, 0)
    assert counts(ledger) == {"diverted": 3, "queued": 1, "in_flight": 2}
    assert ledger.settle(second, receipt(second), max_attempts=2).fate is Fate.SETTLED
    assert counts(ledger) == {"diverted": 3, "queued": 1, "crawled": 2}


def test_there_is_nothing_to_try_again_in_a_new_ledger(path: Path) -> None:
    with closing(Ledger(path)) as ledger, pytest.raises(LedgerError, match="no run in it"):
        ledger.retry(lambda state, reason: True)


def test_stats_of_workers_are_summed_and_maxima_are_not(ledger: Ledger) -> None:
    for number in range(2):
        ledger.close_batches([divert(ledger, number)], [])
        attempt, _ = ledger.bind(number + 1, "n")
        stats = {"pages": 2 + number, "request_depth_max": 3 - number, "memusage/max": 10 * (number + 1)}
        stats |= {"items_per_minute": 120.0, "responses_per_minute": 60.0}
        ledger.settle(attempt, receipt(attempt, stats=stats), max_attempts=1)
    assert ledger.worker_stats() == {"pages": 5, "request_depth_max": 3, "memusage/max": 20}


# The run


def test_the_same_identity_resumes_and_another_is_another_run(ledger: Ledger, path: Path) -> None:
    name = ledger.run
    attempt = a_batch(ledger)
    divert(ledger, 7)
    ledger.close()
    with closing(Ledger(path)) as again:
        assert again.begin(dict(reversed(IDENTITY.items())), resume=True)  # not walked: the start runs again
        assert again.run == name
        assert [(a.job, a.node, a.positions) for a in again.live()] == [(attempt.job, "n1", attempt.positions)]
        assert again.queued() == [body(7)]
        assert divert(again, 7, 8) == [body(8)]
        assert counts(again) == {"diverted": 6, "duplicates": 1, "queued": 2, "in_flight": 4}
        again.walked()
    with closing(Ledger(path)) as other:
        assert other.begin(IDENTITY | {"arguments": "x"}, resume=True)
        assert other.run != name
        assert divert(other, 7) == [body(7)]
        assert counts(other) == {"diverted": 1, "queued": 1}
        assert other.live() == []
        assert other.ready() == []
    with closing(Ledger(path)) as again:
        assert not again.begin(IDENTITY, resume=True)  # walked
        assert again.run == name


def test_a_run_that_is_over_is_not_resumed(ledger: Ledger, path: Path) -> None:
    attempt = a_batch(ledger)
    ledger.walked()
    assert not ledger.end()
    ledger.settle(attempt, receipt(attempt), max_attempts=1)
    assert ledger.end()
    ledger.close()
    with closing(Ledger(path)) as again:
        assert again.begin(IDENTITY, resume=True)
        assert again.run != ledger.run
        assert divert(again, 0) == [body(0)]


def test_resume_false_starts_afresh(ledger: Ledger, path: Path) -> None:
    divert(ledger, 1)
    ledger.close()
    with closing(Ledger(path)) as again:
        assert again.begin(IDENTITY, resume=False)
        assert again.run != ledger.run
        assert divert(again, 1) == [body(1)]


def test_a_page_that_fails_half_way_into_the_ledger_is_not_in_it(ledger: Ledger) -> None:
    def requests() -> Iterator[tuple[bytes, str]]:
        yield key(1), body(1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ledger.divert(requests())
    assert counts(ledger) == {}
    assert divert(ledger, 1) == [body(1)]
    assert counts(ledger) == {"diverted": 1, "queued": 1}


def test_occurrences_are_counted_from_the_opening(ledger: Ledger, path: Path) -> None:
    assert [ledger.occurrence(key(1)), ledger.occurrence(key(2)), ledger.occurrence(key(1))] == [1, 1, 2]
    ledger.close()
    with closing(Ledger(path)) as again:
        assert again.occurrence(key(1)) == 1


def test_a_closed_ledger_leaves_no_scratch_behind(ledger: Ledger, path: Path) -> None:
    divert(ledger, 1)
    ledger.close()
    assert {file.name for file in path.parent.iterdir()} - {"s.sqlite.lock"} == {"s.sqlite"}


def test_a_run_that_nobody_waits_for_is_over_when_all_is_posted(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        assert ledger.begin(IDENTITY, resume=True, wait=False)
        attempt = a_batch(ledger)
        ledger.walked()
        first = ledger.run
        assert not ledger.begin(IDENTITY, resume=True, wait=False)  # the job may not have been posted
        ledger.sent(attempt)
        assert ledger.begin(IDENTITY, resume=True, wait=False)
        assert ledger.run != first


def test_a_walk_that_goes_on_is_walked_again(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        ledger.walked()
        assert not ledger.begin(IDENTITY, resume=True)
        ledger.walk_on()
        assert ledger.begin(IDENTITY, resume=True)
        assert ledger.others() == []


def test_other_unfinished_runs_are_named(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        first = ledger.run
        ledger.begin({**IDENTITY, "arguments": "other"}, resume=True)
        assert ledger.others() == [first]


# Who may use the file


def test_a_second_coordinator_is_refused_with_the_name_of_the_file(ledger: Ledger, path: Path) -> None:
    with pytest.raises(LedgerError, match=r"s\.sqlite: another coordinator is using this ledger"):
        Ledger(path)
    divert(ledger, 1)
    ledger.close()
    Ledger(path).close()


def foreign(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: foreign(path, "CREATE TABLE mine (a)"), "no ledger of ours"),
        (lambda path: foreign(path, "PRAGMA application_id = 7"), "no ledger of ours"),
        (
            lambda path: foreign(path, f"PRAGMA application_id = {APPLICATION}", f"PRAGMA user_version = {FORMAT + 1}"),
            f"format {FORMAT + 1}",
        ),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"rubbish" * 1000), "can't be"),
        (lambda path: path.write_bytes(b"a text\n" * 1000), "can't be"),
        (lambda path: path.mkdir(), "can't be"),
    ],
    ids=["tables", "application", "newer", "damaged", "text", "folder"],
)
def test_a_file_that_is_no_ledger_is_refused_and_unchanged(path: Path, make: Any, message: str) -> None:
    path.parent.mkdir()
    make(path)
    before = path.read_bytes() if path.is_file() else None
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"s\.sqlite: ") as caught:
            Ledger(path)
        assert message in str(caught.value)
        assert "DISTRIBUTED_LEDGER" in str(caught.value)
        with pytest.raises(LedgerError, match=r"s\.sqlite: "):
            LedgerReader(path)
        assert (path.read_bytes() if path.is_file() else None) == before


def test_a_reader_of_nothing_is_told_so_and_makes_no_file(path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger there"):
        LedgerReader(path)
    assert not path.parent.exists()


def test_a_reader_reads_while_the_coordinator_writes(ledger: Ledger, path: Path) -> None:
    with closing(LedgerReader(path)) as reader:
        assert reader.balance(1).diverted == 0
        attempt = a_batch(ledger)
        assert (reader.balance(1).in_flight, reader.balance(1).holds) == (attempt.size, True)
        with ledger._transaction():
            assert reader.balance(1).holds
        (run,) = reader.runs()
        assert (run.name, run.identity, run.walked, run.ended) == (ledger.run, IDENTITY, None, None)
        (batch,) = reader.batches(1)
        assert (batch.state, batch.size, batch.node, batch.attempts) == ("in flight", attempt.size, "n1", 1)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM request")


# Crash


CHILD = """
import itertools, sys
from ledgers import IDENTITY, Ledger, body, key, receipt
ledger = Ledger(sys.argv[1])
ledger.begin(IDENTITY, resume=True)
last = int(sys.argv[2])
for number in itertools.count(last):
    print("key", number, flush=True)  # about to be diverted; the one before is durable
    ledger.divert([(key(number), body(number)), (key(number // 2), body(number // 2))])
    if number % 3 == 0:
        ledger.close_batches([ledger.queued()], [])
    while number % 5 == 0 and (ready := ledger.ready()):
        attempt, payload = ledger.bind(ready[0][0], "n")
        print("bound", attempt.job, flush=True)
        ledger.sent(attempt)
    if number % 4 == 0:
        for attempt in ledger.live():
            if attempt.batch % 2:
                ledger.settle(attempt, receipt(attempt), max_attempts=3)
            elif attempt.batch % 3:
                ledger.reject(attempt, "no", counts=True, max_attempts=2)
"""


def test_a_kill_at_any_moment_loses_nothing(path: Path) -> None:
    diverted, bound = 0, set()
    for kill_after in (1, 7, 40, 41, 90):
        command = [sys.executable, "-c", CHILD, str(path), str(diverted)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            assert child.stdout is not None
            for _, line in zip(range(kill_after), child.stdout, strict=False):
                what, value = line.split()
                diverted = int(value) if what == "key" else diverted
                bound |= {value} if what == "bound" else set()
            child.kill()
            assert child.wait() == -signal.SIGKILL
        with closing(Ledger(path)) as ledger:
            assert ledger.begin(IDENTITY, resume=True)
            assert ledger.balance().holds
            known = {row[0] for row in ledger._db.execute("SELECT key FROM request")}
            assert {key(number) for number in range(diverted)} <= known
            attempts = ledger._db.execute("SELECT batch, number, token FROM attempt")
            jobs = {f"{ledger.run}-{batch:06d}-{number}-{token}" for batch, number, token in attempts}
            assert bound <= jobs
            assert ledger._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# Durability


def begun(ledger: Ledger) -> None:
    pass


def with_an_attempt(ledger: Ledger) -> Attempt:
    return a_batch(ledger)


def with_something_to_try_again(ledger: Ledger) -> None:
    attempt = a_batch(ledger)
    ledger.settle(attempt, receipt(attempt, failed={"dns": [0, 1]}, again=0b11), max_attempts=3, again=0b11)


def with_failures(ledger: Ledger) -> None:
    attempt = a_batch(ledger)
    ledger.settle(attempt, receipt(attempt, failed={"dns": [0, 1]}, again=0b11), max_attempts=3)


def failed_once(ledger: Ledger) -> Attempt:
    attempt = a_batch(ledger)
    ledger.reject(attempt, "killed", counts=True, max_attempts=3)
    return ledger.bind(1, "n2")[0]


def settle(ledger: Ledger, attempt: Attempt) -> Any:
    report = receipt(attempt, 0b0111, failed={"dns": [0]}, filtered={"offsite": [1]}, again=1, finish_reason="shutdown")
    return ledger.settle(attempt, report, max_attempts=3, found=found_of((0, 9)), again=1)


OTHER = IDENTITY | {"arguments": "other"}
# Name: what goes before, the transition, whether it survives a power cut at once.
TRANSITIONS: dict[str, tuple[Callable[[Ledger], Any], Callable[[Ledger, Any], Any], bool]] = {
    "begin": (begun, lambda ledger, _: ledger.begin(OTHER, resume=True), True),
    "begin afresh": (begun, lambda ledger, _: ledger.begin(IDENTITY, resume=False), True),
    "divert": (begun, lambda ledger, _: divert(ledger, 1, 2, 1), False),
    "close_batches": (
        lambda ledger: divert(ledger, 1, 2, 3),
        lambda ledger, bodies: ledger.close_batches([bodies[:2]], bodies[2:]),
        False,
    ),
    "close_again": (with_something_to_try_again, lambda ledger, _: ledger.close_again(1, all_of_it=True), False),
    "bind": (
        lambda ledger: ledger.close_batches([divert(ledger, 1, 2)], []), lambda ledger, _: ledger.bind(1, "n1"), True,
    ),
    "sent": (with_an_attempt, lambda ledger, attempt: ledger.sent(attempt), False),
    "unsent": (with_an_attempt, lambda ledger, attempt: ledger.unsent(attempt, "refused"), False),
    "lose": (with_an_attempt, lambda ledger, it: ledger.lose(it, "silent", counts=True, max_attempts=3), False),
    "reject": (with_an_attempt, lambda ledger, it: ledger.reject(it, "killed", counts=True, max_attempts=3), False),
    "reject and halve": (
        failed_once, lambda ledger, it: ledger.reject(it, "killed", counts=True, max_attempts=3), False,
    ),
    "reject and bury": (
        with_an_attempt, lambda ledger, it: ledger.reject(it, "killed", counts=True, max_attempts=1), False,
    ),
    "settle": (with_an_attempt, settle, True),
    "divert_found": (
        lambda ledger: settle(ledger, with_an_attempt(ledger)), lambda ledger, _: ledger.divert_found(), False,
    ),
    "retry": (with_failures, lambda ledger, _: ledger.retry(lambda state, reason: True), True),
    "walked": (begun, lambda ledger, _: ledger.walked(), False),
    "walk_on": (lambda ledger: ledger.walked(), lambda ledger, _: ledger.walk_on(), True),
    "end": (lambda ledger: ledger.walked(), lambda ledger, _: ledger.end(), False),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSITIONS)
def test_what_is_sent_or_accepted_is_synced_and_the_rest_costs_no_sync(ledger: Ledger, name: str) -> None:
    prepare, transition, durable = TRANSITIONS[name]
    prepared = prepare(ledger)
    level, levels = "NORMAL", set()

    def trace(statement: str) -> None:
        nonlocal level
        if statement.startswith("PRAGMA synchronous = "):
            level = statement.rpartition(" ")[2]
        elif statement.startswith(("BEGIN", "INSERT", "UPDATE", "DELETE", "COMMIT")):
            levels.add(level)

    ledger._db.set_trace_callback(trace)
    transition(ledger, prepared)
    ledger._db.set_trace_callback(None)
    assert levels == {"FULL" if durable else "NORMAL"}
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (1,)  # NORMAL again
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@contextmanager
def full_disk(ledger: Ledger, table: str) -> Iterator[None]:
    """The file can't grow, and whatever is written to *table* makes it."""
    db = ledger._db
    db.execute("CREATE TABLE filler (data BLOB)")
    for what in ("INSERT", "UPDATE", "DELETE"):
        db.execute(
            f"CREATE TEMP TRIGGER fill_{what} AFTER {what} ON main.{table}"
            " BEGIN INSERT INTO filler VALUES (zeroblob(100000)); END"
        )
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        db.execute("PRAGMA max_page_count = 1000000")
        for what in ("INSERT", "UPDATE", "DELETE"):
            db.execute(f"DROP TRIGGER fill_{what}")
        db.execute("DROP TABLE filler")


@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_full_disk_leaves_the_ledger_as_it_was_and_later_all_goes_on(tmp_path: Path, name: str) -> None:
    """The disk is full at the first write to each of the tables; *twin* is a ledger whose disk never was."""
    prepare, transition, _ = TRANSITIONS[name]
    failures = []
    for table in (*TABLES, "request"):
        path, twin_path = tmp_path / f"{table}.sqlite", tmp_path / f"{table}_twin.sqlite"
        with closing(Ledger(path)) as ledger, closing(Ledger(twin_path)) as twin:
            for each in (ledger, twin):
                each.begin(IDENTITY, resume=True)
            prepared, expected = prepare(ledger), transition(twin, prepare(twin))
            before = dump(ledger)
            error: Exception | None = None
            with full_disk(ledger, table):
                try:
                    transition(ledger, prepared)
                except (LedgerUnavailableError, LedgerError) as raised:
                    error = raised
            if error is not None:
                failures.append(str(error))
                assert not ledger._db.in_transaction
                assert ledger._db.execute("PRAGMA synchronous").fetchone() == (1,)
                assert dump(ledger) == before
                assert same(transition(ledger, prepared), expected)
            assert shape(ledger) == shape(twin)
        with closing(Ledger(path)) as again:
            again.begin(OTHER if name == "begin" else IDENTITY, resume=True)
            assert again.balance().holds
    assert failures
    assert all("disk is full" in failure for failure in failures)


def same(one: Any, other: Any) -> bool:
    """Whether two results differ in nothing but the name of the run and the tokens."""
    if isinstance(one, tuple) and one and isinstance(one[0], Attempt):
        bare = [replace(attempt, run="", token="") for attempt in (one[0], other[0])]
        return bool(bare[0] == bare[1] and one[1:] == other[1:])
    return bool(one == other)


def shape(ledger: Ledger) -> Any:
    """What two ledgers with the same history have in common."""
    rows = dump(ledger)
    own = {"run": (1, 3, 4, 5), "attempt": (3, 8, 9)}  # names, tokens, times
    return {
        table: [tuple(value is None if at in own.get(table, ()) else value for at, value in enumerate(row))
                for row in rows[table]]
        for table in rows
    }  # fmt: skip


def on_disk(ledger: Ledger) -> None:
    """Give *ledger* a seen-set that has next to nothing in memory."""
    ledger._seen.close()
    ledger._seen = Seen(ledger.path.parent, memory_bytes=BUCKET_BYTES)


def test_a_full_disk_of_the_seen_set_makes_no_duplicates_and_forgets_nothing(ledger: Ledger) -> None:
    on_disk(ledger)
    divert(ledger, *range(100))
    for room in (4_096, 10_000, 50_000):
        with file_limit(room), pytest.raises(LedgerUnavailableError, match="scratch file"):
            divert(ledger, *range(50, 5000))
        assert ledger.balance().diverted == 100
        assert divert(ledger, 0, 99) == []
    assert len(divert(ledger, *range(50, 5000))) == 4900
    assert counts(ledger) == {"diverted": 5000, "duplicates": 56, "queued": 5000}


def test_a_resumed_run_whose_keys_find_no_room_is_refused_with_a_sentence(ledger: Ledger, path: Path) -> None:
    divert(ledger, *range(1000))
    ledger.close()
    refused = pytest.raises(LedgerError, match=r"can't be used as ledger: .*(large|space)")
    with closing(Ledger(path)) as again, file_limit(20_000), refused:
        on_disk(again)
        again.begin(IDENTITY, resume=True)


@pytest.mark.parametrize("statement", [READY, UNSETTLED, UNPOSTED])
def test_what_is_asked_at_every_look_does_not_walk_through_what_is_settled(ledger: Ledger, statement: str) -> None:
    plan = [row[3] for row in ledger._db.execute(f"EXPLAIN QUERY PLAN {statement}", {"run": 1})]
    assert [line for line in plan if "batch" in line and "INDEX batch_open" not in line] == []
    assert [line for line in plan if "attempt" in line and "INDEX attempt_live" not in line] == []
    assert any("batch_open" in line for line in plan)


def history(ledger: Ledger, seed: int) -> Iterator[bool]:
    """Transitions of every kind, in an order that *seed* decides; yields after each whether it is durable."""
    chance = random.Random(seed)
    yield ledger.begin(IDENTITY, resume=True)
    for step in range(30):
        divert(ledger, *(chance.randrange(300) for _ in range(chance.randrange(1, 12))))
        yield False
        bodies = ledger.queued()
        if chance.random() < 0.7:
            ledger.close_batches([bodies[:-1]] if bodies[:-1] else [], bodies[-1:])
            yield False
        if ledger.close_again(3, all_of_it=step > 25):
            yield False
        for number, _ in ledger.ready()[:2]:
            attempt, _ = ledger.bind(number, chance.choice(["n1", "n2"]))
            yield True
            ledger.sent(attempt)
            yield False
        for attempt in chance.sample(live := ledger.live(), min(2, len(live))):
            yield end(ledger, attempt, chance)
        if step == 20:
            ledger.retry(lambda state, reason: True)
            yield True


def end(ledger: Ledger, attempt: Attempt, chance: random.Random) -> bool:
    everything = (1 << attempt.size) - 1
    report = receipt(attempt, everything, failed={"dns": [0]}, again=1)
    if chance.random() < 0.5 and not ledger.objection(attempt, report):
        found = found_of(range(300 + attempt.batch, 303 + attempt.batch))
        ledger.settle(attempt, report, max_attempts=3, found=found, again=chance.randrange(2))
        return True
    if chance.random() < 0.5 and attempt.state is not AttemptState.UNKNOWN:
        ledger.lose(attempt, "silent", counts=True, max_attempts=3)
    else:
        ledger.reject(attempt, "killed", counts=True, max_attempts=3)
    return False


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_at_any_moment_leaves_what_was_durable_and_no_half_transition(tmp_path: Path, seed: int) -> None:
    """What a power cut leaves of a write-ahead log is a beginning of it: each frame is checksummed with those before,
    and what was synced is in it. So the log is cut off at any length."""
    path = tmp_path / "s.sqlite"
    log = path.with_name("s.sqlite-wal")
    with closing(Ledger(path)) as ledger:
        moments = [(log.stat().st_size if log.exists() else 0, dump(ledger), False)]
        for durable in history(ledger, seed):
            moments.append((log.stat().st_size, dump(ledger), durable))
        database, written = path.read_bytes(), log.read_bytes()
    assert sum(durable for *_, durable in moments) > 20
    assert len(written) == moments[-1][0]  # no checkpoint in between
    chance = random.Random(seed)
    lengths = {moments[chance.randrange(len(moments))][0] + shift for shift in (-1, 0, 1) for _ in range(6)}
    lengths |= {chance.randrange(len(written) + 1) for _ in range(12)} | {0, 31, len(written)}
    for number, length in enumerate(sorted(max(0, length) for length in lengths)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "s.sqlite").write_bytes(database)
        (folder / "s.sqlite-wal").write_bytes(written[:length])
        before = [moment for moment in moments if moment[0] <= length]
        with closing(Ledger(folder / "s.sqlite")) as left:
            assert dump(left) == before[-1][1]
            assert left._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert left.begin(IDENTITY, resume=True)
            assert left.balance().holds
            while left.divert_found() is not None:
                pass
            known = left.balance().diverted
            assert len(divert(left, *range(400))) == 400 - known  # the walk runs again, and finds the rest
            assert left.balance().diverted == 400
            assert left.balance().holds


# Any order


class AnyOrder(RuleBasedStateMachine):
    """Plays every transition in any order that a coordinator can come to: halves, orphans, other nodes, retries."""

    MAX_ATTEMPTS = 2

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = Ledger(self.folder / "s.sqlite")
        self.ledger.begin(IDENTITY, resume=True)
        self.open: list[str] = []
        self.keys: set[int] = set()
        self.crawled: Counter[str] = Counter()
        self.tried_again: Counter[str] = Counter()

    def teardown(self) -> None:
        try:
            self.close(keep=0)
            self.ledger.close_again(5, all_of_it=True)
            for _ in range(1000):
                for attempt in self.ledger.live():
                    self.ledger.reject(attempt, "the end", counts=True, max_attempts=self.MAX_ATTEMPTS)
                ready = self.ledger.ready()
                if not ready:
                    break
                self.ledger.bind(ready[0][0], "last")
            self.holds()
            assert self.ledger.settled()
            assert self.ledger.balance().settled
        finally:
            self.ledger.close()
            shutil.rmtree(self.folder)

    @rule(numbers=st.lists(st.integers(0, 60), max_size=8))
    def divert(self, numbers: list[int]) -> None:
        new = divert(self.ledger, *numbers)
        self.open += new
        assert len(new) == len(set(numbers) - self.keys)
        self.keys |= set(numbers)

    @rule(keep=st.integers(0, 3))
    def close(self, keep: int) -> None:
        middle = max(0, len(self.open) - keep)
        closed, self.open = self.open[:middle], self.open[middle:]
        middle = len(closed) // 2
        self.ledger.close_batches([part for part in (closed[:middle], closed[middle:]) if part], self.open)

    @rule(size=st.integers(1, 4), all_of_it=st.booleans())
    def close_again(self, size: int, all_of_it: bool) -> None:
        made = self.ledger.close_again(size, all_of_it=all_of_it)
        (left,) = self.ledger._db.execute("SELECT count(*) FROM queued WHERE avoid IS NOT NULL").fetchone()
        assert not (all_of_it and left)
        assert made >= 0

    @precondition(lambda self: bool(self.ledger.ready()))
    @rule(node=st.sampled_from(["n1", "n2"]))
    def bind(self, node: str) -> None:
        ready = self.ledger.ready()
        assert ready
        attempt, payload = self.ledger.bind(ready[0][0], node)
        assert len(decode_payload(payload)) == attempt.size > 0

    def pick(self, data: st.DataObject, *states: AttemptState) -> Attempt | None:
        live = [attempt for attempt in self.ledger.live() if attempt.state in states]
        return data.draw(st.sampled_from(live)) if live else None

    @rule(data=st.data())
    def sent(self, data: st.DataObject) -> None:
        if attempt := self.pick(data, AttemptState.BOUND):
            self.ledger.sent(attempt)

    @rule(data=st.data())
    def unsent(self, data: st.DataObject) -> None:
        if attempt := self.pick(data, AttemptState.BOUND, AttemptState.UNKNOWN):
            self.ledger.unsent(attempt, "refused")

    def check(self, fate: Fate, attempt: Attempt, *, counted: bool) -> None:
        assert counted or fate in (Fate.AGAIN, Fate.SETTLED)
        ready = [number for number, _ in self.ledger._db.execute("SELECT number, 0 FROM batch WHERE state = 'ready'")]
        if fate is Fate.AGAIN:
            others = [live.batch for live in self.ledger.live() if live.state is not AttemptState.UNKNOWN]
            assert (attempt.batch in ready) != (attempt.batch in others)
        else:
            assert attempt.batch not in ready

    @rule(data=st.data(), counted=st.booleans())
    def lose(self, data: st.DataObject, counted: bool) -> None:
        if attempt := self.pick(data, AttemptState.BOUND, AttemptState.SENT):
            fate = self.ledger.lose(attempt, "silent", counts=counted, max_attempts=self.MAX_ATTEMPTS)
            self.check(fate, attempt, counted=counted)

    @rule(data=st.data(), counted=st.booleans())
    def reject(self, data: st.DataObject, counted: bool) -> None:
        if attempt := self.pick(data, *AttemptState):
            fate = self.ledger.reject(attempt, "no receipt", counts=counted, max_attempts=self.MAX_ATTEMPTS)
            self.check(fate, attempt, counted=counted and attempt.state is not AttemptState.UNKNOWN)

    @rule(
        data=st.data(), clean=st.booleans() | st.just(True), stored=st.booleans() | st.just(True),
        found=st.lists(st.integers(0, 60), max_size=3),
    )  # fmt: skip
    def settle(self, data: st.DataObject, clean: bool, stored: bool, found: list[int]) -> None:
        attempt = self.pick(data, *AttemptState)
        if attempt is None:
            return
        everything = (1 << attempt.size) - 1
        settled = data.draw(st.just(everything) | st.integers(0, everything))
        outcomes: dict[str, list[int]] = {"crawled": [], "failed": [], "filtered": []}
        for position in bits(settled):
            outcomes[data.draw(st.sampled_from(["crawled", *outcomes]))].append(position)
        failed = sum(1 << position for position in outcomes["failed"])
        may, wanted = failed & data.draw(st.integers(0, everything)), data.draw(st.integers(0, everything))
        report = receipt(attempt, settled, clean=clean, stored=stored, failed={"dns": outcomes["failed"]},
                         filtered={"offsite": outcomes["filtered"]}, again=may)  # fmt: skip
        elements = self.elements(attempt.batch)
        own = list(bits(attempt.positions))
        before = self.ledger.balance()
        targets = found_of(found) if found else []
        if objected := self.ledger.objection(attempt, report):
            rows = rows_of(self.ledger._db)
            with pytest.raises(ValueError, match="can't be accepted"):
                self.ledger.settle(attempt, report, max_attempts=self.MAX_ATTEMPTS, found=targets, again=wanted)
            assert rows_of(self.ledger._db) == rows
            assert objected[1] is Blame.NOBODY or not (clean and stored)
            return
        assert clean
        assert stored
        settlement = self.ledger.settle(
            attempt, report, max_attempts=self.MAX_ATTEMPTS, found=targets, again=wanted
        )  # fmt: skip
        new = [body for _, bodies in iter(self.ledger.divert_found, None) for body in bodies]
        after = self.ledger.balance()
        self.check(settlement.fate, attempt, counted=attempt.state is not AttemptState.UNKNOWN and not settled)
        assert len(new) == len(set(found) - self.keys)
        self.open += new
        self.keys |= set(found)
        self.crawled.update(elements[own[position]] for position in outcomes["crawled"])
        assert settlement.again in (0, (may & wanted).bit_count())
        if settlement.again:
            self.tried_again.update(elements[own[position]] for position in bits(may & wanted))
        assert after.failed - before.failed == len(outcomes["failed"]) - settlement.again
        assert after.filtered - before.filtered == len(outcomes["filtered"])

    def elements(self, batch: int) -> list[str]:
        (payload,) = self.ledger._db.execute("SELECT payload FROM batch WHERE number = ?", (batch,)).fetchone()
        return decode_payload(payload)

    @rule(reason=st.sampled_from(["dns", "no receipt", "silent"]))
    def retry(self, reason: str) -> None:
        before = self.ledger.balance()
        taken, _ = self.ledger.retry(lambda state, found: found == reason)
        after = self.ledger.balance()
        assert after.queued - before.queued == before.failed + before.dead - after.failed - after.dead == taken
        self.tried_again.clear()  # what a retry brings back may be tried elsewhere once more

    @precondition(lambda self: not self.open and self.ledger.settled())
    @rule()
    def end_and_retry(self) -> None:
        self.ledger.walked()
        assert self.ledger.end()
        balance = self.ledger.balance()
        taken, left_out = self.ledger.retry(lambda state, reason: True)
        assert taken + left_out == balance.failed + balance.dead
        if not taken:
            self.ledger._db.execute("UPDATE run SET ended = NULL")
        self.ledger.walk_on()
        self.tried_again.clear()

    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.folder / "s.sqlite")
        assert self.ledger.begin(IDENTITY, resume=True)
        assert self.ledger.queued() == self.open

    @invariant()
    def holds(self) -> None:
        balance = self.ledger.balance()
        assert balance.holds, str(balance)
        assert balance.diverted == len(self.keys)
        assert balance.crawled == sum(self.crawled.values())
        (again,) = self.ledger._db.execute("SELECT coalesce(sum(size), 0) FROM queued WHERE avoid IS NOT NULL")
        waiting = len(self.open) + again[0]
        assert self.ledger.settled() == (balance.queued == balance.in_flight == waiting == 0)
        assert not (self.open and self.ledger.end())
        current = [attempt.batch for attempt in self.ledger.live() if attempt.state is not AttemptState.UNKNOWN]
        assert len(current) == len(set(current))
        assert max(self.tried_again.values(), default=0) <= 1

    @invariant()
    def every_request_is_in_exactly_one_place(self) -> None:
        db = self.ledger._db
        places = Counter(self.crawled)
        for (bodies,) in db.execute("SELECT bodies FROM queued"):
            places.update(json.loads(bodies))
        for number, size, settled in db.execute("SELECT number, size, settled FROM batch").fetchall():
            left = ((1 << size) - 1) & ~int.from_bytes(settled, "little")
            elements = self.elements(number)
            places.update(elements[position] for position in bits(left))
            positions = db.execute("SELECT position FROM outcome WHERE batch = ?", (number,))
            places.update(elements[position] for (position,) in positions)
        assert places == Counter(f"http://a/{number}" for number in self.keys)


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase

"""What comes in: each key once, in batches; what workers find, too."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ledgers import IDENTITY, a_batch, body, cut, divert, dump, found_of, key, queued, receipt
from ledgers import states as counts

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import AttemptState
from scrapy_distributed.wire import payload
from scrapy_distributed.wire.payload import decode_payload

# De-duplication and batches


def test_a_key_is_diverted_once(ledger: Ledger) -> None:
    assert divert(ledger, 1, 2, 1) == [body(1), body(2)]
    assert divert(ledger, 2, 3) == [body(3)]
    assert divert(ledger) == []
    assert counts(ledger) == {"diverted": 3, "duplicates": 2, "queued": 3}
    assert queued(ledger) == [body(1), body(2), body(3)]


def test_a_batch_leaves_the_queue_and_the_rest_stays_open(ledger: Ledger) -> None:
    bodies = divert(ledger, 1, 2, 3, 4, 5)
    assert ledger.intake.cut([2, 2]) == (2, len("".join(bodies[:4])))
    assert queued(ledger) == [body(5)]
    assert counts(ledger) == {"diverted": 5, "queued": 5}
    assert ledger.bookings.ready()[:1] == [(1, None)]
    attempt, payload = ledger.bookings.bind(1, "n1")
    assert counts(ledger) == {"diverted": 5, "queued": 3, "in_flight": 2}
    assert decode_payload(payload) == ["http://a/1", "http://a/2"]
    assert (attempt.label, attempt.node, attempt.size, attempt.state) == ("1", "n1", 2, AttemptState.BOUND)
    assert ledger.bookings.ready()[:1] == [(2, None)]


def test_a_batch_over_the_ceiling_is_split(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MAX_VALUE_BYTES", 60)
    assert cut(ledger, divert(ledger, *range(10))) == 4
    arrived = []
    while ready := ledger.bookings.ready():
        arrived += decode_payload(ledger.bookings.bind(ready[0][0], "n")[1])
    assert arrived == [f"http://a/{number}" for number in range(10)]
    assert counts(ledger) == {"diverted": 10, "in_flight": 10}


def test_what_an_older_ledger_has_queued_is_cut_as_well(ledger: Ledger) -> None:
    """There was nothing but a comma between its requests."""
    ledger.intake.divert([(key(1), '{"url":"http://a/1","meta":{"a":"x,y"}}'), (key(2), body(2)), (key(3), body(3))])
    ledger.store.db.execute("UPDATE queued SET bodies = replace(bodies, char(10), '')")
    assert ledger.intake.open_batch() == (3, 63)
    assert ledger.intake.cut([2]) == (1, 51)
    assert queued(ledger) == [body(3)]
    assert decode_payload(ledger.bookings.bind(1, "n1")[1]) == [
        {"url": "http://a/1", "meta": {"a": "x,y"}}, "http://a/2",
    ]  # fmt: skip


def test_requests_with_line_breaks_in_them_stay_whole(ledger: Ledger) -> None:
    elements = [{"url": "http://a/1", "meta": {"a": "x,\ny"}}, "http://a/2"]
    bodies = [json.dumps(element, separators=(",", ":")) for element in elements]
    ledger.intake.divert([(key(number), each) for number, each in enumerate(bodies)])
    ledger.intake.cut([1, 1])
    assert [decode_payload(ledger.bookings.bind(number, "n1")[1]) for number in (1, 2)] == [[one] for one in elements]


def test_queued_requests_that_are_damaged_are_told(ledger: Ledger) -> None:
    divert(ledger, 1, 2)
    ledger.store.db.execute("UPDATE queued SET bodies = '[x'")
    with pytest.raises(LedgerError, match="can't be used as ledger"):
        ledger.intake.open_batch()
    with pytest.raises(LedgerUnavailableError, match="damaged: requests that are queued"):
        ledger.intake.cut([1])


def test_an_empty_batch_is_none(ledger: Ledger) -> None:
    assert ledger.intake.open_batch() == (0, 0)
    assert ledger.intake.cut([]) == (0, 0)
    assert ledger.bookings.ready() == []
    assert ledger.account.settled()


# Targets that workers find


def test_found_targets_are_queued_once_and_known_ones_are_duplicates(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(2))
    ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=3, found=iter(found_of((7, 0, 8, 7), (8, 1))))
    assert counts(ledger) == {"diverted": 8, "crawled": 2, "queued": 6}  # until somebody has looked at them
    assert ledger.intake.divert_found() == (4, [body(7), body(8)])
    assert not ledger.account.settled()
    assert ledger.intake.divert_found() == (2, [])
    assert ledger.intake.divert_found() is None
    assert queued(ledger) == [body(7), body(8)]
    assert counts(ledger) == {"diverted": 4, "duplicates": 4, "crawled": 2, "queued": 2}
    assert divert(ledger, 8) == []
    assert not ledger.account.settled()


def test_a_run_is_not_over_while_found_targets_wait(ledger: Ledger, path: Path) -> None:
    attempt = a_batch(ledger, *range(2))
    ledger.intake.walked()
    ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=3, found=found_of((0, 1)))
    assert (ledger.account.settled(), ledger.account.posted(), ledger.account.end()) == (False, False, False)
    ledger.close()
    with closing(Ledger(path)) as again:  # as after kill -9
        again.begin(IDENTITY, resume=True)
        assert again.intake.divert_found() == (2, [])
        assert (again.account.settled(), again.account.posted(), again.account.end()) == (True, True, True)


def test_found_targets_that_are_damaged_are_told(ledger: Ledger) -> None:
    attempt = a_batch(ledger, *range(2))
    ledger.verdicts.settle(attempt, receipt(attempt), max_attempts=3, found=found_of((0, 1)))
    for damaged in (b"", b"x", zlib.compress(b"no hex"), zlib.compress(b"\xff")):
        ledger.store.db.execute("UPDATE found SET packed = ?", (damaged,))
        with pytest.raises(LedgerUnavailableError, match="damaged: targets that were found"):
            ledger.intake.divert_found()


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
    ledger.store.db.execute(f"CREATE TEMP TRIGGER no BEFORE {statement} BEGIN SELECT RAISE(ABORT, 'no luck'); END")
    for _ in range(2):
        with pytest.raises(LedgerUnavailableError, match="no luck"):
            ledger.verdicts.settle(attempt, report, max_attempts=3, found=found, again=0b10)
        assert dump(ledger) == before
        assert not ledger.store.db.in_transaction
    ledger.store.db.execute("DROP TRIGGER no")
    settlement = ledger.verdicts.settle(attempt, report, max_attempts=3, found=found, again=0b10)
    assert settlement.again == 1
    assert ledger.intake.divert_found() == (3, [body(7), body(8)])
    expected = {"diverted": 7, "duplicates": 1, "crawled": 2, "filtered": 1, "queued": 4}
    assert counts(ledger) == expected


# What is only for this process


def test_a_page_that_fails_half_way_into_the_ledger_is_not_in_it(ledger: Ledger) -> None:
    def requests() -> Iterator[tuple[bytes, str]]:
        yield key(1), body(1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ledger.intake.divert(requests())
    assert counts(ledger) == {}
    assert divert(ledger, 1) == [body(1)]
    assert counts(ledger) == {"diverted": 1, "queued": 1}


def test_occurrences_are_counted_from_the_opening(ledger: Ledger, path: Path) -> None:
    assert [ledger.intake.occurrence(key(1)), ledger.intake.occurrence(key(2)), ledger.intake.occurrence(key(1))] == [
        1,
        1,
        2,
    ]
    ledger.close()
    with closing(Ledger(path)) as again:
        assert again.intake.occurrence(key(1)) == 1


def test_a_closed_ledger_leaves_no_scratch_behind(ledger: Ledger, path: Path) -> None:
    divert(ledger, 1)
    ledger.close()
    assert {file.name for file in path.parent.iterdir()} - {"s.sqlite.lock"} == {"s.sqlite"}

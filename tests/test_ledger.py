"""The ledger: every request in exactly one state after every transition, also after a kill; one writer."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scrapy_distributed import wire
from scrapy_distributed.batch import Attempt, AttemptState, bits
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger import APPLICATION, Ledger, LedgerReader
from scrapy_distributed.receipt import Receipt

IDENTITY = {"project": "p", "spider": "s", "arguments": "", "targets": [[1], []]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "s.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        yield ledger


def body(number: int) -> str:
    return json.dumps(f"http://a/{number}")


def key(number: int) -> bytes:
    return number.to_bytes(20, "big")


def divert(ledger: Ledger, *numbers: int) -> list[str]:
    return ledger.divert([(key(number), body(number)) for number in numbers])


def a_batch(ledger: Ledger, size: int = 4) -> tuple[Attempt, str]:
    """One closed batch of requests 0 to *size* - 1, bound to a node."""
    ledger.close_batches([divert(ledger, *range(size))], [])
    ready = ledger.ready()
    assert ready
    return ledger.bind(ready[0][0], "n1")


def receipt(attempt: Attempt, settled: int | None = None, **values: Any) -> Receipt:
    settled = (1 << attempt.size) - 1 if settled is None else settled
    usual = {"sequence": 9, "final": True, "size": attempt.size, "stored": True, "finish_reason": "finished"}
    return Receipt(job=attempt.job, settled=settled, **(usual | values))


def counts(ledger: Ledger) -> dict[str, int]:
    """The states that are not empty."""
    balance = ledger.balance()
    assert balance.holds
    return {name: count for name, count in balance.as_dict().items() if count}


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
    assert wire.decode_payload(payload) == ["http://a/1", "http://a/2"]
    assert (attempt.label, attempt.node, attempt.size, attempt.state) == ("1", "n1", 2, AttemptState.BOUND)
    assert ledger.ready()[:1] == [(2, None)]


def test_a_batch_over_the_ceiling_is_split(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_VALUE_BYTES", 60)
    assert ledger.close_batches([divert(ledger, *range(10))], []) == 4
    arrived = []
    while ready := ledger.ready():
        arrived += wire.decode_payload(ledger.bind(ready[0][0], "n")[1])
    assert arrived == [f"http://a/{number}" for number in range(10)]
    assert counts(ledger) == {"diverted": 10, "in_flight": 10}


def test_an_empty_batch_is_none(ledger: Ledger) -> None:
    assert ledger.close_batches([[]], []) == 0
    assert ledger.ready() == []
    assert ledger.settled()


# Attempts


def test_a_full_receipt_settles_the_batch(ledger: Ledger) -> None:
    attempt, _ = a_batch(ledger)
    assert not ledger.posted()
    ledger.sent(attempt)
    assert ledger.posted()
    assert not ledger.settled()
    report = receipt(attempt, failed={"http 404": [1]}, filtered={"offsite": [3]}, items=5, feeds=("ftp://h/1.jl",),
                     stats={"pages": 3})  # fmt: skip
    settlement = ledger.settle(attempt, report, max_attempts=3)
    assert (settlement.accepted, settlement.batch_settled) == (True, True)
    assert counts(ledger) == {"diverted": 4, "crawled": 2, "failed": 1, "filtered": 1}
    assert ledger.settled()
    assert ledger.live() == []
    assert ledger.worker_stats() == {"pages": 3}


def test_the_second_attempt_has_exactly_what_is_not_settled_in_order(ledger: Ledger) -> None:
    attempt, _ = a_batch(ledger, 6)
    ledger.settle(attempt, receipt(attempt, 0b010110, finish_reason="shutdown", failed={"dns": [2]}), max_attempts=3)
    assert counts(ledger) == {"diverted": 6, "queued": 3, "crawled": 2, "failed": 1}
    assert ledger.ready()[:1] == [(1, "n1")]
    second, payload = ledger.bind(1, "n2")
    assert wire.decode_payload(payload) == ["http://a/0", "http://a/3", "http://a/5"]
    assert (second.label, second.positions, second.size) == ("1.2", 0b101001, 3)
    ledger.settle(second, receipt(second, 0b101, failed={"timeout": [2]}, finish_reason="shutdown"), max_attempts=3)
    third, payload = ledger.bind(1, "n1")
    assert wire.decode_payload(payload) == ["http://a/3"]
    assert ledger.settle(third, receipt(third), max_attempts=3).batch_settled
    assert counts(ledger) == {"diverted": 6, "crawled": 4, "failed": 2}
    ledger.close()
    with closing(LedgerReader(ledger.path)) as reader:
        outcomes = [(outcome["position"], outcome["reason"], outcome["url"]) for outcome in reader.outcomes(1)]
    assert outcomes == [(2, "dns", "http://a/2"), (5, "timeout", "http://a/5")]


def test_a_batch_that_never_ran_uses_up_no_attempt(ledger: Ledger) -> None:
    attempt, _ = a_batch(ledger)
    for _ in range(5):
        ledger.unsent(attempt, "n1: connection refused")
        assert counts(ledger) == {"diverted": 4, "queued": 4}
        attempt, _ = ledger.bind(1, "n2")
    assert attempt.label == "1.6"
    assert not ledger.reject(attempt, "no receipt", max_attempts=2)
    assert counts(ledger) == {"diverted": 4, "queued": 4}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"stored": False}, "its feed was not stored"),
        ({"clean": False, "finish_reason": "shutdown"}, "it ended early (shutdown) with items"),
        ({"size": 3, "settled": 0b111}, "its receipt speaks of 3 requests, sent were 4"),
    ],
)
def test_a_receipt_that_cannot_count_is_rejected_whole(ledger: Ledger, values: dict[str, Any], reason: str) -> None:
    attempt, _ = a_batch(ledger)
    settlement = ledger.settle(attempt, receipt(attempt, **({"feeds": ("f",)} | values)), max_attempts=2)
    assert not settlement.accepted
    assert reason in settlement.reason
    assert counts(ledger) == {"diverted": 4, "queued": 4}
    with closing(LedgerReader(ledger.path)) as reader:
        assert reader.feeds(1) == []
    second, _ = ledger.bind(1, "n2")
    assert second.size == 4


def test_what_is_left_when_the_attempts_are_used_up_is_dead_with_the_reason(ledger: Ledger) -> None:
    attempt, _ = a_batch(ledger)
    ledger.settle(attempt, receipt(attempt, 0b0001, finish_reason="shutdown"), max_attempts=2)  # progress: not counted
    attempt, _ = ledger.bind(1, "n1")
    assert not ledger.reject(attempt, "no receipt: MemoryError", max_attempts=2)
    attempt, _ = ledger.bind(1, "n1")
    assert ledger.reject(attempt, "no receipt: MemoryError", max_attempts=2)
    assert counts(ledger) == {"diverted": 4, "crawled": 1, "dead": 3}
    with closing(LedgerReader(ledger.path)) as reader:
        assert [(o["state"], o["reason"], o["url"]) for o in reader.outcomes(1)] == [
            ("dead", "no receipt: MemoryError", f"http://a/{number}") for number in (1, 2, 3)
        ]


def test_the_orphan_that_is_first_wins_and_the_other_is_fenced(ledger: Ledger) -> None:
    first, _ = a_batch(ledger)
    ledger.sent(first)
    assert not ledger.lose(first, "no sign of life", counts=True, max_attempts=3)
    assert counts(ledger) == {"diverted": 4, "queued": 4}
    second, _ = ledger.bind(1, "n2")
    assert {attempt.state for attempt in ledger.live()} == {AttemptState.UNKNOWN, AttemptState.BOUND}
    assert ledger.settle(first, receipt(first, feeds=("first",)), max_attempts=3).batch_settled
    assert counts(ledger) == {"diverted": 4, "crawled": 4}
    late = ledger.settle(second, receipt(second, feeds=("second",)), max_attempts=3)
    assert (late.accepted, late.reason) == (False, "another attempt was accepted first")
    assert counts(ledger) == {"diverted": 4, "crawled": 4}
    with closing(LedgerReader(ledger.path)) as reader:
        assert reader.feeds(1) == ["first"]


def test_an_orphan_of_a_dead_batch_comes_too_late(ledger: Ledger) -> None:
    first, _ = a_batch(ledger)
    assert not ledger.lose(first, "no sign of life", counts=True, max_attempts=2)
    second, _ = ledger.bind(1, "n2")
    assert ledger.lose(second, "no sign of life", counts=True, max_attempts=2)
    assert counts(ledger) == {"diverted": 4, "dead": 4}
    for attempt in (first, second):
        late = ledger.settle(attempt, receipt(attempt), max_attempts=2)
        assert (late.accepted, late.batch_settled) == (False, True)
    assert counts(ledger) == {"diverted": 4, "dead": 4}


def test_an_orphan_that_ends_does_not_take_the_batch_from_the_attempt_under_way(ledger: Ledger) -> None:
    first, _ = a_batch(ledger)
    ledger.lose(first, "no sign of life", counts=True, max_attempts=3)
    second, _ = ledger.bind(1, "n2")
    ledger.reject(first, "no receipt", max_attempts=3)
    assert ledger.ready() == []
    assert counts(ledger) == {"diverted": 4, "in_flight": 4}
    assert ledger.settle(second, receipt(second), max_attempts=3).accepted


def test_a_lost_attempt_that_reports_nothing_is_not_counted_twice(ledger: Ledger) -> None:
    first, _ = a_batch(ledger)
    ledger.lose(first, "no sign of life", counts=True, max_attempts=2)
    second, _ = ledger.bind(1, "n2")
    ledger.settle(first, receipt(first, 0, finish_reason="shutdown"), max_attempts=2)
    assert counts(ledger) == {"diverted": 4, "in_flight": 4}
    assert ledger.settle(second, receipt(second), max_attempts=2).accepted


def test_stats_of_workers_are_summed_and_maxima_are_not(ledger: Ledger) -> None:
    for number in range(2):
        ledger.close_batches([divert(ledger, number)], [])
        attempt, _ = ledger.bind(number + 1, "n")
        stats = {"pages": 2 + number, "request_depth_max": 3 - number, "memusage/max": 10 * (number + 1)}
        ledger.settle(attempt, receipt(attempt, stats=stats), max_attempts=1)
    assert ledger.worker_stats() == {"pages": 5, "request_depth_max": 3, "memusage/max": 20}


# The run


def test_the_same_identity_resumes_and_another_is_another_run(ledger: Ledger, path: Path) -> None:
    name = ledger.run
    attempt, _ = a_batch(ledger)
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
    attempt, _ = a_batch(ledger)
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
        (lambda path: foreign(path, f"PRAGMA application_id = {APPLICATION}", "PRAGMA user_version = 2"), "format 2"),
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
        attempt, _ = a_batch(ledger)
        assert (reader.balance(1).in_flight, reader.balance(1).holds) == (attempt.size, True)
        with ledger._transaction():
            assert reader.balance(1).holds
        (run,) = reader.runs()
        assert (run["name"], run["identity"], run["walked"], run["ended"]) == (ledger.run, IDENTITY, None, None)
        (batch,) = reader.batches(1)
        assert (batch["state"], batch["size"], batch["node"], batch["attempts"]) == ("in flight", attempt.size, "n1", 1)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM request")


# Crash


CHILD = """
import itertools, sys
from test_ledger import IDENTITY, Ledger, body, key, receipt
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
                ledger.reject(attempt, "no", max_attempts=2)
"""


def test_a_kill_at_any_moment_loses_nothing(path: Path) -> None:
    diverted, bound = 0, set()
    for kill_after in (1, 7, 40, 41, 90):
        command = [sys.executable, "-c", CHILD, str(path), str(diverted)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent) as child:
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
            jobs = {f"{ledger.run}-{batch:06d}-{number}"
                    for batch, number in ledger._db.execute("SELECT batch, number FROM attempt")}  # fmt: skip
            assert bound <= jobs
            assert ledger._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# Any order


class AnyOrder(RuleBasedStateMachine):
    """Plays every transition in any order that a coordinator can come to."""

    MAX_ATTEMPTS = 2

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.ledger = Ledger(self.folder / "s.sqlite")
        self.ledger.begin(IDENTITY, resume=True)
        self.open: list[str] = []
        self.keys: set[int] = set()
        self.crawled: dict[str, int] = {}

    def teardown(self) -> None:
        try:
            self.close(keep=0)
            for _ in range(1000):
                for attempt in self.ledger.live():
                    self.ledger.reject(attempt, "the end", max_attempts=self.MAX_ATTEMPTS)
                ready = self.ledger.ready()
                if not ready:
                    break
                self.ledger.bind(ready[0][0], "last")
            self.holds()
            assert self.ledger.settled()
            assert self.ledger.balance().settled
            assert all(number == 1 for number in self.crawled.values())
            assert self.ledger.balance().crawled == len(self.crawled)
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
        closed, self.open = self.open[keep:], self.open[:keep]
        middle = len(closed) // 2
        self.ledger.close_batches([part for part in (closed[:middle], closed[middle:]) if part], self.open)

    @precondition(lambda self: bool(self.ledger.ready()))
    @rule(node=st.sampled_from(["n1", "n2"]))
    def bind(self, node: str) -> None:
        ready = self.ledger.ready()
        assert ready
        attempt, payload = self.ledger.bind(ready[0][0], node)
        assert len(wire.decode_payload(payload)) == attempt.size > 0

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

    @rule(data=st.data(), counted=st.booleans())
    def lose(self, data: st.DataObject, counted: bool) -> None:
        if attempt := self.pick(data, AttemptState.BOUND, AttemptState.SENT):
            done = self.ledger.lose(attempt, "silent", counts=counted, max_attempts=self.MAX_ATTEMPTS)
            assert not (done and not counted)

    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        if attempt := self.pick(data, *AttemptState):
            self.ledger.reject(attempt, "no receipt", max_attempts=self.MAX_ATTEMPTS)

    @rule(data=st.data(), clean=st.booleans() | st.just(True), stored=st.booleans() | st.just(True))
    def settle(self, data: st.DataObject, clean: bool, stored: bool) -> None:
        attempt = self.pick(data, *AttemptState)
        if attempt is None:
            return
        everything = (1 << attempt.size) - 1
        settled = data.draw(st.just(everything) | st.integers(0, everything))
        outcomes: dict[str, list[int]] = {"crawled": [], "failed": [], "filtered": []}
        for position in bits(settled):
            outcomes[data.draw(st.sampled_from(["crawled", *outcomes]))].append(position)
        report = receipt(attempt, settled, clean=clean, stored=stored, failed={"dns": outcomes["failed"]},
                         filtered={"offsite": outcomes["filtered"]})  # fmt: skip
        urls = [
            row[0] for row in self.ledger._db.execute("SELECT payload FROM batch WHERE number = ?", (attempt.batch,))
        ]
        elements = wire.decode_payload(urls[0])
        own = list(bits(attempt.positions))
        before = self.ledger.balance()
        settlement = self.ledger.settle(attempt, report, max_attempts=self.MAX_ATTEMPTS)
        assert not settlement.accepted or (clean and stored)
        after = self.ledger.balance()
        if attempt.state is AttemptState.UNKNOWN:  # it was counted when it was lost
            assert after.dead == before.dead
        if settlement.accepted:
            for position in outcomes["crawled"]:
                url = elements[own[position]]
                self.crawled[url] = self.crawled.get(url, 0) + 1
            assert after.failed - before.failed == len(outcomes["failed"])
            assert after.filtered - before.filtered == len(outcomes["filtered"])
        else:
            assert (after.crawled, after.failed, after.filtered) == (before.crawled, before.failed, before.filtered)

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
        assert self.ledger.settled() == (balance.queued - len(self.open) == balance.in_flight == 0)
        assert not (self.open and self.ledger.end())
        current = [attempt.batch for attempt in self.ledger.live() if attempt.state is not AttemptState.UNKNOWN]
        assert len(current) == len(set(current))


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_a_run_that_nobody_waits_for_is_over_when_all_is_posted(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        assert ledger.begin(IDENTITY, resume=True, wait=False)
        attempt, _ = a_batch(ledger)
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


def test_a_replacement_is_not_blamed_for_what_an_orphan_has_settled(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        orphan, _ = a_batch(ledger)
        ledger.sent(orphan)
        ledger.lose(orphan, "silent", counts=True, max_attempts=2)
        replacement, _ = ledger.bind(orphan.batch, "n2")
        ledger.sent(replacement)
        assert ledger.settle(orphan, receipt(orphan, 0b11), max_attempts=2).accepted
        assert not ledger.settle(replacement, receipt(replacement), max_attempts=2).accepted
        assert ledger.balance().queued == 2

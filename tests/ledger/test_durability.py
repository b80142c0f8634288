"""Every request in exactly one state after every transition, also after a power cut, and with a full disk."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from file_limit import file_limit
from ledgers import IDENTITY, KEYS, TABLES, a_batch, cut, divert, dump, found_of, receipt, rows_of
from ledgers import states as counts

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.ledger.rules import Haul
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.sqlite_seen import BUCKET_BYTES, Seen
from scrapy_distributed.ledger.states import Attempt, AttemptState
from scrapy_distributed.ledger.wanted import Wanted

# Durability


def begun(ledger: Ledger) -> None:
    pass


def with_an_attempt(ledger: Ledger) -> Attempt:
    return a_batch(ledger)


def with_something_to_try_again(ledger: Ledger) -> None:
    attempt = a_batch(ledger)
    ledger.verdicts.settle(attempt, receipt(attempt, failed={"dns": [0, 1]}, again=0b11), max_attempts=3, again=0b11)


def with_failures(ledger: Ledger) -> None:
    attempt = a_batch(ledger)
    ledger.verdicts.settle(attempt, receipt(attempt, failed={"dns": [0, 1]}, again=0b11), max_attempts=3)


def failed_once(ledger: Ledger) -> Attempt:
    attempt = a_batch(ledger)
    ledger.verdicts.reject(attempt, "killed", counts=True, max_attempts=3)
    return ledger.bookings.bind(1, "n2")[0]


def settle(ledger: Ledger, attempt: Attempt) -> Any:
    report = receipt(attempt, 0b0111, failed={"dns": [0]}, filtered={"offsite": [1]}, again=1, finish_reason="shutdown")
    haul = Haul(items=2, twice=1, pages=[b"a page"])
    return ledger.verdicts.settle(attempt, report, max_attempts=3, found=found_of((0, 9)), haul=haul, again=1)


OTHER = IDENTITY | {"arguments": "other"}
# Name: what goes before, the transition, whether it survives a power cut at once.
TRANSITIONS: dict[str, tuple[Callable[[Ledger], Any], Callable[[Ledger, Any], Any], bool]] = {
    "begin": (begun, lambda ledger, _: ledger.begin(OTHER, resume=True), True),
    "begin afresh": (begun, lambda ledger, _: ledger.begin(IDENTITY, resume=False), True),
    "divert": (begun, lambda ledger, _: divert(ledger, 1, 2, 1), False),
    "cut": (
        lambda ledger: divert(ledger, 1, 2, 3),
        lambda ledger, bodies: ledger.intake.cut([len(bodies) - 1]),
        False,
    ),
    "cut_again": (with_something_to_try_again, lambda ledger, _: ledger.intake.cut_again(1, all_of_it=True), False),
    "bind": (
        lambda ledger: cut(ledger, divert(ledger, 1, 2)),
        lambda ledger, _: ledger.bookings.bind(1, "n1"),
        True,
    ),
    "sent": (with_an_attempt, lambda ledger, attempt: ledger.bookings.sent(attempt), False),
    "unsent": (with_an_attempt, lambda ledger, attempt: ledger.verdicts.unsent(attempt, "refused"), False),
    "lose": (
        with_an_attempt, lambda ledger, it: ledger.verdicts.lose(it, "silent", counts=True, max_attempts=3), False,
    ),
    "reject": (
        with_an_attempt, lambda ledger, it: ledger.verdicts.reject(it, "killed", counts=True, max_attempts=3), False,
    ),
    "reject and halve": (
        failed_once, lambda ledger, it: ledger.verdicts.reject(it, "killed", counts=True, max_attempts=3), False,
    ),
    "reject and bury": (
        with_an_attempt, lambda ledger, it: ledger.verdicts.reject(it, "killed", counts=True, max_attempts=1), False,
    ),
    "settle": (with_an_attempt, settle, True),
    "divert_found": (
        lambda ledger: settle(ledger, with_an_attempt(ledger)), lambda ledger, _: ledger.intake.divert_found(), False,
    ),
    "retry": (with_failures, lambda ledger, _: ledger.control.retry(Wanted()), True),
    "appends_to": (begun, lambda ledger, _: ledger.harvest.appends_to("/feeds/all.jl", 7), True),
    "walked": (begun, lambda ledger, _: ledger.intake.walked(), False),
    "walk_on": (lambda ledger: ledger.intake.walked(), lambda ledger, _: ledger.intake.walk_on(), True),
    "end": (lambda ledger: ledger.intake.walked(), lambda ledger, _: ledger.account.end(), False),
    "end, and walked": (begun, lambda ledger, _: ledger.account.end(walked=True), False),
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

    ledger.store.db.set_trace_callback(trace)
    transition(ledger, prepared)
    ledger.store.db.set_trace_callback(None)
    assert levels == {"FULL" if durable else "NORMAL"}
    assert ledger.store.db.execute("PRAGMA synchronous").fetchone() == (1,)  # NORMAL again
    assert ledger.store.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@contextmanager
def full_disk(ledger: Ledger, table: str) -> Iterator[None]:
    """The file can't grow, and whatever is written to *table* makes it."""
    db = ledger.store.db
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
    with closing(Ledger(tmp_path / "twin.sqlite")) as twin:
        twin.begin(IDENTITY, resume=True)
        expected, wanted = transition(twin, prepare(twin)), shape(twin)
    for table in (*TABLES, *KEYS):
        path = tmp_path / f"{table}.sqlite"
        with closing(Ledger(path)) as ledger:
            ledger.begin(IDENTITY, resume=True)
            prepared = prepare(ledger)
            before = dump(ledger)
            error: Exception | None = None
            with full_disk(ledger, table):
                try:
                    transition(ledger, prepared)
                except (LedgerUnavailableError, LedgerError) as raised:
                    error = raised
            if error is not None:
                failures.append(str(error))
                assert not ledger.store.db.in_transaction
                assert ledger.store.db.execute("PRAGMA synchronous").fetchone() == (1,)
                assert dump(ledger) == before
                assert same(transition(ledger, prepared), expected)
            assert shape(ledger) == wanted
        with closing(Ledger(path)) as again:
            again.begin(OTHER if name == "begin" else IDENTITY, resume=True)
            assert again.account.balance().holds
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


@contextmanager
def on_disk(ledger: Ledger) -> Iterator[None]:
    """*ledger* has a seen-set that has next to nothing in memory."""
    with closing(Seen(ledger.path.parent, memory_bytes=BUCKET_BYTES)) as ledger.store.seen:
        yield


def test_a_full_disk_of_the_seen_set_makes_no_duplicates_and_forgets_nothing(ledger: Ledger) -> None:
    with on_disk(ledger):
        divert(ledger, *range(100))
        for room in (4_096, 10_000, 50_000):
            with file_limit(room), pytest.raises(LedgerUnavailableError, match="scratch file"):
                divert(ledger, *range(50, 5000))
            assert ledger.account.balance().diverted == 100
            assert divert(ledger, 0, 99) == []
        assert len(divert(ledger, *range(50, 5000))) == 4900
        assert counts(ledger) == {"diverted": 5000, "duplicates": 56, "queued": 5000}


def test_a_resumed_run_whose_keys_find_no_room_is_refused_with_a_sentence(ledger: Ledger, path: Path) -> None:
    divert(ledger, *range(1000))
    ledger.close()
    refused = pytest.raises(LedgerError, match=r"can't be used as ledger: .*(large|space)")
    with closing(Ledger(path)) as again, file_limit(20_000), on_disk(again), refused:
        again.begin(IDENTITY, resume=True)


def history(ledger: Ledger, seed: int) -> Iterator[bool]:
    """Transitions of every kind, in an order that *seed* decides; yields after each whether it is durable."""
    chance = random.Random(seed)
    yield ledger.begin(IDENTITY, resume=True)
    for step in range(30):
        divert(ledger, *(chance.randrange(300) for _ in range(chance.randrange(1, 12))))
        yield False
        count, _ = ledger.intake.open_batch()
        if chance.random() < 0.7:
            ledger.intake.cut([count - 1] if count > 1 else [])
            yield False
        if ledger.intake.cut_again(3, all_of_it=step > 25):
            yield False
        for number, _ in ledger.bookings.ready()[:2]:
            attempt, _ = ledger.bookings.bind(number, chance.choice(["n1", "n2"]))
            yield True
            ledger.bookings.sent(attempt)
            yield False
        for attempt in chance.sample(live := ledger.bookings.live(), min(2, len(live))):
            yield end(ledger, attempt, chance)
        if step == 20:
            ledger.control.retry(Wanted())
            yield True


def end(ledger: Ledger, attempt: Attempt, chance: random.Random) -> bool:
    everything = (1 << attempt.size) - 1
    report = receipt(attempt, everything, failed={"dns": [0]}, again=1)
    if chance.random() < 0.5 and not ledger.verdicts.objection(attempt, report):
        found = found_of(range(300 + attempt.batch, 303 + attempt.batch))
        ledger.verdicts.settle(attempt, report, max_attempts=3, found=found, again=chance.randrange(2))
        return True
    if chance.random() < 0.5 and attempt.state is not AttemptState.UNKNOWN:
        ledger.verdicts.lose(attempt, "silent", counts=True, max_attempts=3)
    else:
        ledger.verdicts.reject(attempt, "killed", counts=True, max_attempts=3)
    return False


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_at_any_moment_leaves_what_was_durable_and_no_half_transition(tmp_path: Path, seed: int) -> None:
    """What a power cut leaves of a write-ahead log is a beginning of it: each frame is checksummed with those before,
    and what was synced is in it. So the log is cut off at any length."""
    path = tmp_path / "s.sqlite"
    log = path.with_name("s.sqlite-wal")
    with closing(Ledger(path)) as ledger, closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as other:
        moments = [(log.stat().st_size if log.exists() else 0, rows_of(other), False)]
        for durable in history(ledger, seed):
            moments.append((log.stat().st_size, rows_of(other), durable))
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
            assert left.store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert left.begin(IDENTITY, resume=True)
            assert left.account.balance().holds
            while left.intake.divert_found() is not None:
                pass
            known = left.account.balance().diverted
            assert len(divert(left, *range(400))) == 400 - known  # the walk runs again, and finds the rest
            assert left.account.balance().diverted == 400
            assert left.account.balance().holds

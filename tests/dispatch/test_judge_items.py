"""A judge where items come home: they are fetched before an attempt is accepted, and count with it or not at all. What
brings them is a fake; the ledger is a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from court import NOW, Court
from scrapy import Spider
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from scrapy_distributed.dispatch.flight import Flight
from scrapy_distributed.dispatch.room import Room
from scrapy_distributed.errors import LedgerUnavailableError, NodeError, NodeItemsError, WireError
from scrapy_distributed.ledger.rules import Haul
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.receipt import ItemsFile, Receipt

FILE = ItemsFile(3, 90, "ab" * 32)
PAGE = b"a page"


class Fetcher:
    """In place of a harvest: brings 2 items of 3. *error*: what it says in place of that; *waits*: for so long;
    *meanwhile*: is called before it is through. *told*: what it was asked to do."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.room = Room(spider=Spider(name="s"), clock=self.clock)
        self.error: BaseException | None = None
        self.waits: Deferred[None] | None = None
        self.meanwhile: Callable[[], Any] = lambda: None
        self.told: list[tuple[Any, ...]] = []

    async def bring(
        self, carrier: Any, attempt: Attempt, receipt: Receipt, file: ItemsFile, *, last: bool = False
    ) -> Haul:
        self.told.append(("bring", carrier.name, attempt.label, file))
        if self.waits is not None:
            await self.waits
        self.meanwhile()
        if self.error is not None:
            raise self.error
        return Haul(items=2, twice=1, pages=[PAGE])

    def undo(self, attempt: Attempt, haul: Haul) -> None:
        self.told.append(("undo", attempt.label, haul.items))


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher()


@pytest.fixture
def court(tmp_path: Path, fetcher: Fetcher) -> Iterator[Court]:
    court = Court(tmp_path / "s.sqlite", harvest=fetcher)
    yield court
    court.ledger.close()


def home(court: Court) -> list[tuple[Any, ...]]:
    """Of each accepted attempt, how many items came home, and how many did not; and the pages."""
    db = court.ledger.store.db
    rows = db.execute("SELECT home, twice FROM attempt WHERE state = 'accepted'").fetchall()
    return [*rows, *db.execute("SELECT key FROM page")]


def test_the_items_come_home_after_the_targets_are_read_and_before_it_is_accepted(
    court: Court, fetcher: Fetcher
) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    court.targets = [(b"k", '"http://a/k"')]
    court.reading, fetcher.waits = Deferred(), Deferred()
    result = court.begin(n0, court.send(n0), targets=("[]",), items_file=FILE)
    assert fetcher.told == []
    court.reading.callback(None)
    assert fetcher.told == [("bring", "n0", "1", FILE)]
    assert (court.told, court.found, home(court)) == ([], [], [])
    fetcher.waits.callback(None)
    assert result.result is None
    assert (court.told, court.found, home(court)) == (["n0"], ['"http://a/k"'], [(2, 1), (PAGE,)])
    assert len(fetcher.told) == 1


def test_one_that_ended_early_counts_with_what_it_has_settled(court: Court, fetcher: Fetcher) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    court.final(n0, court.send(n0), 0b01, clean=False, finish_reason="shutdown", items_file=FILE)
    assert court.balance() == {"diverted": 2, "crawled": 1, "queued": 1}
    assert home(court) == [(2, 1), (PAGE,)]


def test_nothing_is_fetched_of_what_can_not_count(court: Court, fetcher: Fetcher) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    court.final(n0, court.send(n0), items_file=FILE, stored=False)
    flight = court.send(n0)
    flight.fence()
    court.final(n0, flight, items_file=FILE)
    assert (fetcher.told, court.told) == ([], [])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (WireError("found 2 items"), "its items can't be read: found 2 items"),
        (NodeItemsError("n0", "HTTP 404"), "n0: HTTP 404"),
        (ZeroDivisionError("a bug"), "its receipt can't be settled: ZeroDivisionError: a bug"),
    ],
)
def test_where_they_are_not_what_the_receipt_tells_the_attempt_does_not_count(
    court: Court, fetcher: Fetcher, error: Exception, reason: str
) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    fetcher.error = error
    court.final(n0, court.send(n0), items_file=FILE)
    assert court.attempts() == [("rejected", reason)]
    assert (n0.trust.bad_jobs, n0.flights, court.balance()) == (1, {}, {"diverted": 2, "queued": 2})
    assert fetcher.told == [("bring", "n0", "1", FILE)]  # which has undone it


def test_a_receipt_that_tells_of_no_items_is_refused(court: Court, fetcher: Fetcher) -> None:
    """That of an older worker, or of one that could not make the file."""
    court.batch(0, 1)
    n0 = court.members[0]
    court.final(n0, court.send(n0))
    reason = "its items can't be read: its receipt tells of no items, which were to come home"
    assert court.attempts() == [("rejected", reason)]
    assert (n0.trust.bad_jobs, fetcher.told) == (1, [])


def test_where_they_do_not_come_home_nobody_asks_for_them(tmp_path: Path) -> None:
    court = Court(tmp_path / "s.sqlite")
    court.batch(0, 1)
    n0 = court.members[0]
    court.final(n0, court.send(n0))
    assert home(court) == [(None, 0)]
    court.ledger.close()


@pytest.mark.parametrize("error", [NodeError("n0", "timeout"), LedgerUnavailableError("full"), CancelledError()])
def test_what_says_nothing_of_the_items_is_tried_again(court: Court, fetcher: Fetcher, error: Exception) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    flight = court.send(n0)
    fetcher.error = error
    with pytest.raises(type(error)):
        court.final(n0, flight, items_file=FILE)
    assert (n0.flights, court.told) == ({flight.attempt.job: flight}, [])
    fetcher.error = None
    court.final(n0, flight, items_file=FILE)
    assert (n0.flights, court.told, home(court)) == ({}, ["n0"], [(2, 1), (PAGE,)])


@pytest.mark.parametrize("meanwhile", ["another is accepted", "it is fenced", "it was taken back"])
def test_what_counts_no_longer_when_they_are_here_is_undone(court: Court, fetcher: Fetcher, meanwhile: str) -> None:
    court.batch(0, 1)
    n0, n1 = court.members
    flight = court.send(n0)
    court.judge.lost(n0, flight, "silent", NOW)
    other = court.send(n1)
    fetcher.waits = Deferred()
    waits = fetcher.waits
    result = court.begin(n0, flight, items_file=FILE)
    fetcher.waits = None
    if meanwhile == "another is accepted":
        court.final(n1, other, items_file=FILE)
    elif meanwhile == "it is fenced":
        flight.fence()
    else:
        court.judge.unsent(n0, flight, "taken back")
    waits.callback(None)
    assert result.result is None
    assert fetcher.told[-1] == ("undo", "1", 2)
    assert n0.flights == {}
    assert court.told == (["n1"] if meanwhile == "another is accepted" else [])


def test_targets_are_read_and_it_is_over_so_nothing_is_fetched(court: Court, fetcher: Fetcher) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    flight = court.send(n0)
    court.reading = Deferred()
    result = court.begin(n0, flight, targets=("[]",), items_file=FILE)
    court.judge.unsent(n0, flight, "taken back")
    court.reading.callback(None)
    assert (result.result, fetcher.told) == (None, [])


def refuses(court: Court) -> None:
    court.ledger.store.db.execute("CREATE TEMP TRIGGER no BEFORE UPDATE ON batch BEGIN SELECT RAISE(ABORT, 'no'); END")


def test_what_the_ledger_can_not_write_is_undone_and_fetched_again(court: Court, fetcher: Fetcher) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    flight = court.send(n0)
    refuses(court)
    with pytest.raises(LedgerUnavailableError):
        court.final(n0, flight, items_file=FILE)
    assert fetcher.told == [("bring", "n0", "1", FILE), ("undo", "1", 2)]
    assert (n0.flights, court.told, home(court)) == ({flight.attempt.job: flight}, [], [])
    court.ledger.store.db.execute("DROP TRIGGER no")
    court.final(n0, flight, items_file=FILE)
    assert (court.told, home(court)) == (["n0"], [(2, 1), (PAGE,)])
    assert [what for what, *_ in fetcher.told] == ["bring", "undo", "bring"]


def test_what_can_not_be_settled_for_another_reason_is_undone(
    court: Court, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    court.batch(0, 1)
    n0 = court.members[0]

    def fail(*args: Any, **values: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(court.ledger.verdicts, "settle", fail)
    court.final(n0, court.send(n0), items_file=FILE)
    assert fetcher.told[-1] == ("undo", "1", 2)
    assert court.attempts() == [("rejected", "its receipt can't be settled: ZeroDivisionError: a bug")]


def test_an_objection_that_came_up_meanwhile_undoes_it(court: Court, fetcher: Fetcher) -> None:
    """A lost one with a part of its batch, and its replacement begins while its items are fetched."""
    court.batch(0, 1)
    n0, n1 = court.members
    flight = court.send(n0)
    court.judge.lost(n0, flight, "silent", NOW)
    other = court.send(n1)

    fetcher.meanwhile = lambda: other.runs(NOW)
    court.final(n0, flight, 0b01, items_file=FILE)
    assert fetcher.told[-1] == ("undo", "1", 2)
    assert court.attempts()[0] == ("rejected", "silent; it ended early, and another attempt is at work")


# No room here


def test_without_room_it_waits_on_its_node_and_nobody_is_to_blame(court: Court, fetcher: Fetcher) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    flight = court.send(n0)
    fetcher.error = OSError(28, "No space left on device")
    final(court, flight, NOW + 1)
    assert flight.evidence == NOW + 1  # so that no lease ends it
    assert (n0.flights, n0.trust.bad_jobs, court.told) == ({flight.attempt.job: flight}, 0, [])
    assert court.attempts() == [("sent", None)]
    fetcher.error = None
    final(court, flight, NOW + 100)
    assert (n0.flights, court.told, home(court)) == ({}, ["n0"], [(2, 1), (PAGE,)])


def test_while_the_spool_is_left_alone_nothing_is_fetched_or_read_and_the_lease_goes_on(
    court: Court, fetcher: Fetcher
) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    flight = court.send(n0)
    fetcher.room.refused(OSError(28, "No space left on device"))
    court.reading = Deferred()  # it would have to wait for that
    final(court, flight, NOW + 1)
    assert (fetcher.told, flight.evidence, court.attempts()) == ([], NOW + 1, [("sent", None)])
    court.reading = None
    fetcher.clock.advance(fetcher.room.pause)
    final(court, flight, NOW + 2)
    assert court.told == ["n0"]


def test_the_last_look_of_all_does_not_wait(court: Court, fetcher: Fetcher) -> None:
    court.batch(0, 1)
    n0 = court.members[0]
    flight = court.send(n0)
    fetcher.room.refused(OSError(28, "No space left on device"))
    court.judge.hurry()
    final(court, flight, NOW + 1)
    assert court.told == ["n0"]


def final(court: Court, flight: Flight, now: float) -> None:
    report = Receipt(
        job=flight.job, sequence=9, final=True, size=2, settled=0b11, stored=True, items_file=FILE,
        finish_reason="finished",
    )  # fmt: skip
    judging = Deferred.fromCoroutine(court.judge.final(court.members[0], flight, report, now))
    assert judging.result is None

"""Which items of an attempt come home. A real ledger and a real spool; the node is a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import pytest_twisted
from ledgers import IDENTITY, a_batch, divert, key, receipt
from scrapy import Request, Spider
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from scrapy_distributed.dispatch.harvest import DUPLICATE, Harvest
from scrapy_distributed.errors import LedgerUnavailableError, NodeError, NodeItemsError, WireError
from scrapy_distributed.items import gleaning as gleaning_module
from scrapy_distributed.items.lines import ItemWriter
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.rules import Haul, Settlement
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.receipt import ItemsFile

Row = tuple[Any, int | None, int | None]  # what an item is, its position, the number of its page


class Shop(Spider):
    name = "s"


def key_of(request: Request) -> bytes:
    return key(int(request.url.rsplit("/", 1)[1]))


class Job:
    """A node that has the items of one job: *rows*. *error*: what it says in their place; *waits*: for so long."""

    def __init__(self, *rows: Row) -> None:
        writer = ItemWriter()
        self.lines: list[bytes] = []
        for item, position, page in rows:
            self.lines += writer.lines({"n": item}, position=position, page="" if page is None else key(page).hex())
        self.count = len(rows)
        self.error: BaseException | None = None
        self.waits: Deferred[None] | None = None
        self.asked: list[tuple[str, int, str]] = []

    @property
    def bytes(self) -> bytes:
        return b"".join(self.lines)

    @property
    def file(self) -> ItemsFile:
        return ItemsFile(self.count, len(self.bytes), hashlib.sha256(self.bytes).hexdigest())

    async def items(self, attempt: Attempt, file: BinaryIO, *, size: int, digest: str) -> None:
        self.asked.append((attempt.job, size, digest))
        if self.waits is not None:
            await self.waits
        file.write(self.bytes)
        if self.error is not None:
            raise self.error


class Home:
    """A ledger and a spool in *folder*, and what fills it."""

    def __init__(self, folder: Path, clock: Any = reactor) -> None:
        self.ledger = Ledger(folder / "s.sqlite")
        self.ledger.begin(IDENTITY, resume=True)
        self.spool = Spool(self.ledger.path, Shop)
        self.spool.begin(self.ledger.run, [])
        self.harvest = Harvest(
            spool=self.spool, ledger=self.ledger.harvest, spider=Shop(), fingerprint=key_of, clock=clock
        )

    async def bring(
        self, job: Any, attempt: Attempt, settled: int | None = None, *, last: bool = False, **values: Any
    ) -> Haul:
        report = receipt(attempt, settled, items_file=job.file, **values)
        return await self.harvest.bring(job, attempt, report, job.file, last=last)

    async def settle(self, job: Any, attempt: Attempt, **values: Any) -> list[Any]:
        """It counts; returns the items that have come home."""
        haul = await self.bring(job, attempt, **values)
        report = receipt(attempt, **values)
        assert isinstance(self.ledger.verdicts.settle(attempt, report, max_attempts=3, haul=haul), Settlement)
        assert self.spool.fault(attempt.spool_name, self.ledger.harvest.file(attempt)) == ""
        kept = self.kept(attempt)
        assert haul.items == len(kept)
        return kept

    def kept(self, attempt: Attempt) -> list[Any]:
        data = (self.spool.folder / attempt.spool_name).read_bytes()
        file = ItemsFile(0, len(data), "")
        return [line.item["n"] for line in self.spool.lines(attempt.spool_name, file)]

    def entered(self, *numbers: int) -> list[bool]:
        """Whether the run knows these pages."""
        return [not self.ledger.harvest.is_new_page(key(number)) for number in numbers]

    def files(self) -> list[str]:
        return sorted(path.name for path in self.spool.folder.iterdir())


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    with closing(home.ledger):
        yield home


@pytest_twisted.ensureDeferred
async def test_all_of_a_complete_attempt_comes_home_as_it_is(home: Home) -> None:
    attempt = a_batch(home.ledger)
    job = Job(("a", 0, None), ("b", 3, 40), ("c", None, None), ("d", 3, 40))
    haul = await home.bring(job, attempt)
    assert (haul.items, haul.twice, list(haul.pages)) == (4, 0, [key(40)])
    assert job.asked == [(attempt.job, len(job.bytes), hashlib.sha256(job.bytes).hexdigest())]
    assert (home.spool.folder / attempt.spool_name).read_bytes() == job.bytes
    assert home.files() == [attempt.spool_name]
    assert home.entered(40) == [True]


@pytest_twisted.ensureDeferred
async def test_of_one_after_which_nothing_goes_out_again_all_do(home: Home) -> None:
    attempt = a_batch(home.ledger)
    job = Job(("a", 0, None), ("b", 1, None), ("of nobody", None, None), ("c", 2, 40))
    haul = await home.bring(job, attempt, 0b0001, last=True)
    assert home.kept(attempt) == ["a", "b", "of nobody", "c"]
    assert (haul.items, list(haul.pages)) == (4, [key(40)])


@pytest_twisted.ensureDeferred
async def test_of_one_that_ended_early_only_what_is_settled_does(home: Home) -> None:
    attempt = a_batch(home.ledger)
    job = Job(("a", 0, None), ("b", 1, None), ("of nobody", None, None), ("c", 2, 40), ("d", 1, 41), ("e", 0, 42))
    haul = await home.bring(job, attempt, 0b1001)
    assert home.kept(attempt) == ["a", "e"]
    assert (haul.items, haul.twice, list(haul.pages)) == (2, 0, [key(42)])
    assert home.entered(40, 41) == [False, False]  # the attempt that settles them brings them


@pytest_twisted.ensureDeferred
async def test_a_page_brings_its_items_once_and_what_is_a_request_of_the_run_brings_them_itself(home: Home) -> None:
    first, second = a_batch(home.ledger, 0, 1), a_batch(home.ledger, 2, 3)
    assert await home.settle(Job(("a", 0, 40), ("b", 1, 40)), first) == ["a", "b"]
    haul = await home.bring(Job(("c", 0, 40), ("d", 1, 1), ("e", 1, 41), ("f", 1, 40)), second)
    assert (home.kept(second), haul.items, haul.twice, list(haul.pages)) == (["e"], 1, 3, [key(41)])
    home.harvest.undo(second, haul)
    assert divert(home.ledger, 40, 41) == ['"http://a/41"']


@pytest.mark.parametrize("reason", [DUPLICATE, "offsite"])
@pytest_twisted.ensureDeferred
async def test_a_request_that_its_worker_has_left_out_as_duplicate_brings_its_items_by_the_other_way(
    home: Home, reason: str
) -> None:
    attempt = a_batch(home.ledger, 0, 1, 2)
    divert(home.ledger, 9)
    job = Job(("a", 0, 2), ("b", 0, 1), ("c", 0, 9))
    kept = await home.settle(job, attempt, filtered={reason: [2]})
    assert kept == (["a"] if reason == DUPLICATE else [])


@pytest_twisted.ensureDeferred
async def test_positions_are_those_of_the_attempt_and_not_of_its_batch(home: Home) -> None:
    first = a_batch(home.ledger, 0, 1, 2)
    await home.settle(Job(), first, settled=0b011)
    (again,) = [home.ledger.bookings.bind(number, "n1", "http://n1")[0] for number, *_ in home.ledger.bookings.ready()]
    assert again.size == 1
    assert await home.settle(Job(("a", 0, 2)), again, filtered={DUPLICATE: [0]}) == ["a"]


# What does not count


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NodeItemsError("n1", "gone"), NodeItemsError), (NodeError("n1", "away"), NodeError),
        (OSError(28, "full"), OSError), (CancelledError(), CancelledError),
    ],
)  # fmt: skip
@pytest_twisted.ensureDeferred
async def test_where_they_can_not_be_fetched_nothing_is_left(
    home: Home, error: BaseException, kind: type[BaseException]
) -> None:
    attempt = a_batch(home.ledger)
    job = Job(("a", 0, 40))
    job.error = error
    with pytest.raises(kind):
        await home.bring(job, attempt)
    assert (home.files(), home.entered(40)) == ([], [False])


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        ([("a", 0, 40)], {"count": 2}, "found 1 items, its receipt speaks of 2"),
        ([("a", 0, 40), ("b", 1, 41)], {"count": 1}, "found 2 items, its receipt speaks of 1"),
        ([("a", 0, 40), ("b", 4, 41)], {}, "found an item of the request at 4, sent were 4"),
        ([("a", 0, 40)], {"lines": [b"[0,0,{}]\n", b"rubbish\n"]}, "found"),
        ([("a", 0, 40)], {"lines": [b"[0,0,{}]"]}, "without the end of a line"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_not_what_the_receipt_says_is_refused_and_nothing_is_left(
    home: Home, rows: list[Row], more: dict[str, Any], words: str
) -> None:
    attempt = a_batch(home.ledger)
    job = Job(*rows)
    vars(job).update(more)
    with pytest.raises(WireError, match=words):
        await home.bring(job, attempt)
    assert (home.files(), home.entered(40, 41)) == ([], [False, False])


@pytest_twisted.ensureDeferred
async def test_where_they_can_not_be_kept_nothing_is_left(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = a_batch(home.ledger)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        await home.bring(Job(("a", 0, 40)), attempt)
    assert (home.files(), home.entered(40), home.harvest.room.pause) == ([], [False], 2.0)
    monkeypatch.undo()
    assert await home.settle(Job(("a", 0, 40)), attempt) == ["a"]
    assert home.harvest.room.pause == 0


@pytest_twisted.ensureDeferred
async def test_where_the_pages_can_not_be_entered_nothing_is_left(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = a_batch(home.ledger)

    def full(keys: Any) -> list[bool]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(home.ledger.store.seen, "add", full)
    with pytest.raises(LedgerUnavailableError, match="its scratch file"):
        await home.bring(Job(("a", 0, 40)), attempt)
    assert home.files() == []


@pytest_twisted.ensureDeferred
async def test_what_is_undone_is_gone_and_its_pages_are_new_to_the_next_one(home: Home) -> None:
    first, second = a_batch(home.ledger, 0, 1), a_batch(home.ledger, 2, 3)
    haul = await home.bring(Job(("a", 0, 40), ("b", 1, 1)), first)
    home.harvest.undo(first, haul)
    assert (home.files(), home.entered(40, 1)) == ([], [False, True])
    assert await home.settle(Job(("c", 0, 40)), second) == ["c"]


# Several at a time


class Slow:
    """Of a home whose files take a turn of the event loop for each line."""

    def __init__(self, home: Home, clock: Clock) -> None:
        self.home = home
        self.clock = clock

    def begin(self, job: Job, attempt: Attempt) -> Deferred[Haul]:
        return Deferred.fromCoroutine(self.home.bring(job, attempt))

    def end(self, bringing: Deferred[Haul]) -> Haul:
        hauls: list[Haul] = []
        bringing.addCallback(hauls.append)
        for _ in range(100):
            if not hauls:
                self.clock.advance(0)
        return hauls[0]


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    monkeypatch.setattr(gleaning_module, "TURN", -1.0)
    clock = Clock()
    home = Home(tmp_path, clock)
    with closing(home.ledger):
        yield Slow(home, clock)


def test_a_page_of_one_that_does_not_count_in_the_end_is_brought_by_the_other(slow: Slow) -> None:
    home = slow.home
    first, second = a_batch(home.ledger, 0, 1), a_batch(home.ledger, 2, 3)
    refused = Job(("a", 0, 40), ("b", 9, None))
    failing = slow.begin(refused, first)
    assert slow.end(slow.begin(Job(("c", 0, 40)), second)).items == 1
    failed: list[Any] = []
    failing.addErrback(failed.append)
    slow.clock.advance(0)
    assert failed[0].check(WireError)
    assert home.kept(second) == ["c"]
    assert home.entered(40) == [True]


def test_of_two_that_are_at_it_at_once_the_first_that_is_through_brings_the_page(slow: Slow) -> None:
    home = slow.home
    first, second = a_batch(home.ledger, 0, 1), a_batch(home.ledger, 2, 3)
    long = slow.begin(Job(("a", 0, 40), ("b", 0, 41), ("c", 0, 42), ("d", 1, None)), first)
    short = slow.end(slow.begin(Job(("e", 0, 41)), second))
    haul = slow.end(long)
    assert (home.kept(second), short.items, short.twice) == (["e"], 1, 0)
    assert (home.kept(first), haul.items, haul.twice) == (["a", "c", "d"], 3, 1)
    assert set(haul.pages) == {key(40), key(42)}
    home.harvest.undo(first, haul)
    assert home.entered(40, 41, 42) == [False, True, False]


def test_a_request_that_is_diverted_meanwhile_is_a_request_of_the_run(slow: Slow) -> None:
    home = slow.home
    attempt = a_batch(home.ledger, 0, 1)
    bringing = slow.begin(Job(("a", 0, 40), ("b", 0, 41)), attempt)
    assert divert(home.ledger, 40) == ['"http://a/40"']
    haul = slow.end(bringing)
    assert (home.kept(attempt), haul.twice, list(haul.pages)) == (["b"], 1, [key(41)])


def test_one_that_is_cancelled_leaves_nothing(slow: Slow) -> None:
    home = slow.home
    bringing = slow.begin(Job(("a", 0, 40), ("b", 0, 41)), a_batch(home.ledger, 0, 1))
    assert len(home.files()) == 2
    failed: list[Any] = []
    bringing.addErrback(failed.append)
    bringing.cancel()
    assert failed[0].check(CancelledError)
    assert (home.files(), home.entered(40, 41)) == ([], [False, False])

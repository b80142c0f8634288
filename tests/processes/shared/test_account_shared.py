"""What is told of a shared run: the records that a ledger in SQLite gives for the same."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from awaiting import awaited
from ledgers import IDENTITY, bind, cut, divert, receipt
from shared_runs import SharedRun

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.balance import Losses
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.shared.account import runs
from scrapy_distributed.wire.receipt import FeedFile, Receipt


def report(attempt: Attempt) -> Receipt:
    """Of six requests: three crawled, of which two have landed on one page, and one on that of another request."""
    page, known = (9).to_bytes(20, "big").hex(), (4).to_bytes(20, "big").hex()
    return receipt(
        attempt, failed={"http 404": [1], "callback KeyError": [2]}, filtered={"offsite": [3]}, items=7, unexported=2,
        followed={"timeout": 3, "callback KeyError": 1}, examples={"callback KeyError": "KeyError: 'x', shop.py:3"},
        landed=((0, page), (4, page), (5, known)), stats={"a/count": 3, "b_max": 2.5},
        feeds=(FeedFile("ftp://h/1.jl", 5),),
    )  # fmt: skip


@awaited
async def test_it_is_what_a_ledger_in_sqlite_tells(shared: SharedRun, tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        ledger.begin(IDENTITY, resume=True)
        cut(ledger, divert(ledger, *range(6)), divert(ledger, *range(6, 8)))
        first, second = bind(ledger), bind(ledger)
        ledger.verdicts.settle(first, report(first), max_attempts=3)
        ledger.verdicts.reject(second, "no receipt: killed", counts=True, max_attempts=3)
        ledger.account.stop("enough")
        theirs = ledger.account
        await shared.add(*range(6))
        claimed = await shared.claim()
        await shared.add(6, 7)
        await shared.worker().settle(claimed, report(claimed.attempt))
        await shared.worker().reject(await shared.claim(), "no receipt: killed", counts=True)
        await shared.control.stop("enough")
        ours = shared.account
        assert await ours.balance() == theirs.balance()
        assert await ours.losses() == theirs.losses() == Losses(
            unexported=2, followed={"timeout": 3, "callback KeyError": 1}, twice=2
        )  # fmt: skip
        assert await ours.raised() == theirs.raised()
        assert [one.requests for one in await ours.raised()] == [1]
        assert await ours.worker_stats() == theirs.worker_stats() == ({"a/count": 3, "b_max": 2.5}, 0)
        assert (await ours.state()).items == theirs.items()
        with closing(LedgerReader(ledger.path)) as reader:
            await is_told_alike(shared, reader)


async def is_told_alike(shared: SharedRun, reader: LedgerReader) -> None:
    ours = shared.account
    (run,) = reader.runs()
    assert await ours.reasons(10) == reader.reasons(1, 10)
    assert [plain(record) for record in [one async for one in ours.batches()]] == list(map(plain, reader.batches(1)))
    assert [one async for one in ours.outcomes()] == list(reader.outcomes(1))
    assert [one async for one in ours.outcomes(batch=1, wanted=lambda state, reason: state == "failed")] == list(
        reader.outcomes(1, batch=1, wanted=lambda state, reason: state == "failed")
    )
    assert [one async for one in ours.not_crawled()] == list(reader.not_crawled(run))
    for batch in (1, 2):
        assert list(map(plain, await ours.attempts(batch))) == list(map(plain, reader.attempts(run, batch)))
    assert list(map(plain, await ours.accepted())) == list(map(plain, reader.accepted(1)))
    (event,) = await ours.failed_attempts(5)
    assert event.words == "does not count, on w1: no receipt: killed"
    (record,) = await runs(shared.server, shared.project)
    assert (record.name, record.identity, record.stopped) == (shared.name, IDENTITY, "enough")
    assert record.ended is None, "it ends as those in a file do: when its result is stored"
    await shared.intake.stored()
    (record,) = await runs(shared.server, shared.project)
    assert record.ended is not None


def plain(record: object) -> dict[str, object]:
    """But for what is another one's in each store: names of nodes, tokens, and times."""
    left_out = {"node", "url", "token", "job", "bound", "ended", "log", "reason"}
    return {name: value for name, value in vars(record).items() if name not in left_out}


@awaited
async def test_what_has_landed_where_a_request_comes_later_is_counted_as_well(shared: SharedRun) -> None:
    await shared.add(1)
    claimed = await shared.claim()
    page = (2).to_bytes(20, "big").hex()
    await shared.worker().settle(claimed, receipt(claimed.attempt, landed=((0, page),)))
    assert (await shared.account.losses()).twice == 0
    await shared.add(2)
    assert (await shared.account.losses()).twice == 1


@awaited
async def test_reasons_that_a_worker_makes_up_have_an_end(shared: SharedRun) -> None:
    await shared.add(*range(1200))
    claimed = await shared.claim(1200)
    failed = {f"made up {number}": [number] for number in range(1200)}
    await shared.worker().settle(claimed, receipt(claimed.attempt, failed=failed))
    reasons = await shared.account.reasons(10_000)
    assert len(reasons) == 1001
    assert reasons[0] == ("failed", "other reasons", 200)
    assert sum(count for _, _, count in reasons) == 1200


@awaited
async def test_a_run_that_is_damaged_is_told_so(shared: SharedRun) -> None:
    await shared.add(1)
    claimed = await shared.claim()
    await shared.worker().settle(claimed, receipt(claimed.attempt, failed={"dns": [0]}))
    await shared.server.command("HSET", shared.key("kept"), "1:0", "no JSON")
    with pytest.raises(LedgerError, match=r"run \S+ can't be read"):
        [one async for one in shared.account.outcomes()]


@awaited
async def test_what_coordinators_have_lost_themselves_is_told(shared: SharedRun) -> None:
    await shared.intake.lost_own({"timeout": 2})
    assert (await shared.account.losses()).own == {"timeout": 2}

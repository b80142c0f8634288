"""What an operator tries again, and what he has forgotten, on a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from awaiting import awaited
from cutting_proxy import CuttingProxy
from ledgers import body, receipt
from shared_runs import SharedRun, found_of

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.wanted import Retried, Wanted
from scrapy_distributed.shared import retrying
from scrapy_distributed.shared.account import runs
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.shared.retrying import Retrying
from scrapy_distributed.shared.server import Server


def again(shared: SharedRun) -> Retrying:
    return Retrying(shared.server, shared.project, shared.name)


async def some_failed(shared: SharedRun) -> None:
    """Of 0 to 5: 0 (404, its callback had begun), 1 and 2 (dns, they had not), 3 (filtered)."""
    await shared.add(*range(6))
    claimed = await shared.claim()
    failed = {"http 404": [0], "dns": [1, 2]}
    report = receipt(claimed.attempt, failed=failed, filtered={"offsite": [3]}, again=0b110, examples={"dns": "what"})
    await shared.worker().settle(claimed, report)


async def over(shared: SharedRun) -> None:
    await some_failed(shared)
    await shared.intake.walked()
    assert await shared.ended()


async def told(shared: SharedRun) -> list[tuple[int, str, str]]:
    return [(one.position, one.state, one.reason) async for one in shared.account.outcomes()]


@awaited
async def test_what_failed_before_its_callback_waits_once_more(shared: SharedRun) -> None:
    await some_failed(shared)
    assert await again(shared).retry(Wanted()) == Retried(2, 1)
    assert await shared.counts() == {"diverted": 6, "queued": 2, "crawled": 2, "failed": 1, "filtered": 1}
    assert await told(shared) == [(0, "failed", "http 404"), (3, "filtered", "offsite")]
    assert await shared.account.reasons(9) == [("failed", "http 404", 1), ("filtered", "offsite", 1)]
    assert await shared.account.raised() == []
    claimed = await shared.claim()
    assert list(claimed.bodies) == [body(1), body(2)]
    await shared.worker().settle(claimed, receipt(claimed.attempt))
    assert await shared.counts() == {"diverted": 6, "crawled": 4, "failed": 1, "filtered": 1}


@awaited
async def test_what_had_begun_its_callback_goes_where_that_is_wanted(shared: SharedRun) -> None:
    await some_failed(shared)
    assert await again(shared).retry(Wanted(begun=True)) == Retried(3, 0, 1)
    assert await told(shared) == [(3, "filtered", "offsite")]


@awaited
async def test_only_those_of_a_state_and_a_reason(shared: SharedRun) -> None:
    await some_failed(shared)
    assert await again(shared).retry(Wanted(state="dead")) == Retried(0, 0)
    assert await again(shared).retry(Wanted(reason="http 5*")) == Retried(0, 0)
    assert await again(shared).retry(Wanted(reason="d?s")) == Retried(2, 0)


@awaited
async def test_what_is_dead_goes_too(shared: SharedRun) -> None:
    await shared.add(1, 2)
    for _ in range(2):
        await shared.worker().reject(await shared.claim(1), "killed", counts=True)
        await shared.worker().reject(await shared.claim(1), "killed", counts=True)
    while (await shared.counts()).get("dead", 0) < 2:
        await shared.worker().reject(await shared.claim(), "killed", counts=True)
    assert await again(shared).retry(Wanted(state="dead")) == Retried(2, 0)
    assert await shared.counts() == {"diverted": 2, "queued": 2}
    batches = [one async for one in shared.account.batches()]
    assert sum(one.dead for one in batches) == 0
    assert all(one.size == one.moved for one in batches)


@awaited
async def test_no_call_is_about_more_than_so_many(shared: SharedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "MOST", 3)
    await shared.add(*range(10))
    claimed = await shared.claim()
    report = receipt(claimed.attempt, failed={"dns": list(range(10))}, again=(1 << 10) - 1)
    await shared.worker().settle(claimed, report)
    assert await again(shared).retry(Wanted()) == Retried(10, 0)
    assert await shared.counts() == {"diverted": 10, "queued": 10}
    assert list((await shared.claim()).bodies) == [body(number) for number in range(10)]


@awaited
async def test_each_is_counted_once_where_the_answer_was_lost(shared: SharedRun, tmp_path: Path) -> None:
    await some_failed(shared)
    path = tmp_path / "s"
    async with CuttingProxy(path, Path(shared.server.address.path)) as proxy:
        server = await Server.connect(RedisAddress.from_url(f"unix://{path}"))
        retrying, told = Retrying(server, shared.project, shared.name), again(shared)
        ended = [(1, "failed", "dns", True)]
        async for part in told._each_told():
            await retrying.account.state()
            proxy.lose = 1
            others = [one for one in json.loads(part.text) if one[0] != 1]
            assert await retrying._take(part, [*ended, *map(tuple, others)], ended) == 1
            assert proxy.lose == 0
        await server.close()
    assert await shared.counts() == {"diverted": 6, "queued": 1, "crawled": 2, "failed": 2, "filtered": 1}


@awaited
async def test_of_two_operators_one_has_each_request(shared: SharedRun) -> None:
    await some_failed(shared)
    first = again(shared)
    async for part in first._each_told():
        assert (await again(shared).retry(Wanted())).again == 2
        assert await first._take(part, [(1, "failed", "dns", True)], [(1, "failed", "dns", True)]) == 0
    assert (await shared.counts())["queued"] == 2


@awaited
async def test_a_run_that_is_over_goes_on(shared: SharedRun) -> None:
    await over(shared)
    await shared.intake.stored()
    (record,) = await runs(shared.server, shared.project)
    assert record.ended is not None
    assert await again(shared).retry(Wanted()) == Retried(2, 1)
    (record,) = await runs(shared.server, shared.project)
    assert record.ended is None
    assert record.walked is not None
    claimed = await shared.claim()
    await shared.worker().settle(claimed, receipt(claimed.attempt))
    assert await shared.ended()
    assert (await shared.again()).run == record.name, "the same command takes it up"


@awaited
async def test_not_where_the_same_command_has_begun_another_one(shared: SharedRun) -> None:
    await over(shared)
    await shared.intake.stored()
    old, new = again(shared), await shared.again()
    with pytest.raises(LedgerError, match=new.run):
        await old.retry(Wanted())
    balance = await old.account.balance()
    assert balance.holds
    assert balance.failed == 3


@awaited
async def test_of_a_command_only_the_last_run_with_a_result_can_be_opened(shared: SharedRun) -> None:
    await over(shared)
    for _ in range(2):
        await shared.intake.stored()
    assert await seen_sets(shared) == {shared.name}
    old, first = again(shared), shared.name
    await shared.again()
    await shared.intake.walk(600)
    await over(shared)
    assert await seen_sets(shared) == {first, shared.name}
    for _ in range(2):
        await shared.intake.stored()
    assert await seen_sets(shared) == {shared.name}
    with pytest.raises(LedgerError, match=f"has begun {shared.name} since"):
        await old.retry(Wanted())
    assert await again(shared).retry(Wanted()) == Retried(2, 1)
    await shared.control.stop("cancelled")
    await shared.intake.leave_walk()
    await shared.control.forget()
    with pytest.raises(LedgerError, match="has begun another since"):
        await old.retry(Wanted())


async def seen_sets(shared: SharedRun) -> set[str]:
    """The names of the runs of which it is known what they have seen."""
    return {name.split(":")[0] for name in await left(shared) if ":seen:" in name}


@awaited
async def test_a_run_that_was_stopped_goes_on_with_what_is_not_crawled(shared: SharedRun) -> None:
    await some_failed(shared)
    await shared.add(7, 8)
    await shared.control.stop("cancelled")
    assert await again(shared).retry(Wanted(state="dead")) == Retried(0, 0)
    assert (await shared.counts())["not_crawled"] == 2
    assert await again(shared).retry(Wanted(state="not crawled")) == Retried(2, 0)
    assert await shared.counts() == {"diverted": 8, "queued": 2, "crawled": 2, "failed": 3, "filtered": 1}
    state = await shared.intake.state()
    assert (state.stopped, state.walked, state.ended) == (None, None, None)
    assert list((await shared.claim()).bodies) == [body(7), body(8)]


@awaited
async def test_what_failed_opens_a_stopped_run_as_a_whole(shared: SharedRun) -> None:
    await some_failed(shared)
    await shared.add(7, 8)
    await shared.control.stop("cancelled")
    assert await again(shared).retry(Wanted()) == Retried(4, 1)
    assert await shared.counts() == {"diverted": 8, "queued": 4, "crawled": 2, "failed": 1, "filtered": 1}


@awaited
async def test_not_while_a_stopped_run_closes(shared: SharedRun) -> None:
    await some_failed(shared)
    await shared.add(7)
    claimed = await shared.claim()
    await shared.control.stop("cancelled")
    with pytest.raises(LedgerError, match="ask again when it is over"):
        await again(shared).retry(Wanted())
    await shared.worker().settle(claimed, receipt(claimed.attempt))
    assert await again(shared).retry(Wanted()) == Retried(2, 1)


# Forgetting


async def left(shared: SharedRun) -> list[str]:
    keys = shared.intake.keys
    pattern = keys.all.replace("{", "\\{").replace("}", "\\}") + "*"
    return sorted(name.decode().removeprefix(keys.all + ":") for name in await shared.server.command("KEYS", pattern))


@awaited
async def test_nothing_is_left_of_a_run_that_is_forgotten(shared: SharedRun) -> None:
    await shared.add(*range(200))
    claimed = await shared.claim(10)
    await shared.worker().stage_found(claimed, 0, found_of(300, 301))
    await shared.worker().stage_items(claimed, 0, b"line\n")
    await shared.worker().settle(claimed, receipt(claimed.attempt, failed={"dns": [1]}, again=0b10), found=1, lines=1)
    await again(shared).retry(Wanted())
    await shared.worker().reject(await shared.claim(10), "killed", counts=True, log_tail="...")
    with pytest.raises(LedgerError, match="not over"):
        await shared.control.forget()
    await shared.control.stop("cancelled")
    await shared.intake.leave_walk()
    await shared.control.forget()
    assert {name for name in await left(shared) if shared.name in name} == set()
    with pytest.raises(LedgerError, match="found none of that name"):
        await shared.control.forget()


@awaited
async def test_by_force_also_of_one_that_is_not_over_once_its_coordinator_is_gone(shared: SharedRun) -> None:
    await shared.add(*range(20))
    claimed = await shared.claim(10)
    with pytest.raises(LedgerError, match="has it now"):
        await shared.control.forget(force=True)
    await shared.intake.leave_walk()
    await shared.control.forget(force=True)
    assert await shared.worker().renew(claimed, {}) is None
    assert not await shared.worker().stage_items(claimed, 0, b"line\n")
    assert {name for name in await left(shared) if shared.name in name} == set()

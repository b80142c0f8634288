"""The server is killed, full, or out of reach, and answers are lost: nothing of a run is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from awaiting import awaited
from cutting_proxy import CuttingProxy
from ledgers import body, receipt
from shared_runs import SharedRun, begun, found_of
from valkey_child import ValkeyChild, valkey

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.ledger.rules import Objection, Settlement
from scrapy_distributed.ledger.states import Blame, Fate
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.shared.checks import findings
from scrapy_distributed.shared.claims import Claimed, StagedLostError
from scrapy_distributed.shared.server import Server


async def written(server: Server) -> None:
    """Until all is in the append-only file: with ``everysec`` that may take a moment on a busy disk."""
    for _ in range(500):
        info, _config = await server.about()
        if info["aof_buffer_length"] == "0":
            return
        await asyncio.sleep(0.01)
    raise AssertionError("what was done is not in the append-only file")


@pytest.mark.parametrize("sync", ["everysec", "always"])
def test_a_server_that_was_killed_goes_on_where_it_was(sync: str) -> None:
    @awaited
    async def killed() -> None:
        with valkey(appendonly="yes", appendfsync=sync) as child:
            async with begun(child.address) as shared:
                await shared.add(*range(20))
                one, two = await shared.claim(5), await shared.claim(5)
                await shared.worker().stage_found(one, 0, found_of(30))
                await written(shared.server)
                child.kill()
                for what in (shared.add(1), shared.worker().renew(one, {}), shared.intake.state()):
                    with pytest.raises(LedgerUnavailableError, match=r"Redis at unix://\S+ can't be used now"):
                        await what
                child.start()
                assert await shared.counts() == {"diverted": 20, "queued": 10, "in_flight": 10}
                assert await shared.worker().renew(two, {}) is not None
                assert isinstance(await shared.worker().settle(one, receipt(one.attempt), found=1), Settlement)
                assert await shared.add(*range(21)) == [body(20)]
                await shared.worker().give_back(two, "the end")
                await written(shared.server)
                child.kill()
                child.start()
                assert await shared.counts() == {"diverted": 22, "duplicates": 20, "queued": 17, "crawled": 5}
                assert (await shared.claim()).bodies == two.bodies

    killed()


@awaited
async def test_what_a_server_has_lost_of_an_attempt_is_asked_for_again_or_given_up() -> None:
    with valkey(appendonly="yes", appendfsync="always") as child:
        async with begun(child.address) as shared:
            await shared.add(1, 2)
            await shared.server.command("CONFIG", "SET", "appendonly", "no")  # what comes now is lost
            lost = await shared.claim(1)
            child.kill()
            child.start()
            objected = await shared.worker().settle(lost, receipt(lost.attempt))
            assert objected == Objection("it was forgotten before", Blame.NOBODY)
            assert await shared.counts() == {"diverted": 2, "queued": 2}
            claimed = await shared.claim(1)
            await shared.server.command("CONFIG", "SET", "appendonly", "no")
            await shared.worker().stage_found(claimed, 0, found_of(3))
            child.kill()
            child.start()
            with pytest.raises(StagedLostError, match="stage it again"):
                await shared.worker().settle(claimed, receipt(claimed.attempt), found=1)
            await shared.worker().stage_found(claimed, 0, found_of(3))
            await shared.worker().settle(claimed, receipt(claimed.attempt), found=1)
            assert await shared.counts() == {"diverted": 3, "queued": 2, "crawled": 1}


@awaited
async def test_a_server_that_is_back_takes_no_lease_away_before_workers_could_renew_it() -> None:
    with valkey(appendonly="yes", appendfsync="always") as child:
        async with begun(child.address) as shared:
            await shared.add(1)
            claimed = await shared.claim()
            await shared.end_lease(claimed)
            child.kill()
            child.start()
            nothing = await shared.nothing("w2")
            assert nothing.seconds is not None
            assert 14 < nothing.seconds <= 15
            assert await shared.worker().renew(claimed, {}) is not None
            await shared.end_lease(claimed)
            await shared.server.command("HSET", shared.intake.keys.all + ":server", "since", 0)
            assert (await shared.claim(name="w2")).bodies == claimed.bodies


@awaited
async def test_scripts_that_the_server_has_forgotten_are_sent_again(shared: SharedRun) -> None:
    await shared.add(1)
    await shared.server.command("SCRIPT", "FLUSH")
    assert await shared.add(1, 2) == [body(2)]


@awaited
async def test_any_prefix_of_the_append_only_file_is_a_valid_run() -> None:
    with valkey(appendonly="yes", appendfsync="always") as child:
        async with begun(child.address) as shared:
            await every_transition(shared)
            name, project, keys = shared.name, shared.project, shared.intake.keys
        child.kill()
        whole = child.append_only_file.read_bytes()
        diverted = []
        for end in range(len(whole) // 10, len(whole), len(whole) // 25):
            child.append_only_file.write_bytes(whole[:end])
            child.start()
            server = await Server.connect(child.address)
            again = SharedRun(server, shared.intake, project)
            again.intake.server = server
            if await server.command("EXISTS", keys.of(name)):
                diverted.append((await again.intake.state()).balance.diverted)
                await holds(again)
            await server.close()
            child.kill()
    assert diverted == sorted(diverted)
    assert len(set(diverted)) > 3


async def every_transition(shared: SharedRun) -> None:
    for first in range(0, 600, 100):
        await shared.add(*range(first, first + 100))
    for turn in range(6):
        one, two, three = await shared.claim(20), await shared.claim(20), await shared.claim(20)
        await shared.worker().stage_found(one, 0, found_of(*range(600 + 20 * turn, 620 + 20 * turn)))
        half = receipt(one.attempt, (1 << max(1, one.attempt.size // 2)) - 1, failed={"dns": [0]}, again=1)
        await shared.worker().settle(one, half, found=1, again=1)
        await shared.worker().reject(two, "killed", counts=True)
        await shared.worker().give_back(three, "the end")
        four = await shared.claim(20)
        await shared.end_lease(four)
        await shared.claim(20)
    await shared.control.stop("enough")


async def holds(shared: SharedRun) -> None:
    """Each request is where the balance counts it."""
    state = await shared.intake.state()
    balance = state.balance
    assert balance.holds, str(balance)
    waiting = [position async for position, _ in shared.account._waiting()]
    records = [record async for record in shared.account.batches()]
    left = {
        record.number: record.size - record.crawled - record.failed - record.filtered - record.dead - record.moved
        for record in records
    }
    at_work = {job.batch for job in await shared.account.jobs()}
    assert balance.in_flight == sum(left[batch] for batch in at_work)
    assert balance.queued + balance.not_crawled == len(waiting) + sum(left.values()) - balance.in_flight
    assert balance.crawled == sum(record.crawled for record in records)
    ready = [record.number for record in records if left[record.number] and record.number not in at_work]
    again = [int(number) for number in await shared.server.command("LRANGE", shared.key("again"), 0, -1)]
    assert sorted(ready) == sorted(again)


@awaited
async def test_answers_that_are_lost_are_given_again(child: ValkeyChild, tmp_path: Path) -> None:
    path = tmp_path / "proxy"
    async with CuttingProxy(path, child.path) as proxy, begun(RedisAddress.from_url(f"unix://{path}")) as shared:
        proxy.lose = 1
        assert await shared.add(1, 2, 3, 4) == [body(number) for number in (1, 2, 3, 4)]
        proxy.lose = 2
        with pytest.raises(LedgerUnavailableError):
            await shared.add(4, 5)
        assert await shared.add(4, 5) == [body(5)]
        assert await shared.add(5) == []
        proxy.lose = 1
        claimed = await shared.claim(2)
        assert await shared.counts() == {"diverted": 5, "duplicates": 2, "queued": 3, "in_flight": 2}
        proxy.lose = 1
        assert await shared.worker().stage_found(claimed, 0, found_of(9))
        proxy.lose = 1
        assert await shared.worker().renew(claimed, {}) is not None
        worker, report = shared.worker(), receipt(claimed.attempt)
        proxy.lose = 2
        with pytest.raises(LedgerUnavailableError):
            await worker.settle(claimed, report, found=1)
        assert await worker.settle(claimed, report, found=1) == Settlement(fate=Fate.SETTLED)
        assert await shared.counts() == {"diverted": 6, "duplicates": 2, "queued": 4, "crawled": 2}
        proxy.lose = 2
        with pytest.raises(LedgerUnavailableError):
            await worker.claim(lambda spider: 2)
        again = await shared.claim(2)  # that is the one whose answer was lost
        assert (again.attempt.batch, again.attempt.number, len(again.bodies)) == (2, 1, 2)
        proxy.lose = 1
        await worker.give_back(again, "the end")
        await shared.claim(2)
        expected = {"diverted": 6, "duplicates": 2, "queued": 2, "in_flight": 2, "crawled": 2}
        assert await shared.counts() == expected


@pytest.fixture
def small() -> Iterator[ValkeyChild]:
    with valkey() as child:
        yield child


@awaited
async def test_a_full_server_takes_and_gives_nothing_more_and_all_that_is_under_way_goes_on(small: ValkeyChild) -> None:
    async with begun(small.address) as shared:
        await shared.add(*range(500))
        claimed = [await shared.claim(50) for _ in range(6)]
        await shared.worker().stage_found(claimed[0], 0, found_of(1000))
        await shared.end_lease(claimed[4])
        info, _ = await shared.server.about()
        await shared.server.command("CONFIG", "SET", "maxmemory", int(info["used_memory"]) // 2)
        for what in (shared.add(700), shared.claim(50), shared.worker().stage_items(claimed[1], 0, b"x" * 99)):
            with pytest.raises(LedgerUnavailableError, match=r"is full \(maxmemory\)"):
                await what
        worker = shared.worker()
        assert await worker.renew(claimed[0], {"settled": 1}) is not None
        assert (await shared.intake.walk(60)).is_ours
        settled = await worker.settle(claimed[0], receipt(claimed[0].attempt), found=1)
        assert settled == Settlement(fate=Fate.SETTLED)
        assert (await shared.intake.state()).moving == 1  # its finds stay where they are
        settled = await worker.settle(claimed[1], receipt(claimed[1].attempt, 1, failed={"dns": [0]}))
        assert settled == Settlement(fate=Fate.AGAIN)
        assert await worker.reject(claimed[2], "killed", counts=True) is Fate.AGAIN
        await worker.give_back(claimed[3], "the end")
        await worker._attempts.lose(shared.name, claimed[4].token, 1)
        await shared.intake.walked()
        expected = {"diverted": 500, "queued": 399, "in_flight": 50, "crawled": 50, "failed": 1}
        assert await shared.counts() == expected
        await shared.control.pause()
        await shared.control.resume()
        await shared.control.stop("enough")
        await shared.server.command("CONFIG", "SET", "maxmemory", 0)
        await shared.nothing()
        assert (await shared.intake.state()).moving == 0
        assert await worker.settle(claimed[5], receipt(claimed[5].attempt)) == Settlement(fate=Fate.SETTLED)
        assert await shared.ended()


@awaited
async def test_a_server_that_wants_a_password_is_refused_in_a_sentence_and_used_with_it(tmp_path: Path) -> None:
    with valkey(requirepass="s3cret word") as child:
        for url in (child.url, child.url.replace("unix://", "unix://:wrong@")):
            with pytest.raises(LedgerError, match="refuses us") as refused:
                await Server.connect(RedisAddress.from_url(url, {}))
            assert "wrong" not in str(refused.value).replace("WRONGPASS", "")
        address = RedisAddress.from_url(child.url, {"DISTRIBUTED_REDIS_PASSWORD": "s3cret word"})
        assert "s3cret" not in f"{address} {address!r}"
        async with begun(address) as shared:
            assert await shared.add(1)
            assert isinstance(await shared.worker().claim(len), Claimed)


@awaited
async def test_what_a_server_says_of_itself_is_fit_for_the_checks(small: ValkeyChild) -> None:
    server = await Server.connect(small.address)
    info, config = await server.about()
    assert [finding.text[:30] for finding in findings(info, config)] == ["found no append-only file: whe"]
    await server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert findings(*await server.about())[0].refused
    await server.close()


@awaited
async def test_a_server_that_is_not_there_is_told_so() -> None:
    with pytest.raises(LedgerUnavailableError, match=r"Redis at redis://127\.0\.0\.1:1/0 can't be used now"):
        await Server.connect(RedisAddress.from_url("redis://127.0.0.1:1"))

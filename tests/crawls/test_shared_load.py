"""How the work of a shared run is spread over the workers that have joined: evenly, and each page once."""

from __future__ import annotations

from pathlib import Path

from awaiting import awaited
from shop import Shop
from worker_stand import PROJECT, Stand, eventually, items, over, stand, urls

from scrapy_distributed.shared.account import Account
from scrapy_distributed.shared.intake import Intake

PAGES = 1_111
STEADY = {"DOWNLOAD_DELAY": "0.01", "CONCURRENT_REQUESTS": "1", "RANDOMIZE_DOWNLOAD_DELAY": "False"}
LEASE = 2.0
SLOW_SECONDS = 5  # of a callback


async def attempts(stand: Stand, intake: Intake) -> dict[int, int]:
    """Batch -> how many there were."""
    account = Account(stand.server, PROJECT, intake.run)
    return {batch.number: batch.attempts async for batch in account.batches()}


async def all_have_joined(stand: Stand) -> None:
    await eventually(lambda: all("has joined" in worker.log for worker in stand.workers))


@awaited
async def test_two_workers_of_one_slot_each_crawl_half_of_it_each(own_shop: Shop, tmp_path: Path) -> None:
    async with stand(tmp_path) as here:
        here.add_setting("import os; USER_AGENT = os.environ.get('WORKER', 'nobody')")
        for name in ("one", "two"):
            here.worker("--slots", "1", WORKER=name)
        await all_have_joined(here)
        intake = await here.begin(urls(own_shop, PAGES), **STEADY)
        state = await over(intake, 100, told=lambda: "\n".join(worker.log for worker in here.workers))
        assert state.balance.crawled == PAGES
        assert own_shop.agents.keys() == {"one", "two"}
        assert own_shop.agents.total() == PAGES
        share = own_shop.agents["one"] / PAGES
        assert 0.45 <= share <= 0.55, "\n".join(worker.log for worker in here.workers)
        assert set((await attempts(here, intake)).values()) == {1}


@awaited
async def test_callbacks_that_take_longer_than_a_lease_have_nothing_done_twice(own_shop: Shop, tmp_path: Path) -> None:
    """Their jobs say nothing meanwhile: what renews the lease is their worker."""
    async with stand(tmp_path) as here:
        here.add_setting(f"SLOW_SECONDS = {SLOW_SECONDS}")
        intake = await here.begin(urls(own_shop, 6, "slow"), lease=LEASE)
        for _ in range(3):
            here.worker("--slots", "1")
        state = await over(intake, 100, told=lambda: "\n".join(worker.log for worker in here.workers))
        assert (state.balance.crawled, state.items) == (6, 6)
        assert set(own_shop.visits.values()) == {1}
        assert set((await attempts(here, intake)).values()) == {1}
        assert sorted(await items(here, intake)) == sorted(map(str, range(6)))

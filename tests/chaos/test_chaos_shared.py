"""Workers of a shared run, the jobs that they fork, and the Valkey between them are struck at random.

Each storm is repeated by its seed (``CHAOS_SEED=7``), but for the moments of what it strikes. In the end each item is
there once, the balance holds, and no process is left.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from awaiting import awaited
from crawling import Crawl
from shop import shop
from worker_stand import Stand, eventually, items, over, stand, urls

LONG = pytest.mark.chaos
SHORT_SEED = 5
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEED", "").split(",") if seed] or list(range(1, 7))
LEASE = 2.0
WORKERS = 3
INNER = 150  # pages that lead to two others each
PAGES = 2 * INNER + 1
STRIKES = 12
PAUSE = 0.7  # seconds between two
GENTLE = {"DOWNLOAD_DELAY": "0.05", "CONCURRENT_REQUESTS_PER_DOMAIN": "1"}


class Storm:
    """What strikes a *stand*; *told*: what it was."""

    def __init__(self, stand: Stand, seed: int) -> None:
        self.stand = stand
        self.random = random.Random(seed)
        self.told: list[str] = []
        self.workers = [stand.worker("--slots", "2") for _ in range(WORKERS)]

    async def strike(self) -> None:
        of_workers = [self.kill_job, self.kill_job, self.kill_worker, self.stop_worker, self.end_worker]
        way = self.random.choice([*of_workers, self.kill_valkey, self.stop_valkey])
        self.told.append(way.__name__)
        await way(self.random.randrange(WORKERS))

    async def kill_job(self, at: int) -> None:
        if jobs := self.stand.jobs_of(self.workers[at]):
            _send(self.random.choice(jobs), signal.SIGKILL)

    async def kill_worker(self, at: int) -> None:
        await self._replace(at, signal.SIGKILL)

    async def end_worker(self, at: int) -> None:
        await self._replace(at, signal.SIGTERM)

    async def stop_worker(self, at: int) -> None:
        pid = self.workers[at].process.pid
        _send(pid, signal.SIGSTOP)
        await asyncio.sleep(self.random.choice((0.5, 1.5 * LEASE)))
        _send(pid, signal.SIGCONT)

    async def kill_valkey(self, at: int) -> None:
        self.stand.valkey.kill()
        await asyncio.sleep(self.random.choice((0.2, 1.0)))
        self.stand.valkey.start()

    async def stop_valkey(self, at: int) -> None:
        _send(self.stand.valkey.pid, signal.SIGSTOP)
        await asyncio.sleep(self.random.choice((0.5, 1.5 * LEASE)))
        _send(self.stand.valkey.pid, signal.SIGCONT)

    async def _replace(self, at: int, number: signal.Signals) -> None:
        gone = self.workers[at]
        self.workers[at] = self.stand.worker("--slots", "2")
        _send(gone.process.pid, number)
        await eventually(lambda: gone.process.poll() is not None, told=lambda: gone.log)

    def logs(self) -> str:
        return "\n\n".join([", ".join(self.told), *(worker.log for worker in self.stand.workers)])


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


async def endure(folder: Path, seed: int) -> None:
    with shop() as site:
        async with stand(folder, appendonly="yes", appendfsync="always") as here:
            # Either all pages are known from the beginning, or workers find all but the first.
            pages, args = (urls(site, PAGES), {}) if seed % 2 else (urls(site, 1, "tree"), {"inner": str(INNER)})
            intake = await here.begin(pages, args=args, lease=LEASE, attempts=50, **GENTLE)
            storm = Storm(here, seed)
            for _ in range(STRIKES):
                await asyncio.sleep(PAUSE)
                await storm.strike()
            balance = (await over(intake, 90, told=storm.logs)).balance
            assert (balance.crawled, balance.settled) == (PAGES, True), f"{balance}\n{storm.logs()}"
            assert sorted(await items(here, intake)) == sorted(map(str, range(PAGES))), storm.logs()
            for worker in storm.workers:
                _send(worker.process.pid, signal.SIGTERM)
                await eventually(lambda worker=worker: worker.process.poll() is not None)
            await eventually(lambda: not here.jobs(), 40)
            assert all(_is_calm(worker) for worker in here.workers), storm.logs()


def _is_calm(worker: Crawl) -> bool:
    return "Traceback" not in worker.log


@awaited
async def test_a_short_storm(tmp_path: Path) -> None:
    await endure(tmp_path, SHORT_SEED)


@LONG
@pytest.mark.parametrize("seed", SEEDS)
@awaited
async def test_storms(seed: int, tmp_path: Path) -> None:
    await endure(tmp_path, seed)

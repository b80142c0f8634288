"""What a shared run costs its server: CPU for each URL, step by step, and memory.

    python benchmarks/shared_server.py [--urls 100000] [--rounds 3] [--memory 1000000] [--append-only]

The workload: a Valkey of its own, and the code of coordinator and worker in this process: the URLs of a site are added
30 and 1,000 in a call, batches of 1,000 are claimed and settled without items. CPU time is the server's own (``INFO
cpu``), that of this process stands beside it. How fast the machine is while it is measured tells *HSETNX alone*: a
script that enters the same keys in one hash, as many in a call, and does nothing else. What holds on another machine is
the ratio to that. *Nothing* is a script that is sent the keys and does not look at them: what a call costs, most of it
the waking of a server that sleeps in between. Of all rounds the cheapest is told, for each step.

*--memory*: how much a server's memory grows by at the fullest, with so many URLs added; 0: not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "fakes"))
from ledgers import receipt
from shared_runs import SharedRun
from valkey_child import valkey

from scrapy_distributed.divert.diverter import Entry
from scrapy_distributed.shared.claims import Claimed
from scrapy_distributed.shared.server import Server
from scrapy_distributed.wire.seen_key import seen_key

LINKS = (30, 1000)  # requests in a call
BATCH = 1000
NOTHING = "nothing"
ALONE = "HSETNX alone"
HSETNX = "for at = 1, #ARGV do redis.call('HSETNX', KEYS[1], ARGV[at], '') end"
TOGETHER = ("add", "claim", "settle")


@dataclass
class Cost:
    """Microseconds of CPU a URL."""

    server: float
    client: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.server + other.server, self.client + other.client)


Costs = dict[str, Cost]


def entries_of(urls: int) -> list[Entry]:
    """As a coordinator diverts the property pages of a site."""
    return [
        (number.to_bytes(20, "big"), json.dumps(f"https://www.homes.example/property_{number:08d}.html"))
        for number in range(urls)
    ]


def parts(entries: list[Entry], size: int) -> Iterator[list[Entry]]:
    return (entries[first : first + size] for first in range(0, len(entries), size))


@asynccontextmanager
async def fresh(*, append_only: bool = False) -> AsyncIterator[Server]:
    with valkey(appendonly="yes" if append_only else "no") as child:
        server = await Server.connect(child.address)
        try:
            yield server
        finally:
            await server.close()


class Meter:
    """Adds up what each step costs."""

    def __init__(self, server: Server, urls: int) -> None:
        self.server = server
        self.urls = urls
        self.costs: Costs = {}

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        server, client = await self._server_seconds(), time.process_time()
        yield
        client, server = time.process_time() - client, await self._server_seconds() - server
        self.costs[name] = Cost(server / self.urls * 1e6, client / self.urls * 1e6)

    async def _server_seconds(self) -> float:
        info, _ = await self.server.about()
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


async def alone(server: Server, entries: list[Entry], links: int) -> Costs:
    """What the machine can do now."""
    meter = Meter(server, len(entries))
    for name, script in ((NOTHING, "return 0"), (ALONE, HSETNX)):
        async with meter.step(name):
            for part in parts(entries, links):
                await server.command("EVAL", script, 1, "alone", *(seen_key(key) for key, _ in part))
    return meter.costs


async def add_all(run: SharedRun, entries: list[Entry], links: int) -> None:
    for part in parts(entries, links):
        assert len(await run.intake.add(part)) == len(part)


async def journey(server: Server, entries: list[Entry], links: int) -> Costs:
    """All *entries* of a run from their coordinator until they are settled, and some more."""
    run = await SharedRun.begin(server)
    meter = Meter(server, len(entries))
    async with meter.step("add"):
        await add_all(run, entries, links)
    async with meter.step("add, all known"):
        for part in parts(entries, links):
            assert not await run.intake.add(part)
    claims: list[Claimed] = []
    async with meter.step("claim"):
        while sum(one.batch.size for one in claims) < len(entries):
            claims.append(await run.claim(BATCH))
    async with meter.step("settle"):
        for claimed in claims:
            await run.worker().settle(claimed, receipt(claimed.attempt))
    assert await run.counts() == {
        "diverted": len(entries), "duplicates": len(entries), "crawled": len(entries),
    }  # fmt: skip
    return meter.costs


async def cheapest(server: Server, entries: list[Entry], rounds: int) -> dict[int, Costs]:
    found: dict[int, Costs] = {links: {} for links in LINKS}
    for _ in range(rounds):
        for links, best in found.items():
            await server.command("FLUSHALL")
            for costs in (await alone(server, entries, links), await journey(server, entries, links)):
                for name, cost in costs.items():
                    before = best.get(name, cost)
                    best[name] = Cost(min(cost.server, before.server), min(cost.client, before.client))
    return found


async def memory(urls: int) -> float:
    """MB that a server's memory grows by with so many URLs, at its fullest."""
    async with fresh() as server:
        before = await used(server)
        run, most = await SharedRun.begin(server), 0
        for part in parts(entries_of(urls), BATCH):
            await run.intake.add(part)
            most = max(most, await used(server))
        return (most - before) / 1e6


async def used(server: Server) -> int:
    """Bytes."""
    return int((await server.about())[0]["used_memory"])


def table(links: int, costs: Costs) -> Iterable[str]:
    yield f"\n{links:,} in a call:\n"
    yield "| step | server, us/URL | ratio | this process, us/URL |"
    yield "|---|---:|---:|---:|"
    one = costs[ALONE].server
    total = Cost(0, 0)
    for name in TOGETHER:
        total += costs[name]
    for name, cost in [*costs.items(), (", ".join(TOGETHER), total)]:
        yield f"| {name} | {cost.server:.2f} | {cost.server / one:.2f} | {cost.client:.2f} |"


async def main(*, urls: int, rounds: int, fullest: int, append_only: bool) -> None:
    async with fresh(append_only=append_only) as server:
        info, _ = await server.about()
        version = info.get("valkey_version") or info["redis_version"]
        print(f"Valkey or Redis {version}, {urls:,} URLs, append-only file: {'yes' if append_only else 'no'}")
        for links, costs in (await cheapest(server, entries_of(urls), rounds)).items():
            print("\n".join(table(links, costs)), flush=True)
    if fullest:
        print(f"\n{fullest:,} URLs take {await memory(fullest):.1f} MB at the fullest")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description="What a shared run costs its server.")
    options.add_argument("--urls", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--memory", type=int, default=1_000_000, dest="fullest")
    options.add_argument("--append-only", action="store_true")
    asyncio.run(main(**vars(options.parse_args())))

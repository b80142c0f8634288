"""How a coordinator behaves with many nodes and many URLs: what a URL costs, its memory, and what its polling takes.

    python benchmarks/scale.py [--nodes 10,100,1000] [--urls 100000,1000000] [--capacity 40000] [--slots 2] [--pages]

Fake nodes in a process of their own take the batches and finish them on a clock; each has its own port and speaks HTTP
over loopback. Every job is as slow as it has to be for the fleet to crawl *capacity* URLs a second, however many nodes
it has. The spider yields its requests straight from its start; with --pages it parses pages of 30 links made in memory.

Printed for each number of nodes and URLs, of the coordinator's process unless said otherwise:

- URLs/s: of wall time, until its own crawl has found the last one
- us/URL: CPU time from its first URL until it is over; *crawl alone*: of the same crawl with a middleware that drops
  the requests, so the difference is the price of distributing, with polling
- core: the same CPU time / wall time
- longest pause: of its event loop, wall time, that another process on the same core is part of
- calls a second and a batch: HTTP requests that the nodes have answered
- fairness: batches of the node that had the fewest and the most, and Jain's index, (sum x)^2 / (n sum x^2)
- settled after: seconds from the last job posted, and from the last job's end, until the run was settled
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import scrapy
from coordinator import BATCH, LINKS, NOWHERE, Drop, PagesSpider
from fake_fleet import CONNECTIONS, allow_open_files
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.link import Link
from scrapy.utils.reactor import install_reactor

TICK = 0.02  # seconds between two looks at the clock
COLUMNS = (
    "nodes", "URLs", "URLs/s", "us/URL", "crawl alone", "core", "longest pause, ms", "peak, MiB", "ledger, MiB",
    "calls/s", "calls/batch", "batches a node", "Jain", "settled after, s",
)  # fmt: skip


class StraightSpider(PagesSpider):
    """Yields *urls* requests of its rule from its start, with nothing to parse."""

    async def start(self) -> AsyncIterator[Any]:
        for number in range(int(self.urls)):
            yield self._build_request(0, Link(f"http://site.example/property_{number:08d}.html", "Sunny house"))


class Watch:
    """Notes when the first URL came, the CPU time until then, and the longest pause of the event loop."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        self.began, self.cpu = time.monotonic(), time.process_time()
        self.longest_pause = 0.0
        self._reactor: Any = reactor
        self._due = self.began
        self._look()

    def _look(self) -> None:
        now = time.monotonic()
        self.longest_pause = max(self.longest_pause, now - self._due)
        self._due = now + TICK
        self._reactor.callLater(TICK, self._look)


def crawl(urls: int, hosts: str, pages: bool) -> None:
    """One crawl in this process, distributed if there are *hosts*; prints its figures as JSON."""
    allow_open_files(100 + (hosts.count(",") + 1) * (1 + CONNECTIONS))
    install_reactor("twisted.internet.asyncioreactor.AsyncioSelectorReactor")
    spider = PagesSpider if pages else StraightSpider
    watch: list[Watch] = []

    class Watched(spider):  # type: ignore[valid-type,misc]
        async def start(self) -> AsyncIterator[Any]:
            watch.append(Watch())
            async for request in super().start():
                yield request

    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.sqlite"
        middleware = "scrapy_distributed.middleware.DistributedSpiderMiddleware" if hosts else Drop
        process = AsyncCrawlerProcess({
            "SPIDER_MIDDLEWARES": {middleware: 100}, "LOG_LEVEL": "ERROR", "TELNETCONSOLE_ENABLED": False,
            "CONCURRENT_ITEMS": 1, "DISTRIBUTED_TARGET_RULE": 0, "DISTRIBUTED_TARGET_HOSTS": hosts,
            "DISTRIBUTED_PROJECT": "pages", "DISTRIBUTED_BATCH_SIZE": BATCH, "DISTRIBUTED_LEDGER": str(ledger),
            "DISTRIBUTED_FLEET_TIMEOUT": 3600, "DISTRIBUTED_TARGET_FEED_URL": NOWHERE,
        })  # fmt: skip
        crawler = process.create_crawler(Watched)
        process.crawl(crawler, urls=str(urls))
        process.start()
        settled = time.monotonic()
        cpu, wall = time.process_time() - watch[0].cpu, settled - watch[0].began
        stats = crawler.stats.get_stats()
        found = stats.get("distributed/crawled", 0), stats.get("distributed/difference", 0)
        assert not hosts or found == (urls // LINKS * LINKS if pages else urls, 0), stats
        print(json.dumps({
            "cpu": cpu, "wall": wall, "walk": walk_seconds(ledger) if hosts else wall, "settled": settled,
            "pause": watch[0].longest_pause, "ledger_mib": ledger.stat().st_size / 2**20 if hosts else 0,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }))  # fmt: skip


def walk_seconds(ledger: Path) -> float:
    """What the coordinator's own crawl took."""
    with closing(sqlite3.connect(ledger)) as db:
        (seconds,) = db.execute("SELECT walked - started FROM run").fetchone()
    return float(seconds)


def measure(urls: int, hosts: str, *, pages: bool, limit: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--crawl", str(urls), "--hosts", hosts, *(["--pages"] if pages else [])]
    figures: dict[str, float] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=limit).stdout
    )
    return figures


def measure_fleet(
    urls: int, *, nodes: int, seconds: float, slots: int, pages: bool, limit: int
) -> tuple[dict[str, float], Any]:
    """The figures of a crawl of *urls* on *nodes*, and those of the nodes."""
    script = Path(__file__).with_name("fake_fleet.py")
    command = [sys.executable, str(script), str(nodes), PagesSpider.name, str(seconds), str(slots)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as fleet:
        assert fleet.stdout is not None
        figures = measure(urls, fleet.stdout.readline().strip(), pages=pages, limit=limit)
        return figures, json.loads(fleet.communicate()[0])


def row(urls: int, nodes: int, figures: dict[str, float], fleet: Any, alone: float) -> tuple[str, ...]:
    batches, calls = fleet["batches"], sum(fleet["calls"].values())
    jain = sum(batches) ** 2 / (len(batches) * sum(count**2 for count in batches))
    after = (figures["settled"] - fleet[moment] for moment in ("last_posted", "last_ended"))
    return (
        f"{nodes:,}", f"{urls:,}", f"{urls / figures['walk']:,.0f}", f"{figures['cpu'] / urls * 1e6:.1f}",
        f"{alone:.1f}", f"{figures['cpu'] / figures['wall']:.0%}", f"{figures['pause'] * 1000:.0f}",
        f"{figures['peak_mib']:.0f}", f"{figures['ledger_mib']:.0f}",
        f"{calls / figures['wall']:,.0f}",
        f"{calls / sum(batches):.1f}", f"{min(batches)} to {max(batches)}", f"{jain:.3f}",
        " / ".join(f"{seconds:.1f}" for seconds in after),
    )  # fmt: skip


def main(nodes: Sequence[int], urls: Sequence[int], *, capacity: int, slots: int, pages: bool, limit: int) -> None:
    """Print a line for each number of URLs and of nodes."""
    workload = f"{'pages of 30 links' if pages else 'URLs straight'}, batches of {BATCH}"
    fleet = f"{slots} slots a node, {capacity:,} URLs/s by the whole fleet"
    print(f"Scrapy {scrapy.__version__}, Python {sys.version.split()[0]}, {workload}, {fleet}\n")
    for line in (COLUMNS, ("---:",) * len(COLUMNS)):
        print(f"| {' | '.join(line)} |", flush=True)
    for count in urls:
        alone = measure(count, "", pages=pages, limit=limit)["cpu"] / count * 1e6
        for size in nodes:
            seconds = size * slots / capacity
            try:
                found = measure_fleet(count, nodes=size, seconds=seconds, slots=slots, pages=pages, limit=limit)
            except subprocess.TimeoutExpired:
                print(f"| {size:,} | {count:,} | not over after {limit:,} s |", flush=True)
            else:
                print(f"| {' | '.join(row(count, size, *found, alone))} |", flush=True)


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a coordinator costs with many nodes and many URLs.")
    parser.add_argument("--nodes", type=numbers, default=[10, 100, 1000])
    parser.add_argument("--urls", type=numbers, default=[100_000, 1_000_000])
    parser.add_argument("--capacity", type=int, default=40_000, help="URLs a second of the whole fleet (40000)")
    parser.add_argument("--slots", type=int, default=2, help="jobs that a node runs at once (2)")
    parser.add_argument("--limit", type=int, default=1800, help="seconds that a crawl may take (1800)")
    parser.add_argument("--pages", action="store_true", help="make and parse pages, as a crawl does")
    parser.add_argument("--crawl", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--hosts", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.crawl:
        crawl(asked.crawl, asked.hosts, asked.pages)
    else:
        main(asked.nodes, asked.urls, capacity=asked.capacity, slots=asked.slots, pages=asked.pages, limit=asked.limit)

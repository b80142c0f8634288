"""What a coordinator costs for each URL that it diverts, and whether its memory grows with them.

    python benchmarks/coordinator.py [URLS ...]      (default: 20000 200000)

The workload: pages of 30 links made in memory (no network), LinkExtractor and CrawlSpider as in any crawl; fake nodes
in a process of their own take the batches and settle them. CPU time is taken in three ways:

- diverting: in the middleware, of fingerprint, encoding, ledger, batches, compression and handing over to the network
- LinkExtractor: of the extraction of the same links, in the same process
- difference: each size runs once more with a middleware that drops the same requests; the difference of the two whole
  processes is the price of everything, with connections, polling, receipts and what it does to the caches
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import scrapy
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.http import HtmlResponse, Response
from scrapy.linkextractors import LinkExtractor
from scrapy.spidermiddlewares.base import BaseSpiderMiddleware
from scrapy.spiders import CrawlSpider, Rule

from scrapy_distributed.coordinator.diversion import Diversion

LINKS = 30
BATCH = 1000
NODES = 3
NOWHERE = "ftp://feeds.example/%(batch)s.jl"  # no job runs that would write there


class PagesSpider(CrawlSpider):
    """Walks *urls* / 30 pages that it makes itself, and notes the CPU seconds that LinkExtractor takes for them."""

    name = "pages"
    rules = [Rule(LinkExtractor(restrict_css="ul"), callback="parse_item")]
    cpu_link_extractor = 0.0

    async def start(self) -> AsyncIterator[Any]:
        for page in range(int(self.urls) // LINKS):
            yield scrapy.Request(f"data:,{page}", callback=self.parse_page, dont_filter=True)

    def parse_page(self, response: Response) -> Iterator[Any]:
        page = int(response.text)
        links = "".join(
            f'<li><a href="/property_{number:08d}.html">Sunny house number {number}</a></li>'
            for number in range(page * LINKS, (page + 1) * LINKS)
        )
        body = f"<html><body><h1>Page {page}</h1><ul>{links}</ul></body></html>".encode()
        html = HtmlResponse(f"http://site.example/index_{page}.html", body=body, request=response.request)
        before = time.process_time()
        found = self._rules[0].link_extractor.extract_links(html)
        self.cpu_link_extractor += time.process_time() - before
        yield from (self._build_request(0, link) for link in found)

    def closed(self, reason: str) -> None:
        self.crawler.stats.set_value("link_extractor", self.cpu_link_extractor)

    def parse_item(self, response: Response) -> None:
        """Never called: no page is fetched."""


class Drop(BaseSpiderMiddleware):
    """Takes the same requests away and does nothing with them."""

    def get_processed_request(self, request: scrapy.Request, response: Response | None) -> scrapy.Request | None:
        return None if "rule" in request.meta else request


class Timed:
    """Wraps a function and adds up the CPU seconds of its calls."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.cpu = 0.0

    def __call__(self, *args: Any) -> Any:
        before = time.process_time()
        try:
            return self.function(*args)
        finally:
            self.cpu += time.process_time() - before


def crawl(urls: int, hosts: str) -> None:
    """One crawl in this process, distributed if there are *hosts*; prints its figures as JSON."""
    divert = Timed(Diversion.divert)
    Diversion.divert = lambda self: divert(self)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        middleware = "scrapy_distributed.middleware.DistributedSpiderMiddleware" if hosts else Drop
        settings = {
            "SPIDER_MIDDLEWARES": {middleware: 100}, "LOG_LEVEL": "ERROR", "TELNETCONSOLE_ENABLED": False,
            "CONCURRENT_ITEMS": 1, "DISTRIBUTED_TARGET_RULE": 0, "DISTRIBUTED_TARGET_HOSTS": hosts,
            "DISTRIBUTED_PROJECT": "pages", "DISTRIBUTED_BATCH_SIZE": BATCH, "DISTRIBUTED_TARGET_FEED_URL": NOWHERE,
            "DISTRIBUTED_LEDGER": str(Path(folder) / "ledger.sqlite"),
        }  # fmt: skip
        process = AsyncCrawlerProcess(settings)
        crawler = process.create_crawler(PagesSpider)
        process.crawl(crawler, urls=str(urls))
        before, start = time.process_time(), time.monotonic()
        process.start()
        stats = crawler.stats.get_stats()
        assert not hosts or (stats["distributed/crawled"], stats["distributed/difference"]) == (
            urls // LINKS * LINKS,
            0,
        )
        print(json.dumps({
            "diverting": divert.cpu, "cpu": time.process_time() - before, "wall": time.monotonic() - start,
            "link_extractor": stats["link_extractor"],
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }))  # fmt: skip


def measure(urls: int, hosts: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--crawl", str(urls), hosts]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(output)
    return figures


def main(sizes: list[int]) -> None:
    """Print a Markdown table of microseconds of CPU a URL, and MiB."""
    print(f"Scrapy {scrapy.__version__}, Python {sys.version.split()[0]}, {NODES} fake nodes, batches of {BATCH}\n")
    print("| URLs | diverting, us/URL | LinkExtractor, us/URL | ratio | difference, us/URL | peak, MiB | wall, s |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for urls in sizes:
        command = [sys.executable, str(Path(__file__).with_name("fake_fleet.py")), str(NODES), PagesSpider.name]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as fleet:
            assert fleet.stdout is not None
            dropped = measure(urls, "")
            ours = measure(urls, fleet.stdout.readline().strip())
            fleet.communicate()
        diverting, links = ours["diverting"] / urls * 1e6, ours["link_extractor"] / urls * 1e6
        difference = (ours["cpu"] - dropped["cpu"]) / urls * 1e6
        print(
            f"| {urls:,} | {diverting:.1f} | {links:.1f} | {diverting / links:.2f} | {difference:.1f}"
            f" | {ours['peak_mib']:.0f} | {ours['wall']:.0f} |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--crawl"]:
        crawl(int(sys.argv[2]), sys.argv[3])
    else:
        main([int(size) for size in sys.argv[1:]] or [20_000, 200_000])

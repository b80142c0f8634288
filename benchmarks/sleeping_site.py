"""A site whose pages do nothing but sleep, and which notes when each was asked for.

    PYTHONPATH=example_project/site python benchmarks/sleeping_site.py LATENCY HEAVY

``/page/<crawl>/<number>`` takes *LATENCY* seconds, each hundredth *HEAVY* ones; longer for a worker that says so by its
user agent. ``/index/<number>`` takes a second. ``/times.json`` tells for each crawl how many pages were *sent*, how
many requests there were for them, and how many seconds each took from its discovery (``found``, in its URL) until it
was there.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from http_messages import Request, Response, as_json
from site_server import NOT_FOUND, Site, serve

PAGE = re.compile(r"/page/(\w+)/(\d+)")
INDEX_SECONDS = 1.0
HEAVY_EACH = 100


@dataclass(kw_only=True)
class Crawl:
    """What one crawl has asked for."""

    requests: int = 0
    took: dict[int, float] = field(default_factory=dict)  # seconds, by page

    def as_dict(self) -> dict[str, object]:
        return {"sent": len(self.took), "requests": self.requests, "took": list(self.took.values())}


@dataclass(kw_only=True)
class SleepingSite(Site):
    """*heavy*: seconds that each hundredth page takes, 0 for as long as the others."""

    heavy: float = 0.0
    crawls: dict[str, Crawl] = field(default_factory=lambda: defaultdict(Crawl))

    def answer(self, request: Request) -> Response:
        if match := PAGE.fullmatch(request.path):
            return self._page(request, self.crawls[match[1]], int(match[2]))
        if request.path.startswith("/index/"):
            return Response(delay=INDEX_SECONDS)
        if request.path == "/times.json":
            return as_json({name: crawl.as_dict() for name, crawl in self.crawls.items()})
        return NOT_FOUND

    def _page(self, request: Request, crawl: Crawl, number: int) -> Response:
        is_heavy = self.heavy and number % HEAVY_EACH == HEAVY_EACH // 2
        times = float(request.headers["user-agent"].rpartition(" ")[2])
        delay = (self.heavy if is_heavy else self.latency) * times
        found = float(parse_qs(request.target.partition("?")[2])["found"][0])
        crawl.requests += 1
        crawl.took.setdefault(number, time.monotonic() + delay - found)
        return Response(delay=delay)


if __name__ == "__main__":
    site = SleepingSite(properties=0, latency=float(sys.argv[1]), heavy=float(sys.argv[2]))
    asyncio.run(serve(site, "127.0.0.1", 0))

"""The example's site, which also notes when it was asked for what: the same clock for every contender.

    PYTHONPATH=example_project/site python benchmarks/timed_site.py PROPERTIES LATENCY

``/times.json`` tells when the first and the last property was sent and when each index page was asked for
(``time.monotonic()``, which all processes of a machine share), how many properties were sent, and how many again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field

from http_messages import Request, Response, as_json
from site_server import Site, serve


@dataclass(kw_only=True)
class TimedSite(Site):
    """Times in seconds; ``None`` until there is one."""

    sent: int = 0
    again: int = 0
    first: float | None = None
    last: float | None = None
    index: list[float] = field(default_factory=list)

    def answer(self, request: Request) -> Response:
        if request.path == "/times.json":
            return as_json(
                {"sent": self.sent, "again": self.again, "first": self.first, "last": self.last, "index": self.index}
            )
        if request.path == "/sent.json":  # asked for again and again: short
            return as_json({"sent": self.sent})
        return super().answer(request)

    def page(self, kind: str, number: int) -> Response:
        response = super().page(kind, number)
        now = time.monotonic()
        if kind == "index":
            self.index.append(now)
        elif kind == "property" and number < self.properties:
            if self.visits[number] > 1:
                self.again += 1
            else:
                self.sent += 1
                self.first = self.first or now
                self.last = now + self.latency
        return response


if __name__ == "__main__":
    site = TimedSite(properties=int(sys.argv[1]), latency=float(sys.argv[2]))
    asyncio.run(serve(site, "127.0.0.1", 0))

"""How long a request takes a worker, as far as its settings tell before one was made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from scrapy import Spider
from scrapy.settings import BaseSettings, Settings

from scrapy_distributed.config.politeness import A_SECOND, Limit, limits_of, settings_of_worker

LATENCY = 0.1  # seconds that a page takes to come, while none has
LEAST = 0.01  # seconds of CPU that a page takes
LONGEST = 3600.0
#: e - 1.5: when a random delay is over Scrapy draws another, and waits on if that is longer (``Downloader`` in
#: core/downloader, measured as well).
DELAYS = 1.218
RAMP = 2.0  # times its first delay AutoThrottle waits until it has found its own: each one is half of that before
MANY = 100  # hosts that are told apart where ``CONCURRENT_REQUESTS`` is 0

_HOST = re.compile(r'https?://(?:[^/?#"@]*@)?([^/?#":]+)')
_SLOT = re.compile(r'"download_slot": ?"([^"]*)"')  # takes the place of the host


class Prior:
    """By *settings*, those of a worker, and the hosts of what is queued. All times are seconds.

    *seconds*: a request, where others are made meanwhile. *least*: what it takes whatever jobs say, as delays are kept
    also between two jobs. *ramp*: what each job takes besides, until AutoThrottle has found its delay. *delay*: the
    longest one that a job keeps before it asks a site first."""

    def __init__(self, settings: BaseSettings) -> None:
        self._settings = settings
        self._total = settings.getint("CONCURRENT_REQUESTS")
        self._hosts: set[str] = set()
        self.ramp = 0.0
        if settings.getbool("AUTOTHROTTLE_ENABLED"):
            first = max(settings.getfloat("AUTOTHROTTLE_START_DELAY"), settings.getfloat("DOWNLOAD_DELAY"))
            self.ramp = min(RAMP * first, LONGEST)
        self.delay = self.least = 0.0
        self.seconds = self._seconds()

    @classmethod
    def of(cls, settings: BaseSettings, job: Mapping[str, str], spider: Spider | type[Spider] | None) -> Prior:
        """*settings*: of a crawl with *spider*; *job*: what its jobs get of them."""
        try:
            return cls(settings_of_worker(settings, job, spider))
        except (ValueError, TypeError, AttributeError):  # each job will fail with the same, and tell
            return cls(Settings())

    def note(self, bodies: Iterable[str]) -> None:
        """These requests, as texts, are queued. No more hosts are told apart than a worker asks at once."""
        most = self._total or MANY
        known = len(self._hosts)
        for body in bodies:
            if len(self._hosts) >= most:
                break
            if found := _SLOT.search(body):
                self._hosts.add(found[1])
            elif found := _HOST.search(body):
                self._hosts.add(found[1].lower())
        if len(self._hosts) > known:
            self.seconds = self._seconds()

    def _seconds(self) -> float:
        slots = self._settings.getdict("DOWNLOAD_SLOTS")
        limits = [limits_of(self._settings, slots.get(host, {})) for host in self._hosts or {""}]
        rate = sum(min(map(_rate, of_host)) for of_host in limits)
        delays = [1 / limit.number for of_host in limits for limit in of_host if limit.unit == A_SECOND]
        self.delay = 0.0 if self.ramp else min(max(delays, default=0.0), LONGEST)
        kept = sum(1 / delay for delay in delays) if len(delays) == len(limits) else 0.0  # else a site has none
        self.least = min(1 / kept, LONGEST) if kept else 0.0
        if self._total > 0:
            rate = min(rate, self._total / LATENCY)
        return min(max(1 / max(rate, 1 / LONGEST), LEAST), LONGEST)


def _rate(limit: Limit) -> float:
    """Requests a second."""
    return limit.number / DELAYS if limit.unit == A_SECOND else limit.number / LATENCY

"""The delay before what a job asks of a site first: another job of its slot may have asked that site a moment before,
and a site is to get from each slot what it gets from one crawl."""

from __future__ import annotations

import time

from scrapy import Request, signals
from scrapy.core import downloader
from scrapy.crawler import Crawler

from scrapy_distributed.config.politeness import A_SECOND, limits_of, settings_of_worker
from scrapy_distributed.worker.process_age import process_age

#: The clock of Scrapy's downloader: ``time.monotonic``, in older versions ``time.time``.
_clock = getattr(downloader, "monotonic", time.time)


class FirstDelay:
    """Has the downloader of *crawler* take *since* for the time at which each site was asked last. That is when the job
    before it in its slot has ended, in seconds since 1970; 0: a Scrapyd does not tell, and has started this one after
    that.

    AutoThrottle's delay is left out. Each job finds that anew, and waits longer for it than one crawl would.
    """

    def __init__(self, crawler: Crawler, since: float) -> None:
        self.crawler = crawler
        ago = max(0.0, time.time() - since) if since else process_age()  # clocks are set back
        self.since = _clock() - ago
        if _has_delays(crawler):
            crawler.signals.connect(self._request_reached_downloader, signals.request_reached_downloader)

    def _request_reached_downloader(self, request: Request) -> None:
        assert self.crawler.engine is not None
        slots = getattr(self.crawler.engine.downloader, "slots", {})  # another DOWNLOADER may have none
        slot = slots.get(request.meta.get("download_slot"))
        if slot is not None and not slot.lastseen:
            slot.lastseen = self.since


def _has_delays(crawler: Crawler) -> bool:
    settings = settings_of_worker(crawler.settings, {}, crawler.spider)
    slots = [{}, *settings.getdict("DOWNLOAD_SLOTS").values()]
    delays = any(limit.unit == A_SECOND for slot in slots for limit in limits_of(settings, slot))
    return delays and not settings.getbool("AUTOTHROTTLE_ENABLED")

"""Faults inside a worker at an exact moment, and the spiders of the chaos tests.

A fault happens to the worker that takes a *grant* of it first: a file ``<fault>.<n>.grant`` in the folder that the
setting ``CHAOS_FOLDER`` names, which the worker renames to ``.taken``. So each grant is good for one fault, and the
test can see that it has happened. Without ``CHAOS_FOLDER`` there are no faults.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import NotConfigured
from scrapy.extensions.feedexport import BlockingFeedStorage
from scrapy.http import Response

from trial.spiders import MARK, TrialSpider

KILL_MIDWAY = "kill-midway"
"""kill -9 when some items have been scraped."""
TERM_MIDWAY = "term-midway"
"""SIGTERM at the same moment."""
KILL_STORED = "kill-stored"
"""kill -9 when the feed has been stored and the final receipt has not been written."""
TERM_STORING = "term-storing"
"""SIGTERM while the feed is being stored."""
STORE_REFUSED = "store-refused"
"""The place for the feed takes nothing."""
STORE_CUT_OFF = "store-cut-off"
"""The line breaks when half of the feed is there."""

MIDWAY_ITEMS = 5
UPLOAD_SECONDS = 0.5  # that an upload takes, where it matters
DETAILS = 3


class Grants:
    """The switches in *folder*; with none there are no faults."""

    def __init__(self, folder: str | None) -> None:
        self.folder = Path(folder) if folder else None

    def take(self, fault: str) -> bool:
        """Whether *fault* is to happen here and now."""
        for grant in sorted(self.folder.glob(f"{fault}.*.grant")) if self.folder else ():
            try:
                grant.rename(grant.with_suffix(".taken"))
            except FileNotFoundError:  # another worker was faster
                continue
            return True
        return False


class Faults:
    """Extension: ends its own process."""

    def __init__(self, grants: Grants) -> None:
        self.grants = grants
        self.items = 0

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Faults:
        folder = crawler.settings.get("CHAOS_FOLDER")
        if not folder or not crawler.settings.get("DISTRIBUTED_START_URL"):
            raise NotConfigured
        faults = cls(Grants(folder))
        crawler.signals.connect(faults._item_scraped, signals.item_scraped)
        crawler.signals.connect(faults._feed_slot_closed, signals.feed_slot_closed)
        return faults

    def _item_scraped(self) -> None:
        self.items += 1
        if self.items == MIDWAY_ITEMS:
            if self.grants.take(KILL_MIDWAY):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.grants.take(TERM_MIDWAY):
                os.kill(os.getpid(), signal.SIGTERM)

    def _feed_slot_closed(self) -> None:
        if self.grants.take(KILL_STORED):
            os.kill(os.getpid(), signal.SIGKILL)


class Upload(BlockingFeedStorage):
    """``upload:///path``: stores the feed at the end and as a whole, as FTP and S3 do, or fails."""

    def __init__(self, uri: str, grants: Grants) -> None:
        self.path = Path(urlsplit(uri).path)
        self.grants = grants

    @classmethod
    def from_crawler(cls, crawler: Crawler, uri: str, *, feed_options: dict[str, Any] | None = None) -> Upload:
        return cls(uri, Grants(crawler.settings.get("CHAOS_FOLDER")))

    def _store_in_thread(self, file: IO[bytes]) -> None:
        file.seek(0)
        content = file.read()
        file.close()
        if self.grants.take(STORE_REFUSED):
            raise ConnectionRefusedError("the place for the feed takes nothing")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.grants.take(STORE_CUT_OFF):
            self.path.write_bytes(content[: len(content) // 2])
            raise ConnectionResetError("the line broke")
        if self.grants.take(TERM_STORING):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(UPLOAD_SECONDS)
        self.path.write_bytes(content)


class LeadingSpider(TrialSpider):
    """*count* start pages for the fleet; each leads to three pages, and only those have items.

    *order* is the priority of these pages: 1 crawls them as soon as they are found, -1 after all start pages."""

    name = "leading"
    custom_settings = {
        "DISTRIBUTED_TARGET_CALLBACKS": ["parse"],
        "DISTRIBUTED_WORKER_ARGS": ["site", "order"],
        "CONCURRENT_REQUESTS": 2,
    }

    def __init__(self, count: str = "0", order: str = "1", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count
        self.order = order

    async def start(self) -> AsyncIterator[Any]:
        for number in range(int(self.count)):
            yield Request(f"{self.site}/property_{number:06d}.html", self.parse, meta=dict(MARK))

    def parse(self, response: Response) -> Iterator[Any]:
        for detail in range(DETAILS):
            yield Request(f"{response.url}?detail={detail}", self.parse_detail, priority=int(self.order))

    def parse_detail(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url}

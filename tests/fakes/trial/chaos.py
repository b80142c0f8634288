"""Faults inside a worker at an exact moment, and the spiders of the chaos tests.

A fault happens to the worker that takes a *grant* of it first: a file ``<fault>.<n>.grant`` in the folder that the
setting ``CHAOS_FOLDER`` names, which the worker renames to ``.taken``. So each grant is good for one fault, and the
test can see that it has happened. Without ``CHAOS_FOLDER`` there are no faults.
"""

from __future__ import annotations

import errno
import os
import random
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
OPEN_REFUSED = "open-refused"
"""The feed can't be opened for ``AWHILE_SECONDS``, from the first item on; after that it can."""
DISK_FULL = "disk-full"
"""When some items have been written the disk takes half of each, for ``AWHILE_SECONDS``; after that it takes all."""

MIDWAY_ITEMS = 5
UPLOAD_SECONDS = 0.5  # that an upload takes, where it matters
AWHILE_SECONDS = 0.5
DETAILS = 3


class Grants:
    """The switches in *folder*; with none there are no faults."""

    _taken = False  # by this process: a worker has one fault at most, so that none hides another

    def __init__(self, folder: str | None) -> None:
        self.folder = Path(folder) if folder else None

    def take(self, fault: str) -> bool:
        """Whether *fault* is to happen here and now."""
        for grant in sorted(self.folder.glob(f"{fault}.*.grant")) if self.folder and not Grants._taken else ():
            try:
                grant.rename(grant.with_suffix(".taken"))
            except FileNotFoundError:  # another worker was faster
                continue
            Grants._taken = True
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


class FullDisk:
    """*file*, on a disk that is full for a while."""

    def __init__(self, file: IO[bytes], grants: Grants) -> None:
        self._file = file
        self._grants = grants
        self._writes = 0
        self._full_until = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        self._writes += 1
        if self._writes == MIDWAY_ITEMS and self._grants.take(DISK_FULL):
            self._full_until = time.monotonic() + AWHILE_SECONDS
        if time.monotonic() < self._full_until:
            self._file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "the disk is full")
        return self._file.write(data)


class Upload(BlockingFeedStorage):
    """``upload:///path``: stores the feed at the end and as a whole, as FTP and S3 do, or fails."""

    def __init__(self, uri: str, grants: Grants) -> None:
        self.path = Path(urlsplit(uri).path)
        self.grants = grants
        self.refuses_until = 0.0

    def open(self, spider: Any) -> IO[bytes]:
        at_work = spider.crawler.stats.get_value("response_received_count")  # else it is only tried
        if at_work and self.grants.take(OPEN_REFUSED):
            self.refuses_until = time.monotonic() + AWHILE_SECONDS
        if time.monotonic() < self.refuses_until:
            raise PermissionError(errno.EACCES, "the folder for temporary files takes nothing")
        return FullDisk(super().open(spider), self.grants)  # type: ignore[return-value]

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
    """*count* start pages for the fleet, each time in another order, as lists of a site that lives; each leads to three
    pages, and only those have items.

    *order* is the priority of these pages: 1 crawls them as soon as they are found, -1 after all start pages."""

    name = "leading"
    custom_settings = {
        "DISTRIBUTED_TARGET_CALLBACKS": ["parse"],
        "CONCURRENT_REQUESTS": 2,
    }

    def __init__(self, count: str = "0", order: str = "1", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count
        self.order = order

    async def start(self) -> AsyncIterator[Any]:
        for number in random.sample(range(int(self.count)), int(self.count)):
            yield Request(f"{self.site}/property_{number:06d}.html", self.parse, meta=dict(MARK))

    def parse(self, response: Response) -> Iterator[Any]:
        for detail in range(DETAILS):
            yield Request(f"{response.url}?detail={detail}", self.parse_detail, priority=int(self.order))

    def parse_detail(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url}


class ShopSpider(TrialSpider):
    """List pages with an item of their own each, and with properties, which are the fleet's; each property has an
    item, and leads to pages that have one as well."""

    name = "shop"
    custom_settings = {"DISTRIBUTED_TARGET_CALLBACKS": ["parse_property"]}

    def parse(self, response: Any) -> Iterator[Any]:
        yield {"kind": "list", "url": response.url}
        for link in response.css("ul.properties a"):
            yield response.follow(link, self.parse_property)
        for link in response.css("a.next"):
            yield response.follow(link)

    def parse_property(self, response: Any) -> Iterator[Any]:
        yield {"kind": "property", "url": response.url, "price": response.css('[itemprop="price"]::text').get()}
        for detail in range(DETAILS):
            yield Request(f"{response.url}?detail={detail}", self.parse_detail, cb_kwargs={"of": response.url})

    def parse_detail(self, response: Any, of: str) -> Iterator[Any]:
        yield {"kind": "detail", "url": response.url, "of": of, "title": response.css("h1::text").get()}

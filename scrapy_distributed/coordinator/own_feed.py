"""Where workers write feeds: what the coordinator scrapes itself goes to the same place, as feeds of a batch 0."""

from __future__ import annotations

import logging
import re
from typing import Any

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.extensions.feedexport import FeedExporter
from scrapy.settings import BaseSettings
from scrapy.utils.defer import ensure_awaitable

from scrapy_distributed.config.config import Config
from scrapy_distributed.coordinator.keeper import HomeLedger, OwnSpooled
from scrapy_distributed.errors import LedgerError, WireError
from scrapy_distributed.feeds.feeds import Feeds
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.spooled import lost_words
from scrapy_distributed.ledger.states import job_id, new_token
from scrapy_distributed.wire.job_template import with_token

logger = logging.getLogger(__name__)


class OwnFeed:
    """Writes the items of *crawler*, which are in *spool* until their feed is stored; then *ledger* knows it, and
    ``merge`` finds it. The feed is opened for the first item: most coordinators have none."""

    idle = True  # it writes as it goes

    def __init__(self, crawler: Crawler, *, config: Config, spool: Spool, ledger: HomeLedger) -> None:
        self.crawler = crawler
        self.spider: Any = crawler.spider
        self.config = config
        self.spool = spool
        self.ledger = ledger
        self.exporter: FeedExporter | None = None
        self.feeds: Feeds | None = None
        self.own = OwnSpooled(spool=spool, ledger=ledger, spider=self.spider)
        self._names: list[str] = []  # in the spool, of what goes into the feed
        self._run = ""
        self._failed = self._stored = False
        crawler.signals.connect(self._item_scraped, signals.item_scraped)

    def begin(self, run: str, *, walk: bool) -> None:
        """As that of a ``Keeper``: what could not be stored before."""
        self._run = run
        if walk:
            self.ledger.forget_own()
        own = self.own.begin(run, walk=walk, home={})
        self._names = [*self.own.earlier, own]
        for name, file in self.own.earlier.items():
            try:
                for line in self.spool.lines(name, file):
                    self._export(line.item)
            except (OSError, WireError) as error:
                lost = {name: f"can't be read any more: {error}"}
                raise LedgerError(lost_words(self.spool.folder, lost, self.ledger.advice)) from None

    def own_is_safe(self) -> bool:
        """As that of a ``Keeper``: it is in the spool, or in a feed that counts."""
        return self._stored or self.own.is_safe()

    async def finish(self) -> None:
        """Nothing is on its way."""

    async def close(self) -> bool:
        """As that of a ``Keeper``."""
        self.own.close()
        if self.exporter is None or self.feeds is None:
            return not self._failed
        try:
            await ensure_awaitable(self.exporter.close_spider(self.spider))
        except Exception:
            logger.exception("Closing the feed of the items that were scraped here failed", extra=self._extra)
            return False
        self.feeds.close()
        assert self.crawler.stats is not None
        if self._failed or not self.feeds.stored(self.crawler.stats.get_stats()):
            return False
        self.ledger.store_own(self._names, self.feeds.files)
        self._stored = True
        return True

    def ended(self) -> None:
        """As that of a ``Keeper``."""
        self.spool.forget(self.ledger.earlier_runs())

    def _item_scraped(self, item: Any) -> None:
        if self.own.begun:
            self.own.keep(item)
            self._export(item)

    def _export(self, item: Any) -> None:
        if self._failed:
            return
        try:
            if self.exporter is None:
                self._open()
            assert self.exporter is not None
            self.exporter.item_scraped(item, self.spider)
        except Exception:
            self._failed = True
            logger.exception(
                "The feed for items that are scraped here can't be written. They are kept, and the same command tries"
                " to write them again", extra=self._extra,
            )  # fmt: skip

    def _open(self) -> None:
        token = new_token()
        feeds = {
            own_url(url, token=token, job=job_id(self._run, 0, 1, token)): {**options, "store_empty": False}
            for url, options in self._wanted().items()
        }
        exporter = FeedExporter(_Crawler(self.crawler, feeds))  # type: ignore[arg-type]
        self.feeds = Feeds(self.crawler, exporter)
        self.crawler.signals.connect(self.feeds.file_closed, signals.feed_slot_closed)
        exporter.open_spider(self.spider)
        self.exporter = exporter

    def _wanted(self) -> dict[str, dict[str, Any]]:
        """The feeds that jobs get, with their options."""
        if self.config.target_feed_url:
            return {self.config.target_feed_url: {"format": self.crawler.settings["FEED_FORMAT"] or "jsonlines"}}
        return {url: dict(options) for url, options in self.config.target_feeds.items()}

    @property
    def _extra(self) -> dict[str, Any]:
        return {"spider": self.spider}


class _Crawler:
    """*own*, with other *feeds* in its settings."""

    def __init__(self, own: Crawler, feeds: dict[str, Any]) -> None:
        self._own = own
        self.settings = BaseSettings(own.settings)  # own ones are frozen
        self.settings.set("FEED_URI", None, priority="cmdline")
        self.settings.set("FEEDS", feeds, priority="cmdline")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


def own_url(feed: str, *, token: str, job: str) -> str:
    """The URL *feed*, a template of Scrapy's, as that of a job of a batch 0, with what only jobs have filled in."""
    known = {"%%": "%%", "%(batch)s": "0", "%(_job)s": job}
    return re.sub(r"%%|%\(batch\)s|%\(_job\)s", lambda found: known[found[0]], with_token(feed, token))

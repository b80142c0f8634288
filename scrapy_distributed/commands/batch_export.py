"""``scrapy batches export``: what has come home, written once more, by a crawl that has no more to do than that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from scrapy import Spider, signals
from scrapy.crawler import Crawler, CrawlerProcess
from scrapy.settings import Settings
from scrapy.spiderloader import get_spider_loader
from scrapy.utils.conf import feed_process_params_from_cli

from scrapy_distributed.errors import LedgerError, WireError
from scrapy_distributed.feeds.feeds import Feeds
from scrapy_distributed.items.spool import Spool

if TYPE_CHECKING:
    from scrapy_distributed.ledger.reader import LedgerReader
    from scrapy_distributed.ledger.records import RunRecord

# Nothing of the project has a part in this but its spider's feed settings, storages, exporters, and classes of items.
ALONE: dict[str, Any] = {
    "ADDONS": {}, "ITEM_PIPELINES": {}, "DOWNLOADER_MIDDLEWARES": {}, "EXTENSIONS": {}, "TELNETCONSOLE_ENABLED": False,
    "JOBDIR": "", "FEED_URI": None, "LOG_ENABLED": True, "LOG_LEVEL": "WARNING", "LOG_FILE": None,
}  # fmt: skip


def export(ledger: LedgerReader, run: RunRecord, output: str, settings: Settings) -> tuple[int, bool]:
    """Write all that has come home of *run* to *output* (``FILE`` or ``FILE:FORMAT``, as Scrapy has it). Returns the
    number of items, and whether all of them are there. Raises ``LedgerError`` where the spool lacks something, or the
    project has no such spider."""
    spider = run.identity["spider"]
    try:
        kind = get_spider_loader(settings).load(spider)
    except KeyError:
        raise LedgerError(f"{ledger.path}: its spider {spider!r:.100} is none of the project in this folder") from None
    spool = Spool(ledger.path, kind)
    spool.folder = spool.beside / run.name
    names = [*spool.own(), *ledger.home_files(run.id)]
    missing = [name for name in names if not (spool.folder / name).exists()]
    if missing or not names:
        what = f"{len(missing)} files are missing, {missing[0]} first" if missing else "nothing is there"
        raise LedgerError(
            f"{spool.folder}: {what}, expected the items that came home. They are kept until the next run of this"
            " spider ends; where workers have feeds of their own nothing comes home: see scrapy batches merge"
        )
    kind.update_settings(settings)
    feeds = feed_process_params_from_cli(settings, [], overwrite_output=[output])
    settings.setdict({**ALONE, "SPIDER_MIDDLEWARES": {_Watch: 100}, "FEEDS": feeds}, priority="cmdline")
    process = CrawlerProcess(settings)
    crawler = process.create_crawler(_Exporting)
    process.crawl(crawler, spool=spool, names=names, name=kind.name)
    process.start()
    done: Any = crawler.spider
    return done.items, done.whole and done.stored


class _Exporting(Spider):
    """Yields what is in the files called *names*. *items*: how many; *whole*: the last one is read; *stored*: and all
    are in the feed."""

    name = "export"

    def __init__(self, *, spool: Spool, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spool = spool
        self.names = names
        self.feeds: Any = None
        self.items = 0
        self.whole = self.stored = False

    async def start(self) -> AsyncIterator[Any]:
        for name in self.names:
            try:
                for line in self.spool.lines(name):
                    if self.feeds.lacks_items:
                        return
                    self.items += 1
                    yield line.item
            except (OSError, WireError) as error:
                self.logger.error("%s: %s", self.spool.folder / name, error)
                return
        self.whole = True


class _Watch:
    """A spider middleware, as these are made when Scrapy has its ``FeedExporter`` and before that opens the feed."""

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> _Watch:
        spider: Any = crawler.spider
        feeds = Feeds(crawler)
        assert crawler.stats is not None
        stats = crawler.stats

        def closed() -> None:
            feeds.close()
            spider.stored = feeds.stored(stats.get_stats())

        crawler.signals.connect(feeds.file_closed, signals.feed_slot_closed)
        crawler.signals.connect(closed, signals.feed_exporter_closed, weak=False)
        spider.feeds = feeds
        return cls()

"""``scrapy batches export``: what has come home, written once more, by a crawl that has no more to do than that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from scrapy import Spider, signals
from scrapy.crawler import Crawler, CrawlerProcess
from scrapy.settings import Settings
from scrapy.spiderloader import get_spider_loader
from scrapy.utils.conf import feed_process_params_from_cli

from scrapy_distributed.errors import LedgerError, WireError
from scrapy_distributed.feeds.feeds import Feeds
from scrapy_distributed.items.spool import Spool
from scrapy_distributed.ledger.spooled import lost_words
from scrapy_distributed.wire.receipt import ItemsFile

if TYPE_CHECKING:
    from scrapy_distributed.commands.operating import AtHome
    from scrapy_distributed.ledger.records import RunRecord

# Nothing of the project has a part in this but its spider's feed settings, storages, exporters, and classes of items.
ALONE: dict[str, Any] = {
    "ADDONS": {}, "ITEM_PIPELINES": {}, "DOWNLOADER_MIDDLEWARES": {}, "EXTENSIONS": {}, "TELNETCONSOLE_ENABLED": False,
    "JOBDIR": "", "FEED_URI": None, "LOG_ENABLED": True, "LOG_LEVEL": "WARNING", "LOG_FILE": None,
}  # fmt: skip


def export(home: AtHome, run: RunRecord, output: str, settings: Settings) -> tuple[int, str]:
    """Write all that has come home of *run* to *output* (``FILE`` or ``FILE:FORMAT``, as Scrapy has it). Returns the
    number of items, and what is wrong if not all of them are there. Raises ``LedgerError`` where none is, or the
    project has no such spider."""
    kind = _kind(run, settings)
    spool, files = _spool(home, run, kind), home.files
    faults = {name: fault for name, file in files.items() if (fault := spool.fault(name, file))}
    if len(faults) == len(files):
        raise LedgerError(
            f"{spool.folder}: found nothing that can be exported, expected the items that came home. They are kept"
            " until the next run of this spider ends; where workers have feeds of their own nothing comes home: see"
            " scrapy batches merge" + (f". {lost_words(spool.folder, faults, home.advice)}" if faults else "")
        )
    kind.update_settings(settings)
    feeds = feed_process_params_from_cli(settings, [], overwrite_output=[output])
    settings.setdict({**ALONE, "SPIDER_MIDDLEWARES": {_Watch: 100}, "FEEDS": feeds}, priority="cmdline")
    process = CrawlerProcess(settings)
    crawler = process.create_crawler(_Exporting)
    whole = {name: file for name, file in files.items() if name not in faults}
    process.crawl(crawler, spool=spool, files=whole, name=kind.name)
    process.start()
    done: Any = crawler.spider
    faults |= done.faults
    if faults:
        return done.items, lost_words(spool.folder, faults, home.advice)
    return done.items, "" if done.stored else "the lines above tell why"


def lost(home: AtHome, run: RunRecord, settings: Settings) -> list[str]:
    """The names of the files in the spool of *run* that are missing or damaged, or that the project can't read any
    more. Raises ``LedgerError`` where it has no such spider."""
    spool = _spool(home, run, _kind(run, settings))
    return [name for name, file in home.files.items() if spool.fault(name, file) or _unreadable(spool, name, file)]


def _unreadable(spool: Spool, name: str, file: ItemsFile) -> bool:
    try:
        return sum(1 for _ in spool.lines(name, file)) != file.items
    except (OSError, WireError):
        return True


def _kind(run: RunRecord, settings: Settings) -> type[Spider]:
    spider = run.identity["spider"]
    try:
        return get_spider_loader(settings).load(spider)
    except KeyError:
        raise LedgerError(f"run {run.name}: its spider {spider!r:.100} is none of the project in this folder") from None


def _spool(home: AtHome, run: RunRecord, kind: type[Spider]) -> Spool:
    spool = Spool(home.beside, kind)
    spool.folder = spool.beside / run.name
    return spool


class _Exporting(Spider):
    """Yields what is in *files*, name to file. *items*: how many; *faults*: what could not be read; *stored*: all that
    was is in the feed."""

    name = "export"

    def __init__(self, *, spool: Spool, files: Mapping[str, ItemsFile], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spool = spool
        self.files = files
        self.feeds: Any = None
        self.items = 0
        self.faults: dict[str, str] = {}
        self.stored = False

    async def start(self) -> AsyncIterator[Any]:
        for name, file in self.files.items():
            try:
                for line in self.spool.lines(name, file):
                    if self.feeds.lacks_items:
                        return
                    self.items += 1
                    yield line.item
            except (OSError, WireError) as error:
                self.faults[name] = f"can't be read any more: {error}"


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

"""The add-on, and what it changes. ``DISTRIBUTED_FAST_WORKERS = True`` gives each job of a run this add-on.

It decides on the node, where the packages and all settings of the job are known. It changes only what nobody has set:
the project, the spider, another add-on, the command line and ``DISTRIBUTED_WORKER_SETTINGS`` win. One line in the job's
log says what it has changed, and one what it has left and why.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from scrapy import signals
from scrapy.settings import SETTINGS_PRIORITIES
from scrapy.statscollectors import MemoryStatsCollector
from scrapy.utils.misc import load_object

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings, Settings

try:
    from uvloop import Loop as EventLoop
except ImportError:  # not every node has it
    EventLoop = asyncio.SelectorEventLoop

logger = logging.getLogger(__name__)

ADDON = "scrapy_distributed.fast.FastWorker"
LAST = 1_000_000  # order of the add-on: after all others, so that it sees what they have set
HANDLER = "scrapy_distributed.fast.http_handler.HTTPDownloadHandler"
EVENT_LOOP = "scrapy_distributed.fast.preset.EventLoop"
ASYNCIO_REACTOR = "twisted.internet.asyncioreactor.AsyncioSelectorReactor"
META_REFRESH = "scrapy.downloadermiddlewares.redirect.MetaRefreshMiddleware"
QUICK_META_REFRESH = "scrapy_distributed.fast.meta_refresh.MetaRefreshMiddleware"
REMOTE_CONTROL = "scrapy.extensions.remote_control.RemoteControl"
STATS = "scrapy_distributed.fast.preset.Stats"
FINGERPRINTER = "scrapy_distributed.divert.fingerprint.QuickFingerprinter"
COLLECT_AFTER = 50_000  # new objects that are not freed: Python's own threshold is 700

NOTICE = "Fast workers: each job gets the add-on %s, which changes only what nobody has set; see the README"


def job_settings(settings: BaseSettings) -> dict[str, str]:
    """What a job of a crawl with *settings* gets besides the add-on."""
    if settings.getpriority("ASYNCIO_EVENT_LOOP") or settings["TWISTED_REACTOR"] != ASYNCIO_REACTOR:
        return {}
    return {"ASYNCIO_EVENT_LOOP": EVENT_LOOP}


class Stats(MemoryStatsCollector):
    """Scrapy's own, without its look at each call for a ``spider`` argument, which is deprecated: 1.6 us a call, and
    there are some thirty for a page."""

    __getattribute__ = object.__getattribute__


@dataclass(frozen=True, kw_only=True)
class Change:
    """*apply* changes the settings of a worker, or returns why it leaves them."""

    name: str
    apply: Callable[[BaseSettings], str | None]


class FastWorker:
    """Add-on of a fast worker."""

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> FastWorker:
        crawler.signals.connect(_spare_the_collector, signals.spider_opened)
        crawler.signals.connect(_spare_the_log, signals.spider_opened)
        return cls()

    def update_settings(self, settings: Settings) -> None:
        made: list[str] = []
        left: list[str] = []
        for change in CHANGES:
            reason = change.apply(settings)
            if reason is None:
                made.append(change.name)
            else:
                left.append(f"{change.name} ({reason})")
        logger.info("Fast worker, changed: %s", "; ".join(made) or "nothing")
        if left:
            logger.info("Fast worker, left as it was: %s", "; ".join(left))


def _spare_the_collector() -> None:
    """What is there when the crawl opens stays until it ends: the collector need not look at it again and again."""
    gc.collect()
    if not gc.get_freeze_count():  # a warm start has done so; what is the job's own must be in sight at its end
        gc.freeze()
        atexit.register(gc.unfreeze)  # what is part of a cycle then, an open file say, is taken down as ever
    gc.set_threshold(COLLECT_AFTER)


def _spare_the_log() -> None:
    """Scrapy makes a record of each page and each item, whatever ``LOG_LEVEL`` is: none is made that nobody keeps."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = [handler for found in loggers if isinstance(found, logging.Logger) for handler in found.handlers]
    if levels := [handler.level for handler in handlers if not isinstance(handler, logging.NullHandler)]:
        logging.disable(max(min(levels) - 1, logging.root.manager.disable))  # a project may have disabled more


def _is_set(settings: BaseSettings, *names: str) -> str | None:
    found = [name for name in names if settings.getpriority(name)]  # 0: Scrapy's default
    return f"{', '.join(found)} is set" if found else None


def _items_one_by_one(settings: BaseSettings) -> str | None:
    """Scrapy starts ``CONCURRENT_ITEMS`` tasks for each response. They help where a pipeline waits for something."""
    if reason := _is_set(settings, "CONCURRENT_ITEMS"):
        return reason
    for pipeline, order in settings.getwithbase("ITEM_PIPELINES").items():
        if order is not None and _may_wait(load_object(pipeline)):
            return f"the item pipeline {getattr(pipeline, '__qualname__', pipeline)} may wait"
    settings.set("CONCURRENT_ITEMS", 1, priority="addon")
    return None


def _may_wait(pipeline: Any) -> bool:
    from scrapy.pipelines.media import MediaPipeline  # only here: most jobs have no use for it

    process = getattr(pipeline, "process_item", None)
    return iscoroutinefunction(process) or (isinstance(pipeline, type) and issubclass(pipeline, MediaPipeline))


def _lean_downloads(settings: BaseSettings) -> str | None:
    if not settings.getbool("TWISTED_REACTOR_ENABLED", True):  # a setting of Scrapy 2.15 and later
        return "TWISTED_REACTOR_ENABLED is False, and Scrapy's own handler shows other headers then"
    if settings["TWISTED_REACTOR"] != ASYNCIO_REACTOR:
        return "TWISTED_REACTOR is another one"
    # The lean handler takes the addresses of a host one after the other: Scrapy's own resolver has one.
    if reason := _is_set(settings, "DNS_RESOLVER", "TWISTED_DNS_RESOLVER", "DOWNLOAD_HANDLERS_BASE"):
        return reason
    given = settings.getdict("DOWNLOAD_HANDLERS")
    ours = {scheme: HANDLER for scheme in ("http", "https") if scheme not in given}
    if not ours:
        return "DOWNLOAD_HANDLERS has http and https"
    priority = max(settings.getpriority("DOWNLOAD_HANDLERS") or 0, SETTINGS_PRIORITIES["addon"])
    settings.set("DOWNLOAD_HANDLERS", {**given, **ours}, priority=priority)
    return None


def _fast_loop(settings: BaseSettings) -> str | None:
    """The loop is there before any add-on, so the coordinator sends its name with the job."""
    if settings["ASYNCIO_EVENT_LOOP"] != EVENT_LOOP:
        return "ASYNCIO_EVENT_LOOP or TWISTED_REACTOR is set"
    return "uvloop is not installed here" if EventLoop is asyncio.SelectorEventLoop else None


def _plain_stats(settings: BaseSettings) -> str | None:
    if reason := _is_set(settings, "STATS_CLASS"):
        return reason
    settings.set("STATS_CLASS", STATS, priority="addon")
    return None


def _quick_fingerprints(settings: BaseSettings) -> str | None:
    if reason := _is_set(settings, "REQUEST_FINGERPRINTER_CLASS"):
        return reason
    settings.set("REQUEST_FINGERPRINTER_CLASS", FINGERPRINTER, priority="addon")
    return None


def _quick_meta_refresh(settings: BaseSettings) -> str | None:
    base = settings.getdict("DOWNLOADER_MIDDLEWARES_BASE")
    if META_REFRESH not in base:
        return "DOWNLOADER_MIDDLEWARES_BASE is set"
    named = settings.getdict("DOWNLOADER_MIDDLEWARES")
    if META_REFRESH in named or load_object(META_REFRESH) in named:
        return "DOWNLOADER_MIDDLEWARES names it"
    base[QUICK_META_REFRESH] = base.pop(META_REFRESH)
    settings.set("DOWNLOADER_MIDDLEWARES_BASE", base, priority="addon")
    return None


def _no_remote_control(settings: BaseSettings) -> str | None:
    base = settings.getdict("EXTENSIONS_BASE")
    if REMOTE_CONTROL not in base:
        return "this Scrapy has none"
    if reason := _is_set(settings, "REMOTE_CONTROL_ENABLED"):
        return reason
    del base[REMOTE_CONTROL]
    settings.set("EXTENSIONS_BASE", base, priority="addon")
    return None


CHANGES = (
    Change(name="items of a page one by one", apply=_items_one_by_one),
    Change(name="lean download handler", apply=_lean_downloads),
    Change(name="uvloop", apply=_fast_loop),
    Change(name="stats without checks", apply=_plain_stats),
    Change(name="the same fingerprints, quicker", apply=_quick_fingerprints),
    Change(name="a quicker look for meta refresh", apply=_quick_meta_refresh),
    Change(name="no remote control", apply=_no_remote_control),
)

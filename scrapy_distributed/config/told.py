"""What is said before the first batch, as one block: how often a site is asked, what is crawled where, what of the
command holds in the jobs, and where the items go. ``scrapy fleet doctor`` says the same.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from scrapy import Spider
from scrapy.settings import BaseSettings
from scrapy.utils.misc import load_object

from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import ItemsGo, feeds_of_workers, own_feeds
from scrapy_distributed.config.pipeline_hints import reason_for_home
from scrapy_distributed.config.politeness import politeness
from scrapy_distributed.config.values import shown
from scrapy_distributed.words import shortened

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Line:
    """*words* on *subject*; *warning*: they may not be what was meant; *wrong*: they can't be."""

    subject: str
    words: str
    warning: bool = False
    wrong: bool = False

    def __str__(self) -> str:
        return f"{self.subject[0].upper()}{self.subject[1:]}: {self.words}"


def block(
    config: Config, settings: BaseSettings, *, command: CommandLine, job: Mapping[str, str],
    spider: Spider | type[Spider] | None, nodes: int, slots: int = 0, targets: str, items_go: ItemsGo,
    place: str = "", elsewhere: Sequence[str] = (), joined: int | None = None,
) -> list[Line]:  # fmt: skip
    """*settings*: those of the crawl; *job*: those that a job gets; *nodes*: how many Scrapyds; *slots*: workers on
    this machine; *targets*: which requests are the fleet's; *place*: the folder for what comes home, or the stream;
    *elsewhere*: other machines, where Scrapyds are; *joined*: slots of workers that have joined a shared run."""
    return [
        Line(
            subject="requests to a site",
            words=politeness(settings, job, spider, nodes=nodes, slots=slots, joined=joined),
        ),
        Line(
            subject="fleet",
            words=f"it crawls what matches {targets}; all else, start requests too, is crawled here, and so is what"
            " can't travel",
        ),
        *lines_of_command(command, scrapyds=nodes > 0, joined=joined is not None),
        *_limits(settings),
        *_items(items_go, config, settings, place),
        *(_places(feeds_of_workers(config, settings), nodes, elsewhere) if items_go is ItemsGo.FEEDS else ()),
        *_pipelines(config, settings),
        *_stores(settings, nodes=nodes, slots=slots, joined=joined is not None),
    ]


def tell(lines: Iterable[Line]) -> None:
    for line in lines:
        logger.log(logging.WARNING if line.warning else logging.INFO, "%s", line)


def lines_of_command(command: CommandLine, *, scrapyds: bool, joined: bool = False) -> list[Line]:
    """What goes with each job and what does not, and what jobs lack."""
    told = [Line(subject="command line", words=command.summary)] if command.summary else []
    return told + [
        Line(subject="command line", words=warning, warning=True, wrong=True)
        for warning in command.warnings(scrapyds=scrapyds, joined=joined)
    ]


def _limits(settings: BaseSettings) -> Iterator[Line]:
    if number := settings.getint("CLOSESPIDER_PAGECOUNT"):
        words = f"the crawl here ends after {number:,} pages, and the fleet crawls all that these have led to"
        yield Line(subject="CLOSESPIDER_PAGECOUNT", words=words)
    for name in ("CLOSESPIDER_TIMEOUT_NO_ITEM", "CLOSESPIDER_PAGECOUNT_NO_ITEM"):
        if settings.getint(name):
            words = (
                "it may close the crawl too early: items of jobs are counted when a job has ended and they have come"
                " home, and where workers write feeds not at all"
            )
            yield Line(subject=name, words=words, warning=True)


def _items(go: ItemsGo, config: Config, settings: BaseSettings, place: str) -> Iterator[Line]:
    own = [shown(url) or "a feed" for url in own_feeds(settings)]
    warning = False
    if go is ItemsGo.FEEDS:
        places = [shown(url) or "a feed" for url in feeds_of_workers(config, settings)]
        words = f"each job writes its own to {', '.join(places)}"
    elif go is ItemsGo.NOWHERE:
        words = "they go through the pipelines of the workers, and into no feed"
        words += "" if config.items == "none" else '; DISTRIBUTED_ITEMS = "home" or -O FILE brings them home'
    elif go is ItemsGo.STREAM:
        words = (
            f"each goes once into the stream {place or '{sd:PROJECT}:RUN:items'} in Redis, as JSON; those of workers as"
            " they are settled, those that are scraped here when this crawl ends; no file is written"
        )
    elif own:
        words = f"they come home by way of {place or 'the spool'}, and are written here to {', '.join(own)}"
    else:
        warning = True
        words = (
            f"no feed is set (-O FILE, FEEDS), so they come home to {place or 'the spool'} and are written nowhere"
            " else; scrapy batches export -O FILE writes them to a file, until the next run of this spider ends"
        )
    yield Line(subject="items", words=words, warning=warning)


def _places(urls: Iterable[str], nodes: int, elsewhere: Sequence[str]) -> Iterator[Line]:
    """Those of feeds that are not one place for all."""
    for url in urls:
        place, path = shown(url) or "a feed", url.removeprefix("file://")
        if re.match(r"[a-z][a-z0-9+.-]*:", path):  # of another scheme
            continue
        if nodes and not path.startswith("/"):
            words = (
                f"{place} is a relative path, so the jobs of a Scrapyd write it below the folder in which that was"
                " started, each Scrapyd below its own, and this crawl what it scrapes itself below this one; expected a"
                " place that all of them reach, see Where items land in the README"
            )
            yield Line(subject="items", words=words, warning=True, wrong=True)
        elif elsewhere:
            words = (
                f"{place} is on the machine where a job runs, and there are several: this one,"
                f" {shortened(', '.join(elsewhere))}; expected a folder that they share. Else fetch the feeds from each"
                " of them before scrapy batches merge"
            )
            yield Line(subject="items", words=words)


def _pipelines(config: Config, settings: BaseSettings) -> Iterator[Line]:
    orders = settings.getwithbase("ITEM_PIPELINES").items()
    kinds = [load_object(name) for name, order in orders if order is not None]
    if not kinds:
        return
    at_home = {load_object(name) for name in config.pipelines_at_home}
    here = ", ".join(kind.__qualname__ for kind in kinds if kind in at_home)
    there = ", ".join(kind.__qualname__ for kind in kinds if kind not in at_home)
    all_pass = f"; all items pass {here} on the coordinator" if here else ""
    yield Line(subject="item pipelines", words=f"each worker has its own of {there or 'none'}{all_pass}")
    for kind in kinds:
        if kind not in at_home and (reason := reason_for_home(kind)):
            words = (
                f"{kind.__module__}.{kind.__qualname__} {reason}, it seems, and each worker has its own: if it must see"
                " all items, name it in DISTRIBUTED_PIPELINES_AT_HOME"
            )
            yield Line(subject="item pipelines", words=words, warning=True)


def _stores(settings: BaseSettings, *, nodes: int, slots: int, joined: bool) -> Iterator[Line]:
    for name in ("FILES_STORE", "IMAGES_STORE"):
        if place := settings.get(name):
            where = shown(str(place)) or "a place"
            words = [f"workers on this machine share {where} with this crawl"] if slots else []
            words += [f"each worker on a node has its own, {where} as it is there"] if nodes else []
            words += [f"each machine whose workers join has its own, {where} as it is there"] if joined else []
            yield Line(subject=name, words="; ".join(words))

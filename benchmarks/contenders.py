"""Who takes part, in which form, and in which scenarios. A new one is a line here.

Two forms: *as installed* (defaults of each, but ``CONCURRENT_ITEMS = 1`` for all that have it: its default of 100 costs
a third of their time, and this project sets it back), and *at its best* (what its documentation offers for speed).
Equal for all: pages, items, the number of workers and of requests at once, ``ROBOTSTXT_OBEY`` and telnet off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import designs
from designs import Span, Stage, Workload
from environments import Environment

SCRAPYD = ("Scrapy==2.19.0", "scrapyd==1.6.0", "setuptools<81", "treq==26.7.0")
SCRAPY_REDIS = ("Scrapy==2.19.0", "scrapy-redis==0.9.1")
# aio-scrapy imports private names that newer versions of w3lib do not have.
AIO_SCRAPY = ("aio-scrapy==2.1.9", "w3lib==2.2.1")

INSTALLED = "as installed"
BEST = "at its best"

FAST = {"scrapy_distributed.Addon": 500, "scrapy_distributed.fast.FastWorker": 1_000_000}  # for the coordinator as well
TWISTED = {"CONCURRENT_ITEMS": 1}
TWISTED_BEST = {**TWISTED, "LOG_LEVEL": "INFO", "ASYNCIO_EVENT_LOOP": "uvloop.Loop"}


@dataclass(frozen=True, kw_only=True)
class Contender:
    """*settings* are those of every process that crawls, *coordinator* those of the coordinator alone, *scrapyd* lines
    of ``scrapyd.conf``. *versions* are the packages worth naming, *batch* is the size of the first batch."""

    name: str
    form: str
    crawl: Callable[[Stage], Span]
    environment: Environment
    versions: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    coordinator: Mapping[str, Any] = field(default_factory=dict)
    scrapyd: Mapping[str, str] = field(default_factory=dict)
    batch: int = 1000

    @property
    def title(self) -> str:
        return f"{self.name}, {self.form}"


PLAIN = Contender(
    name="plain Scrapy",
    form=INSTALLED,
    crawl=designs.alone,
    settings=TWISTED,
    versions=("Scrapy",),
    environment=Environment(name="scrapyd", requirements=SCRAPYD),
)
PLAIN_BEST = replace(
    PLAIN,
    form=BEST,
    settings=TWISTED_BEST,
    environment=Environment(name="scrapyd-uvloop", requirements=(*SCRAPYD, "uvloop")),
)
TUTORIAL = replace(PLAIN, name="tutorial", crawl=designs.tutorial, versions=("Scrapy", "scrapyd"))
TUTORIAL_QUICK = replace(TUTORIAL, form=f"{INSTALLED}, poll_interval 0.5", scrapyd={"poll_interval": "0.5"})
REDIS = Contender(
    name="scrapy-redis",
    form=INSTALLED,
    crawl=designs.scrapy_redis,
    settings=TWISTED,
    versions=("scrapy-redis", "Scrapy", "redis"),
    environment=Environment(name="scrapy-redis", requirements=SCRAPY_REDIS),
)
REDIS_BEST = replace(
    REDIS,
    form=BEST,
    settings=TWISTED_BEST,
    environment=Environment(name="scrapy-redis-best", requirements=(*SCRAPY_REDIS, "uvloop", "hiredis")),
)
AIO = Contender(
    name="aio-scrapy",
    form=INSTALLED,
    crawl=designs.aio_scrapy,
    versions=("aio-scrapy", "aiohttp", "redis"),
    environment=Environment(name="aio-scrapy", requirements=AIO_SCRAPY),
)
AIO_BEST = replace(
    AIO,
    form=BEST,
    settings={"LOG_LEVEL": "INFO", "USE_SESSION": True},
    environment=Environment(name="aio-scrapy-best", requirements=(*AIO_SCRAPY, "uvloop", "hiredis")),
)
# What a worker finds stays with it, instead of in the shared queue; a first share of the start for each of two workers.
AIO_CACHE = replace(
    AIO_BEST,
    form=f"{BEST}, queue cache",
    settings={**AIO_BEST.settings, "USE_SCHEDULER_QUEUE_CACHE": True, "GET_REQUESTS_COUNT": 10},
)
OURS = Contender(
    name="this project",
    form=INSTALLED,
    crawl=designs.ours,
    settings=TWISTED,
    versions=("scrapy-distributed-batches", "Scrapy", "scrapyd"),
    environment=Environment(name="ours", requirements=(*SCRAPYD, "uvloop"), project=True),
)
OURS_QUICK = replace(OURS, form=f"{INSTALLED}, poll_interval 0.5", scrapyd={"poll_interval": "0.5"})
OURS_BEST = replace(
    OURS,
    form=BEST,
    settings={**TWISTED, "LOG_LEVEL": "INFO"},
    coordinator={"ADDONS": FAST},
    scrapyd={"launcher": "scrapy_distributed.warm.launcher.WarmLauncher"},
)
LOCAL = replace(
    OURS, form=f"local:2, {INSTALLED}", crawl=designs.local, versions=("scrapy-distributed-batches", "Scrapy")
)
LOCAL_BEST = replace(LOCAL, form=f"local:2, {BEST}", settings=OURS_BEST.settings, coordinator=OURS_BEST.coordinator)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A contender and what it is to do."""

    contender: Contender
    workload: Workload


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is compared; *question* says what for."""

    name: str
    question: str
    entries: tuple[Entry, ...]


def scenario(name: str, question: str, workload: Workload, *contenders: Contender) -> Scenario:
    one_process = replace(workload, nodes=1, workers=1)
    entries = (
        Entry(contender=contender, workload=one_process if contender.crawl is designs.alone else workload)
        for contender in contenders
    )
    return Scenario(name=name, question=question, entries=tuple(entries))


LONG = Workload(properties=50_000)
SHORT = Workload(properties=5_000)
CORES = Workload(properties=20_000, nodes=1, workers=2)
SLOW_SITE = Workload(properties=50_000, latency=0.25, nodes=3, workers=4)

SCENARIOS = {
    found.name: found
    for found in (
        scenario(
            "installed",
            "A long crawl by two workers, with the defaults of each.",
            LONG,
            TUTORIAL,
            TUTORIAL_QUICK,
            REDIS,
            OURS,
            OURS_QUICK,
        ),
        scenario(
            "best",
            "A long crawl by two workers, each at its best; plain Scrapy, one process, for comparison.",
            LONG,
            PLAIN,
            PLAIN_BEST,
            REDIS_BEST,
            AIO,
            AIO_BEST,
            AIO_CACHE,
            OURS_BEST,
        ),
        scenario("short", "A short crawl by two workers.", SHORT, TUTORIAL, OURS, OURS_BEST),
        scenario(
            "cores",
            "All cores of one machine, items in one file: plain Scrapy, and local:2, which needs no node.",
            CORES,
            PLAIN_BEST,
            LOCAL,
            LOCAL_BEST,
        ),
        Scenario(
            name="scaling",
            question="One worker and two.",
            entries=(
                Entry(contender=OURS_BEST, workload=replace(LONG, nodes=1)),
                Entry(contender=OURS_BEST, workload=LONG),
            ),
        ),
        scenario(
            "latency",
            "A slow site, 3 nodes with 4 workers of 16 requests at once: 768 pages/s at most.",
            SLOW_SITE,
            TUTORIAL,
            TUTORIAL_QUICK,
            OURS,
            OURS_BEST,
        ),
        Scenario(
            name="workers",
            question="A slow site, two to six workers.",
            entries=tuple(
                Entry(contender=contender, workload=replace(SHORT, latency=0.25, nodes=nodes, workers=2))
                for nodes in (1, 2, 3)
                for contender in (TUTORIAL_QUICK, REDIS, AIO, OURS_QUICK)
            ),
        ),
    )
}

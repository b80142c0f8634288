"""Workloads whose best possible schedule can be computed: all of them wait for pages, and hardly compute.

The optimum has the start of a coordinator, the start of a worker, and what all slots together need for the pages. No
wait for the poll of a node is in it, nothing that is sent and answered, and no page that is fetched twice: so no crawl
comes down to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from designs import Workload
from sleeping_site import HEAVY_EACH, INDEX_SECONDS

# With a random delay that is over Scrapy draws another one, and waits on if that is longer: e - 1.5 of it on average.
DELAYS = math.e - 1.5
SECOND_CRAWL_AFTER = 3.0


@dataclass(frozen=True, kw_only=True)
class Starts:
    """Seconds from the start of a process until it has begun: of a coordinator, its run; of a *worker*, its crawl."""

    coordinator: float
    worker: float

    @property
    def both(self) -> float:
        return self.coordinator + self.worker


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A workload and what is known of it.

    *crawl*: pages, seconds that each takes, nodes, their slots, requests at once of a worker; *delay*: its
    ``DOWNLOAD_DELAY``. *best*: the optimum. *bars*: what the figure may be, by kind of node; the figure is the time
    divided by the optimum, unless *figure* names another.

    What is special, if anything: workers find *leads_to* more pages on each; the coordinator finds *at_once* pages on
    each of its own, one a second; each hundredth page takes *heavy* seconds; pages take *slow* times as long for
    workers of the last node; that one is up after *joins* seconds; it is gone when half of the pages have been sent
    (*goes*); another crawl of *besides* pages begins three seconds later.
    """

    name: str
    what: str
    crawl: Workload
    best: Callable[[Schedule, Starts], float]
    bars: Mapping[str, float] = field(default_factory=dict)
    figure: str = "time / optimum"
    delay: float = 0.0
    leads_to: int = 0
    at_once: int = 0
    heavy: float = 0.0
    slow: float = 1.0
    joins: float = 0.0
    goes: bool = False
    besides: int = 0

    @property
    def pages(self) -> int:
        return self.crawl.properties

    @property
    def slots(self) -> int:
        return self.crawl.nodes * self.crawl.workers

    @property
    def slots_left(self) -> int:
        """Without the last node."""
        return self.slots - self.crawl.workers

    @property
    def rate(self) -> float:
        """Pages a second of one slot."""
        return self.crawl.concurrency / self.crawl.latency

    @property
    def of_nodes(self) -> bool:
        """Whether something happens to a node of its own."""
        return bool(self.joins or self.goes or self.slow > 1)

    def optimum(self, starts: Starts) -> float:
        """Seconds."""
        return self.best(self, starts)


def even(schedule: Schedule, starts: Starts) -> float:
    """Each slot has the same share, and works in rounds of as many pages as it fetches at once."""
    share = math.ceil(schedule.pages / schedule.slots)
    return starts.both + math.ceil(share / schedule.crawl.concurrency) * schedule.crawl.latency


def polite(schedule: Schedule, starts: Starts) -> float:
    """One page after the other, with the delay between them."""
    share = math.ceil(schedule.pages / schedule.slots)
    return starts.both + (share - 1) * DELAYS * schedule.delay + schedule.crawl.latency


def levels(schedule: Schedule, starts: Starts) -> float:
    """All pages of a level are fetched at once, as far as there are slots, and then lead to the next level."""
    rounds, level, left = 0, 1, schedule.pages
    while left > 0:
        rounds += math.ceil(min(level, left) / (schedule.slots * schedule.crawl.concurrency))
        left, level = left - level, level * schedule.leads_to
    return starts.both + rounds * schedule.crawl.latency


def walk(schedule: Schedule, starts: Starts) -> float:
    """Only the pages found last are waited for: the workers are there by then."""
    return starts.coordinator + schedule.pages / schedule.at_once * INDEX_SECONDS + schedule.crawl.latency


def heavy_tail(schedule: Schedule, starts: Starts) -> float:
    heavy = schedule.pages // HEAVY_EACH
    work = heavy * schedule.heavy + (schedule.pages - heavy) * schedule.crawl.latency
    return starts.both + max(work / (schedule.slots * schedule.crawl.concurrency), schedule.heavy)


def slow_node(schedule: Schedule, starts: Starts) -> float:
    slots = schedule.slots_left + schedule.crawl.workers / schedule.slow
    return starts.both + schedule.pages / (slots * schedule.rate)


def joining(schedule: Schedule, starts: Starts) -> float:
    """The last node works from when it is there, and a worker of it has started."""
    there = schedule.joins + starts.worker
    before = (there - starts.both) * schedule.slots_left * schedule.rate
    return there + (schedule.pages - before) / (schedule.slots * schedule.rate)


def going(schedule: Schedule, starts: Starts) -> float:
    """Nothing that the last node has done until half time is lost."""
    half = schedule.pages / 2
    return starts.both + half / (schedule.slots * schedule.rate) + half / (schedule.slots_left * schedule.rate)


def half_the_slots(schedule: Schedule, starts: Starts) -> float:
    """What is fair for the crawl that begins later."""
    return starts.both + schedule.besides / (schedule.slots / 2 * schedule.rate)


SCHEDULES = {
    schedule.name: schedule
    for schedule in (
        Schedule(
            name="polite-small",
            what="120 pages of 0.05 s, DOWNLOAD_DELAY 0.5, one at a time, 2 nodes x 2 slots",
            crawl=Workload(properties=120, latency=0.05, nodes=2, workers=2, concurrency=1),
            delay=0.5,
            best=polite,
            bars={"stock": 1.30, "warm": 1.12, "local": 1.12},
        ),
        Schedule(
            name="polite-larger",
            what="560 pages of 0.05 s, DOWNLOAD_DELAY 0.25, one at a time, 4 x 2",
            crawl=Workload(properties=560, latency=0.05, nodes=4, workers=2, concurrency=1),
            delay=0.25,
            best=polite,
            bars={"stock": 1.30, "warm": 1.12, "local": 1.12},
        ),
        Schedule(
            name="chain",
            what="40 pages of 0.1 s, each found by a worker on the one before, 2 x 2",
            crawl=Workload(properties=40, latency=0.1, nodes=2, workers=2, concurrency=8),
            leads_to=1,
            best=levels,
        ),
        Schedule(
            name="tree",
            what="364 pages of 0.1 s in 6 levels, each leads workers to 3 more, 8 at a time, 2 x 2",
            crawl=Workload(properties=364, latency=0.1, nodes=2, workers=2, concurrency=8),
            leads_to=3,
            best=levels,
        ),
        Schedule(
            name="burst",
            what="600 pages of 0.05 s, 8 at a time, 2 x 2",
            crawl=Workload(properties=600, latency=0.05, nodes=2, workers=2, concurrency=8),
            best=even,
            bars={"stock": 2.7, "warm": 1.8, "local": 1.8},
        ),
        Schedule(
            name="wide",
            what="6,000 pages of 0.25 s, 16 at a time, 2 x 2",
            crawl=Workload(properties=6000, latency=0.25, nodes=2, workers=2, concurrency=16),
            best=even,
            bars={"stock": 1.25, "warm": 1.06, "local": 1.06},
        ),
        Schedule(
            name="slow-node",
            what="1,500 pages of 0.1 s, 4 at a time, 3 x 2, those of one node take five times as long",
            crawl=Workload(properties=1500, latency=0.1, nodes=3, workers=2, concurrency=4),
            slow=5.0,
            best=slow_node,
            bars={"stock": 3.7, "warm": 3.7},
        ),
        Schedule(
            name="slow-walk",
            what="the coordinator finds 10 pages of 0.1 s a second, for 40 s, 2 x 2",
            crawl=Workload(properties=400, latency=0.1, nodes=2, workers=2, concurrency=8),
            at_once=10,
            best=walk,
            figure="s from found to crawled (95th percentile)",
            bars={"stock": 9.0, "warm": 4.0, "local": 4.0},
        ),
        Schedule(
            name="heavy-tail",
            what="2,000 pages of 0.1 s, each hundredth takes 8 s, 8 at a time, 2 x 2",
            crawl=Workload(properties=2000, latency=0.1, nodes=2, workers=2, concurrency=8),
            heavy=8.0,
            best=heavy_tail,
            bars={"stock": 2.2, "warm": 1.8, "local": 1.8},
        ),
        Schedule(
            name="node-joins",
            what="1,600 pages of 0.25 s, 4 at a time, 3 x 2, one node is up after 10 s",
            crawl=Workload(properties=1600, latency=0.25, nodes=3, workers=2, concurrency=4),
            joins=10.0,
            best=joining,
            bars={"stock": 1.5, "warm": 1.3},
        ),
        Schedule(
            name="node-goes",
            what="900 pages of 0.25 s, 4 at a time, 3 x 2, one node is gone at half time",
            crawl=Workload(properties=900, latency=0.25, nodes=3, workers=2, concurrency=4),
            goes=True,
            best=going,
            bars={"stock": 2.5, "warm": 2.0},
        ),
        Schedule(
            name="two-crawls",
            what="3,200 pages of 0.25 s, 8 at a time, and 3 s later 320 of another crawl, 2 x 2",
            crawl=Workload(properties=3200, latency=0.25, nodes=2, workers=2, concurrency=8),
            besides=320,
            best=half_the_slots,
            figure="time of the small crawl / with half the slots",
            bars={"stock": 6.5, "warm": 5.0},
        ),
    )
}

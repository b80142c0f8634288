"""How large the next batches should be, in seconds of work and so in requests, by what is known so far.

A job *costs* ``s`` seconds in which its slot crawls nothing: it waits for a poll of its node, it starts, and its end is
seen a while after it. What a request takes is its *pace*: the settings' own (``Prior``) until jobs have told how long
they took. One formula before and after.

*One round.* Where all that is left is short, each free slot gets a share of it, once, so that all slots end together:
those that are at work now take their part later, the less the more they have to do yet. Batches that get smaller cost
``s`` for each round, and protect from what even ones lose where slots differ: that is a part of a round, so a round of
less than some times ``s`` is taken to be short: ``ROUND``, and ``ROUND_ALIKE`` where all slots are on this machine, and
so hardly differ.

*Else* jobs get smaller to the end. With ``b`` seconds of crawling in a job the slots spend ``s / b`` of their time on
what jobs cost, and in a run of ``T`` seconds they have nothing left to do for ``b / 2 T`` of it on average. Both
together are least at ``b = sqrt(2 s T)``: that is the *balanced* job. Where batches get smaller by themselves, a bit
less is better.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from heapq import heapreplace
from statistics import median, median_low

from scrapy_distributed.config.prior import Prior
from scrapy_distributed.dispatch.members import Slots

START = 1.0  # seconds from the start of a process to its first request, while none has told
START_WARM = 0.3  # likewise on nodes that start jobs at once: they have a warm process to fork
POLL = 5.0  # seconds between two polls of a Scrapyd as it is installed: what is guessed until a job was measured
ROUND = 10  # times what a job costs, where a tenth of a round is what slots differ by
ROUND_ALIKE = 100  # where that is a hundredth
LARGEST = 20_000  # requests: to compress as many takes a tenth of a second, and seldom can more travel in one argument
LONG = 60.0  # seconds of crawling: longer jobs win nothing, and lose more when they are lost
LOW_SHARE = 0.03  # but where jobs cost much, as long as keeps the cost at this part
SHARES = 2  # a batch leaves as much of what waits for the other slots as it takes
RECENT = 100  # jobs of a node whose median counts
WAITS = 10  # jobs of the run, the least wait of which counts
TINY = 1e-6  # seconds of a request or a start, at least: nobody divides by 0


class BatchSize:
    """Requests of the next batches: *setting*, or by what is known if that is no number.

    Times are seconds. Only durations that one machine has measured are used. A node that lies can't do much: of its
    recent jobs the median counts, and the median of these of all nodes (the lower one of two in the middle, so of two
    nodes one that claims to be slow does not decide); a job that claims more time than the run has had is left out.
    """

    def __init__(self, setting: int | str, prior: Prior) -> None:
        self.setting = setting
        self.prior = prior
        self._startups = _ByNode()
        self._paces = _ByNode()
        self._waits: deque[float] = deque(maxlen=WAITS)
        self.startup_total = self.job_total = 0.0
        self.jobs = 0
        self.requests = 0  # settled by the jobs that were measured
        self.largest = 0  # of these the most that one of them settled

    @property
    def fixed(self) -> int | None:
        """The size, if it is set."""
        return self.setting if isinstance(self.setting, int) else None

    # Measured

    def job_ended(
        self, stats: Mapping[str, float], requests: int, elapsed: float, node: str, trip: float | None
    ) -> None:  # fmt: skip
        """A job on *node* has settled so many *requests*, *trip* after it was sent (``None``: it had to wait for other
        jobs); *stats* are those of its receipt, *elapsed* is the age of the run."""
        startup, seconds = stats.get("distributed/startup_seconds", 0.0), stats.get("distributed/job_seconds", 0.0)
        if requests and 0 < startup <= seconds <= elapsed:
            self._startups.add(node, startup)
            self._paces.add(node, (seconds - startup) / requests)
            if trip is not None and trip >= seconds:  # else it was sent before this coordinator has begun
                self._waits.append(trip - seconds)
            self.startup_total += startup
            self.job_total += seconds
            self.jobs += 1
            self.requests += requests
            self.largest = max(self.largest, requests)

    def startup_share(self) -> float | None:
        return self.startup_total / self.job_total if self.jobs else None

    def startup(self, slots: Slots) -> float:
        """From the start of a job's process to its first request."""
        guess = START_WARM if slots.at_once else START
        return max(self._startups.median, TINY) if self.jobs else guess

    @property
    def pace(self) -> float:
        """Of a request in a job that has others to make meanwhile. A job of few can't tell what delays make of it: the
        first one in a slot waits for none."""
        return max(self._paces.median, self.prior.least, TINY) if self.jobs else self.prior.seconds

    def cost(self, slots: Slots) -> float:
        """What a job costs in one of *slots*. Of those that were measured the least wait counts, as others may have
        waited behind jobs of others; but for a poll a job waits half of the time between two on average. The delay that
        it keeps first is that of a request where there is one site; with several, all wait for it at once."""
        poll = slots.poll or 0.0
        wait = 0.0 if slots.at_once else max(poll, POLL) / 2
        if self._waits:
            wait = max(poll / 2, min(self._waits))
        return self.startup(slots) + wait + self.prior.ramp + max(0.0, self.prior.delay - self.pace)

    def _short(self, slots: Slots) -> float:
        """A round of less is short."""
        return (ROUND_ALIKE if slots.at_once else ROUND) * self.cost(slots)

    # The next batches

    def next(
        self, *, uncut: int, unsettled: int, slots: Slots, left: Sequence[float], elapsed: float, walking: bool
    ) -> list[int]:  # fmt: skip
        """The sizes of those that are to be cut at once. *uncut*: requests that are in no batch yet; *unsettled*: known
        to be left, those included; *left*: what each job that is under way still needs; *walking*: more may come. One
        that is larger than *uncut* is not full yet."""
        if self.fixed is not None:
            return [self.fixed]
        if not walking and (shares := self._shares(uncut, slots, left)):
            return shares
        size = self.usual(uncut=uncut, unsettled=unsettled, slots=slots, elapsed=elapsed, walking=walking)
        if walking:
            return self._first_shares(uncut, slots, size)
        rest_is_little = uncut < 1.5 * size
        return [uncut if rest_is_little else size]

    def is_short(self, uncut: int, slots: Slots) -> bool:
        """Whether all of *slots* together would do it in one round."""
        return self.round_seconds(uncut, slots) < self._short(slots)

    def round_seconds(self, requests: int, slots: Slots) -> float:
        """What all of *slots* together need for so many *requests*, but for what jobs cost."""
        return requests * self.pace / slots.all

    def _shares(self, uncut: int, slots: Slots, left: Sequence[float]) -> list[int]:
        """What each of the *slots* that are free is to have of *uncut*, or else the one that is free first; none where
        that is too much for one round. No share is smaller than the start of its process is worth."""
        if not uncut:
            return []
        cost = self.cost(slots)
        begins = [0.0] * slots.free + sorted(one + cost for one in _by_slot(left, slots.all - slots.free))
        free = max(slots.free, 1)
        share = _level(uncut * self.pace, begins) - begins[0]
        shared = min(uncut, math.ceil(max(free * share, self.startup(slots)) / self.pace))
        parts = min(free, shared, max(1, int(shared * self.pace / self.startup(slots))))
        if share >= self._short(slots) or shared > parts * LARGEST:
            return []
        return _even(shared, parts)

    def _first_shares(self, uncut: int, slots: Slots, size: int) -> list[int]:
        """While the walk goes on, and all is guessed: what it has found so far is shared by the slots that are free, in
        jobs of at least twice what one costs. So a wrong guess costs less, and is mended sooner. *size*: the usual one.
        """
        if self.jobs:
            return [size]
        shared = min(uncut, slots.free * size)
        parts = min(slots.free, int(shared * self.pace / (2 * self.cost(slots))))
        return _even(shared, parts) if parts > 1 else [size]

    def usual(self, *, uncut: int, unsettled: int, slots: Slots, elapsed: float, walking: bool) -> int:
        """A job of a minute, if that is no more than a fair part of what waits: so batches get smaller to the end. But
        no less than the balanced job of the run as far as it is known. A walk that goes on is taken to be half done,
        and to be no short one. After it, when batches do get smaller, a bit less is better. And no more than a job of
        the shortest run that is not one round, while all is guessed."""
        pace, cost = self.pace, self.cost(slots)
        more = 2 if walking else 1
        short = self._short(slots)
        run = max(elapsed * more + unsettled * pace / slots.all, short if walking else 0.0)
        fair = uncut * pace / (SHARES * slots.all)
        longest = max(LONG, cost / LOW_SHARE) if self.jobs else math.sqrt(2 * cost * short)
        seconds = min(longest, max(fair, math.sqrt(more * cost * run)))
        return min(max(1, int(seconds / pace)), LARGEST)

    def best(self, slots: Slots) -> int:
        """The size that would have been best for all that was measured, had it been known from the beginning."""
        if shares := self._shares(self.requests, slots._replace(free=slots.all), ()):
            return shares[0]
        run = self.requests * self.pace / slots.all
        return min(max(1, int(math.sqrt(2 * self.cost(slots) * run) / self.pace)), LARGEST)


def _even(number: int, parts: int) -> list[int]:
    least, more = divmod(number, parts)
    return [least + (part < more) for part in range(parts)]


def _by_slot(left: Sequence[float], slots: int) -> list[float]:
    """What each of these *slots* has to do yet, where jobs that need what is *left* are shared by them."""
    each = [0.0] * slots
    for seconds in sorted(left, reverse=True) if slots else ():
        heapreplace(each, each[0] + seconds)
    return each


def _level(work: float, begins: Sequence[float]) -> float:
    """When slots that begin then, sorted, end together if they share *work*."""
    level = total = work + begins[0]
    for number, begin in enumerate(begins[1:], 1):
        if level <= begin:
            break
        total += begin
        level = total / (number + 1)
    return level


class _ByNode:
    """What the recent jobs of each node have measured."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[float]] = {}
        self._medians: dict[str, float] = {}
        self.median = 0.0  # of the nodes' medians

    def add(self, node: str, value: float) -> None:
        recent = self._recent.setdefault(node, deque(maxlen=RECENT))
        recent.append(value)
        self._medians[node] = median(recent)
        self.median = median_low(self._medians.values())

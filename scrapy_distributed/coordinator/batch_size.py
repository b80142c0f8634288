"""How large a batch should be, by what the jobs of the run have reported; and whether the batches were large enough.

Two shares tell. *Start-up share*: of the time of the jobs that count, from the start of their process to their final
receipt, the part before their first request reached the downloader. *Tail share*: of the time of the run, the part
after the walk in which some node had nothing to do, and nothing was left to give to it. Small batches make the first
one large, large batches the second.

With ``s`` seconds of start-up, and ``b`` of crawling in a job, the start-up share is about ``s / b``, and the tail of a
run of ``T`` seconds is at most ``b / T``. Both are as far from their limits (5 % and 10 %) at ``b = sqrt(2 s T)``: that
is the *balanced* job. Both limits are kept if ``T`` is more than 200 times ``s``; in a shorter run no size keeps both.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import median, median_low

from scrapy_distributed.config.values import AUTO

STARTUP_LIMIT = 0.05
TAIL_LIMIT = 0.10
CLEARLY = 1.2  # a size is called too small or too large if another one is better by this factor

FIRST = 1000  # requests, while nothing is known
LITTLE = 200  # requests: then less than that is not shared by nodes
FIRST_PART = 64  # and no less than this part of what waits
LARGEST = 20_000  # requests: to compress as many takes a tenth of a second, and seldom can more travel in one argument
LONG = 60.0  # seconds of crawling: longer jobs win nothing, and lose more when they are lost
LOW_SHARE = 0.03  # but where starts are slow, as long as keeps the start-up share here
SHARES = 2  # a batch leaves as much of what waits for the other slots as it takes
RECENT = 100  # jobs of a node whose median counts
TINY = 1e-6  # seconds a request, at least: nobody divides by 0


class BatchSize:
    """Requests of the next batch: *setting*, or by what is measured if that is ``AUTO``.

    Times are seconds. Only durations that one machine has measured are used. A node that lies can't do much: of its
    recent jobs the median counts, and the median of these of all nodes (the lower one of two in the middle, so of two
    nodes one that claims to be slow does not decide); a job that claims more time than the run has had is left out.
    """

    def __init__(self, setting: int | str) -> None:
        self.setting = setting
        self._startups = _ByNode()
        self._per_request = _ByNode()
        self._startup_total = self._job_total = 0.0
        self._jobs = 0
        self.requests = 0  # settled by the jobs that were measured
        self._idle_since: float | None = None
        self._tail = 0.0

    @property
    def fixed(self) -> int | None:
        """The size, if it is set."""
        return self.setting if isinstance(self.setting, int) else None

    # Measured

    @property
    def measured(self) -> bool:
        return self._jobs > 0

    def job_ended(self, stats: Mapping[str, float], requests: int, elapsed: float, node: str) -> None:
        """A job on *node* has settled so many *requests*; *stats* are those of its receipt, *elapsed* is the age of the
        run."""
        startup, seconds = stats.get("distributed/startup_seconds", 0.0), stats.get("distributed/job_seconds", 0.0)
        if requests and 0 < startup <= seconds <= elapsed:
            self._startups.add(node, startup)
            self._per_request.add(node, (seconds - startup) / requests)
            self._startup_total += startup
            self._job_total += seconds
            self._jobs += 1
            self.requests += requests

    def idle(self, idle: bool, elapsed: float) -> None:
        """From now on a node is *idle* for lack of batches, or none is."""
        if self._idle_since is not None:
            self._tail += elapsed - self._idle_since
        self._idle_since = elapsed if idle else None

    def startup_share(self) -> float | None:
        return self._startup_total / self._job_total if self._jobs else None

    def tail_share(self, elapsed: float) -> float:
        return self._tail / elapsed if elapsed > 0 else 0.0

    # The next batch

    def next(self, *, uncut: int, unsettled: int, slots: int, elapsed: float, walking: bool) -> int:
        """*uncut*: requests that are in no batch yet; *unsettled*: known to be left, those included; *slots*: jobs that
        the fleet runs at once; *walking*: more may come.

        A job of a minute, if that is no more than a fair part of what waits: so batches get smaller to the end. But no
        less than the balanced job of the run as far as it is known; a walk that goes on is taken to be half done. After
        it, when batches do get smaller, a bit less is better.
        """
        if self.fixed is not None:
            return self.fixed
        if not self.measured:
            share = FIRST if walking else max(-(-uncut // slots), LITTLE)
            return max(min(share, FIRST), uncut // FIRST_PART)
        startup, per_request = self._startups.median, max(self._per_request.median, TINY)
        more = 2 if walking else 1
        run = elapsed * more + unsettled * per_request / slots
        fair = uncut * per_request / (SHARES * slots)
        seconds = min(max(LONG, startup / LOW_SHARE), max(fair, math.sqrt(more * startup * run)))
        return min(max(1, int(seconds / per_request)), LARGEST)

    # What to say at the end

    def advice(self, *, slots: int, elapsed: float) -> str | None:
        """A sentence, if a share is over its limit. *slots*: jobs that the fleet ran at once."""
        startup, tail = self.startup_share(), self.tail_share(elapsed)
        if startup is None:
            return None
        faults = [f"{startup:.0%} of the workers' time was start-up ({STARTUP_LIMIT:.0%} is fine)"]
        faults = faults if startup > STARTUP_LIMIT else []
        if tail > TAIL_LIMIT:
            faults.append(f"for {tail:.0%} of the run a node had nothing left to do ({TAIL_LIMIT:.0%} is fine)")
        if not faults:
            return None
        seconds = math.sqrt(2 * self._startups.median * elapsed)
        balanced = min(seconds / max(self._per_request.median, TINY), LARGEST)
        found = " and ".join(faults)
        if self.fixed is not None:
            best = max(1, int(float(f"{balanced:.2g}")))
            better = f"{found}; try DISTRIBUTED_BATCH_SIZE = {best}, or '{AUTO}'"
            if startup > STARTUP_LIMIT and self.fixed * CLEARLY < min(balanced, self.requests / slots):
                return f"Batches are too small: {better}"
            if tail > TAIL_LIMIT and self.requests / self._jobs > balanced * CLEARLY:
                return f"Batches are too large: {better}"
        return f"{found[0].upper()}{found[1:]}; batches of another size would hardly help"


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

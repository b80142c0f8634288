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
from statistics import median

from scrapy_distributed.config import AUTO

STARTUP_LIMIT = 0.05
TAIL_LIMIT = 0.10
CLEARLY = 1.2  # a size is called too small or too large if another one is better by this factor

FIRST = 200  # requests, while nothing is known
FIRST_PART = 64  # and no less than this part of what waits
SHARES = 1.5  # a batch that is to wait for a slot is this part of a slot's share: the slot may be late
LARGEST = 20_000  # requests: to compress as many takes a tenth of a second, and seldom can more travel in one argument
LONG = 30.0  # seconds of crawling: longer jobs win nothing, and lose more when they are lost
LOW_SHARE = 0.03  # but where starts are slow, as long as keeps the start-up share here
SHORT = 3.0  # seconds of crawling, while the walk goes on: nodes are looked at every two seconds
STARTS = 4  # a job crawls for no less time than so many starts take: shorter ones would save less at the end
RECENT = 100  # jobs whose median counts
TINY = 1e-6  # seconds a request, at least: nobody divides by 0


class BatchSize:
    """Requests of the next batch: *setting*, or by what is measured if that is ``AUTO``.

    Times are seconds. Only durations that one machine has measured are used. A receipt that lies can't do much: of the
    recent jobs the median counts, and a job that claims more time than the run has had is left out.
    """

    def __init__(self, setting: int | str) -> None:
        self.setting = setting
        self._startups: deque[float] = deque(maxlen=RECENT)
        self._per_request: deque[float] = deque(maxlen=RECENT)
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
        return bool(self._startups)

    def job_ended(self, stats: Mapping[str, float], requests: int, elapsed: float) -> None:
        """A job has settled so many *requests*; *stats* are those of its receipt, *elapsed* is the age of the run."""
        startup, seconds = stats.get("distributed/startup_seconds", 0.0), stats.get("distributed/job_seconds", 0.0)
        if requests and 0 < startup <= seconds <= elapsed:
            self._startups.append(startup)
            self._per_request.append((seconds - startup) / requests)
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

    def next(self, *, uncut: int, slots: int, free: bool, walking: bool, elapsed: float) -> int:
        """*uncut*: requests that are in no batch yet; *slots*: jobs that the fleet runs at once, as far as is known;
        *free*: a slot waits for the batch; *walking*: more may come; *elapsed*: the age of the run.

        A slot's share of what waits: so each batch is smaller than the one before it when no more come, and slots that
        are free at different times end together. While more come no less than the balanced job, as if the walk were
        half done.
        """
        if self.fixed is not None:
            return self.fixed
        if not self.measured:
            return max(FIRST, uncut // FIRST_PART)
        startup, per_request = median(self._startups), self._seconds_per_request
        fair = uncut * per_request / slots / (1 if free else SHARES)
        least = max(SHORT, math.sqrt(2 * startup * 2 * elapsed)) if walking else STARTS * startup
        return min(max(1, int(min(max(LONG, startup / LOW_SHARE), max(fair, least)) / per_request)), LARGEST)

    def seconds_left(self, requests: int, slots: int) -> float:
        """That it takes to crawl *requests*; infinite if nothing is measured."""
        return requests * self._seconds_per_request / slots if self.measured else math.inf

    @property
    def _seconds_per_request(self) -> float:
        return max(median(self._per_request), TINY)

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
        seconds = math.sqrt(2 * median(self._startups) * elapsed)
        balanced = min(seconds / self._seconds_per_request, LARGEST)
        found = " and ".join(faults)
        if self.fixed is not None:
            best = max(1, int(float(f"{balanced:.2g}")))
            better = f"{found}; try DISTRIBUTED_BATCH_SIZE = {best}, or '{AUTO}'"
            if startup > STARTUP_LIMIT and self.fixed * CLEARLY < min(balanced, self.requests / slots):
                return f"Batches are too small: {better}"
            if tail > TAIL_LIMIT and self.requests / self._jobs > balanced * CLEARLY:
                return f"Batches are too large: {better}"
        return f"{found[0].upper()}{found[1:]}; batches of another size would hardly help"

"""How long a job may be without a sign of life. Times are the clock's seconds."""

from __future__ import annotations

from scrapy_distributed.dispatch.flight import Flight

USUAL_START = 3  # times the slowest start that was seen may a start take
LONGEST_START = 8  # leases


class Starts:
    """How long a job may take from its start to its first receipt: a *lease* (seconds), or more where starts have been
    seen to be slow. Else a large project, or a busy node, whose jobs take longer than that would never begin."""

    def __init__(self, lease: float) -> None:
        self.seconds = lease
        self._most = LONGEST_START * lease
        self._grown_at = float("-inf")

    def took(self, seconds: float) -> None:
        """A job has started in so many *seconds*."""
        self.seconds = max(self.seconds, min(USUAL_START * seconds, self._most))

    def was_short(self, flight: Flight, now: float) -> bool:
        """The time was not enough for *flight*. Returns whether there is more from now on: jobs that have started
        together say it once."""
        if flight.sent_at < self._grown_at or self.seconds >= self._most:
            return False
        self.seconds, self._grown_at = min(2 * self.seconds, self._most), now
        return True

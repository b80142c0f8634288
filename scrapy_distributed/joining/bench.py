"""Whether this worker is fit to take batches: one whose jobs come to nothing, wherever that lies, stands aside. Pure;
times are the clock's seconds.

well -> benched, for a growing pause -> on trial, with one batch at a time -> well, or benched for longer
"""

from __future__ import annotations

BAD_JOBS = 2  # in a row, until it is benched
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0


class Bench:
    """Told of each job of this worker. *why*: what the last bad one came to."""

    def __init__(self) -> None:
        self.why = ""
        self.pause = 0.0  # the last one; 0 if none of its jobs has come to nothing since one counted
        self._bad_jobs = 0  # in a row
        self._until = 0.0

    @property
    def well(self) -> bool:
        return not self.pause

    def seconds(self, now: float) -> float:
        """Until it may take a batch."""
        return max(0.0, self._until - now)

    def bad(self, why: str, now: float) -> bool:
        """A job came to nothing, by no fault of its batch. Returns whether the worker is benched for that, anew."""
        self._bad_jobs += 1
        self.why = why
        if self._bad_jobs < BAD_JOBS or now < self._until:  # those that were under way already fail with it
            return False
        self.pause = min(max(FIRST_PAUSE, 2 * self.pause), LONGEST_PAUSE)
        self._until = now + self.pause
        return True

    def good(self) -> bool:
        """A job counts. Returns whether it was on trial."""
        was_benched = not self.well
        self.pause, self._until, self._bad_jobs, self.why = 0.0, 0.0, 0, ""
        return was_benched

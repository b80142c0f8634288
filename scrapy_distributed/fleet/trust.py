"""Whether a node can be used: what has failed there, and what it must show before it is used again. Times are the
clock's seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
LONGEST_DOWN = 5.0  # where nothing listens: to ask again costs hardly anything, and what comes up is idle until then
BAD_JOBS = 2  # in a row, until a node is doubted


class Proof(IntEnum):
    """What a node that has failed must show before it is trusted again; each is worth those before it as well."""

    TAKES = 1
    """It takes a job."""
    STARTS = 2
    """A job of it has started."""
    DELIVERS = 3
    """A job of it has been accepted."""


@dataclass(kw_only=True, eq=False)
class Trust:
    """The trust in one node. It is *well*; or in *trouble*, and gets nothing until a pause is over; or in *doubt* from
    then on, and gets one job to see, until it has shown what it *needs* to."""

    trouble: str = ""  # why it gets nothing; '' if it is fine
    needs: Proof = Proof.TAKES  # what ends the doubt
    unchecked: bool = False  # it failed the preflight, and is to pass it before it gets anything
    silent: bool = False  # the last look at it failed: no more looks until the pause is over
    down_since: float | None = None  # since then every connection to it was refused
    pause: float = 0.0  # the last one; 0 if it has not failed since it was well
    again_at: float = 0.0  # the end of the pause
    reported: str = ""  # the trouble that the log tells already
    bad_jobs: int = 0  # in a row

    @property
    def well(self) -> bool:
        return not (self.trouble or self.pause)

    @property
    def doubt(self) -> bool:
        """It has failed, and not shown yet that it works again."""
        return self.pause > 0

    def goes_silent(self, now: float, *, down: bool) -> None:
        """A look at it has failed; *down*: the connection was refused."""
        self.silent = True
        self.down_since = None if not down else now if self.down_since is None else self.down_since

    def answers(self) -> None:
        self.silent, self.down_since = False, None

    def is_down(self, now: float, seconds: float) -> bool:
        """Whether nothing listens there, for so many *seconds* at least."""
        return self.down_since is not None and now - self.down_since >= seconds

    def fail(self, reason: str, now: float, *, needs: Proof = Proof.TAKES) -> bool:
        """Use it no more until a growing pause is over. Returns whether this is news."""
        news = reason != self.reported
        self.trouble = self.reported = reason
        self.needs = max(needs, self.needs if self.doubt else needs)
        if now >= self.again_at:  # several calls that fail together are one failure
            longest = LONGEST_PAUSE if self.down_since is None else LONGEST_DOWN
            self.pause = min(max(FIRST_PAUSE, self.pause * 2), longest)
            self.again_at = now + self.pause
        return news

    def job_failed(self, reason: str, now: float) -> bool:
        """A job of it came to nothing. Returns whether it is in doubt for it now, and that is news."""
        self.bad_jobs += 1
        return self.bad_jobs >= BAD_JOBS and self.fail(reason, now, needs=Proof.DELIVERS)

    def recover(self, now: float) -> None:
        """It has answered: once its pause is over it gets one job, to see."""
        if now >= self.again_at:
            self.trouble = ""

    def worked(self, proof: Proof) -> bool:
        """It has shown *proof*. Returns whether this ends a doubt."""
        if proof is Proof.DELIVERS:
            self.bad_jobs = 0
        if not self.doubt or proof < self.needs:
            return False
        self.pause, self.reported, self.trouble = 0.0, "", ""
        return True

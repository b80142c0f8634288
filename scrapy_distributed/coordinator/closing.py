"""Why the crawl closes, and what that means for its run. Pure."""

from __future__ import annotations

from enum import Enum

from scrapy_distributed.words import shortened

FINISHED = "finished"
END_OF_WALK = "closespider_pagecount"
NO_JOB_STARTS = "no_job_starts"
SUPERSEDED = "superseded"
INTERRUPTIONS = frozenset((
    "shutdown", "memusage_exceeded", "fleet_unusable", "ledger_failed", "start_refused", "start_error", NO_JOB_STARTS,
    SUPERSEDED,
))  # fmt: skip
CLOSED_ITSELF = "closed_itself"


class Means(Enum):
    """What the end of the crawl is for its run."""

    SETTLE = "settle"
    """Nothing more is found here; what has been found is crawled, and the run is over."""
    STOP = "stop"
    """The run is over as it is: a limit of the crawl or its spider wants that. What is left is not crawled."""
    PAUSE = "pause"
    """It can't go on just now. The same command takes the run up again."""


class Closing:
    """*reason*: why the crawl closes, as Scrapy has it; '' as long as it does not. *lands*: nothing more is begun, what
    is under way comes home."""

    def __init__(self) -> None:
        self.reason = ""
        self.means: Means | None = None
        self.lands = False

    def asked(self, reason: object, *, idle: bool) -> None:
        """Somebody wants it to close. *idle*: there is nothing to crawl here. The first reason counts, but where what
        was found is still crawled another one may end that."""
        text = shortened(str(reason or "cancelled"))
        if self.means is None or (self.settles and text not in (FINISHED, END_OF_WALK)):
            self.reason, self.means = text, meaning(text, idle=idle)

    @property
    def begun(self) -> bool:
        return self.means is not None

    @property
    def settles(self) -> bool:
        return self.means is Means.SETTLE

    @property
    def stops(self) -> bool:
        return self.means is Means.STOP

    @property
    def takes_more(self) -> bool:
        """Whether the run may be given more to do: also while what was found is still crawled."""
        return not self.begun or (self.settles and not self.lands)

    @property
    def ends_jobs(self) -> bool:
        """Whether no more are sent, and those under way are told to end."""
        return self.stops or self.reason == NO_JOB_STARTS


def meaning(reason: str, *, idle: bool) -> Means:
    """A spider may give any reason, also one of Scrapy's own: with something left to crawl nothing has *finished*."""
    if reason == END_OF_WALK or (reason == FINISHED and idle):
        return Means.SETTLE
    return Means.PAUSE if reason in INTERRUPTIONS else Means.STOP


def of_a_job(reason: str) -> str:
    """The reason for which the crawl closes where its spider has closed itself in a job for *reason*: none that would
    mean something else here."""
    return reason if meaning(reason, idle=True) is Means.STOP else CLOSED_ITSELF

"""How far a run is, counted at one moment: figures and words are the same in the log and for who looks on."""

from __future__ import annotations

from dataclasses import dataclass

from scrapy_distributed.ledger.balance import Balance
from scrapy_distributed.ledger.records import check_amounts, check_counts, check_times
from scrapy_distributed.words import counted

MANY_MINUTES = 180  # from then on hours are told


@dataclass(frozen=True, kw_only=True)
class Count:
    """At *time* (seconds since 1970): the *balance* of the run, and how many requests of it running jobs have
    *reported* as settled; *items*, theirs included; *rate*: requests settled a minute, of late; jobs *at_work* in
    *slots*; *walked*: nothing more is to be found here; *paused*: by an operator's wish. Raises ``ValueError`` for what
    is no count of a run."""

    time: float
    balance: Balance
    reported: int
    items: int
    rate: float
    at_work: int
    slots: int
    walked: bool
    paused: bool

    def __post_init__(self) -> None:
        check_times(self.time)
        check_counts(*vars(self.balance).values(), self.reported, self.items, self.at_work, self.slots)
        check_amounts(self.rate)
        if type(self.walked) is not bool or type(self.paused) is not bool:
            raise ValueError(f"found {self.walked!r:.60} and {self.paused!r:.60}, expected yes or no")

    @property
    def settled(self) -> int:
        """Requests, those included that running jobs have reported."""
        return self.balance.ended + self.reported

    @property
    def seconds_left(self) -> float | None:
        """For what was found so far, at this rate; ``None`` where nothing was settled of late."""
        return 60 * max(0, self.balance.diverted - self.settled) / self.rate if self.rate > 0 else None

    @property
    def rests_on(self) -> str:
        """What that time is of."""
        return "left" if self.walked else "for the rest of what was found so far"

    def __str__(self) -> str:
        diverted = self.balance.diverted
        part = f" ({100 * self.settled // diverted} %)" if diverted else ""
        return (
            f"{'paused, ' if self.paused else ''}{self.settled:,} of {counted(diverted, 'request')} settled{part}"
            f"{self._pace}, {counted(self.items, 'item')},"
            f" {self.at_work} of {counted(self.slots, 'slot')} at work"
        )

    @property
    def _pace(self) -> str:
        seconds = self.seconds_left
        if seconds is None:
            return ""
        rate = f"{self.rate:,.0f}/min" if self.rate >= 1 else f"{60 * self.rate:,.1f}/h"
        return f", {rate}, {_minutes(seconds / 60)} {self.rests_on}"


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return "less than a minute"
    return f"about {minutes:,.0f} min" if minutes < MANY_MINUTES else f"about {minutes / 60:,.0f} h"

"""The account of a run, pure: its balance (every diverted request is in exactly one state, or this says how many are
not), and what is lost of it all the same, since a balance of requests tells nothing of items and of other pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from scrapy_distributed.words import counted

RAISED_SHOWN = 10
NOT_CRAWLED = "not crawled"  # the state of what is left of a run that was stopped


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Requests of a run by state; *diverted* is counted from the keys of the requests, the rest from the batches. *not
    crawled*: what was queued or in flight when the run was stopped."""

    diverted: int
    duplicates: int
    queued: int
    in_flight: int
    crawled: int
    failed: int
    filtered: int
    dead: int
    not_crawled: int = 0

    @property
    def difference(self) -> int:
        """Requests that are in no state (above 0) or in two (below 0). Anything but 0 is a defect."""
        return self.diverted - self.queued - self.in_flight - self.ended

    @property
    def ended(self) -> int:
        return self.crawled + self.failed + self.filtered + self.dead + self.not_crawled

    @property
    def holds(self) -> bool:
        return self.difference == 0

    @property
    def settled(self) -> bool:
        """Whether the run is over: nothing waits, nothing is under way, nothing is missing."""
        return self.holds and self.queued == self.in_flight == 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self) | {"difference": self.difference}

    def __str__(self) -> str:
        sign = "=" if self.holds else "!="
        not_crawled = f" + {self.not_crawled:,} not crawled" if self.not_crawled else ""
        return (
            f"{self.diverted:,} diverted {sign} {self.queued:,} queued + {self.in_flight:,} in flight"
            f" + {self.crawled:,} crawled + {self.failed:,} failed + {self.filtered:,} filtered + {self.dead:,} dead"
            f"{not_crawled}"
        )


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What the balance of a run does not show.

    *unexported*: items of attempts that count which a feed of theirs could not express; one that two feeds lack counts
    twice. *followed*: requests that workers followed from those of their batch, and that failed: reason to number.
    *own*: the same of the coordinator's own crawl, and items that it lost. *twice*: requests that were redirected to a
    page which the run has crawled for another request as well.
    """

    unexported: int = 0
    followed: Mapping[str, int] = field(default_factory=dict)
    own: Mapping[str, int] = field(default_factory=dict)
    twice: int = 0

    @property
    def none(self) -> bool:
        return not (self.unexported or self.followed or self.own or self.twice)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """A sentence on each."""
        lines = []
        if self.unexported:
            lines.append(
                f"{counted(self.unexported, 'item')} missing in feeds that count, as their format can't express them;"
                " the log of each job names its own"
            )
        if self.own:
            lines.append(f"failed in the coordinator's own crawl: {_by_reason(self.own)}; what they lead to is missing")
        if self.followed:
            lines.append(
                f"failed on workers beside their batches: {_by_reason(self.followed)}; what they lead to is missing"
            )
        if self.twice:
            lines.append(
                f"{counted(self.twice, 'request')} redirected to a page that was crawled for another request as well;"
                " its items may be there twice"
            )
        return lines


@dataclass(frozen=True, kw_only=True)
class Results:
    """The *stream* of a shared run, by its key: of *counted* items, those of accepted attempts that count, *put* were
    put there, and *there* entries stand in it. *waiting*: accepted attempts whose items are still to be put there;
    *own*: items that the crawl command has scraped itself and that count when its own crawl is over; *lost*: items that
    could not be put there; *reread*: entries that the server had forgotten, as it lost its power, say."""

    stream: str
    counted: int
    put: int
    there: int
    waiting: int
    own: int
    lost: int
    reread: int

    @property
    def good(self) -> bool:
        """Whether each item that counts is there once, or was taken out by a reader."""
        return self.put == self.counted and self.there <= self.put and not (self.waiting or self.own or self.lost)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The first sentence is on all of it, the others on what is not as it might be."""
        lines = [f"{counted(self.counted, 'item')} that count, {_entries(self.there)} in {self.stream}"]
        if self.waiting:
            lines.append(
                f"{counted(self.waiting, 'job')} settled whose items are still to be put there: the crawl command does"
                " that"
            )
        elif self.put != self.counted:
            lines.append(f"OFF BY {self.put - self.counted}: {self.put:,} were put there")
        if self.own:
            lines.append(
                f"{counted(self.own, 'item')} scraped by the crawl command itself and still to be put there: it does"
                " that when its own crawl is over and all else is there"
            )
        if self.there < self.put:
            lines.append(f"{_entries(self.put - self.there)} taken out of it by others (XDEL, XTRIM)")
        elif self.there > self.put:
            lines.append(f"{_entries(self.there - self.put)} in it that others have put there (XADD)")
        if self.lost:
            lines.append(
                f"{counted(self.lost, 'item')} missing there, can't be read or can't be written as JSON; the log tells"
                " why"
            )
        if self.reread:
            lines.append(
                f"{_entries(self.reread)} forgotten by the server after they had been there: who had read them may see"
                " these items twice"
            )
        return lines


@dataclass(frozen=True, kw_only=True)
class Raised:
    """What code of the project has raised on workers: the *reason* of failures, what the first such error said and
    where it was raised (*example*), of how many requests of the run, and of how many pages that workers followed from
    those."""

    reason: str
    example: str
    requests: int
    followed: int

    def __str__(self) -> str:
        of = [counted(self.requests, "URL")] if self.requests else []
        of += [f"{counted(self.followed, 'page')} beside the batches"] if self.followed else []
        return f"{self.reason}: {self.example}, {', '.join(of)}"


def raised_lines(raised: Sequence[Raised]) -> list[str]:
    """A line on each, as many as fit on a screen."""
    lines = [f"raised: {one}" for one in raised[:RAISED_SHOWN]]
    left_out = len(raised) - len(lines)
    return [*lines, *([f"raised: {counted(left_out, 'other reason')}; check --json names all"] if left_out else [])]


def _entries(number: int) -> str:
    return counted(number, "entry", "entries")


def _by_reason(counts: Mapping[str, int]) -> str:
    """``3 (timeout 2, http 503 1)``."""
    by_number = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return f"{sum(counts.values()):,} ({', '.join(f'{reason}: {number:,}' for reason, number in by_number)})"

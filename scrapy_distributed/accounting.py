"""The balance of a run: every diverted request is in exactly one state, or this says how many are not. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Requests of a run by state; *diverted* is counted from the keys of the requests, the rest from the batches."""

    diverted: int
    duplicates: int
    queued: int
    in_flight: int
    crawled: int
    failed: int
    filtered: int
    dead: int

    @property
    def difference(self) -> int:
        """Requests that are in no state (above 0) or in two (below 0). Anything but 0 is a defect."""
        return self.diverted - self.queued - self.in_flight - self.ended

    @property
    def ended(self) -> int:
        return self.crawled + self.failed + self.filtered + self.dead

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
        return (
            f"{self.diverted:,} diverted {sign} {self.queued:,} queued + {self.in_flight:,} in flight"
            f" + {self.crawled:,} crawled + {self.failed:,} failed + {self.filtered:,} filtered + {self.dead:,} dead"
        )


def counted(number: int, noun: str) -> str:
    """``1 item``, ``1,000 items``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

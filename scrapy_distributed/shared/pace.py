"""How many requests a worker asks for at once: as many as one of its jobs does in about half a minute, by what it knows
of the spider, else by what the run knows of its jobs. Pure."""

from __future__ import annotations

from scrapy_distributed.wire.receipt import Receipt

FIRST = 10  # requests of a batch of a run of which nobody knows anything
SECONDS = 30.0
GROWTH = 4  # times as many as that rests on, at most: few may have been quick ones by chance
MOST = 2_000
WORTH = 20  # of that time: a second and a half is worth a process; where little waits, it goes to fewer workers


class Pace:
    """Told of each job of this worker that counts."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    def size_of(self, spider: str) -> int:
        """Requests of its next batch; 0 where nothing is known here."""
        return self._sizes.get(spider, 0)

    def took(self, spider: str, requests: int, seconds: float) -> None:
        """A job of *spider* has settled so many *requests* in *seconds* of work."""
        if requests:
            wanted = round(SECONDS * requests / max(seconds, 0.1))
            most = GROWTH * max(self.size_of(spider), requests)
            self._sizes[spider] = max(1, min(wanted, most, MOST))


def seconds_of_work(receipt: Receipt) -> float:
    """That the job of *receipt* has had, by what it says; its start is none."""
    stats = receipt.stats
    return max(0.0, stats.get("distributed/job_seconds", 0.0) - stats.get("distributed/startup_seconds", 0.0))

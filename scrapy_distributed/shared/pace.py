"""How many requests this worker asks for at once: as many as one of its jobs does in about half a minute. Pure."""

from __future__ import annotations

FIRST = 10  # requests of a batch of a spider of which nothing is known yet
SECONDS = 30.0
GROWTH = 4  # times as many as in the batch before, at most: the first one may have been a quick one by chance
MOST = 2_000
WORTH = 60  # of that time: half a second


class Pace:
    """Told of each job of this worker that counts."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    def size_of(self, spider: str) -> int:
        """Requests of its next batch."""
        return self._sizes.get(spider, FIRST)

    @property
    def least(self) -> int:
        """Requests of a batch that is worth a process: where little waits, that goes to fewer workers."""
        return max(1, min(self._sizes.values(), default=1) // WORTH)

    def took(self, spider: str, requests: int, seconds: float) -> None:
        """A job of *spider* has settled so many *requests* in *seconds* of work."""
        if requests:
            wanted = round(SECONDS * requests / max(seconds, 0.1))
            most = GROWTH * self.size_of(spider)
            self._sizes[spider] = max(1, min(wanted, most, MOST))

"""Whether each batch holds only what the one before it has found, so that the fleet crawls one link after the other."""

from __future__ import annotations

LINKS = 3  # in a row
GROWTH = 1.5  # times as many requests as the link before has: more is a site that begins to spread
WORDS = (
    "Three batches in a row hold only what the one before has found: the fleet crawls one after the other, and each has"
    " to wait until what it holds has come home and gone out again. To have workers crawl at once what they find:"
    ' DISTRIBUTED_WORKER_TARGETS = "follow"; or leave the pages that find the others out of DISTRIBUTED_TARGET_RULE or'
    " DISTRIBUTED_TARGET_CALLBACKS, then they are crawled here"
)


class Chain:
    """Where workers follow what they find (*follows*) there is none."""

    def __init__(self, *, follows: bool) -> None:
        self._follows = follows
        self._links = self._size = 0  # how many there are in a row; requests of the last one
        self._told = False

    def job_ended(self, size: int, *, found: bool, alone: bool) -> bool:
        """A job with *size* requests counts. *found*: it brings requests for the fleet; *alone*: nothing else is under
        way, or left. Returns whether a chain is to be told, the first time."""
        if not (found and alone) or self._follows:
            self._links = 0
        else:
            self._links = 1 if size > GROWTH * self._size else self._links + 1
        self._size = size
        news = self._links == LINKS and not self._told
        self._told = self._told or news
        return news

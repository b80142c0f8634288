"""The open batch, by number and length, and when it closes. Its requests are in the ledger."""

from __future__ import annotations


class OpenBatch:
    """Counts the requests that are in no batch yet, until there are enough of them or the first is too old.

    *size*: requests a batch; *max_bytes*: of their texts together; *max_age*: seconds. Without a *size* more than one
    batch may wait here.
    """

    def __init__(self, *, size: int | None, max_bytes: int, max_age: float) -> None:
        self.size = size
        self.max_bytes = max_bytes
        self.max_age = max_age
        self.count = 0
        self._bytes = 0
        self._opened = 0.0
        self.added = 0.0  # when the last one came

    def add(self, count: int, length: int, now: float) -> None:
        """*count* requests, with texts of *length* bytes together."""
        if count and not self.count:
            self._opened = now
        self.added = now
        self.count += count
        self._bytes += length

    def leave(self, count: int, length: int) -> None:
        """The first *count* are in batches now."""
        self.count -= count
        self._bytes -= length
        self._opened = self.added  # what is left over came last

    @property
    def full(self) -> list[int]:
        """The sizes of the batches that are full."""
        return [] if self.size is None else [self.size] * (self.count // self.size)

    @property
    def too_long(self) -> bool:
        """Whether more than *max_bytes* wait, so that something must be cut off though no node can take it yet."""
        return self._bytes >= self.max_bytes

    def waits_since(self, now: float, seconds: float) -> bool:
        """Whether the first one has waited for so many *seconds*."""
        return bool(self.count) and now - self._opened >= seconds

    def overdue(self, now: float) -> bool:
        return self.waits_since(now, self.max_age)

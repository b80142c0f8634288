"""The open batch, and when it closes."""

from __future__ import annotations


class Batcher:
    """The open batch: encoded requests, in order, until there are enough of them or the first is too old.

    *size*: requests a batch; *max_bytes*: of their texts together; *max_age*: seconds. Without a *size* more than one
    batch may wait here, and ``take`` cuts one off when it is due.
    """

    def __init__(self, *, size: int | None, max_bytes: int, max_age: float) -> None:
        self.size = size
        self.max_bytes = max_bytes
        self.max_age = max_age
        self.bodies: list[str] = []
        self._bytes = 0
        self._opened = 0.0
        self.added = 0.0  # when the last one came

    def add(self, bodies: list[str], now: float) -> None:
        if bodies and not self.bodies:
            self._opened = now
        self.added = now
        self.bodies += bodies
        self._bytes += sum(map(len, bodies))

    def take_full(self) -> list[list[str]]:
        """The batches that are full; what is left over stays open."""
        full = []
        if self.size is not None:
            while len(self.bodies) >= self.size:
                full += self.take(self.size)
            if self.bodies and self.too_long:
                full += self.take_all()
        return full

    def take(self, count: int) -> list[list[str]]:
        """One batch of the first *count*; what is left over stays open."""
        taken, self.bodies = self.bodies[:count], self.bodies[count:]
        self._bytes -= sum(map(len, taken))
        self._opened = self.added  # what is left over came last
        return [taken] if taken else []

    @property
    def too_long(self) -> bool:
        """Whether more than *max_bytes* wait, so that something must be cut off though no node can take it yet."""
        return self._bytes >= self.max_bytes

    def take_all(self) -> list[list[str]]:
        bodies, self.bodies, self._bytes = self.bodies, [], 0
        return [bodies] if bodies else []

    def put_back(self, batches: list[list[str]]) -> None:
        """Undo ``take_full`` or ``take_all``."""
        self.bodies = [body for batch in batches for body in batch] + self.bodies
        self._bytes = sum(map(len, self.bodies))

    def overdue(self, now: float) -> bool:
        return bool(self.bodies) and now - self._opened >= self.max_age

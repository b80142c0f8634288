"""What the walk of a shared run has found and scraped, until the run's server has it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from scrapy_distributed.divert.diverter import Entry
from scrapy_distributed.wire.session import Session, session_of

PART = 1_000  # requests that are added in one call
PART_BYTES = 1024 * 1024  # of items that are added in one call, or one item
MOST = 10 * PART  # requests: with more no further page is asked for


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is added in one call: *entries* with their *sessions*, the keys of *pages* that have brought items, or the
    lines of each of such *items*."""

    entries: Sequence[Entry] = ()
    sessions: Mapping[str, Session] = field(default_factory=dict)
    pages: Sequence[bytes] = ()
    items: list[bytes] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.entries) + len(self.pages) + len(self.items)


class Buffer:
    """In the order in which it was found. *size*: requests, pages and items; a part that is being added is still in
    it."""

    def __init__(self) -> None:
        self._parts: deque[Part] = deque()
        self._last_bytes = 0  # of the items of the last part
        self.size = 0

    @property
    def full(self) -> bool:
        return self.size >= MOST

    def put(self, entries: Sequence[Entry], sessions: Mapping[str, Session]) -> None:
        for start in range(0, len(entries), PART):
            some = entries[start : start + PART]
            last = self._parts[-1] if len(self._parts) > 1 else None  # the first one may be on its way
            if last is not None and last.entries and last.size + len(some) <= PART:
                self._parts.pop()
                self.size -= last.size
                self._append(Part(entries=[*last.entries, *some], sessions={**last.sessions, **_of(some, sessions)}))
            else:
                self._append(Part(entries=some, sessions=_of(some, sessions)))

    def put_pages(self, keys: Collection[bytes]) -> None:
        for start in range(0, len(keys), PART):
            self._append(Part(pages=list(keys)[start : start + PART]))

    def put_item(self, lines: bytes) -> None:
        last = self._parts[-1] if len(self._parts) > 1 else None  # the first one may be on its way
        if not last or not last.items or last.size == PART or self._last_bytes + len(lines) > PART_BYTES:
            last, self._last_bytes = Part(), 0
            self._parts.append(last)
        last.items.append(lines)
        self._last_bytes += len(lines)
        self.size += 1

    def first(self) -> Part | None:
        return self._parts[0] if self._parts else None

    def leave(self) -> None:
        """The first part is added."""
        self.size -= self._parts.popleft().size

    def _append(self, part: Part) -> None:
        self._parts.append(part)
        self.size += part.size


def _of(entries: Sequence[Entry], sessions: Mapping[str, Session]) -> dict[str, Session]:
    if not sessions:
        return {}
    named = {session_of(body) for _, body in entries}
    return {name: session for name, session in sessions.items() if name in named}

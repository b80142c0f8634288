"""The keys that a command of a shared run has seen on this machine, and how often it has asked for one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack, closing
from pathlib import Path

from scrapy_distributed.coordinator.home_journal import written
from scrapy_distributed.ledger.sqlite_seen import Occurrences, Seen


class SeenHere:
    """In scratch files in *folder*. Methods raise ``LedgerUnavailableError`` where these can't be written."""

    def __init__(self, folder: Path) -> None:
        self._opened = ExitStack()
        self._keys = self._opened.enter_context(closing(Seen(folder)))
        self._occurrences = self._opened.enter_context(closing(Occurrences(folder)))

    def occurrence(self, key: bytes) -> int:
        """How often this was called for *key*, this call included."""
        with written():
            return self._occurrences.count(key)

    def add(self, keys: Iterable[bytes]) -> None:
        with written():
            self._keys.add(keys)

    def add_new(self, keys: Collection[bytes]) -> bool:
        """Add *keys* if all of them are new. Returns whether they were."""
        with written():
            new = self._keys.add(keys)
        if not all(new):
            self._keys.discard([key for key, is_new in zip(keys, new, strict=True) if is_new])
        return all(new)

    def __contains__(self, key: bytes) -> bool:
        with written():
            return key in self._keys

    def close(self) -> None:
        self._opened.close()

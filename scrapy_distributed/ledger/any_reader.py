"""What the commands ask of a ledger: the same of one in a file (``reader``) and of one in a Redis or Valkey."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from scrapy_distributed.ledger.balance import Balance, Losses, Raised, Results
from scrapy_distributed.ledger.records import (
    AcceptedAttempt,
    AttemptRecord,
    BatchRecord,
    OutcomeRecord,
    RunRecord,
)


class AnyReader(Protocol):
    """The runs of one ledger, which may be written meanwhile. Each method raises ``LedgerError`` where it can't be
    read. *run* is the ``id`` of one of ``runs``."""

    place: str  # where the ledger is, for people

    def runs(self) -> list[RunRecord]:
        """Oldest first."""

    def balance(self, run: int) -> Balance: ...

    def losses(self, run: int) -> Losses: ...

    def results(self, run: RunRecord) -> Results | None:
        """``None`` where items do not go into a stream."""

    def raised(self, run: int) -> list[Raised]: ...

    def each_batch(self, run: int, first: int = 1, last: int = ...) -> Iterator[BatchRecord]: ...

    def batch_counts(self, run: int) -> list[tuple[str, str | None, int]]:
        """State, node of the last attempt (``None``: there was none), and the number of batches with these."""

    def children(self, run: int, batch: int) -> list[int]:
        """The batches that were made of *batch* alone."""

    def attempts(self, run: RunRecord, batch: int) -> list[AttemptRecord]: ...

    def outcomes(
        self, run: int, *, batch: int | None = None, wanted: Callable[[str, str], bool] = ...
    ) -> Iterator[OutcomeRecord]: ...

    def not_crawled(self, run: RunRecord) -> Iterator[OutcomeRecord]: ...

    def accepted(self, run: int) -> list[AcceptedAttempt]: ...

    def feeds(self, run: int) -> list[str]: ...

    def feed_urls(self, run: int) -> list[str]: ...

    def close(self) -> None: ...

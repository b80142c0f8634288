"""What ``scrapy batches check`` says of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scrapy_distributed.ledger.balance import raised_lines
from scrapy_distributed.words import escaped

if TYPE_CHECKING:
    from scrapy_distributed.ledger.any_reader import AnyReader
    from scrapy_distributed.ledger.balance import Balance
    from scrapy_distributed.ledger.records import RunRecord


class Account:
    """Of *run* in *ledger*."""

    def __init__(self, ledger: AnyReader, run: RunRecord) -> None:
        self.ledger = ledger
        self.run = run
        self.balance = ledger.balance(run.id)
        self.losses = ledger.losses(run.id)
        self.raised = ledger.raised(run.id)
        self.results = ledger.results(run)
        self.verdict = verdict_of(run, self.balance)

    def good(self, *, strict: bool) -> bool:
        """A page that fails is the site's affair, unless *strict*; an item that was scraped and is gone is not."""
        whole = self.results is None or self.results.good
        return whole and (self.losses.none if strict else not self.losses.unexported)

    def as_dict(self) -> dict[str, Any]:
        named = {"name": self.run.name, "ledger": self.ledger.place, "verdict": self.verdict}
        results = {} if self.results is None else {"results": self.results.as_dict()}
        return {**named, **self.balance.as_dict(), "stopped": self.run.stopped, "losses": self.losses.as_dict(),
                "raised": [vars(one) for one in self.raised], **results}  # fmt: skip

    def lines(self) -> list[str]:
        why = [] if self.run.stopped is None else [f"stopped: {escaped(self.run.stopped)}"]
        results = [] if self.results is None else self.results.lines()
        more = [*results, *raised_lines(self.raised), *self.losses.lines()]
        return [str(self.balance), self.verdict, *why, *map(escaped, more)]


def verdict_of(run: RunRecord, balance: Balance) -> str:
    if not balance.holds:
        return f"OFF BY {balance.difference}"
    if balance.settled and run.walked is not None:
        stored = run.ended is not None or run.identity.get("items") not in ("home", "stream")
        return "settled" if stored else "not stored yet"
    return "not finished" if run.ended is None else "given up"

"""``scrapy batches log`` of a shared run: the ends of the logs that workers have sent, of jobs that do not count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scrapy_distributed.commands.batch_words import log_title
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.password import without_passwords
from scrapy_distributed.words import escaped

if TYPE_CHECKING:
    from scrapy_distributed.ledger.records import AttemptRecord

NAMED = ("number", "label", "job", "node", "state", "reason")
KEPT = "its end, the rest is in the --logs folder of that worker"
ELSEWHERE = "in the --logs folder of that worker: here is the end of one whose job has not ended well"


class LogTails:
    """*tails*: what is kept of the log of each of *attempts*, '' where nothing is."""

    def __init__(self, run: str, batch: int, attempts: Sequence[AttemptRecord], tails: Sequence[str]) -> None:
        self.run = run
        self.batch = batch
        self.attempts = attempts
        self.tails = tails

    def show_as_json(self) -> int:
        """Returns the exit code, here and below: 1 where none is kept."""
        shown = [
            {**{name: getattr(one, name) for name in NAMED}, "log_tail": tail or None}
            for one, tail in zip(self.attempts, self.tails, strict=True)
        ]
        print(json.dumps({"run": self.run, "batch": self.batch, "attempts": shown}))
        return 0 if any(self.tails) else 1

    def show(self) -> int:
        for attempt, tail in zip(self.attempts, self.tails, strict=True):
            print(log_title(attempt, KEPT if tail else ELSEWHERE))
            for line in tail.splitlines():
                print(escaped(without_passwords(line)))
        return 0 if any(self.tails) else 1

    def follow(self) -> int:
        raise LedgerError(
            f"run {self.run}: found -f, and the log of a job that runs is with its worker: expected it there, on"
            f" {escaped(self.attempts[-1].node)}, in its --logs folder"
        )

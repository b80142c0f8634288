"""A wish of an operator for a crawl that runs, and what comes of it."""

from __future__ import annotations

import time
from pathlib import Path

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.sqlite_schema import is_held
from scrapy_distributed.ledger.wishes import Wishes

ANSWER_SECONDS = 30.0  # a coordinator looks once a second, unless it is busy
LOOK_SECONDS = 0.1


def wish(ledger: Path, what: str, *, seconds: float = ANSWER_SECONDS) -> str:
    """Have the crawl with *ledger* do *what*, and return its answer. Raises ``LedgerError`` where no crawl uses it, or
    none answers within so many *seconds*."""
    if not is_held(ledger):
        raise LedgerError(f"{ledger}: no crawl uses it now, so there is nothing to {what}")
    wishes = Wishes(ledger)
    number = wishes.ask(what)
    deadline = time.monotonic() + seconds
    while (answer := wishes.answer_of(number)) is None:
        if time.monotonic() > deadline:
            raise LedgerError(
                f"{ledger}: its crawl has not answered within {seconds:g} s: is it stopped, or very busy? What"
                f" was wished ({what}) it does when it goes on"
            )
        if not is_held(ledger):
            raise LedgerError(f"{ledger}: its crawl has ended meanwhile")
        time.sleep(LOOK_SECONDS)
    return answer

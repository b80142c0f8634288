"""A wish of an operator for a crawl that runs, and what comes of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy_distributed.commands.batch_words import title
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.answer import Answer
from scrapy_distributed.ledger.board import read_board
from scrapy_distributed.ledger.sqlite_schema import is_held
from scrapy_distributed.ledger.wishes import Wishes
from scrapy_distributed.words import escaped

if TYPE_CHECKING:
    from scrapy_distributed.ledger.any_reader import AnyReader
    from scrapy_distributed.ledger.reader import LedgerReader
    from scrapy_distributed.ledger.records import RunRecord

ANSWER_SECONDS = 30.0  # a coordinator looks once a second, unless it is busy
LOOK_SECONDS = 0.1


def wish_of_all(ledgers: Iterable[Path], what: str, abouts: Sequence[str]) -> int:
    """Have each crawl that uses one of *ledgers* now do *what* about each of *abouts*, and print its answers. Returns
    the exit code: 2 where no crawl runs, or one does not answer."""
    used = [path for path in ledgers if path.is_file() and is_held(path)]
    if not used:
        print(f"no crawl of this project runs now, so there is nothing to {what}", file=sys.stderr)
        return 2
    try:
        for path, about in product(used, abouts):
            print(f"{path.name}: {escaped(wish(path, what, about).words)}", flush=True)
    except LedgerError as error:
        print(escaped(str(error)), file=sys.stderr)
        return 2
    return 0


def that_runs(ledger: LedgerReader, last: RunRecord) -> RunRecord:
    """The run of the crawl that uses *ledger*, by its board: not the *last* one where an older one goes on."""
    with suppress(LedgerError):
        board = read_board(ledger.path)
        return next((run for run in ledger.runs() if board is not None and run.name == board.run), last)
    return last


def print_answer(ledger: AnyReader, run: RunRecord, answer: Answer, *, as_json: bool) -> int:
    """What has come of a wish about *run*. Returns the exit code: 1 where nothing was done."""
    if as_json:
        print(json.dumps({"run": run.name, "spider": run.identity["spider"], **answer.numbers, "answer": answer.words}))
    else:
        first, *more = map(escaped, answer.lines)
        print("\n".join([title(ledger, run), f"  {first}", *(f"    {line}" for line in more)]))
    return 0 if answer.done else 1


def wish(ledger: Path, what: str, about: str = "", *, seconds: float = ANSWER_SECONDS) -> Answer:
    """Have the crawl with *ledger* do *what* (*about* a node, say), and return its answer. Raises ``LedgerError`` where
    no crawl uses it, or none answers within so many *seconds*."""
    if not is_held(ledger):
        raise LedgerError(f"{ledger}: no crawl uses it now, so there is nothing to {what}")
    wishes = Wishes(ledger)
    number = wishes.ask(what, about)
    deadline = time.monotonic() + seconds
    while (answer := wishes.answer_of(number)) is None:
        if time.monotonic() > deadline:
            raise LedgerError(
                f"{ledger}: its crawl has not answered within {seconds:g} s: is it stopped, very busy, or"
                f" still waiting for its nodes? What was wished ({what}) it does when it goes on"
            )
        if not is_held(ledger):
            raise LedgerError(f"{ledger}: its crawl has ended meanwhile")
        time.sleep(LOOK_SECONDS)
    return Answer.from_text(answer)

"""``scrapy batches retry``: what is dead or has failed goes out again."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from scrapy.settings import Settings

from scrapy_distributed.commands.batch_words import title
from scrapy_distributed.commands.wishing import print_answer, that_runs, wish
from scrapy_distributed.ledger.answer import Answer
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.sqlite_schema import is_held
from scrapy_distributed.ledger.wanted import Retried
from scrapy_distributed.words import counted, escaped

if TYPE_CHECKING:
    from scrapy_distributed.commands.operating import AtHome
    from scrapy_distributed.ledger.reader import LedgerReader
    from scrapy_distributed.ledger.records import RunRecord
    from scrapy_distributed.ledger.wanted import Wanted


def retry(reader: LedgerReader, run: RunRecord, wanted: Wanted, *, as_json: bool) -> int:
    """The dead and the failed requests of *run* that are *wanted*. Returns the exit code. Where a crawl uses the
    ledger, that does so with its own run, and what it answers is printed."""
    if is_held(reader.path):
        run = that_runs(reader, run)
        answer = wish(reader.path, "retry", replace(wanted, run=run.name).as_text())
        numbers = Retried(0, 0).numbers | dict(answer.numbers)  # also where it says why nothing was done
        return print_answer(reader, run, replace(answer, numbers=numbers), as_json=as_json)
    with closing(Ledger(reader.path)) as ledger:
        retried = ledger.control.retry(wanted)
    lines = [retried.words, *retried.more]
    if retried.begun:
        lines.append("where the parser was mended and Scrapyds crawl, deploy it before: scrapy fleet deploy")
    goes_on = retried.again > 0 or reader.runs()[-1].stopped != run.stopped
    answer = Answer(lines=tuple(lines), done=goes_on, numbers=retried.numbers)
    code = print_answer(reader, run, answer, as_json=as_json)
    if goes_on and not as_json:
        print(_taken_up(run))
    return code


def retry_lost_items(reader: LedgerReader, run: RunRecord, home: AtHome, settings: Settings, *, as_json: bool) -> int:
    """Whose items came home in *run*, and are missing or damaged there. Returns the exit code."""
    from scrapy_distributed.commands.batch_export import lost
    from scrapy_distributed.ledger.spooled import whose

    with closing(Ledger(reader.path)) as ledger:  # before: a coordinator may be at it
        names = lost(home, run, settings)
        taken = ledger.control.lose_items(names)
    if as_json:
        print(json.dumps({"run": run.name, "spider": run.identity["spider"], "again": taken, "lost": names}))
        return 0 if names else 1
    print(title(reader, run))
    for name in names:
        print(f"  {name} is lost: {whose(name)} is crawled again")
    print(f"  {counted(len(names), 'lost file')}, {counted(taken, 'request')} to be crawled again")
    if names:
        print(_taken_up(run))
    return 0 if names else 1


def _taken_up(run: RunRecord) -> str:
    command = f"scrapy crawl {escaped(run.identity['spider'])}, with its arguments"
    return f"  the command that began the run takes it up again: {command}"

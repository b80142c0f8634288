"""``scrapy fleet cancel``: nothing of a run is to go on anywhere."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from scrapy_distributed.commands import run_in_reactor
from scrapy_distributed.commands.wishing import that_runs, wish
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.fleet.cancel import Cancelled, cancel
from scrapy_distributed.fleet.node import NodeAddress, open_nodes
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite_schema import is_held
from scrapy_distributed.together import together
from scrapy_distributed.words import counted, escaped

ANSWER_SECONDS = 10.0  # somebody wants it to be over now


def cancel_runs(ledgers: Sequence[Path], where: Sequence[NodeAddress], project: str, run: str | None) -> int:
    """Pause the crawls that use *ledgers* now, end the jobs of their runs on the nodes at *where*, and see that none is
    left; *run*: of this one alone. Returns the exit code. Raises ``LedgerError``."""
    names: list[str] = []
    owned: list[str] = []
    for path in (path for path in ledgers if path.is_file()):
        with closing(LedgerReader(path)) as ledger:
            runs = ledger.runs()
            held = that_runs(ledger, runs[-1]).name if runs and is_held(path) else None
        chosen = [one.name for one in runs if run in (None, one.name)]
        names += chosen
        if held in chosen and _pauses(path, held, run or ""):
            owned.append(held)
    if run is not None and not names:
        raise LedgerError(f"found no run {run} in {', '.join(map(str, ledgers)) or 'any ledger of the project'}")
    results = run_in_reactor(lambda: _everywhere(where, project, names, owned)) if where and names else []
    for result in results or ():
        print(_words(result), file=sys.stderr if result.problem or result.left else sys.stdout)
    if not names:
        print("no run of this project is known here, so nothing was cancelled")
    return 1 if results is None or any(result.problem or result.left for result in results) else 0


def _pauses(ledger: Path, run: str, meant: str) -> bool:
    """Whether the crawl of *run* ends its jobs itself. If it does not answer, nobody waits for it. *meant*: the one run
    that is meant, '' where it is any."""
    try:
        answer = wish(ledger, "cancel", meant, seconds=ANSWER_SECONDS)
    except LedgerError as error:
        print(f"run {run}: {escaped(str(error))}", file=sys.stderr, flush=True)
        return False
    print(f"run {run}: {escaped(answer.words)}", flush=True)
    return answer.done


async def _everywhere(
    where: Sequence[NodeAddress], project: str, runs: Collection[str], owned: Collection[str]
) -> list[Cancelled]:
    from twisted.internet import reactor

    clock: Any = reactor
    async with open_nodes(where) as nodes:
        return await together(cancel(node, project, runs, owned=owned, clock=clock) for node in nodes)


def _words(result: Cancelled) -> str:
    if result.problem:
        return f"{result.node} not known: {escaped(result.problem)}"
    if result.left:
        return f"{result.node} still has {escaped(', '.join(result.left))}: ask again, or see its Scrapyd"
    return f"{result.node} {counted(result.ended, 'job')} ended, none is left"

"""What workers on this machine are doing, as their ledgers and files tell: also while no crawl runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.fleet.local_slots import LOCAL
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.monitor.node_state import NodeState
from scrapy_distributed.words import shortened


def local_state(ledgers: Sequence[Path], project: str | None) -> NodeState:
    """The jobs on this machine of the last run of each of *ledgers*, as far as these are there; *project*: of this one
    alone. What can't be read is the problem of the state; nothing is raised for it."""
    try:
        counts = [_counts(path, project) for path in ledgers if path.is_file()]
    except (LedgerError, OSError) as error:
        return NodeState(name=LOCAL, url=LOCAL, problem=shortened(str(error)), kind="failing")
    running, finished, pending = (sum(column) for column in zip((0, 0, 0), *counts, strict=True))
    return NodeState(name=LOCAL, url=LOCAL, running=running, finished=finished, pending=pending)


def _counts(path: Path, project: str | None) -> tuple[int, int, int]:
    """Of jobs that run, have finished, and are pending. A job runs while its worker holds its lock, whatever the ledger
    says. One that is under way and does not run has yet to begin, or has just ended."""
    with closing(LedgerReader(path)) as ledger:
        runs = [run for run in ledger.runs()[-1:] if project in (None, run.identity["project"])]
        if not runs:
            return 0, 0, 0
        under_way, finished = ledger.jobs_at(runs[0], LOCAL)
    running = JobFiles.beside(path).running()
    return len(running), finished, len(under_way - running)

"""``scrapy batches log``: what the jobs of a batch have logged. What ran on this machine is read, of what ran on a
Scrapyd it is said where its log is."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy_distributed.agent.job_files import KEPT, JobFiles
from scrapy_distributed.commands.batch_words import log_title
from scrapy_distributed.errors import ConfigError, LedgerError
from scrapy_distributed.fleet.local_slots import LOCAL
from scrapy_distributed.ledger.states import AttemptState
from scrapy_distributed.wire.job import check_job_id
from scrapy_distributed.words import escaped

if TYPE_CHECKING:
    from scrapy_distributed.ledger.reader import LedgerReader
    from scrapy_distributed.ledger.records import AttemptRecord, RunRecord

NAMED = ("number", "label", "job", "node", "url", "state", "reason", "log")
PIECE = 64 * 1024  # characters that are read at once


def attempts_with_logs(ledger: LedgerReader, run: RunRecord, batch: int) -> list[AttemptRecord]:
    """The attempts at *batch*, oldest first; of one that ran on this machine, *log* is the file, ``None`` if there is
    none. Raises ``LedgerError``."""
    return [
        replace(one, log=_file(ledger.path, one.job)) if one.url == LOCAL else one
        for one in ledger.attempts(run, batch)
    ]


def show_logs(ledger: LedgerReader, run: RunRecord, label: str, *, as_json: bool) -> int:
    """Those of all attempts at a batch, by its number, or that of one attempt, like ``12.2``. Returns the exit code: 1
    if none is on this machine. *as_json*: only where they are. Raises ``LedgerError`` if there is no such attempt."""
    batch, _, number = label.partition(".")
    attempts = [one for one in attempts_with_logs(ledger, run, int(batch)) if not number or one.number == int(number)]
    if not attempts:
        raise LedgerError(f"{ledger.path}: found no attempt {label} in run {run.name}; list and show tell what it has")
    if as_json:
        shown = [{name: getattr(one, name) for name in NAMED} for one in attempts]
        print(json.dumps({"run": run.name, "batch": int(batch), "attempts": shown}))
        return 0 if any(_is_here(one) for one in attempts) else 1
    return 0 if any(list(map(_print, attempts))) else 1


def _is_here(attempt: AttemptRecord) -> bool:
    return attempt.url == LOCAL and attempt.log is not None


def _print(attempt: AttemptRecord) -> bool:
    """A line that names *attempt*, and its log if it ran on this machine. Returns whether there was one to be read."""
    if attempt.log is None or not _is_here(attempt):
        print(log_title(attempt, attempt.log or _why_none(attempt)))
        return False
    with ExitStack() as stack:
        try:
            log = stack.enter_context(open(attempt.log, encoding="utf-8", errors="replace", newline="\n"))
        except OSError as error:
            print(log_title(attempt, f"{attempt.log} can't be read: {error.strerror}"))
            return False
        print(log_title(attempt, attempt.log))
        end = "\n"
        while piece := log.readline(PIECE):
            end = "\n" if piece.endswith("\n") else ""
            print(escaped(piece.removesuffix("\n")), end=end)
        if not end:
            print()
    return True


def _why_none(attempt: AttemptRecord) -> str:
    if attempt.state == AttemptState.UNSENT.value:
        return "none, it never ran"
    if attempt.url != LOCAL:
        return "not known"
    if attempt.state in (AttemptState.BOUND.value, AttemptState.SENT.value):
        return "none yet, it has not begun"
    return f"none any more, those of the last {KEPT} jobs are kept"


def _file(ledger: Path, job: str) -> str | None:
    try:
        check_job_id(job)
    except ConfigError as error:  # it names a file, and the ledger may be somebody else's
        raise LedgerError(f"{ledger}: {error}") from None
    file = JobFiles.beside(ledger).log(job)
    return str(file) if file.is_file() else None

"""What ``scrapy batches`` says of runs, batches, attempts, requests, and of feeds that were merged."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from scrapy_distributed.ledger.balance import NOT_CRAWLED
from scrapy_distributed.ledger.states import AttemptState
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.words import counted, escaped

if TYPE_CHECKING:
    from scrapy_distributed.ledger.any_reader import AnyReader
    from scrapy_distributed.ledger.records import AttemptRecord, BatchRecord, OutcomeRecord, RunRecord
    from scrapy_distributed.results.merge import Merged

Record = TypeVar("Record", "BatchRecord", "AttemptRecord")

ENDS = tuple(outcome.value for outcome in Outcome if outcome is not Outcome.CRAWLED)
STATES = (*ENDS, NOT_CRAWLED)
COUNTS = (Outcome.CRAWLED.value, *ENDS)
FAULTS_SHOWN = 10  # of each kind


def title(ledger: AnyReader, run: RunRecord) -> str:
    spider, project = escaped(run.identity["spider"]), escaped(run.identity["project"])
    return f"run {escaped(run.name)}, spider {spider} of {project} ({ledger.place})"


def batch_lines(batch: BatchRecord, children: Sequence[int]) -> str:
    """*children*: the batches that were made of it alone, as far as they are known."""
    batch = _clean(batch)
    origin = f", from batch {batch.parent}" if batch.parent else ""
    where = f" on {batch.node}, attempt {batch.attempts}" if batch.attempts else ""
    why = f" ({batch.reason})" if batch.reason not in (None, "", "finished") else ""
    head = f"  batch {batch.number}: {counted(batch.size, 'request')}, "
    if all_moved(batch):
        after = f" after attempt {batch.attempts} on {batch.node}" if batch.attempts else ""
        return f"{head}given to {_numbers(children) or 'other batches'}{after}{why}{origin}"
    lines = [f"{head}{batch.state}{where}{why}{origin}"]
    done = [f"{getattr(batch, name):,} {name}" for name in COUNTS if getattr(batch, name)]
    if batch.moved:
        done.append(f"{batch.moved:,} given to {_numbers(children) or 'other batches'}")
    if done:
        lines.append(f"    {', '.join(done)}")
    return "\n".join(lines)


def all_moved(batch: BatchRecord) -> bool:
    return batch.moved == batch.size


def _numbers(batches: Sequence[int]) -> str:
    """``batch 2``, ``batches 2, 3 and 4``; '' for none."""
    if len(batches) < 2:
        return "".join(f"batch {number}" for number in batches)
    return f"batches {', '.join(map(str, batches[:-1]))} and {batches[-1]}"


def attempt_lines(attempt: AttemptRecord) -> str:
    from scrapy_distributed.ledger.balance import Losses

    attempt = _clean(attempt)
    where = attempt.node if attempt.url in ("", attempt.node) else f"{attempt.node} at {attempt.url}"
    why = f" ({attempt.reason})" if attempt.reason else ""
    lines = [
        f"  {_named(attempt)}: {counted(attempt.size, 'request')} on {where}, {_state(attempt)}{why}",
        f"    job {attempt.job}, given to its node {_when(attempt.bound)}, ended {_when(attempt.ended)}",
    ]
    if attempt.items is not None:
        lines.append(f"    {counted(attempt.items, 'item')}{_home(attempt)}")
    lines += [f"    {file.items:,} in {escaped(file.url)}" for file in attempt.feeds]
    losses = Losses(unexported=attempt.unexported, followed=attempt.followed)
    lines += [f"    {escaped(line)}" for line in losses.lines()]
    if attempt.log:
        lines.append(f"    log {attempt.log}")
    return "\n".join(lines)


def log_title(attempt: AttemptRecord, where: str) -> str:
    """The line before the log of *attempt*, which is *where* it says."""
    attempt = _clean(attempt)
    why = f" ({attempt.reason})" if attempt.reason else ""
    return f"==> {_named(attempt)} on {attempt.node}, {_state(attempt)}{why}, log: {escaped(where)}"


def _named(attempt: AttemptRecord) -> str:
    """With the value of its spider argument ``batch``, which names of feeds have."""
    return f"attempt {attempt.number} (batch={attempt.label})"


def _state(attempt: AttemptRecord) -> str:
    return "about to be sent" if attempt.state == AttemptState.BOUND.value else attempt.state


def _home(attempt: AttemptRecord) -> str:
    """How many of its items came home, where they do."""
    if attempt.home is None:
        return ""
    twice = f"; {attempt.twice:,} were left out, as their page had brought them before" if attempt.twice else ""
    return f", {attempt.home:,} came home{twice}"


def outcome_line(outcome: OutcomeRecord) -> str:
    return f"{escaped(outcome.state)}\t{escaped(outcome.reason)}\t{escaped(outcome.url)}"


def print_merged(merged: Merged, output: str) -> None:
    """Faults to standard error, what was written to standard output."""
    shown: Counter[str] = Counter()
    for fault in merged.faults:
        shown[fault.kind.value] += 1
        if shown[fault.kind.value] <= FAULTS_SHOWN:
            print(f"{fault.kind.value}: {escaped(fault.message)}", file=sys.stderr)
    for kind, count in shown.items():
        if count > FAULTS_SHOWN:
            print(f"{kind}: {count - FAULTS_SHOWN:,} more; --json names all", file=sys.stderr)
    what = f"{counted(merged.items, 'item')} of {counted(merged.feeds, 'feed')}"
    faults = counted(len(merged.faults), "fault")
    if not merged.written:
        print(f"nothing written: {faults}; --partial writes what is there: {what}")
    elif merged.faults:
        print(f"{what} in {output}, NOT COMPLETE: {faults}")
    else:
        print(f"{what} in {output}, each start URL in one feed only")


def _clean(record: Record) -> Record:
    """*record* with each text as ``escaped``."""
    texts: dict[str, Any] = {name: escaped(value) for name, value in vars(record).items() if isinstance(value, str)}
    return replace(record, **texts)


def _when(seconds: float | None) -> str:
    return "-" if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

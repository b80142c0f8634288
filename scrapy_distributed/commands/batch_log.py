"""``scrapy batches log``: what the jobs of a batch have logged, on this machine and on nodes of the project."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrapy_distributed.agent.job_files import KEPT, JobFiles
from scrapy_distributed.commands import run_in_reactor
from scrapy_distributed.commands.batch_words import log_title
from scrapy_distributed.commands.job_log import JobLog, LocalLog, NodeLog, Printer
from scrapy_distributed.errors import ConfigError, LedgerError, NodeError, NodeRefusedError
from scrapy_distributed.fleet.local_slots import LOCAL
from scrapy_distributed.ledger.sqlite_schema import is_held
from scrapy_distributed.ledger.states import AttemptState
from scrapy_distributed.wire.job import check_job_id
from scrapy_distributed.words import escaped

if TYPE_CHECKING:
    from scrapy_distributed.fleet.node import NodeAddress
    from scrapy_distributed.ledger.reader import LedgerReader
    from scrapy_distributed.ledger.records import AttemptRecord, RunRecord

NAMED = ("number", "label", "job", "node", "url", "state", "reason", "log")
LOOK_SECONDS = 1.0  # between two looks at a log that is followed
UNDER_WAY = (AttemptState.BOUND.value, AttemptState.SENT.value)


def attempts_with_logs(ledger: LedgerReader, run: RunRecord, batch: int) -> list[AttemptRecord]:
    """The attempts at *batch*, oldest first; of one that ran on this machine, *log* is the file, ``None`` if there is
    none. Raises ``LedgerError``."""
    return [
        replace(one, log=_file(ledger.path, one.job)) if one.url == LOCAL else one
        for one in ledger.attempts(run, batch)
    ]


class Logs:
    """Those of the attempts at a batch of *run* in *ledger*, by its number, or that of one attempt, like ``12.2``, as
    *label* says. *nodes*: those of the project, by URL: no other one is asked, since the ledger may be somebody else's.

    Raises ``LedgerError`` if there is no such attempt."""

    def __init__(
        self, ledger: LedgerReader, run: RunRecord, label: str, *, nodes: Callable[[], Mapping[str, NodeAddress]]
    ) -> None:
        self.ledger = ledger
        self.run = run
        batch, _, number = label.partition(".")
        self.batch = int(batch)
        found = attempts_with_logs(ledger, run, self.batch)
        self.attempts = [one for one in found if not number or one.number == int(number)]
        if not self.attempts:
            raise LedgerError(
                f"{ledger.path}: found no attempt {label} in run {run.name}; list and show tell what it has"
            )
        elsewhere = any(one.url != LOCAL and one.log for one in self.attempts)
        self.nodes = nodes() if elsewhere else {}

    def show_where(self) -> int:
        """As JSON. Returns the exit code: 1 where none can be read."""
        shown = [{name: getattr(one, name) for name in NAMED} for one in self.attempts]
        print(json.dumps({"run": self.run.name, "batch": self.batch, "attempts": shown}))
        return 0 if any(map(self._readable, self.attempts)) else 1

    def show(self, *, follow: bool) -> int:
        """Print them, oldest first; *follow*: that of the last one, until its job is over. Returns the exit code: 1
        where none could be read."""
        attempts = self.attempts[-1:] if follow else self.attempts
        if not any(self._readable(one, follow=follow) for one in attempts):
            for one in attempts:
                print(log_title(one, self._where(one)))
            return 1
        read = run_in_reactor(lambda: self._show(attempts, follow))
        return 0 if read is None or read else 1  # None: Ctrl-C

    async def _show(self, attempts: Sequence[AttemptRecord], follow: bool) -> bool:
        any_read = False
        async with AsyncExitStack() as stack:
            for attempt in attempts:
                print(log_title(attempt, self._where(attempt)), flush=True)
                if self._readable(attempt, follow=follow):
                    log = await self._log(attempt, stack)
                    any_read |= await self._print(attempt, log, follow and _is_under_way(attempt))
        return any_read

    async def _log(self, attempt: AttemptRecord, stack: AsyncExitStack) -> JobLog:
        if attempt.url == LOCAL:
            return LocalLog(JobFiles.beside(self.ledger.path), attempt.job)
        from scrapy_distributed.fleet.node import open_nodes

        (node,) = await stack.enter_async_context(open_nodes([self.nodes[attempt.url]]))
        project, spider = self.run.identity["project"], self.run.identity["spider"]
        return NodeLog(node, project=project, spider=spider, job=attempt.job)

    async def _print(self, attempt: AttemptRecord, log: JobLog, follows: bool) -> bool:
        """Returns whether there was something to be read."""
        printer, first, fault = Printer(), 0, ""
        while True:
            told, fault = fault, ""
            try:
                runs = follows and (await log.runs() or self._may_begin(attempt))  # before the end of it is read
                while part := await log.part(first):
                    printer.feed(part)
                    first += len(part)
                fault = "none there" if part is None and not runs else ""
            except (NodeError, OSError) as error:
                runs = follows and not isinstance(error, (NodeRefusedError, OSError))
                fault = f"can't be read: {escaped(str(error))}"
            sys.stdout.flush()
            if fault and fault != told:
                print(f"==> attempt {attempt.number}: {fault}", file=sys.stderr)
            if not runs:
                printer.end()
                return not fault
            await _pause(LOOK_SECONDS)

    def _may_begin(self, attempt: AttemptRecord) -> bool:
        """Whether a crawl still expects something of it, though its job does not run, or not yet."""
        (now,) = (one for one in self.ledger.attempts(self.run, self.batch) if one.number == attempt.number)
        return _is_under_way(now) and is_held(self.ledger.path)

    def _readable(self, attempt: AttemptRecord, *, follow: bool = False) -> bool:
        """*follow*: or will be; what runs on this machine has no log before it begins."""
        if attempt.url == LOCAL:
            return attempt.log is not None or (follow and _is_under_way(attempt))
        return attempt.log is not None and attempt.url in self.nodes

    def _where(self, attempt: AttemptRecord) -> str:
        """Its log, or why it is not read."""
        if attempt.log is None:
            return _why_none(attempt)
        if self._readable(attempt):
            return attempt.log
        return f"{attempt.log} (not read: its node is in neither scrapy.cfg nor DISTRIBUTED_TARGET_HOSTS)"


def nodes_of(settings: Any) -> dict[str, NodeAddress]:
    """The Scrapyds of the project, by URL: those of ``scrapy.cfg``, and of ``DISTRIBUTED_TARGET_HOSTS``. Raises
    ``ConfigError``."""
    from scrapy_distributed.config.config import Config
    from scrapy_distributed.fleet.addresses import addresses, targets_from_cfg

    targets = targets_from_cfg()
    named = [target.name for target in targets.values() if target.url]
    hosts = [*named, *Config.from_settings(settings).target_hosts]
    return {address.url: address for address in addresses(hosts, targets=targets)} if hosts else {}


async def _pause(seconds: float) -> None:
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    clock: Any = reactor
    await deferLater(clock, seconds)


def _is_under_way(attempt: AttemptRecord) -> bool:
    return attempt.state in UNDER_WAY


def _why_none(attempt: AttemptRecord) -> str:
    if attempt.state == AttemptState.UNSENT.value:
        return "none, it never ran"
    if attempt.url != LOCAL:
        return "not known"
    if _is_under_way(attempt):
        return "none yet, it has not begun"
    return f"none any more, those of the last {KEPT} jobs are kept"


def _file(ledger: Path, job: str) -> str | None:
    try:
        check_job_id(job)
    except ConfigError as error:  # it names a file, and the ledger may be somebody else's
        raise LedgerError(f"{ledger}: {error}") from None
    file = JobFiles.beside(ledger).log(job)
    return str(file) if file.is_file() else None

"""What is done with a run: of a ledger in a file by wishes for its crawl, of a shared one by what its server keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from scrapy_distributed.commands.batch_log import Logs, attempts_with_logs, nodes_of
from scrapy_distributed.commands.batch_retry import retry, retry_lost_items
from scrapy_distributed.commands.wishing import print_answer, that_runs, wish
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.spooled import crawled_again

if TYPE_CHECKING:
    from scrapy.settings import Settings

    from scrapy_distributed.ledger.reader import LedgerReader
    from scrapy_distributed.ledger.records import AttemptRecord, RunRecord
    from scrapy_distributed.ledger.wanted import Wanted
    from scrapy_distributed.wire.receipt import ItemsFile


class AtHome(NamedTuple):
    """What has come home of a run: *files* in the spool that is beside the file *beside*, name to what should be in
    each. *advice*: what to do where one is lost."""

    beside: Path
    files: Mapping[str, ItemsFile]
    advice: str


class Operator(Protocol):
    """For one run. What prints returns the exit code. Each method raises ``LedgerError`` where it can't be done."""

    def wish(self, what: str, *, as_json: bool) -> int:
        """*what*: pause, resume or cancel."""

    def retry(self, wanted: Wanted, *, as_json: bool) -> int: ...

    def retry_lost_items(self, *, as_json: bool) -> int: ...

    def forget(self, *, force: bool, as_json: bool) -> int: ...

    def log(self, label: str, *, follow: bool, as_json: bool) -> int:
        """*label*: the number of a batch, or of one attempt at it, like ``12.2``."""

    def attempts(self, batch: int) -> Sequence[AttemptRecord]:
        """Oldest first, with the places of their logs."""

    def at_home(self) -> AtHome: ...


class FileOperator:
    """For *run* of the ledger in a file; *named*: it was asked for by its name."""

    def __init__(self, reader: LedgerReader, run: RunRecord, *, named: bool, settings: Settings) -> None:
        self.reader = reader
        self.run = run
        self.named = named
        self.settings = settings

    def wish(self, what: str, *, as_json: bool) -> int:
        self._check_run()
        answer = wish(self.reader.path, what)
        return print_answer(self.reader, that_runs(self.reader, self.run), answer, as_json=as_json)

    def retry(self, wanted: Wanted, *, as_json: bool) -> int:
        self._check_run()
        return retry(self.reader, self.run, wanted, as_json=as_json)

    def retry_lost_items(self, *, as_json: bool) -> int:
        self._check_run()
        return retry_lost_items(self.reader, self.run, self.at_home(), self.settings, as_json=as_json)

    def forget(self, *, force: bool, as_json: bool) -> int:
        raise LedgerError(
            f"{self.reader.place}: found a ledger in a file, expected a shared run: a file is forgotten when it is"
            " deleted, with what is beside it, while no crawl uses it"
        )

    def log(self, label: str, *, follow: bool, as_json: bool) -> int:
        logs = Logs(self.reader, self.run, label, nodes=lambda: nodes_of(self.settings))
        return logs.show_where() if as_json else logs.show(follow=follow)

    def attempts(self, batch: int) -> Sequence[AttemptRecord]:
        return attempts_with_logs(self.reader, self.run, batch)

    def at_home(self) -> AtHome:
        path = self.reader.path
        return AtHome(path, self.reader.spooled(self.run.id), crawled_again(path))

    def _check_run(self) -> None:
        """Only the run that goes on, else the last one, can be changed."""
        meant = that_runs(self.reader, self.reader.runs()[-1])
        if self.named and meant.name != self.run.name:
            raise LedgerError(
                f"{self.reader.place}: found run {self.run.name}, expected {meant.name}: of a ledger in a file only the"
                " run that goes on, or else the last one, can be changed"
            )

"""Which ledgers a command is about: files of the project, or its runs in a Redis or Valkey."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from scrapy_distributed.commands import ledger_paths, shared_address
from scrapy_distributed.commands.operating import FileOperator, Operator
from scrapy_distributed.commands.shared_operating import SharedOperator
from scrapy_distributed.commands.shared_reader import SharedLedgers, SharedReader
from scrapy_distributed.coordinator.identity import ledger_of, ledgers_folder
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.fleet.addresses import project_of, targets_from_cfg
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.words import listed

if TYPE_CHECKING:
    from scrapy.settings import Settings

    from scrapy_distributed.ledger.records import RunRecord
    from scrapy_distributed.shared.address import RedisAddress

    Reader = LedgerReader | SharedReader
    Run = tuple[Reader, RunRecord]


class Ledgers:
    """The one *given* by its file or URL, or that of *spider*, else that of the settings, else all of the project. Open
    while *stack* is. Raises ``ConfigError``, and ``LedgerError`` where there is none, or one can't be read."""

    def __init__(self, settings: Settings, stack: ExitStack, *, given: str | None, spider: str | None) -> None:
        self.settings = settings
        self.stack = stack
        address = shared_address(settings, given)
        self.readers: list[LedgerReader] | list[SharedReader]
        if address is None:
            paths = _paths(settings, given, spider)
            self.readers = [stack.enter_context(closing(LedgerReader(path))) for path in paths]
            self.place = str(paths[0] if len(paths) == 1 else paths[0].parent)
            self.names = [path.name for path in paths]
            self.how = "--spider or --ledger"
        else:
            self.readers = self._shared(address, spider)
            self.place = str(address)
            self.names = [f"runs of {reader.spider}" for reader in self.readers]
            self.how = "--spider or --run"

    def _shared(self, address: RedisAddress, spider: str | None) -> list[SharedReader]:
        project = project_of(targets_from_cfg(), (), self.settings)
        shared = self.stack.enter_context(
            closing(SharedLedgers(address, project, ledger=str(self.settings.get("DISTRIBUTED_LEDGER") or "")))
        )
        readers = shared.by_spider()
        found = [one for one in readers if spider in (None, one.spider)]
        if not found:
            known = f", only of {listed(one.spider for one in readers)}" if readers else ""
            raise LedgerError(
                f"{address}: found no run of {f'a spider {spider!r} of ' if spider else ''}project {project}{known}; a"
                " distributed crawl begins one, --ledger names another ledger"
            )
        return found

    def runs(self, *, every: bool, named: str | None) -> list[Run]:
        """The last one of each, or *every* one, or the one that is *named*. Raises ``LedgerError`` if that is none."""
        of_each = [(reader, reader.runs()) for reader in self.readers]
        if named is None:
            return [(reader, run) for reader, runs in of_each for run in (runs if every else runs[-1:])]
        found: list[Run] = [(reader, run) for reader, runs in of_each for run in runs if run.name == named]
        if not found:
            raise LedgerError(f"{self.place}: found no run {named}; list --all-runs shows those it has")
        return found

    def one_run(self, action: str, named: str | None) -> Run:
        """The one that *action* is about. Raises ``LedgerError`` where there are several, or none."""
        if named is None and len(self.readers) > 1:
            names = ", ".join(self.names)
            raise LedgerError(f"{self.place}: found {names}, expected one ledger: say which with {self.how}")
        runs = self.runs(every=False, named=named)
        if not runs:
            raise LedgerError(f"{self.place}: found no run in it, so there is nothing to {action}")
        return runs[0]

    def operator_of(self, reader: Reader, run: RunRecord, *, named: bool) -> Operator:
        """*named*: the run was asked for by its name."""
        if isinstance(reader, SharedReader):
            return SharedOperator(reader, run)
        return FileOperator(reader, run, named=named, settings=self.settings)


def _paths(settings: Settings, given: str | None, spider: str | None) -> list[Path]:
    if spider is not None:
        path = ledger_of(spider)
        if not path.is_file():
            raise LedgerError(f"{path}: no ledger of a spider {spider!r} there; a distributed crawl of it makes one")
        return [path]
    paths = ledger_paths(settings, given)
    if not paths:
        folder = ledgers_folder()
        raise LedgerError(f"{folder}: no ledger there; a distributed crawl makes one, --ledger names another")
    return paths

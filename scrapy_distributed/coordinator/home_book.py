"""What the coordinator of a shared run knows of the items that have come home to it. The run itself is kept by its
server; where its items are on this machine is nobody else's business."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from scrapy_distributed.coordinator.home_folder import HomeFolder
from scrapy_distributed.coordinator.home_journal import JOURNAL, Journal, apply, lines_in, usable
from scrapy_distributed.coordinator.seen_here import SeenHere
from scrapy_distributed.ledger.spooled import NOT_KEPT, own_from_json
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.receipt import FeedFile, ItemsFile


class HomeBook:
    """The ``HomeLedger`` of the run whose items go to a folder in *beside*, where its journal is.

    *entered* is told of the keys of pages that bring items here. *unreadable*: names of files whose items nobody can
    read; *seen*: the keys of this command, once it has begun. Methods raise ``LedgerUnavailableError`` where the
    journal can't be written; then nothing was changed.
    """

    advice = NOT_KEPT

    def __init__(self, beside: Path, *, entered: Callable[[Collection[bytes]], None]) -> None:
        self.beside = beside
        self.place = HomeFolder(beside)
        self.entered = entered
        self.folder = beside
        self._identity: dict[str, Any] = {}
        self._opened = ExitStack()
        self._opened.callback(self.place.close)
        self._journal: Journal | None = None
        self.seen: SeenHere
        self._home: dict[str, ItemsFile] = {}
        self._own: dict[str, ItemsFile] = {}
        self._own_stored: list[str] = []
        self._appended: dict[str, tuple[int, int, str]] = {}
        self.unreadable: list[str] = []

    def begin(self, run: str, identity: dict[str, Any]) -> None:
        """Open the journal of *run*. Raises ``LedgerError`` where it can't be read or written."""
        self.folder, self._identity = self.beside / run, identity
        with usable(self.folder / JOURNAL):
            self._journal = self._opened.enter_context(closing(Journal(self.folder)))
            try:
                for line in self._journal.lines():
                    apply(line, self._home)
                    self._own = own_from_json(json.dumps(line["own"])) if "own" in line else self._own
                    self._own_stored = line.get("stored", self._own_stored)
                    self.unreadable = line.get("unreadable", self.unreadable)
                    appended = line.get("appended", self._appended)
                    self._appended = {path: (size, own, digest) for path, (size, own, digest) in appended.items()}
                self.seen = self._opened.enter_context(closing(SeenHere(self.folder)))
                self._write({"identity": identity})
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        self._opened.close()
        self._journal = None

    @property
    def begun(self) -> bool:
        return self._journal is not None

    def know_pages(self, keys: Iterable[bytes]) -> None:
        """These are pages that have brought items, or requests of the run."""
        self.seen.add(keys)

    def enter_pages(self, keys: Collection[bytes]) -> bool:
        """As in a ``HomeLedger``, as far as it is known here."""
        new = self.seen.add_new(keys)
        if new:
            self.entered(keys)
        return new

    # What is in the spool

    def files(self) -> dict[str, ItemsFile]:
        return dict(sorted(self._home.items()))

    def file(self, attempt: Attempt) -> ItemsFile:
        return self._home[attempt.spool_name]

    def found(self, attempt: Attempt) -> ItemsFile | None:
        """What has come home of *attempt*, if it has."""
        return self._home.get(attempt.spool_name)

    def has_come(self, attempt: Attempt, file: ItemsFile) -> None:
        """*file* of *attempt* is in the spool."""
        self._write({"home": {attempt.spool_name: file}})
        self._home[attempt.spool_name] = file

    def forget(self, names: Collection[str]) -> None:
        """What has come home in these files counts no more."""
        self._write({"forgotten": list(names)})
        for name in names:
            del self._home[name]

    def own_files(self) -> dict[str, ItemsFile]:
        return self._own

    def set_own_files(self, files: Mapping[str, ItemsFile]) -> None:
        if files != self._own:
            self._write({"own": files})
            self._own = dict(files)

    def own_stored(self) -> set[str]:
        return set(self._own_stored)

    def store_own(self, names: Sequence[str], files: Sequence[FeedFile]) -> None:
        self._write({"stored": [*self._own_stored, *names], "files": files})
        self._own_stored += names

    def forget_own(self) -> None:
        if self._own_stored:
            self._write({"stored": []})
            self._own_stored = []

    def appended(self) -> dict[str, tuple[int, int, str]]:
        return self._appended

    def appends_to(self, path: str, size: int) -> None:
        self._set_appended({path: (size, 0, ""), **self._appended})

    def has_appended(self, written: Mapping[str, tuple[int, str]]) -> None:
        self._set_appended({
            path: (before, *written.get(path, own)) for path, (before, *own) in self._appended.items()
        })  # fmt: skip

    def _set_appended(self, files: dict[str, tuple[int, int, str]]) -> None:
        if files != self._appended:
            self._write({"appended": files})
            self._appended = files

    def set_unexported(self, number: int) -> None:
        if number:
            self._write({"unexported": number})

    def is_unreadable(self, name: str) -> None:
        self._write({"unreadable": [*self.unreadable, name]})
        self.unreadable.append(name)

    # Runs

    def ended(self) -> None:
        self._write({"ended": time.time()})

    def earlier_runs(self) -> list[str]:
        """The names of the runs of the same identity that have ended, of which something is here."""
        runs = []
        for journal in sorted(self.beside.glob(f"*/{JOURNAL}")):
            lines = list(lines_in(journal.read_bytes())) if journal.parent != self.folder else []
            of_ours = any(line.get("identity") == self._identity for line in lines)
            if of_ours and "ended" in (lines[-1] if lines else {}):
                runs.append(journal.parent.name)
        return runs

    # Inside

    def _write(self, line: Mapping[str, Any]) -> None:
        assert self._journal is not None
        self._journal.write(line)

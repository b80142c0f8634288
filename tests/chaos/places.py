"""Places for files that fail for a while: a folder that refuses, a ledger that comes back from a backup."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

SUFFIXES = ("", "-wal", "-shm")  # of the files that SQLite makes of one database


class Folder:
    """A folder at *path* that can refuse everything, to root as well.

    The name is a symbolic link. It is turned to a file and back in one step, so nobody can make a folder in between.
    Files that are open stay open, as they do on a network drive that is renamed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.real = path.with_name(f"{path.name}.folder")
        self._wall = path.with_name(f"{path.name}.wall")
        self.real.mkdir()
        self._wall.touch()
        self.open()

    def refuse(self) -> None:
        self._turn(self._wall)

    def open(self) -> None:
        self._turn(self.real)

    def _turn(self, target: Path) -> None:
        link = self.path.with_name(f"{self.path.name}.link")
        link.symlink_to(target)
        os.replace(link, self.path)


class Backup:
    """A copy of the ledger at *ledger*, made while a coordinator writes it or while none does."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._copy = ledger.with_name("backup.sqlite")
        self._copy.unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(self._copy)) as target,
        ):
            source.backup(target)

    def put_back(self) -> None:
        """In place of the ledger, which no coordinator may hold."""
        for suffix in SUFFIXES[1:]:
            Path(f"{self._ledger}{suffix}").unlink(missing_ok=True)
        self._ledger.write_bytes(self._copy.read_bytes())


class FileCopy:
    """The same as somebody does it with ``cp`` who knows of the file beside it; no coordinator may run meanwhile."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._content = {suffix: path.read_bytes() for suffix in SUFFIXES if (path := self._path(suffix)).exists()}

    def put_back(self) -> None:
        for suffix in SUFFIXES:
            self._path(suffix).unlink(missing_ok=True)
        for suffix, content in self._content.items():
            self._path(suffix).write_bytes(content)

    def _path(self, suffix: str) -> Path:
        return Path(f"{self._ledger}{suffix}")

"""The folder where the items of shared runs come home, and who has it: one coordinator at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import IO

from scrapy_distributed.coordinator.home_journal import usable
from scrapy_distributed.items.folder import make_folder, sync_folder

NAME = "place.id"


class HomeFolder:
    """That at *path*. Methods raise ``LedgerError`` where it can't be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def name(self) -> str:
        """What tells it from every other one, also where it is mounted on another machine."""
        file_name = self.path / NAME
        with usable(file_name):
            make_folder(self.path)
            with suppress(FileExistsError), file_name.open("x") as file:
                file.write(secrets.token_hex(8))
                file.flush()
                os.fsync(file.fileno())
                sync_folder(self.path)
            return file_name.read_text().strip()

    def hold(self) -> bool:
        """Whether no other coordinator uses it, from now on."""
        if self._lock is None:
            self.name()
            with usable(self.path / NAME):
                lock = (self.path / NAME).open("r+")
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    lock.close()
                    return False
                self._lock = lock
        return True

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

"""The items of a worker that come home: a file beside its receipt, which the coordinator fetches."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from scrapy_distributed.errors import NotSerializableError
from scrapy_distributed.items.lines import ItemWriter
from scrapy_distributed.wire.receipt import MAX_ITEMS_BYTES, ItemsFile

BUFFER = 256 * 1024  # bytes


class ItemsFileWriter:
    """Writes items to *path* until it is closed. *left_out*: how many that are of no request could not travel;
    *damaged*: the file has refused something, so nothing in it counts."""

    def __init__(self, path: Path) -> None:
        """Raises ``OSError`` where the file can't be made, also if it is there."""
        self._file = path.open("xb", buffering=BUFFER)
        self._writer = ItemWriter()
        self._digest = hashlib.sha256()
        self._items = self._size = 0
        self.left_out = 0
        self.damaged = False

    def add(self, item: Any, *, position: int | None, page: str) -> None:
        """*item* of the start request at *position*, from the *page* of that fingerprint ('': its own).

        Raises ``NotSerializableError`` for one that can't travel, which is left out, and ``OSError`` the first time
        that the file is *damaged*."""
        try:
            lines = self._writer.lines(item, position=position, page=page)
        except NotSerializableError:
            self.left_out += position is None
            raise
        if self.damaged:
            return
        for line in lines:
            self._digest.update(line)
            self._size += len(line)
        self._items += 1
        try:
            self._file.writelines(lines)
        except OSError:
            self.damaged = True
            raise

    @property
    def full(self) -> bool:
        """Whether its job is to end: what is left of its batch goes out again."""
        return self._size >= MAX_ITEMS_BYTES // 2

    def close(self) -> ItemsFile | None:
        """What is in the file, which survives a power cut from now on; ``None`` if it is *damaged*."""
        try:
            if not self.damaged:
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError:
            self.damaged = True
        finally:
            with suppress(OSError):  # it tries to write the rest once more
                self._file.close()
        return None if self.damaged else ItemsFile(self._items, self._size, self._digest.hexdigest())

"""A feed storage for a folder whose disk is full as long as a file says so."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from scrapy import Spider
from scrapy.extensions.feedexport import FileFeedStorage


class FullDisk(FileFeedStorage):
    """Full while there is a file ``full`` in the folder above that of the feed: then half of a line is written."""

    def open(self, spider: Spider) -> Any:
        return File(super().open(spider), Path(self.path).parent.parent / "full")


class File:
    def __init__(self, own: Any, switch: Path) -> None:
        self.own = own
        self.switch = switch

    def write(self, data: bytes) -> int:
        if self.switch.exists():
            self.own.write(data[: len(data) // 2])
            self.own.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self.own.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

"""A feed storage for a folder: a feed is there as a whole, or it is not there.

    FEED_STORAGES = dict.fromkeys(["", "file"], "scrapy_distributed.results.whole_file.WholeFileStorage")

The scheme "" is that of a plain path, ``/shared/items/1.jl`` or a ``Path``. Scrapy's own storage for both writes at the
feed's place while the crawl runs, so who reads the folder meanwhile sees parts, and that of a worker that was killed
stays there. S3, Google Cloud Storage and the FTP server of the example show whole feeds alone; this does the same in a
folder that all nodes reach. It needs hard links there.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import IO, Any

from scrapy import Spider
from w3lib.url import file_uri_to_path


class WholeFileStorage:
    """Writes into a file beside the feed's place, whose name begins with a dot, and links it there at the end.

    A feed that is there is neither replaced nor appended to, whatever ``overwrite`` says: storing another one of that
    name raises ``FileExistsError``, and Scrapy counts it as failed.
    """

    def __init__(self, uri: str, *, feed_options: dict[str, Any] | None = None) -> None:
        self.path = Path(file_uri_to_path(uri) if uri.startswith("file:") else uri)

    def open(self, spider: Spider) -> IO[bytes]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part").open("xb")

    def store(self, file: IO[bytes]) -> None:
        """May be killed at any line. *file* is what ``open`` has returned; when it fails, that is kept."""
        with file:
            file.flush()
            os.fsync(file.fileno())
        os.link(file.name, self.path)  # atomic, and never in place of another
        os.unlink(file.name)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name, too, is to outlive a power cut
        finally:
            os.close(folder)

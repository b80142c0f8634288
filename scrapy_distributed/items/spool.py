"""Items that have come home: files in a folder beside the ledger, one for each attempt that counts, and what the
coordinator has scraped itself. A file that has its name is whole, and survives a power cut."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from scrapy import Spider

from scrapy_distributed.errors import NotSerializableError, WireError
from scrapy_distributed.items.lines import MAX_LINE, ItemReader, ItemWriter, Line, head

logger = logging.getLogger(__name__)

OWN = "own-"
"""How the names of files begin that have what the coordinator has scraped itself, one for each of its commands."""
BUFFER = 256 * 1024  # bytes
AHEAD = 8 * 1024  # bytes of lines that are read before the first item of them is given


class Draft:
    """A *file* at *path* that is gone in the end, unless it is kept before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b", buffering=BUFFER)  # noqa: SIM115

    def keep(self, name: str) -> None:
        """It is whole, and has this *name* from now on."""
        self.sync()
        self.path.replace(self.path.with_name(name))
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def sync(self) -> None:
        """What was written survives a power cut."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        with suppress(OSError):  # of a full disk: it tries to write the rest
            self.file.close()
        self.path.unlink(missing_ok=True)


class Spool:
    """The files of a run, beside the ledger at *path*. Items are of classes that the project of the class *spider* has.
    Raises ``OSError`` where a file can't be made, read or written."""

    def __init__(self, path: Path, spider: type) -> None:
        self.beside = path.with_name(path.name + ".items")
        self.folder = self.beside
        self.spider = spider

    def begin(self, run: str, names: Collection[str], *, keep_own: bool) -> None:
        """From now on it is that of *run*, with no items in it but those in files called one of *names*, and, to
        *keep_own*, the coordinator's: parts are left of a command that was killed, and attempts that do not count."""
        self.folder = self.beside / run
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # items may be nobody else's business
        kept = {*names, *(self.own() if keep_own else ())}
        for path in self.folder.iterdir():
            if path.name not in kept and path.suffix in (".jl", ".part"):
                path.unlink()

    def own(self) -> list[str]:
        """The names of the files with the coordinator's own items, in the order of its commands."""
        names = (path.name for path in self.folder.glob(f"{OWN}*.jl"))
        return sorted(names, key=lambda name: (len(name), name))

    def own_pages(self) -> Iterator[bytes]:
        """The keys of the pages that these are of. Raises ``WireError`` where a file is damaged."""
        for name in self.own():
            with (self.folder / name).open("rb", buffering=BUFFER) as file:
                heads = map(head, file)
                pages = (page for _, page in filter(None, heads) if page)
                yield from map(bytes.fromhex, pages)

    def begin_own(self) -> OwnItems:
        """A file more for these."""
        return OwnItems(self.folder / f"{OWN}{len(self.own()) + 1}.jl")

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        draft = Draft(self.folder / f".{secrets.token_hex(8)}.part")
        try:
            yield draft
        finally:
            draft.close()

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def lines(self, name: str) -> Iterator[Line]:
        """The items in the file of that *name*, and where they are from. Raises ``WireError`` where it is damaged.

        Some are read ahead: one by one, in turn with what becomes of them, all of it costs a fifth more."""
        ahead: list[Line] = []
        size = 0
        with (self.folder / name).open("rb", buffering=BUFFER) as file:
            try:
                for text, line in lines_of(file, self.spider):
                    size += len(text)
                    if line is not None:
                        ahead.append(line)
                    if size > AHEAD:
                        yield from ahead
                        ahead, size = [], 0
            except WireError:
                yield from ahead
                raise
            yield from ahead

    def forget(self, runs: Collection[str]) -> None:
        """Remove all that is here of these *runs*."""
        for run in runs:
            shutil.rmtree(self.beside / run, ignore_errors=True)


class OwnItems:
    """Items that the coordinator has scraped itself, written to *path*."""

    def __init__(self, path: Path) -> None:
        self._file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=BUFFER)  # noqa: SIM115
        self._writer = ItemWriter()
        self._whole = True

    def add(self, item: Any, *, page: str = "") -> None:
        """*item* of the *page* of that key ('': it is of none, or of one that may come twice).

        Raises ``NotSerializableError`` for one that can't be kept, and ``OSError``; from then on nothing, as without
        that one the others are of no use."""
        if self._whole:
            try:
                self._file.writelines(self._writer.lines(item, position=None, page=page))
            except BaseException:
                self._whole = False
                raise

    def keep(self, item: Any, *, page: str = "", spider: Spider) -> None:
        """``add``, and tell in the log of *spider* where that is not done."""
        try:
            self.add(item, page=page)
        except (NotSerializableError, OSError) as error:
            logger.warning(
                "An item that was scraped here can't be kept for a later command (%s): one that takes this run up again"
                " scrapes them all again; the next ones are not told", error, extra={"spider": spider},
            )  # fmt: skip

    def sync(self) -> bool:
        """Whether all are there, and survive a power cut. It can be asked when it is closed, too."""
        try:
            if not self._file.closed:
                self._file.flush()
                os.fsync(self._file.fileno())
        except OSError:
            self._whole = False
        return self._whole

    def close(self) -> None:
        self.sync()
        with suppress(OSError):
            self._file.close()


def lines_of(file: IO[bytes], spider: type) -> Iterator[tuple[bytes, Line | None]]:
    """The lines of *file* as they are, and the item in each; ``None`` for one that names a class. Raises ``WireError``
    for what is no line of an ``ItemWriter``."""
    reader = ItemReader(spider)
    while text := file.readline(MAX_LINE + 1):
        if not text.endswith(b"\n"):
            raise WireError(
                f"found {len(text):,} bytes without the end of a line, expected an item in a line of its own"
            )
        yield text, reader.read(text)

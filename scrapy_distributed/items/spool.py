"""Items that have come home: files in a folder beside the ledger, one for each attempt that counts, and what the
coordinator has scraped itself. A file that has its name is whole, and survives a power cut."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from scrapy import Spider

from scrapy_distributed.errors import NotSerializableError, WireError
from scrapy_distributed.items.folder import make_folder, sync_folder
from scrapy_distributed.items.lines import MAX_LINE, ItemReader, ItemWriter, Line, head
from scrapy_distributed.wire.receipt import ItemsFile
from scrapy_distributed.words import counted

logger = logging.getLogger(__name__)

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
        sync_folder(self.path.parent)

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

    def begin(self, run: str, names: Collection[str]) -> None:
        """From now on it is that of *run*, with no items in it but those in files called one of *names*: parts are left
        of a command that was killed, and attempts that do not count."""
        self.folder = self.beside / run
        self._make_folder()
        for path in self.folder.iterdir():
            if path.name not in names and path.suffix in (".jl", ".part"):
                path.unlink()

    def own_pages(self, files: Mapping[str, ItemsFile]) -> Iterator[bytes]:
        """The keys of the pages that the coordinator's own items in *files* are of. Raises ``WireError`` where one is
        damaged."""
        for name, file in files.items():
            for text in self._texts(name, file):
                found = head(text)
                if found is not None and found[1]:
                    yield bytes.fromhex(found[1])

    def begin_own(self, name: str) -> OwnItems:
        """A file of that *name* for these."""
        return OwnItems(self.folder / name)

    def _make_folder(self) -> None:
        make_folder(self.folder)  # items may be nobody else's business

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        self._make_folder()  # who has removed it has not ended the run
        draft = Draft(self.folder / f".{secrets.token_hex(8)}.part")
        try:
            yield draft
        finally:
            draft.close()

    def remove(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def lines(self, name: str, file: ItemsFile) -> Iterator[Line]:
        """The items in the *file* of that *name*, and where they are from. Raises ``WireError`` where it is damaged, or
        the project does not have their classes any more.

        Some are read ahead: one by one, in turn with what becomes of them, all of it costs a fifth more."""
        reader = ItemReader(self.spider)
        ahead: list[Line] = []
        size = 0
        try:
            for text in self._texts(name, file):
                size += len(text)
                if (line := reader.read(text)) is not None:
                    ahead.append(line)
                if size > AHEAD:
                    yield from ahead
                    ahead, size = [], 0
        except WireError:
            yield from ahead
            raise
        yield from ahead

    def _texts(self, name: str, file: ItemsFile) -> Iterator[bytes]:
        """The lines of *file*, up to its size: a command that was killed may have written more of its own."""
        with (self.folder / name).open("rb", buffering=BUFFER) as opened:
            left = file.size
            while left and (text := opened.readline(min(MAX_LINE + 1, left))):
                left -= len(text)
                yield _whole(text)

    def fault(self, name: str, file: ItemsFile, *, thorough: bool = True) -> str:
        """What is found in place of the *file* of that *name*, and what was expected; '' if it is there. If not
        *thorough*, its bytes are not looked at."""
        expected = f", expected {counted(file.items, 'item')} in {counted(file.size, 'byte')}"
        try:
            found = (self.folder / name).stat().st_size
            if found < file.size:
                return f"found {counted(found, 'byte')}{expected}"
            if thorough and self._digest(name, file.size) != file.digest:
                return f"found other bytes than were written{expected}"
        except FileNotFoundError:
            return f"found no file{expected}"
        except OSError as error:
            return f"can't be read: {error}{expected}"
        return ""

    def _digest(self, name: str, size: int) -> str:
        digest = hashlib.sha256()
        with (self.folder / name).open("rb", buffering=0) as file:
            while size and (data := file.read(min(BUFFER, size))):
                digest.update(data)
                size -= len(data)
        return digest.hexdigest()

    def forget(self, runs: Collection[str]) -> None:
        """Remove all that is here of these *runs*."""
        for run in runs:
            shutil.rmtree(self.beside / run, ignore_errors=True)


class OwnItems:
    """Items that the coordinator has scraped itself, written to *path*."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=BUFFER)  # noqa: SIM115
        sync_folder(path.parent)
        self._writer = ItemWriter()
        self._digest = hashlib.sha256()
        self._items = self._size = self._synced = 0
        self._whole = True

    def add(self, item: Any, *, page: str = "") -> None:
        """*item* of the *page* of that key ('': it is of none, or of one that may come twice).

        Raises ``NotSerializableError`` for one that can't be kept, and ``OSError``; from then on nothing, as without
        that one the others are of no use."""
        if self._whole:
            try:
                lines = self._writer.lines(item, position=None, page=page)
                self._file.writelines(lines)
            except BaseException:
                self._whole = False
                raise
            self._items += 1
            for line in lines:
                self._size += len(line)
                self._digest.update(line)

    def keep(self, item: Any, *, page: str = "", spider: Spider) -> None:
        """``add``, and tell in the log of *spider* where that is not done."""
        try:
            self.add(item, page=page)
        except (NotSerializableError, OSError) as error:
            logger.warning(
                "An item that was scraped here can't be kept for a later command (%s): one that takes this run up again"
                " scrapes them all again; the next ones are not told", error, extra={"spider": spider},
            )  # fmt: skip

    def sync(self) -> ItemsFile | None:
        """All of them, which survive a power cut from now on; ``None`` where one is missing. It can be asked when it is
        closed, too."""
        try:
            if self._synced < self._size and not self._file.closed:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._synced = self._size
        except OSError:
            self._whole = False
        return ItemsFile(self._items, self._size, self._digest.hexdigest()) if self._whole else None

    def close(self) -> None:
        self.sync()
        with suppress(OSError):
            self._file.close()


def lines_of(file: IO[bytes], spider: type) -> Iterator[tuple[bytes, Line | None]]:
    """The lines of *file* as they are, and the item in each; ``None`` for one that names a class. Raises ``WireError``
    for what is no line of an ``ItemWriter``."""
    reader = ItemReader(spider)
    while text := file.readline(MAX_LINE + 1):
        yield text, reader.read(_whole(text))


def _whole(text: bytes) -> bytes:
    if not text.endswith(b"\n"):
        raise WireError(f"found {len(text):,} bytes without the end of a line, expected an item in a line of its own")
    return text

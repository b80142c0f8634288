"""The landing place: a file is in the items folder as a whole, or it is not there.

It arrives in the staging folder, under a name of its own, and is linked into the items folder when all of it is on the
disk. Linking is atomic and never replaces a file, so no reader of the items folder ever sees a part, and a file there
never changes. What does not land is kept in the staging folder, with its reason as the ending of its name, and is
never landed later: the worker that has sent it was told, and its batch is crawled again under another name. Only a gzip
file that holds far more than any feed does is removed at once.

Whether a file is whole is looked at by ``Arrival.examination``, which may take long and may run in any thread. All else
belongs to one thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from threading import Event
from typing import BinaryIO

logger = logging.getLogger(__name__)

PART = ".part"
NOT_UTF_8 = "\N{REPLACEMENT CHARACTER}"
LINES = (".jl", ".jsonl", ".jsonlines")
GZIP = b"\x1f\x8b"
PACKED_BYTES = 16 * 1024
PIECE_BYTES = 256 * 1024
HEAD_BYTES = 4
END_BYTES = 1024 * 1024  # of the end of a file: its last line is looked for there
# The demo's items are 12 times their gzip file, a bomb is up to 1,032 times its own. In small files that does no harm.
MAX_RATIO = 100
HARMLESS_BYTES = 64 * 1024 * 1024
MAX_NAME_BYTES = 200  # a file system takes 255, and the name in the staging folder is longer


class Reason(Enum):
    """Why a file was set aside; the ending of its name in the staging folder."""

    CUT = "cut"
    """Client or server went away before all of it was here."""
    DAMAGED = "damaged"
    """Its content shows that it is cut off."""
    TAKEN = "taken"
    """Another file of this name has landed meanwhile."""
    LEFT = "left"
    """It was on its way when the server was killed."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a file that has arrived does not land. *kept*: in the staging folder; else it is removed."""

    message: str
    kept: bool = True


class LandingError(Exception):
    """The folders can't be used; the message says why."""


class RefusedError(Exception):
    """A file does not land. *code*: the FTP reply, as RFC 959 has it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class LandingPlace:
    """Two folders on one file system. Raises ``LandingError`` where they can't be used."""

    def __init__(self, staging: Path, items: Path) -> None:
        self.staging = staging.resolve()
        self.items = items.resolve()
        for folder in (self.staging, self.items):
            if not folder.is_dir():
                raise LandingError(f"{folder}: found no folder there, expected one; make it first")
        if self.staging == self.items or self.items in self.staging.parents:
            raise LandingError(f"{self.staging}: it is in the items folder, expected a staging folder outside of it")
        self._lock = os.open(self.staging, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LandingError(f"{self.staging}: another server uses it, expected a folder of our own") from None
        self._try_link()
        for path in sorted(self.staging.glob(f"*{PART}")):
            if path.stat().st_nlink > 1:  # it has landed; the server was killed before it could remove this name
                path.unlink()
            else:
                set_aside(path, Reason.LEFT, "it was on its way when the server ended")

    def _try_link(self) -> None:
        """Only trying tells: a mount inside a file system, and file systems without hard links, look like any other."""
        probe = f".probe-{secrets.token_hex(4)}"
        source, target = self.staging / probe, self.items / probe
        try:
            source.touch(exist_ok=False)
            os.link(source, target)
        except OSError as error:
            raise LandingError(
                f"{self.staging}: can't link a file of it into {self.items}: {error.strerror}; expected two folders"
                " that can be written, on one file system with hard links"
            ) from None
        finally:
            source.unlink(missing_ok=True)
            target.unlink(missing_ok=True)

    def check(self, name: str) -> None:
        """Raises ``RefusedError`` for a name under which nothing can land."""
        if "/" in name:
            raise RefusedError(550, "no folders here, expected a file name alone")
        if (
            not name
            or name.startswith(".")
            or not name.isprintable()
            or NOT_UTF_8 in name
            or len(name.encode()) > MAX_NAME_BYTES
        ):
            raise RefusedError(
                553, f"no name for a file here, expected {MAX_NAME_BYTES} bytes at most and no dot first"
            )
        if os.path.lexists(self.items / name):
            raise RefusedError(553, "a file of this name has landed before, and stays as it is")

    def receive(self, name: str) -> Arrival:
        """A file that begins to arrive; its name has passed ``check``. Raises ``OSError`` where there is no room."""
        try:
            return Arrival(name, self.staging / f"{name}.{secrets.token_hex(4)}{PART}", self.items)
        except OSError as error:
            logger.error("refused %s: can't be stored: %s", name, error.strerror)
            raise


class Arrival:
    """A file on its way. To be closed at the end: if it has not landed by then, that sets it aside."""

    def __init__(self, name: str, path: Path, items: Path) -> None:
        self.name = name
        self.closed = False
        self._path = path
        self._items = items
        self._given_up = Event()
        self._file = path.open("xb")

    def write(self, chunk: bytes) -> None:
        """Raises ``RefusedError`` where there is no room."""
        try:
            self._file.write(chunk)
        except OSError as error:
            raise self._refused(Reason.CUT, 452, f"can't be stored: {error.strerror}") from None

    def examination(self) -> Callable[[], Fault | None]:
        """What looks, in any thread, whether all that was written is a whole file, and brings it to the disk. It stops
        when this is closed. Raises ``RefusedError`` where there is no room."""
        try:
            self._file.flush()
            descriptor = os.dup(self._file.fileno())  # the examination's own: this one may be closed meanwhile
        except OSError as error:
            raise self._refused(Reason.CUT, 452, f"can't be stored: {error.strerror}") from None
        return partial(examine, self.name, self._path, descriptor, self._given_up)

    def land(self, examined: Callable[[], Fault | None]) -> None:
        """Bring it into the items folder, to stay there whatever happens then. *examined*: gives, or raises, what the
        examination has found. Raises ``RefusedError``.

        May be killed at any line: the file is in the items folder as a whole, or not at all.
        """
        try:
            if fault := examined():
                raise self._refused(Reason.DAMAGED, 554, fault.message, kept=fault.kept)
            try:
                os.link(self._path, self._items / self.name)
            except FileExistsError:
                # Two uploads at once, and this one is the second to end. One of the two workers must be told that its
                # feed does not count, else both would; what it sent is kept, and its batch is crawled again.
                raise self._refused(Reason.TAKEN, 553, "a file of this name has landed meanwhile") from None
        except OSError as error:
            raise self._refused(Reason.CUT, 451, f"can't be stored: {error.strerror}") from None
        self.closed = True
        logger.info("landed %s: %s bytes", self.name, f"{self._file.tell():,}")
        for step in (partial(sync_folder, self._items), self._file.close, self._path.unlink):
            try:
                step()
            except OSError as error:
                # No reason to refuse it: readers may have seen it, and it can't be taken back. A client that is told
                # that it is not stored would have its batch crawled again.
                logger.error("after %s had landed: %s", self.name, error)

    def close(self) -> None:
        if not self.closed:
            self._set_aside(Reason.CUT, "the upload was broken off")

    def _refused(self, reason: Reason, code: int, message: str, *, kept: bool = True) -> RefusedError:
        if not self.closed:
            self._set_aside(reason, message, kept=kept)
        return RefusedError(code, message)

    def _set_aside(self, reason: Reason, message: str, *, kept: bool = True) -> None:
        self.closed = True
        self._given_up.set()
        with contextlib.suppress(OSError):  # on a full disk: then this is the part that it had room for
            self._file.close()
        if kept:
            set_aside(self._path, reason, message)
        else:
            remove(self._path, message)


def set_aside(path: Path, reason: Reason, message: str) -> None:
    """Keep a part, under a name that says why."""
    kept = path.with_suffix(f".{reason.value}")
    try:
        size = path.stat().st_size
        path.rename(kept)
    except OSError as error:
        logger.error("can't set %s aside: %s", path, error.strerror)
    else:
        logger.warning("set aside %s: %s; %s bytes", kept.name, message, f"{size:,}")


def remove(path: Path, message: str) -> None:
    """Keep nothing of a part."""
    try:
        size = path.stat().st_size
        path.unlink()
    except OSError as error:
        logger.error("can't remove %s: %s", path, error.strerror)
    else:
        logger.warning("removed %s: %s; %s bytes", path.name, message, f"{size:,}")


def examine(name: str, path: Path, descriptor: int, given_up: Event) -> Fault | None:
    """``damage``, and then bring the open file *descriptor* to the disk, unless nobody wants it any more. Closes it."""
    try:
        fault = damage(name, path, given_up)
        if not fault and not given_up.is_set():
            os.fsync(descriptor)
        return fault
    finally:
        os.close(descriptor)


def damage(name: str, path: Path, given_up: Event) -> Fault | None:
    """What shows that the file at *path*, to be called *name*, is cut off or harmful; ``None`` if it is whole, or can't
    tell, or if nobody wants to know any more.

    A gzip file ends with a checksum, in JSON lines each line is an object and ends with a newline; blank ones may come
    after it. Formats other than these two can't tell, nor can JSON lines in UTF-16 or UTF-32.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        compressed = file.read(len(GZIP)) == GZIP
        lines = name.removesuffix(".gz").endswith(LINES)
        if not compressed and not lines:
            return None
        file.seek(0)
        limit = max(HARMLESS_BYTES, MAX_RATIO * size)
        try:
            if compressed:
                head, end, size = ends(unpacked(file), limit, given_up)
            else:
                head = file.read(HEAD_BYTES)
                file.seek(max(0, size - END_BYTES))
                end = file.read()
        except (EOFError, zlib.error) as error:
            return Fault(message=f"found a gzip file that is cut off or damaged: {error}")
    if size > limit:
        found = f"found a gzip file that holds more than {limit:,} bytes"
        return Fault(message=f"{found}, expected at most {MAX_RATIO} times what it has itself", kept=False)
    if given_up.is_set() or not lines or not json.detect_encoding(head).startswith("utf-8"):
        return None
    return last_line_fault(end, whole=size == len(end))


def ends(pieces: Iterable[bytes], limit: int, given_up: Event) -> tuple[bytes, bytes, int]:
    """The first bytes of all *pieces*, their last ``END_BYTES``, and how many bytes they have. No more are asked for
    once they have more than *limit*, or it was *given_up*."""
    head = end = b""
    size = 0
    for piece in pieces:
        head = head or piece
        end = (end + piece)[-END_BYTES:] if piece else end
        size += len(piece)
        if size > limit or given_up.is_set():
            break
    return head, end, size


def unpacked(file: BinaryIO) -> Iterator[bytes]:
    """What a gzip file holds, in pieces of ``PIECE_BYTES`` at most, some of them empty. (Python's own reader works for
    long on a file of many empty parts before it gives anything.) Raises ``EOFError`` and ``zlib.error``."""
    packed = file.read(PACKED_BYTES)
    while packed:
        part = zlib.decompressobj(wbits=31)  # gzip, with its checksum
        while not part.eof:
            piece = part.decompress(packed, PIECE_BYTES)
            yield piece
            packed = part.unconsumed_tail or (b"" if part.eof else file.read(PACKED_BYTES))
            if not piece and not packed and not part.eof:
                raise EOFError("found its end before that of what it holds")
        packed = part.unused_data.lstrip(b"\0")  # zeros may fill it up
        while not packed and (more := file.read(PACKED_BYTES)):
            packed = more.lstrip(b"\0")


def last_line_fault(end: bytes, *, whole: bool) -> Fault | None:
    """What shows that JSON lines that end like this are cut off. *whole*: these are all of them. Of a line that is
    longer than *end* only its end is looked at."""
    text = end.rstrip()
    line = text[text.rfind(b"\n") + 1 :]
    known = whole or len(line) < len(text)
    if not text or (b"\n" in end[len(text) :] and (is_object(line) if known else line.endswith(b"}"))):
        return None
    return Fault(message=f"found {line[:50]!a} as last line, expected a JSON object and a newline; is it cut off?")


def is_object(line: bytes) -> bool:
    """Whether this is a JSON object, in any encoding that is ASCII where it matters."""
    try:
        return isinstance(json.loads(line.removeprefix(BOM_UTF8).decode("latin-1")), dict)
    except (ValueError, RecursionError):
        return False


def sync_folder(folder: Path) -> None:
    """Make sure that the names in *folder* outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

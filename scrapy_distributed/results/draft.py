"""A file that takes its place when it is whole, and of which nothing stays if its writer is killed.

It is written beside its place, under a name that begins with a dot. Its writer holds a lock on it, which ends with the
process, however that ends; so who can lock such a file may remove it, and the next writer in that folder does. Where a
file system knows no locks, nothing is removed.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_NAME = re.compile(r"\.merge-[0-9a-f]{8}\.part")


@contextmanager
def draft(folder: Path) -> Iterator[BinaryIO]:
    """A new file in *folder*, which is removed at the end unless it was ``put`` in its place. Raises ``OSError``."""
    file = _locked_file(folder)
    try:
        yield file
    finally:  # the lock ends last: till then the file is seen to be in use
        Path(file.name).unlink(missing_ok=True)
        with suppress(OSError):  # on a full disk; what was put is on the disk by now
            file.close()


def put(file: BinaryIO, place: Path) -> None:
    """Bring a draft to the disk and to its *place*, instead of what is there."""
    file.flush()
    os.fsync(file.fileno())
    os.replace(file.name, place)


def remove_dead(folder: Path) -> None:
    """Remove the drafts in *folder* whose writers are dead. What is no draft of ours, or can't be removed, stays."""
    try:
        names = os.listdir(folder)
    except OSError:
        return  # whoever writes there will say so
    for name in filter(_NAME.fullmatch, names):
        with suppress(OSError):
            _remove_if_dead(folder / name)


def _locked_file(folder: Path) -> BinaryIO:
    """A new draft, locked where the file system can. One that was taken for dead before it was locked is given up."""
    while True:
        path = folder / f".merge-{secrets.token_hex(4)}.part"
        file = path.open("xb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # somebody is about to remove it
        except OSError:
            return file
        else:
            if _is_at(path, file.fileno()):
                return file
        file.close()


def _remove_if_dead(path: Path) -> None:
    """Raises ``OSError`` for one that can't be removed, ``BlockingIOError`` for one in use."""
    if not stat.S_ISREG(path.lstat().st_mode):  # before it is opened: that alone can do something
        return
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)  # for writing: NFS wants that for a lock
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_uid == os.geteuid() and _is_at(path, descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one of this name."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

"""The lock that a worker holds for life, beside its receipt: it alone tells that the worker lives. A pid does not, as
another process may have got it."""

from __future__ import annotations

import fcntl
import os
from io import FileIO
from pathlib import Path


def lock_path(receipt: Path) -> Path:
    return receipt.with_suffix(".lock")


def hold(receipt: Path) -> FileIO:
    """From now on this process lives, for all who ask ``is_held``: until it ends, or closes the file that this returns.
    Neither a program that it starts nor a process that it forks has that. Raises ``OSError``."""
    receipt.parent.mkdir(parents=True, exist_ok=True)
    file = FileIO(os.open(lock_path(receipt), os.O_RDWR | os.O_CREAT, 0o600), "r+")
    fcntl.flock(file, fcntl.LOCK_EX)
    os.register_at_fork(after_in_child=file.close)
    return file


def is_held(receipt: Path) -> bool:
    """Whether a process that holds *receipt* lives. Raises ``OSError`` where that can't be told."""
    try:
        descriptor = os.open(lock_path(receipt), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

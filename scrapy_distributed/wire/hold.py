"""The lock that a worker holds for life, beside its receipt: it alone tells that the worker lives. A pid does not, as
another process may have got it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def lock_path(receipt: Path) -> Path:
    return receipt.with_suffix(".lock")


def hold(receipt: Path) -> int:
    """From now on this process lives, for all who ask ``is_held``: as long as the descriptor is open that this returns,
    which no program has that it starts. Raises ``OSError``."""
    receipt.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock_path(receipt), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


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

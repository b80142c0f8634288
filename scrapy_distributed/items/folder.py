"""Folders whose names survive a power cut: a file that is on the disk can't be found where its folder is not."""

from __future__ import annotations

import os
from pathlib import Path


def make_folder(path: Path) -> None:
    """Make that at *path*, for nobody else to read, and those above it that are missing. Raises ``OSError``."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in missing:
        sync_folder(folder.parent)


def sync_folder(path: Path) -> None:
    """The names of what is in that at *path* survive a power cut from now on. Raises ``OSError``."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

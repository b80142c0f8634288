"""What is in a folder."""

from __future__ import annotations

import os
from pathlib import Path


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def shown(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]

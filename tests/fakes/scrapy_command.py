"""Scrapy's commands in a child process, in the folder of a project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DEADLINE_SECONDS = 60


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Ours, with a home that has no configuration, and without what a Scrapy command sets for its own process."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SCRAPY")}
    return {**kept, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **more}


def scrapy(folder: Path, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scrapy", *args]
    return subprocess.run(
        command, cwd=folder, env=environment(folder, **more), capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )

"""Scrapy's commands in a child process, in the folder of a project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile

from forked import Forked

DEADLINE_SECONDS = 60


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Ours, with a home that has no configuration, and without what a Scrapy command sets for its own process."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SCRAPY")}
    return {**kept, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **more}


def scrapy(folder: Path, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    if "PYTHONPATH" in more:
        return subprocess.run(
            [sys.executable, "-m", "scrapy", *args], cwd=folder, env=environment(folder, **more), capture_output=True,
            text=True, timeout=DEADLINE_SECONDS,
        )  # fmt: skip
    with TemporaryFile() as output, TemporaryFile() as errors:
        process = Forked(
            args, folder=folder, environment=environment(folder, **more), output=output.fileno(), errors=errors.fileno()
        )
        try:
            code = process.wait(DEADLINE_SECONDS)
        finally:
            process.kill()
        printed, said = (file.read().decode() for file in (output, errors) if not file.seek(0))
    return subprocess.CompletedProcess(args, code, printed, said)

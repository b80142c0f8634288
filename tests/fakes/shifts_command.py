"""Feeds for the example's analysis, and its command without Spark in a child process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SHIFTS = Path(__file__).parents[2] / "example_project" / "analysis" / "shifts.py"

EXAMPLE = [{"title": "Split Business Split", "price": 1.0}, {"title": "Need business", "price": 2.0}]
ANSWER = [
    {"word": "need", "shift": 4 / 9, "count": 1},
    {"word": "business", "shift": 0.0, "count": 2},
    {"word": "split", "shift": -4 / 9, "count": 1},
]


def feed(*items: object) -> str:
    """JSON lines."""
    return "".join(f"{json.dumps(item)}\n" for item in items)


def run(*argv: object) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [sys.executable, str(SHIFTS), *map(str, argv)], capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def following(*argv: object) -> Iterator[subprocess.Popen[str]]:
    """The command with ``--follow``, until the block ends."""
    command = [sys.executable, str(SHIFTS), *map(str, argv), "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def printed(process: subprocess.Popen[str]) -> Any:
    """The next list that it prints."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def land(folder: Path, name: str, text: str) -> None:
    """Put a feed into a folder as a whole."""
    (folder / f".{name}").write_text(text)
    (folder / f".{name}").rename(folder / name)

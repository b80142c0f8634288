"""What goes wrong in workers on this machine: the first traceback of each kind is shown where the crawl was started."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from scrapy_distributed.password import without_passwords
from scrapy_distributed.words import shortened

logger = logging.getLogger(__name__)

LARGEST = 64 * 1024 * 1024  # bytes of a log that are read
LINES = 30  # that are shown of one
KINDS = 20  # that are shown
_TRACEBACK = re.compile(rb"^Traceback \(most recent call last\):\n(?:[ \t].*\n)+(?P<error>\S.*)", re.MULTILINE)
_PLACE = re.compile(rb'^  File "(.*)", line (\d+)', re.MULTILINE)


class Tracebacks:
    """Of one kind are those of one type that come from one line."""

    def __init__(self) -> None:
        self._seen: set[tuple[bytes, ...]] = set()

    def tell(self, log: Path, label: str) -> None:
        """Show those in *log*, of a job of the batch *label*, whose kind has not been seen yet."""
        for text in self._new(log):
            logger.warning(
                "Batch %s: the first of its kind in a worker on this machine, scrapy batches log %s shows all:\n%s",
                label, label, _shown(text),
            )  # fmt: skip

    def _new(self, log: Path) -> list[str]:
        try:
            with log.open("rb") as file:
                data = file.read(LARGEST)
        except OSError:
            return []
        found = []
        for match in _TRACEBACK.finditer(data):
            places = _PLACE.findall(match[0])
            kind = (match["error"].split(b":")[0], *(places[-1] if places else ()))
            if kind not in self._seen and len(self._seen) < KINDS:
                self._seen.add(kind)
                found.append(match[0].decode("utf-8", "replace"))
        return found


def _shown(text: str) -> str:
    lines = text.splitlines()
    kept = lines if len(lines) <= LINES else [*lines[: LINES // 2], "  ...", *lines[-LINES // 2 :]]
    return "\n".join(shortened(without_passwords(line)) for line in kept)

"""What goes wrong in workers on this machine: the first traceback of each kind is shown where the crawl was started.

Of its frames those that are of installed packages are left out, but for the last one."""

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
_OF_PACKAGE = re.compile(r"[/\\](?:site|dist)-packages[/\\]|<frozen ")
_PLACE = re.compile(rb'^  File "(.*)", line (\d+)', re.MULTILINE)


class Tracebacks:
    """Of one kind are those of one type that come from one line. *ledger*: where more can be read of them."""

    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger
        self._seen: set[tuple[bytes, ...]] = set()

    def tell(self, log: Path, label: str) -> None:
        """Show those in *log*, of a job of the batch *label*, whose kind has not been seen yet."""
        for text in self._new(log):
            logger.warning(
                "Batch %s: the first of its kind in a worker on this machine; all of its log: scrapy batches log %s"
                " --ledger %s\n%s", label, label, self.ledger, _shown(text),
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
    first, *lines = text.splitlines()
    frames: list[list[str]] = []
    while lines and lines[0].startswith("  "):
        line = lines.pop(0)
        if line.startswith("  File ") or not frames:
            frames.append([])
        frames[-1].append(line)
    own = [frame for frame in frames[:-1] if not _OF_PACKAGE.search(frame[0])]
    kept = [line for frame in (*own, *frames[-1:]) for line in frame]
    if len(kept) > LINES:
        kept = [*kept[: LINES // 2], "  ...", *kept[-LINES // 2 :]]
    return "\n".join(shortened(without_passwords(line)) for line in (first, *kept, *lines))

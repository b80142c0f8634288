"""A worker that has joined shared runs, and what it does in words."""

from __future__ import annotations

from typing import NamedTuple

from scrapy_distributed.words import counted, escaped

CODE_SHOWN = 8  # characters of a version: enough to tell one from another
SILENT_SECONDS = 30.0  # without a word, which is told then


class WorkerState(NamedTuple):
    """One at one moment. *running*: its jobs; *version*: of its code; *spiders*: that it has; *state*: what it says of
    itself, as that it is benched, '' where all is well; *seen*: seconds ago."""

    name: str
    host: str
    pid: int
    slots: int
    running: int
    version: str
    spiders: tuple[str, ...]
    state: str
    seen: float

    @property
    def line(self) -> str:
        """What somebody else says of itself can't control a terminal."""
        more = f", {self.state}" if self.state else ""
        silent = f", not heard of for {self.seen:.0f} s" if self.seen > SILENT_SECONDS else ""
        words = (
            f"worker {self.pid} on {self.host}: {self.running} of {counted(self.slots, 'slot')} at work, code"
            f" {self.version[:CODE_SHOWN]}{more}{silent}"
        )
        return escaped(words)

"""Which requests that have come to nothing an operator means, and how many of them go out again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.words import counted


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Those in *state*, ``None``: in any; with a *reason* that fits this pattern. *begun*: to be tried again also where
    their callback had begun. *run*: the name of theirs, '' where there is one alone that is asked."""

    state: str | None = None
    reason: str = "*"
    begun: bool = False
    run: str = ""

    def __call__(self, state: str, reason: str) -> bool:
        return self.state in (None, state) and fnmatchcase(reason, self.reason)

    def as_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Wanted:
        """Raises ``LedgerError`` for what ``as_text`` does not write."""
        try:
            wanted = cls(**json.loads(text))
            texts = (wanted.state or "", wanted.reason, wanted.run)
            well = all(isinstance(text, str) for text in texts) and wanted.begun in (0, 1)
        except (ValueError, TypeError, RecursionError):
            well = False
        if not well:
            raise LedgerError(f"found {text!r:.60}, expected a state, a reason, and whether callbacks may have begun")
        return wanted


class Retried(NamedTuple):
    """*again*: how many requests go out again, of which so many had *begun* their callback, in how many *batches*;
    *left_out*: how many do not, as theirs had begun."""

    again: int
    left_out: int
    begun: int = 0
    batches: int = 0

    @property
    def words(self) -> str:
        return f"{counted(self.again, 'request')} to be tried again, {self.left_out:,} left out"

    @property
    def numbers(self) -> dict[str, int]:
        return {"again": self.again, "left_out": self.left_out, "begun": self.begun}

    @property
    def more(self) -> list[str]:
        """A sentence on what has to be known of them."""
        lines = []
        if self.left_out:
            why = "their callback had begun, so items of them may be in a feed"
            lines.append(f"left out: {why} (--callback takes these as well)")
        if self.begun:
            had = f"of {self.begun:,} the callback had begun"
            lines.append(f"{had}: items that it gave are in the result already, and come once more")
        return lines

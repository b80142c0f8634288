"""Which requests that have come to nothing an operator means."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

from scrapy_distributed.errors import LedgerError


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

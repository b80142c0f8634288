"""What holds for every job of a run; kept with it, so that all of its workers judge alike."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from scrapy_distributed.errors import LedgerError


@dataclass(frozen=True, kw_only=True)
class RunRules:
    """*max_attempts* at a request; *lease_seconds*: how long an attempt may be without a sign of life; *stall_seconds*:
    and without doing anything; *retry_failed*: patterns of the reasons for which a failed request is tried again on
    another worker."""

    max_attempts: int
    lease_seconds: float = 60.0
    stall_seconds: float = 600.0
    retry_failed: tuple[str, ...] = ()

    def as_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str | bytes) -> RunRules:
        """Raises ``LedgerError`` for what ``as_text`` does not write."""
        try:
            values = json.loads(text)
            return cls(**{**values, "retry_failed": tuple(values["retry_failed"])})
        except (ValueError, TypeError, LookupError) as error:
            raise LedgerError(f"damaged: rules of a run: {error}") from None

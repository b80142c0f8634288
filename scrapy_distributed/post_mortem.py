"""Why a job has ended without a final receipt, or its feed was not stored, from what it left on its node."""

from __future__ import annotations

import re

from scrapy_distributed.errors import shortened
from scrapy_distributed.password import without_passwords

NOT_INSTALLED = (
    "It has no log either, so it died at its start: most often scrapy_distributed, or something else that the project"
    " imports, is not installed on the node. The output of Scrapyd itself tells"
)


def cause_of_death(log: str | None, *, began: bool = False) -> str:
    """Why a job has ended without a final receipt, from the tail of its *log* (``None``: it has none). *began*: it had
    written receipts."""
    if log is None:
        return "It has no log any more" if began else NOT_INSTALLED
    lines = [line.strip() for line in without_passwords(log).splitlines() if line.strip()]
    raised = _raised(lines)
    if not raised:
        end = f"The end of its log: {shortened((lines or ['(empty)'])[-1], 500)}"
        if began:
            return f"It was at work, and its log has no error: killed, or out of memory? {end}"
        return f"{end}. If that is no error, see that scrapy_distributed is activated in the project (ADDONS)"
    hint = " (its __init__ must take **kwargs)" if "unexpected keyword argument" in raised[-1] else ""
    logged = _logged(lines)
    before = f", after {shortened(logged[-1], 300)}" if logged and logged[-1] not in raised[-1] else ""
    return f"Its log says: {shortened(raised[-1], 500)}{hint}{before}"


def last_error(log: str | None) -> str:
    """The last exception in the tail of a *log*, else the last line of level ERROR; '' if there is none."""
    lines = [line.strip() for line in without_passwords(log or "").splitlines()]
    return shortened((_raised(lines) or _logged(lines) or [""])[-1], 500)


def _raised(lines: list[str]) -> list[str]:
    names = ((line, line.partition(":")[0].rpartition(".")[2]) for line in lines)
    # ftplib calls its exceptions error_perm and the like
    return [line for line, name in names if name.endswith(("Error", "Exception")) or re.fullmatch(r"error_\w+", name)]


def _logged(lines: list[str]) -> list[str]:
    return [line.partition(" ERROR: ")[2] for line in lines if " ERROR: " in line and "Traceback" not in line]

"""Why a job has ended without a final receipt, or its feed was not stored, from what it left on its node.

A log is read as records: a line with a time and a level, and the lines that belong to it. A worker logs the error of a
page and goes on, so an exception is the cause of its end only where nothing was logged after it, and nobody had caught
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scrapy_distributed.password import without_passwords
from scrapy_distributed.words import shortened

NOT_INSTALLED = (
    "It has no log either, so it died at its start: most often scrapy_distributed, or something else that the project"
    " imports, is not installed on the node. The output of Scrapyd itself tells"
)
#: The first line of a record, with a time or a level in front: that of Scrapy's LOG_FORMAT, and of most others.
_FIRST_LINE = re.compile(r"(?:[\[(]?\d\S*\s.*?|\[?)\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b[]:]*\s*(.*)")
#: What Twisted and asyncio log of an exception that nobody has caught: the crawl ends with it.
_UNCAUGHT = re.compile(r"Unhandled|never retrieved|\[twisted\]")
_SIGNAL = "Received SIG"  # as Scrapy logs it
_TRACEBACK = "Traceback (most recent call last):"
#: What code, a version or a missing file raises, and raises again. Others may come from what is away for a moment, or
#: from what a server has answered.
_LASTING = frozenset((
    "AttributeError", "FileNotFoundError", "ImportError", "IndentationError", "IsADirectoryError", "KeyError",
    "ModuleNotFoundError", "NameError", "NotADirectoryError", "PermissionError", "SyntaxError", "TypeError",
))  # fmt: skip
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^/\s'\"]+/)+")
_NAME = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception)|(?:[\w.]+\.)?error_\w+")  # ftplib has error_perm and the like


@dataclass(frozen=True, kw_only=True)
class _Record:
    """What was logged at once. *level* is '' for lines before the first that has one: a tail begins anywhere."""

    level: str
    first: str  # the first line, whole
    lines: Sequence[str]  # all of them, the first without time and level

    @property
    def is_error(self) -> bool:
        return self.level in ("ERROR", "CRITICAL") or bool(self.raised)

    @property
    def raised(self) -> str:
        """The last exception in it, '' if there is none."""
        if self.level in ("DEBUG", "INFO", "WARNING"):
            return ""
        return next(reversed(list(_exceptions(self.lines))), "")

    @property
    def is_uncaught(self) -> bool:
        """Whether its exception may have ended the process: where its beginning is cut off nobody knows."""
        return bool(self.raised) and bool(not self.level or _UNCAUGHT.search(self.first))

    @property
    def headline(self) -> str:
        if not self.level:
            return self.lines[-1].strip() if self.lines else ""
        line = self.lines[0].strip()
        return "" if _TRACEBACK in line or _UNCAUGHT.search(line) else line

    @property
    def words(self) -> str:
        headline = self.headline
        return ": ".join(part for part in (headline, self.raised) if part and part not in headline[:-1]) or headline


def cause_of_death(log: str | None, *, began: bool = False, told: bool = False, lacking: str = "") -> str:
    """Why a job has ended without a final receipt, from the tail of its *log* (``None``: it has none). *began*: it had
    written receipts; *told*: we have told it to end; *lacking*: what its node lacks to run it, as it says itself."""
    if lacking:
        return f"It died before its spider was loaded, and its node says why: {lacking}"
    if log is None and told and not began:
        return "It was told to end before it had started"
    if log is None:
        return "It has no log any more" if began else NOT_INSTALLED
    records = _records(log)
    last = records[-1]
    if last.raised and (last.is_uncaught or not began):
        return _said(records)
    end = f"The end of its log: {shortened(last.words or '(empty)', 500)}"
    error = next((record.words for record in reversed(records[:-1]) if record.is_error), "")
    earlier = f". An error before that, which need not be the cause: {shortened(error, 300)}" if error else ""
    signal = next((record.headline for record in reversed(records) if _SIGNAL in record.headline), "")
    if signal:
        return f"It was told to end: {shortened(signal, 300)}. {end}{earlier}"
    if began and "Spider closed" in last.headline:
        return f"It closed its spider, and its final receipt is not there: no room for it on that disk? {end}{earlier}"
    if began:
        caught = " (an error that it had caught, which need not be the cause)" if last.is_error else ""
        return f"It was at work, and its log tells no cause: killed, or out of memory? {end}{caught}{earlier}"
    return f"{end}. If that is no error, see that scrapy_distributed is activated in the project (ADDONS){earlier}"


def lasting_fault(log: str | None, *, job: str, began: bool = False) -> str:
    """What has ended *job* before it had done anything, and would end each job of the same sources, on any node that is
    like its own, with any batch (that a batch can't be read is another error). The same words wherever it was: folders
    are left out, and its own name. '' where nothing says so."""
    last = _records(log or "")[-1]
    lasts = last.raised.partition(":")[0] in _LASTING and (last.is_uncaught or not began)
    return _FOLDERS.sub("", last.raised).replace(job, "") if lasts else ""


def was_told_to_end(log: str | None) -> bool:
    """Whether its process has got a signal for that: from who has cancelled it, or with its whole machine. So may one
    that has no log: it had not begun to write any."""
    records = _records(log or "")
    told = any(_SIGNAL in record.headline for record in records)
    return log is None or told or records[-1].raised.startswith("KeyboardInterrupt")


def last_error(log: str | None) -> str:
    """Why a feed was not stored: the last error in the tail of a *log* that names feeds, else the last one; '' if there
    is none."""
    errors = [record for record in _records(log or "") if record.is_error]
    of_feeds = [record for record in errors if "feed" in record.first.lower()]
    last = next(reversed(of_feeds or errors), None)
    return shortened(last.raised or last.headline, 500) if last else ""


def _said(records: Sequence[_Record]) -> str:
    """What the last of *records* has raised, and what was logged before it."""
    raised = records[-1].raised
    hint = " (its __init__ must take **kwargs)" if "unexpected keyword argument" in raised else ""
    # An error with an exception of its own was caught, and has nothing to do with it.
    errors = [one for one in records if one.level and one.is_error and (one is records[-1] or not one.raised)]
    logged = [one.headline for one in errors if one.headline]
    after = f", after {shortened(logged[-1], 300)}" if logged and logged[-1] not in raised else ""
    return f"Its log says: {shortened(raised, 500)}{hint}{after}"


def _records(log: str) -> list[_Record]:
    """At least one."""
    records, level, first, lines = [], "", "", list[str]()
    for line in without_passwords(log).splitlines():
        found = _FIRST_LINE.match(line)
        if found:
            if lines:
                records.append(_Record(level=level, first=first, lines=lines))
            level, first, lines = found[1], line, [found[2]]
        elif line.strip():
            lines.append(line)
    return [*records, _Record(level=level, first=first, lines=lines)]


def _exceptions(lines: Sequence[str]) -> Iterator[str]:
    """The lines that name an exception: by their form, and what ends a traceback."""
    in_traceback = False
    for line in lines:
        text = line.strip()
        ends_traceback = in_traceback and not line[0].isspace() and not text.startswith("---")  # Twisted draws a line
        if ends_traceback or _NAME.fullmatch(text.partition(":")[0]):
            yield text
        in_traceback = _TRACEBACK in text or (in_traceback and not ends_traceback)

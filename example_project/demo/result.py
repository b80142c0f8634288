"""What came out of a demo: the records that the terminal and the HTML report show, as far as the ledger knows them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from shifts import Analysis, Shift

from scrapy_distributed.ledger.any_reader import AnyReader
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.records import AttemptRecord, OutcomeRecord, RunRecord
from scrapy_distributed.ledger.states import AttemptState
from scrapy_distributed.words import counted


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One look at a crawl, ``seconds`` after its start: properties that the site has served at least once, all pages
    that it has served, and items that have landed."""

    seconds: float
    served: int
    pages: int
    landed: int


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Requests that did not come to a good end for the same reason, and the URL of the first of them."""

    state: str
    reason: str
    count: int
    example: str


@dataclass(frozen=True, kw_only=True)
class Account:
    """What the ledger says of its last run; failures are in order of their number."""

    run: RunRecord
    attempts: tuple[AttemptRecord, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """True and estimated shift of a word; both are fractions of the mean price."""

    word: str
    truth: float
    estimate: Shift | None

    @property
    def measured(self) -> bool:
        """Whether some items have the word and some have not."""
        return self.estimate is not None and self.estimate.error > 0

    @property
    def holds(self) -> bool:
        """Whether the truth is within two standard errors of the estimate."""
        return (
            self.estimate is not None
            and self.measured
            and abs(self.estimate.shift - self.truth) <= 2 * self.estimate.error
        )


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came out of a crawl; ``seconds`` from its start until it was settled.

    ``missing``, ``twice`` and ``unknown`` compare the merged file with the site. ``truth`` is the true shift of every
    word of the site's titles; those of ``known`` move its prices, or might."""

    nodes: Sequence[str]
    properties: int
    items: int
    missing: int
    twice: int
    unknown: int
    pages: int
    seconds: float
    balance: str
    balanced: bool
    merged: bool
    account: Account
    analysis: Analysis
    truth: Mapping[str, float]
    known: Sequence[str]
    samples: Sequence[Sample]

    @property
    def good(self) -> bool:
        """Every property exactly once, the balance holds, and no feed is missing."""
        return self.balanced and self.merged and self.missing == self.twice == self.unknown == 0

    @property
    def count(self) -> str:
        """How the items compare with the properties of the site, in words."""
        faults = {"missing": self.missing, "more than once": self.twice, "unknown": self.unknown}
        said = ", ".join(f"{count:,} {name}" for name, count in faults.items() if count) or "each exactly once"
        properties = "1 property" if self.properties == 1 else f"{self.properties:,} properties"
        return f"{counted(self.items, 'item')} for {properties}: {said}"

    @property
    def pages_per_second(self) -> float:
        """Index pages and properties, over the whole crawl."""
        return self.pages / self.seconds

    @property
    def items_by_node(self) -> dict[str, int]:
        """Items that count, for every node of the fleet."""
        items = dict.fromkeys(self.nodes, 0)
        for attempt in self.account.attempts:
            counting = attempt.items or 0 if accepted(attempt) else 0
            items[attempt.node] = items.get(attempt.node, 0) + counting
        return items

    @property
    def comparisons(self) -> list[Comparison]:
        """The words that move the prices, or might; the largest true shift first."""
        found = {shift.word: shift for shift in self.analysis.shifts}
        known = sorted(self.known, key=lambda word: (-self.truth[word], word))
        return [Comparison(word=word, truth=self.truth[word], estimate=found.get(word)) for word in known]

    @property
    def others(self) -> list[Comparison]:
        """The other words that some titles have and others have not, the largest estimate first."""
        others = [shift for shift in self.analysis.shifts if shift.word not in self.known]
        compared = (Comparison(word=one.word, truth=self.truth.get(one.word, math.nan), estimate=one) for one in others)
        return [comparison for comparison in compared if comparison.measured]


def agreement(words: Sequence[Comparison]) -> str:
    """How many of these words have the truth within two standard errors."""
    measured = [one for one in words if one.measured]
    if not measured:
        return "too few items to tell"
    holding = sum(one.holds for one in measured)
    return f"{holding} of {len(measured)} words have the truth within two standard errors (19 of 20 are to be expected)"


def read_account(ledger: Path) -> Account:
    """The last run of a ledger. Raises `scrapy_distributed.errors.LedgerError` if it can't be read."""
    with closing(LedgerReader(ledger)) as reader:
        return account_of(reader)


def account_of(reader: AnyReader) -> Account:
    """Of the last run that *reader* reads. Raises `scrapy_distributed.errors.LedgerError` like `read_account`."""
    run = reader.runs()[-1]
    return Account(run=run, attempts=attempts_of(reader, run), failures=by_reason(reader.outcomes(run.id)))


def attempts_of(reader: AnyReader, run: RunRecord) -> tuple[AttemptRecord, ...]:
    """All attempts at all batches of a run. Raises `scrapy_distributed.errors.LedgerError` like `read_account`."""
    return tuple(one for batch in reader.each_batch(run.id) for one in reader.attempts(run, batch.number))


def accepted(attempt: AttemptRecord) -> bool:
    """Whether its receipt and its feed count."""
    return attempt.state == AttemptState.ACCEPTED.value


def by_reason(outcomes: Iterable[OutcomeRecord]) -> tuple[Failure, ...]:
    """Requests counted by state and reason."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for one in outcomes:
        counts[one.state, one.reason] += 1
        examples.setdefault((one.state, one.reason), one.url)
    return tuple(
        Failure(state=state, reason=reason, count=count, example=examples[state, reason])
        for (state, reason), count in counts.most_common()
    )


def read_urls(file: Path) -> list[str]:
    """The URL of every item in a file of JSON lines."""
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line)["url"] for line in lines]

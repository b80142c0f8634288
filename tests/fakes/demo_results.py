"""A result of a demo, and parts of one, made by hand."""

from __future__ import annotations

from result import Account, Result
from shifts import Analysis, Shift

from scrapy_distributed.ledger.records import AttemptRecord, OutcomeRecord, RunRecord

STARTED = 1_000_000.0
"""When the run of these tests started, in seconds since the epoch."""


def a_shift(word: str, shift: float, error: float = 0.01, count: int = 5) -> Shift:
    return Shift(word=word, shift=shift, count=count, error=error)


def an_attempt(label: str = "1", node: str = "n1", state: str = "accepted", items: int = 2) -> AttemptRecord:
    return AttemptRecord(
        number=1,
        label=label,
        job=f"r-{label}",
        node=node,
        url="",
        state=state,
        reason="finished",
        size=2,
        bound=STARTED,
        ended=STARTED + 1.0,
        items=items,
        feeds=(),
        unexported=0,
        followed={},
        home=None,
        twice=0,
        log=None,
    )


def a_run(name: str = "r") -> RunRecord:
    return RunRecord(id=1, name=name, identity={}, started=STARTED, walked=None, ended=None, stopped=None)


def a_failure(state: str, reason: str, url: str) -> OutcomeRecord:
    return OutcomeRecord(batch=1, position=0, state=state, reason=reason, url=url, again=False)


RESULT = Result(
    nodes=("n1", "n2"),
    properties=2,
    items=2,
    missing=0,
    twice=0,
    unknown=0,
    pages=3,
    seconds=2.0,
    balance="settled",
    balanced=True,
    merged=True,
    account=Account(run=a_run(), attempts=(an_attempt(),), failures=()),
    analysis=Analysis(shifts=(a_shift("pool", 0.1), a_shift("bed", 0.0)), items=2, files=1, malformed=0),
    truth={"basement": -0.2, "pool": 0.11, "bed": 0.0},
    known=("basement", "pool"),
    samples=(),
)

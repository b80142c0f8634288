"""A result of a demo, and parts of one, made by hand."""

from __future__ import annotations

from result import Account, Attempt, Result
from shifts import Analysis, Shift


def a_shift(word: str, shift: float, error: float = 0.01, count: int = 5) -> Shift:
    return Shift(word=word, shift=shift, count=count, error=error)


def an_attempt(label: str = "1", node: str = "n1", state: str = "accepted", items: int = 2) -> Attempt:
    return Attempt(
        label=label, node=node, requests=2, items=items, state=state, reason="finished", begun=0.0, ended=1.0
    )


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
    account=Account(run="r", attempts=(an_attempt(),), failures=()),
    analysis=Analysis(shifts=(a_shift("pool", 0.1), a_shift("bed", 0.0)), items=2, files=1, malformed=0),
    truth={"basement": -0.2, "pool": 0.11, "bed": 0.0},
    known=("basement", "pool"),
    samples=(),
)

"""``scrapy batches list``: how a run stands, and its batches. A run may have many: what is shown has a limit."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scrapy_distributed.commands.batch_words import COUNTS, all_moved, batch_lines, title
from scrapy_distributed.words import counted, escaped

if TYPE_CHECKING:
    from scrapy_distributed.ledger.any_reader import AnyReader
    from scrapy_distributed.ledger.records import BatchRecord, RunRecord

SHOWN = 50  # batches of a run, the last ones
NODES_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Which batches of a run: those in *state*, or with requests in it; whose last attempt was on *node*; of these the
    last ones, at most *limit*, 0: all."""

    state: str | None
    node: str | None
    limit: int

    def __call__(self, batch: BatchRecord) -> bool:
        if self.node not in (None, batch.node):
            return False
        return self.state in (None, batch.state) or any(getattr(batch, one) for one in COUNTS if one == self.state)

    def of(self, ledger: AnyReader, run: RunRecord) -> tuple[int, Iterator[BatchRecord]]:
        """How many are left out by the *limit*, and the others."""
        wanted = filter(self, ledger.each_batch(run.id))
        if not self.limit:
            return 0, wanted
        last: deque[BatchRecord] = deque(maxlen=self.limit)
        left_out = 0
        for batch in wanted:
            left_out += len(last) == self.limit
            last.append(batch)
        return left_out, iter(last)


def list_batches(runs: Sequence[tuple[AnyReader, RunRecord]], shown: Shown, *, as_json: bool) -> int:
    """Returns the exit code."""
    if as_json:
        print(json.dumps({"runs": [_as_dict(ledger, run, shown) for ledger, run in runs]}))
        return 0
    for ledger, run in runs:
        print(title(ledger, run))
        for line in _totals(ledger, run):
            print(f"  {line}")
        left_out, batches = shown.of(ledger, run)
        if left_out:
            print(f"  not shown: the first {counted(left_out, 'batch', 'batches')}; --limit 0 shows all, --state and"
                  " --node choose some, show N tells all of one")  # fmt: skip
        for batch in batches:
            children = ledger.children(run.id, batch.number) if all_moved(batch) else []
            print(batch_lines(batch, children))
    return 0


def _as_dict(ledger: AnyReader, run: RunRecord, shown: Shown) -> dict[str, Any]:
    left_out, batches = shown.of(ledger, run)
    return {
        **vars(run),
        "ledger": ledger.place,
        "balance": ledger.balance(run.id).as_dict(),
        "batches": [vars(batch) for batch in batches],
        "not_shown": left_out,
        "feeds": ledger.feeds(run.id),
    }


def _totals(ledger: AnyReader, run: RunRecord) -> Iterator[str]:
    """The balance; then batches by state, and by the node of their last attempt."""
    yield str(ledger.balance(run.id))
    states, nodes = Counter[str](), Counter[str]()
    for state, node, number in ledger.batch_counts(run.id):
        states[state] += number
        if node is not None:
            nodes[node] += number
    if states:
        yield f"{counted(states.total(), 'batch', 'batches')}: {_by_number(states)}"
    if nodes:
        more = f", and {counted(len(nodes) - NODES_SHOWN, 'other node')}" if len(nodes) > NODES_SHOWN else ""
        yield f"on {_by_number(nodes)}{more}"


def _by_number(counts: Counter[str]) -> str:
    return ", ".join(f"{escaped(name)}: {number:,}" for name, number in counts.most_common(NODES_SHOWN))

"""Whether no job of a run can start, as each would die of the same fault. Pure.

possible -> certain: on each node that is well a job has died of it, on two at least where there are two, and of none
of another
possible -> ruled out: a job has done something, or has died of something else

It stays as it is, then: what begins only later may be over by itself, and that is waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

MOST_JOBS = 3  # of one batch on the only node; of two batches, or on two nodes, two are enough


class StartFault:
    """Told of all jobs of a run; *fault* is what the first has died of, '' before that."""

    def __init__(self) -> None:
        self.fault = ""
        self._possible = True
        self._nodes: Counter[str] = Counter()  # where jobs have died of it, and how many
        self._batches: set[int] = set()

    @property
    def jobs(self) -> int:
        """So many have died of it."""
        return self._nodes.total()

    @property
    def nodes(self) -> list[str]:
        """Where they have."""
        return list(self._nodes)

    def begun(self) -> None:
        """A job has done something."""
        self._possible = False

    def died(self, node: str, batch: int, fault: str) -> bool:
        """A job of *batch* has ended before it had done anything; *fault*: of what it would on any node, and with any
        batch, '' if nothing says so. Returns whether it may be one that all have."""
        self._possible = self._possible and bool(fault) and fault == (self.fault or fault)
        if self._possible:
            self.fault = fault
            self._nodes[node] += 1
            self._batches.add(batch)
        return self._possible

    def is_certain(self, nodes: Collection[str], well: Collection[str]) -> bool:
        """*nodes*: those that are used; *well*: those of them that get jobs now. Where one of these has not had its
        turn nobody knows, and what was sent goes there next; and a fault of one node may be its own: others that are
        away just now are waited for."""
        alone = len(nodes) == 1 and (len(self._batches) > 1 or self.jobs >= MOST_JOBS)
        return self._possible and (len(self._nodes) > 1 or alone) and all(self._nodes[node] for node in well)

"""What the nodes and the runs of a project are doing: all of them, at one moment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from scrapy_distributed.fleet.node import Node
from scrapy_distributed.monitor.node_state import NodeState, state_of
from scrapy_distributed.monitor.run_state import RunState, run_states
from scrapy_distributed.monitor.shared_state import NOTHING_SHARED, SharedState
from scrapy_distributed.monitor.worker_state import WorkerState
from scrapy_distributed.together import together


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The fleet and the *runs* of crawls here at one moment; where they are shared, the *workers* that have joined.
    *project* ``None`` means all projects."""

    time: datetime
    project: str | None
    nodes: tuple[NodeState, ...]
    runs: tuple[RunState, ...] = ()
    workers: tuple[WorkerState, ...] = ()

    @property
    def healthy(self) -> bool:
        return not any([one.problem for one in self.nodes] + [one.problem for one in self.runs])


async def poll(
    nodes: Sequence[Node], project: str | None, *, here: Sequence[NodeState] = (), ledgers: Sequence[Path] = (),
    shared: SharedState = NOTHING_SHARED,
) -> Snapshot:  # fmt: skip
    """Ask all *nodes* at once. A node that fails is in the snapshot with its problem; nothing is raised for it. *here*:
    what is known of those that are not asked; *ledgers*: of which the last runs are shown, beside those that are
    *shared*."""
    states = await together(state_of(node, project) for node in nodes)
    runs = (*run_states(ledgers, project), *shared.runs)
    return Snapshot(
        time=datetime.now(timezone.utc), project=project, nodes=(*here, *states, *shared.server), runs=runs,
        workers=shared.workers,
    )  # fmt: skip


def as_json(snapshot: Snapshot) -> str:
    """The snapshot as one line of JSON; *time* is UTC, in ISO 8601."""
    nodes: list[Mapping[str, object]] = [
        {
            "name": node.name,
            "url": node.url,
            "running": node.running,
            "finished": node.finished,
            "pending": node.pending,
            "all_projects": node.all_projects,
            "problem": node.problem,
        }
        for node in snapshot.nodes
    ]
    runs = [run.as_dict() for run in snapshot.runs]
    workers = [worker._asdict() for worker in snapshot.workers]
    told = {"project": snapshot.project, "nodes": nodes, "workers": workers, "runs": runs}
    return json.dumps({"time": snapshot.time.isoformat(), **told})

"""One node, asked what it is doing, and its answer in words."""

from __future__ import annotations

from dataclasses import dataclass

from scrapy_distributed.errors import NodeError, NodeRefusedError, NodeTooLongError, NodeUnreachableError
from scrapy_distributed.fleet.node import Node

#: Above so many pending jobs ``listjobs.json``, which carries the payload of each, is left alone.
HEAVY_BACKLOG = 20


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """One node at one moment. Numbers of jobs, ``None`` where the node did not tell; then *problem* says why.

    *all_projects*: they are not of one project alone, as there are too many to list."""

    name: str
    url: str
    running: int | None = None
    finished: int | None = None
    pending: int | None = None
    all_projects: bool = False
    problem: str | None = None
    kind: str = ""


async def state_of(node: Node, project: str | None) -> NodeState:
    """Of the jobs of *project*, ``None``: of all. A *node* that fails has a problem; nothing is raised for it."""
    try:
        return await _counted(node, project)
    except NodeError as error:
        kinds = ((NodeUnreachableError, "unreachable"), (NodeRefusedError, "refused"), (NodeError, "failing"))
        kind = next(word for of_type, word in kinds if isinstance(error, of_type))
        problem = str(error).removeprefix(f"{error.node}: ")
        return NodeState(name=node.name, url=node.address.url, problem=problem, kind=kind)


async def _counted(node: Node, project: str | None) -> NodeState:
    total = await node.daemonstatus()
    running, finished, pending = total.running, total.finished, total.pending
    all_projects = project is None or pending > HEAVY_BACKLOG
    if not all_projects:
        try:
            jobs = await node.listjobs(project)
        except NodeTooLongError:
            all_projects = True
        else:
            running, finished, pending = len(jobs.running), len(jobs.finished), len(jobs.pending)
    return NodeState(
        name=node.name,
        url=node.address.url,
        running=running,
        finished=finished,
        pending=pending,
        all_projects=all_projects,
    )


def line(node: NodeState, project: str | None) -> str:
    """What *node* does, in words; *project*: whose jobs were asked for."""
    if node.problem is not None:
        return f"{node.name} {node.kind}: {node.problem}"
    note = " (of all projects)" if node.all_projects and project is not None else ""
    return f"{node.name} running: {node.running}, finished: {node.finished}, pending: {node.pending}{note}"

"""The versions of a project that nodes have, and the old ones of them deleted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from scrapy_distributed.errors import NodeError
from scrapy_distributed.fleet.node import Node
from scrapy_distributed.fleet.versions import order_of
from scrapy_distributed.together import together
from scrapy_distributed.words import counted


@dataclass(frozen=True, kw_only=True)
class Stock:
    """The *versions* on one node, the newest first, and those that were *deleted* there. *problem*: why nobody knows
    that, or why others were not."""

    node: str
    versions: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    problem: str = ""


async def stocks_of(nodes: Sequence[Node], project: str) -> list[Stock]:
    """What each of *nodes* has of *project*. Raises nothing for a node that fails."""
    return await together(_stock(node, project) for node in nodes)


async def prune(nodes: Sequence[Node], project: str, keep: Collection[str]) -> list[Stock]:
    """Delete what each of *nodes* has of *project*, but for the versions to *keep*. Where jobs of it wait or run,
    nothing is: a Scrapyd does not tell of which version they are. Raises nothing for a node that fails."""
    return await together(_pruned(node, project, keep) for node in nodes)


async def _stock(node: Node, project: str) -> Stock:
    try:
        return Stock(node=node.name, versions=_sorted(await node.listversions(project)))
    except NodeError as error:
        return Stock(node=node.name, problem=_words(error))


async def _pruned(node: Node, project: str, keep: Collection[str]) -> Stock:
    left: list[str] = []
    deleted: list[str] = []
    problem = ""
    try:
        left = list(_sorted(await node.listversions(project)))
        old = [version for version in left if version not in keep]
        jobs = await node.listjobs(project) if old else None
        if jobs is not None and (jobs.pending or jobs.running):
            of_it = counted(len(jobs.pending) + len(jobs.running), "job")
            problem, old = f"nothing was deleted, {of_it} of the project wait or run there: ask again later", []
        for version in old:
            await node.delversion(project, version)
            left.remove(version)
            deleted.append(version)
    except NodeError as error:
        problem = _words(error)
    return Stock(node=node.name, versions=tuple(left), deleted=tuple(deleted), problem=problem)


def _sorted(versions: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(versions, key=order_of, reverse=True))


def _words(error: NodeError) -> str:
    return str(error).removeprefix(f"{error.node}: ")

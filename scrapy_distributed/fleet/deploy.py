"""One egg to every node, and a look whether it got there. What can't be used is taken back.

Scrapyd stores an egg before it imports it, and a version that fails to import stays as the newest: every later crawl
would use it. What a node had before is not deleted, also where its egg has been replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from scrapy_distributed.errors import NodeError, ScrapydRefusedError
from scrapy_distributed.fleet.node import Node
from scrapy_distributed.fleet.versions import order_of, stored_as
from scrapy_distributed.together import together
from scrapy_distributed.words import shortened


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """How it went on one node: *spiders* are those that it found in the egg, *problem* says what went wrong.

    *is_bad*: the node has had a look at the egg, and can't use it; else it may have failed for another reason.
    *is_stored*: the egg may be there. *was_there*: the version was there before, and its egg has been replaced.
    *newest*: another version there, which a crawl would use, as it is newer by its name."""

    node: str
    spiders: tuple[str, ...] = ()
    problem: str | None = None
    is_bad: bool = False
    is_stored: bool = False
    was_there: bool = False
    newest: str = ""


async def deploy(nodes: Sequence[Node], project: str, version: str, egg: bytes) -> list[Deployed]:
    """Send *egg* to all *nodes* at once, and verify that version and spiders are there.

    Where one of them can't use it, it is taken back from all that have it by now and did not list that version before:
    a crawl uses one version on every node. A node that does not answer says nothing about the egg. Raises nothing for
    a node that fails."""
    results = await together(_send(node, project, version, egg) for node in nodes)
    bad = [result.node for result in results if result.is_bad]
    if not bad:
        return results
    pairs = zip(nodes, results, strict=True)
    return await together(_taken_back(node, project, version, result, bad[0]) for node, result in pairs)


async def _send(node: Node, project: str, version: str, egg: bytes) -> Deployed:
    was_there = is_stored = False
    try:
        was_there = stored_as(version) in await node.listversions(project)
        is_stored = True
        await node.addversion(project, version, egg)
        versions = await node.listversions(project)
        spiders = await node.listspiders(project, version) if stored_as(version) in versions else []
    except NodeError as error:
        is_bad = is_stored and isinstance(error, ScrapydRefusedError)
        return Deployed(
            node=node.name, problem=_words(error), is_bad=is_bad, is_stored=is_stored, was_there=was_there
        )  # fmt: skip
    newest = max(versions, key=order_of, default="")
    problem = None
    if stored_as(version) not in versions:
        found = shortened(", ".join(versions)) or "none"
        problem = f"version {version} was taken and is not listed (found: {found})"
    elif not spiders:
        problem = "the egg has no spiders: check SPIDER_MODULES of the project"
    return Deployed(
        node=node.name, spiders=tuple(spiders), problem=problem, is_bad=problem is not None, is_stored=True,
        was_there=was_there, newest="" if problem or newest == stored_as(version) else newest,
    )  # fmt: skip


async def _taken_back(node: Node, project: str, version: str, result: Deployed, bad: str) -> Deployed:
    """*result* with what became of the version there. *bad*: a node that can't use it."""
    if not result.is_stored:
        return result
    reason = result.problem or f"{bad} can't use it"
    try:
        if stored_as(version) not in await node.listversions(project):
            return replace(result, problem=f"{reason}: version {version} is not there") if result.problem else result
        if result.was_there:
            advice = "deploy one that works, best as another version, or delete it"
            return replace(
                result, problem=f"{reason}: version {version} was there before: it stays, with this egg: {advice}"
            )
        await node.delversion(project, version)
    except NodeError as error:
        advice = "it may stay there as the newest, which every crawl uses: deploy one that works, or delete it"
        return replace(
            result, problem=f"{reason}: version {version} could not be taken back ({_words(error)}): {advice}"
        )
    return replace(result, problem=f"{reason}: version {version} was taken back")


def _words(error: NodeError) -> str:
    return str(error).removeprefix(f"{error.node}: ")

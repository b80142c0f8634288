"""One egg to every node, and a look whether it got there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scrapy_distributed.errors import NodeError
from scrapy_distributed.node import Node


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """How it went on one node: *spiders* are those that it found in the egg, *problem* says what went wrong."""

    node: str
    spiders: tuple[str, ...] = ()
    problem: str | None = None


def stored_version(version: str) -> str:
    """*version* in the form in which Scrapyd stores and lists it."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", version)


async def deploy(node: Node, project: str, version: str, egg: bytes) -> Deployed:
    """Send *egg* to *node* and verify that version and spiders are there. Raises nothing for a node that fails."""
    try:
        await node.addversion(project, version, egg)
        versions = await node.listversions(project)
        spiders = await node.listspiders(project, version) if stored_version(version) in versions else []
    except NodeError as error:
        return Deployed(node=node.name, problem=str(error).removeprefix(f"{error.node}: "))
    if stored_version(version) not in versions:
        found = ", ".join(versions) or "none"
        return Deployed(node=node.name, problem=f"version {version} was taken and is not listed (found: {found})")
    if not spiders:
        return Deployed(node=node.name, problem="the egg has no spiders: check SPIDER_MODULES of the project")
    return Deployed(node=node.name, spiders=tuple(spiders))

"""What is asked of the fleet before the first batch: does every node answer, know us, and have the project?"""

from __future__ import annotations

import logging
import re
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from scrapy_distributed.errors import ConfigError, NodeError, NodeRefusedError
from scrapy_distributed.node import Node

logger = logging.getLogger(__name__)


async def preflight(
    nodes: Sequence[Node], *, project: str, spider: str, version: str
) -> tuple[str, dict[str, NodeError]]:
    """The egg version that the run uses ('' if the project has none), and why which nodes can't be used now.

    *version* is the one asked for, '' for the newest that every usable node has.
    Raises ``ConfigError`` if no node can be used, or if no version is on all of them.
    """
    faults: dict[str, NodeError] = {}
    versions: dict[str, list[str]] = {}

    async def look(node: Node) -> None:
        try:
            await node.daemonstatus()
            versions[node.name] = await node.listversions(project)
        except NodeError as error:
            faults[node.name] = error

    async def look_for_spider(node: Node) -> None:
        try:  # the first call for a version runs ``scrapy list`` on the node; the first job would have to wait for it
            spiders = await node.listspiders(project, chosen or None)
            if spider not in spiders:
                known = ", ".join(sorted(spiders)) or "none"
                raise NodeRefusedError(
                    node.name,
                    f"spider {spider!r} is not in project {project!r} there (it has {known}): scrapy fleet deploy",
                )
        except NodeError as error:
            faults[node.name] = error

    await _all(look(node) for node in nodes)
    _refuse_without_nodes(nodes, faults)
    chosen = choose_version(versions, version, project)
    newer = {found for known in versions.values() for found in known if chosen and _natural(found) > _natural(chosen)}
    if newer and not version:
        logger.warning(
            "Version %s of project %s is not on every node, so %s is used: scrapy fleet deploy",
            max(newer, key=_natural), project, chosen,
        )  # fmt: skip
    await _all(look_for_spider(node) for node in nodes if node.name not in faults)
    _refuse_without_nodes(nodes, faults)
    return chosen, faults


def choose_version(versions: dict[str, list[str]], asked: str, project: str) -> str:
    """The version that every node has. Scrapyd's own idea of the newest is wrong (9_0 after 10_0), so numbers in a
    version are compared as numbers here. Raises ``ConfigError``."""
    if not any(versions.values()):
        return ""  # a project of scrapyd.conf's [settings], or none: listspiders tells
    common = set.intersection(*(set(found) for found in versions.values()))
    if asked:
        asked = re.sub(r"[^A-Za-z0-9_-]", "_", asked)  # as Scrapyd stores it
        common &= {asked}
    if not common:
        found = "; ".join(f"{name} has {', '.join(sorted(found)) or 'none'}" for name, found in versions.items())
        wanted = f"version {asked!r}" if asked else "one version on every node"
        raise ConfigError(f"project {project!r}: expected {wanted}, {found}: scrapy fleet deploy")
    return max(common, key=_natural)


def _natural(version: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"[0-9]+|[^0-9]+", version)]


def _refuse_without_nodes(nodes: Sequence[Node], faults: dict[str, NodeError]) -> None:
    if len(faults) == len(nodes):
        reasons = "\n  ".join(str(error) for error in faults.values())
        raise ConfigError(f"DISTRIBUTED_TARGET_HOSTS: none of the {len(nodes)} nodes can be used:\n  {reasons}")


async def _all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    deferreds = [Deferred.fromCoroutine(coroutine) for coroutine in coroutines]
    await DeferredList(deferreds, fireOnOneErrback=True, consumeErrors=True)

"""``scrapy fleet deploy``: what it says of the nodes that have got an egg."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from scrapy.settings import BaseSettings
from scrapy.spiderloader import get_spider_loader

from scrapy_distributed.commands import run_in_reactor
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.deploy import Deployed, deploy
from scrapy_distributed.fleet.node import NodeAddress, open_nodes
from scrapy_distributed.wire.job import check_spider
from scrapy_distributed.words import counted

_UNUSABLE_SHOWN = 10  # spiders that can't be run on a node


def check_spiders(settings: BaseSettings) -> None:
    """Raise ``ConfigError`` where the project has spiders that no node can run, as far as it can be loaded here: each
    job of such a one would cost a node a slot, whoever schedules it."""
    try:
        spiders = get_spider_loader(settings).list()
    except Exception:  # whatever the project's modules raise: the nodes will say so
        return
    if sentences := _unusable(spiders):
        raise ConfigError(f"nothing was sent: {'; '.join(sentences)}")


def send_egg(egg: bytes, where: Sequence[NodeAddress], project: str, version: str) -> int:
    """Returns the exit code."""
    results = run_in_reactor(lambda: _deploy_all(where, project, version, egg))
    for result in results or ():
        spiders = f"{len(result.spiders)} spider{'s' if len(result.spiders) != 1 else ''}"
        print(f"{result.node} {f'failed: {result.problem}' if result.problem else f'{project} {version}: {spiders}'}")
    if newer := {result.newest for result in results or ()} - {""}:
        print(_not_the_newest(version, min(newer)), file=sys.stderr)
    for sentence in _unusable(spider for result in results or () for spider in result.spiders):
        print(sentence, file=sys.stderr)
    return 0 if results and not any(result.problem for result in results) else 1


def _not_the_newest(version: str, newest: str) -> str:
    return (
        f"version {version} is there, and a crawl uses {newest}, which is newer by its name: name yours in the"
        f" settings, DISTRIBUTED_VERSION = {version!r}, or give it a name that is newer (without --version: the time)"
    )


def _unusable(spiders: Iterable[str]) -> list[str]:
    """Why which of *spiders* can't be run on a node: the others of the project can. Of many the first ones, and how
    many more there are: the names are a node's words."""
    found = set()
    for spider in spiders:
        try:
            check_spider(spider)
        except ConfigError as error:
            found.add(str(error))
    more = len(found) - _UNUSABLE_SHOWN
    return sorted(found)[:_UNUSABLE_SHOWN] + ([f"and {counted(more, 'spider')} more like these"] if more > 0 else [])


async def _deploy_all(where: Sequence[NodeAddress], project: str, version: str, egg: bytes) -> list[Deployed]:
    async with open_nodes(where) as nodes:
        return await deploy(nodes, project, version, egg)

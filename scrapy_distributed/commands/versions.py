"""``scrapy fleet versions`` and ``scrapy fleet prune``: the versions of the project on all nodes."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from scrapy.settings import BaseSettings
from scrapy.spiderloader import get_spider_loader

from scrapy_distributed.commands import run_in_reactor
from scrapy_distributed.commands.doctor import settings_of
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.node import NodeAddress, open_nodes
from scrapy_distributed.fleet.stock import Stock, prune, stocks_of
from scrapy_distributed.fleet.versions import choose_version, order_of, stored_as
from scrapy_distributed.ledger.sqlite_schema import is_held
from scrapy_distributed.words import counted, listed, shortened

_ONLY_HERE = "no versions: workers on this machine run the project as it lies here"


def show_versions(where: Sequence[NodeAddress], project: str, asked: str) -> int:
    """Returns the exit code. *asked*: the version that the settings name, '' if they name none."""
    if not where:
        print(_ONLY_HERE)
        return 0
    stocks = run_in_reactor(lambda: _stocks(where, project)) or []
    versions = {stock.node: list(stock.versions) for stock in stocks if not stock.problem}
    used, problem = "", ""
    try:
        used = choose_version(versions, asked, project)
        if versions and not used:
            problem = f"project {project!r}: no node has a version of it: scrapy fleet deploy"
    except ConfigError as error:
        problem = str(error)
    newest = max(_all(versions), key=order_of, default="")
    for stock in stocks:
        _say(stock, {newest: "newest", used: "newest, used" if newest == used else "used"})
    if not problem and used != newest and not asked:
        lacking = [node for node, found in versions.items() if newest not in found]
        problem = f"{shortened(newest)} is not on {listed(lacking)}, so a crawl uses {used}: scrapy fleet deploy"
    if problem:
        print(problem, file=sys.stderr)
    return 1 if problem or not stocks or any(stock.problem for stock in stocks) else 0


def prune_versions(
    where: Sequence[NodeAddress], project: str, settings: BaseSettings, ledgers: Iterable[Path], keep: int
) -> int:
    """Returns the exit code. *keep*: so many of the newest stay, and what a crawl of any spider uses. Raises
    ``ConfigError`` where that is not known, and ``LedgerError``."""
    if not where:
        print(_ONLY_HERE)
        return 0
    asked = _asked_versions(settings)
    if held := [path for path in ledgers if path.is_file() and is_held(path)]:
        raise ConfigError(f"prune: found a crawl that runs ({listed(map(str, held))}), expected none: ask again later")
    stocks = run_in_reactor(lambda: _pruned(where, project, asked, keep))
    for stock in stocks or ():
        _say(stock, {})
    print(
        "receipts stay, and the items of the last jobs until another job removes them: on each node in"
        f" {project}/*.receipts of its logs_dir. Scrapyd lets nobody delete there but on its machine, for example:"
        f" find {project}/*.receipts -mtime +30 -delete"
    )
    return 1 if stocks is None or any(stock.problem for stock in stocks) else 0


def versions_to_keep(versions: Mapping[str, list[str]], asked: Collection[str], project: str, keep: int) -> set[str]:
    """The *keep* newest of all nodes, and those that crawls use which ask for one of *asked*, also where a node lacks
    it: that may have been added just now. Raises ``ConfigError`` where no crawl could use any."""
    used = set()
    for one in asked:
        with suppress(ConfigError):  # that spider does not start just now
            used.add(choose_version(dict(versions), one, project))
    if not used:
        choose_version(dict(versions), next(iter(asked), ""), project)
    return used | {stored_as(one) for one in asked if one} | set(sorted(_all(versions), key=order_of)[-keep:])


async def _stocks(where: Sequence[NodeAddress], project: str) -> list[Stock]:
    async with open_nodes(where) as nodes:
        return await stocks_of(nodes, project)


async def _pruned(where: Sequence[NodeAddress], project: str, asked: Collection[str], keep: int) -> list[Stock]:
    async with open_nodes(where) as nodes:
        stocks = await stocks_of(nodes, project)
        if silent := [f"{stock.node}: {stock.problem}" for stock in stocks if stock.problem]:
            raise ConfigError(
                f"prune: {'; '.join(silent)}: nothing was deleted, as which version a crawl uses depends on all nodes:"
                " mend it, or leave it out: -s DISTRIBUTED_TARGET_HOSTS=..."
            )
        versions = {stock.node: list(stock.versions) for stock in stocks}
        return await prune(nodes, project, versions_to_keep(versions, asked, project, keep))


def _asked_versions(settings: BaseSettings) -> set[str]:
    """What the settings of the spiders name, '' for one whose crawl uses the newest."""
    try:
        loader = get_spider_loader(settings)
        own = [settings_of(loader.load(name), settings) for name in loader.list()]
    except Exception as error:  # whatever the project's modules raise
        raise ConfigError(f"the spiders of this project can't be loaded: {type(error).__name__}: {error}") from None
    return {str(one.get("DISTRIBUTED_VERSION") or "") for one in (settings, *own)}


def _all(versions: Mapping[str, list[str]]) -> set[str]:
    return {version for found in versions.values() for version in found}


def _say(stock: Stock, marks: Mapping[str, str]) -> None:
    shown = [f"{version} ({marks[version]})" if version in marks else version for version in stock.versions]
    words = [stock.problem] if stock.problem else []
    if stock.deleted:
        words.append(f"deleted: {shortened(', '.join(stock.deleted))}")
    if shown or not stock.problem:
        words.append(f"{counted(len(shown), 'version')}: {shortened(', '.join(shown)) or 'none'}")
    print(f"{stock.node} {'; '.join(words)}", file=sys.stderr if stock.problem else sys.stdout)

"""``scrapy monitor``: what the nodes are doing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError
from scrapy.utils.project import inside_project

from scrapy_distributed.commands import at_least, chosen_nodes, refuse_options, run_in_reactor

if TYPE_CHECKING:
    from scrapy_distributed.fleet.node import NodeAddress


class Command(ScrapyCommand):
    requires_project = False
    requires_crawler_process = False

    def syntax(self) -> str:
        return "[NAME | PATTERN | HOST:PORT ...] [options]"

    def short_desc(self) -> str:
        return "Show what the Scrapyd nodes of the fleet are doing"

    def long_desc(self) -> str:
        return (
            "Show one line per Scrapyd node at every poll. NAME is a target of scrapy.cfg, PATTERN a shell pattern "
            "over these names; without any, the nodes of DISTRIBUTED_TARGET_HOSTS, else all targets."
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--once", action="store_true", help="poll once; exit code 1 if a node fails")
        parser.add_argument("--json", action="store_true", help="one JSON object per poll")
        parser.add_argument(
            "--interval", type=at_least(float, 0.1), default=5.0, metavar="SECONDS", help="between polls (default: 5)"
        )
        parser.add_argument("--project", help="count the jobs of this project (default: this project's)")

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.errors import ConfigError
        from scrapy_distributed.fleet.addresses import project_of, targets_from_cfg

        assert self.settings is not None
        refuse_options(args)
        try:
            targets = targets_from_cfg()
            where = chosen_nodes(args, self.settings, targets).scrapyds
        except ConfigError as error:
            raise UsageError(str(error), print_help=False) from None
        project = opts.project or (project_of(targets, self.settings) if inside_project() else None)
        healthy = run_in_reactor(lambda: _watch(where, project, opts))
        self.exitcode = 1 if opts.once and not healthy else 0


async def _watch(where: Sequence[NodeAddress], project: str | None, opts: argparse.Namespace) -> bool:
    """Poll and print until stopped, with ``--once`` a single time; whether all nodes were well."""
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    from scrapy_distributed.fleet.node import open_nodes
    from scrapy_distributed.monitor.snapshot import as_json, plain, poll

    async with open_nodes(where) as nodes:
        while True:
            snapshot = await poll(nodes, project)
            print("\n".join([as_json(snapshot)] if opts.json else plain(snapshot)), flush=True)
            if opts.once:
                return snapshot.healthy
            await deferLater(reactor, opts.interval)

"""``scrapy monitor``: what the nodes are doing."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError
from scrapy.utils.project import inside_project

from scrapy_distributed.commands import at_least, chosen_nodes, ledger_paths, refuse_options, run_in_reactor

if TYPE_CHECKING:
    from scrapy_distributed.monitor.shared_state import SharedWatch
    from scrapy_distributed.shared.address import RedisAddress


class Command(ScrapyCommand):
    requires_project = False
    requires_crawler_process = False

    def syntax(self) -> str:
        return "[NAME | PATTERN | HOST:PORT | local ... | redis://HOST:6379/0] [options]"

    def short_desc(self) -> str:
        return "Show what the nodes of the fleet are doing"

    def long_desc(self) -> str:
        return (
            "Show one line per node at every poll, as each answers. NAME is a target of scrapy.cfg, PATTERN a shell "
            "pattern over these names, local the workers on this machine, redis:// those that have joined shared runs "
            "there; without any, the nodes of "
            "DISTRIBUTED_TARGET_HOSTS, else all targets."
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
        from scrapy_distributed.monitor.watch import Watch

        settings = self.settings
        assert settings is not None
        refuse_options(args)
        try:
            targets = targets_from_cfg()
            chosen = chosen_nodes(args, settings, targets)
            project = opts.project or (project_of(targets, chosen.scrapyds, settings) if inside_project() else None)
            shared = _shared(chosen.shared, project)
        except ConfigError as error:
            raise UsageError(str(error), print_help=False) from None
        watch = Watch(
            chosen.scrapyds,
            local=chosen.slots > 0 and shared is None,
            ledgers=lambda: ledger_paths(settings),
            project=project,
            interval=None if opts.once else opts.interval,
            shared=shared,
        )
        healthy = run_in_reactor(watch.in_json if opts.json else watch.in_lines)
        self.exitcode = 1 if opts.once and not healthy else 0


def _shared(address: RedisAddress | None, project: str | None) -> SharedWatch | None:
    """Raises ``ConfigError``."""
    from scrapy.utils.reactor import install_reactor

    from scrapy_distributed.errors import ConfigError
    from scrapy_distributed.monitor.shared_state import SharedWatch

    if address is None:
        return None
    if project is None:
        raise ConfigError("found no project here, expected --project NAME, that of the runs")
    install_reactor("twisted.internet.asyncioreactor.AsyncioSelectorReactor")
    return SharedWatch(address, project)

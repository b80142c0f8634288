"""``scrapy worker``: takes batches of shared runs of the project, until it is told to end."""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError
from scrapy.utils.project import inside_project

from scrapy_distributed.commands import at_least, refuse_options, run_in_reactor

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings

    from scrapy_distributed.joining.work import Work


class Command(ScrapyCommand):
    requires_project = False
    requires_crawler_process = False

    def syntax(self) -> str:
        return "redis://HOST:6379/0 [options]"

    def short_desc(self) -> str:
        return "Take batches of this project's shared runs, on any machine, until it is told to end"

    def long_desc(self) -> str:
        return (
            "Started in the project's folder, this process joins all runs of the project that live in that Redis or "
            "Valkey: it takes batches, crawls each in a process of its own, and stays for the next run. SIGTERM or "
            "Ctrl-C: what has not begun is given back at once, the other jobs report what they have done."
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--slots", type=at_least(int, 1), metavar="N", help="jobs at once (default: one per core)")
        parser.add_argument("--spiders", metavar="PATTERN", default="*", help="of these spiders alone (default: all)")
        parser.add_argument("--logs", metavar="DIR", help="of jobs (default: .scrapy/distributed/worker)")
        parser.add_argument(
            "--health",
            metavar="PLACE",
            help="show that this process lives: a file, touched each second, or a port or HOST:PORT that answers HTTP",
        )

        parser.add_argument("--parent", type=at_least(int, 1), help=argparse.SUPPRESS)  # which has started it

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        from scrapy.utils.log import configure_logging
        from scrapy.utils.reactor import install_reactor

        from scrapy_distributed.errors import ConfigError, LedgerError
        from scrapy_distributed.words import escaped

        assert self.settings is not None
        refuse_options(args)
        if len(args) != 1:
            found = f"found {len(args)} of them" if args else "found none"
            raise UsageError(f"{found}, expected one address: scrapy worker redis://HOST:6379/0", print_help=False)
        install_reactor("twisted.internet.asyncioreactor.AsyncioSelectorReactor")
        configure_logging(self.settings)
        try:
            work = _work(args[0], opts, self.settings)
            code = run_in_reactor(lambda: _done(work))
        except ConfigError as error:
            raise UsageError(str(error), print_help=False) from None
        except (LedgerError, OSError) as error:
            print(escaped(str(error)), file=sys.stderr)
            code = 2
        self.exitcode = code or 0


async def _done(work: Work) -> int:
    """Its exit code."""
    import asyncio

    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    loop: Any = reactor
    code: int = await Deferred.fromFuture(asyncio.ensure_future(work.do(loop)))
    return code


def _work(address: str, opts: argparse.Namespace, settings: BaseSettings) -> Work:
    """Raises ``ConfigError``."""
    from scrapy.spiderloader import get_spider_loader

    from scrapy_distributed.config.config import Config
    from scrapy_distributed.config.items_go import settings_of_workers
    from scrapy_distributed.coordinator.identity import ledgers_folder
    from scrapy_distributed.errors import ConfigError
    from scrapy_distributed.fleet.addresses import project_of, targets_from_cfg
    from scrapy_distributed.fleet.local_slots import cores
    from scrapy_distributed.joining.health import Health
    from scrapy_distributed.joining.work import Work
    from scrapy_distributed.shared.address import RedisAddress
    from scrapy_distributed.shared.code_version import version_here
    from scrapy_distributed.shared.refusal import refusal

    where = RedisAddress.from_url(address)
    if not inside_project():
        raise ConfigError("scrapy worker: found no project here, expected the folder of one, with its scrapy.cfg")
    config = Config.from_settings(settings)
    spiders = tuple(name for name in get_spider_loader(settings).list() if fnmatchcase(name, opts.spiders))
    if not spiders:
        raise ConfigError(f"--spiders: found {opts.spiders!r}, which is the name of no spider here: see scrapy list")
    own = settings_of_workers(settings)
    return Work(
        address=where, project=project_of(targets_from_cfg(), [], settings), slots=opts.slots or cores(),
        spiders=spiders, version=lambda: version_here(settings),
        refusal=lambda template: refusal(template.settings, own, config.worker_settings),
        logs=Path(opts.logs) if opts.logs else ledgers_folder() / "worker",
        health=Health.from_text(opts.health) if opts.health else None, leave_seconds=config.shutdown_timeout,
        parent=opts.parent,
    )  # fmt: skip

"""``scrapy fleet``: local nodes for development, and one egg for all nodes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError
from scrapy.utils.conf import closest_scrapy_cfg

from scrapy_distributed.commands import at_least, chosen_addresses, refuse_options, run_in_reactor

if TYPE_CHECKING:
    from scrapy_distributed.deploy import Deployed
    from scrapy_distributed.local_node import LocalNode
    from scrapy_distributed.node import NodeAddress

_WATCH_SECONDS = 0.2


class Command(ScrapyCommand):
    requires_project = False
    requires_crawler_process = False

    def syntax(self) -> str:
        return "up N [options]  |  deploy [NAME | PATTERN | HOST:PORT ...] [options]"

    def short_desc(self) -> str:
        return "Run local Scrapyd nodes (up), or deploy the project to all nodes (deploy)"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        up = parser.add_argument_group("fleet up: N Scrapyd nodes on this machine, until Ctrl-C")
        up.add_argument("--port", type=at_least(int, 0), default=6800, help="of the first (default: 6800; 0: any free)")
        up.add_argument("--dir", default=".scrapy/fleet", help="holds a folder per node (default: .scrapy/fleet)")
        up.add_argument("--max-proc", type=at_least(int, 1), default=2, help="workers per node at once (default: 2)")
        up.add_argument(
            "--poll-interval", type=at_least(float, 0.05), default=1.0, help="seconds between job starts (default: 1)"
        )
        up.add_argument("--username", default="", help="ask for it, and for the password in --password-env")
        up.add_argument("--password-env", metavar="VARIABLE", help="environment variable that holds the password")
        deploy = parser.add_argument_group("fleet deploy: the project, to all nodes in parallel")
        deploy.add_argument("--project", help="name on Scrapyd (default: scrapy.cfg's, else BOT_NAME)")
        deploy.add_argument("--version", help="(default: the time, UTC, like 20261121114836)")

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.errors import ConfigError, NodeError

        refuse_options(args)
        try:
            if args[:1] == ["up"]:
                self._up(args[1:], opts)
            elif args[:1] == ["deploy"]:
                self._deploy(args[1:], opts)
            else:
                found = f"found {args[0]!r}" if args else "found nothing"
                raise UsageError(f"{found}, expected: scrapy fleet up N, or: scrapy fleet deploy", print_help=False)
        except ConfigError as error:
            raise UsageError(str(error), print_help=False) from None
        except NodeError as error:
            print(error, file=sys.stderr)
            self.exitcode = 1

    def _up(self, args: Sequence[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.local_node import end, start

        nodes = _local_nodes(args, opts)
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, _interrupt)
            start(nodes)
            for node in nodes:
                print(f"{node.name} listening at {node.url}", flush=True)
            print("ready", flush=True)
            _watch(nodes)
            self.exitcode = 1
        except KeyboardInterrupt:
            self.exitcode = 0
        finally:
            # A second signal does not cut this off: it would leave processes behind.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            left = end(nodes)
            if left:
                print(
                    f"still running: {', '.join(left)}; see their process groups with ps -eo pgid,args", file=sys.stderr
                )
                self.exitcode = 1

    def _deploy(self, args: Sequence[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.egg import build_egg
        from scrapy_distributed.errors import ConfigError
        from scrapy_distributed.fleet import project_of, targets_from_cfg

        assert self.settings is not None
        cfg, module = closest_scrapy_cfg(), os.environ.get("SCRAPY_SETTINGS_MODULE", "")
        if not cfg or not module:
            raise ConfigError("no Scrapy project here: run scrapy fleet deploy in the folder that has its scrapy.cfg")
        targets = targets_from_cfg()
        where = chosen_addresses(args, self.settings, targets)
        project = opts.project or project_of(targets, self.settings)
        version = opts.version or datetime.now(timezone.utc).strftime("%Y%m%d%H%M%S")
        egg = build_egg(Path(cfg).parent, module)
        results = run_in_reactor(lambda: _deploy_all(where, project, version, egg))
        for result in results or ():
            spiders = f"{len(result.spiders)} spider{'s' if len(result.spiders) != 1 else ''}"
            print(
                f"{result.node} {f'failed: {result.problem}' if result.problem else f'{project} {version}: {spiders}'}"
            )
        self.exitcode = 0 if results and not any(result.problem for result in results) else 1


def _local_nodes(args: Sequence[str], opts: argparse.Namespace) -> list[LocalNode]:
    from scrapy_distributed.local_node import LocalNode

    if len(args) != 1 or not args[0].isdecimal() or not int(args[0]):
        raise UsageError(f"found {' '.join(args)!r}, expected a number of nodes: scrapy fleet up 3", print_help=False)
    count, password = int(args[0]), os.environ.get(opts.password_env or "", "")
    if bool(opts.username) != bool(password):
        raise UsageError(
            "a username and a password belong together: give --username, and --password-env with the name of an "
            "environment variable that holds the password",
            print_help=False,
        )
    return [
        LocalNode(
            name=f"scrapyd{number + 1}",
            folder=Path(opts.dir).absolute() / f"scrapyd{number + 1}",
            port=opts.port and opts.port + number,
            max_proc=opts.max_proc,
            poll_interval=opts.poll_interval,
            username=opts.username,
            password=password,
        )
        for number in range(count)
    ]


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _watch(nodes: Sequence[LocalNode]) -> None:
    """Return when every node has ended; say so at each one's end."""
    running = list(nodes)
    while running:
        time.sleep(_WATCH_SECONDS)
        for node in [node for node in running if node.exited is not None]:
            print(f"{node.name} has ended (status {node.exited}), {node.log_tail()}", file=sys.stderr, flush=True)
            running.remove(node)


async def _deploy_all(where: Sequence[NodeAddress], project: str, version: str, egg: bytes) -> list[Deployed]:
    from twisted.internet.defer import Deferred, gatherResults

    from scrapy_distributed.deploy import deploy
    from scrapy_distributed.node import Node

    nodes = [Node(address=address) for address in where]
    sent = [Deferred.fromCoroutine(deploy(node, project, version, egg)) for node in nodes]
    results: list[Deployed] = await gatherResults(sent, consumeErrors=True)
    for node in nodes:
        await node.close()
    return results

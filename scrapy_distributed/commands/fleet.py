"""``scrapy fleet``: local nodes for development, one egg for all nodes, and a check of all that a crawl needs."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scrapy.commands import ScrapyCommand
from scrapy.exceptions import UsageError
from scrapy.utils.conf import closest_scrapy_cfg

from scrapy_distributed.commands import (
    at_least,
    chosen_nodes,
    ledger_paths,
    refuse_options,
    run_in_reactor,
    shared_address,
)
from scrapy_distributed.errors import ConfigError, LedgerError, NodeError

if TYPE_CHECKING:
    from scrapy_distributed.commands.doctor_local import WorkerCommand
    from scrapy_distributed.fleet.local_node import LocalNode
    from scrapy_distributed.fleet.node import NodeAddress
    from scrapy_distributed.fleet.preflight import Finding, Survey
    from scrapy_distributed.wire.job_template import JobTemplate

_WATCH_SECONDS = 0.2


class Command(ScrapyCommand):
    requires_project = False
    requires_crawler_process = False

    def syntax(self) -> str:
        nodes = "[NAME | PATTERN | HOST:PORT ...] [options]"
        return (
            f"up N [options]  |  deploy {nodes}  |  versions {nodes}  |  prune --keep N  |  doctor {nodes}  |  "
            f"cancel {nodes}  |  drain NODE ...  |  undrain NODE ...  |  password [NODE ...]"
        )

    def short_desc(self) -> str:
        return (
            "Local Scrapyd nodes (up, password), the project on all nodes (deploy, versions, prune), a check of the"
            " fleet (doctor), an end of all its jobs (cancel)"
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        up = parser.add_argument_group("fleet up: N Scrapyd nodes on this machine, until Ctrl-C")
        up.add_argument("--port", type=at_least(int, 0), default=6800, help="of the first (default: 6800; 0: any free)")
        up.add_argument("--dir", default=".scrapy/fleet", help="holds a folder per node (default: .scrapy/fleet)")
        up.add_argument("--max-proc", type=at_least(int, 1), default=2, help="workers per node at once (default: 2)")
        up.add_argument(
            "--poll-interval", type=at_least(float, 0.05), default=1.0, help="seconds between job starts (default: 1)"
        )
        up.add_argument("--warm", action="store_true", help="start workers at once, from a warm process")
        up.add_argument("--username", default="", help="ask for it, and for the password in --password-env")
        up.add_argument("--password-env", metavar="VARIABLE", help="environment variable that holds the password")
        up.add_argument("--no-password", action="store_true", help="let anybody in who reaches this machine's ports")
        both = parser.add_argument_group("fleet deploy: the project, to all nodes in parallel; and fleet doctor")
        both.add_argument("--project", help="name on Scrapyd (default: scrapy.cfg's, else BOT_NAME)")
        both.add_argument(
            "--version",
            help="deploy: (default: scrapy.cfg's, else the seconds since 1970); doctor: expected on every node",
        )
        prune = parser.add_argument_group("fleet prune: old versions of the project, deleted on all nodes")
        prune.add_argument("--keep", type=at_least(int, 1), metavar="N", help="so many of the newest stay")
        doctor = parser.add_argument_group("fleet doctor: is all in place for a crawl? Exit code 0 if it is")
        doctor.add_argument("--spider", metavar="NAME", help="(default: the first of the project that is distributed)")
        doctor.add_argument("-a", metavar="NAME=VALUE", action="append", help="a spider argument, as of scrapy crawl")
        doctor.add_argument(
            "--timeout",
            type=at_least(float, 0.1),
            default=60.0,
            metavar="SECONDS",
            help="for the receipt of the probe (default: 60)",
        )
        doctor.add_argument("--json", action="store_true", help="one JSON object")
        cancel = parser.add_argument_group("fleet cancel: the crawls pause, and their jobs on all nodes end, now")
        cancel.add_argument("--run", metavar="NAME", help="of this run alone (default: all that ledgers here know)")

    def run(self, args: list[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.words import escaped

        refuse_options(args)
        actions: dict[str, Callable[[Sequence[str], argparse.Namespace], None]] = {
            "up": self._up, "deploy": self._deploy, "versions": self._versions, "prune": self._prune,
            "doctor": self._doctor, "cancel": self._cancel, "drain": partial(self._drain, "drain"),
            "undrain": partial(self._drain, "undrain"), "password": self._password,
        }  # fmt: skip
        if not args or args[0] not in actions:
            found = f"found {args[0]!r}" if args else "found nothing"
            expected = ", ".join(f"scrapy fleet {action}{' N' * (action == 'up')}" for action in actions)
            raise UsageError(f"{found}, expected: {expected}", print_help=False)
        try:
            actions[args[0]](args[1:], opts)
        except ConfigError as error:
            raise UsageError(str(error), print_help=False) from None
        except LedgerError as error:
            print(escaped(str(error)), file=sys.stderr)
            self.exitcode = 2
        except NodeError as error:
            print(error, file=sys.stderr)
            self.exitcode = 1

    def _up(self, args: Sequence[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.fleet.local_credentials import USERNAME, Credentials, make_folder, password_of, shared
        from scrapy_distributed.fleet.local_node import end, start

        username, password = _given_credentials(opts)
        generated = not username and not opts.no_password
        if generated:
            username, password = USERNAME, password_of(Path(opts.dir).absolute())
        nodes = _local_nodes(args, opts, username, password)
        if generated:
            make_folder()
        pause = _interruptible_sleep()
        try:
            start(nodes, pause=pause)
            credentials = {"username": username, "password": password}
            made = [Credentials(name=node.name, url=node.url, **credentials) for node in nodes if generated]
            with shared(made) as forget:
                for node in nodes:
                    print(f"{node.name} listening at {node.url}", flush=True)
                print("ready" + ("\nfor a browser: scrapy fleet password" if generated else ""), flush=True)
                _watch(nodes, pause, forget)
            self.exitcode = 1
        except KeyboardInterrupt:
            self.exitcode = 0
        finally:
            if left := end(nodes):
                words = f"still running: {', '.join(left)}; see their process groups with ps -eo pgid,args"
                print(words, file=sys.stderr)
                self.exitcode = 1

    def _password(self, args: Sequence[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.fleet.local_credentials import all_running

        running = all_running()
        for wanted in args or [""]:
            found = [one for one in running if not wanted or wanted in (one.name, one.url, one.url.partition("//")[2])]
            if not found:
                what = f"no node {wanted!r}" if wanted else "no node"
                print(f"{what} of a scrapy fleet up of this user that has made a password", file=sys.stderr)
                self.exitcode = 1
            for one in found:
                print(f"{one.name} {one.url}/ username: {one.username} password: {one.password}")

    def _deploy(self, args: Sequence[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.commands.deploy import check_spiders, send_egg
        from scrapy_distributed.fleet.addresses import project_of, targets_from_cfg, version_of
        from scrapy_distributed.fleet.egg import build_egg
        from scrapy_distributed.fleet.needs import lacking
        from scrapy_distributed.fleet.version_name import version_name
        from scrapy_distributed.wire.job import check_project

        assert self.settings is not None
        cfg, module = closest_scrapy_cfg(), os.environ.get("SCRAPY_SETTINGS_MODULE", "")
        if not cfg or not module:
            raise ConfigError("no Scrapy project here: run scrapy fleet deploy in the folder that has its scrapy.cfg")
        targets = targets_from_cfg()
        where, _, shared = chosen_nodes(args, self.settings, targets)
        if not where:
            whose = "that join shared runs run the project as it lies in their folder" if shared else ""
            print(f"nothing to deploy: workers {whose or 'on this machine run the project as it lies here'}")
            return
        project = opts.project or project_of(targets, where, self.settings)
        folder = Path(cfg).parent
        version = version_name(opts.version or version_of(targets, where), folder, time.time())
        check_project(project)
        check_spiders(self.settings)
        egg = build_egg(folder, module)
        for sentence in lacking(egg, folder, module.partition(".")[0]):
            print(sentence, file=sys.stderr)
        self.exitcode = send_egg(egg, where, project, version)

    def _versions(self, args: Sequence[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.commands.versions import show_versions
        from scrapy_distributed.config.config import Config

        assert self.settings is not None
        where, project = self._scrapyds(args, opts)
        self.exitcode = show_versions(where, project, Config.from_settings(self.settings).version)

    def _prune(self, args: Sequence[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.commands.versions import prune_versions

        assert self.settings is not None
        if args or opts.keep is None:
            found = f"found {' '.join(args)!r}" if args else "found no --keep"
            words = "expected --keep N and no node, as which version a crawl uses depends on all of its nodes"
            raise UsageError(f"prune: {found}, {words}", print_help=False)
        where, project = self._scrapyds(args, opts)
        ledgers = ledger_paths(self.settings)
        self.exitcode = prune_versions(where, project, self.settings, ledgers, opts.keep)

    def _cancel(self, args: Sequence[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.commands.cancel import cancel_runs

        assert self.settings is not None
        where, project = self._scrapyds(args, opts)
        self.exitcode = cancel_runs(ledger_paths(self.settings), where, project, opts.run)

    def _scrapyds(self, names: Sequence[str], opts: argparse.Namespace) -> tuple[list[NodeAddress], str]:
        """Those that *names* or the settings say, and what the project is called there. Raises ``ConfigError``."""
        from scrapy_distributed.fleet.addresses import project_of, targets_from_cfg

        assert self.settings is not None
        targets = targets_from_cfg()
        where, _, shared = chosen_nodes(names, self.settings, targets)
        if shared is not None:
            raise ConfigError(
                f"{shared}: found a Redis, expected Scrapyds: workers that join its runs have their own code, and a run"
                " of theirs is ended by scrapy batches cancel"
            )
        return where, opts.project or project_of(targets, where, self.settings)

    def _drain(self, what: str, names: Sequence[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.commands.wishing import wish_of_all

        assert self.settings is not None
        if not names:
            raise UsageError(f"{what}: expected the names of nodes, as the crawl has them", print_help=False)
        if address := shared_address(self.settings):
            raise ConfigError(
                f"{what}: found shared runs ({address}), expected nodes that a crawl sends jobs to: a worker takes no"
                " more when it is told to end (SIGTERM), and all of them when a run is paused (scrapy batches pause)"
            )
        self.exitcode = wish_of_all(ledger_paths(self.settings), what, names)

    def _doctor(self, args: Sequence[str], opts: argparse.Namespace) -> None:
        from scrapy_distributed.commands.doctor import all_well, as_json, found_here, job_of, plain, subject
        from scrapy_distributed.commands.doctor_local import worker_command
        from scrapy_distributed.commands.doctor_shared import examined_there
        from scrapy_distributed.commands.probe import probe_of
        from scrapy_distributed.config.advice import check_feeds
        from scrapy_distributed.config.command_line import CommandLine
        from scrapy_distributed.config.config import Config
        from scrapy_distributed.fleet.addresses import elsewhere, project_of, targets_from_cfg
        from scrapy_distributed.fleet.preflight import Survey
        from scrapy_distributed.wire.code import code_of

        assert self.settings is not None
        patient = subject(self.settings, opts.spider)
        config = Config.from_settings(patient.settings)
        check_feeds(config)
        targets = targets_from_cfg()
        chosen = chosen_nodes(args, patient.settings, targets)
        project = opts.project or project_of(targets, chosen.scrapyds, patient.settings)
        version, feed = opts.version or config.version, bool(config.feed_urls)
        survey = Survey(project=project, spider=patient.name, version=version, feed=feed)
        arguments, command = _spider_arguments(opts.a or ()), CommandLine()
        try:
            command = CommandLine.read(patient.settings, config, arguments)
            its = patient, config, project, command, chosen.scrapyds
            job: JobTemplate | ConfigError = job_of(*its, shared=chosen.shared is not None)
        except ConfigError as error:
            job = error
        shared = examined_there(chosen.shared, project, patient, job) if chosen.shared else None
        found = found_here(
            patient, config, command, job, nodes=len(chosen.scrapyds), slots=chosen.slots,
            elsewhere=elsewhere(chosen.scrapyds), joined=shared.slots if shared else None,
        )  # fmt: skip
        to_send = probe_of(job, config) if not isinstance(job, ConfigError) else None
        here = worker_command(patient, config, chosen.scrapyds) if chosen.slots else None
        asked = (chosen.scrapyds, here, survey, to_send, code_of(patient.kind) if patient.kind else "")
        examined = run_in_reactor(lambda: _examined(*asked, config.timeout, opts.timeout))
        found += [*(shared.findings if shared else ()), *(examined or [])]
        print("\n".join([as_json(survey, found)] if opts.json else plain(found)))
        self.exitcode = 0 if (examined or shared) and examined is not None and all_well(found) else 1


def _spider_arguments(options: Sequence[str]) -> dict[str, str]:
    if wrong := [option for option in options if not option.partition("=")[0] or "=" not in option]:
        raise UsageError(f"-a {wrong[0]}: expected -a NAME=VALUE", print_help=False)
    return dict(option.split("=", 1) for option in options)


def _given_credentials(opts: argparse.Namespace) -> tuple[str, str]:
    password = os.environ.pop(opts.password_env or "", "")  # else a node would have it, and give it to each job
    if bool(opts.username) != bool(password):
        raise UsageError(
            "a username and a password belong together: give --username, and --password-env with the name of an "
            "environment variable that holds the password",
            print_help=False,
        )
    if password and opts.no_password:
        raise UsageError("found --username and --no-password, expected one of them", print_help=False)
    return opts.username, password


def _local_nodes(args: Sequence[str], opts: argparse.Namespace, username: str, password: str) -> list[LocalNode]:
    from scrapy_distributed.fleet.local_node import LocalNode

    if len(args) != 1 or not args[0].isdecimal() or not int(args[0]):
        raise UsageError(f"found {' '.join(args)!r}, expected a number of nodes: scrapy fleet up 3", print_help=False)
    count = int(args[0])
    return [
        LocalNode(
            name=f"scrapyd{number + 1}",
            folder=Path(opts.dir).absolute() / f"scrapyd{number + 1}",
            port=opts.port and opts.port + number,
            max_proc=opts.max_proc,
            poll_interval=opts.poll_interval,
            warm=opts.warm,
            username=username,
            password=password,
        )
        for number in range(count)
    ]


def _interruptible_sleep() -> Callable[[float], None]:
    """Sleeps for some seconds, and raises ``KeyboardInterrupt`` where Ctrl-C, TERM or HUP has come since this call.

    A signal is only noted, until the next sleep: raised between the start of a node and the line that remembers it, or
    while nodes are being ended, it would leave processes behind."""
    received: list[int] = []

    def pause(seconds: float) -> None:
        time.sleep(seconds)
        if received:
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: received.append(number))
    return pause


def _watch(nodes: Sequence[LocalNode], pause: Callable[[float], None], forget: Callable[[str], None]) -> None:
    """Return when every node has ended; say so at each one's end, and *forget* the password of its URL. *pause* sleeps
    for some seconds."""
    running = list(nodes)
    while running:
        pause(_WATCH_SECONDS)
        for node in [node for node in running if node.exited is not None]:
            print(f"{node.name} has ended (status {node.exited}), see {node.log}", file=sys.stderr, flush=True)
            forget(node.url)
            running.remove(node)


async def _examined(
    where: Sequence[NodeAddress],
    here: WorkerCommand | ConfigError | None,
    survey: Survey,
    job: JobTemplate | None,
    code: str,
    deadline: float,
    timeout: float,
) -> list[Finding]:
    """*here*: what workers on this machine run, ``None`` where they are not meant; *code*: the digest of that here.
    *deadline* is that of one call to a node, *timeout* that of the probe's receipt; both in seconds."""
    from twisted.internet import reactor

    from scrapy_distributed.commands.doctor_local import examine_here
    from scrapy_distributed.commands.probe import Probe, examine
    from scrapy_distributed.fleet.node import open_nodes
    from scrapy_distributed.together import together

    loop: Any = reactor
    probe = Probe(job=job, timeout=timeout, clock=loop, code=code) if job else None
    if probe:  # Ctrl-C must not leave a job behind
        loop.addSystemEventTrigger("before", "shutdown", probe.stop)
    async with open_nodes(where, deadline_seconds=deadline) as nodes:
        parts = [examine(nodes, survey, probe)]
        if here is not None:
            parts.insert(0, examine_here(here, survey, probe))
        return [finding for found in await together(parts) for finding in found]

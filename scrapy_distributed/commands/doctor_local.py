"""``scrapy fleet doctor``: workers on this machine. They need no Scrapyd, so nothing of one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from scrapy_distributed.agent.agent import Agent
from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.commands.doctor import Subject
from scrapy_distributed.commands.probe import Probe
from scrapy_distributed.config.config import Config
from scrapy_distributed.coordinator.local_command import local_command
from scrapy_distributed.coordinator.nodes import check_nodes
from scrapy_distributed.dispatch.local_carrier import LocalCarrier
from scrapy_distributed.errors import ConfigError, NodeError
from scrapy_distributed.fleet.local_slots import LOCAL
from scrapy_distributed.fleet.node import NodeAddress
from scrapy_distributed.fleet.preflight import Finding, Survey, Verdict

WorkerCommand = Sequence[str]  # what follows ``scrapy``


def worker_command(subject: Subject, config: Config, scrapyds: Sequence[NodeAddress]) -> WorkerCommand | ConfigError:
    """What of ``scrapy`` runs the spider in a process of its own on this machine, or why nothing does."""
    try:
        if subject.kind is None:
            raise ConfigError(f"spider {subject.name!r}: found none of that name here, see above")
        command = local_command(subject.kind)
        check_nodes(config, scrapyds, command)
        return command
    except ConfigError as error:
        return error


async def examine_here(command: WorkerCommand | ConfigError, survey: Survey, probe: Probe | None) -> list[Finding]:
    """Whether this *command* can be run, and what comes of a job with it; without *probe* none is started."""
    if isinstance(command, ConfigError):
        found = [Finding(node=LOCAL, check="command", verdict=Verdict.FAIL, words=str(command), error=command)]
        skipped = Finding(node=LOCAL, check="probe", verdict=Verdict.SKIPPED, words="not checked (no such command)")
        return [*found, skipped] if probe else found
    found = [Finding(node=LOCAL, check="command", verdict=Verdict.OK, words=f"scrapy {' '.join(command)}")]
    return [*found, await _probed(command, survey, probe)] if probe else found


async def _probed(command: WorkerCommand, survey: Survey, probe: Probe) -> Finding:
    """In a folder of its own, which is kept where a log in it may tell what is wrong."""
    with probe.at_work():
        files = JobFiles(Path(mkdtemp(prefix="scrapy-doctor-")))
        agent = Agent(files, slots=1, reactor=probe.clock)
        carrier = LocalCarrier(agent, command=command, ledger=files.folder, clock=probe.clock)
        logs = []
        try:
            agent.open()
            verdict, words = await probe.ask(carrier, survey)
        except (NodeError, OSError) as error:
            verdict, words = Verdict.FAIL, str(error).removeprefix(f"{LOCAL}: ")
            logs = sorted(files.log("any").parent.glob("*.log"))
        finally:
            await carrier.close()
        if not logs:
            rmtree(files.folder)
    return Finding(node=LOCAL, check="probe", verdict=verdict, words="; its log: ".join([words, *map(str, logs)]))

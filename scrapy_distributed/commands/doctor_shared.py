"""``scrapy fleet doctor`` for shared runs: the server where they live, and the workers that have joined."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from scrapy.utils.project import get_project_settings

from scrapy_distributed.commands.doctor import Subject
from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import settings_of_workers
from scrapy_distributed.errors import ConfigError, LedgerError, LedgerUnavailableError
from scrapy_distributed.fleet.preflight import Finding, Verdict
from scrapy_distributed.shared.account import Account, streams
from scrapy_distributed.shared.address import PASSWORD, RedisAddress
from scrapy_distributed.shared.checks import findings
from scrapy_distributed.shared.claims import AWAY_SECONDS
from scrapy_distributed.shared.code_version import version_here
from scrapy_distributed.shared.intake import WorkerRow
from scrapy_distributed.shared.refusal import refusal
from scrapy_distributed.shared.server import Server
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.words import counted, listed

PINGS = 20
SLOW_MS = 50.0  # for one answer
CODE_SHOWN = 8  # characters of a version: enough to tell one from another
OPEN = (
    "none needed: anybody gets in who reaches it, and can read and change runs; set requirepass, or users, on the"
    f" server, and {PASSWORD} here and for each worker"
)


class Examined(NamedTuple):
    """What was found, and how many *slots* the workers have that can take jobs."""

    findings: list[Finding]
    slots: int


def examined_there(address: RedisAddress, project: str, patient: Subject, job: JobTemplate | ConfigError) -> Examined:
    """What is found at *address* for jobs of the spider *patient* of *project*. Raises ``ConfigError``."""
    found, slots = asyncio.run(_examine(address, project, patient.name, version_here(patient.settings)))
    if not isinstance(job, ConfigError):
        own = settings_of_workers(get_project_settings())
        why = refusal(job.settings, own, Config.from_settings(own).worker_settings)
        words = f"workers refuse these jobs: {why}" if why else "workers take those of these jobs"
        found.append(_finding(address, "settings", Verdict.FAIL if why else Verdict.OK, words))
    return Examined(found, slots)


async def _examine(address: RedisAddress, project: str, spider: str, version: str) -> Examined:
    server = Server(address)
    try:
        milliseconds = await _answer_ms(server)
        about = await server.about()
        workers = (await Account(server, project, "").state()).workers
        kept = await streams(server, project)
    except (LedgerError, LedgerUnavailableError) as error:
        return Examined([_finding(address, "answers", Verdict.FAIL, str(error))], 0)
    finally:
        await server.close()
    there = [one for one in workers if one.seen <= AWAY_SECONDS]
    fit = [one for one in there if not _misfit(one, spider, version)]
    found = [
        *_of_server(address, milliseconds, *about),
        *_of_streams(address, kept),
        _of_workers(address, there, fit, spider),
    ]
    found += [
        Finding(node=one.worker, check="worker", verdict=Verdict.WARN, words=trouble)
        for one in there if (trouble := _misfit(one, spider, version) or one.state)
    ]  # fmt: skip
    return Examined(found, sum(one.slots for one in fit))


def _finding(address: RedisAddress, check: str, verdict: Verdict, words: str) -> Finding:
    return Finding(node=str(address), check=check, verdict=verdict, words=words)


async def _answer_ms(server: Server) -> float:
    """How long it takes: of several answers the one in the middle."""
    times = []
    for _ in range(PINGS):
        began = time.monotonic()
        await server.command("PING")
        times.append(1000 * (time.monotonic() - began))
    return median(times)


def _of_server(
    address: RedisAddress, milliseconds: float, info: Mapping[str, str], config: Mapping[str, str]
) -> Iterator[Finding]:
    name, number = ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info["redis_version"])
    if milliseconds > SLOW_MS:
        words = (
            f"found {milliseconds:.0f} ms for an answer, expected less than {SLOW_MS:.0f}: a batch takes several of"
            " them; put the server nearer to its workers, or set a larger DISTRIBUTED_BATCH_SIZE"
        )
        yield _finding(address, "answers", Verdict.WARN, words)
    else:
        yield _finding(address, "answers", Verdict.OK, f"{name} {number}, in {milliseconds:.1f} ms")
    if not address.path and not address.password:
        yield _finding(address, "credentials", Verdict.RISK, OPEN)
    found = findings(info, config)
    for one in found:
        yield _finding(address, "server", Verdict.FAIL if one.refused else Verdict.WARN, one.text)
    if not found:
        used = int(info.get("used_memory", 0)) / 1024 / 1024
        words = f"keeps what it has, in memory and in an append-only file, {used:,.0f} MB of memory in use"
        yield _finding(address, "server", Verdict.OK, words)


def _of_streams(address: RedisAddress, kept: Mapping[str, int]) -> Iterator[Finding]:
    """*kept*: streams that have entries, and how many."""
    if kept:
        words = (
            f"{counted(sum(kept.values()), 'entry', 'entries')} in {counted(len(kept), 'stream')} with results, which"
            f" take memory until their readers trim them, or scrapy batches forget RUN: {listed(kept)}"
        )
        yield _finding(address, "streams", Verdict.OK, words)


def _of_workers(address: RedisAddress, there: Sequence[WorkerRow], fit: Sequence[WorkerRow], spider: str) -> Finding:
    """*fit*: those of them that can take jobs of *spider*."""
    if not there:
        words = f"none has joined; on any machine, in the folder of this project: scrapy worker {address}"
        return _finding(address, "workers", Verdict.WARN, words)
    slots, hosts = counted(sum(one.slots for one in fit), "slot"), listed({one.host for one in fit})
    words = f"{counted(len(fit), 'worker')} with {slots} can take jobs of {spider}{f': {hosts}' if fit else ''}"
    return _finding(address, "workers", Verdict.OK if fit else Verdict.WARN, words)


def _misfit(worker: WorkerRow, spider: str, version: str) -> str:
    """What keeps it from jobs of *spider*, and what to do; '' if nothing does."""
    if worker.version != version:
        return (
            f"found code {worker.version[:CODE_SHOWN]}, expected {version[:CODE_SHOWN]} as here: bring the same code of"
            f" the project to {worker.host}, and the same versions of Scrapy and scrapy_distributed, and start the"
            " worker again"
        )
    if spider not in worker.spiders:
        return f"found the spiders {listed(worker.spiders)}, expected {spider}: start it with --spiders that fit it"
    return ""

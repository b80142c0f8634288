"""The jobs of runs on a Scrapyd, ended whoever looks after them, if anybody does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from twisted.internet.task import deferLater

from scrapy_distributed.errors import NodeError
from scrapy_distributed.fleet.node import Node
from scrapy_distributed.wire.job import Job

LOOK_SECONDS = 0.5
KILL_SECONDS = 5.0  # after INT: somebody wants it to be over now
OWNER_SECONDS = 10.0  # the crawl that has sent a job ends it itself; after that it is ended here
DEADLINE_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """*ended*: so many jobs were there, and are not any more. *left*: those that still are. *problem*: why nobody knows
    that."""

    node: str
    ended: int = 0
    left: tuple[str, ...] = ()
    problem: str = ""


async def cancel(node: Node, project: str, runs: Collection[str], *, owned: Collection[str], clock: Any) -> Cancelled:
    """End all jobs of *runs* of *project* on *node*, and return when none is left there: those that wait are removed,
    those that run get INT, to report what they have done, and then KILL. *owned*: runs that a crawl looks after. Raises
    nothing for a node that fails."""
    began, seen = clock.seconds(), set()
    told: dict[str, float] = {}  # job -> when it got INT
    while True:
        try:
            jobs = await node.listjobs(project)
            ours = [job for job in (*jobs.pending, *jobs.running) if run_of(job) in runs]
            seen |= {job.id for job in ours}
            now = clock.seconds()
            if not ours or now - began > DEADLINE_SECONDS:
                left = tuple(sorted(job.id for job in ours))
                return Cancelled(node=node.name, ended=len(seen) - len(left), left=left)
            for job in ours:
                if run_of(job) not in owned or now - began > OWNER_SECONDS:
                    await _end(node, project, job, told, now)
        except NodeError as error:
            return Cancelled(node=node.name, problem=str(error).removeprefix(f"{node.name}: "))
        await deferLater(clock, LOOK_SECONDS)


def run_of(job: Job) -> str:
    """The name of its run, by its id; '' for one that no crawl of ours has sent."""
    return job.id.rsplit("-", 3)[0] if job.id.count("-") >= 3 else ""


async def _end(node: Node, project: str, job: Job, told: dict[str, float], now: float) -> None:
    if job.id not in told:
        told[job.id] = now
        await node.cancel(project, job.id)
    elif now - told[job.id] >= KILL_SECONDS:
        await node.cancel(project, job.id, "KILL")

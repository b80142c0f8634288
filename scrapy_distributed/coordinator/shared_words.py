"""What the coordinator of a shared run says of workers that join it, and at its end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from scrapy.settings import BaseSettings

from scrapy_distributed.config.config import PREFIX
from scrapy_distributed.config.told import Line
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.shared.intake import State, WorkerRow
from scrapy_distributed.words import counted, listed

logger = logging.getLogger(__name__)

TELL_SECONDS = 60.0
#: A coordinator that sends batches to nodes asks for these.
NOT_ASKED = ("BATCH_SIZE", "BATCH_MAX_AGE", "NODE_BACKLOG", "POLL_INTERVAL", "TIMEOUT", "MAX_JOB_SECONDS")
SHOWN = 8  # characters of a version: enough to tell one from another


def not_asked(settings: BaseSettings) -> Iterator[Line]:
    """Of settings that somebody has set, and that a shared run does without."""
    names = [f"{PREFIX}{name}" for name in NOT_ASKED if settings.getpriority(f"{PREFIX}{name}") is not None]
    if names:
        words = f"not asked are {', '.join(names)}: workers take as much at once as they do in half a minute"
        yield Line(subject="shared run", words=words)


class WhoHasJoined:
    """Tells which workers have joined for jobs of *spider* whose code has that *version*: at once, and once a minute as
    long as there is none."""

    def __init__(self, address: RedisAddress, *, spider: str, version: str, extra: dict[str, Any]) -> None:
        self.address = address
        self.spider = spider
        self.version = version
        self._extra = extra
        self._told: tuple[int, int, int] | None = None
        self._told_at = 0.0

    def look(self, state: State) -> None:
        """*state*: of the run. Of one that is over nobody has to be waited for."""
        fit = [worker for worker in state.workers if not self._unfit(worker)]
        unfit = [worker for worker in state.workers if self._unfit(worker)]
        now = (len(fit), sum(worker.slots for worker in fit), len(unfit))
        waits = not fit and state.time - self._told_at >= TELL_SECONDS
        if now == self._told and not waits:
            return
        if unfit and (self._told is None or self._told[2] != now[2] or waits):
            logger.warning("%s", self._words_of(unfit), extra=self._extra)
        if fit and (self._told is None or self._told[:2] != now[:2]):
            logger.info("%s joined: %s", _workers(fit, "have", "has"), listed({worker.host for worker in fit}),
                        extra=self._extra)  # fmt: skip
        elif not fit and state.ended is None:
            logger.warning(
                "No worker has joined%s: nothing is crawled but what is crawled here. On any machine, in the folder of"
                " this project: scrapy worker %s", " that can take jobs of this run" if unfit else " yet", self.address,
                extra=self._extra,
            )  # fmt: skip
        self._told, self._told_at = now, state.time

    def _unfit(self, worker: WorkerRow) -> bool:
        return worker.version != self.version or self.spider not in worker.spiders

    def _words_of(self, unfit: Sequence[WorkerRow]) -> str:
        others = [worker for worker in unfit if worker.version != self.version]
        if not others:
            return f"{_workers(unfit, 'do', 'does')} not have the spider {self.spider}: {_hosts(unfit)}"
        codes = listed({_short(worker.version) for worker in others})
        return (
            f"Waiting: {_workers(others, 'have', 'has')} code {codes}, the run {_short(self.version)}:"
            f" {_hosts(others)}. Bring the same code of the project there, and the same versions of Scrapy and"
            " scrapy_distributed, and start the worker again"
        )


def tell_end(run: str, state: State, reason: str, *, over: bool, stored: bool, extra: dict[str, Any]) -> None:
    """What is to be done now, if anything."""
    balance = state.balance
    if not stored:
        logger.error(
            "Run %s is not finished: a feed lacks items that have come home, the lines above tell why, and what to do."
            " All others are kept; then the same command writes the feeds again, and crawls only what is not settled",
            run, extra=extra,
        )  # fmt: skip
    elif over and state.stopped is not None:
        logger.info("Run %s is over, it was stopped (%s): %s not crawled. The same command begins a new one", run,
                    state.stopped, counted(balance.not_crawled, "request"), extra=extra)  # fmt: skip
    elif not over:
        logger.warning(
            "Run %s is not finished (%s): %s queued, %d in flight; %s. Workers go on with it; the same command takes it"
            " up again, and writes the result", run, reason, counted(balance.queued, "request"), balance.in_flight,
            "nothing is lost" if balance.holds else "THE BALANCE DOES NOT HOLD", extra=extra,
        )  # fmt: skip


def _short(version: str) -> str:
    return version[:SHOWN]


def _hosts(workers: Sequence[WorkerRow]) -> str:
    return listed({worker.host for worker in workers})


def _workers(workers: Sequence[WorkerRow], many: str, one: str) -> str:
    slots = counted(sum(worker.slots for worker in workers), "slot")
    return f"{counted(len(workers), 'worker')} ({slots}) {one if len(workers) == 1 else many}"

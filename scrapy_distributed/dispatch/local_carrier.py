"""Workers on this machine as carrier: no Scrapyd, no deploy, no port, the project as it lies here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from signal import Signals
from typing import Any, BinaryIO

from twisted.internet.task import deferLater

from scrapy_distributed.agent.agent import Agent
from scrapy_distributed.dispatch.carrier import LOG_BYTES
from scrapy_distributed.dispatch.flight import Signal
from scrapy_distributed.dispatch.sources import Sources
from scrapy_distributed.dispatch.tracebacks import Tracebacks
from scrapy_distributed.errors import NodeItemsError, NodeRefusedError
from scrapy_distributed.fleet.local_slots import LOCAL
from scrapy_distributed.fleet.node import DaemonStatus
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.wire.receipt import MAX_BYTES

CHUNK = 1024 * 1024  # bytes that are read in one turn of the event loop


class LocalCarrier:
    """The jobs of *agent*; *command*: what of ``scrapy`` runs the spider, and which one; *private*: options that jobs
    get which nobody sees; *ledger*: that of the run."""

    name = url = LOCAL
    ends_with_us = True

    def __init__(
        self, agent: Agent, *, command: Sequence[str], private: Sequence[str] = (), ledger: Path, clock: Any
    ) -> None:
        self.agent = agent
        self.command = command
        self.private = private
        self.clock = clock
        agent.starts = Sources().tell
        self.tracebacks = Tracebacks(ledger)

    def listen(self, news: Callable[[], None]) -> None:
        self.agent.news = news

    def remembers(self, attempt: Attempt) -> bool:
        try:
            return self.agent.files.receipt(attempt.job).exists() or self.agent.files.is_held(attempt.job)
        except OSError:  # its lease will tell
            return True

    async def admit(self, version: str) -> None:
        """Nothing is missing here."""

    async def look(self) -> DaemonStatus:
        agent = self.agent
        return DaemonStatus(
            pending=agent.pending, running=agent.running, finished=agent.finished, node_name=LOCAL,
            slots=agent.slots, poll_seconds=0,
        )  # fmt: skip

    async def send(self, attempt: Attempt, payload: str, job: JobTemplate) -> None:
        settings, args = job.settings_of(payload, attempt.token), job.args_of(attempt.label)
        options = [*_options("-s", settings), *_options("-a", args), *self.private]
        self.agent.submit(attempt.job, [*self.command, *options])

    async def state(self, attempt: Attempt) -> str | None:
        try:
            return self.agent.state(attempt.job)
        except OSError as error:
            raise NodeRefusedError(LOCAL, f"whether job {attempt.job} runs can't be seen: {error}") from None

    async def receipt(self, attempt: Attempt) -> bytes | None:
        try:
            with self.agent.files.receipt(attempt.job).open("rb") as file:
                return file.read(MAX_BYTES + 1)  # one that is longer is refused by who reads it
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NodeRefusedError(LOCAL, f"the receipt of job {attempt.job} can't be read: {error}") from None

    async def items(self, attempt: Attempt, file: BinaryIO, *, size: int, digest: str) -> None:
        try:
            source = self.agent.files.items(attempt.job).open("rb")
        except FileNotFoundError:
            raise NodeItemsError(LOCAL, f"the items of job {attempt.job} are gone") from None
        except OSError as error:
            raise NodeRefusedError(LOCAL, f"the items of job {attempt.job} can't be read: {error}") from None
        found, left = hashlib.sha256(), size
        with source:
            while data := source.read(min(CHUNK, left + 1)):
                found.update(data)
                left -= len(data)
                file.write(data)
                if left < 0:
                    break
                await deferLater(self.clock, 0)
        if left or found.hexdigest() != digest:
            raise NodeItemsError(LOCAL, f"the items of job {attempt.job} are not those that its receipt tells of")

    async def log_end(self, attempt: Attempt) -> str | None:
        try:
            with self.agent.files.log(attempt.job).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES))
                return log.read().decode("utf-8", "replace")
        except OSError:
            return None

    async def cancel(self, attempt: Attempt, signal: Signal) -> str | None:
        return self.agent.end(attempt.job, Signals[f"SIG{signal.value}"])

    def done(self, attempt: Attempt) -> None:
        self.tracebacks.tell(self.agent.files.log(attempt.job), attempt.label)
        self.agent.files.over(attempt.job)

    def forget(self, runs: Iterable[str]) -> None:
        self.agent.files.forget(runs)

    async def close(self) -> None:
        await self.agent.close()


def _options(option: str, values: dict[str, str]) -> list[str]:
    return [part for name, value in values.items() for part in (option, f"{name}={value}")]

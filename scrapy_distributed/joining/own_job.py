"""The job of one batch on this machine: started by the agent, known by its receipt, its log and its items."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from signal import Signals

from scrapy_distributed.agent.agent import Agent
from scrapy_distributed.errors import WireError
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.wire.receipt import MAX_BYTES, ItemsFile, Receipt

logger = logging.getLogger(__name__)

LOG_BYTES = 100_000  # of the end of a log that are read
LOG_LINES = 200  # that are kept of it
PART_BYTES = 1024 * 1024  # of items, in whole lines


class OwnJob:
    """That of *attempt* by *agent*."""

    def __init__(self, agent: Agent, attempt: Attempt) -> None:
        self.agent = agent
        self.attempt = attempt
        self.id = attempt.job
        self._read: tuple[int, int] | None = None  # which file the last receipt was
        self.unreadable = ""  # why the newest receipt makes no sense

    def start(self, template: JobTemplate, payload: str, address: RedisAddress) -> None:
        """No request of it may reach the Redis at *address*: who can ask that for something can have anything asked."""
        settings, args = template.settings_of(payload, self.attempt.token), template.args_of(self.attempt.label)
        settings["DISTRIBUTED_FOUND_KEYS"] = "1"
        if address.host:
            place = f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
            settings["DISTRIBUTED_NODES"] = ",".join(filter(None, (settings.get("DISTRIBUTED_NODES"), place)))
        options = [*_options("-s", settings), *_options("-a", args)]
        self.agent.submit(self.id, ["crawl", template.spider, *options])

    @property
    def lives(self) -> bool:
        """Whether it waits for a slot, or runs."""
        return self.agent.state(self.id) in ("pending", "running")

    def end(self, signal: Signals) -> None:
        self.agent.end(self.id, signal)

    def receipt(self) -> Receipt | None:
        """If there is one that was not read before, and it makes sense."""
        try:
            with self.agent.files.receipt(self.id).open("rb") as file:
                found = os.fstat(file.fileno())
                if self._read == (found.st_ino, found.st_mtime_ns):
                    return None
                data = file.read(MAX_BYTES + 1)
        except OSError:
            return None
        self._read = found.st_ino, found.st_mtime_ns
        try:
            receipt = Receipt.from_json(data, size=self.attempt.size)
            if receipt.job != self.id:
                raise WireError(f"it is of job {receipt.job!r}")
        except WireError as error:
            self.unreadable = str(error)
            return None
        self.unreadable = ""
        return receipt

    def items(self, file: ItemsFile) -> Iterator[bytes]:
        """The lines of its items, in parts of whole ones. Raises ``WireError`` where they are not what its receipt
        tells of *file*; parts may have come before."""
        digest, rest = hashlib.sha256(), b""
        try:
            with self.agent.files.items(self.id).open("rb") as source:
                while data := source.read(PART_BYTES):
                    digest.update(data)
                    whole, line_end, open_line = (rest + data).rpartition(b"\n")
                    if line_end:
                        yield whole + line_end
                    rest = open_line
        except OSError as error:
            raise WireError(f"its items can't be read: {error}") from None
        if rest or digest.hexdigest() != file.digest:
            raise WireError("its items are not those that its receipt tells of")

    def log_end(self) -> str | None:
        """``None`` if it has no log."""
        try:
            with self.agent.files.log(self.id).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES))
                return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-LOG_LINES:])
        except OSError:
            return None

    def over(self) -> None:
        """Nobody asks for it any more; its log is kept for a while."""
        self.agent.files.over(self.id)


def _options(option: str, values: dict[str, str]) -> list[str]:
    return [part for name, value in values.items() for part in (option, f"{name}={value}")]

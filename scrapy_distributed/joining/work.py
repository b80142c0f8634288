"""What ``scrapy worker`` does, put together: the server, the agent that starts its jobs, and what joins the two."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scrapy_distributed.agent.agent import Agent
from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.joining.bench import Bench
from scrapy_distributed.joining.claiming import Joining
from scrapy_distributed.joining.health import Health
from scrapy_distributed.joining.one_batch import Tools
from scrapy_distributed.joining.own_folder import OwnFolder
from scrapy_distributed.joining.reach import Reach
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.shared.claims import Claims, Joined
from scrapy_distributed.shared.pace import Pace
from scrapy_distributed.shared.server import Server
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.words import counted, listed

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 1.0
PARENT_SECONDS = 1.0  # between two looks whether it is still there


@dataclass(frozen=True, kw_only=True)
class Work:
    """A worker for *project* at *address*, with so many *slots*, for the *spiders* of that name. *version* tells that
    of the code on disk; *refusal*: as of ``Joining``. *logs*: in which folder its files are; *health*: how it shows
    that it lives, ``None``: it does not. It has *leave_seconds* to leave, also when the
    process *parent* is gone, if there is one."""

    address: RedisAddress
    project: str
    slots: int
    spiders: tuple[str, ...]
    version: Callable[[], str]
    refusal: Callable[[JobTemplate], str]
    logs: Path
    health: Health | None
    leave_seconds: float
    parent: int | None

    async def do(self, reactor: Any) -> int:
        """Until it is told to end; returns the exit code. Raises ``ConfigError``, ``LedgerError`` and ``OSError`` where
        it can't begin."""
        async with AsyncExitStack() as stack:
            if self.health is not None:
                await stack.enter_async_context(self.health.shown())
            folder = OwnFolder(self.logs)
            stack.callback(folder.close)
            reach = Reach()
            server = await reach.insist(lambda: Server.connect(self.address))
            stack.push_async_callback(_close, server)
            agent = Agent(JobFiles(folder.path), slots=self.slots, reactor=reactor)
            agent.open()
            agent.files.clear()
            claims = Claims(server, self.project, self._joined())
            joining = Joining(
                Tools(claims, agent, reach, Pace(), Bench()), version=self.version, refusal=self.refusal,
                wait=lambda event, seconds: server.wait(claims.keys, event, seconds), leave_seconds=self.leave_seconds,
            )  # fmt: skip
            if self.parent is not None:
                stack.callback(asyncio.ensure_future(_leave_after(self.parent, joining.leave)).cancel)
            logger.info(
                "Worker %s has joined project %s at %s: %s at once, code %s, spiders %s; logs of jobs are in %s",
                claims.joined.worker, self.project, self.address, counted(self.slots, "job"), claims.joined.version,
                listed(self.spiders), agent.files.log("any").parent,
            )  # fmt: skip
            with _told_to_end(lambda: reactor.callFromThread(joining.leave)):
                return await joining.run()

    def _joined(self) -> Joined:
        host = socket.gethostname()
        return Joined(
            worker=f"{host}-{os.getpid()}-{secrets.token_hex(3)}", host=host, pid=os.getpid(), slots=self.slots,
            version=self.version(), spiders=self.spiders,
        )  # fmt: skip


async def _leave_after(parent: int, leave: Callable[[], object]) -> None:
    """*leave* is called once the process *parent*, which has started this one, is gone: killed, it tells nobody."""
    while os.getppid() == parent:
        await asyncio.sleep(PARENT_SECONDS)
    leave()


async def _close(server: Server) -> None:
    """Nobody waits long for one that does not answer."""
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(server.close(), CLOSE_SECONDS)


@contextmanager
def _told_to_end(leave: Callable[[], object]) -> Iterator[None]:
    """*leave* is called at each signal that tells this process to end."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: leave()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

"""How a coordinator comes to a shared run: the server answers, and the walk and the result are its own."""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from typing import Any

from scrapy_distributed.coordinator.closing import FINISHED
from scrapy_distributed.coordinator.home_book import HomeBook
from scrapy_distributed.coordinator.shared_ending import SharedEnding
from scrapy_distributed.coordinator.shared_run import LOOK_SECONDS, SharedRun
from scrapy_distributed.errors import ConfigError, LedgerHeldError, LedgerUnavailableError
from scrapy_distributed.ledger.spooled import spool_name
from scrapy_distributed.shared.account import Account
from scrapy_distributed.shared.checks import findings
from scrapy_distributed.shared.server import Server
from scrapy_distributed.words import counted

logger = logging.getLogger(__name__)


class Entrance:
    """To runs on *server*, for a coordinator whose items come home as *book* says, and whose crawl closes by
    *ending*."""

    def __init__(self, server: Server, book: HomeBook, *, ending: SharedEnding, extra: dict[str, Any]) -> None:
        self.server = server
        self.book = book
        self.ending = ending
        self._extra = extra

    async def reach(self, seconds: float) -> None:
        """Wait until the server answers. Raises ``LedgerUnavailableError`` where it does not for so many *seconds*."""
        clock = self.ending.clock
        deadline = clock.seconds() + seconds
        told = False
        while not self.ending.closing:
            try:
                await self.server.command("PING")
                return
            except LedgerUnavailableError as error:
                if clock.seconds() > deadline:
                    raise
                if not told:
                    told = True
                    logger.warning("%s. It is asked again for %d s (DISTRIBUTED_FLEET_TIMEOUT)", error, seconds,
                                   extra=self._extra)  # fmt: skip
            await asyncio.sleep(LOOK_SECONDS)

    async def check(self) -> None:
        """Raises ``ConfigError`` for a server that would lose what is given to it; tells what else is not as it should
        be."""
        for finding in findings(*await self.server.about()):
            if finding.refused:
                raise ConfigError(f"Redis at {self.server.address}: {finding.text}")
            logger.warning("Redis at %s: %s", self.server.address, finding.text, extra=self._extra)

    def check_folder(self, *, new: bool) -> None:
        """Raises ``LedgerHeldError`` where another coordinator uses the folder, and this one has a *new* run: that is
        not the other one's."""
        if new and not self.book.place.hold():
            raise LedgerHeldError(
                f"{self.book.beside}: another coordinator uses it: let that one end, or name another file with"
                " DISTRIBUTED_LEDGER"
            )

    async def owns(self, run: SharedRun, identity: dict[str, Any], *, home: bool) -> bool:
        """Wait until the walk and the result of *run* are ours; *home*: its items come home. Returns whether that comes
        true: not where another coordinator brings the run to its end, or this crawl closes. Raises ``ConfigError``
        where items come home to another folder."""
        told = False
        while not self.ending.closing:
            holds = self.book.place.hold()
            is_ours = holds and await run.sure(run.take)
            state = run.state = await run.sure(run.intake.state)  # what those before have told is known by then
            if state.stored:
                if is_ours:
                    await run.sure(run.leave)
                logger.info("Run %s is over, and its result is written by the other coordinator", run.intake.run,
                            extra=self._extra)  # fmt: skip
                self.ending.passive = True
                self.ending.close(FINISHED)
                return False
            if is_ours:
                if home:
                    await self._check_home(run)
                self.book.begin(run.intake.run, identity)
                await self._forget_lost(run)
                return True
            if not told:
                told = True
                await self._tell(run, state.owner.partition("@")[2] if holds else "", home=home)
            await asyncio.sleep(LOOK_SECONDS)
        return False

    async def _tell(self, run: SharedRun, host: str, *, home: bool) -> None:
        """That this coordinator waits. *host*: of the one that has the walk; '' where one uses the same folder. *home*:
        items come home."""
        if host and home and (other_home := await self._other_home(run)):
            logger.warning(
                "Run %s is crawled by another coordinator, on %s: that one walks, and items come home to %s. This one"
                " waits for its end, and can't take over if that one dies: the same command there does", run.intake.run,
                host, other_home, extra=self._extra,
            )  # fmt: skip
        elif host:
            logger.warning(
                "Run %s is crawled by another coordinator, on %s: that one walks, and writes the result. This one"
                " waits, and takes over if that one dies", run.intake.run, host, extra=self._extra,
            )  # fmt: skip
        else:
            logger.warning(
                "Run %s waits: another coordinator uses %s. If that one writes its result, this one ends as well; else"
                " it goes on with it", run.intake.run, self.book.beside, extra=self._extra,
            )  # fmt: skip

    async def _forget_lost(self, run: SharedRun) -> None:
        """Where the server has forgotten attempts that count, others bring their items once more."""
        files = self.book.files()
        if not files:
            return
        account = Account(run.intake.server, run.intake.keys.project, run.intake.run)
        known = {spool_name(one.batch, one.number, one.token) for one in await run.sure(account.accepted)}
        if lost := files.keys() - known:
            logger.warning(
                "%s of %s had come home, and Redis has forgotten that: they are crawled again",
                counted(sum(files[name].items for name in lost), "item"), counted(len(lost), "job"), extra=self._extra,
            )  # fmt: skip
            self.book.forget(lost)

    async def _check_home(self, run: SharedRun) -> None:
        here = f"{self.book.place.name()} {socket.gethostname()}:{self.book.beside}"
        await run.sure(partial(run.intake.come_home, here))
        if other := await self._other_home(run):
            await run.sure(run.leave)
            raise ConfigError(
                f"the items of run {run.intake.run} come home to {other}: expected this command there, or with"
                " -s DISTRIBUTED_RESUME=False, which begins a new run"
            )

    async def _other_home(self, run: SharedRun) -> str:
        """Machine and folder where items of *run* come home; '' if that is here, or nowhere yet."""
        place, _, named = (await run.sure(run.intake.home)).partition(" ")
        return named if place != self.book.place.name() else ""

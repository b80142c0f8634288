"""A shared run as its coordinator sees it. What Scrapy's hooks read is what a loop has seen last: they never ask the
server, which may be away."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from scrapy import Spider
from scrapy.statscollectors import StatsCollector

from scrapy_distributed.coordinator.buffer import Buffer, Part
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.shared.harvest import UNWRITTEN, Entry, Harvest, Home, Streamed
from scrapy_distributed.shared.intake import Intake, LostWalkError, Own, State

logger = logging.getLogger(__name__)
T = TypeVar("T")

LOOK_SECONDS = 1.0  # at least so often, also where nothing rings
PAUSES = (0.2, 5.0)  # seconds, the first and the longest, until the server is asked again
OWN_PAGES = "own"  # whose pages those are that the coordinator has crawled
LEASE = 30.0  # seconds: so long after the death of an owner another coordinator takes the walk


class SharedRun:
    """*state*: as of the last look. *owned*: the walk and the result are ours. *superseded*: they were, and another
    coordinator has taken them.

    *buffer* is added as it fills. *walk_is_done* tells whether nothing more is to come, *own_is_safe* keeps what was
    scraped here, and tells whether it is kept: only then the server is told that the walk is done. *changed* is called
    after each look, *failed* if a loop ends that should not."""

    def __init__(
        self, intake: Intake, harvest: Harvest, *, buffer: Buffer, spider: Spider, stats: StatsCollector,
        walk_is_done: Callable[[], bool], own_is_safe: Callable[[], bool], changed: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        self.intake = intake
        self.harvest = harvest
        self.buffer = buffer
        self.stats = stats
        self.walk_is_done = walk_is_done
        self.own_is_safe = own_is_safe
        self.changed = changed
        self.failed = failed
        self.state: State | None = None
        self.owned = self.superseded = False
        self.walked = False  # what the server was told of the walk
        self._walks_on = False  # since then
        self._adds = self._taken = self._streamed = 0  # what the server has told to be there
        self._forgot_told = False  # the server knows how much of the stream it has forgotten
        self._changes = self._seen_changes = 0
        self._filled, self._due, self._news = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._is_away = False
        self.own = OwnKept(self)
        self._loops: list[asyncio.Task[None]] = []
        self.spider = spider
        self._extra = {"spider": spider}

    # The walk

    async def take(self) -> bool:
        """Take the walk, if it is free, or keep it."""
        self.owned = (await self.intake.walk(LEASE)).is_ours
        return self.owned

    async def leave(self) -> None:
        """Give the walk up."""
        await self.intake.leave_walk()
        self.owned = False

    def start(self, *loops: Coroutine[Any, Any, None]) -> None:
        """The walk is ours: add what it finds, keep it, look on; and what else is to go on."""
        if self.state is not None:
            self._adds, self._taken, self._streamed = self.state.adds, self.state.taken, self.state.streamed
        for loop in (self._add(), self._keep(), self._look(), self._save(), *loops):
            task = asyncio.ensure_future(loop)
            task.add_done_callback(self._loop_ended)
            self._loops.append(task)

    async def stop(self) -> None:
        """Nothing more is added or looked at."""
        loops, self._loops = self._loops, []
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)

    def filled(self) -> None:
        """Something is in the buffer, or the walk is done."""
        self._filled.set()

    def walks_on(self) -> None:
        """The walk is not done, after all. When it is, what was scraped meanwhile is to be kept as well, also where the
        server has not heard of it before."""
        self._walks_on = True
        self._filled.set()

    def look_again(self) -> None:
        """The run is other than it was at the last look."""
        self._changes += 1
        self._due.set()

    def has_taken(self) -> None:
        """Another attempt was taken home."""
        self._taken += 1

    async def publish(self, home: Home, before: int, entries: Sequence[Entry]) -> Streamed:
        """As ``Harvest.publish``. Raises ``LedgerError`` where the server has forgotten some of those *before*."""
        streamed = await self.sure(partial(self.harvest.publish, home, self.spider.name, before, entries))
        if streamed.place != before + len(entries):
            await self.sure(self.look)
            raise self.intake.forgetful()
        self._streamed += len(entries) - entries.count(UNWRITTEN)
        return streamed

    async def news(self) -> None:
        """Until there was another look."""
        self._news.clear()
        await self._news.wait()

    # What hooks ask

    @property
    def goes_on_untold(self) -> bool:
        """Whether the walk goes on, and the server was last told that it is done."""
        return self.walked and not self.walk_is_done()

    @property
    def all_added(self) -> bool:
        return not self.buffer.size

    @property
    def settled(self) -> bool:
        """Whether nothing of the run waits or is under way, as far as can be known here."""
        state = self.state
        if state is None or not self.all_added or self._seen_changes < self._changes:
            return False
        return state.ended is not None or (state.balance.queued == state.balance.in_flight == state.moving == 0)

    # Loops

    async def _add(self) -> None:
        while True:
            part, done = self.buffer.first(), self.walk_is_done()
            if part is not None:
                await self.sure(partial(self._add_part, part))
            elif (done != self.walked or self._walks_on) and (not done or self.own_is_safe()):
                self._walks_on = False
                await self.sure(self._say_how_far)
                self.look_again()
            else:
                self._filled.clear()
                await _either(self._filled.wait(), seconds=LOOK_SECONDS)

    async def _add_part(self, part: Part) -> None:
        """Once it is added it leaves at once: what fails is tried again as a whole."""
        if part.items:
            await self.own.stage(part.items)
            self._adds += 1
        elif part.pages:
            await self.harvest.enter_pages(self.own.source, part.pages)
        else:
            new = len(await self.intake.add(part.entries, part.sessions.values()))
            self._adds += 1
            self.stats.inc_value("distributed/diverted", new)
            if new < len(part.entries):
                self.stats.inc_value("distributed/duplicates", len(part.entries) - new)
        self.look_again()  # before it leaves: until there was a look nobody may take the run for settled
        self.buffer.leave()

    async def look(self) -> State:
        """How the run stands. Raises ``LedgerError`` where the server has forgotten what it had told to be there: who
        goes on would miss requests, or have items twice."""
        adds, taken, streamed = self._adds, self._taken, self._streamed  # before it is asked: others may come meanwhile
        state = await self.intake.state()
        if streamed > state.streamed and not self._forgot_told:
            await self.intake.forgot_of_stream(state, streamed - state.streamed)
            self._forgot_told = True
        if state.adds < adds or state.taken < taken or state.streamed < streamed:
            raise self.intake.forgetful()
        return state

    async def say_walked(self, done: bool) -> None:
        """Tell the server whether the walk is done, if it has all that was found."""
        await self.look()
        await (self.intake.walked() if done else self.intake.walk_on())
        self.walked = done

    async def _say_how_far(self) -> None:
        """As of each time when the server is asked: meanwhile the walk may have gone on."""
        await self.say_walked(self.walk_is_done() and self.all_added)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 3)
            if not await self.sure(self.take):
                self._is_superseded()
                return
            await self.sure(self.intake.lose_overdue)  # also where no worker is there to do it

    async def _save(self) -> None:
        """Whoever goes on with a run that others have stopped does not walk again: what is not kept by then is lost."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(LedgerUnavailableError):  # it is tried again, and told when the walk is done
                self.own_is_safe()

    async def _look(self) -> None:
        rings: asyncio.Future[Any] | None = None
        try:
            while True:
                self._due.clear()
                changes, walked = self._changes, self.walked
                self.state = await self.sure(self.look)
                if walked and self.state.walked is None:  # it has forgotten that
                    self.walked = False
                    self.filled()
                if self.state.moving:  # also where no worker is there to do it
                    await self.sure(self.intake.move)
                self._seen_changes = changes
                self._news.set()
                self.changed()
                if rings is None or rings.done():
                    rings = asyncio.ensure_future(self.sure(partial(self.intake.wait, self.state, LOOK_SECONDS)))
                await _either(self._due.wait(), rings)
        finally:
            if rings is not None:
                rings.cancel()

    def _loop_ended(self, loop: asyncio.Task[None]) -> None:
        if not loop.cancelled() and (error := loop.exception()) is not None:
            if isinstance(error, LostWalkError):
                self._is_superseded()
            else:
                self.failed(error)

    def _is_superseded(self) -> None:
        self.owned, self.superseded = False, True
        self.changed()

    # The server

    async def sure(self, call: Callable[[], Awaitable[T]]) -> T:
        """What *call* answers, however long the server is away: that is said once. Raises ``LostWalkError``."""
        pause, longest = PAUSES
        while True:
            try:
                answer = await call()
            except LostWalkError:
                raise
            except LedgerUnavailableError as error:
                if not self._is_away:
                    self._is_away = True
                    logger.warning("%s. It is asked again until it answers, and nothing is lost meanwhile", error,
                                   extra=self._extra)  # fmt: skip
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
            else:
                if self._is_away:
                    self._is_away = False
                    logger.info("%s answers again", self.intake.server.address, extra=self._extra)
                return answer


class OwnKept:
    """What the coordinator of *run* scrapes itself, where the server keeps it until it counts. *source*: whose its
    pages are; *dropped*: items that were scraped here before, and are scraped again."""

    def __init__(self, run: SharedRun) -> None:
        self.run = run
        self.source = OWN_PAGES
        self.dropped = 0
        self._own: Own | None = None
        self._calls = 0

    @property
    def begun(self) -> bool:
        """Whether the server keeps it."""
        return self._own is not None

    async def begin(self, *, anew: bool) -> None:
        """The server keeps what is in the buffer. *anew*: with the walk."""
        run = self.run
        if anew:
            self.dropped = await run.sure(run.intake.own_items)
        self._own = await run.sure(partial(run.intake.begin_own, socket.gethostname(), anew=anew))
        self.source = self._own.source

    async def stage(self, items: Sequence[bytes]) -> None:
        """Lines of *items*. Where it fails it is to be called again with the same."""
        assert self._own is not None
        await self.run.intake.stage_own(self._own, self._calls, b"".join(items), len(items))
        self._calls += 1

    async def settle(self, *, walked: bool) -> None:
        """It counts. *walked*: as the walk is over; else the run was stopped."""
        await self.run.sure(partial(self._settle, walked=walked))
        self.run.look_again()

    async def _settle(self, *, walked: bool) -> None:
        if walked:
            await self.run.say_walked(True)
        if not await self.run.intake.settle_own():
            raise self.run.intake.forgetful()


async def _either(what: Coroutine[Any, Any, Any], *others: asyncio.Future[Any], seconds: float | None = None) -> None:
    """Until that or one of the *others* is done, but no longer than so many *seconds*."""
    task = asyncio.ensure_future(what)
    try:
        await asyncio.wait((task, *others), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()

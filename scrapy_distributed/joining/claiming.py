"""A worker that joins the shared runs of its project: it takes batches while it has free slots, and stays for the next
run.

at work, idle or benched -> draining, as the code of its project has changed -> gone
at work, idle, benched or draining -> leaving, as it was told to end -> gone
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from scrapy_distributed.errors import ConfigError, WireError
from scrapy_distributed.joining.one_batch import OneBatch, Tools
from scrapy_distributed.shared.claims import Claimed, Nothing
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.words import counted

logger = logging.getLogger(__name__)
T = TypeVar("T")

CODE_SECONDS = 5.0  # between two looks whether the code of the project is still the same
LONGEST_WAIT = 50.0  # for an event, until it claims once more: as a sign of life, and as a connection may be dead
LAST_WORD_SECONDS = 1.0  # for the answer to a claim that is under way when this worker is told to end
REFUSED_SECONDS = 300.0  # for so long a run is passed over: the command that goes on with it may give it other settings
AGAIN_SECONDS = 5.0  # after an error that nobody has foreseen
CHANGED = 75  # exit code (EX_TEMPFAIL): to be started again, with the new code


class Joining:
    """One worker with *tools*. *version* tells that of the code on disk; *refusal*: why the settings of a template are
    not taken here, '' if they are; *wait* waits for an event after the one of that id, for so many seconds at most.
    It has *leave_seconds* to leave."""

    def __init__(
        self, tools: Tools, *, version: Callable[[], str], refusal: Callable[[JobTemplate], str],
        wait: Callable[[str, float], Coroutine[Any, Any, str]], leave_seconds: float,
    ) -> None:  # fmt: skip
        self.claims, self.agent, self.reach, self.pace, self.bench = self.tools = tools
        self.version = version
        self.refusal = refusal
        self.wait = wait
        self.leave_seconds = leave_seconds
        self._batches: dict[asyncio.Future[None], OneBatch] = {}
        self._no_more = asyncio.Event()  # batches are to be claimed
        self._left = False  # it was told to end
        self._cut = asyncio.Event()  # it was told so twice
        self._code_seen = time.monotonic()
        self._refused: dict[str, float] = {}  # run -> until when nothing of it is taken
        self._told: set[tuple[str, str]] = set()  # runs that were passed over, and why

    async def run(self) -> int:
        """Returns the exit code when this worker has left."""
        self.agent.news = self._news
        code = asyncio.ensure_future(self._watch_code())
        closing = asyncio.ensure_future(self._no_more.wait())
        try:
            while not self._no_more.is_set():
                try:
                    await self._step(closing)
                except Exception:  # jobs that are at work must not end for it
                    logger.exception("Claiming a batch failed; it is tried again in %g s", AGAIN_SECONDS)
                    await asyncio.wait({closing}, timeout=AGAIN_SECONDS)
            await self._drain()
        finally:
            for task in (code, closing):
                task.cancel()
        return 0 if self._left else CHANGED

    def leave(self) -> None:
        """It is to end; told so twice, it ends at once."""
        if self._left:
            self._cut.set()
            return
        self._left = True
        self._no_more.set()
        logger.info(
            "Told to end, with %s under way: what has not begun is given back, what is done is reported, within %g s;"
            " told so once more, it ends at once", counted(len(self._batches), "job"), self.leave_seconds,
        )  # fmt: skip
        for batch in self._batches.values():
            batch.leave(kill_after=max(self.leave_seconds - 2, self.leave_seconds / 2))

    # Claiming

    async def _step(self, closing: asyncio.Future[Any]) -> None:
        """One claim, or one wait for what makes it of use."""
        slots = self.agent.slots if self.bench.well else 1
        benched = self.bench.seconds(time.monotonic())
        self.claims.joined = replace(self.claims.joined, state=self._state(benched))
        if benched:
            await self._or_leaving(self.reach.insist(self.claims.stand_aside), closing, 0.0)
        pause = min(max(benched, self.reach.grace_seconds), LONGEST_WAIT)
        if len(self._batches) >= slots or pause:
            await asyncio.wait({closing, *self._batches}, timeout=pause or None, return_when=asyncio.FIRST_COMPLETED)
            return
        await self._look_at_code(seconds=1.0)
        if self._no_more.is_set():
            return
        claim = self.reach.insist(lambda: self.claims.claim(self.pace.size_of, without=self._refused_now()))
        answer = await self._or_leaving(claim, closing, LAST_WORD_SECONDS)
        if isinstance(answer, Claimed):
            await self._take(answer)
        elif answer is not None:
            self._tell(answer)
            seconds = LONGEST_WAIT if answer.seconds is None else min(answer.seconds, LONGEST_WAIT)
            await self._or_leaving(self.reach.insist(lambda: self.wait(answer.event, seconds)), closing, 0.0)
        else:
            await self._last_word(self.claims.forgo)

    def _state(self, benched: float) -> str:
        """What it wants to be shown of itself."""
        if self.bench.well:
            return ""
        what = f"benched for {benched:.0f} s" if benched else "on trial"
        return f"{what}: its jobs came to nothing, the last one: {self.bench.why}"

    async def _or_leaving(
        self, what: Coroutine[Any, Any, T], closing: asyncio.Future[Any], seconds: float
    ) -> T | None:  # fmt: skip
        """What it returns; ``None`` where it has not so many *seconds* after nothing more is to be claimed."""
        task = asyncio.ensure_future(what)
        await asyncio.wait({task, closing}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
        task.cancel()
        return None

    async def _take(self, claimed: Claimed) -> None:
        """Start its job, unless it comes too late, or the run is refused here."""
        try:
            template = JobTemplate.from_json(claimed.template)
            if why := self.refusal(template):
                raise ConfigError(why)
        except (ConfigError, WireError) as error:
            self._refused[claimed.run] = time.monotonic() + REFUSED_SECONDS
            logger.error("Run %s (%s) is passed over by this worker: %s", claimed.run, claimed.spider, error)
            await self._give_back(claimed, f"refused: {error}")
            return
        if self._no_more.is_set():
            await self._give_back(claimed, "its worker takes nothing more")
            return
        batch = OneBatch(claimed, template, self.tools)
        task = asyncio.ensure_future(batch.run())
        self._batches[task] = batch
        task.add_done_callback(self._over)

    def _refused_now(self) -> list[str]:
        return [run for run, until in self._refused.items() if time.monotonic() < until]

    async def _give_back(self, claimed: Claimed, reason: str) -> None:
        await self._last_word(lambda: self.claims.give_back(claimed, reason))

    async def _last_word(self, call: Callable[[], Awaitable[None]]) -> None:
        with suppress(asyncio.TimeoutError):  # then a lease ends, or this worker is forgotten after a while
            await asyncio.wait_for(self.reach.insist(call), LAST_WORD_SECONDS)

    def _over(self, task: asyncio.Future[None]) -> None:
        batch = self._batches.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: its lease is left to end", batch, exc_info=error)

    def _tell(self, nothing: Nothing) -> None:
        """Which runs were passed over, each once."""
        for one in nothing.passed_over:
            if (one.run, one.why) in self._told:
                continue
            self._told.add((one.run, one.why))
            if one.why == "version":
                logger.warning(
                    "Run %s (%s) is passed over: its code is version %s, and this worker has %s. It waits for workers"
                    " that have the same", one.run, one.spider, one.version, self.claims.joined.version,
                )  # fmt: skip
            elif one.why == "spider":
                logger.info("Run %s (%s) is passed over: a spider that this worker does not take", one.run, one.spider)

    # Its code

    async def _watch_code(self) -> None:
        while True:
            await asyncio.sleep(CODE_SECONDS)
            await self._look_at_code(seconds=CODE_SECONDS / 2)

    async def _look_at_code(self, *, seconds: float) -> None:
        """If that was not done within so many *seconds*."""
        if time.monotonic() - self._code_seen < seconds:
            return
        self._code_seen = time.monotonic()
        try:
            found = await asyncio.to_thread(self.version)
        except ConfigError:  # it is being written
            found = ""
        if found != self.claims.joined.version and not self._no_more.is_set():
            logger.warning(
                "The code of this project has changed on disk (version %s, was %s): this worker takes nothing more, and"
                " ends with exit code %d when its %s over. To be started again, with the new code, is for what has"
                " started it", found or "unknown", self.claims.joined.version, CHANGED,
                "job is" if len(self._batches) == 1 else f"{len(self._batches)} jobs are",
            )  # fmt: skip
            self._no_more.set()

    # Its end

    async def _drain(self) -> None:
        """Jobs that are at work end by themselves; once this worker was told to end they have so many seconds."""
        cut: asyncio.Future[Any] = asyncio.ensure_future(self._cut.wait())
        late: float | None = None
        try:
            while self._batches and not cut.done():
                if self._left and late is None:
                    late = time.monotonic() + self.leave_seconds
                left = 1.0 if late is None else late - time.monotonic()
                if left <= 0:
                    jobs = counted(len(self._batches), "job")
                    logger.warning("%s not over in time: ended, and what they had goes out again later", jobs)
                    break
                await asyncio.wait({cut, *self._batches}, timeout=min(left, 1.0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            cut.cancel()
            await self.agent.close()
            for task in (left_over := list(self._batches)):
                task.cancel()
            if left_over:
                await asyncio.wait(left_over, timeout=LAST_WORD_SECONDS)
            await self._last_word(self.claims.leave)

    def _news(self) -> None:
        for batch in self._batches.values():
            batch.news()

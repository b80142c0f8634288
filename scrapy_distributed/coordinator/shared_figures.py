"""How far a shared run is, with what its jobs under way say of themselves: for the line a minute."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from scrapy_distributed.coordinator.progress import OFTEN, Figures
from scrapy_distributed.coordinator.shared_run import SharedRun
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.errors import LedgerError
from scrapy_distributed.shared.account import Account, Job


class SharedFigures:
    """Those of a run as soon as that is heard of, and of the coordinator's *walk*."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.run: SharedRun | None = None
        self._jobs: list[Job] = []  # under way, and what they told of themselves some seconds ago

    async def hear(self, run: SharedRun) -> None:
        """Ask what the jobs of *run* tell, again and again."""
        self.run = run
        account = Account(run.intake.server, run.intake.keys.project, run.intake.run)
        while True:
            with suppress(LedgerError):  # a worker may tell anything
                self._jobs = await run.sure(account.jobs)
            await asyncio.sleep(OFTEN)

    def now(self) -> Figures | None:
        """``None`` before the first look at the run."""
        state = self.run.state if self.run is not None else None
        if state is None:
            return None
        reported = min(state.balance.in_flight, sum(job.told("settled") for job in self._jobs))  # some may be over
        return Figures(
            state.balance, reported=reported, items=state.items + sum(job.told("items") for job in self._jobs),
            at_work=state.at_work, slots=max(state.slots, state.at_work), walked=self.walk.over, paused=state.paused,
        )  # fmt: skip

"""What an operator wishes of a run, or its coordinator of itself."""

from __future__ import annotations

from collections.abc import Sequence

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.shared.intake import PAGE, drop_seen
from scrapy_distributed.shared.keys import Keys
from scrapy_distributed.shared.server import Server

#: The keys of a run of which there is one.
WHOLE = (
    "portions", "portion", "used", "sessions", "again", "lease", "outcome", "kept", "reasons", "followed", "examples",
    "failures", "landed", "moving", "home", "own",
)  # fmt: skip
#: What a run is that is not forgotten.
WHY_NOT = {
    "unknown": "found none of that name, scrapy batches list --all-runs shows those that are there",
    "open": "it is not over: end it before (scrapy batches cancel), or forget what is left of it as well (--force)",
    "walked": "a coordinator on {} has it now: end that one before (Ctrl-C)",
}


class Control:
    """For *run*. Workers hear of it with their next sign of life."""

    def __init__(self, server: Server, project: str, run: str) -> None:
        self.server = server
        self.keys = Keys(project)
        self.run = run

    async def stop(self, reason: str) -> None:
        """Nothing more of it is claimed; jobs that run are to end, and their receipts count. It is over as soon as
        nothing is under way; what is left is *not crawled*."""
        await self.server.script("stop", self.keys, self.run, reason)

    async def pause(self) -> None:
        """Nothing of it is claimed until it is resumed; jobs that run go on."""
        await self.server.script("pause", self.keys, self.run, 1)

    async def resume(self) -> None:
        await self.server.script("pause", self.keys, self.run, 0)

    async def forget(self, *, force: bool = False) -> int:
        """All of it leaves the server; what was begun is begun again where it is interrupted. Returns how many entries
        its stream had. Raises ``LedgerError`` for a run that is not over, unless by *force*; and where a coordinator
        has its walk all the same, unless the result is stored."""
        why, owner = await self.server.script("abandon", self.keys, self.run, int(force))
        if why != b"done":
            raise LedgerError(f"run {self.run}: {WHY_NOT[why.decode()].format(owner.decode().rpartition('@')[2])}")
        await drop_seen(self.server, self.keys, self.run)
        batches = int(await self.server.command("HGET", self.keys.of(self.run), "batches") or 0)
        entries = int(await self.server.command("XLEN", self.keys.of(self.run, "items")))
        await self._drop([("items",)])
        for first in range(0, batches + 1, PAGE):
            await self._drop_batches(range(first, min(batches, first + PAGE - 1) + 1))
        await self._drop([(name,) for name in WHOLE])
        await self.server.commands([("ZREM", self.keys.runs, self.run), ("UNLINK", self.keys.of(self.run))])
        return entries

    async def _drop_batches(self, numbers: Sequence[int]) -> None:
        key = self.keys.of
        found = await self.server.commands([("HGET", key(self.run, "batch", batch), "attempts") for batch in numbers])
        attempts = [
            f"{batch}.{number}"
            for batch, last in zip(numbers, found, strict=True)
            for number in range(1, int(last or 0) + 1)
        ]
        rows = await self.server.commands(
            [("HMGET", key(self.run, "attempt", one), "token", "found", "lines") for one in attempts]
        )
        for one, (token, parts, lines) in zip(attempts, rows, strict=True):
            if token is not None:
                staged = f"{one}.{token.decode()}"
                await self._drop([("staged", staged, "f", index) for index in range(int(parts or 0))])
                await self._drop([("staged", staged, "i", index) for index in range(int(lines or 0))])
        await self._drop([("attempt", one) for one in attempts])
        await self._drop([("batch", batch) for batch in numbers])

    async def _drop(self, keys: Sequence[tuple[object, ...]]) -> None:
        for first in range(0, len(keys), PAGE):
            await self.server.command("UNLINK", *(self.keys.of(self.run, *key) for key in keys[first : first + PAGE]))

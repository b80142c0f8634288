"""What has come to nothing of a run goes out again, and a run that is over is opened for it."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from hashlib import sha1
from typing import Any, NamedTuple

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.balance import NOT_CRAWLED
from scrapy_distributed.ledger.wanted import Retried, Wanted
from scrapy_distributed.shared.account import Account, readable
from scrapy_distributed.shared.server import Server, Value
from scrapy_distributed.wire.outcome import Outcome

MOST = 1000  # requests in one call: a script that takes a millisecond holds up everybody
PAGE = 20  # batches whose outcomes are read at once
UNDONE = (Outcome.FAILED.value, Outcome.DEAD.value)

Ended = tuple[int, str, str, bool]  # position, state, reason, and whether nothing of it is in a feed


class _Told(NamedTuple):
    """What the attempt *number* at *batch* has told of requests that were not crawled: the *text* as it is kept."""

    batch: str
    number: str
    text: bytes


class Retrying:
    """For *run*."""

    def __init__(self, server: Server, project: str, run: str) -> None:
        self.server = server
        self.account = Account(server, project, run)
        self.keys = self.account.keys
        self.run = run
        self._name = secrets.token_hex(4)
        self._calls = 0

    async def retry(self, wanted: Wanted) -> Retried:
        """The dead and the failed requests that are *wanted* wait once more, to be in new batches. A run that was
        stopped goes on then, or where what is not crawled is wanted: with all that is not crawled.

        Of those whose callback had begun items may be in a feed already: they are left out unless these are wanted.
        Raises ``LedgerError`` while the run closes, and where another run of the same command has begun since."""
        state = await self.account.state()
        if state.stopped is not None and state.ended is None:
            raise LedgerError(self._why_not("closing"))
        again = left_out = begun = 0
        async for told in self._each_told():
            with readable(self.server, f"run {self.run}"):
                ended: list[Ended] = [tuple(one) for one in json.loads(told.text)]
            meant = [one for one in ended if one[1] in UNDONE and wanted(one[1], one[2])]
            chosen = [one for one in meant if one[3] or wanted.begun]
            left_out += len(meant) - len(chosen)
            taken = await self._take(told, ended, chosen)
            again += taken
            begun += sum(not one[3] for one in chosen[:taken])
        if state.stopped is not None and (again or wanted(NOT_CRAWLED, state.stopped)):
            if not again:
                self._check(await self.server.script("reopen", self.keys, self.run))
            again += state.balance.not_crawled
        return Retried(again, left_out, begun)

    async def cut_short(self) -> int:
        """How many attempts count with items of requests that they have not settled, as the run was stopped."""
        labels = [
            f"{batch.number}.{number}" async for batch in self.account.batches()
            for number in range(1, batch.attempts + 1)
        ]  # fmt: skip
        asked = [("HEXISTS", self.keys.of(self.run, "attempt", label), "partial") for label in labels]
        return sum([sum(await self.server.commands(asked[first : first + MOST]))
                    for first in range(0, len(asked), MOST)])  # fmt: skip

    async def _each_told(self) -> AsyncIterator[_Told]:
        name, cursor = self.keys.of(self.run, "outcome"), b"0"
        while True:
            cursor, flat = await self.server.command("HSCAN", name, cursor, "COUNT", PAGE)
            for label, text in zip(flat[::2], flat[1::2], strict=True):
                batch, _, number = label.decode().partition(".")
                yield _Told(batch, number, text)
            if cursor == b"0":
                return

    async def _take(self, told: _Told, ended: list[Ended], chosen: list[Ended]) -> int:
        """How many of *chosen*, the first ones, wait once more: fewer than all where somebody else takes them, too."""
        text, taken = told.text, 0
        for first in range(0, len(chosen), MOST):
            some = chosen[first : first + MOST]
            positions = [position for position, *_ in some]
            ended = [one for one in ended if one[0] not in positions]
            left = json.dumps(ended).encode()
            self._calls += 1
            args: list[Value] = [
                self.run, f"{self._name}.{self._calls}", told.batch, told.number,
                sha1(text, usedforsecurity=False).hexdigest(), left,
                json.dumps(Counter(f"{state}\n{reason}" for _, state, reason, _ in some)), *positions,
            ]  # fmt: skip
            size = self._check(await self.server.script("retry", self.keys, *args))
            if size == 0:
                break
            taken, text = taken + size, left
        return taken

    def _check(self, answer: Any) -> int:
        """Raises ``LedgerError`` where a script says why it has done nothing."""
        if isinstance(answer, bytes):
            raise LedgerError(self._why_not(answer.decode()))
        return int(answer or 0)

    def _why_not(self, why: str) -> str:
        if why == "closing":
            return f"run {self.run}: it was stopped and its jobs are ending: ask again when it is over"
        return f"run {self.run}: the same command has begun {why} since, and the last one alone can be opened again"

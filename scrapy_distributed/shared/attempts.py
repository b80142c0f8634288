"""Attempts and their batches as they are on the server: what their end changes is computed from that, and applied if it
is still so. For workers, and for whoever finds that a lease has run out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.rules import Batch
from scrapy_distributed.ledger.states import Attempt, AttemptState, BatchState
from scrapy_distributed.shared.keys import Keys
from scrapy_distributed.shared.portion import bodies_of
from scrapy_distributed.shared.run_rules import RunRules
from scrapy_distributed.shared.server import Server
from scrapy_distributed.shared.steps import Step, of_end
from scrapy_distributed.wire.bitmap import bitmap_from_bytes

logger = logging.getLogger("scrapy_distributed.attempts")  # who reads a log knows of attempts, and not of this file

SILENT = "no sign of life"
TURNS = 10  # each may find that another one has been there in this moment


@dataclass(frozen=True, kw_only=True)
class Look:
    """An attempt and its batch. *counts*: whether its receipt would; *fate*, *again*: what its end has meant, if it has
    ended; *parts*: of portions, in which the requests of the batch are; *stopped*: why its run was, if it was."""

    attempt: Attempt
    batch: Batch
    counts: bool
    fate: str
    again: int
    parts: str
    rules: RunRules
    stopped: str


class Attempts:
    """Of a project, whatever their run."""

    def __init__(self, server: Server, keys: Keys) -> None:
        self.server = server
        self.keys = keys

    async def look(self, run: str, token: str) -> Look | None:
        """``None`` where there is no attempt with this *token* of a lease."""
        state, in_time, of_attempt, of_batch, of_run = await self.server.script("look", self.keys, run, token)
        without, worker, fate, again = of_attempt
        size, settled, attempts, failures, its_state, avoid, parts = of_batch
        if state == b"forgotten" or size is None:
            return None
        batch = Batch(
            size=int(size), settled=bitmap_from_bytes(settled or b""), attempts=int(attempts), failures=int(failures),
            state=BatchState(its_state.decode()), avoid=(avoid or b"").decode() or None,
        )  # fmt: skip
        number, attempt_number, secret = token.split(".")
        attempt = Attempt(
            run=run, batch=int(number), number=int(attempt_number), node=worker.decode(), token=secret,
            state=AttemptState(state.decode()),
            positions=((1 << batch.size) - 1) & ~bitmap_from_bytes(without or b""),
        )  # fmt: skip
        return Look(
            attempt=attempt, batch=batch, counts=bool(in_time), fate=(fate or b"").decode(), again=int(again or 0),
            parts=(parts or b"").decode(), rules=RunRules.from_text(of_run[0]), stopped=(of_run[1] or b"").decode(),
        )  # fmt: skip

    async def apply(self, name: str, run: str, token: str, step: Step) -> str:
        """What the script *name* says to *step*: ``done``, ``changed``, ``late`` or ``missing``."""
        answer = await self.server.script(name, self.keys, run, token, *step.args())
        return str(answer[0].decode())

    async def lose(self, run: str, token: str, deadline: float) -> None:
        """Its lease has run out at *deadline* (ms); where another one has dealt with that, nothing is done."""
        for _ in range(TURNS):
            look = await self.look(run, token)
            if look is None or look.attempt.state is not AttemptState.SENT:
                return
            bodies = await self._bodies(run, look)
            if len(bodies) < look.batch.size:  # another one has dealt with it in this moment
                continue
            step = of_end(
                look.attempt, look.batch, bodies, f"{SILENT} on {look.attempt.node}", AttemptState.UNKNOWN, counts=True,
                max_attempts=look.rules.max_attempts, deadline=deadline,
            )  # fmt: skip
            answer = await self.apply("end_attempt", run, token, step)
            if answer == "done":
                logger.warning("Batch %s (run %s): no sign of life on %s for as long as its lease: %s",
                               look.attempt.label, run, look.attempt.node, step.fate.value)  # fmt: skip
            if answer != "changed":
                return
        raise LedgerUnavailableError(f"damaged: run {run}: requests of the batch of attempt {token} are missing")

    async def _bodies(self, run: str, look: Look) -> Sequence[str]:
        """None where some are there no more."""
        parts = [part.encode() for part in look.parts.split(",")]
        names = [part.partition(b":")[0] for part in parts]
        found = await self.server.command("HMGET", self.keys.of(run, "portion"), *names)
        return [] if None in found else bodies_of(parts, found)

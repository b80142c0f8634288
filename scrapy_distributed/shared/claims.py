"""Batches for a worker: claimed under a lease, settled or given back under the token of that claim."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.rules import Batch, Objection, Settlement, objection
from scrapy_distributed.ledger.states import Attempt, AttemptState, BatchState, Blame, Fate, new_token
from scrapy_distributed.shared import finds
from scrapy_distributed.shared.attempts import Attempts
from scrapy_distributed.shared.keys import Keys
from scrapy_distributed.shared.pace import FIRST, GROWTH, MOST, SECONDS, WORTH
from scrapy_distributed.shared.portion import bodies_of
from scrapy_distributed.shared.run_rules import RunRules
from scrapy_distributed.shared.server import Server, Value
from scrapy_distributed.shared.steps import of_end, of_receipt, receipt_row
from scrapy_distributed.wire.bitmap import bitmap_from_bytes, bits
from scrapy_distributed.wire.payload import encode_payload, fits, split
from scrapy_distributed.wire.receipt import Receipt
from scrapy_distributed.wire.session import sessions_of

AWAY_SECONDS = 180.0  # a worker that was not heard of for so long counts no more


class StagedLostError(LedgerUnavailableError):
    """The server has lost what was staged, as it was ended in a hurry: stage it again, and then settle."""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A worker process: its name, unlike that of every other one, where it is, how many jobs it runs at once, the
    *version* of its code, and the *spiders* that it has; *state*: what it wants to be shown of itself."""

    worker: str
    host: str
    pid: int
    slots: int
    version: str
    spiders: tuple[str, ...]
    state: str = ""


class PassedOver(NamedTuple):
    """A run of which a worker gets nothing. *version*: of the code that it wants; *why*: 'version', 'spider', 'paused',
    'stopped', 'refused'."""

    run: str
    spider: str
    version: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A batch that is ours as long as its lease is renewed. *template*: JSON of what every job of the run gets;
    *payload*: the value of ``DISTRIBUTED_START_URL``. *bodies*: all requests of the batch; *others*: how many other
    workers have joined."""

    run: str
    spider: str
    template: str
    version: str
    rules: RunRules
    attempt: Attempt
    batch: Batch
    bodies: Sequence[str]
    payload: str
    others: int

    @property
    def token(self) -> str:
        """That of the lease."""
        return f"{self.attempt.batch}.{self.attempt.number}.{self.attempt.token}"


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """Nothing to do now. *seconds*: until that may change though no event tells so, ``None`` if it does not; *event*:
    the id of the last event, for ``Server.wait``."""

    seconds: float | None
    event: str
    passed_over: Sequence[PassedOver]


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is wished of a run: *paused*: to claim nothing more of it; *stopped*: why it is to end, '' if it is not."""

    paused: bool
    stopped: str


class Claims:
    """For the worker *joined*. Each method may raise ``LedgerUnavailableError``; to call it again is always right, but
    for a ``StagedLostError``."""

    def __init__(self, server: Server, project: str, joined: Joined) -> None:
        self.server = server
        self.keys = Keys(project)
        self.joined = joined
        self._attempts = Attempts(server, self.keys)
        self._lock = asyncio.Lock()
        self._secret = new_token()

    async def claim(self, size_of: Callable[[str], int], *, without: Collection[str] = ()) -> Claimed | Nothing:
        """A batch of at most as many requests as *size_of* says of its spider, or, where that says 0, as are half a
        minute's work of a job of its run; where less waits than all slots of all workers could do at once, an even
        share of that, but not less than what is worth a job. *without*: names of runs that are not wanted. Leases that
        have run out, and finds that were left, are dealt with first."""
        async with self._lock:
            while True:
                args = self._claim_args(size_of, without)
                kind, *answer = await self.server.script("claim", self.keys, *args)
                if kind == b"overdue":
                    for run, token, deadline in zip(answer[::3], answer[1::3], answer[2::3], strict=True):
                        await self._attempts.lose(run.decode(), token.decode(), float(deadline))
                elif kind == b"moving":
                    await self.move(answer[0].decode())
                elif kind == b"nothing":
                    return _nothing(answer)
                else:
                    claimed = await self._claimed(answer)
                    self._secret = new_token()
                    if claimed is not None:
                        return claimed

    async def stand_aside(self) -> None:
        """It has joined, and claims nothing for now: to be said again before ``AWAY_SECONDS`` are over."""
        await self.server.script("stand_aside", self.keys, self.joined.worker, json.dumps(asdict(self.joined)))

    async def forgo(self) -> None:
        """A claim that was cut short gets nothing: what it has got is given back. Nothing more is to be claimed."""
        while unheard := await self.server.script("forgo", self.keys, self.joined.worker, self._secret):
            run, token = unheard[0].decode(), unheard[1].decode()
            await self._end(run, token, (), "its worker has left", AttemptState.UNSENT)

    async def leave(self) -> None:
        """It claims nothing more, and counts no more among those that do. To be called when nothing of it is left."""
        await self.forgo()
        await self.server.script("leave", self.keys, self.joined.worker)

    async def renew(self, claimed: Claimed, progress: Mapping[str, Any]) -> Wishes | None:
        """A sign of life, with *progress* for who looks on (JSON). ``None``: the lease is lost, nothing of this attempt
        will count."""
        answer = await self.server.script(
            "renew", self.keys, claimed.run, claimed.token, json.dumps(progress), self.joined.worker
        )
        return None if answer is None else Wishes(paused=bool(answer[0]), stopped=answer[1].decode())

    async def stage_found(self, claimed: Claimed, index: int, entries: Sequence[finds.Find]) -> bool:
        """Part *index*, from 0, of what the job has found, at most 1,000 pairs of ``seen_key`` and encoded request.
        Whether the attempt can still count."""
        return await self._stage(claimed, "f", index, finds.pack(entries))

    async def stage_items(self, claimed: Claimed, index: int, lines: bytes) -> bool:
        """Part *index*, from 0, of the lines of its items, at most 1 MB. Whether the attempt can still count."""
        return await self._stage(claimed, "i", index, lines)

    async def settle(
        self, claimed: Claimed, receipt: Receipt, *, found: int = 0, lines: int = 0, again: int = 0,
        counts: bool = True, besides: Objection | None = None, stops: str = "",
    ) -> Settlement | Objection:  # fmt: skip
        """Accept the attempt by its final *receipt*, with so many parts that were staged: *found*, *lines*. The rest as
        ``settle`` of a ledger in SQLite. Where there is an objection nothing is done: ``reject`` is to follow."""
        row = receipt_row(receipt)
        while True:
            look = await self._attempts.look(claimed.run, claimed.token)
            if look is not None and look.attempt.state is AttemptState.ACCEPTED:
                return Settlement(fate=Fate[look.fate], again=look.again)
            if look is None or not look.counts:
                await self.reject(claimed, "another attempt was first", counts=False)  # what it has staged goes
                state = "forgotten" if look is None else look.attempt.state.value
                return Objection(f"it was {state} before", Blame.NOBODY)
            last = bool(stops or look.stopped)
            if objected := objection(look.attempt, receipt, look.batch.settled, last=last) or besides:
                return objected
            step = of_receipt(
                look.attempt, receipt, look.batch, claimed.bodies, again=again, counts=counts,
                max_attempts=look.rules.max_attempts, found=found, lines=lines, stops=stops,
                row=row | ({"partial": 1} if last and not receipt.clean else {}),
            )  # fmt: skip
            answer = await self._attempts.apply("settle", claimed.run, claimed.token, step)
            if answer == "missing":
                raise StagedLostError(f"Redis at {self.server.address} has lost what was staged: stage it again")
            if answer == "done":
                if found:
                    with suppress(LedgerUnavailableError):  # they are safe, and whoever has nothing to do adds them
                        await self.move(claimed.run)
                return Settlement(fate=step.fate, again=step.again)

    async def reject(self, claimed: Claimed, reason: str, *, counts: bool, log_tail: str = "") -> Fate | None:
        """It has ended and does not count. *counts*: as the batch's failure; *log_tail*: of its job, to be shown.
        ``None``: it was lost before."""
        its = claimed.run, claimed.token, claimed.bodies
        return await self._end(*its, reason, AttemptState.REJECTED, counts=counts, log_tail=log_tail)

    async def give_back(self, claimed: Claimed, reason: str) -> None:
        """It never began: its batch goes out again, and no attempt is used up."""
        await self._end(claimed.run, claimed.token, claimed.bodies, reason, AttemptState.UNSENT)

    async def move(self, run: str) -> None:
        """Add what accepted attempts of *run* have found, where that is still to be done."""
        while await finds.move(self.server, self.keys, run):
            pass

    # Inside

    def _claim_args(self, size_of: Callable[[str], int], without: Collection[str]) -> list[Value]:
        joined = self.joined
        sizes = [value for spider in joined.spiders for value in (spider, size_of(spider))]
        pace: list[Value] = [FIRST, GROWTH, MOST, round(SECONDS * 1000), WORTH]
        limits: list[Value] = [self._secret, round(AWAY_SECONDS * 1000), *pace, len(without), *without]
        return [joined.worker, joined.slots, json.dumps(asdict(joined)), joined.version, *limits, *sizes]

    async def _claimed(self, answer: list[Any]) -> Claimed | None:
        """``None`` where the batch is too large to be sent: it has been divided."""
        run, number, size, settled, attempts, failures, avoid, others, *rest = answer
        spider, template, version, rules, *parts = rest
        batch = Batch(
            size=int(size), settled=bitmap_from_bytes(settled), attempts=int(attempts), failures=int(failures),
            state=BatchState.IN_FLIGHT, avoid=avoid.decode() or None,
        )  # fmt: skip
        attempt = Attempt(
            run=run.decode(), batch=int(number), number=int(attempts), node=self.joined.worker, token=self._secret,
            state=AttemptState.SENT, positions=batch.left,
        )  # fmt: skip
        bodies = bodies_of(parts[::2], parts[1::2])
        own = [bodies[position] for position in bits(batch.left)]
        sessions = await self._sessions(attempt.run, own)
        claimed = Claimed(
            run=attempt.run, spider=spider.decode(), template=template.decode(), version=version.decode(),
            rules=RunRules.from_text(rules), attempt=attempt, batch=batch, bodies=bodies,
            payload=encode_payload(own, sessions), others=others,
        )  # fmt: skip
        if fits(claimed.payload) or len(own) == 1:
            return claimed
        parts_needed = sum(1 for _ in split(own, sessions))
        await self._end(
            claimed.run, claimed.token, bodies, "too long for one job", AttemptState.UNSENT, parts=parts_needed
        )
        return None

    async def _sessions(self, run: str, bodies: Sequence[str]) -> dict[str, str]:
        wanted = list(sessions_of(bodies))
        if not wanted:
            return {}
        texts = await self.server.command("HMGET", self.keys.of(run, "sessions"), *wanted)
        if None in texts:
            raise LedgerUnavailableError("damaged: cookies that go with requests are missing")
        return {session: text.decode("ascii") for session, text in zip(wanted, texts, strict=True)}

    async def _stage(self, claimed: Claimed, kind: str, index: int, data: bytes) -> bool:
        return bool(await self.server.script("stage", self.keys, claimed.run, claimed.token, kind, index, data))

    async def _end(
        self, run: str, token: str, bodies: Sequence[str], reason: str, becomes: AttemptState, *, counts: bool = False,
        parts: int = 1, log_tail: str = "",
    ) -> Fate | None:  # fmt: skip
        """*bodies*: all requests of its batch; of one that only goes out again as it is none are needed."""
        while True:
            look = await self._attempts.look(run, token)
            if look is None:
                return None
            if look.attempt.state is becomes:
                return Fate[look.fate] if look.fate else None
            attempt = replace(look.attempt, state=AttemptState.SENT)
            step = of_end(
                attempt, look.batch, bodies, reason, becomes, counts=counts, parts=parts,
                max_attempts=look.rules.max_attempts, first=becomes is AttemptState.UNSENT,
                row={"log": log_tail} if log_tail else {},
            )  # fmt: skip
            answer = await self._attempts.apply("end_attempt", run, token, step)
            if answer != "changed":
                return step.fate if answer == "done" else None


def _nothing(answer: list[Any]) -> Nothing:
    ms, event, *texts = answer
    passed = [text.decode() for text in texts]
    over = [PassedOver(*passed[first : first + 4]) for first in range(0, len(passed), 4)]
    return Nothing(seconds=None if ms < 0 else ms / 1000, event=event.decode(), passed_over=over)

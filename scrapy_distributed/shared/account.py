"""How a run stands, and what is told of it: in the records that a ledger in SQLite gives, too. Also while the run goes
on; what is long is read a page at a time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.balance import NOT_CRAWLED, Balance, Losses, Raised, Results
from scrapy_distributed.ledger.board import Event
from scrapy_distributed.ledger.records import (
    AcceptedAttempt,
    AttemptRecord,
    BatchRecord,
    OutcomeRecord,
    RunRecord,
)
from scrapy_distributed.ledger.states import AttemptState, BatchState, job_id, label
from scrapy_distributed.ledger.sums import sum_of_reasons, sum_of_stats
from scrapy_distributed.shared.intake import State, state_of
from scrapy_distributed.shared.keys import Keys
from scrapy_distributed.shared.portion import bodies_of
from scrapy_distributed.shared.server import Server
from scrapy_distributed.wire.bitmap import bitmap_from_bytes
from scrapy_distributed.wire.outcome import Outcome
from scrapy_distributed.wire.payload import loads, url_of
from scrapy_distributed.wire.receipt import FeedFile

PAGE = 500  # keys
BATCH = ("state", "size", "avoid", "crawled", "failed", "filtered", "dead", "moved", "attempts", "parent", "settled",
         "parts", "items")  # fmt: skip
LAST = ("worker", "state", "reason")
MOST_TOLD = 10**12  # of anything, by a job of itself


@dataclass(frozen=True, kw_only=True)
class Job:
    """An attempt under way: of *size* requests, on *worker*, since *bound* (seconds since 1970), until its lease ends
    (*until*), and what it has said last (*progress*). *job*: its name."""

    job: str
    batch: int
    number: int
    worker: str
    size: int
    bound: float
    until: float
    progress: dict[str, Any]

    @property
    def label(self) -> str:
        return label(self.batch, self.number)

    def told(self, what: str) -> int:
        """A number of its *progress*: a worker's word, which may be any."""
        value = self.progress.get(what, 0)
        return value if type(value) is int and 0 <= value <= MOST_TOLD else 0


async def runs(server: Server, project: str) -> list[RunRecord]:
    """Those of *project*, oldest first. As in every ledger all of a run is found when it is *walked* and nothing that
    workers have found is still to be added, and it has *ended* when its result is stored."""
    keys = Keys(project)
    names = [name.decode() for name in await server.command("ZRANGE", keys.runs, 0, -1)]
    fields = ("identity", "started", "walked", "stored", "stopped")
    rows = await server.commands([("HMGET", keys.of(name), *fields) for name in names])
    moving = await server.commands([("LLEN", keys.of(name, "moving")) for name in names])
    with readable(server, f"the runs of {project}"):
        return [
            RunRecord(
                id=number, name=name, identity=json.loads(identity), started=int(started) / 1000,
                walked=None if left else _seconds(walked), ended=_seconds(stored), stopped=_text(stopped),
            ) for number, (name, row, left) in enumerate(zip(names, rows, moving, strict=True), 1)
            for identity, started, walked, stored, stopped in [row] if identity is not None
        ]  # fmt: skip


async def streams(server: Server, project: str) -> dict[str, int]:
    """How many entries the streams of the runs of *project* have, by their keys; those that have some."""
    keys = Keys(project)
    names = [keys.of(name.decode(), "items") for name in await server.command("ZRANGE", keys.runs, 0, -1)]
    lengths = await server.commands([("XLEN", name) for name in names])
    return {name: length for name, length in zip(names, lengths, strict=True) if length}


class Account:
    """Of *run*. Raises ``LedgerError`` for what is damaged."""

    def __init__(self, server: Server, project: str, run: str) -> None:
        self.server = server
        self.keys = Keys(project)
        self.run = run

    async def state(self) -> State:
        return state_of(await self.server.script("state", self.keys, self.run))

    async def balance(self) -> Balance:
        return (await self.state()).balance

    async def losses(self) -> Losses:
        unexported, twice, lost = await self._fields("unexported", "twice", "lost")
        followed = await self._counts("followed")
        with self._readable():
            return Losses(
                unexported=int(unexported or 0), twice=int(twice or 0), own=json.loads(lost or "{}"),
                followed=sum_of_reasons([followed]),
            )  # fmt: skip

    async def results(self) -> Results:
        """Of a run whose items go into a stream."""
        found, there, waiting, own = await self.server.script("results", self.keys, self.run)
        with self._readable():
            counted, put, lost, reread = (int(value or 0) for value in found)
        return Results(
            stream=self.keys.of(self.run, "items"), counted=counted, put=put, there=there, waiting=waiting, own=own,
            lost=lost, reread=reread,
        )  # fmt: skip

    async def raised(self) -> list[Raised]:
        """What code of the project has raised on workers, the most frequent first."""
        examples = await _pairs(self.server, self.keys.of(self.run, "examples"))
        reasons, followed = await self._counts("reasons"), await self._counts("followed")
        failed = Outcome.FAILED.value
        found = [
            Raised(reason=reason, example=text.decode(), requests=reasons.get(f"{failed}\n{reason}", 0),
                   followed=followed.get(reason, 0)) for reason, text in examples
        ]  # fmt: skip
        return sorted(found, key=lambda one: (-one.requests, one.reason))

    async def reasons(self, most: int) -> list[tuple[str, str, int]]:
        """Why requests failed, were filtered or are dead: state, reason and how many, the *most* frequent ones."""
        found = [(*name.partition("\n")[::2], count) for name, count in (await self._counts("reasons")).items()]
        return sorted(found, key=lambda one: (-one[2], one[1]))[:most]

    async def worker_stats(self) -> tuple[dict[str, float], int]:
        """The ``sum_of_stats`` of accepted attempts."""
        rows = [row async for _, _, row in self._attempts_of_all(("state", "stats"))]
        accepted = AttemptState.ACCEPTED.value.encode()
        with self._readable():
            return sum_of_stats(json.loads(stats) for state, stats in rows if state == accepted and stats)

    async def batches(self, first: int = 1, last: int | None = None) -> AsyncIterator[BatchRecord]:
        """The batches from *first* to *last* by number."""
        stopped, ended = await self._fields("stopped", "ended")
        over = stopped is not None and ended is not None
        async for page in self._batch_pages(first, last):
            names = [self.keys.of(self.run, "attempt", f"{number}.{int(row['attempts'] or 0)}") for number, row in page]
            of_last = await self.server.commands([("HMGET", name, *LAST) for name in names])
            with self._readable():
                for (number, row), last_attempt in zip(page, of_last, strict=True):
                    yield _batch(number, row, last_attempt, over=over)

    async def attempts(self, batch: int) -> list[AttemptRecord]:
        """The attempts at *batch*, oldest first."""
        number = await self.server.command("HGET", self.keys.of(self.run, "batch", batch), "attempts")
        names = [self.keys.of(self.run, "attempt", f"{batch}.{one}") for one in range(1, int(number or 0) + 1)]
        answers = await self.server.commands([("HGETALL", name) for name in names])
        with self._readable():
            return [self._attempt(batch, number, _row(flat)) for number, flat in enumerate(answers, 1)]

    async def log_tail(self, batch: int, number: int) -> str:
        """The end of the log of a job that does not count, '' where nobody has sent it."""
        return (
            _text(await self.server.command("HGET", self.keys.of(self.run, "attempt", f"{batch}.{number}"), "log"))
            or ""
        )

    async def failed_attempts(self, most: int) -> list[Event]:
        """Those that came to nothing last, the newest first."""
        labels = [
            text.decode()
            for text in await self.server.command("LRANGE", self.keys.of(self.run, "failures"), 0, most - 1)
        ]
        names = [self.keys.of(self.run, "attempt", one) for one in labels]
        rows = await self.server.commands([("HMGET", name, "ended", "worker", "reason") for name in names])
        events = []
        with self._readable():
            for one, (ended, worker, reason) in zip(labels, rows, strict=True):
                batch, number = map(int, one.split("."))
                what = f"does not count, on {_text(worker)}: {_text(reason)}"
                events.append(Event(int(ended) / 1000, f"batch {label(batch, number)}", what))
        return events

    async def jobs(self) -> list[Job]:
        """The attempts under way, the one first whose lease ends first."""
        flat = await self.server.command("ZRANGE", self.keys.of(self.run, "lease"), 0, -1, "WITHSCORES")
        tokens = [token.decode().split(".") for token in flat[::2]]
        names = [self.keys.of(self.run, "attempt", f"{batch}.{number}") for batch, number, _ in tokens]
        rows = await self.server.commands([("HMGET", name, "worker", "size", "bound", "progress") for name in names])
        with self._readable():
            return [
                Job(job=job_id(self.run, int(batch), int(number), secret), batch=int(batch), number=int(number),
                    worker=worker.decode(), size=int(size), bound=int(bound) / 1000, until=float(until) / 1000,
                    progress=dict(json.loads(progress or "{}")))
                for (batch, number, secret), until, row in zip(tokens, flat[1::2], rows, strict=True)
                for worker, size, bound, progress in [row]
            ]  # fmt: skip

    async def accepted(self) -> list[AcceptedAttempt]:
        """The attempts that count, by batch and number."""
        names = ("state", "token", "items", "feeds", "unexported", "home", "bytes", "digest")
        found = []
        async for batch, number, row in self._attempts_of_all(names):
            state, token, items, feeds, unexported, home, size, digest = row
            if state != AttemptState.ACCEPTED.value.encode():
                continue
            with self._readable():
                found.append(AcceptedAttempt(
                    batch=batch, number=number, token=token.decode(), items=int(items or 0), feeds=_feeds(feeds),
                    unexported=int(unexported or 0), home=_home(home, digest),
                    size=None if size is None else int(size), digest=_text(digest),
                ))  # fmt: skip
        return found

    async def outcomes(
        self, *, batch: int | None = None, wanted: Callable[[str, str], bool] = lambda state, reason: True
    ) -> AsyncIterator[OutcomeRecord]:
        """The requests that failed, were filtered or are dead, in order: those of one *batch*, or all, for whose
        (state, reason) *wanted* is true."""
        async for number, row in self._batch_rows(batch or 1, batch):
            labels = [f"{number}.{one}" for one in range(1, int(row["attempts"] or 0) + 1)]
            texts = await self.server.command("HMGET", self.keys.of(self.run, "outcome"), *labels) if labels else []
            with self._readable():
                ended = sorted(tuple(one) for text in texts if text for one in json.loads(text))
            chosen = [one for one in ended if wanted(one[1], one[2])]
            for first in range(0, len(chosen), PAGE):
                some = chosen[first : first + PAGE]
                names = [f"{number}:{position}" for position, *_ in some]
                bodies = await self.server.command("HMGET", self.keys.of(self.run, "kept"), *names)
                with self._readable():
                    for (position, state, reason, again), body in zip(some, bodies, strict=True):
                        yield OutcomeRecord(batch=number, position=position, state=state, reason=reason,
                                            url=url_of(loads(body.decode())), again=bool(again))  # fmt: skip

    async def not_crawled(self) -> AsyncIterator[OutcomeRecord]:
        """The requests of a run that was stopped which nobody has crawled: of its batches, then those in none."""
        stopped, _ = await self._fields("stopped", "ended")
        if stopped is None:
            return
        left = partial(OutcomeRecord, state=NOT_CRAWLED, reason=stopped.decode(), again=True)
        async for number, row in self._batch_rows(1, None):
            if row["state"] == BatchState.SETTLED.value.encode():
                continue
            settled = bitmap_from_bytes(row["settled"] or b"")
            for position, body in enumerate(await self._portions(row["parts"].split(b","))):
                if not settled >> position & 1:
                    yield left(batch=number, position=position, url=url_of(loads(body)))
        async for position, body in self._waiting():
            yield left(batch=0, position=position, url=url_of(loads(body)))

    # Inside

    async def _waiting(self) -> AsyncIterator[tuple[int, str]]:
        """What is in no batch."""
        position = 0
        for part in await self.server.command("LRANGE", self.keys.of(self.run, "portions"), 0, -1):
            for body in await self._portions([part]):
                yield position, body
                position += 1

    async def _portions(self, parts: Sequence[bytes]) -> list[str]:
        names = [part.partition(b":")[0] for part in parts]
        with self._readable():
            return bodies_of(parts, await self.server.command("HMGET", self.keys.of(self.run, "portion"), *names))

    async def _batch_rows(self, first: int, last: int | None) -> AsyncIterator[tuple[int, dict[str, Any]]]:
        async for page in self._batch_pages(first, last):
            for one in page:
                yield one

    async def _batch_pages(self, first: int, last: int | None) -> AsyncIterator[list[tuple[int, dict[str, Any]]]]:
        if last is None:
            last = int((await self._fields("batches"))[0] or 0)
        for start in range(first, last + 1, PAGE):
            numbers = range(start, min(last + 1, start + PAGE))
            names = [self.keys.of(self.run, "batch", number) for number in numbers]
            rows = await self.server.commands([("HMGET", name, *BATCH) for name in names])
            pairs = [(number, dict(zip(BATCH, row, strict=True))) for number, row in zip(numbers, rows, strict=True)]
            yield [(number, row) for number, row in pairs if row["state"] is not None]

    async def _attempts_of_all(self, fields: Sequence[str]) -> AsyncIterator[tuple[int, int, list[Any]]]:
        """Batch, number and *fields* of each attempt."""
        labels = []
        async for batch, row in self._batch_rows(1, None):
            labels += [(batch, number) for number in range(1, int(row["attempts"] or 0) + 1)]
        for first in range(0, len(labels), PAGE):
            some = labels[first : first + PAGE]
            names = [self.keys.of(self.run, "attempt", f"{batch}.{number}") for batch, number in some]
            rows = await self.server.commands([("HMGET", name, *fields) for name in names])
            for (batch, number), row in zip(some, rows, strict=True):
                yield batch, number, row

    def _attempt(self, batch: int, number: int, row: dict[str, Any]) -> AttemptRecord:
        return AttemptRecord(
            number=number, label=label(batch, number), job=job_id(self.run, batch, number, row["token"].decode()),
            node=row["worker"].decode(), url="", state=row["state"].decode(), reason=_text(row.get("reason")),
            size=int(row["size"]), bound=int(row["bound"]) / 1000, ended=_seconds(row.get("ended")),
            items=int(row["items"]) if "items" in row else None, feeds=_feeds(row.get("feeds")),
            unexported=int(row.get("unexported", 0)), followed=json.loads(row.get("followed", "{}")),
            home=_home(row.get("home"), row.get("digest")), twice=int(row.get("twice", 0)), log=None,
        )  # fmt: skip

    async def _fields(self, *names: str) -> list[Any]:
        found: list[Any] = await self.server.command("HMGET", self.keys.of(self.run), *names)
        return found

    async def _counts(self, name: str) -> dict[str, int]:
        pairs = await _pairs(self.server, self.keys.of(self.run, name))
        with self._readable():
            return {key: int(value) for key, value in pairs}

    def _readable(self) -> Any:
        return readable(self.server, f"run {self.run}")


@contextmanager
def readable(server: Server, what: str) -> Iterator[None]:
    """Whatever damage makes of reading *what* becomes a ``LedgerError``."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise LedgerError(f"Redis at {server.address}: {what} can't be read: {type(error).__name__}: {error}") from None


async def _pairs(server: Server, key: str) -> list[tuple[str, bytes]]:
    flat = await server.command("HGETALL", key)
    return [(name.decode(), value) for name, value in zip(flat[::2], flat[1::2], strict=True)]


def _batch(number: int, row: dict[str, Any], last: Sequence[Any], *, over: bool) -> BatchRecord:
    """*row* of a batch, and of its *last* attempt; *over*: its run was stopped, and nothing more of it is crawled."""
    worker, attempt_state, reason = last
    state = row["state"].decode()
    return BatchRecord(
        number=number, parent=int(row["parent"]) if row["parent"] else None, size=int(row["size"]),
        state=NOT_CRAWLED if over and state != BatchState.SETTLED.value else state, avoid=_text(row["avoid"]) or None,
        crawled=int(row["crawled"] or 0), failed=int(row["failed"] or 0), filtered=int(row["filtered"] or 0),
        dead=int(row["dead"] or 0), moved=int(row["moved"] or 0), attempts=int(row["attempts"] or 0),
        node=_text(worker), attempt_state=_text(attempt_state), reason=_text(reason),
        items=None if row["items"] is None else int(row["items"]),
    )  # fmt: skip


def _row(flat: Sequence[bytes]) -> dict[str, Any]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _seconds(value: Any) -> float | None:
    return None if value is None else int(value) / 1000


def _home(items: Any, digest: Any) -> int | None:
    """How many came home; ``None`` where they don't, and so are in no file that has a *digest*."""
    return int(items) if items is not None and digest else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value.decode())


def _feeds(text: Any) -> tuple[FeedFile, ...]:
    return tuple(FeedFile(*file) for file in json.loads(text or "[]"))

"""What the shared runs of a project are doing, and the workers that have joined them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.ledger.board import Board, JobRow, NodeRow
from scrapy_distributed.ledger.count import Count
from scrapy_distributed.ledger.records import RunRecord
from scrapy_distributed.monitor.node_state import NodeState
from scrapy_distributed.monitor.run_state import EVENTS, REASONS, RUNNING, RunState
from scrapy_distributed.monitor.worker_state import WorkerState
from scrapy_distributed.shared.account import Account, Job, runs
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.shared.claims import AWAY_SECONDS
from scrapy_distributed.shared.intake import State
from scrapy_distributed.shared.server import Server
from scrapy_distributed.words import shortened

OPEN_SHOWN = 100  # runs that are not over


@dataclass(frozen=True, kw_only=True)
class SharedState:
    """At one moment. *server*: itself, where it could not be asked, with its problem."""

    workers: tuple[WorkerState, ...] = ()
    runs: tuple[RunState, ...] = ()
    server: tuple[NodeState, ...] = ()


NOTHING_SHARED = SharedState()


class SharedWatch:
    """The runs of *project* at *address*. It is asyncio's."""

    def __init__(self, address: RedisAddress, project: str) -> None:
        self.address = address
        self.project = project
        self._server = Server(address)
        self._before: dict[str, tuple[float, int]] = {}  # run -> when, and how many requests were settled by then

    async def look(self) -> SharedState:
        """What can't be asked has a problem; nothing is raised for it."""
        try:
            return await self._look()
        except (LedgerError, LedgerUnavailableError) as error:
            place, kind = str(self.address), "unreachable" if isinstance(error, LedgerUnavailableError) else "refused"
            return SharedState(server=(NodeState(name=place, url=place, problem=shortened(str(error)), kind=kind),))

    async def close(self) -> None:
        await self._server.close()

    async def _look(self) -> SharedState:
        account = Account(self._server, self.project, "")  # of no run: the workers are those of all
        rows = (await account.state()).workers
        shown = _shown(await runs(self._server, self.project))
        at_work: Counter[str] = Counter()
        states = []
        for run in shown:
            account = Account(self._server, self.project, run.name)
            state, jobs = await account.state(), await account.jobs()
            at_work.update(job.worker for job in jobs)
            states.append(await self._run_state(run, account, state, jobs))
        workers = tuple(
            WorkerState(row.worker, row.host, row.pid, row.slots, at_work[row.worker], row.version, row.spiders,
                        row.state, row.seen) for row in rows if row.seen <= AWAY_SECONDS
        )  # fmt: skip
        return SharedState(workers=workers, runs=tuple(states))

    async def _run_state(self, run: RunRecord, account: Account, state: State, jobs: Sequence[Job]) -> RunState:
        reasons = await account.reasons(REASONS)
        events = await account.failed_attempts(EVENTS)
        count = self._count(run, state, jobs)
        board = Board(
            run=run.name, written=state.time, count=count, nodes=tuple(_nodes(state, jobs)),
            jobs=tuple(_job(job, state.time) for job in jobs), events=(),
        )  # fmt: skip
        return RunState(
            ledger=str(self.address), run=run, state=_state(run, state), balance=state.balance,
            reasons={f"{ended}: {reason}": number for ended, reason, number in reasons}, board=board,
            events=tuple(reversed(events)),
        )  # fmt: skip

    def _count(self, run: RunRecord, state: State, jobs: Sequence[Job]) -> Count:
        reported = sum(job.told("settled") for job in jobs)
        settled = state.balance.ended + reported
        since, before = self._before.get(run.name, (state.time, settled))
        self._before[run.name] = (state.time, settled)
        rate = 60 * max(0, settled - before) / (state.time - since) if state.time > since else 0.0
        return Count(
            time=state.time, balance=state.balance, reported=reported,
            items=state.items + sum(job.told("items") for job in jobs), rate=rate, at_work=state.at_work,
            slots=max(state.slots, state.at_work), walked=run.walked is not None, paused=state.paused,
        )  # fmt: skip


def _shown(every: Sequence[RunRecord]) -> list[RunRecord]:
    """The last one of each spider, and those that are not over; oldest first."""
    last = {run.identity["spider"]: run.id for run in every}
    left = [run for run in every if run.ended is None or run.id in last.values()]
    return left[-OPEN_SHOWN:]


def _state(run: RunRecord, state: State) -> str:
    if run.ended is not None:
        return "stopped" if run.stopped is not None else "over"
    # Workers are done, and the same command is still to write the result.
    return RUNNING if state.ended is None or state.owner else "interrupted"


def _nodes(state: State, jobs: Sequence[Job]) -> Iterable[NodeRow]:
    at_work = Counter(job.worker for job in jobs)
    for row in state.workers:
        why = row.state or ("" if row.version == state.version else "its code is another one than the run's")
        yield NodeRow(
            name=row.worker, url="", state="trouble" if why else "well", why=why, since=state.time - row.seen, next="",
            next_at=None, slots=row.slots, running=at_work[row.worker], started=at_work[row.worker], waiting=0,
        )  # fmt: skip


def _job(job: Job, now: float) -> JobRow:
    settled, minutes = job.told("settled"), max(now - job.bound, 1.0) / 60
    return JobRow(
        job=job.job, batch=job.batch, attempt=job.number, node=job.worker, state="at work", size=job.size,
        settled=settled, items=job.told("items"), pages=job.told("pages"), rate=settled / minutes, sent=job.bound,
        heard=now,
    )  # fmt: skip

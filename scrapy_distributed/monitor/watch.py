"""What nodes and runs are doing, shown again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from scrapy_distributed.fleet.node import Node, NodeAddress, open_nodes
from scrapy_distributed.monitor.local import local_state
from scrapy_distributed.monitor.node_state import NodeState, line, state_of
from scrapy_distributed.monitor.run_state import RUNNING, RunState, run_states
from scrapy_distributed.monitor.shared_state import NOTHING_SHARED, SharedState, SharedWatch
from scrapy_distributed.monitor.snapshot import as_json, poll
from scrapy_distributed.together import together


class Watch:
    """Of the Scrapyds at *addresses*, of workers on this machine where these are watched (*local*), of the runs of
    *ledgers*, and of *shared* ones, on the reactor of asyncio; for the jobs and the runs of *project* (``None``: of
    all). A look each *interval* seconds, ``None``: one alone, and whether all was well then."""

    def __init__(
        self, addresses: Sequence[NodeAddress], *, local: bool, ledgers: Callable[[], Sequence[Path]],
        project: str | None, interval: float | None, shared: SharedWatch | None = None,
    ) -> None:  # fmt: skip
        self.addresses = addresses
        self.local = local
        self.ledgers = ledgers
        self.project = project
        self.interval = interval
        self.shared = shared

    async def in_json(self) -> bool:
        """An object for all of them at a time, when the last has answered."""
        async with open_nodes(self.addresses) as nodes:
            return await self._repeat(partial(self._all, nodes))

    async def in_lines(self) -> bool:
        """A line of each node when it answers, and of each crawl that runs: one that hangs holds up no other."""
        async with open_nodes(self.addresses) as nodes:
            asked: list[Callable[[], Awaitable[NodeState]]] = [self._here] if self.local else []
            asked += [partial(state_of, node, self.project) for node in nodes]
            looks: list[Callable[[], Awaitable[bool]]] = [partial(self._node, ask) for ask in asked]
            if self.shared is not None:
                looks.append(self._shared)
            return all(await together(self._repeat(look) for look in [*looks, self._runs]))

    async def _repeat(self, show: Callable[[], Awaitable[bool]]) -> bool:
        from twisted.internet import reactor

        while True:
            well = await show()
            if self.interval is None:
                return well
            await deferLater(reactor, self.interval)

    async def _all(self, nodes: Sequence[Node]) -> bool:
        here = [await self._here()] if self.local else []
        shared = await self._look()
        snapshot = await poll(nodes, self.project, here=here, ledgers=self.ledgers(), shared=shared)
        print(as_json(snapshot), flush=True)
        return snapshot.healthy

    async def _node(self, ask: Callable[[], Awaitable[NodeState]]) -> bool:
        state = await ask()
        _say(line(state, self.project))
        return state.problem is None

    async def _here(self) -> NodeState:
        return local_state(self.ledgers(), self.project)

    async def _look(self) -> SharedState:
        if self.shared is None:
            return NOTHING_SHARED
        state: SharedState = await Deferred.fromFuture(asyncio.ensure_future(self.shared.look()))
        return state

    async def _shared(self) -> bool:
        state = await self._look()
        for node in state.server:
            _say(line(node, self.project))
        for worker in state.workers:
            _say(worker.line)
        return _tell(state.runs) and not state.server

    async def _runs(self) -> bool:
        return _tell(run_states(self.ledgers(), self.project))


def _tell(runs: Sequence[RunState]) -> bool:
    """Returns whether all of them could be read."""
    for run in runs:
        if run.problem is not None or run.state == RUNNING:
            _say(run.line)
    return all(run.problem is None for run in runs)


def _say(words: str) -> None:
    print(f"{words} ({datetime.now():%H:%M:%S})", flush=True)

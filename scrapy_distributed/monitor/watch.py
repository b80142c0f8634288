"""What nodes are doing, shown again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial

from twisted.internet.task import deferLater

from scrapy_distributed.fleet.node import Node, NodeAddress, open_nodes
from scrapy_distributed.monitor.node_state import NodeState, line, state_of
from scrapy_distributed.monitor.snapshot import as_json, poll
from scrapy_distributed.together import together


class Watch:
    """Of the Scrapyds at *addresses*, and of what is *here* if anything is, for the jobs of *project* (``None``: of
    all); a look each *interval* seconds, ``None``: one alone, and whether all nodes were well then."""

    def __init__(
        self, addresses: Sequence[NodeAddress], *, here: Callable[[], NodeState] | None, project: str | None,
        interval: float | None,
    ) -> None:  # fmt: skip
        self.addresses = addresses
        self.here = here
        self.project = project
        self.interval = interval

    async def in_json(self) -> bool:
        """An object for all of them at a time, when the last has answered."""
        async with open_nodes(self.addresses) as nodes:
            return await self._repeat(partial(self._all, nodes))

    async def in_lines(self) -> bool:
        """A line of each when it answers: one that hangs holds up no other."""
        async with open_nodes(self.addresses) as nodes:
            looks: list[Callable[[], Awaitable[NodeState]]] = [partial(state_of, node, self.project) for node in nodes]
            if self.here is not None:
                looks.insert(0, self._look_here)
            return all(await together(self._repeat(partial(self._one, look)) for look in looks))

    async def _repeat(self, show: Callable[[], Awaitable[bool]]) -> bool:
        from twisted.internet import reactor

        while True:
            well = await show()
            if self.interval is None:
                return well
            await deferLater(reactor, self.interval)

    async def _all(self, nodes: Sequence[Node]) -> bool:
        snapshot = await poll(nodes, self.project, here=[] if self.here is None else [self.here()])
        print(as_json(snapshot), flush=True)
        return snapshot.healthy

    async def _one(self, look: Callable[[], Awaitable[NodeState]]) -> bool:
        state = await look()
        print(f"{line(state, self.project)} ({datetime.now():%H:%M:%S})", flush=True)
        return state.problem is None

    async def _look_here(self) -> NodeState:
        assert self.here is not None
        return self.here()

"""The nodes at the start of a crawl: it waits for one that can be used, and for none that is late when another can."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from scrapy_distributed.errors import NodeAmbiguousError, NodeError, NodeRefusedError
from scrapy_distributed.fleet.node import Node

if TYPE_CHECKING:
    from scrapy_distributed.fleet.preflight import Check, Survey

GRACE_SECONDS = 3.0  # that a node has left when another has passed
AGAIN_SECONDS = 0.5  # until a node that has failed is asked again, while none has passed


def may_pass(error: Exception | None) -> bool:
    """Whether what is wrong may be over by itself: no way there, no answer, a server's error. A "no" stays one."""
    return isinstance(error, NodeError) and not isinstance(error, NodeRefusedError)


class RollCall:
    """Asks *nodes* for *survey*, until *clock* says *until* and for ``GRACE_SECONDS`` at least. *errors* gets the last
    error of each that has failed."""

    def __init__(
        self, survey: Survey, nodes: Sequence[Node], *, clock: Any, until: float, errors: dict[str, Exception]
    ) -> None:
        self.survey = survey
        self.nodes = nodes
        self.clock = clock
        self.until = until
        self.errors = errors
        self._some_pass = False
        self._over = False  # nobody waits any more
        self._running: dict[str, Deferred[None]] = {}
        self._timer: Any = None

    async def ask(self, checks: Sequence[Check]) -> None:
        """All nodes at once, each the *checks* one after the other, or as many as there is time for."""
        await self._together(lambda node: self.survey.ask([node], checks))

    async def ask_again(self, checks: Sequence[Check]) -> None:
        """Likewise; while none has passed, those are asked again whose fault may pass."""
        await self._together(lambda node: self._until_it_passes(node, checks))

    async def _until_it_passes(self, node: Node, checks: Sequence[Check]) -> None:
        while True:
            self.survey.forget(node)
            await self.survey.ask([node], checks)
            error = self.survey.error_of(node)
            if error is not None:
                self.errors[node.name] = error
            if self._over or self._some_pass or not may_pass(error) or self.clock.seconds() >= self.until:
                return
            await deferLater(self.clock, AGAIN_SECONDS)

    async def _together(self, ask: Callable[[Node], Coroutine[Any, Any, None]]) -> None:
        self._some_pass = self._over = False
        seconds = max(GRACE_SECONDS, self.until - self.clock.seconds())
        self._timer = self.clock.callLater(seconds, self._end, f"no answer within {seconds:.0f} s")
        self._running = {node.name: Deferred.fromCoroutine(ask(node)) for node in self.nodes}
        for node in self.nodes:
            self._running[node.name].addCallbacks(self._ended, _cancelled, callbackArgs=(node,))
        # A list that is cancelled ends well; this ends with the one who waits for it.
        all_ended: Deferred[Any] = Deferred()
        DeferredList(self._running.values(), fireOnOneErrback=True, consumeErrors=True).chainDeferred(all_ended)
        try:
            await all_ended
        finally:
            if self._timer.active():
                self._timer.cancel()
            self._over = True
            self._end("interrupted")

    def _ended(self, _: None, node: Node) -> None:
        if self._some_pass or self.survey.error_of(node) is not None:
            return
        self._some_pass = True
        if self._timer.active():
            self._timer.cancel()
            why = f"no answer {GRACE_SECONDS:g} s after that of another node: is it overloaded or stopped?"
            self._timer = self.clock.callLater(GRACE_SECONDS, self._end, why)

    def _end(self, why: str) -> None:
        """Cut off those that have not answered."""
        # All of them first: with the last one that is cancelled the next questions begin, in the same turn.
        late = [node for node in self.nodes if not self._running[node.name].called]
        running = self._running
        for node in late:
            self.survey.give_up(node, NodeAmbiguousError(node.name, why))
        for node in late:
            running[node.name].cancel()


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)  # type: ignore[no-untyped-call]

"""The pause between two looks at a node: a time-out, and news of the node end it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


class Pause:
    """The pauses of one watch, one after the other. Times are seconds of *clock*."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._timer: Any = None  # while somebody rests
        self._soonest = 0.0  # it does not end before
        self._news = False

    async def rest(self, seconds: float, *, least: float) -> None:
        """For *seconds*, or until there is news; but for *least* at any rate, so that news that come all the time can't
        make a busy loop. News that have come since the last pause count."""
        over: Deferred[None] = Deferred()
        self._soonest = self._clock.seconds() + least
        self._timer = self._clock.callLater(least if self._news else seconds, over.callback, None)
        try:
            await over
        finally:
            if self._timer.active():  # else it is over, and was not cut off
                self._timer.cancel()
            self._timer, self._news = None, False

    def news(self) -> None:
        """A look would show something new."""
        self._news = True
        if self._timer is not None and self._timer.active() and self._timer.getTime() > self._soonest:
            self._timer.reset(max(0.0, self._soonest - self._clock.seconds()))


class Pauses:
    """Those of all watches."""

    def __init__(self) -> None:
        self._all: list[Pause] = []

    def add(self, pause: Pause) -> None:
        self._all.append(pause)

    def news(self) -> None:
        """A look at any node would show something new."""
        for pause in self._all:
            pause.news()

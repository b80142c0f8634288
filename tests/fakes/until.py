"""Waiting for something to come true, with a deadline instead of a guess."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet import reactor
from twisted.internet.task import deferLater

T = TypeVar("T")


async def until(check: Callable[[], Awaitable[T]], seconds: float = 30) -> T:
    """What *check* returns as soon as that is true; fails after *seconds*."""
    deadline = time.monotonic() + seconds
    while True:
        result = await check()
        if result:
            return result
        assert time.monotonic() < deadline, f"still {result!r} after {seconds} s"
        await deferLater(reactor, 0.05)

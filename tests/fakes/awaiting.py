"""Tests that await asyncio step by step: on a loop of their own, which stands still between two steps."""

from __future__ import annotations

import asyncio
from asyncio.events import _get_running_loop, _set_running_loop
from collections.abc import Callable, Coroutine
from functools import cache, wraps
from typing import Any, TypeVar

T = TypeVar("T")
SECONDS = 120
_loop = cache(asyncio.new_event_loop)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """What *coroutine* returns. Tests are called by the reactor, whose loop takes itself for the only one."""
    around = _get_running_loop()
    _set_running_loop(None)
    try:
        return _loop().run_until_complete(asyncio.wait_for(coroutine, SECONDS))
    finally:
        _set_running_loop(around)


def awaited(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def called(**fixtures: Any) -> None:
        run(test(**fixtures))

    return called

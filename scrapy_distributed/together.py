"""Many coroutines at once."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults

T = TypeVar("T")


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What they return, in order. Raises ``FirstError`` as soon as one of them raises; the others are not waited for,
    and what they raise is dropped."""
    results: list[T] = await gatherResults(map(Deferred.fromCoroutine, coroutines), consumeErrors=True)
    return results

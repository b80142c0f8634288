"""What is asyncio's, asked for by who is not: in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
PAGE = 500  # values
END_SECONDS = 2.0


class InThread:
    """A loop that can be asked from everywhere, also where another one runs; Ctrl-C ends the waiting for it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def ask(self, question: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()

    def each(self, values: AsyncIterator[T]) -> Iterator[T]:
        while page := self.ask(_page(values)):
            yield from page

    def close(self, last: Coroutine[Any, Any, object]) -> None:
        """After *last*, if that does not take long; what is under way ends as well."""
        asyncio.run_coroutine_threadsafe(self._end(last), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self, last: Coroutine[Any, Any, object]) -> None:
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(last, END_SECONDS)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._loop.shutdown_asyncgens()  # who was shown enough has left one in the middle


async def _page(values: AsyncIterator[T]) -> list[T]:
    page: list[T] = []
    async for value in values:
        page.append(value)
        if len(page) == PAGE:
            break
    return page

"""One Redis or Valkey: connections, scripts, waiting. Nothing else imports ``redis``, and this does so late: who has no
such server need not have it.

All of it is asyncio's: it is to be awaited in tasks of the running loop, not in callbacks of Twisted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from scrapy_distributed.errors import ConfigError, LedgerError, LedgerUnavailableError
from scrapy_distributed.shared import tls
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.shared.keys import Keys
from scrapy_distributed.shared.library import script

T = TypeVar("T")
Value = bytes | str | int | float

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0  # a server that writes its append-only file anew may take long
#: Of which kind such an error is depends on the release of redis-py.
NO_ENTRY = re.compile("NOAUTH|WRONGPASS|authentication required|invalid username-password|AUTH failed", re.IGNORECASE)
FULL = "OOM command not allowed"
#: How errors begin that may pass: it reads its file, runs a long script, has a full disk, is no master just now, ...
PASSING = ("LOADING", "BUSY", "MISCONF", "READONLY", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN")


class Server:
    """The server at *address*. Each method raises ``LedgerUnavailableError`` where the server can't be used now, and
    ``LedgerError`` where it can't be used at all."""

    def __init__(self, address: RedisAddress) -> None:
        try:
            from redis import asyncio as client
            from redis import exceptions
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError:
            raise ConfigError(
                f"{address}: the redis package is not installed: pip install 'scrapy-distributed-batches[redis]'"
            ) from None
        self.address = address
        self._errors = exceptions
        place: dict[str, Any] = {"unix_socket_path": address.path} if address.path else {
            "host": address.host, "port": address.port, "socket_keepalive": True, **tls.options(address),
        }  # fmt: skip
        usual: dict[str, Any] = {
            **place, "db": address.database, "username": address.username or None,
            "password": address.password or None, "protocol": 2, "socket_connect_timeout": CONNECT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
        }  # fmt: skip
        self._client: Any = client.Redis(**usual, socket_timeout=ANSWER_SECONDS)
        self._waiting: Any = client.Redis(**usual, socket_timeout=None)
        for one in (self._client, self._waiting):
            one.response_callbacks.clear()  # answers as the server gives them, in scripts and elsewhere
        self._under_way: set[asyncio.Future[Any]] = set()

    @classmethod
    async def connect(cls, address: RedisAddress) -> Server:
        """Raises ``LedgerError`` where the server answers and refuses us."""
        server = cls(address)
        try:
            await server.command("PING")
        except BaseException:
            await server.close()
            raise
        return server

    async def script(self, name: str, keys: Keys, *args: Value) -> Any:
        """What the script *name* answers. It is not cut short where its caller is cancelled. Where the connection is
        lost it is asked once more, as it may or may not have been applied: each script may be."""
        found = script(name)

        async def call() -> Any:
            try:
                return await self._client.execute_command("EVALSHA", found.digest, 1, keys.all, *args)
            except self._errors.NoScriptError:  # the server is new, or was started anew
                return await self._client.execute_command("EVAL", found.text, 1, keys.all, *args)

        return await self._whole(call)

    async def command(self, *words: Value) -> Any:
        """What one plain command answers, which may be given twice."""
        return await self._whole(lambda: self._client.execute_command(*words))

    async def commands(self, commands: Sequence[Sequence[Value]]) -> list[Any]:
        """What plain commands answer, which only read, or may be given twice."""

        async def call() -> list[Any]:
            async with self._client.pipeline(transaction=False) as pipeline:
                for words in commands:
                    pipeline.execute_command(*words)
                answers: list[Any] = await pipeline.execute()
                return answers

        return await self._whole(call) if commands else []

    async def about(self) -> tuple[dict[str, str], dict[str, str]]:
        """What it says of itself, for ``checks``: its INFO, and its settings, none where it does not tell them."""
        info = await self.command("INFO")
        pairs = (line.split(b":", 1) for line in info.splitlines() if b":" in line)
        try:
            config = await self.command("CONFIG", "GET", "*")
        except LedgerError:
            config = []
        return _texts([text for pair in pairs for text in pair]), _texts(config)

    async def wait(self, keys: Keys, after: str, seconds: float) -> str:
        """Until something happens in the project, or for *seconds*. *after*: the id of the last event that is known;
        returns the last one there is now."""
        block = max(1, int(seconds * 1000))
        words = ("XREAD", "BLOCK", block, "STREAMS", keys.events, after)
        try:
            answer = await asyncio.wait_for(self._waiting.execute_command(*words), seconds + ANSWER_SECONDS)
        except (self._errors.RedisError, OSError, asyncio.TimeoutError) as error:
            raise self._unusable(error) from None
        return answer[0][1][-1][0].decode() if answer else after

    async def close(self) -> None:
        """What is under way is waited for, as long as the server answers."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=ANSWER_SECONDS)
        await self._client.aclose()
        await self._waiting.aclose()

    # Inside

    async def _whole(self, call: Callable[[], Awaitable[T]]) -> T:
        task = asyncio.ensure_future(self._answered(call))
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be there to hear of it

    async def _answered(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            try:
                return await call()
            except (self._errors.ConnectionError, OSError):  # one that has idled may be dead, too
                return await call()
        except (self._errors.RedisError, OSError, asyncio.TimeoutError) as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> LedgerError | LedgerUnavailableError:
        text = str(error) or type(error).__name__
        if isinstance(error, self._errors.NoPermissionError) or NO_ENTRY.search(text):
            return LedgerError(
                f"{self.address}: refuses us ({text}): user and password are those of its URL, or of the environment"
            )
        if self.address.tls and (remedy := tls.remedy(text)):
            return LedgerError(f"no connection to {self.address} by TLS ({text}): {remedy}")
        if FULL in text or type(error).__name__ == "OutOfMemoryError":
            return LedgerUnavailableError(
                f"Redis at {self.address} is full (maxmemory): nothing more is added or claimed until batches are"
                " settled and fetched, or it is given more memory"
            )
        if type(error) is self._errors.ResponseError and not text.startswith(PASSING):
            return LedgerError(f"Redis at {self.address} can't be used: {text}")
        return LedgerUnavailableError(f"Redis at {self.address} can't be used now: {text}")


def _texts(flat: Sequence[bytes]) -> dict[str, str]:
    texts = [text.decode("utf-8", "replace") for text in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))

"""How a supervisor sees that a worker lives: its event loop touches a file each second, or answers at a port."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.words import shortened

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
EVERY = 1.0  # seconds
_REQUEST_SECONDS = 5.0
_REQUEST_BYTES = 16 * 1024
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"


@dataclass(frozen=True, kw_only=True)
class Health:
    """By a *file*, or at *port* of *host*."""

    file: Path | None = None
    host: str = HOST
    port: int = 0

    @classmethod
    def from_text(cls, text: str) -> Health:
        """``8080`` and ``0.0.0.0:8080`` are ports, anything else is a file. Raises ``ConfigError``."""
        host, _, number = text.rpartition(":")
        if not (number.isascii() and number.isdigit()) or "/" in host:
            return cls(file=Path(text).absolute())
        if not 0 < int(number) < 65536:
            raise ConfigError(f"--health: found port {shortened(number)}, expected 1 to 65535, or the name of a file")
        return cls(host=host.strip("[]") or HOST, port=int(number))

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """While its body runs. Raises ``ConfigError`` where it can't be shown."""
        try:
            if self.file is None:
                server = await asyncio.start_server(_answer, self.host, self.port, limit=_REQUEST_BYTES)
                end: Callable[[], object] = server.close
            else:
                self.file.touch()
                end = asyncio.ensure_future(_touch(self.file)).cancel
        except OSError as error:
            place = self.file or f"{self.host}:{self.port}"
            raise ConfigError(
                f"--health: {place} can't be used ({shortened(str(error))}): expected a file that can be written, or a"
                " port that is free"
            ) from None
        try:
            yield
        finally:
            end()


async def _touch(file: Path) -> None:
    failed = False
    while True:
        await asyncio.sleep(EVERY)
        try:
            file.touch()
            failed = False
        except OSError as error:
            if not failed:
                logger.warning("--health: %s can't be touched, trying again: %s", file, error)
            failed = True


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Whatever is asked for."""
    with suppress(OSError, ValueError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _REQUEST_SECONDS)
        writer.write(_ANSWER)
        await writer.drain()
    writer.close()

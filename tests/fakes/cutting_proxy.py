"""A proxy before a server on a socket, which can lose answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path


class CuttingProxy:
    """At *path*. *lose*: so many of the next answers do not arrive: what was asked for is done, and the connection
    ends. *keep*: answers that have this in them do not arrive either, but the connection stays."""

    def __init__(self, path: Path, server: Path) -> None:
        self.path = path
        self.lose = 0
        self.keep = b""
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> CuttingProxy:
        self._listening = await asyncio.start_unix_server(self._serve, str(self.path))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._listening.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_unix_connection(str(self._server))
        self._writers |= {writer, ours}
        for one in (self._forth(reader, ours), self._back(theirs, writer, ours)):
            self._tasks.add(asyncio.ensure_future(one))

    async def _forth(self, reader: asyncio.StreamReader, ours: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                ours.write(data)
                await ours.drain()
        ours.close()

    async def _back(
        self, theirs: asyncio.StreamReader, writer: asyncio.StreamWriter, ours: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await theirs.read(65536):
                if self.lose:
                    self.lose -= 1
                    break
                if self.keep and self.keep in data:
                    continue
                writer.write(data)
                await writer.drain()
        writer.close()
        ours.close()

"""The log of a job, read in parts: of one on this machine its file, of one on a Scrapyd what that serves."""

from __future__ import annotations

import codecs
from typing import Protocol

from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.fleet.node import Node
from scrapy_distributed.password import without_passwords
from scrapy_distributed.words import escaped

PIECE = 64 * 1024  # bytes that are read at once; characters of a line that are held back until it ends


class JobLog(Protocol):
    """Its methods raise ``OSError`` or ``NodeError``."""

    async def part(self, first: int) -> bytes | None:
        """Some of it from the byte *first* on; ``b""`` where there is no more, ``None`` where there is none at all."""

    async def runs(self) -> bool:
        """Whether its job is under way."""


class LocalLog:
    """Of *job* in *files*."""

    def __init__(self, files: JobFiles, job: str) -> None:
        self.files = files
        self.job = job

    async def part(self, first: int) -> bytes | None:
        try:
            with self.files.log(self.job).open("rb") as file:
                file.seek(first)
                return file.read(PIECE)
        except FileNotFoundError:
            return None

    async def runs(self) -> bool:
        return self.files.is_held(self.job)


class NodeLog:
    """Of *job* of *spider* in *project*, on *node*."""

    def __init__(self, node: Node, *, project: str, spider: str, job: str) -> None:
        self.node = node
        self.project = project
        self.spider = spider
        self.job = job

    async def part(self, first: int) -> bytes | None:
        return await self.node.log_part(self.project, self.spider, self.job, first, PIECE)

    async def runs(self) -> bool:
        return await self.node.status(self.job, self.project) in ("pending", "running")


class Printer:
    """Prints a log as it comes, line by line: without passwords in URLs, and nothing in it controls the terminal."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, part: bytes) -> None:
        *lines, self._rest = (self._rest + self._decoder.decode(part)).split("\n")
        for line in lines:
            print(_shown(line))
        if len(self._rest) > PIECE:
            print(_shown(self._rest), end="")
            self._rest = ""

    def end(self) -> None:
        if rest := self._rest + self._decoder.decode(b"", final=True):
            print(_shown(rest))


def _shown(text: str) -> str:
    return escaped(without_passwords(text))

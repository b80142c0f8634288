"""What accepted attempts have brought, in the order in which they were accepted, until the owner of the walk has taken
it home, or put it into the stream of the run.

The stream is ``items`` of the run. An entry has the fields ``item`` (JSON), ``class`` (``dict``, or module and name),
``spider``, ``run``, ``batch`` (as the argument of a job), ``job`` (its id) and ``number`` (which of the items of that
job that count it is, from 1). Entries are put there in order, each once: how many items of an attempt were gone through
is counted with them, also those that can't be written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scrapy_distributed.ledger.states import job_id, label
from scrapy_distributed.shared.intake import lost_walk
from scrapy_distributed.shared.keys import Keys
from scrapy_distributed.shared.server import Server, Value
from scrapy_distributed.wire.bitmap import bitmap_from_bytes
from scrapy_distributed.wire.reasons import DUPLICATE
from scrapy_distributed.wire.seen_key import seen_key


class Streamed(NamedTuple):
    """How far the items of an attempt that count are in the stream: the first *place* of them were gone through, and so
    many of these are not there, as they can't be written (*unwritten*)."""

    place: int
    unwritten: int


@dataclass(frozen=True, kw_only=True)
class Home:
    """An accepted attempt. *token*: of its lease, *secret*: that of ``Attempt.token``. *settled*: bitmap of *its*
    positions, of which it has *size*; *last*: its run was stopped, so items of the others count as well. *items*: that
    it has scraped; *parts*: of lines of items that are there; *callback_errors*: callbacks that have raised; *source*:
    whose its pages are; *streamed*: how far its items are in the stream. Batch 0 is the coordinator's own."""

    batch: int
    number: int
    token: str
    secret: str
    worker: str
    size: int
    settled: int
    last: bool
    items: int
    parts: int
    callback_errors: int
    finish_reason: str
    stats: Mapping[str, float]
    source: str
    streamed: Streamed

    @property
    def label(self) -> str:
        return label(self.batch, self.number)


class Entry(NamedTuple):
    """Of the stream: *item* as JSON, and the name of its class (*kind*)."""

    item: bytes
    kind: str


UNWRITTEN = Entry(b"", "")  # in the place of one that can't be written


class Harvest:
    """For the *owner* of the walk of *run*. What changes something raises ``LostWalkError`` where it is another's."""

    def __init__(self, server: Server, project: str, run: str, *, owner: str) -> None:
        self.server = server
        self.keys = Keys(project)
        self.run = run
        self.owner = owner

    async def first(self) -> Home | None:
        """The first that has not been taken home; it stays the first until it is ``taken``."""
        token = await self.server.command("LINDEX", self.keys.of(self.run, "home"), 0)
        if token is None:
            return None
        batch, number, secret = token.decode().split(".")
        flat = await self.server.command("HGETALL", self.keys.of(self.run, "attempt", f"{batch}.{number}"))
        row = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
        return Home(
            batch=int(batch), number=int(number), token=token.decode(), secret=secret, worker=row["worker"].decode(),
            size=int(row["size"]), settled=bitmap_from_bytes(bytes.fromhex(row["receipt"].decode())),
            last="partial" in row, items=int(row["items"]), parts=int(row.get("lines", 0)),
            callback_errors=int(row["errors"]), finish_reason=row["reason"].decode(),
            stats=json.loads(row.get("stats", "{}")), source=row.get("source", token).decode(),
            streamed=Streamed(int(row.get("streamed", 0)), int(row.get("unwritten", 0))),
        )  # fmt: skip

    async def part(self, home: Home, index: int) -> bytes:
        """Lines of its items."""
        return bytes(await self.server.command("GET", self.keys.of(self.run, "staged", home.token, "i", index)) or b"")

    async def duplicates(self, home: Home) -> list[str]:
        """The encoded requests of the attempt that its worker has filtered as duplicates."""
        text = await self.server.command("HGET", self.keys.of(self.run, "outcome"), f"{home.batch}.{home.number}")
        positions = [position for position, _, reason, _ in json.loads(text or "[]") if reason == DUPLICATE]
        if not positions:
            return []
        names = [f"{home.batch}:{position}" for position in positions]
        found = await self.server.command("HMGET", self.keys.of(self.run, "kept"), *names)
        return [body.decode("ascii") for body in found if body is not None]

    async def publish(self, home: Home, spider: str, before: int, entries: Sequence[Entry]) -> Streamed:
        """Put *entries* of an attempt into the stream, of whose items so many were gone through *before*. Returns how
        far they are then: after these, or, where nobody has heard of an earlier call, after those of that."""
        job = job_id(self.run, home.batch, home.number, home.secret)
        args: list[Value] = [self.run, self.owner, home.token, before, spider, home.label, job]
        answer = await self.server.script("publish", self.keys, *args, *(value for one in entries for value in one))
        if answer is None:
            raise lost_walk(self.server, self.run)
        return Streamed(*answer)

    async def taken(
        self, home: Home, *, items: int = 0, twice: int = 0, size: int = 0, digest: str = "", lost: int = 0
    ) -> None:
        """It is durable where it goes: so many *items* of it count, in a file of that *size* (bytes) and *digest*, if
        they are in one; so many did not come, as their page had brought them before (*twice*), or can't be read or
        written (*lost*)."""
        args = (home.token, items, twice, size, digest, lost)
        if not await self.server.script("taken", self.keys, self.run, self.owner, *args):
            raise lost_walk(self.server, self.run)

    async def enter_pages(self, source: str, keys: Sequence[bytes]) -> list[bool]:
        """Enter the *keys* of pages that have brought items, at most 1,000: whether each was new to the run, as a page
        and as a request of its own, or was entered by this very *source* before. They are not diverted, and
        ``Intake.add`` finds them there."""
        text = b"".join(map(seen_key, keys))
        flags = await self.server.script("enter_pages", self.keys, self.run, self.owner, source, text)
        if flags is None:
            raise lost_walk(self.server, self.run)
        return [flag == ord("1") for flag in flags]

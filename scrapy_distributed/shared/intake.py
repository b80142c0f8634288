"""What comes in: requests that the walk has found, each once; and how far a run is. For coordinators."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from scrapy_distributed.errors import LedgerError, LedgerUnavailableError
from scrapy_distributed.ledger.balance import Balance
from scrapy_distributed.ledger.states import new_token
from scrapy_distributed.shared import finds, portion
from scrapy_distributed.shared.attempts import Attempts
from scrapy_distributed.shared.keys import Keys, identity_key
from scrapy_distributed.shared.run_rules import RunRules
from scrapy_distributed.shared.server import Server, Value
from scrapy_distributed.wire.seen_key import seen_key
from scrapy_distributed.wire.session import Session

PAGE = 500  # keys
MOST = 1000  # requests in one call: a script that takes a millisecond holds up everybody


class LostWalkError(LedgerUnavailableError):
    """The walk is another coordinator's by now."""


class Begun(NamedTuple):
    """*run*: its name; *is_new*: begun now; *version*: of the code that its jobs are to have; *walked*: its walk is
    done; *ended*: it is over, and its result is not stored; *stopped*: why it was, if it was."""

    run: str
    is_new: bool
    version: str
    walked: bool
    ended: bool
    stopped: str | None


class Own(NamedTuple):
    """What a coordinator scrapes itself, as an attempt at a batch 0. *token*: as of a lease; *source*: whose its pages
    are."""

    token: str
    source: str


class Owner(NamedTuple):
    """Whether the walk *is_ours*, else whose it is (*name*), and for how many *seconds* yet."""

    is_ours: bool
    name: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """A worker that has joined. *seen*: seconds ago."""

    worker: str
    host: str
    pid: int
    slots: int
    version: str
    spiders: tuple[str, ...]
    state: str
    seen: float


@dataclass(frozen=True, kw_only=True)
class State:
    """How a run stands. *time*, *started*, *walked*, *ended*: seconds since 1970 by the server's clock; *owner* of the
    walk, '' where nobody has it now; *items*: scraped by attempts that count. *portions*: parts of portions that wait;
    *again*: batches that go out again; *moving*, *home*: accepted attempts whose finds are still to be added, and that
    have not been taken home; *own*: attempts of coordinators whose own items do not count yet; *unadded*: who has the
    walk, or had it, may have found what is not added; *adds*, *taken*: calls that have added something, and attempts
    that were taken home; *streamed*: entries that were put into the stream, and *reread* those that the server had
    forgotten since; *at_work*: attempts under way. *event*: id of the last event, for ``Server.wait``."""

    time: float
    balance: Balance
    started: float
    walked: float | None
    stopped: str | None
    ended: float | None
    stored: bool
    paused: bool
    owner: str
    version: str
    items: int
    portions: int
    again: int
    moving: int
    home: int
    own: int
    unadded: bool
    adds: int
    taken: int
    streamed: int
    reread: int
    at_work: int
    workers: tuple[WorkerRow, ...]
    event: str

    @property
    def slots(self) -> int:
        """Of the workers that have joined."""
        return sum(worker.slots for worker in self.workers)


class Intake:
    """For a coordinator of *project*, which is told apart as *owner*. Each method but ``begin`` is about the run that
    has begun, and may raise ``LedgerUnavailableError``; to ask again is always right."""

    def __init__(self, server: Server, project: str, *, owner: str | None = None) -> None:
        self.server = server
        self.keys = Keys(project)
        self.owner = owner or secrets.token_hex(8)
        self.run = ""
        self._name = secrets.token_hex(4)  # of this object: an owner may have been another process before
        self._added = 0
        self._before = ""  # the name of the last call that has added something
        self._tail: Sequence[str] = ()  # what is in the portion that it has made, where there is room for more

    async def begin(
        self, identity: Mapping[str, Any], *, spider: str, template: str, version: str, rules: RunRules, resume: bool
    ) -> Begun:
        """Take up the run of *identity* whose result is not ``stored``, or begin one; without *resume* the older one is
        abandoned.
        *template*: JSON of what every job gets; *version*: of the code. Those of a run that is taken up are renewed,
        where nobody else has its walk now."""
        text = json.dumps(identity, sort_keys=True)
        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        fields: dict[str, Value] = {
            "identity": text, "project": self.keys.project, "spider": spider, "template": template, "version": version,
            "rules": rules.as_text(), "lease": round(rules.lease_seconds * 1000),
        }  # fmt: skip
        flat = [value for pair in fields.items() for value in pair]
        answer = await self.server.script("begin", self.keys, identity_key(text), int(resume), name, *flat)
        run, is_new, (its_version, walked, ended, stopped) = answer
        self.run = run.decode()
        return Begun(
            self.run, bool(is_new), its_version.decode(), walked is not None, ended is not None,
            None if stopped is None else stopped.decode(),
        )  # fmt: skip

    # The walk

    async def walk(self, lease_seconds: float) -> Owner:
        """Take the walk for so long, or keep it."""
        answer = await self.server.script("walk", self.keys, self.run, self.owner, round(lease_seconds * 1000))
        return Owner(bool(answer[0]), answer[1].decode(), answer[2] / 1000)

    async def leave_walk(self, *, added: bool = False) -> None:
        """Give the walk up, so that another coordinator need not wait for the end of its lease. *added*: all that it
        has found and scraped here is."""
        await self.server.script("leave_walk", self.keys, self.run, self.owner, int(added))

    async def walked(self) -> None:
        """The walk is done. Raises ``LostWalkError``."""
        await self._as_owner("walked", 1)

    async def walk_on(self) -> None:
        """It begins, or is not done, after all. Raises ``LostWalkError``."""
        await self._as_owner("walked", 0)

    async def lost_own(self, lost: Mapping[str, int]) -> None:
        """What has failed so far of the walk, reason to number. Raises ``LostWalkError``."""
        await self._as_owner("lost_own", json.dumps(dict(lost)))

    async def begin_own(self, host: str, *, anew: bool) -> Own:
        """Keep from now on what is scraped on this *host*. *anew*: with the walk; what was kept of an earlier one, and
        does not count yet, goes. Raises ``LostWalkError``."""
        secret = new_token()
        number, source = await self._as_owner("own", secret, host, int(anew))
        return Own(f"0.{number}.{secret}", source.decode())

    async def own_items(self) -> int:
        """How many items of what was scraped here the server keeps, and they do not count yet."""
        tokens = await self.server.command("LRANGE", self.keys.of(self.run, "own"), 0, -1)
        names = [self.keys.of(self.run, "attempt", token.decode().rpartition(".")[0]) for token in tokens]
        return sum(int(items) for items in await self.server.commands([("HGET", name, "items") for name in names]))

    async def stage_own(self, own: Own, index: int, lines: bytes, items: int) -> None:
        """The *lines* of so many *items* that were scraped here; *index*: which call with *own* it is, from 0. Raises
        ``LostWalkError``, and ``LedgerError`` where the server has forgotten that it was told of *own*, or of a call
        before."""
        if await self._as_owner("stage_own", own.token, index, lines, items) == b"forgotten":
            raise self.forgetful()

    async def settle_own(self) -> bool:
        """What was scraped here counts, and is the last of what is to be taken home. Returns whether it does: not while
        the walk goes on. Raises ``LostWalkError``."""
        return bool(await self._as_owner("settle_own") == b"done")

    async def add(self, entries: Sequence[tuple[bytes, str]], sessions: Iterable[Session] = ()) -> list[str]:
        """Enter (key, encoded request) pairs, with the *sessions* of them; returns the requests whose key is new to the
        run, in order. Keys may have any length. Raises ``LostWalkError``. Where it fails and is called again with the
        same, at most 1,000, it returns what it would have returned."""
        new: list[str] = []
        for first in range(0, len(entries), MOST):
            some = [(seen_key(key), body) for key, body in entries[first : first + MOST]]
            flags = await self._add(some, [*sessions] if first == 0 else [])
            new += [body for (_, body), flag in zip(some, flags, strict=True) if flag == ord("1")]
        return new

    async def _add(self, some: Sequence[finds.Find], sessions: Sequence[Session]) -> bytes:
        """A flag for each."""
        digest = blake2b(b"".join(key for key, _ in some), digest_size=8).hexdigest()
        name = f"{self._name}.{self._added}.{digest}"
        portions = finds.portions(some, self._tail)
        answer = await self.server.script(
            "add", self.keys, self.run, self.owner, name, self._before, portions.skipped, len(sessions),
            *(value for session in sessions for value in session), *portions.args,
        )  # fmt: skip
        if answer is None:
            raise lost_walk(self.server, self.run)
        flags, can_grow = answer
        self._added += 1
        self._before = name
        if b"1" in flags:
            own = flags[-portions.own :]
            filled = len(portions.last) - len(own) + own.rfind(b"1") + 1
            self._tail = portions.last[:filled] if can_grow and b"1" in own and filled < portion.SIZE else ()
        return bytes(flags)

    async def move(self) -> int:
        """Add a part of what accepted attempts have found, where workers have left that. How many parts are left."""
        return await finds.move(self.server, self.keys, self.run)

    async def lose_overdue(self) -> None:
        """What workers do, where none is left: the batches of attempts whose lease has run out wait again."""
        flat = await self.server.script("overdue", self.keys, self.run)
        for token, deadline in zip(flat[::2], flat[1::2], strict=True):
            await Attempts(self.server, self.keys).lose(self.run, token.decode(), float(deadline))

    # How it stands

    async def state(self) -> State:
        return state_of(await self.server.script("state", self.keys, self.run))

    async def wait(self, state: State, seconds: float) -> str:
        """Until something has happened since *state*, or for *seconds*."""
        return await self.server.wait(self.keys, state.event, seconds)

    async def come_home(self, place: str) -> None:
        """Items come home to *place*, a machine and folder: the first one that says so."""
        if not await self.home():  # else a full server would refuse it
            await self.server.command("HSETNX", self.keys.of(self.run), "home", place)

    async def home(self) -> str:
        """The place where items come home, '' if there is none yet."""
        found: bytes | None = await self.server.command("HGET", self.keys.of(self.run), "home")
        return (found or b"").decode()

    async def forgot_of_stream(self, state: State, entries: int) -> None:
        """So many *entries* of the stream were there, and, since *state*, are not: readers may see them again."""
        await self.server.command("HSET", self.keys.of(self.run), "reread", state.reread + entries)

    async def stored(self) -> None:
        """The result of a run that has ended is stored: from now on the same command begins a new one. Which requests
        it has seen is kept, as it may be opened again; of the last one before that is forgotten. Raises
        ``LostWalkError``."""
        if before := await self._as_owner("stored"):
            await drop_seen(self.server, self.keys, before.decode())
            await self.server.command("HDEL", self.keys.of(self.run), "before")

    # Inside

    async def _as_owner(self, name: str, *args: Value) -> Any:
        answer = await self.server.script(name, self.keys, self.run, self.owner, *args)
        if answer == 0:
            raise lost_walk(self.server, self.run)
        return answer

    def forgetful(self) -> LedgerError:
        """The server has forgotten what it had told to be there."""
        return LedgerError(
            f"Redis at {self.server.address} has forgotten what it had taken, as one that loses its power may (with"
            " appendfsync always it does not), or one whose replica takes over: give the same command again, which"
            " crawls that once more"
        )


def lost_walk(server: Server, run: str) -> LostWalkError:
    return LostWalkError(f"run {run} on {server.address}: its walk is another coordinator's by now")


async def drop_seen(server: Server, keys: Keys, run: str) -> None:
    """What takes most of the memory of a run that is over."""
    buckets = int(await server.command("HGET", keys.of(run), "buckets") or 0)
    for first in range(0, buckets, PAGE):
        names = [keys.of(run, "seen", bucket) for bucket in range(first, min(buckets, first + PAGE))]
        await server.command("UNLINK", *names)


def state_of(answer: list[Any]) -> State:
    ms, flat, portions, again, moving, home, at_work, own, workers, heard, event = answer
    row = {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
    seen = {name.decode(): (ms - float(score)) / 1000 for name, score in zip(heard[::2], heard[1::2], strict=True)}

    def count(name: str) -> int:
        return int(row.get(name, 0))

    def seconds(name: str) -> float | None:
        return int(row[name]) / 1000 if name in row else None

    balance = Balance(
        diverted=count("diverted"), duplicates=count("duplicates"), queued=count("queued"),
        in_flight=count("in_flight"), crawled=count("crawled"), failed=count("failed"), filtered=count("filtered"),
        dead=count("dead"), not_crawled=count("not_crawled"),
    )  # fmt: skip
    return State(
        time=ms / 1000, balance=balance, started=seconds("started") or 0, walked=seconds("walked"),
        stopped=row["stopped"].decode() if "stopped" in row else None, ended=seconds("ended"),
        stored="stored" in row, paused="paused" in row,
        owner=row["owner"].decode() if count("owner_until") > ms else "", version=row.get("version", b"").decode(),
        items=count("items"), portions=portions, again=again, moving=moving, home=home, own=own,
        unadded="unadded" in row, adds=count("adds"), taken=count("taken"), streamed=count("streamed"),
        reread=count("reread"), at_work=at_work,
        workers=tuple(sorted((_worker(json.loads(text), seen) for text in workers), key=lambda row: row.worker)),
        event=event.decode(),
    )  # fmt: skip


def _worker(row: Mapping[str, Any], seen: Mapping[str, float]) -> WorkerRow:
    """*row*: as the worker tells it, which may be of another release than this."""
    name = str(row.get("worker", ""))
    return WorkerRow(
        worker=name, host=str(row.get("host", "")), pid=int(row.get("pid", 0)), slots=int(row.get("slots", 0)),
        version=str(row.get("version", "")), spiders=tuple(map(str, row.get("spiders", ()))),
        state=str(row.get("state", "")), seen=seen.get(name, 0.0),
    )  # fmt: skip

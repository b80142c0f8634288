"""One Scrapyd over treq: every endpoint, the receipts and the logs. A body becomes a value or a ``NodeError``.

Scrapyd says "no" with HTTP 200 and ``{"status": "error"}``, so only 200 + JSON + ``status: ok`` is success.
Nothing is sent twice from here: Twisted's pool repeats a GET whose kept connection had been closed, never a POST.
"""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.web.client import Agent

from scrapy_distributed.errors import NodeError, NodeTooLongError
from scrapy_distributed.fleet.answer import Answer, check_code, failed, other_items, parsed
from scrapy_distributed.fleet.connection import Body, Endpoints, FileBody, Limit, MemoryBody, Pool, WriteError
from scrapy_distributed.wire.job import Job, Jobs, check_job, check_project, check_spider
from scrapy_distributed.wire.receipt import MAX_BYTES as MAX_RECEIPT_BYTES

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

_STATE = Limit(bytes=64 * 1024)
_LIST = Limit(bytes=1024 * 1024)
#: What is read of an answer at most: JSON may take 25 times as much memory, and is parsed on the event loop.
LIMITS = {
    "daemonstatus.json": _STATE,
    "status.json": _STATE,
    "cancel.json": _STATE,
    "delversion.json": _STATE,
    "delproject.json": _STATE,
    "listprojects.json": _LIST,
    "listversions.json": _LIST,
    "listspiders.json": _LIST,
    "addversion.json": _LIST,  # if it is refused: all that ``scrapy list`` has written
    "schedule.json": _LIST,  # likewise, where it is the first call for a version
    "listjobs.json": Limit(
        bytes=8 * 1024 * 1024,
        words="its list of jobs is too long to be read, as each pending one is in it with its whole batch: wait until"
        " they are fewer, or lower finished_to_keep in its scrapyd.conf",
    ),
}
#: Not by the size of the batch: targets, feeds and stats of one request may have as much as those of many.
_RECEIPT_WORDS = (
    "its receipt is larger than any worker writes it: it is not read; if nobody has put it there by hand, please report"
    " this"
)
#: Of a log that comes from its beginning, and of which the end is kept.
LOG_LIMIT = Limit(
    bytes=64 * 1024 * 1024,
    words="the end of this log was asked for, and all of it is sent, which is too much: let a proxy pass on Range",
)
#: A listing of what lies in a folder. That it begins is all that counts.
FOLDER_LIMIT = Limit(bytes=64 * 1024)
#: The page of an error: its status says enough.
ERROR_LIMIT = Limit(bytes=64 * 1024)
#: Scrapyd closes a connection after 60 idle seconds; ours end well before, so that no POST runs into its closing.
IDLE_CONNECTION_SECONDS = 30
#: ``addversion.json`` runs ``scrapy list`` before it answers.
ADDVERSION_SECONDS = 120.0
#: Of a file, on average over a call's deadline. A line that is fit for a crawl has more, also where a hundred files
#: share it; so what comes more slowly is held back by somebody, who could hold the connection for ever.
LEAST_BYTES_A_SECOND = 1000
_VERSION = re.compile(r"[A-Za-z0-9_-]{1,251}")  # and .egg behind it: the name of a file


@dataclass(frozen=True, kw_only=True)
class NodeAddress:
    """Where a node is. *name* stands for it everywhere; *url* has no userinfo and no slash at its end."""

    name: str
    url: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class DaemonStatus:
    """Number of jobs of all projects. *finished* only counts those that the node remembers (100). *slots*: how many it
    runs at once; *poll_seconds*: between two looks into its queue, 0 where a job starts at once (see ``Carrier.look``).
    ``None`` where it does not tell: a Scrapyd tells neither."""

    pending: int
    running: int
    finished: int
    node_name: str
    slots: int | None = None
    poll_seconds: float | None = None


@asynccontextmanager
async def open_nodes(addresses: Iterable[NodeAddress], **options: Any) -> AsyncIterator[list[Node]]:
    """A ``Node`` for each, made with *options*; all are closed at the end."""
    nodes = [Node(address=address, **options) for address in addresses]
    try:
        yield nodes
    finally:
        for node in nodes:
            await node.close()


class Node:
    """One Scrapyd.

    *deadline_seconds* covers one call from connecting to the last byte of its body; treq's own ``timeout``
    ends at the headers. *client* is anything with the ``request`` of treq's ``HTTPClient``;
    *clock* tells the deadline's time.

    Every method raises ``NodeUnreachableError`` (nothing was sent), ``NodeRefusedError`` (the answer is no)
    or ``NodeAmbiguousError`` (it may have been done), also where it is cancelled; besides these only
    ``ConfigError``, for what must not be sent.
    """

    def __init__(
        self,
        *,
        address: NodeAddress,
        deadline_seconds: float = 15,
        client: HTTPClient | None = None,
        clock: IReactorTime | None = None,
    ) -> None:
        self.address = address
        self.name = address.name
        self._deadline_seconds = deadline_seconds
        self._auth = (address.username, address.password) if address.username or address.password else None
        self._pool: Pool | None = None
        self._calls: set[Deferred[tuple[int, bytes]]] = set()
        if client is None or clock is None:
            from twisted.internet import reactor  # here: importing it installs a reactor

            clock = clock or reactor
            # As many, for receipts are fetched side by side.
            self._pool = Pool(reactor, idle_seconds=IDLE_CONNECTION_SECONDS, kept=8)
            endpoints: Any = Endpoints(reactor, seconds=deadline_seconds)
            agent: Any = Agent.usingEndpointFactory(reactor, endpoints, self._pool)  # type: ignore[no-untyped-call]
        self._client = client or HTTPClient(agent)
        self._clock: Any = clock

    async def daemonstatus(self) -> DaemonStatus:
        """Three numbers, cheap at any backlog."""
        answer = await self._api("GET", "daemonstatus.json")
        counts = {state: answer.integer(state) for state in ("pending", "running", "finished")}
        return DaemonStatus(**counts, node_name=answer.text("node_name"))

    async def lets_anybody_in(self) -> bool:
        """Whether it answers without credentials. ``False`` also where that can't be told."""
        stranger = copy(self)
        stranger._auth = None
        try:
            await stranger.daemonstatus()
        except NodeError:
            return False
        return True

    async def schedule(
        self,
        project: str,
        spider: str,
        *,
        jobid: str,
        version: str | None = None,
        priority: float | None = None,
        settings: Mapping[str, str] | None = None,
        args: Mapping[str, str] | None = None,
    ) -> str:
        """Queue one job and return its id. The same *jobid* sent twice runs twice.

        Raises ``ConfigError`` before anything is sent for an argument that would wedge the node."""
        settings, args = settings or {}, args or {}
        check_project(project)
        check_spider(spider)
        check_job(jobid, settings, args)
        form = [("project", project), ("spider", spider), ("jobid", jobid)]
        form += [("_version", version)] if version is not None else []
        form += [("priority", str(priority))] if priority is not None else []
        form += [("setting", f"{key}={value}") for key, value in settings.items()]
        answer = await self._api("POST", "schedule.json", data=[*form, *args.items()])
        return answer.text("jobid")

    async def cancel(self, project: str, job: str, signal: str | None = None) -> str | None:
        """End a job, and return what it was: ``"pending"`` (it never ran and never will), ``"running"``
        (*signal*, else INT, was sent to it) or ``None`` (unknown)."""
        form = [("project", project), ("job", job), *([("signal", signal)] if signal else [])]
        return (await self._api("POST", "cancel.json", data=form)).text_or_none("prevstate")

    async def status(self, job: str, project: str | None = None) -> str | None:
        """``"pending"``, ``"running"``, ``"finished"``, or ``None``: unknown, which is not "did not run"."""
        params = {"job": job, **({"project": project} if project else {})}
        return (await self._api("GET", "status.json", params=params)).text_or_none("currstate")

    async def addversion(self, project: str, version: str, egg: bytes) -> int:
        """Store *egg* and return its number of spiders; the node imports the project to count them."""
        check_project(project)
        answer = await self._api(
            "POST",
            "addversion.json",
            deadline_seconds=max(ADDVERSION_SECONDS, self._deadline_seconds),
            data=[("project", project), ("version", version)],
            files={"egg": ("project.egg", "application/octet-stream", io.BytesIO(egg))},
        )
        return answer.integer("spiders")

    async def listprojects(self) -> list[str]:
        """Names of the projects that the node has."""
        return (await self._api("GET", "listprojects.json")).texts("projects")

    async def listversions(self, project: str) -> list[str]:
        """Versions as Scrapyd stores them (``[^A-Za-z0-9_-]`` is ``_``), in an order not to be
        trusted (9_0 after 10_0); empty for a project that it does not have. What Scrapyd could not have stored, and
        could not find again, is left out."""
        answer = await self._api("GET", "listversions.json", params={"project": project})
        return [version for version in answer.texts("versions") if _VERSION.fullmatch(version)]

    async def listspiders(self, project: str, version: str | None = None) -> list[str]:
        """Names of the spiders; the first call for a version imports the project on the node."""
        params = {"project": project, **({"_version": version} if version is not None else {})}
        return (await self._api("GET", "listspiders.json", params=params)).texts("spiders")

    async def listjobs(self, project: str | None = None) -> Jobs:
        """All jobs that the node remembers. Carries the payload of every pending one: heavy.

        Raises ``NodeTooLongError`` where it is too heavy."""
        answer = await self._api("GET", "listjobs.json", params={"project": project} if project else {})
        states = ("pending", "running", "finished")
        return Jobs(**{state: tuple(_job(entry) for entry in answer.objects(state)) for state in states})

    async def delversion(self, project: str, version: str) -> None:
        """Delete one version."""
        await self._api("POST", "delversion.json", data=[("project", project), ("version", version)])

    async def delproject(self, project: str) -> None:
        """Delete a project with all its versions."""
        await self._api("POST", "delproject.json", data=[("project", project)])

    async def receipt(self, project: str, spider: str, job: str) -> bytes | None:
        """What the worker of *job* has reported so far, ``None`` if there is nothing (yet).

        One that is too large to be a receipt is a ``NodeTooLongError``: the job's fault, and not the node's."""
        path = f"{_receipts(project, spider)}/{_quoted(job)}.json"
        limit = Limit(bytes=MAX_RECEIPT_BYTES, words=_RECEIPT_WORDS)
        return self._content(path, *await self._exchange("GET", path, MemoryBody(limit)))

    async def items(self, project: str, spider: str, job: str, file: BinaryIO, *, size: int, digest: str) -> None:
        """Write the items of *job* to *file*, a buffered one, as they come: *size* bytes with the SHA-256 *digest*
        (hexadecimal), as its final receipt tells. *file* is not flushed; after any error what is in it is of no use.

        The deadline begins anew for as long as enough comes: ``LEAST_BYTES_A_SECOND``.

        Raises ``NodeItemsError`` where there is no such file, or another one: the job's fault, and not the node's.
        What *file* raises, an ``OSError`` say, comes out as it is: nobody's fault but ours."""
        path = f"{_receipts(project, spider)}/{_quoted(job)}.items"
        stride = int(self._deadline_seconds * LEAST_BYTES_A_SECOND)
        code, _ = await self._exchange("GET", path, FileBody(file, size=size, digest=digest, stride=stride))
        if code == 404:
            raise other_items(self.name, "HTTP 404")
        check_code(self.name, self.address.url, path, code)

    async def log_tail(self, project: str, spider: str, job: str, max_bytes: int = 4000) -> str | None:
        """The last *max_bytes* of the job's log, ``None`` if there is none; a node only keeps a spider's newest 5.

        Where a proxy sends more of it than can be read, the words that say so: no job waits for its log."""
        try:
            _, tail = await self._log(project, spider, job, f"-{max_bytes}", last=max_bytes)
        except NodeTooLongError as error:
            return f"(not read: {error})"
        return None if tail is None else tail.decode("utf-8", "replace")

    async def log_part(self, project: str, spider: str, job: str, first: int, most: int) -> bytes | None:
        """At most *most* bytes of the job's log, from the byte *first* on, or all of these where a proxy sends all of
        it; ``b""`` where it has no more, ``None`` if there is none."""
        code, part = await self._log(project, spider, job, f"{first}-{first + most - 1}")
        return part if part is None or code == 206 else part[first:]

    async def serves(self, folder: str) -> bool:
        """Whether the node serves what lies below ``/<folder>/``: ``logs`` if its ``logs_dir`` is set, ``items`` if its
        ``items_dir`` is a local one. Also before its first job has made that folder."""
        code, body = await self._exchange("GET", f"{folder}/", MemoryBody(FOLDER_LIMIT, enough=True))
        if code == 404:
            # twisted.web.static.File has these words for a file that is missing; without a File there are others.
            return b"File not found" in body
        check_code(self.name, self.address.url, f"{folder}/", code)
        return True

    async def close(self) -> None:
        """Cancel the calls under way, and close all connections. A ``Node`` can be used again afterwards."""
        for call in tuple(self._calls):
            call.cancel()
        if self._pool is not None:
            await self._pool.close()

    async def _api(self, method: str, endpoint: str, **request: Any) -> Answer:
        code, body = await self._exchange(method, endpoint, MemoryBody(LIMITS[endpoint]), **request)
        return parsed(self.name, self.address.url, endpoint, code, body)

    async def _log(
        self, project: str, spider: str, job: str, part: str, last: int | None = None
    ) -> tuple[int, bytes | None]:
        """Status, and what is there of the bytes *part*; a proxy may not know ranges, and send all of it."""
        path = f"logs/{_quoted(project)}/{_quoted(spider)}/{_quoted(job)}.log"
        asked = {"Range": f"bytes={part}"}
        code, body = await self._exchange("GET", path, MemoryBody(LOG_LIMIT, last=last), headers=asked)
        if code == 500:  # twisted.web.static.File fails on a range of an empty file
            code, body = await self._exchange("GET", path, MemoryBody(LOG_LIMIT, last=last))
        return code, self._content(path, code, body)

    def _content(self, path: str, code: int, body: bytes) -> bytes | None:
        if code == 404:
            return None
        if code == 416:  # a range of an empty file, as other servers say it
            return b""
        check_code(self.name, self.address.url, path, code)
        return body

    async def _exchange(
        self,
        method: str,
        path: str,
        body: Body,
        *,
        deadline_seconds: float | None = None,
        **request: Any,
    ) -> tuple[int, bytes]:
        """One request and its *body* under one deadline, which begins anew when that has progressed. Returns status
        and body."""
        seconds = self._deadline_seconds if deadline_seconds is None else deadline_seconds
        late = False

        def end() -> None:
            nonlocal late
            late = True
            exchange.cancel()

        timer = self._clock.callLater(seconds, end)
        body.progressed = lambda: timer.reset(seconds)
        exchange = Deferred.fromCoroutine(self._request(method, f"{self.address.url}/{path}", body, **request))
        self._calls.add(exchange)
        try:
            return await exchange
        except WriteError as error:
            raise error.reason from None
        except Exception as error:
            raise failed(self.name, self.address.url, error, seconds if late else None) from error
        finally:
            self._calls.discard(exchange)
            if timer.active():
                timer.cancel()

    async def _request(self, method: str, url: str, body: Body, **request: Any) -> tuple[int, bytes]:
        response = await self._client.request(
            method, _parsed_url(url), auth=self._auth, allow_redirects=False, unbuffered=True, **request
        )
        if not 200 <= response.code < 300:  # then the status counts
            body = MemoryBody(ERROR_LIMIT, enough=True)
        response.deliverBody(body)
        return response.code, await body.whole


class _Url(EncodedURL):
    """hyperlink 21 encodes what is plain ASCII already, at a fifth of the price of a call, and fails to do so for an
    IPv6 literal, which it takes for a name."""

    def to_uri(self) -> EncodedURL:
        return self if self.host.isascii() else super().to_uri()


@lru_cache(maxsize=512)  # those of the endpoints come again and again
def _parsed_url(url: str) -> EncodedURL:
    return _Url.from_text(url)


def _job(entry: Answer) -> Job:
    values = entry.values
    return Job(
        id=entry.text("id"),
        project=entry.text("project"),
        spider=entry.text("spider"),
        pid=entry.integer("pid") if "pid" in values else None,
        start_time=entry.text("start_time") if "start_time" in values else None,
        end_time=entry.text("end_time") if "end_time" in values else None,
    )


def _receipts(project: str, spider: str) -> str:
    return f"logs/{_quoted(project)}/{_quoted(spider)}.receipts"


def _quoted(name: str) -> str:
    return quote(name, safe="")

"""A Scrapyd without processes, on a real port, to inject faults: it answers what the real one answers, and jobs move
on when a test says so. ``test_node_contract.py`` holds it to the real one's behaviour."""

from __future__ import annotations

import enum
import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from scrapy_distributed.fleet.node import NodeAddress


class Fault(enum.Enum):
    """What goes wrong with a request. AFTER: it is carried out first."""

    SERVER_ERROR = (500, b"<html><body>Internal Server Error</body></html>")
    BAD_GATEWAY_AFTER = (502, b"Bad Gateway")
    UNAUTHORIZED = (401, b"Unauthorized")
    FORBIDDEN = (403, b"Forbidden")
    NOT_FOUND = (404, b"Not Found")
    TOO_LARGE = (413, b"Request Entity Too Large")
    REDIRECT = (302, b"")
    HTML = (200, b"<!DOCTYPE html><html><body>Welcome to nginx!</body></html>")
    TEXT = (200, b"hello")
    LIST = (200, b"[1, 2]")
    NO_STATUS = (200, b'{"hello": "world"}')
    EMPTY_OK = (200, b'{"status": "ok"}')
    TRACEBACK = (
        200,
        b'Traceback (most recent call last):\n  File "webservice.py", line 92, in render\n'
        b"twisted.web.error.Error: 200 project 'nope' not found\n",
    )
    HANG = (0, b"")
    HANG_AFTER = (-2, b"")
    HALF_A_BODY_THEN_HANG = (0, b'{"status": ')
    DROP = (-1, b"")
    DROP_AFTER = (-1, b"-")

    @property
    def carries_out(self) -> bool:
        return self.name.endswith("_AFTER")


class FileFault(enum.Enum):
    """What goes wrong with a file under ``/logs/`` that is there."""

    SHORTER = enum.auto()  # by a byte
    LONGER = enum.auto()  # by a byte
    OTHER = enum.auto()  # its last byte
    COMPRESSED = enum.auto()
    CHUNKED = enum.auto()  # all of it, and nobody has told its length
    CHUNKED_CUT = enum.auto()  # likewise, and the line drops in the middle
    CUT = enum.auto()  # the line drops in the middle
    HANG = enum.auto()  # in the middle
    TRICKLE = enum.auto()


SPOILT: dict[FileFault, Callable[[bytes], bytes]] = {
    FileFault.SHORTER: lambda body: body[:-1],
    FileFault.LONGER: lambda body: body + b"?",
    FileFault.OTHER: lambda body: body[:-1] + b"?",
    FileFault.COMPRESSED: gzip.compress,
    FileFault.CHUNKED: lambda body: body,
}
"""What is sent to its end."""
TRICKLE_SECONDS = 0.005  # between two bytes
CUT_SECONDS = 0.02  # when what was written has arrived


@dataclass
class FakeJob:
    id: str
    project: str
    spider: str
    version: str | None
    settings: dict[str, str]
    args: dict[str, str]
    priority: float = 0.0
    state: str = "pending"


#: Where nothing is, and where a file is missing: Twisted's own words.
NO_RESOURCE = b"<html><h1>No Such Resource</h1><p>Sorry. No luck finding that resource.</p></html>"
NO_FILE = b"<html><h1>No Such Resource</h1><p>File not found.</p></html>"


class ApiError(Exception):
    """Answered as HTTP 200 and ``status: error``."""


@dataclass
class FakeScrapyd(Resource):
    """``projects`` maps project -> version -> spiders, ``jobs`` holds every job in order, ``files`` what lies under
    ``/logs/`` by decoded path, ``requests`` what was asked. ``faults`` maps an endpoint, ``logs``, ``items`` or ``*``
    to a fault, ``file_faults`` one of the files. ``logs_dir`` and ``items_dir`` tell whether they are set."""

    username: str = ""
    password: str = ""
    projects: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    jobs: list[FakeJob] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    file_faults: dict[str, FileFault] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    signals: list[tuple[str, str]] = field(default_factory=list)  # what running jobs were sent, with their ids
    deaf: bool = False  # its jobs end for KILL alone
    delay_seconds: float = 0.0
    logs_dir: bool = True
    items_dir: bool = False
    isLeaf = True  # noqa: N815  # Twisted's name

    def __post_init__(self) -> None:
        super().__init__()
        self._port: Any = None
        self._hanging: list[Request] = []

    def listen(self, port: int = 0) -> FakeScrapyd:
        """Open the port; 0 is any that is free."""
        self._port = reactor.listenTCP(port, Site(self), interface="127.0.0.1")  # type: ignore[attr-defined]
        return self

    async def close(self) -> None:
        """Close the port and every line that hangs."""
        for request in self._hanging:
            if request.channel is not None:
                request.transport.abortConnection()
        await self._port.stopListening()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port.getHost().port}"

    @property
    def address(self) -> NodeAddress:
        return NodeAddress(name="fake1", url=self.url, username=self.username, password=self.password)

    def start_pending(self, count: int | None = None) -> list[FakeJob]:
        """The next *count* (all) pending jobs run now, the highest priority first, then by their ids: two POSTs under
        way at once may arrive in any order, and no test is about that."""
        pending = [job for job in self.jobs if job.state == "pending"]
        pending.sort(key=lambda job: (-job.priority, job.id))
        for job in pending[:count]:
            job.state = "running"
        return pending[:count]

    def finish(self, job_id: str | None = None) -> None:
        """Running jobs (of that id) end now, and have a log."""
        for job in self.jobs:
            if job.state == "running" and job_id in (None, job.id):
                job.state = "finished"
                self.files.setdefault(f"{job.project}/{job.spider}/{job.id}.log", b"Spider closed (finished)\n")

    def forget(self) -> None:
        """What a restart does to jobs that run or have run."""
        self.jobs = [job for job in self.jobs if job.state == "pending"]

    def render(self, request: Request) -> Any:
        path = request.path.decode().strip("/")
        endpoint = path if path.endswith(".json") and "/" not in path else path.partition("/")[0]
        self.requests.append(f"{request.method.decode()} {path}")
        if self.delay_seconds:
            reactor.callLater(self.delay_seconds, self._answer, request, endpoint)  # type: ignore[attr-defined]
        else:
            self._answer(request, endpoint)
        return NOT_DONE_YET

    def _answer(self, request: Request, endpoint: str) -> None:
        fault = self.faults.get(endpoint) or self.faults.get("*")
        if fault is None:
            code, body = self._carried_out(request, endpoint)
            file_fault = self.file_faults.get(_file_of(request)) if endpoint == "logs" and code == 200 else None
            if file_fault is None:
                return self._finish(request, code, body)
            return self._spoil(request, file_fault, body)
        if fault.carries_out:
            self._carried_out(request, endpoint)
        code, body = fault.value
        if code > 0:
            request.setHeader("Location", "http://elsewhere.invalid/")
            return self._finish(request, code, body)
        if fault in (Fault.DROP, Fault.DROP_AFTER):
            request.transport.abortConnection()
            return None
        self._hanging.append(request)
        if body:
            request.setHeader("Content-Length", "100")
            request.write(body)
        return None

    def _spoil(self, request: Request, fault: FileFault, body: bytes) -> None:
        if fault is FileFault.COMPRESSED:
            request.setHeader("Content-Encoding", "gzip")
        chunked = fault in (FileFault.CHUNKED, FileFault.CHUNKED_CUT)
        if fault in SPOILT:
            return self._finish(request, 200, SPOILT[fault](body), chunked=chunked)
        if not chunked:
            request.setHeader("Content-Length", str(len(body)))
        self._hanging.append(request)
        if fault is FileFault.TRICKLE:
            return self._trickle(request, body)
        request.write(body[: len(body) // 2])
        if fault is not FileFault.HANG:
            reactor.callLater(CUT_SECONDS, self._cut, request)  # type: ignore[attr-defined]
        return None

    def _trickle(self, request: Request, body: bytes) -> None:
        if body and not request._disconnected:
            request.write(body[:1])
            reactor.callLater(TRICKLE_SECONDS, self._trickle, request, body[1:])  # type: ignore[attr-defined]

    def _cut(self, request: Request) -> None:
        if not request._disconnected:
            request.transport.abortConnection()

    def _finish(self, request: Request, code: int, body: bytes, *, chunked: bool = False) -> None:
        request.setResponseCode(code)
        if not chunked:
            request.setHeader("Content-Length", str(len(body)))
        if not request._disconnected:
            request.write(body)
            request.finish()

    def _carried_out(self, request: Request, endpoint: str) -> tuple[int, bytes]:
        if self.username and (request.getUser(), request.getPassword()) != (
            self.username.encode(),
            self.password.encode(),
        ):
            return 401, b"Unauthorized"
        if endpoint in ("logs", "items"):
            return self._file(request, endpoint)
        method: Callable[..., dict[str, Any]] | None = getattr(self, "_" + endpoint.removesuffix(".json"), None)
        if method is None:
            return 404, NO_RESOURCE
        raw = {key.decode(): values for key, values in request.args.items()}
        try:
            answer = {"status": "ok", **method(raw)}
        except ApiError as error:
            answer = {"status": "error", "message": str(error)}
        return 200, json.dumps({"node_name": "fake", **answer}).encode()

    def _file(self, request: Request, folder: str) -> tuple[int, bytes]:
        if not (self.logs_dir if folder == "logs" else self.items_dir):
            return 404, NO_RESOURCE
        path = _file_of(request)
        if not path and self.files and folder == "logs":  # it is made with the first file in it
            return 200, b"<html><head><title>Directory listing for /logs/</title></head></html>"
        content = self.files.get(path) if folder == "logs" else None
        if content is None:
            return 404, NO_FILE
        if not content and request.getHeader("range"):
            return 500, b"<html>Processing Failed</html>"  # as twisted.web.static.File does
        wanted = re.fullmatch(r"bytes=-(\d+)", request.getHeader("range") or "")
        return (206, content[-int(wanted[1]) :]) if wanted else (200, content)

    def _versions(self, project: str) -> dict[str, list[str]]:
        if project not in self.projects:
            raise ApiError(f"project '{project}' not found")
        return self.projects[project]

    def _spiders(self, project: str, version: str | None) -> list[str]:
        versions = self._versions(project)
        if version is not None and _stored(version) not in versions:
            raise ApiError(f"version '{version}' not found")
        return versions[_stored(version)] if version is not None else versions[max(versions)]

    def _daemonstatus(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
        return {state: sum(job.state == state for job in self.jobs) for state in ("pending", "running", "finished")}

    def _schedule(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
        settings = dict(value.decode().split("=", 1) for value in raw.pop("setting", []))
        form = {key: values[0].decode() for key, values in raw.items()}
        project, spider, version = form.pop("project"), form.pop("spider"), form.pop("_version", None)
        if spider not in self._spiders(project, version):
            raise ApiError(f"spider '{spider}' not found")
        job_id, priority = form.pop("jobid"), float(form.pop("priority", "0"))
        self.jobs.append(FakeJob(job_id, project, spider, version, settings, form, priority))
        return {"jobid": job_id}

    def _cancel(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
        project, job_id = raw["project"][0].decode(), raw["job"][0].decode()
        self._versions(project)
        previous = None
        for job in [job for job in self.jobs if (job.project, job.id) == (project, job_id)]:
            if job.state == "pending":
                self.jobs.remove(job)
                previous = "pending"
            elif job.state == "running":
                self.signals.append((job_id, raw.get("signal", [b"INT"])[0].decode()))
                if not self.deaf or self.signals[-1][1] == "KILL":
                    job.state = "finished"
                previous = "running"
        return {"prevstate": previous}

    def _status(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
        project = raw["project"][0].decode() if "project" in raw else None
        if project is not None:
            self._versions(project)
        states = {job.state for job in self._of(project) if job.id == raw["job"][0].decode()}
        return {"currstate": next((state for state in ("finished", "running", "pending") if state in states), None)}

    def _listjobs(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
        project = raw["project"][0].decode() if "project" in raw else None
        if project is not None:
            self._versions(project)
        times = {
            "pending": {},
            "running": {"pid": 1, "start_time": "2026-01-01 00:00:00"},
            "finished": {"start_time": "2026-01-01 00:00:00", "end_time": "2026-01-01 00:01:00"},
        }
        return {
            state: [
                {"id": job.id, "project": job.project, "spider": job.spider, **more}
                for job in self._of(project)
                if job.state == state
            ]
            for state, more in times.items()
        }

    def _of(self, project: str | None) -> list[FakeJob]:
        return [job for job in self.jobs if project in (None, job.project)]

    def _addversion(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
        egg = io.BytesIO(raw["egg"][0])
        if not zipfile.is_zipfile(egg):
            raise ApiError("egg is not a ZIP file (if using curl, use egg=@path not egg=path)")
        with zipfile.ZipFile(egg) as archive:
            sources = b"\n".join(archive.read(name) for name in archive.namelist() if name.endswith(".py"))
        spiders = re.findall(r'^    name = "(.*)"', sources.decode(), re.M)
        versions = self.projects.setdefault(raw["project"][0].decode(), {})
        versions[_stored(raw["version"][0].decode())] = spiders
        return {"project": raw["project"][0].decode(), "spiders": len(spiders)}

    def _listprojects(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
        return {"projects": list(self.projects)}

    def _listversions(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
        return {"versions": sorted(self.projects.get(raw["project"][0].decode(), {}))}

    def _listspiders(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
        version = raw["_version"][0].decode() if "_version" in raw else None
        return {"spiders": self._spiders(raw["project"][0].decode(), version)}

    def _delversion(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
        project, version = raw["project"][0].decode(), raw["version"][0].decode()
        if self.projects.get(project, {}).pop(_stored(version), None) is None:
            raise ApiError(f"version '{version}' not found")
        if not self.projects[project]:
            del self.projects[project]
        return {}

    def _delproject(self, raw: dict[str, list[bytes]]) -> dict[str, Any]:
        self._versions(raw["project"][0].decode())
        del self.projects[raw["project"][0].decode()]
        return {}


def _file_of(request: Request) -> str:
    """The decoded path of a file below the folder that is served."""
    return "/".join(part.decode() for part in (request.postpath or [])[1:])


def _stored(version: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", version)

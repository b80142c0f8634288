"""What ``Node`` leans on, asked of a real Scrapyd and of the fake alike."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from hashlib import sha256
from pathlib import Path

import pytest
import pytest_twisted
from fake_scrapyd import FakeScrapyd
from scrapyd_child import ScrapydChild, start
from tiny_project import tiny_egg
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from until import until

from scrapy_distributed.errors import NodeItemsError, NodeRefusedError, NodeUnauthorizedError
from scrapy_distributed.fleet.node import Node, NodeAddress
from scrapy_distributed.wire.job import Jobs
from scrapy_distributed.wire.payload import MAX_ARGUMENT_BYTES

NEVER = 3600.0  # seconds between two looks of a node at its queue: its jobs stay pending


@dataclass
class Server:
    """One of the two, with what a test has to do to them by other ways than the API."""

    address: NodeAddress
    fake: FakeScrapyd | None = None
    real: ScrapydChild | None = None

    def write_log(self, path: str, content: bytes) -> None:
        if self.fake:
            self.fake.files[path] = content
        elif self.real:
            file = self.real.dir / "logs" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    def run_pending(self) -> None:
        if self.fake:
            self.fake.start_pending()

    def finish_quick(self) -> None:
        if self.fake:
            for job in self.fake.jobs:
                if job.spider == "quick" and job.state == "running":
                    self.fake.finish(job.id)


@pytest.fixture(scope="module")
def egg(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_egg(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module", params=["fake", "real"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Runs jobs: the real one by itself, the fake when told."""
    yield from _server(request.param, tmp_path_factory.mktemp("node"), 0.1)


@pytest.fixture(scope="module", params=["fake", "real"])
def lazy_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Never starts a job."""
    yield from _server(request.param, tmp_path_factory.mktemp("lazy"), NEVER)


def _server(kind: str, folder: Path, poll_interval: float) -> Iterator[Server]:
    if kind == "fake":
        fake = FakeScrapyd().listen()
        yield Server(address=fake.address, fake=fake)
        pytest_twisted.blockon(Deferred.fromCoroutine(fake.close()))
    else:
        with start(folder, poll_interval=poll_interval) as child:
            yield Server(address=child.address, real=child)


@pytest.fixture
def node(server: Server) -> Iterator[Node]:
    yield from _node(server)


@pytest.fixture
def lazy_node(lazy_server: Server) -> Iterator[Node]:
    yield from _node(lazy_server)


def _node(server: Server) -> Iterator[Node]:
    node = Node(address=server.address, deadline_seconds=30)
    yield node
    pytest_twisted.blockon(Deferred.fromCoroutine(node.close()))


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """A project of each test's own."""
    return "".join(character for character in request.node.name if character.isalnum())


@pytest_twisted.ensureDeferred
async def test_versions_and_spiders(lazy_node: Node, egg: bytes, project: str) -> None:
    assert await lazy_node.listversions(project) == []
    assert await lazy_node.addversion(project, "1.2", egg) == 2
    assert project in await lazy_node.listprojects()
    assert await lazy_node.listversions(project) == ["1_2"]
    assert sorted(await lazy_node.listspiders(project)) == ["quick", "waiting"]
    assert sorted(await lazy_node.listspiders(project, "1.2")) == ["quick", "waiting"]
    assert await lazy_node.addversion(project, "2", egg) == 2
    await lazy_node.delversion(project, "1_2")
    assert await lazy_node.listversions(project) == ["2"]
    await lazy_node.delproject(project)
    assert project not in await lazy_node.listprojects()


@pytest_twisted.ensureDeferred
async def test_what_is_refused(lazy_node: Node, egg: bytes, project: str) -> None:
    with pytest.raises(NodeRefusedError, match=f"project '{project}' not found: deploy it: scrapy fleet deploy"):
        await lazy_node.schedule(project, "quick", jobid="a")
    for call in (lazy_node.listspiders(project), lazy_node.cancel(project, "a"), lazy_node.status("a", project)):
        with pytest.raises(NodeRefusedError, match="not found"):
            await call
    for call_2 in (lazy_node.listjobs(project), lazy_node.delproject(project), lazy_node.delversion(project, "1")):
        with pytest.raises(NodeRefusedError, match="not found"):
            await call_2
    with pytest.raises(NodeRefusedError, match="not a ZIP file"):
        await lazy_node.addversion(project, "1", b"no egg")
    await lazy_node.addversion(project, "1", egg)
    with pytest.raises(NodeRefusedError, match=r"spider 'nope' not found: .*deploy again"):
        await lazy_node.schedule(project, "nope", jobid="a")
    with pytest.raises(NodeRefusedError, match=r"version '9' not found: .*fleet deploy"):
        await lazy_node.schedule(project, "quick", jobid="a", version="9")


@pytest_twisted.ensureDeferred
async def test_pending_jobs(lazy_node: Node, egg: bytes, project: str) -> None:
    await lazy_node.addversion(project, "1", egg)
    before = await lazy_node.daemonstatus()
    job = f"{project}-1"
    args = {"batch": "1", "text": "é = & ?"}
    assert await lazy_node.schedule(project, "quick", jobid=job, version="1", settings={"A": "1=2"}, args=args) == job
    assert (await lazy_node.daemonstatus()).pending == before.pending + 1
    assert await lazy_node.status(job) == "pending"
    assert await lazy_node.status(job, project) == "pending"
    jobs = await lazy_node.listjobs(project)
    assert [(one.id, one.project, one.spider, one.pid) for one in jobs.pending] == [(job, project, "quick", None)]
    assert (jobs.running, jobs.finished) == ((), ())
    assert job in [one.id for one in (await lazy_node.listjobs()).pending]
    assert await lazy_node.cancel(project, job) == "pending"
    assert await lazy_node.status(job) is None
    assert await lazy_node.cancel(project, job) is None


@pytest_twisted.ensureDeferred
async def test_the_same_id_twice_is_two_jobs(lazy_node: Node, egg: bytes, project: str) -> None:
    await lazy_node.addversion(project, "1", egg)
    for _ in range(2):
        await lazy_node.schedule(project, "quick", jobid="twice")
    assert [job.id for job in (await lazy_node.listjobs(project)).pending] == ["twice", "twice"]
    assert await lazy_node.cancel(project, "twice") == "pending"
    assert (await lazy_node.listjobs(project)).pending == ()


@pytest_twisted.ensureDeferred
async def test_a_job_runs_and_is_cancelled(server: Server, node: Node, egg: bytes, project: str) -> None:
    await node.addversion(project, "1", egg)
    job = f"{project}-1"
    await node.schedule(project, "waiting", jobid=job)
    server.run_pending()

    async def running() -> bool:
        return await node.status(job, project) == "running"

    async def finished() -> Jobs | None:
        await node.cancel(project, job, signal="KILL")
        jobs = await node.listjobs(project)
        return jobs if jobs.finished else None

    await until(running)
    [listed] = (await node.listjobs(project)).running
    assert listed.id == job
    assert listed.pid
    assert listed.start_time
    assert await node.cancel(project, job) == "running"
    [ended] = (await until(finished)).finished
    assert (ended.id, bool(ended.start_time), bool(ended.end_time)) == (job, True, True)
    assert await node.status(job) == "finished"


@pytest_twisted.ensureDeferred
async def test_a_job_finishes_and_leaves_a_log(server: Server, node: Node, egg: bytes, project: str) -> None:
    await node.addversion(project, "1", egg)
    assert await node.log_tail(project, "quick", "job-1") is None
    await node.schedule(project, "quick", jobid="job-1", priority=2, settings={"MARK": "set"})
    server.run_pending()
    server.finish_quick()

    async def finished() -> bool:
        return await node.status("job-1", project) == "finished"

    await until(finished)
    tail = await node.log_tail(project, "quick", "job-1")
    assert tail
    assert "Spider closed (finished)" in tail
    assert await node.log_tail(project, "quick", "job-1", max_bytes=10) == tail[-10:]
    whole = b""
    while part := await node.log_part(project, "quick", "job-1", len(whole), 100):
        assert len(part) <= 100
        whole += part
    assert whole.decode().endswith(tail)
    assert (part, await node.log_part(project, "quick", "job-2", 0, 100)) == (b"", None)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("job", ["job-1", "run.1_2-x"])
@pytest.mark.parametrize("spider", ["quick", "my spider", "50%", "größe", "a+b", "q?a=b#c"])
async def test_receipts_beside_the_logs(lazy_server: Server, lazy_node: Node, spider: str, job: str) -> None:
    assert await lazy_node.receipt("my project", spider, job) is None
    lazy_server.write_log(f"my project/{spider}.receipts/{job}.json", b'{"a": 1}')
    assert await lazy_node.receipt("my project", spider, job) == b'{"a": 1}'
    lazy_server.write_log(f"my project/{spider}.receipts/{job}.json", b'{"a": 2}')
    assert await lazy_node.receipt("my project", spider, job) == b'{"a": 2}'


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("job", ["job-1", "run.1_2-x", "-", "...", "a.json", "a.tar.gz", "x" * 200])
@pytest.mark.parametrize("spider", ["quick", "my spider", "50%", "größe", "q?a=b#c", "s.gz"])
async def test_items_beside_the_logs(lazy_server: Server, lazy_node: Node, spider: str, job: str) -> None:
    file = io.BytesIO()
    with pytest.raises(NodeItemsError, match="HTTP 404"):
        await lazy_node.items("my project", spider, job, file, size=0, digest=sha256().hexdigest())
    for content in (b"", b'{"a": 1}\n', bytes(range(256)) * 2000, b"\x1f\x8b no gzip"):
        lazy_server.write_log(f"my project/{spider}.receipts/{job}.items", content)
        file = io.BytesIO()
        await lazy_node.items("my project", spider, job, file, size=len(content), digest=sha256(content).hexdigest())
        assert file.getvalue() == content
        with pytest.raises(NodeItemsError, match="expected 1,000,000"):
            await lazy_node.items("my project", spider, job, file, size=1_000_000, digest="")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("content", [b"", b"x" * 1_000_000], ids=["nothing", "much"])
async def test_items_are_served_as_they_are(lazy_server: Server, content: bytes) -> None:
    """Also to who takes them compressed."""
    lazy_server.write_log("p/s.receipts/plain.items", content)
    url = f"{lazy_server.address.url}/logs/p/s.receipts/plain.items"
    status, headers, body = await deferToThread(_get, urllib.request.Request(url, headers={"Accept-Encoding": "gzip"}))
    assert status == 200
    assert headers.get("Content-Encoding") is None
    assert headers.get_all("Content-Length") == [str(len(content))]
    assert body == content


def _get(request: urllib.request.Request) -> tuple[int, Message, bytes]:
    with urllib.request.urlopen(request) as response:
        return response.status, response.headers, response.read()


@pytest_twisted.ensureDeferred
async def test_an_empty_log(lazy_server: Server, lazy_node: Node) -> None:
    lazy_server.write_log("p/s/empty.log", b"")
    assert await lazy_node.log_tail("p", "s", "empty") == ""
    assert await lazy_node.log_part("p", "s", "empty", 0, 10) == b""


@pytest.fixture(params=["fake", "real"])
def configured_server(
    request: pytest.FixtureRequest, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """With a line of its own in its configuration."""
    (tmp_path / ".scrapyd.conf").write_text(f"[scrapyd]\n{option}\n")
    monkeypatch.setenv("HOME", str(tmp_path))  # where Scrapyd reads it, after the node's own scrapyd.conf
    for server in _server(request.param, tmp_path, NEVER):
        if server.fake:
            server.fake.logs_dir, server.fake.items_dir = option != "logs_dir =", option == "items_dir = items"
        yield server


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("option", "logs", "items"), [("", True, False), ("items_dir = items", True, True), ("logs_dir =", False, False)]
)
async def test_which_folders_are_served(configured_server: Server, option: str, logs: bool, items: bool) -> None:
    """From the start, when no job has made them yet."""
    node = Node(address=configured_server.address)
    assert (await node.serves("logs"), await node.serves("items")) == (logs, items)
    configured_server.write_log("p/s/j.log", b"")
    assert await node.serves("logs") == logs
    await node.close()


@pytest_twisted.ensureDeferred
async def test_the_longest_argument_arrives(tmp_path: Path, egg: bytes) -> None:
    """One byte more would take the process slot for good; this one must run."""
    value = "x" * (MAX_ARGUMENT_BYTES - len("long="))
    with start(tmp_path, max_proc=1) as child:
        node = Node(address=child.address)
        await node.addversion("tiny", "1", egg)
        await node.schedule("tiny", "quick", jobid="long", args={"long": value}, settings={"MARK": "a=b"})

        async def finished() -> bool:
            return await node.status("long") == "finished"

        await until(finished)
        tail = await node.log_tail("tiny", "quick", "long", max_bytes=10_000)
        await node.close()
    assert tail
    assert f"'long': {len(value)}" in tail
    assert "job: long, mark: a=b" in tail


@pytest_twisted.ensureDeferred
async def test_credentials(tmp_path: Path) -> None:
    with start(tmp_path, username="us%er", password="pä:ss w") as child:
        (child.dir / "logs" / "p" / "s.receipts").mkdir(parents=True)
        (child.dir / "logs" / "p" / "s.receipts" / "j.json").write_text("{}")
        (child.dir / "logs" / "p" / "s.receipts" / "j.items").touch()
        node = Node(address=child.address)
        assert (await node.daemonstatus()).pending == 0
        assert await node.receipt("p", "s", "j") == b"{}"
        await node.items("p", "s", "j", io.BytesIO(), size=0, digest=sha256().hexdigest())
        await node.close()
        for password in ("", "wrong"):
            address = NodeAddress(name="n", url=child.url, username="us%er", password=password)
            stranger = Node(address=address)
            calls = (stranger.daemonstatus(), stranger.receipt("p", "s", "j"), stranger.serves("logs"))
            items = stranger.items("p", "s", "j", io.BytesIO(), size=0, digest="")
            for call in (*calls, items, stranger.log_tail("p", "s", "j")):
                with pytest.raises(NodeUnauthorizedError, match=r"wrong or missing credentials .*scrapy.cfg, .netrc"):
                    await call
            await stranger.close()

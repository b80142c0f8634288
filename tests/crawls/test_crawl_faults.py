"""What goes wrong while the fleet crawls: nothing is lost, nothing counts twice, and the log says what to do."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import pytest_twisted
from crawling import DEADLINE_SECONDS, VERSION, Crawl, Project, SiteChild, call, site, wait_for
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fake_scrapyd import FakeScrapyd, Fault
from scrapyd_child import ScrapydChild, start
from twisted.internet.defer import Deferred
from until import until

from scrapy_distributed.ledger.wishes import Wishes

SECRET = "s3cr3t-Pa55"


def hosts(*entries: str) -> dict[str, str]:
    return {"DISTRIBUTED_TARGET_HOSTS": ",".join(entries)}


# Nodes


def test_a_node_is_down_from_the_start(
    project: Project, small_site: SiteChild, tmp_path: Path, unused_port: int
) -> None:
    down = f"127.0.0.1:{unused_port}"
    crawl = project.crawl(
        "distr",
        folder=tmp_path,
        args={"site": small_site.url, "pages": 2},
        settings={**hosts("scrapyd1", down, "scrapyd2"), "DISTRIBUTED_BATCH_SIZE": 30},
    ).wait()
    assert crawl.balance() == {"diverted": 60, "crawled": 60}
    assert crawl.item_urls() == small_site.property_urls(range(60))
    assert [batch["node"] for batch in crawl.run()["batches"]] == ["scrapyd1", "scrapyd2"]
    assert crawl.log.count(f"{down}: connection refused at http://{down}: is Scrapyd running there") == 1


def test_a_node_goes_away_with_its_workers_while_jobs_wait_there(project: Project, tmp_path: Path) -> None:
    with start(tmp_path, max_proc=1, name="dying") as dying, site(300, latency=0.1) as child:
        address = dying.url.removeprefix("http://")
        project.deploy(address, folder=tmp_path)
        crawl = project.crawl(
            "distr",
            folder=tmp_path,
            args={"site": child.url, "pages": 10},
            settings={**hosts("scrapyd1", "scrapyd2", address), "DISTRIBUTED_BATCH_SIZE": 30},
        )
        wait_for(lambda: (status := call(f"{dying.url}/daemonstatus.json"))["running"] and status["pending"])
        os.killpg(dying.process.pid, signal.SIGKILL)
        crawl.wait()
    assert crawl.balance() == {"diverted": 300, "crawled": 300}
    assert project.check(crawl) == 0
    assert crawl.item_urls() == child.property_urls(range(300))
    assert crawl.log.count(f"{address}: connection refused") == 1
    assert re.search(rf"Batch \d+: connections to {address} are refused, and other nodes have nothing", crawl.log)
    assert "no sign of life" not in crawl.log  # nothing has waited for its lease


def fake(fault: Fault, endpoint: str = "schedule.json") -> FakeScrapyd:
    return FakeScrapyd(projects={"trial": {VERSION: ["distr"]}}, faults={endpoint: fault}).listen()


@pytest_twisted.ensureDeferred
async def test_nodes_that_fail_in_every_way_beside_one_that_works(
    project: Project, small_site: SiteChild, tmp_path: Path
) -> None:
    """The log says once of each what is wrong, and the other one gets their batches."""
    fakes = {
        "wrong or missing credentials (HTTP 401): set username and password": fake(Fault.UNAUTHORIZED, "*"),
        "schedule.json answered HTTP 500, expected 200: see the log of": fake(Fault.SERVER_ERROR),
        "schedule.json answered HTML, expected JSON: is this a Scrapyd?": fake(Fault.HTML),
        "within 2 s: is it overloaded or stopped?": fake(Fault.HANG),
    }
    names = {message: node.url.removeprefix("http://") for message, node in fakes.items()}
    settings = {
        **hosts(*names.values(), "scrapyd1"), "DISTRIBUTED_BATCH_SIZE": 6,
        "DISTRIBUTED_LEASE": 5, "DISTRIBUTED_TIMEOUT": 2,
    }  # fmt: skip
    crawl = project.crawl("distr", folder=tmp_path, args={"site": small_site.url, "pages": 2}, settings=settings)
    try:
        await until(crawl.has_ended, DEADLINE_SECONDS)
    finally:
        for node in fakes.values():
            await node.close()
    assert crawl.balance() == {"diverted": 60, "crawled": 60}
    assert crawl.item_urls() == small_site.property_urls(range(60))
    warnings = [line.partition("WARNING: ")[2] for line in crawl.log.splitlines() if "it gets no batches" in line]
    for message, name in names.items():
        (said,) = [warning for warning in warnings if warning.startswith(f"{name}: ")]
        assert message in said


class Proxy:
    """Passes on to *port* of this machine what it hears; with *context* it speaks TLS. The answer to a request that
    starts with *loses* is lost, and the line with it."""

    def __init__(self, port: int, context: ssl.SSLContext | None, loses: bytes) -> None:
        self._node_port = port
        self._context = context
        self._loses = loses
        self._lines: set[asyncio.Task[None] | None] = set()

    async def listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        self._server.close()
        lines = [line for line in self._lines if line is not None]
        for line in lines:
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._lines.add(asyncio.current_task())
        node_reader, node_writer = await asyncio.open_connection("127.0.0.1", self._node_port)
        asked = b""

        async def ask() -> None:
            nonlocal asked
            while data := await reader.read(65536):
                asked = data if data.startswith((b"GET ", b"POST ")) else asked
                node_writer.write(data)
            node_writer.close()

        async def answer() -> None:
            while data := await node_reader.read(65536):
                if self._loses and asked.startswith(self._loses):
                    writer.transport.abort()
                    return
                writer.write(data)
            writer.close()

        try:
            await asyncio.gather(ask(), answer(), return_exceptions=True)
        finally:
            writer.transport.abort()
            node_writer.transport.abort()


@asynccontextmanager
async def proxy(port: int, *, context: ssl.SSLContext | None = None, loses: bytes = b"") -> AsyncIterator[int]:
    """Yields the port of a ``Proxy``."""
    running = Proxy(port, context, loses)
    try:
        yield await Deferred.fromFuture(asyncio.ensure_future(running.listen()))
    finally:
        await Deferred.fromFuture(asyncio.ensure_future(running.close()))


@pytest_twisted.ensureDeferred
async def test_a_node_that_takes_a_batch_and_whose_answer_is_lost(
    nodes: list[ScrapydChild], project: Project, tmp_path: Path
) -> None:
    """It is asked what it has; nothing is sent again."""
    with site(60) as child:
        async with proxy(nodes[0].port, loses=b"POST /schedule.json") as port:
            crawl = project.crawl(
                "distr",
                folder=tmp_path,
                args={"site": child.url, "pages": 2},
                settings={**hosts(f"127.0.0.1:{port}"), "DISTRIBUTED_BATCH_SIZE": 30},
            )
            await until(crawl.has_ended, DEADLINE_SECONDS)
        assert child.stats()["properties_repeated"] == 0
    assert crawl.balance() == {"diverted": 60, "crawled": 60}
    assert crawl.item_urls() == child.property_urls(range(60))
    assert [batch["attempts"] for batch in crawl.run()["batches"]] == [1, 1]
    assert f"the connection to http://127.0.0.1:{port} broke before a complete answer" in crawl.log


# Workers


def test_a_worker_that_can_not_decode_its_batch_does_not_crawl(
    nodes: list[ScrapydChild], project: Project, tmp_path: Path
) -> None:
    url, job = nodes[0].url, "undecodable-1"
    with site(60) as child:
        broken = {"project": "trial", "spider": "distr", "jobid": job, "site": child.url, "pages": "2"}
        call(f"{url}/schedule.json", **broken, setting="DISTRIBUTED_START_URL=zb85:nonsense")
        wait_for(lambda: call(f"{url}/status.json?job={job}")["currstate"] == "finished")
        assert child.stats()["requests"] == {}
    with urlopen(f"{url}/logs/trial/distr/{job}.log") as answer:
        log = answer.read().decode()
    last = log.splitlines()[-1]
    assert "Error: DISTRIBUTED_START_URL: found 'zb85:nonsense', expected a JSON list of URLs or requests" in last


def test_workers_that_can_not_store_their_items_lose_nothing(
    project: Project, small_site: SiteChild, tmp_path: Path
) -> None:
    crawl = project.crawl(
        "distr",
        folder=tmp_path,
        args={"site": small_site.url, "pages": 2},
        settings={"DISTRIBUTED_TARGET_FEED_URL": "nowhere://%(batch)s.jl", "DISTRIBUTED_MAX_ATTEMPTS": 1},
    ).wait()
    assert crawl.balance() == {"diverted": 60, "dead": 60}
    (reason,) = {outcome["reason"] for outcome in crawl.run()["outcomes"]}
    assert re.search(r"FEED_URI/FEEDS: Scrapy has disabled the feed nowhere://%\(batch\)s-\w+\.jl", reason)
    assert crawl.log.count("rejected: no receipt: ") == 1


@pytest.mark.parametrize("size", [1, 10])
def test_a_folder_that_refuses_for_a_while(project: Project, tmp_path: Path, size: int) -> None:
    """Each job sees so before its first page, and no batch is at fault: none is cut in two, none is dead."""
    (tmp_path / "items").write_text("in the way")
    refused = (
        "rejected: its feed was not stored: scrapy_distributed.errors.ConfigError: FEED_URI/FEEDS: the feed in file:"
    )
    with site(30) as child:
        args, settings = {"site": child.url, "pages": 1}, {"DISTRIBUTED_BATCH_SIZE": size}
        crawl = project.crawl("distr", folder=tmp_path, args=args, settings=settings)
        wait_for(lambda: crawl.log.count(refused) >= 4, 90)
        (tmp_path / "items").unlink()
        crawl.wait()
        assert crawl.balance() == {"diverted": 30, "crawled": 30}
        assert crawl.item_urls() == child.property_urls(range(30))
        assert child.stats()["properties_repeated"] == 0
    assert not crawl.stat("distributed/batches_halved")
    assert project.check(crawl) == 0


def test_a_disk_that_is_full_for_a_while(project: Project, tmp_path: Path) -> None:
    """In the middle of jobs, which go on without the items of that while."""
    (tmp_path / "full").touch()
    with site(60, latency=0.3) as child:
        crawl = project.crawl(
            "distr",
            folder=tmp_path,
            args={"site": child.url, "pages": 2},
            settings={
                "DISTRIBUTED_BATCH_SIZE": 20,
                "DISTRIBUTED_WORKER_SETTINGS": json.dumps(
                    {"FEED_STORAGES": json.dumps({"file": "trial.storage.FullDisk"}), "CONCURRENT_REQUESTS": 2}
                ),
            },
        )
        wait_for(lambda: any(path.stat().st_size for path in (tmp_path / "items").glob("*.jl")), 60)
        (tmp_path / "full").unlink()
        crawl.wait()
        assert crawl.item_urls() == child.property_urls(range(60))
    assert crawl.balance() == {"diverted": 60, "crawled": 60}
    assert "rejected: its feed was not stored: OSError: [Errno 28] No space left on device" in crawl.log
    assert project.check(crawl) == 0


def test_a_place_that_refuses_for_good_ends_the_crawl(project: Project, small_site: SiteChild, tmp_path: Path) -> None:
    settings = {"DISTRIBUTED_TARGET_FEED_URL": "file:///proc/nope/%(batch)s.jl", "DISTRIBUTED_FLEET_TIMEOUT": 1}
    crawl = project.crawl("distr", folder=tmp_path, args={"site": small_site.url, "pages": 1}, settings=settings).wait()
    assert "finish_reason': 'fleet_unusable'" in crawl.log
    assert crawl.process.returncode == 1
    balance = crawl.run()["balance"]
    assert (balance.diverted, balance.queued + balance.in_flight, balance.dead) == (60, 60, 0)
    assert "its jobs come to nothing, the last one: its feed was not stored: " in crawl.log
    assert "the feed in file:///proc/nope can't be written here: FileNotFoundError: " in crawl.log
    assert crawl.log.count("its jobs come to nothing") <= 3  # once for a node


# Refusals


REFUSALS: dict[str, tuple[str, Mapping[str, Any], str]] = {
    "no hosts": ("distr", {"DISTRIBUTED_TARGET_HOSTS": ""}, "DISTRIBUTED_TARGET_HOSTS: found nothing, expected"),
    "no rule": ("rules", {"DISTRIBUTED_TARGET_RULE": ""}, "DISTRIBUTED_TARGET_RULE: found nothing, expected"),
    "no number": ("distr", {"DISTRIBUTED_TARGET_RULE": "one"}, "DISTRIBUTED_TARGET_RULE: found 'one', expected"),
    "no such rule": ("distr", {"DISTRIBUTED_TARGET_RULE": 2}, "DISTRIBUTED_TARGET_RULE: found 2, the spider's rules"),
    "one feed for all": (
        "distr",
        {"DISTRIBUTED_TARGET_FEED_URL": "file:///all.jl"},
        "DISTRIBUTED_TARGET_FEED_URL: found 'file:///all.jl', expected a feed URL with %(batch)s in it",
    ),
    "no fleet": (
        "distr",
        {"DISTRIBUTED_TARGET_HOSTS": "127.0.0.1:1", "DISTRIBUTED_FLEET_TIMEOUT": 1},
        "DISTRIBUTED_TARGET_HOSTS: none of the 1 nodes can be used",
    ),
    "no project": (
        "distr",
        {"DISTRIBUTED_PROJECT": "none"},
        "project 'none' not found: deploy it: scrapy fleet deploy",
    ),
    "no spider": (
        "new",
        {},
        "spider 'new' is not in project 'trial' there (it has blocked, broken_start, deep, distr, ",
    ),
    "no folder": ("shop.com/eu", {}, "spider 'shop.com/eu': found what is a path, and Scrapyd makes a folder of that"),
    "one queue": (
        "distr",
        {"DISTRIBUTED_WORKER_SETTINGS": '{"JOBDIR": "x"}'},
        "DISTRIBUTED_WORKER_SETTINGS: has JOBDIR",
    ),
    "too long": (
        "distr",
        {f"OWN_{number}": "x" * 125_000 for number in range(7)},
        " bytes, at most 1000000 can travel: shorten what -a and -s give, and DISTRIBUTED_WORKER_SETTINGS",
    ),
    "no ledger": ("distr", {"DISTRIBUTED_LEDGER": "/"}, "/: can't be used as ledger: "),
    "a batch of one's own": ("distr", {}, "spider argument 'batch': found one of yours"),
}


#: What only nodes can tell.
BY_NODES = ("no fleet", "no project", "no spider")


@pytest.fixture(scope="module")
def refused(project: Project, small_site: SiteChild, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Crawl]:
    """All of them, started at once."""
    new = project.folder / "properties" / "spiders" / "new.py"
    new.write_text(
        "from properties.spiders.distr import DistrSpider\n\n\nclass New(DistrSpider):\n    name = 'new'\n\n\n"
        "class Path(DistrSpider):\n    name = 'shop.com/eu'\n"
    )
    crawls = {}
    for case, (spider, settings, _) in REFUSALS.items():
        folder = tmp_path_factory.mktemp("refused")
        args = {"site": small_site.url, **({"batch": "7"} if case == "a batch of one's own" else {})}
        crawls[case] = project.crawl(spider, folder=folder, args=args, settings=settings)
    for crawl in crawls.values():
        crawl.wait()
    new.unlink()
    return crawls


@pytest.mark.parametrize("case", REFUSALS)
def test_the_crawl_does_not_start_and_says_which_setting(refused: dict[str, Crawl], case: str) -> None:
    crawl = refused[case]
    said = crawl.log.rpartition("The crawl does not start: ")[2]
    assert REFUSALS[case][2] in re.split(r"\n\d{4}-", said)[0], crawl.log
    assert "Traceback" not in crawl.log
    if case in BY_NODES:
        assert f"Closing spider ({'fleet_unusable' if case == 'no fleet' else 'start_refused'})" in said
    else:
        assert len(said.splitlines()) <= 4, "something comes after it"
    assert not crawl.stat("downloader/request_count")
    assert crawl.process.returncode == 1


# A start while no node can be used


def test_a_start_waits_for_a_node(small_site: SiteChild, tmp_path: Path) -> None:
    with start(tmp_path) as node:
        (tmp_path / "project").mkdir()
        project = Project(tmp_path / "project", {"late": f"url = {node.url}"})
        try:
            project.deploy("late", folder=tmp_path)
            node.stop()
            args = {"site": small_site.url, "pages": 2}
            crawl = project.crawl("distr", folder=tmp_path, args=args, settings=hosts("late"))
            wait_for(lambda: "No node can be used yet" in crawl.log, 60)
            wishes = Wishes(crawl.ledger)
            number = wishes.ask("undrain", "late")
            node.restart()
            crawl.wait()
        finally:
            project.end()
    assert crawl.balance() == {"diverted": 60, "crawled": 60}
    assert crawl.item_urls() == small_site.property_urls(range(60))
    assert crawl.log.count("No node can be used yet; waiting for one, at most 300 s (DISTRIBUTED_FLEET_TIMEOUT)") == 1
    assert "connection refused at" in crawl.log
    assert (crawl.process.returncode, "Traceback" in crawl.log) == (0, False)
    assert wishes.answer_of(number) == "late gets batches again"


def test_a_start_that_waits_can_be_interrupted(project: Project, small_site: SiteChild, tmp_path: Path) -> None:
    command: dict[str, Any] = {"folder": tmp_path, "args": {"site": small_site.url, "pages": 2}}
    first = project.crawl("distr", **command).wait()
    before = first.run()
    crawl = project.crawl("distr", **command, settings=hosts("127.0.0.1:1"))
    wait_for(lambda: "No node can be used yet" in crawl.log, 60)
    crawl.process.send_signal(signal.SIGINT)
    interrupted = time.monotonic()
    crawl.wait()
    assert time.monotonic() - interrupted < 10
    assert crawl.run() == before
    assert "Spider closed (shutdown)" in crawl.log
    assert "Traceback" not in crawl.log


@pytest_twisted.ensureDeferred
async def test_a_node_that_never_answers_does_not_hold_up_a_start(
    project: Project, small_site: SiteChild, tmp_path: Path
) -> None:
    hole = fake(Fault.HANG, "*")
    settings = {**hosts(hole.url.removeprefix("http://"), "scrapyd1"), "DISTRIBUTED_TIMEOUT": 60}
    crawl = project.crawl("distr", folder=tmp_path, args={"site": small_site.url, "pages": 2}, settings=settings)

    def has_said(words: str) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return words in crawl.log

        return look

    try:
        await until(has_said("Spider opened"), 60)
        opened = time.monotonic()
        await until(has_said("Run "), 60)
        assert time.monotonic() - opened < 20
        await until(crawl.has_ended, 90)
    finally:
        await hole.close()
    assert crawl.balance() == {"diverted": 60, "crawled": 60}
    assert crawl.log.count("no answer 3 s after that of another node: is it overloaded or stopped?") == 1


# The coordinator's own end


def start_walking(project: Project, child: SiteChild, folder: Path) -> tuple[dict[str, Any], Crawl]:
    """A crawl that has two batches of six, and how to start it again."""
    command: dict[str, Any] = {
        "folder": folder,
        "args": {"site": child.url, "pages": 20},
        "settings": {
            "DISTRIBUTED_BATCH_SIZE": 100,
            "DISTRIBUTED_SHUTDOWN_TIMEOUT": 5,
            "DISTRIBUTED_LEASE": 8,  # for so long it waits for a batch that may have been posted before a kill -9
            "CONCURRENT_REQUESTS": 1,
        },
    }
    crawl = project.crawl("distr", **command)
    wait_for(lambda: crawl.ledger.exists() and "Run " in crawl.log and len(crawl.run()["batches"]) == 2)
    return command, crawl


def go_on(project: Project, child: SiteChild, command: dict[str, Any], crawl: Crawl) -> None:
    """The same command takes up the run and ends it, and nothing is crawled or delivered twice."""
    assert not crawl.run()["walked"]
    assert crawl.run()["balance"].holds
    assert project.check(crawl) == 1
    again = project.crawl("distr", **command).wait()
    assert again.process.returncode == 0
    assert again.run()["name"] == crawl.run()["name"]
    assert again.balance().items() >= {"diverted": 600, "crawled": 600}.items()
    assert project.check(again) == 0
    assert again.item_urls() == child.property_urls(range(600))
    assert child.stats()["properties_repeated"] == 0


def test_ctrl_c_once_and_the_same_command_goes_on(project: Project, tmp_path: Path) -> None:
    with site(600, latency=0.1) as child:
        command, crawl = start_walking(project, child, tmp_path)
        crawl.process.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        crawl.wait()
        assert time.monotonic() - interrupted < 5
        assert "is not finished (shutdown)" in crawl.log
        assert "nothing is lost, the same command takes it up again" in crawl.log
        assert crawl.process.returncode == 1
        go_on(project, child, command, crawl)


def test_kill_9_and_the_same_command_goes_on(project: Project, tmp_path: Path) -> None:
    with site(600, latency=0.1) as child:
        command, crawl = start_walking(project, child, tmp_path)
        crawl.end()
        go_on(project, child, command, crawl)


# Credentials and TLS


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost that nobody knows, in a file, and the context of a server that has it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "trusted.pem").write_bytes(made)
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "trusted.pem", folder / "key.pem")
    return folder / "trusted.pem", context


@pytest_twisted.ensureDeferred
async def test_credentials_and_https(small_site: SiteChild, tmp_path: Path) -> None:
    """One node, as two targets: over http with the credentials in scrapy.cfg, over https with those in its URL."""
    trusted, context = certificate(tmp_path)
    async with AsyncExitStack() as stack:
        node = stack.enter_context(start(tmp_path, username="trial", password=SECRET))
        port = await stack.enter_async_context(proxy(node.port, context=context))
        targets = {
            "plain": f"url = {node.url}\nusername = trial\npassword = {SECRET}",
            "secure": f"url = https://trial:{SECRET}@localhost:{port}",
        }
        (tmp_path / "project").mkdir()
        project = Project(tmp_path / "project", targets)
        stack.callback(project.end)
        environment = {"SSL_CERT_FILE": str(trusted)}
        project.deploy("plain", folder=tmp_path)
        args = {"site": small_site.url}
        settings = {**hosts("plain", "secure"), "DISTRIBUTED_BATCH_SIZE": 4}
        crawl = project.crawl("plain", folder=tmp_path, args=args, settings=settings, environment=environment)
        await until(crawl.has_ended, DEADLINE_SECONDS)
    assert crawl.balance() == {"diverted": 8, "duplicates": 2, "crawled": 7, "failed": 1}
    assert [batch["node"] for batch in crawl.run()["batches"]] == ["plain", "secure"]
    assert crawl.log.count("WARNING: plain: ") == crawl.log.count("WARNING: secure: ") == 0

    argv = [argument for item in crawl.items() if "argv" in item for argument in item["argv"]]
    assert "DISTRIBUTED_START_URL=" in " ".join(argv)
    assert SECRET not in json.dumps(argv)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "scrapy.cfg"]
    assert any(path.suffix == ".sqlite" for path in written)
    assert any(path.parent.name == "plain.receipts" for path in written)
    for secret in (SECRET.encode(), b64encode(f"trial:{SECRET}".encode())):
        assert [path for path in written if secret in path.read_bytes()] == []


# What no node can do


def test_where_no_feed_can_be_stored_the_crawl_closes_and_nothing_is_lost(
    project: Project, small_site: SiteChild, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    nowhere.touch()  # a file, so nothing can be put below it
    command: dict[str, Any] = {"folder": tmp_path, "args": {"site": small_site.url, "pages": 2}}
    settings = {"DISTRIBUTED_BATCH_SIZE": 10, "DISTRIBUTED_FLEET_TIMEOUT": 4}
    feed = {"DISTRIBUTED_TARGET_FEED_URL": f"file://{nowhere}/%(batch)s.jl"}
    crawl = project.crawl("distr", **command, settings={**settings, **feed}).wait()
    assert "Closing spider (fleet_unusable)" in crawl.log
    balance = crawl.run()["balance"]
    assert balance.holds
    assert (balance.queued + balance.in_flight, balance.dead) == (60, 0)
    assert re.search(r"rejected: its feed was not stored: .*(NotADirectory|FileExists)Error", crawl.log)
    again = project.crawl("distr", **command, settings=settings).wait()
    assert again.balance().items() >= {"diverted": 60, "crawled": 60}.items()
    assert again.item_urls() == small_site.property_urls(range(60))


def test_a_project_that_does_not_activate_the_plugin_on_its_nodes(small_site: SiteChild, tmp_path: Path) -> None:
    """Each job is told to: else it would crawl the whole site from the spider's own start."""
    with start(tmp_path) as node:
        (tmp_path / "project").mkdir()
        project = Project(tmp_path / "project", {"bare": f"url = {node.url}"}, settings="trial.bare")
        bare = tmp_path / "project" / "trial" / "bare.py"
        bare.write_text("from trial.settings import *\n\nADDONS = {}\nSPIDER_MIDDLEWARES = {}\n")
        try:
            project.deploy("bare", folder=tmp_path)
            args = {"site": small_site.url, "pages": 2}
            active = {"ADDONS": json.dumps({"scrapy_distributed.Addon": 500})}
            crawl = project.crawl("distr", folder=tmp_path, args=args, settings={**hosts("bare"), **active}).wait()
        finally:
            project.end()
    assert crawl.balance() == {"diverted": 60, "crawled": 60}
    assert crawl.stat("distributed/attempts") == 1


def test_a_walk_that_fails_does_not_keep_what_is_to_be_tried_again_waiting(
    project: Project, unused_port: int, tmp_path: Path
) -> None:
    crawl = project.crawl("broken_start", folder=tmp_path, args={"site": f"http://127.0.0.1:{unused_port}"}).wait()
    balance = crawl.run()["balance"]
    assert (balance.failed, balance.queued, balance.in_flight) == (1, 0, 0)
    assert crawl.stat("distributed/tried_again") == 1
    assert {outcome["reason"] for outcome in crawl.run()["outcomes"]} == {"refused"}

"""How each design crawls the site: what is started, when the clock starts and stops.

Common to all: the site, and whatever waits for work (Scrapyd nodes, Redis and its workers), runs before the clock
starts. CPU time counts from then on, by role.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from environments import EXAMPLE, PEERS, Environment, redis_server
from processes import BROKER, COORDINATOR, DAEMON, PARENT, WORKER, Child, MeasurementError, Processes, Role

from scrapy_distributed.fleet.egg import build_egg

sys.path.append(str(EXAMPLE / "site"))
from pages import LINKS_PER_PAGE

SHARDS = 20
_QUIET_SECONDS = 0.5
_QUIET_CPU_SECONDS = 0.05
_VERSION = "1"
_LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is crawled and with what: *latency* in seconds for each page, *workers* of each node at once, *concurrency*
    in requests of each worker."""

    properties: int
    latency: float = 0.0
    nodes: int = 2
    workers: int = 1
    concurrency: int = 16


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One measurement under way: *folder* is its own, *work* that of all. *deadline* is a ``time.monotonic()``."""

    processes: Processes
    work: Path
    folder: Path
    workload: Workload
    environment: Environment
    settings: Mapping[str, Any]
    coordinator: Mapping[str, Any]
    scrapyd: Mapping[str, str]
    site: str
    deadline: float

    @property
    def feeds(self) -> Path:
        """Where every worker writes a file of JSON lines."""
        return self.folder / "feeds"

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def python(self) -> Path:
        return self.environment.python(self.work)

    def crawl_settings(self) -> dict[str, Any]:
        """Of every process that crawls, the same for each design."""
        limit = self.workload.concurrency
        return {"CONCURRENT_REQUESTS": limit, "CONCURRENT_REQUESTS_PER_DOMAIN": limit, **self.settings}

    def assemble(self, package: str) -> None:
        """Make the project: the example's package, and that of a peer with the settings."""
        shutil.copytree(EXAMPLE / "properties", self.project / "properties", ignore=shutil.ignore_patterns("*.pyc"))
        if package != "properties":
            shutil.copytree(PEERS / package, self.project / package, ignore=shutil.ignore_patterns("*.pyc"))
        (self.project / "scrapy.cfg").write_text(f"[settings]\ndefault = {package}.settings\n")

    def scrapy(self, name: str, *words: str, settings: Mapping[str, Any]) -> list[object]:
        """The command line of ``scrapy crawl``."""
        assigned = [word for key, value in settings.items() for word in ("-s", f"{key}={as_text(value)}")]
        return [self.python(), "-m", "scrapy", "crawl", name, "-a", f"site={self.site}", *words, *assigned]

    def times(self) -> dict[str, Any]:
        """What the site has noted, see ``timed_site``."""
        return fetch(f"{self.site}/times.json")

    def wait_until_sent(self) -> None:
        """Wait until the site has sent every property."""
        sent = 0

        def look() -> bool | None:
            nonlocal sent
            sent = fetch(f"{self.site}/sent.json")["sent"]
            return True if sent == self.workload.properties else None

        self.processes.until(look, self.deadline, "not every property was asked for")


@dataclass(frozen=True, kw_only=True)
class Span:
    """The clock, as ``time.monotonic()``, and the CPU seconds by role that were used meanwhile."""

    started: float
    ended: float
    cpu: Mapping[str, float]


# --- one process ---


def alone(stage: Stage) -> Span:
    """One ``scrapy crawl``: from its start to its end."""
    stage.assemble("plain")
    before, started = stage.processes.cpu(), time.monotonic()
    settings = stage.crawl_settings() | {"FEEDS": one_feed(f"{stage.feeds}/all.jl")}
    argv = stage.scrapy("distr", "-a", f"pages={index_pages(stage)}", settings=settings)
    crawl = stage.processes.start("crawl", WORKER, argv, cwd=stage.project, env={})
    stage.processes.finish(crawl, stage.deadline)
    return span(stage, before, started, time.monotonic())


# --- workers on this machine ---


def local(stage: Stage) -> Span:
    """From the start of the coordinator, which starts its workers itself, until its end: its one file holds all items
    then."""
    stage.assemble("properties")
    settings = {
        "DISTRIBUTED_TARGET_HOSTS": f"local:{stage.workload.workers}",
        "DISTRIBUTED_TARGET_FEED_URL": "",  # items come home
        "DISTRIBUTED_WORKER_SETTINGS": stage.crawl_settings(),
        "DISTRIBUTED_LEDGER": str(stage.folder / "ledger.sqlite"),
        "FEEDS": one_feed(f"{stage.feeds}/all.jl"),
    }
    before, started = stage.processes.cpu(), time.monotonic()
    stage.processes.finish(start_coordinator(stage, settings, role=PARENT), stage.deadline)
    measured = span(stage, before, started, time.monotonic())
    check_ledger(stage)
    return measured


# --- a coordinator and Scrapyd nodes ---


def tutorial(stage: Stage) -> Span:
    """From the start of the coordinator until the last job has ended: only then is its file complete."""
    stage.assemble("tutorial")
    hosts = start_nodes(stage, "tutorial")
    settings = {
        "TUTORIAL_HOSTS": hosts,
        "TUTORIAL_FEEDS": str(stage.feeds),
        "TUTORIAL_WORKER_SETTINGS": stage.crawl_settings(),
    }
    before, started = stage.processes.cpu(), time.monotonic()
    stage.processes.finish(start_coordinator(stage, settings), stage.deadline)
    stage.wait_until_sent()
    wait_until_idle(stage, hosts)
    return span(stage, before, started, time.monotonic())


def ours(stage: Stage) -> Span:
    """From the start of the coordinator until its end: every URL is accounted for then."""
    stage.assemble("properties")
    hosts = start_nodes(stage, "properties")
    settings = {
        "DISTRIBUTED_TARGET_HOSTS": hosts,
        "DISTRIBUTED_TARGET_FEED_URL": f"{stage.feeds}/%(batch)s.jl",
        "DISTRIBUTED_LEDGER": str(stage.folder / "ledger.sqlite"),
        "DISTRIBUTED_WORKER_SETTINGS": stage.crawl_settings(),
    }
    before, started = stage.processes.cpu(), time.monotonic()
    stage.processes.finish(start_coordinator(stage, settings), stage.deadline)
    ended = time.monotonic()
    wait_until_idle(stage, hosts)  # workers that have reported end by themselves; their CPU time counts
    measured = span(stage, before, started, ended)
    check_ledger(stage)
    return measured


def check_ledger(stage: Stage) -> None:
    """Raise unless every URL of the ledger is accounted for."""
    check = [stage.python(), "-m", "scrapy", "batches", "check", "--ledger", stage.folder / "ledger.sqlite"]
    stage.processes.finish(
        stage.processes.start("check", COORDINATOR, check, cwd=stage.project, env={}), stage.deadline
    )


def start_coordinator(stage: Stage, settings: Mapping[str, Any], role: Role = COORDINATOR) -> Child:
    argv = stage.scrapy(
        "distr",
        "-a",
        f"pages={index_pages(stage)}",
        settings=stage.crawl_settings() | dict(settings) | dict(stage.coordinator),
    )
    return stage.processes.start("coordinator", role, argv, cwd=stage.project, env={})


def start_nodes(stage: Stage, project: str) -> str:
    """Start Scrapyd nodes that have the project; their ``host:port``, with commas."""
    nodes = [make_node(stage, project, number) for number in range(1, stage.workload.nodes + 1)]
    for node in nodes:
        node.start(stage)
    for node in nodes:
        node.wait(stage, project)
    settle(stage)
    return ",".join(node.host for node in nodes)


@dataclass(frozen=True, kw_only=True)
class ScrapydNode:
    """A Scrapyd with everything that it needs in *folder*, to be started at *host*, a ``host:port``."""

    name: str
    folder: Path
    host: str

    def start(self, stage: Stage, **env: str) -> Child:
        """*env*: more of its environment, which its jobs have as well."""
        argv = [stage.python(), "-m", "scrapyd", "--pidfile="]
        return stage.processes.start(self.name, DAEMON, argv, cwd=self.folder, env=env)

    def wait(self, stage: Stage, project: str) -> None:
        """Until it has the project. The first question about a version makes it list its spiders, in a process of its
        own."""
        for query in (project, f"{project}&_version={_VERSION}"):
            url = f"http://{self.host}/listspiders.json?project={query}"
            found = stage.processes.until(partial(try_fetch, url), stage.deadline, f"{self.host} does not answer")
            if found.get("status") != "ok":
                raise MeasurementError(f"{self.host} does not have the project: {found}")


def make_node(stage: Stage, project: str, number: int) -> ScrapydNode:
    folder = stage.folder / f"node{number}"
    (folder / "eggs" / project).mkdir(parents=True)
    (folder / "eggs" / project / f"{_VERSION}.egg").write_bytes(build_egg(stage.project, f"{project}.settings"))
    port = free_port()
    conf = {
        "bind_address": "127.0.0.1",
        "http_port": str(port),
        "max_proc": str(stage.workload.workers),
        "logs_dir": "logs",
        "items_dir": "",
        "jobs_to_keep": "1000",
        **stage.scrapyd,
    }
    lines = [f"{key} = {value}\n" for key, value in conf.items()]
    (folder / "scrapyd.conf").write_text("[scrapyd]\n" + "".join(lines))
    (folder / "scrapy.cfg").write_text("[settings]\n")  # Scrapyd reads the nearest one
    return ScrapydNode(name=f"scrapyd{number}", folder=folder, host=f"127.0.0.1:{port}")


def settle(stage: Stage) -> None:
    """Wait until all that was started has nothing left to do: so it is as warm as it gets."""

    def look() -> bool | None:
        before = sum(stage.processes.cpu().values())
        time.sleep(_QUIET_SECONDS)
        return True if sum(stage.processes.cpu().values()) - before < _QUIET_CPU_SECONDS else None

    stage.processes.until(look, stage.deadline, "something is busy before the start")


def wait_until_idle(stage: Stage, hosts: str) -> None:
    """Wait until no node has a job left."""

    def look() -> bool | None:
        found = [fetch(f"http://{host}/daemonstatus.json") for host in hosts.split(",")]
        return True if all(status["pending"] == status["running"] == 0 for status in found) else None

    stage.processes.until(look, stage.deadline, "not every job has ended")


# --- workers that share a queue in Redis ---


def scrapy_redis(stage: Stage) -> Span:
    """Workers wait for the start URLs; see ``shared_queue`` for the clock."""
    stage.assemble("redis_workers")
    port = start_redis(stage)
    workers = []
    for number in range(1, stage.workload.nodes * stage.workload.workers + 1):
        settings = {
            "REDIS_URL": f"redis://127.0.0.1:{port}",
            "FEEDS": one_feed(f"{stage.feeds}/{number}.jl"),
            "FEEDS_FOLDER": str(stage.feeds),
        }
        argv = stage.scrapy("shared", settings=stage.crawl_settings() | settings)
        workers.append(stage.processes.start(f"worker{number}", WORKER, argv, cwd=stage.project, env={}))
    starts = [("RPUSH", "shared:start_urls", json.dumps({"url": url})) for url in start_urls(stage)]
    return shared_queue(stage, workers, port, starts)


def aio_scrapy(stage: Stage) -> Span:
    """The same with aio-scrapy, whose queue is a sorted set of requests as JSON."""
    stage.project.mkdir()
    port = start_redis(stage)
    settings = {
        "REDIS_ARGS": {"queue": {"url": f"redis://127.0.0.1:{port}"}},
        "FEEDS_FOLDER": str(stage.feeds),
        "SCHEDULER_QUEUE_CLASS": "aioscrapy.queue.redis.SpiderPriorityQueue",
        "DUPEFILTER_CLASS": "aioscrapy.dupefilters.redis.RFPDupeFilter",
        "ITEM_PIPELINES": {"__main__.JsonLines": 100},
        "CLOSE_SPIDER_ON_IDLE": False,
        **stage.crawl_settings(),
    }
    workers = []
    for number in range(1, stage.workload.nodes * stage.workload.workers + 1):
        argv = [stage.python(), PEERS / "aio_workers" / "crawl.py", json.dumps(settings)]
        workers.append(stage.processes.start(f"worker{number}", WORKER, argv, cwd=stage.project, env={}))
    starts = [("ZADD", "shared:requests", "0", json.dumps({"url": url})) for url in start_urls(stage)]
    return shared_queue(stage, workers, port, starts)


def shared_queue(stage: Stage, workers: Sequence[Child], port: int, starts: Sequence[Sequence[str]]) -> Span:
    """From the first page that is asked for until the last item, whose time the workers leave.

    In favour of these designs: neither how long an idle worker takes to look at its queue counts, nor the time and CPU
    time of its start and its end. They would wait for more for ever, so they are stopped then."""
    for worker in workers:
        stage.processes.wait_for(worker, "Spider opened", stage.deadline)
    settle(stage)
    if stage.times()["index"]:
        raise MeasurementError("workers did not wait for their start")
    before = stage.processes.cpu()
    for command in starts:
        redis_command(port, *command)
    stage.wait_until_sent()
    time.sleep(stage.workload.latency)
    settle(stage)  # pages may have come in faster than they were parsed
    cpu = span(stage, before, 0.0, 0.0).cpu
    stage.processes.stop(workers, stage.deadline)
    ended = max(float(file.read_text()) for file in stage.feeds.glob("*.last"))
    return Span(started=stage.times()["index"][0], ended=ended, cpu=cpu)


def start_redis(stage: Stage) -> int:
    """Start a Redis server that keeps nothing; its port."""
    port = free_port()
    argv = [redis_server(stage.work), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    redis = stage.processes.start("redis", BROKER, argv, cwd=stage.folder, env={})
    stage.processes.wait_for(redis, "Ready to accept connections", stage.deadline)
    return port


def redis_command(port: int, *words: str) -> None:
    """Send one command to the Redis server on this machine; raises if it answers with an error."""
    encoded = [word.encode() for word in words]
    message = b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(message)
        answer = connection.recv(1000)
    if not answer.startswith((b":", b"+")):
        raise MeasurementError(f"Redis answers {answer!r} to {words[0]}")


# --- small things ---


def span(stage: Stage, before: Mapping[str, float], started: float, ended: float) -> Span:
    now = stage.processes.cpu()
    return Span(started=started, ended=ended, cpu={role: now[role] - before[role] for role in now})


def one_feed(file: str) -> dict[str, Any]:
    return {file: {"format": "jsonlines"}}


def as_text(value: object) -> str:
    """A setting on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def index_pages(stage: Stage) -> int:
    return max(1, -(-stage.workload.properties // LINKS_PER_PAGE))


def start_urls(stage: Stage) -> list[str]:
    """The same index pages at which the example's spider starts."""
    pages = index_pages(stage)
    return [f"{stage.site}/index_{page:05d}.html" for page in range(0, pages, -(-pages // SHARDS))]


def free_port() -> int:
    """Any that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(url: str) -> dict[str, Any]:
    """The JSON object at an address of this machine."""
    with _LOCAL.open(url, timeout=30) as answer:
        value: dict[str, Any] = json.load(answer)
        return value


def try_fetch(url: str) -> dict[str, Any] | None:
    """``None`` if nobody answers there yet."""
    try:
        return fetch(url)
    except (OSError, HTTPException):
        return None

"""A shared run on a real Valkey, put there as a coordinator would, and real ``scrapy worker`` processes at it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from crawling import Crawl
from scrapy import Request
from shop import Shop
from valkey_child import ValkeyChild, valkey

from scrapy_distributed.divert.fingerprint import quick_fingerprint
from scrapy_distributed.shared.harvest import Harvest
from scrapy_distributed.shared.intake import Intake, State
from scrapy_distributed.shared.run_rules import RunRules
from scrapy_distributed.shared.server import Server
from scrapy_distributed.wire.job_template import JobTemplate

T = TypeVar("T")

PROJECT = "tiny"
VERSION = "v1"
SLOW = {"DOWNLOAD_DELAY": "0.4", "CONCURRENT_REQUESTS": "1", "RANDOMIZE_DOWNLOAD_DELAY": "False"}
_SETTINGS = """
BOT_NAME = "tiny"
SPIDER_MODULES = ["tiny.spiders"]
ADDONS = {"scrapy_distributed.Addon": 500}
DISTRIBUTED_VERSION = "v1"
DISTRIBUTED_RECEIPT_INTERVAL = 0.2
TELNETCONSOLE_ENABLED = False
"""
_SPIDERS = """
import os, signal, sys, time
import scrapy

if os.environ.get("BROKEN") and "_job=" in "".join(sys.argv):
    raise ImportError("a library that this machine lacks")


class Pages(scrapy.Spider):
    name = "pages"

    def parse_page(self, response):
        number = response.url.rpartition("=")[2]
        if "kill" in response.url:
            os.kill(os.getpid(), signal.SIGKILL)
        if "slow" in response.url:
            time.sleep(self.settings.getfloat("SLOW_SECONDS"))
        yield {"number": number}
        if "tree" in response.url and int(number) < int(getattr(self, "inner", 7)):
            for child in (2 * int(number) + 1, 2 * int(number) + 2, 0):
                yield response.follow(f"/none?tree={child}", self.parse_page)
"""


def write_project(folder: Path) -> Path:
    """One spider, ``pages``, with an item for each page; one whose URL has ``kill`` in it kills its process, those with
    ``slow`` take as long as the setting ``SLOW_SECONDS`` says, and those with ``tree`` lead to two more each, 15 in
    all, or as many as ``-a inner=N`` makes of it. Where ``BROKEN`` is set no job of it starts."""
    package = folder / "tiny"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text(_SETTINGS)
    (package / "spiders.py").write_text(_SPIDERS)
    (folder / "scrapy.cfg").write_text("[settings]\ndefault = tiny.settings\n")
    return folder


class Stand:
    """A Valkey, a project in *folder*, and the workers that were started."""

    def __init__(self, valkey: ValkeyChild, folder: Path, server: Server) -> None:
        self.valkey = valkey
        self.folder = folder
        self.server = server
        self.project = write_project(folder / "project")
        self.workers: list[Crawl] = []

    def worker(self, *options: str, at: str = "", **environment: str) -> Crawl:
        """*at*: the URL of what stands before the Valkey, if anything does."""
        place = self.folder / f"worker{len(self.workers)}"
        place.mkdir()
        logs = () if "--logs" in options else ("--logs", str(place / "logs"))
        worker = Crawl(self.project, place, ["worker", at or self.valkey.url, *logs, *options], environment)
        self.workers.append(worker)
        return worker

    def add_setting(self, line: str) -> None:
        with (self.project / "tiny" / "settings.py").open("a") as file:
            file.write(f"{line}\n")

    def with_digest(self) -> None:
        """The version of the code is what its sources say."""
        settings = self.project / "tiny" / "settings.py"
        settings.write_text(settings.read_text().replace(f'DISTRIBUTED_VERSION = "{VERSION}"', ""))

    async def begin(
        self,
        urls: Sequence[str],
        *,
        lease: float = 60.0,
        stall: float = 600.0,
        attempts: int = 3,
        version: str = VERSION,
        args: Mapping[str, str] = MappingProxyType({}),
        **settings: str,
    ) -> Intake:
        """A run of *urls*, all of which are in it; its walk is done."""
        intake = Intake(self.server, PROJECT)
        told = {
            "ADDONS": '{"scrapy_distributed.Addon": 500}', "DISTRIBUTED_TARGET_CALLBACKS": "parse_page",
            "DISTRIBUTED_ITEMS": "home", "FEEDS": "{}", "FEED_URI": "", **settings,
        }  # fmt: skip
        template = JobTemplate(project=PROJECT, spider="pages", version="", settings=told, args=dict(args))
        rules = RunRules(max_attempts=attempts, lease_seconds=lease, stall_seconds=stall)
        await intake.begin(
            {"urls": list(urls)}, spider="pages", template=template.to_json(), version=version, rules=rules, resume=True
        )
        await intake.walk(60)
        await intake.add([(quick_fingerprint(Request(url)), json.dumps(url)) for url in urls])
        await intake.walked()
        return intake

    def jobs_of(self, worker: Crawl) -> list[int]:
        return self.jobs(worker.folder)

    def jobs(self, folder: Path | None = None) -> list[int]:
        """The pids of the jobs that live: those that write to a log in *folder*, or anywhere here."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    log = os.readlink(entry / "fd" / "1")
                except OSError:
                    continue
                if log.startswith(str(folder or self.folder)) and "/logs/" in log:
                    found.append(int(entry.name))
        return found


@asynccontextmanager
async def stand(folder: Path, **options: str) -> AsyncIterator[Stand]:
    """*options*: of the Valkey."""
    with valkey(**options) as child:
        server = await Server.connect(child.address)
        stand = Stand(child, folder, server)
        try:
            yield stand
        finally:
            for worker in stand.workers:
                try:
                    worker.end()
                except ProcessLookupError:  # it has just ended, or begun, and has no group of its own yet
                    with suppress(ProcessLookupError):
                        worker.process.kill()
            await server.close()


def urls(shop: Shop, number: int, what: str = "n") -> list[str]:
    """Of pages of *shop*, numbered from 0."""
    return [f"{shop.url}/none?{what}={one}" for one in range(number)]


async def items(stand: Stand, intake: Intake) -> list[str]:
    """The numbers of the pages whose items have come home, of positions that count."""
    harvest = Harvest(stand.server, PROJECT, intake.run, owner=intake.owner)
    found = []
    while (home := await harvest.first()) is not None:
        for part in range(home.parts):
            for line in (await harvest.part(home, part)).splitlines():
                position, *_, item = json.loads(line)
                if home.settled >> position & 1:
                    found.append(item["number"])
        await harvest.taken(home, items=0, twice=0, size=0, digest="")
    return found


async def over(intake: Intake, seconds: float = 60.0, told: Callable[[], str] = str) -> State:
    """How the run stands when it has ended."""

    async def check() -> State | None:
        state = await intake.state()
        return state if state.ended else None

    return await eventually(check, seconds, told)


async def eventually(check: Callable[[], Any], seconds: float = 30.0, told: Callable[[], str] = str) -> Any:
    """What *check* returns as soon as that is true; it may be a coroutine function. *told*: what helps if it is not."""
    deadline = time.monotonic() + seconds
    while True:
        result = check()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < deadline, f"still {result!r} after {seconds} s{told()}"
        await asyncio.sleep(0.05)

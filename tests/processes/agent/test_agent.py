"""Jobs on this machine: real processes, of a spider in a file."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from until import until as until_awaited

from scrapy_distributed.agent.agent import Agent
from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.wire.payload import NEVER_USED
from scrapy_distributed.wire.receipt import Receipt

SPIDERS = """\
import os, sys, time
import scrapy
from scrapy import signals
from scrapy.exceptions import DontCloseSpider
from scrapy_distributed.worker import parent

class Waits(scrapy.Spider):
    name = "waits"

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.wait, signals.spider_idle)
        return spider

    async def start(self):
        print(f"pid={os.getpid()} parent={os.getppid()} session={os.getsid(0)} folder={os.getcwd()}", flush=True)
        print(f"command={open('/proc/self/cmdline').read()!r}" if os.path.exists("/proc") else "", flush=True)
        print(f"secret={os.environ.get('SCRAPYD_PASSWORD')} given={os.environ.get('GIVEN')}", flush=True)
        print(f"path={sys.path[-1]}", flush=True)
        print(f"further={'scrapy.core.downloader.handlers._aiohttp' in sys.modules}", flush=True)
        print(f"started={self._job}", flush=True)
        return
        yield

    def wait(self):
        if hasattr(self, "forks"):
            child = os.fork()
            if not child:
                time.sleep(60)
                os._exit(0)
            print(f"child={child}", flush=True)
        elif hasattr(self, "blocks"):
            parent.LAST_SECONDS = 1
            print("blocked=1", flush=True)
            time.sleep(600)
        elif not hasattr(self, "quick"):
            raise DontCloseSpider
"""
WORKER = ["-s", 'ADDONS={"scrapy_distributed.Addon": 500}', "-s", "DISTRIBUTED_START_URL=[]"]


class Rig:
    """An agent with two slots, and what its jobs print."""

    def __init__(self, folder: Path) -> None:
        self.spiders = folder / "spiders.py"
        self.spiders.write_text(SPIDERS)
        self.files = JobFiles(folder / "jobs")
        self.agent = Agent(self.files, slots=2, reactor=reactor)
        self.told = 0
        self.agent.news = self.tell
        self.agent.open()

    def tell(self) -> None:
        self.told += 1

    def submit(self, job: str, *options: str) -> None:
        self.agent.submit(job, ["runspider", str(self.spiders), *options])

    def printed(self, job: str, name: str) -> str:
        """What *job* has printed of itself."""
        words = self.files.log(job).read_text().split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))

    async def started(self, *jobs: str) -> None:
        await until(lambda: all(self.files.log(job).exists() and f"started={job}" in self.log(job) for job in jobs))

    async def state(self, job: str, state: str | None) -> None:
        await until(lambda: self.agent.state(job) == state)

    def log(self, job: str) -> str:
        return self.files.log(job).read_text()


@pytest_twisted.async_yield_fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setenv("SCRAPYD_PASSWORD", "s3cr3t")
    monkeypatch.setenv("GIVEN", "yes")
    rig = Rig(tmp_path)
    yield rig
    await rig.agent.close()


@pytest_twisted.ensureDeferred
async def test_as_many_run_as_there_are_slots_and_in_order(rig: Rig) -> None:
    for job in ("a", "b", "c"):
        rig.submit(job)
    assert [rig.agent.state(job) for job in ("a", "b", "c", "d")] == ["pending", "pending", "pending", None]
    await rig.started("a", "b")
    assert (rig.agent.running, rig.agent.pending) == (2, 1)
    told = rig.told
    assert rig.agent.end("a", signal.SIGINT) == "running"
    await rig.started("c")
    assert rig.told > told
    assert [rig.agent.state(job) for job in ("a", "b", "c")] == ["finished", "running", "running"]
    assert "Received SIGINT, shutting down gracefully" in rig.log("a")
    assert rig.agent.finished == 1


@pytest_twisted.ensureDeferred
async def test_one_that_waits_is_taken_back_and_never_runs(rig: Rig) -> None:
    for job in ("a", "b", "c"):
        rig.submit(job)
    await rig.started("a", "b")
    assert rig.agent.end("c", signal.SIGINT) == "pending"
    assert rig.agent.end("c", signal.SIGINT) is None
    rig.agent.end("a", signal.SIGKILL)
    await rig.state("a", "finished")
    assert not rig.files.log("c").exists()
    assert rig.agent.state("c") is None


@pytest_twisted.ensureDeferred
async def test_a_job_is_in_a_session_apart_and_in_our_folder(rig: Rig) -> None:
    rig.submit("a", "-s", "MARK=s3cr3t-of-a-batch")
    await rig.started("a")
    assert rig.printed("a", "session") != str(os.getsid(0))
    assert rig.printed("a", "parent") == rig.printed("a", "session")  # the warm process leads it
    assert rig.printed("a", "folder") == os.getcwd()
    assert rig.printed("a", "given") == "yes"
    assert rig.printed("a", "secret") == "None"
    assert "s3cr3t-of-a-batch" not in rig.log("a").partition("command=")[2].splitlines()[0]


@pytest_twisted.ensureDeferred
async def test_what_few_jobs_need_is_imported_once_there_is_time(rig: Rig) -> None:
    pytest.importorskip("scrapy.core.downloader.handlers._aiohttp", reason="no Scrapy for jobs without a reactor")
    for number in range(20):
        rig.submit(f"job{number}")
        await rig.started(f"job{number}")
        if rig.printed(f"job{number}", "further") == "True":
            return
        rig.agent.end(f"job{number}", signal.SIGKILL)
        await deferLater(reactor, 1.5)
    raise AssertionError("it was not imported")


@pytest_twisted.ensureDeferred
async def test_without_a_warm_process_it_starts_cold(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.submit("a", "-a", "quick=1")
    await rig.state("a", "finished")
    monkeypatch.setattr(rig.agent, "_warm", None)
    rig.submit("b", *WORKER)
    await until(lambda: rig.files.receipt("b").exists())
    await rig.state("b", "finished")
    assert Receipt.from_json(rig.files.receipt("b").read_bytes()).final
    rig.submit("c")
    await rig.started("c")
    assert rig.printed("c", "parent") == str(os.getpid())
    assert rig.printed("c", "session") == rig.printed("c", "pid")


@pytest_twisted.ensureDeferred
async def test_a_worker_ends_when_who_has_started_it_is_gone(rig: Rig) -> None:
    rig.submit("a", *WORKER, "-s", "CLOSESPIDER_TIMEOUT=0", "-s", "DISTRIBUTED_RECEIPT_INTERVAL=0.1")
    rig.submit("b", "-a", "waits=1")
    await rig.started("b")
    await until(lambda: rig.files.is_held("a"))
    assert rig.agent.state("a") == "running"
    os.kill(int(rig.printed("b", "parent")), signal.SIGKILL)
    await until(lambda: not rig.files.is_held("a"))
    receipt = Receipt.from_json(rig.files.receipt("a").read_bytes())
    assert receipt.final
    rig.submit("c", "-a", "quick=1")  # with another warm process, or cold
    rig.agent.end("b", signal.SIGKILL)
    await rig.state("c", "finished")


@pytest_twisted.ensureDeferred
async def test_so_does_one_whose_spider_blocks(rig: Rig) -> None:
    rig.submit("a", *WORKER, "-a", "blocks=1")
    await until(lambda: rig.files.log("a").exists() and "blocked=1" in rig.log("a"))
    assert rig.agent._warm is not None
    os.kill(rig.agent._warm.pid, signal.SIGKILL)
    await until(lambda: not rig.files.is_held("a"))
    await rig.state("a", "finished")


@pytest_twisted.ensureDeferred
async def test_a_process_that_a_job_has_forked_may_outlive_it(rig: Rig) -> None:
    """As those of ``multiprocessing`` do where the job is killed: it is over all the same, and its slot is free."""
    rig.submit("a", *WORKER, "-a", "forks=1")
    try:
        await rig.state("a", "finished")
        assert alive(int(rig.printed("a", "child")))
        assert not rig.files.is_held("a")
        assert rig.agent.running == 0
    finally:
        os.kill(int(rig.printed("a", "child")), signal.SIGKILL)


@pytest_twisted.ensureDeferred
async def test_one_whose_parent_was_gone_before_claims_nothing(rig: Rig) -> None:
    rig.submit("a", *WORKER, "-s", "DISTRIBUTED_PARENT=1")  # what the agent adds comes later, and wins
    await rig.state("a", "finished")
    assert rig.files.receipt("a").exists()
    arguments = rig.agent._payload("b", ["runspider", str(rig.spiders), *WORKER], 1)
    told = json.loads(arguments)
    assert "DISTRIBUTED_PARENT=1" in told["arguments"]
    rig.agent._payload = lambda job, words, parent: arguments  # type: ignore[method-assign]
    rig.submit("b", *WORKER)
    await rig.state("b", "finished")
    assert not list(rig.files.receipt("b").parent.glob("b.*"))  # nor leaves anything, as nobody may come who removes it
    assert "which has started it: that has ended" in rig.log("b")


@pytest_twisted.ensureDeferred
async def test_a_job_is_told_since_when_its_slot_is_free(rig: Rig) -> None:
    told: dict[str, float] = {}
    make = rig.agent._payload

    def payload(job: str, words: Sequence[str], parent: int) -> bytes:
        arguments = make(job, words, parent)
        told[job] = float(re.findall(r"DISTRIBUTED_SLOT_FREE_SINCE=([\d.]+)", arguments.decode())[0])
        return arguments

    rig.agent._payload = payload  # type: ignore[method-assign]
    began = time.time()
    for job in ("a", "b"):
        rig.submit(job)
    await rig.started("a", "b")
    rig.agent.end("b", signal.SIGINT)
    await rig.state("b", "finished")
    rig.agent.end("a", signal.SIGINT)
    await rig.state("a", "finished")
    for job in ("c", "d"):
        rig.submit(job)
    await rig.started("c", "d")
    assert (told["a"], told["b"]) == (NEVER_USED, NEVER_USED)
    assert began < told["c"] < told["d"] < time.time()  # the slot of b is free for longer


@pytest_twisted.ensureDeferred
async def test_nothing_is_left_when_it_is_closed(rig: Rig) -> None:
    rig.submit("a")
    rig.submit("b")
    await rig.started("a", "b")
    pids = [int(rig.printed(job, "pid")) for job in ("a", "b")]
    warm = int(rig.printed("a", "parent"))
    await rig.agent.close()
    await until(lambda: not any(map(alive, (*pids, warm))))


async def until(check: Callable[[], bool]) -> None:
    async def now() -> bool:
        return check()

    await until_awaited(now)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

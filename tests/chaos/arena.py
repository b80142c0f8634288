"""Where chaos happens: three real nodes that can be struck and mended, and a run that is begun again until it ends."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import crawling
from crawling import SCRAPY, Crawl, Project, SiteChild, call, with_urls
from ftp_child import FtpChild
from gate import Gate, Weather, gate
from launcher import NEVER, SWITCHES
from places import Folder
from scrapyd_child import ScrapydChild, start

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.ledger.reader import LedgerReader

T = TypeVar("T")

LAUNCHER = Path(__file__).with_name("launcher.py")
INDEX_LINKS = 30
# Arguments of the spiders that have to be told how many properties there are.
ARGS: dict[str, Callable[[int], dict[str, Any]]] = {
    "distr": lambda properties: {"pages": -(-properties // INDEX_LINKS)},
    "leading": lambda properties: {"count": properties},
}
# A call that hangs, a lost job and a fleet that is gone are noticed soon: the suite has minutes, not hours. In seconds,
# on a machine that has nothing else to do. Six jobs that start at once on two cores take four of them.
TIMES = {"DISTRIBUTED_TIMEOUT": 2, "DISTRIBUTED_LEASE": 6, "DISTRIBUTED_FLEET_TIMEOUT": 20}
OLDER = '{"older": 1}\n{"older": 2}\n'  # lines that a file to append to has had before


def slowness() -> float:
    """What takes a second in peace takes so many here and now: a worker that is only slow to start is not lost. Two
    processes a core are what a test has at work by itself."""
    return min(max(1.0, os.getloadavg()[0] / (2 * (os.cpu_count() or 1))), 10.0)


def wait_for(check: Callable[[], T], seconds: float = 30) -> T:
    """As ``crawling.wait_for``, in the time of this machine."""
    return crawling.wait_for(check, seconds * slowness())


def processes(group: int) -> list[int]:
    """The processes of a process group, without those that are over."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, in_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(in_group) == group and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def fork_servers(daemon: int) -> set[int]:
    """The warm processes of a Scrapyd, from which it forks its workers."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            if parent == daemon and b"fork_server" in path.with_name("cmdline").read_bytes():
                found.add(int(path.parent.name))
    return found


def linked(folder: Path, link: str) -> set[int]:
    """The processes whose *link* (``cwd``, ``fd/1``) leads to *folder*, or to what is in it."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if Path(os.readlink(path / link)).is_relative_to(folder):
                found.add(int(path.name))
    return found


def strike(pid: int, number: int) -> bool:
    """Send a signal; returns whether the process was still there."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def limit_files(pid: int, file_bytes: int = resource.RLIM_INFINITY) -> bool:
    """From now on no file of *pid*, or of a process that it starts, can grow beyond so many bytes: its disk is full.
    Returns whether the process was still there."""
    try:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))
    except ProcessLookupError:
        return False
    return True


class StruckNode:
    """A real Scrapyd and the gate before it, with all that can happen to them."""

    def __init__(self, child: ScrapydChild, before: Gate) -> None:
        self.child = child
        self.gate = before
        self.name = child.name
        self.address = child.url.removeprefix("http://")
        self.stopped = False
        self._groups = [child.process.pid]
        self._servers: set[int] = set()  # of all that it has been

    @property
    def alive(self) -> bool:
        return self.child.process.poll() is None

    def workers(self) -> list[int]:
        """Its workers, also those that outlive a Scrapyd that was killed here."""
        others = {self.child.process.pid, *self._fork_servers()}
        return [pid for group in self._groups for pid in processes(group) if pid not in others]

    def _fork_servers(self) -> set[int]:
        self._servers |= fork_servers(self.child.process.pid)
        return self._servers

    def jobs(self) -> dict[str, list[dict[str, Any]]]:
        jobs: dict[str, list[dict[str, Any]]] = call(f"{self.child.url}/listjobs.json?project=trial")
        return jobs

    def kill(self, number: int = signal.SIGKILL, *, workers: bool = False) -> None:
        """End Scrapyd alone, and its workers with it if *workers*."""
        self._fork_servers()  # it is its last moment
        if workers:
            os.killpg(self.child.process.pid, number)
        else:
            strike(self.child.process.pid, number)
        try:
            self.child.process.wait(10)
        except subprocess.TimeoutExpired:  # with a full disk it may be long about its end: who stops it does not wait
            strike(self.child.process.pid, signal.SIGKILL)
            self.child.process.wait(10)
        self.stopped = False

    def restart(self) -> None:
        if not self.alive:
            self.child.restart()
            self._groups.append(self.child.process.pid)

    def stop(self, *, workers: bool = False) -> None:
        """It takes connections, and never answers; its workers go on, or stop as well."""
        for pid in [self.child.process.pid, *(self.workers() if workers else [])]:
            strike(pid, signal.SIGSTOP)
        self.stopped = True

    def go_on(self) -> None:
        for pid in [self.child.process.pid, *self.workers()]:
            strike(pid, signal.SIGCONT)
        self.stopped = False

    def fill_disk(self, file_bytes: int) -> None:
        """For it and the workers that it starts from now on."""
        for pid in (self.child.process.pid, *self._fork_servers()):
            limit_files(pid, file_bytes)

    def free_disk(self) -> None:
        """Also for the workers that run already."""
        for pid in (self.child.process.pid, *self._fork_servers(), *self.workers()):
            limit_files(pid)

    def mend(self) -> None:
        """As good as new: it runs, and has no job."""
        self.gate.turn(Weather.FAIR)
        self.gate.deliver_twice(0)
        self.gate.doubled = 0
        self.go_on()
        if self.alive:
            self.free_disk()
        self.restart()
        wait_for(self._is_empty)

    def _is_empty(self) -> bool:
        for job in self.jobs()["pending"]:
            call(f"{self.child.url}/cancel.json", project="trial", job=job["id"])
        for pid in self.workers():
            strike(pid, signal.SIGKILL)
        status = call(f"{self.child.url}/daemonstatus.json")
        return not (status["pending"] or status["running"] or self.workers())


class Fleet:
    """Three nodes, or none, and a project: ``scrapyd1`` to ``scrapyd3`` are the nodes, ``gate1`` to ``gate3`` the
    gates. *temp*: the folder for temporary files."""

    def __init__(self, nodes: Sequence[StruckNode], project: Project, temp: Path) -> None:
        self.nodes = list(nodes)
        self.project = project
        self.temp = temp

    def mend(self) -> None:
        for node in self.nodes:
            node.mend()

    def workers(self) -> list[int]:
        return [pid for node in self.nodes for pid in node.workers()]


def log_tail(crawl: Crawl, characters: int = 3000) -> str:
    """The end of its log without the stats."""
    before, dumped, after = crawl.log.partition("INFO: Dumping Scrapy stats:")
    return before[-characters:] + dumped + after[-200:]


@contextmanager
def fleet(
    folder: Path, *, conf: str = "", count: int = 3, max_proc: int = 2, first_cold: bool = True
) -> Iterator[Fleet]:
    """The nodes start their workers from a warm process, but for the first if that is to be *first_cold*: as Scrapyd
    does, at fifteen times the CPU. *conf*: lines for the nodes' configuration. What they and their workers leave behind
    is in *folder*."""
    for name in ("project", "deploy", "tmp"):
        (folder / name).mkdir()
    (folder / ".scrapyd.conf").write_text(f"[scrapyd]\n{conf}\n")
    environment = patch.dict(os.environ, HOME=str(folder), TMPDIR=str(folder / "tmp"))
    with ExitStack() as stack, environment:
        children = [
            stack.enter_context(
                start(folder, name=f"scrapyd{number}", max_proc=max_proc, warm=number > 1 or not first_cold)
            )
            for number in range(1, count + 1)
        ]
        nodes = [StruckNode(child, stack.enter_context(gate(child.port))) for child in children]
        gates = {f"gate{n}": f"url = http://127.0.0.1:{node.gate.port}" for n, node in enumerate(nodes, 1)}
        project = Project(folder / "project", with_urls(children) | gates, settings="trial.chaos_settings")
        stack.callback(project.end)
        if nodes:
            project.deploy("scrapyd*", folder=folder / "deploy")
        try:
            yield Fleet(nodes, project, folder / "tmp")
        finally:
            for node in nodes:
                node.go_on()  # else what is stopped could not end


class Run:
    """A run of *spider*, however often its coordinator dies. *note* is shown where something is wrong with it.

    *properties*: that the site has, each of which is one request for the fleet. *scheme*: of the feeds' URL; with *ftp*
    they go to that server. *home*: ``-O`` or ``-o`` brings the items home, into a file of the coordinator's.
    """

    def __init__(
        self,
        fleet: Fleet,
        site: SiteChild,
        folder: Path,
        *,
        properties: int,
        spider: str = "distr",
        args: Mapping[str, Any] | None = None,
        hosts: Sequence[str] = ("scrapyd1", "scrapyd2", "scrapyd3"),
        scheme: str = "file",
        ftp: FtpChild | None = None,
        settings: Mapping[str, Any] | None = None,
        workers: Mapping[str, Any] | None = None,
        home: str = "",
    ) -> None:
        self.fleet = fleet
        self.site = site
        self.folder = folder
        self.properties = properties
        self.spider = spider
        self.args = dict(args or ARGS.get(spider, lambda _: {})(properties))
        self.hosts = list(hosts)
        self.grants = folder / "grants"
        self.grants.mkdir()
        self.items = Folder(folder / "items")
        self.temp = Folder(folder / "temp")  # where workers put what they upload at the end
        self.ftp = ftp
        self.uploads = ftp is not None or scheme == "upload"
        self.home = home
        self.place = Folder(folder / "place")
        self.jobs = Folder(folder / "ledger.sqlite.local")  # of workers on the coordinator's machine
        self.switches = folder / "switches"  # of the faults in the files that items come home to: see ``launcher.py``
        self.switches.mkdir()
        if home == "-o":
            self.output.write_text(OLDER)
        place = f"{scheme}://{self.items.path}" if ftp is None else ftp.url.replace("//", "//anonymous@")
        inside = {"CHAOS_FOLDER": str(self.grants), "FEED_TEMPDIR": str(self.temp.path), **(workers or {})}
        self.settings = {
            "DISTRIBUTED_WORKER_SETTINGS": json.dumps(inside),
            "DISTRIBUTED_TARGET_FEED_URL": "" if home else f"{place}/%(batch)s_%(name)s_%(time)s.jl",
            **(settings or {}),
        }
        self.crawls: list[Crawl] = []
        self.orphans: set[str] = set()  # jobs on its machine that have outlived the run
        self.note: Callable[[], str] = str
        self.began = 0.0
        self.seconds = 0.0

    @property
    def feeds(self) -> Path:
        """The folder where the feeds arrive."""
        return self.items.path if self.ftp is None else self.ftp.items

    @property
    def output(self) -> Path:
        """Where all items are in the end that come home."""
        return self.place.path / "out.jl"

    @property
    def spool(self) -> Path:
        """The folder for items that have come home; there is one run."""
        (folder,) = self.folder.glob("ledger.sqlite.items/*")
        return folder

    def switch(self, name: str, *, on: bool) -> None:
        """A disk is full, or is not any more, for coordinators with items at home."""
        switch = self.switches / name
        switch.touch() if on else switch.unlink(missing_ok=True)

    @property
    def own_feeds(self) -> list[Path]:
        """Those of the coordinators, for what they crawl themselves: one each."""
        return [self.folder / f"own-{number}.jl" for number in range(1, len(self.crawls) + 1)]

    def mend(self) -> None:
        """All that is not the fleet's is as it should be."""
        self.site.go_on()
        for folder in (self.items, self.temp, self.place, self.jobs):
            folder.open()
        for pid in self.here():
            strike(pid, signal.SIGCONT)
            limit_files(pid)
        for switch in self.switches.iterdir():
            switch.unlink()
        if self.ftp is not None:
            if self.ftp.process.poll() is not None:
                self.ftp.restart()
            limit_files(self.ftp.process.pid)

    def grant(self, fault: str, times: int = 1) -> None:
        """Let *fault* happen in so many workers."""
        for _ in range(times):
            (self.grants / f"{fault}.{len(list(self.grants.iterdir()))}.grant").touch()

    def taken(self, fault: str = "*") -> list[str]:
        """The faults that have happened in workers."""
        return [path.name.partition(".")[0] for path in sorted(self.grants.glob(f"{fault}.*.taken"))]

    def workers_here(self) -> list[int]:
        """The workers on the coordinator's machine, also of those before it."""
        return sorted(linked(self.jobs.real, "fd/1"))

    def jobs_here(self) -> set[str]:
        """What these have to do."""
        found = set()
        for pid in self.workers_here():
            with suppress(OSError):  # it has ended
                found.add(Path(os.readlink(f"/proc/{pid}/fd/1")).stem)
        return found

    def warm(self) -> list[int]:
        """The warm processes there, and what they have forked and is no worker yet."""
        return sorted(linked(self.jobs.real, "cwd") - linked(self.jobs.real, "fd/1"))

    def here(self) -> list[int]:
        return [*self.workers_here(), *self.warm()]

    def workers(self) -> list[int]:
        return [*self.fleet.workers(), *self.workers_here()]

    @property
    def crawl(self) -> Crawl:
        """The newest coordinator."""
        return self.crawls[-1]

    def begin(self, point: str | None = None, number: int = 1, **settings: Any) -> Crawl:
        """Give the command; with *point* the coordinator kills itself there, the *number*-th time (``launcher.py``)."""
        self.began = self.began or time.monotonic()
        own = f"{self.folder}/own-{len(self.crawls) + 1}.jl"
        point = NEVER if self.home and point is None else point
        crawl = self.fleet.project.crawl(
            self.spider,
            folder=self.folder,
            args={**self.args, "site": self.site.url},
            settings={
                "DISTRIBUTED_TARGET_HOSTS": ",".join(self.hosts),
                **_in_time_of_this_machine({**TIMES, **self.settings, **settings}),
            },
            program=SCRAPY if point is None else (str(LAUNCHER), point, str(number)),
            output=(self.home, str(self.output)) if self.home else ("-O", own),
            environment={SWITCHES: str(self.switches)},
        )
        self.crawls.append(crawl)
        return crawl

    def dies(self, point: str, number: int = 1, seconds: float = 30, **settings: Any) -> None:
        """Give the command, and see that the coordinator dies at *point*."""
        crawl = self.begin(point, number, **settings).wait(seconds * slowness())
        assert crawl.process.returncode == -signal.SIGKILL, f"{point} was not reached:\n{self.describe()}"

    def state(self) -> dict[str, Any] | None:
        """The run as the ledger has it; ``None`` while there is none."""
        try:
            return self.crawls[-1].run()
        except (LedgerError, IndexError):
            return None

    @property
    def over(self) -> bool:
        state = self.state()
        return state is not None and state["ended"] is not None

    def settled(self) -> int:
        """Requests that the ledger has settled so far."""
        state = self.state()
        return 0 if state is None else sum(batch["crawled"] for batch in state["batches"])

    def attempts(self) -> int:
        state = self.state()
        return 0 if state is None else sum(batch["attempts"] for batch in state["batches"])

    def attempts_on(self, node: str) -> int:
        """Those that were made there, also in vain."""
        with closing(LedgerReader(self.crawl.ledger)) as reader:
            run = reader.runs()[-1]
            numbers = [batch.number for batch in reader.batches(run.id)]
            return sum(attempt.node == node for number in numbers for attempt in reader.attempts(run, number))

    def goes_on(self) -> bool:
        """Whether it is not over. A coordinator that has died, or has given up, is begun again."""
        if self.crawl.process.poll() is None:
            return True
        if self.over:
            self.seconds = time.monotonic() - self.began
            self.orphans = self.jobs_here()
            return False
        self.begin()
        return True

    def wait_for(self, check: Callable[[], T], seconds: float = 30) -> T:
        """As the function of that name; where it fails, all is told."""
        try:
            return wait_for(check, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe()}") from None

    def finish(self, seconds: float = 60, *, begun_again: int | None = None) -> Run:
        """Wait for the end; *begun_again* says how many more coordinators this may take, if not any number."""
        began, before = time.monotonic(), len(self.crawls)
        while self.goes_on():
            took = time.monotonic() - began
            assert took < seconds * slowness(), f"not over after {took:.0f} s\n{self.describe()}"
            if begun_again is not None:
                assert len(self.crawls) - before <= begun_again, f"it does not end\n{self.describe()}"
            time.sleep(0.05)
        return self

    def describe(self) -> str:
        """What is needed to see why it went wrong."""
        state = self.state()
        unsettled = [] if state is None else [batch for batch in state["batches"] if batch["state"] != "settled"]
        lines = [
            self.note(),
            f"folder {self.folder}, coordinators: {[crawl.process.poll() for crawl in self.crawls]}",
            f"balance: {state and state['balance']}",
            *(f"not settled: {batch}" for batch in unsettled[:10]),
            *(f"--- log {number}\n{log_tail(crawl)}" for number, crawl in list(enumerate(self.crawls))[-3:]),
        ]
        return "\n".join(lines)


def _in_time_of_this_machine(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value * slowness(), 1) if name in TIMES else value for name, value in settings.items()}

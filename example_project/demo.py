"""The whole thing on one machine: a site, a fleet of Scrapyd nodes, one crawl over all of it, and the proof.

    python demo.py --properties 3000 --nodes 3 --latency 0 --batch 250

Everything is started here, on free ports of this machine, and ended here, whatever happens. Exit code 0
means: every property came out exactly once, and the balance of the run holds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from site_server import index_pages, property_path

HERE = Path(__file__).resolve().parent
RUNS = HERE / ".demo"
RUNS_TO_KEEP = 3
ITEMS = "items.jl"
START_SECONDS = 60.0
GRACE_SECONDS = 15.0
POLL_SECONDS = 0.1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SCRAPY = (sys.executable, "-m", "scrapy")

# The fleet is on this machine: a proxy of the environment must not be asked for it.
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))

UNREADABLE = (OSError, HTTPException, ValueError, KeyError)
"""What `fetch`, or reading what it brings, raises when a server is on its way out."""


class DemoError(Exception):
    """The demo can't go on; the message says why."""


class SignalledError(DemoError):
    """Somebody wants the demo to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"ended by {signal.Signals(signum).name}")
        self.signum = signum


# --- processes ---


@dataclass(frozen=True, kw_only=True)
class Child:
    """A process of the demo, and the files that take its standard output and error."""

    name: str
    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    def tail(self, lines: int = 15) -> str:
        """The last lines that it wrote."""
        text = self.out.read_text(errors="replace") + self.log.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


class Session:
    """The processes of one demo: all of them end when the ``with`` block does, the youngest first.

    A signal is only noted, and raised by the next `pause`, so that none can come between the start of a
    process and the line that remembers it, or cut the ending short.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self._children: list[Child] = []
        self._signum: int | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Session:
        for signum in SIGNALS:
            # What our parent told us to ignore (nohup, a background job) stays ignored.
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._handlers[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._children:
            end(self._children.pop())
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum

    def start(self, name: str, *argv: str) -> Child:
        """Start a process in the project's folder, in a session of its own: Ctrl-C reaches only us."""
        out, log = self.work / f"{name}.out", self.work / f"{name}.log"
        with out.open("wb") as stdout, log.open("wb") as stderr:
            process = subprocess.Popen(
                argv,
                cwd=HERE,
                env=without_proxy(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        child = Child(name=name, process=process, out=out, log=log)
        self._children.append(child)
        return child

    def pause(self) -> None:
        """Wait for a moment; raises `SignalledError` after a signal."""
        time.sleep(POLL_SECONDS)
        if self._signum is not None:
            raise SignalledError(self._signum)

    def read(self, child: Child, pattern: str) -> list[str]:
        """Wait until a child that goes on running has printed ``pattern``; the lines that it has printed."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            ended = child.process.poll() is not None
            printed = child.out.read_text()
            if re.search(pattern, printed, re.MULTILINE):
                return printed.splitlines()
            if ended or time.monotonic() > deadline:
                state = "ended" if ended else f"is not ready after {START_SECONDS:.0f} s"
                raise DemoError(f"{child.name} {state}:\n{child.tail()}")
            self.pause()

    def finish(self, child: Child, *, tick: Callable[[], None] | None = None) -> int:
        """Wait until a child has ended while the others run; its exit code. ``tick`` is called meanwhile."""
        while child.process.poll() is None:
            for other in self._children:
                if other is not child and other.process.poll() is not None:
                    raise DemoError(f"{other.name} ended too early:\n{other.tail()}")
            if tick is not None:
                tick()
            self.pause()
        self._children.remove(child)
        return child.process.returncode

    def run(self, name: str, *argv: str) -> Child:
        """Start a child and wait for its end; an exit code other than 0 is an error."""
        child = self.start(name, *argv)
        if code := self.finish(child):
            raise DemoError(f"{name} failed with exit code {code}:\n{child.tail()}")
        return child


def without_proxy(environ: os._Environ[str]) -> dict[str, str]:
    """The environment, with this machine excepted from any proxy."""
    local = "127.0.0.1,localhost"
    return {**environ, "no_proxy": local, "NO_PROXY": local}


def end(child: Child) -> None:
    """Ask a process to end, then make it, and what is left of its group."""
    child.process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.process.wait(GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()


# --- the steps of the demo ---


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says. ``latency`` is in seconds for each page, ``batch`` in requests."""

    properties: int
    nodes: int
    latency: float
    batch: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came out of a crawl; ``seconds`` from its start until it was settled."""

    properties: int
    items: int
    missing: int
    twice: int
    unknown: int
    pages: int
    seconds: float
    batches: dict[str, int]
    balance: str
    balanced: bool
    merged: bool

    @property
    def good(self) -> bool:
        """Every property exactly once, the balance holds, and no feed is missing."""
        return self.balanced and self.merged and self.missing == self.twice == self.unknown == 0


def start_site(session: Session, options: Options) -> str:
    """Start the site; its address."""
    server = (sys.executable, str(HERE / "site_server.py"), "--port", "0")
    size = ("--properties", str(options.properties), "--latency", str(options.latency))
    lines = session.read(session.start("site", *server, *size), "^listening at .+$")
    return lines[0].removeprefix("listening at ")


def start_fleet(session: Session, nodes: int) -> list[str]:
    """Start so many nodes; their ``host:port``."""
    place = ("--port", "0", "--dir", str(session.work / "nodes"), "--poll-interval", "0.5")
    lines = session.read(session.start("fleet", *SCRAPY, "fleet", "up", str(nodes), *place), "^ready$")
    return re.findall(r"listening at http://(\S+?)/?$", "\n".join(lines), re.MULTILINE)


def start_crawl(session: Session, options: Options, site: str, hosts: Sequence[str]) -> Child:
    """Start the coordinator."""
    feeds = session.work / "feeds"
    feeds.mkdir(exist_ok=True)
    # A feed URI is a template, so a percent sign of the path is doubled.
    place = feeds.as_uri().replace("%", "%%")
    settings = {
        "DISTRIBUTED_TARGET_HOSTS": ",".join(hosts),
        "DISTRIBUTED_TARGET_FEED_URL": f"{place}/%(batch)s_%(name)s_%(time)s.jl",
        "DISTRIBUTED_BATCH_SIZE": options.batch,
        "DISTRIBUTED_LEDGER": session.work / "ledger.sqlite",
        "DISTRIBUTED_POLL_INTERVAL": 0.5,  # the nodes are on this machine
        "LOG_LEVEL": "INFO",
    }
    assigned = [part for name, value in settings.items() for part in ("-s", f"{name}={value}")]
    arguments = ("-a", f"site={site}", "-a", f"pages={index_pages(options.properties)}")
    return session.start("coordinator", *SCRAPY, "crawl", "distr", *arguments, *assigned)


def crawl(session: Session, options: Options) -> Result:
    """All of it, from the empty machine to the result."""
    site = start_site(session, options)
    say("site", f"{site}, {options.properties:,} properties, {options.latency:g} s a page")
    hosts = start_fleet(session, options.nodes)
    say("nodes", ", ".join(hosts))
    session.run("deploy", *SCRAPY, "fleet", "deploy", "-s", f"DISTRIBUTED_TARGET_HOSTS={','.join(hosts)}")
    say("deploy", "the same version on every node")
    say("crawl", f"log in {shown(session.work / 'coordinator.log')}")
    progress = Progress(site=site, hosts=hosts, total=options.properties)
    coordinator = start_crawl(session, options, site, hosts)
    try:
        code = session.finish(coordinator, tick=progress.tick)
    finally:
        progress.close()
    seconds = progress.seconds
    if code:
        raise DemoError(f"the crawl failed with exit code {code}:\n{coordinator.tail()}")
    return examine(session, options, site, seconds)


def examine(session: Session, options: Options, site: str, seconds: float) -> Result:
    """Compare what the workers delivered and what the ledger says with the site itself."""
    ledger = ("--ledger", str(session.work / "ledger.sqlite"))
    listed = session.run("batches", *SCRAPY, "batches", "list", *ledger, "--json")
    check = session.start("check", *SCRAPY, "batches", "check", *ledger)
    balanced = session.finish(check) == 0
    file = session.work / ITEMS
    words = (str(session.work / "feeds"), "-O", str(file), "--partial")
    merge = session.start("merge", *SCRAPY, "batches", "merge", *words, *ledger)
    merged = session.finish(merge) == 0
    if not file.exists():
        raise DemoError(f"the feeds can't be merged:\n{merge.tail()}")
    expected = {site + property_path(number) for number in range(options.properties)}
    found = Counter(read_urls(file))
    requests = fetch(f"{site}/stats.json")["requests"]
    return Result(
        properties=options.properties,
        items=found.total(),
        missing=len(expected - found.keys()),
        twice=sum(count > 1 for count in found.values()),
        unknown=len(found.keys() - expected),
        pages=requests.get("index", 0) + requests.get("property", 0),
        seconds=seconds,
        batches=batches_by_node(json.loads(listed.out.read_text())),
        balance=check.out.read_text().strip() or check.tail(),
        balanced=balanced,
        merged=merged,
    )


def read_urls(file: Path) -> list[str]:
    """The URL of every item in a file of JSON lines."""
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line)["url"] for line in lines]


def batches_by_node(listed: dict[str, Any]) -> dict[str, int]:
    """How many batches each node got, from ``scrapy batches list --json``."""
    nodes = Counter(str(batch["node"]) for run in listed["runs"] for batch in run["batches"])
    return dict(sorted(nodes.items()))


# --- the terminal ---


def fetch(url: str) -> dict[str, Any]:
    """The JSON object at an address of this machine."""
    with LOCAL.open(url, timeout=5) as answer:
        value: dict[str, Any] = json.load(answer)
        return value


class Progress:
    """One line about the crawl, renewed every second: in its place on a terminal, else below the last."""

    def __init__(self, *, site: str, hosts: Sequence[str], total: int) -> None:
        self._site = site
        self._hosts = hosts
        self._total = total
        self._terminal = sys.stdout.isatty()
        self._started = time.monotonic()
        self._next = self._started + 1.0

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._started

    def tick(self) -> None:
        """Show the line if it is time."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1.0
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            print(f"\r\033[K{self.line()[: columns - 1]}", end="", flush=True)
        else:
            print(self.line(), flush=True)

    def line(self) -> str:
        """Progress of the crawl and state of every node."""
        try:
            served = int(fetch(f"{self._site}/stats.json")["properties_served"])
        except UNREADABLE as error:
            return f"  no progress to show: {error}"
        done = f"{self.seconds:6.1f} s  {served:,}/{self._total:,} properties  {served / self.seconds:,.0f}/s"
        return " | ".join([done, *map(node_state, self._hosts)])

    def close(self) -> None:
        """Leave the line as it is and go on below."""
        if self._terminal:
            print(flush=True)


def node_state(host: str) -> str:
    """What a node says about its jobs. On this machine its port is name enough, and the line stays short."""
    name = host.partition("127.0.0.1")[2] or host
    try:
        state = fetch(f"http://{host}/daemonstatus.json")
        return f"{name} running {state['running']:,}, pending {state['pending']:,}, done {state['finished']:,}"
    except UNREADABLE:
        return f"{name} does not answer"


def say(what: str, text: str) -> None:
    """One line of the report."""
    print(f"{what:<11}{text}", flush=True)


def shown(path: Path) -> str:
    """A path as short as it can be written here."""
    return os.path.relpath(path)


def report(result: Result, work: Path) -> None:
    """The summary."""
    print()
    faults = {"missing": result.missing, "more than once": result.twice, "unknown": result.unknown}
    said = ", ".join(f"{count:,} {name}" for name, count in faults.items() if count) or "each exactly once"
    say("items", f"{result.items:,} for {result.properties:,} properties: {said}")
    speed = result.pages / result.seconds
    say("speed", f"{speed:,.0f} pages/s ({result.pages:,} pages in {result.seconds:.1f} s)")
    say("batches", ", ".join(f"{node}: {count:,}" for node, count in result.batches.items()) or "none")
    say("balance", result.balance.replace("\n", "\n" + 11 * " "))
    say("file", shown(work / ITEMS) + ("" if result.merged else f", NOT COMPLETE: see {shown(work / 'merge.log')}"))
    say("result", "complete" if result.good else "NOT COMPLETE")


# --- the command ---


def make_work_folder() -> Path:
    """A new folder for this run; only the latest ones are kept."""
    RUNS.mkdir(exist_ok=True)
    for old in sorted(RUNS.iterdir())[: 1 - RUNS_TO_KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    work = RUNS / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    work.mkdir()
    return work


def positive(text: str) -> int:
    """A number on the command line that can't be less than 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def main() -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(description="One crawl over a fleet of Scrapyd nodes, on this machine.")
    parser.add_argument("--properties", type=positive, default=3000, help="size of the site (3000)")
    parser.add_argument("--nodes", type=positive, default=3, help="Scrapyd servers (3)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that each page takes (0)")
    parser.add_argument("--batch", type=positive, default=250, help="requests of a batch (250)")
    parser.add_argument("--work", type=Path, help="folder for logs, ledger and items (.demo/<time>)")
    arguments = vars(parser.parse_args())
    work = arguments.pop("work") or make_work_folder()
    work.mkdir(parents=True, exist_ok=True)
    try:
        with Session(work.resolve()) as session:
            result = crawl(session, Options(**arguments))
    except DemoError as error:
        print(f"\n{error}\nEverything that was started has ended; logs: {shown(work)}", file=sys.stderr)
        return 128 + error.signum if isinstance(error, SignalledError) else 1
    report(result, work)
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())

"""The whole thing on one machine: a site, a fleet of workers on this machine and of Scrapyd nodes, an FTP server for
the items, one crawl over all of the site, the proof, and what the items say.

    python demo.py --properties 3000 --local 2 --nodes 2 --latency 0 --batch 250

Everything is started here, on free ports of this machine, and ended here, also if a part of it fails, and after Ctrl-C.
Exit code 0 means: every property came out exactly once, and the balance of the run holds.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.extend(str(Path(__file__).resolve().parents[1] / folder) for folder in ("site", "analysis"))
from joining import Joined, join, start_redis
from pages import index_pages, property_path
from progress import Progress, fetch, local_state, pages_served, scrapyd_state
from report import write_report
from result import Result, agreement, read_account, read_urls
from session import POLL_SECONDS, PROJECT, SCRAPY, Child, DemoError, Session, SignalledError
from shifts import Tables, analyse, positive

from scrapy_distributed.errors import LedgerError
from scrapy_distributed.fleet.local_slots import LOCAL
from scrapy_distributed.wire.hold import is_held
from scrapy_distributed.words import counted

RUNS = PROJECT / ".demo"
RUNS_TO_KEEP = 3
SCRAPYD, REDIS = "scrapyd", "redis"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says. ``carrier``: what takes requests to workers, ``scrapyd`` or ``redis``. ``local``
    workers at once on this machine, ``nodes`` Scrapyds; ``latency`` is in seconds for each page, ``batch`` in requests;
    ``warm`` nodes start workers from a process that has imported Scrapy already."""

    carrier: str
    properties: int
    local: int
    nodes: int
    latency: float
    batch: int
    warm: bool


@dataclass(frozen=True, kw_only=True)
class Files:
    """What a run leaves in its folder, besides the logs. Feeds land in ``items``; those that count are ``merged``."""

    work: Path

    @property
    def ledger(self) -> Path:
        return self.work / "ledger.sqlite"

    @property
    def local(self) -> Path:
        """What workers on this machine write: logs, and beside them receipts."""
        return self.work / "ledger.sqlite.local"

    @property
    def jobs(self) -> Path:
        """The same of workers that join."""
        return self.work / "jobs"

    @property
    def staging(self) -> Path:
        return self.work / "staging"

    @property
    def items(self) -> Path:
        return self.work / "items"

    @property
    def merged(self) -> Path:
        return self.work / "merged" / "items.jl"

    @property
    def report(self) -> Path:
        return self.work / "report.html"


@dataclass(frozen=True, kw_only=True)
class Servers:
    """What a crawl needs: the URLs of the site and of the FTP server, and ``host:port`` of every Scrapyd; or the URL of
    a ``redis``, and who has ``joined`` it."""

    site: str
    ftp: str
    scrapyds: Sequence[str] = ()
    redis: str = ""
    joined: Joined | None = None

    @property
    def nodes(self) -> list[str]:
        return self.joined.names if self.joined else list(self.scrapyds)


# --- the steps of the demo ---


def start_site(session: Session, options: Options) -> str:
    """Start the site; its address."""
    server = (sys.executable, str(PROJECT / "site" / "site_server.py"), "--port", "0")
    size = ("--properties", str(options.properties), "--latency", str(options.latency))
    lines = session.read(session.start("site", *server, *size), "^listening at .+$")
    return lines[0].removeprefix("listening at ")


def start_ftp(session: Session, files: Files) -> str:
    """Start the FTP server; its address."""
    for folder in (files.staging, files.items):
        folder.mkdir(exist_ok=True)
    server = (sys.executable, str(PROJECT / "landing" / "ftp_server.py"), "--port", "0")
    folders = ("--staging", str(files.staging), "--items", str(files.items))
    lines = session.read(session.start("ftp", *server, *folders), "^listening at .+$")
    return lines[0].removeprefix("listening at ")


def start_fleet(session: Session, options: Options) -> list[str]:
    """Start the Scrapyds; their ``host:port``."""
    place = ("--port", "0", "--dir", str(session.work / "nodes"), "--poll-interval", "0.5")
    up = (*SCRAPY, "fleet", "up", str(options.nodes), *place, *(["--warm"] if options.warm else []))
    lines = session.read(session.start("fleet", *up), "^ready$")
    return re.findall(r"listening at http://(\S+?)/?$", "\n".join(lines), re.MULTILINE)


def feed_url(ftp: str) -> str:
    """Where workers put their items."""
    return f"{ftp.replace('//', '//anonymous@')}/%(batch)s_%(name)s_%(time)s.jl"


def start_servers(session: Session, options: Options, files: Files) -> Servers:
    """Start all that a crawl needs, with the project on every Scrapyd."""
    site = start_site(session, options)
    say("site", f"{site}, {options.properties:,} properties, {options.latency:g} s a page")
    ftp = start_ftp(session, files)
    say("items", f"{ftp}, which puts them into {shown(files.items)}")
    if options.carrier == REDIS:
        redis = start_redis(session)
        say("redis", redis)
        joined = join(session, redis, workers=options.local, logs=files.jobs, feed=feed_url(ftp))
        say("workers", f"{', '.join(joined.names)}: processes of scrapy worker, which have joined")
        return Servers(site=site, ftp=ftp, redis=redis, joined=joined)
    if options.local:
        say("local", f"{counted(options.local, 'worker')} on this machine, which the crawl starts by itself")
    scrapyds = start_fleet(session, options) if options.nodes else []
    if scrapyds:
        say("nodes", ", ".join(scrapyds))
        session.run("deploy", *SCRAPY, "fleet", "deploy", "-s", f"DISTRIBUTED_TARGET_HOSTS={','.join(scrapyds)}")
        say("deploy", "the same version on every node")
    return Servers(site=site, ftp=ftp, scrapyds=scrapyds)


def start_coordinator(session: Session, options: Options, files: Files, servers: Servers) -> Child:
    """Start the crawl."""
    local = [f"{LOCAL}:{options.local}"] if options.local else []
    of_nodes = {
        "DISTRIBUTED_BATCH_SIZE": options.batch,
        "DISTRIBUTED_POLL_INTERVAL": 0.5,  # the nodes are on this machine
    }
    settings = {
        "DISTRIBUTED_TARGET_HOSTS": servers.redis or ",".join([*local, *servers.scrapyds]),
        "DISTRIBUTED_TARGET_FEED_URL": feed_url(servers.ftp),
        "DISTRIBUTED_LEDGER": files.ledger,
        **({} if servers.redis else of_nodes),
        "DISTRIBUTED_LEASE": 30,  # so what a node had is soon sent to another, if it dies; a worker starts in far less
        "LOG_LEVEL": "INFO",
    }
    assigned = [part for name, value in settings.items() for part in ("-s", f"{name}={value}")]
    arguments = ("-a", f"site={servers.site}", "-a", f"pages={index_pages(options.properties)}")
    return session.start("coordinator", *SCRAPY, "crawl", "distr", *arguments, *assigned)


def crawl(session: Session, options: Options, files: Files, servers: Servers) -> Progress:
    """Crawl the site, to the end; how it went."""
    say("crawl", f"log in {shown(session.work / 'coordinator.log')}")
    tables = Tables(files.items)
    states = states_of(options, files, servers)
    with Progress(site=servers.site, states=states, total=options.properties, tables=tables) as progress:
        coordinator = start_coordinator(session, options, files, servers)
        if session.finish(coordinator, tick=progress.tick):
            raise DemoError(f"the crawl failed, it ended {coordinator.how_it_ended()}")
        progress.finish()
    return progress


def states_of(options: Options, files: Files, servers: Servers) -> list[Callable[[], str]]:
    """What tells of each node, or worker."""
    if servers.joined:
        return [partial(servers.joined.state, name) for name in servers.joined.names]
    local = [partial(local_state, files.ledger, files.local)] if options.local else []
    return [*local, *(partial(scrapyd_state, scrapyd) for scrapyd in servers.scrapyds)]


def examine(session: Session, options: Options, files: Files, servers: Servers, progress: Progress) -> Result:
    """Compare what the workers delivered and what the ledger says with the site itself."""
    ledger = ("--ledger", servers.redis or str(files.ledger))
    local = [LOCAL] if options.local and not servers.joined else []
    check = session.start("check", *SCRAPY, "batches", "check", *ledger)
    balanced = session.finish(check) == 0
    files.merged.parent.mkdir(exist_ok=True)
    words = (str(files.items), "-O", str(files.merged), "--partial")
    merge = session.start("merge", *SCRAPY, "batches", "merge", *words, *ledger)
    merged = session.finish(merge) == 0
    if not files.merged.exists():
        raise DemoError(f"the feeds can't be merged; {merge.last_words()}")
    expected = {servers.site + property_path(number) for number in range(options.properties)}
    found = Counter(read_urls(files.merged))
    truth = fetch(f"{servers.site}/truth.json")
    return Result(
        nodes=[*local, *servers.nodes],
        properties=options.properties,
        items=found.total(),
        missing=len(expected - found.keys()),
        twice=sum(count > 1 for count in found.values()),
        unknown=len(found.keys() - expected),
        pages=pages_served(fetch(f"{servers.site}/stats.json")),
        seconds=progress.seconds,
        balance=check.out.read_text().strip() or check.last_words(),
        balanced=balanced,
        merged=merged,
        account=servers.joined.account() if servers.joined else read_account(files.ledger),
        analysis=analyse(files.merged.parent),
        truth=truth["shifts"],
        known=tuple(truth["factors"]),
        samples=progress.samples,
    )


# --- the terminal ---


def say(what: str, text: str) -> None:
    """One line of the summary."""
    print(f"{what:<11}{text}", flush=True)


def shown(path: Path) -> str:
    """A path as short as it can be written here."""
    return os.path.relpath(path)


def summarise(result: Result, files: Files) -> None:
    """What came out, in a few lines."""
    print()
    say("items", result.count)
    pages = counted(result.pages, "page")
    say("speed", f"{result.pages_per_second:,.1f} pages/s ({pages} in {result.seconds:.1f} s)")
    say("nodes", listed(result.items_by_node))
    say("balance", below(result.balance.splitlines()))
    say("failures", listed({f"{one.state}, {one.reason}": one.count for one in result.account.failures}))
    say("shifts", below(shift_lines(result)))
    incomplete = "" if result.merged else f", NOT COMPLETE: see {shown(files.work / 'merge.log')}"
    say("file", shown(files.merged) + incomplete)
    say("report", shown(files.report))
    say("result", "complete" if result.good else "NOT COMPLETE")


def shift_lines(result: Result) -> list[str]:
    """Truth beside estimate, for the words whose effect the site tells."""
    lines = [f"{'word':<12}{'truth':>7}{'estimate':>10}{'+- 2 se':>9}{'listings':>10}"]
    for one in result.comparisons:
        if one.estimate is None:
            lines.append(f"{one.word:<12}{one.truth:>+7.1%}{'none':>10}")
        else:
            found = f"{one.estimate.shift:>+10.1%}{2 * one.estimate.error:>9.1%}{one.estimate.count:>10,}"
            lines.append(f"{one.word:<12}{one.truth:>+7.1%}{found}")
    return [*lines, agreement(result.comparisons)]


def listed(counts: Mapping[str, int]) -> str:
    """``name: count``, one after the other."""
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items()) or "none"


def below(lines: Sequence[str]) -> str:
    """Lines, each below the first."""
    return ("\n" + 11 * " ").join(lines)


# --- the command ---


def count(text: str) -> int:
    """A number on the command line that can't be less than 0."""
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{value} is less than 0")
    return value


@contextmanager
def outlasting_workers(files: Files) -> Iterator[None]:
    """Workers on this machine whose coordinator was killed end by themselves: what is in here is over when they are."""
    try:
        yield
    finally:
        while any(is_held(receipt) for folder in (files.local, files.jobs) for receipt in folder.rglob("*.json")):
            time.sleep(POLL_SECONDS)


def make_work_folder(runs: Path) -> Path:
    """A new folder for this run. Of those before only the latest are kept, and as many that did not come to an end."""
    runs.mkdir(exist_ok=True)
    over = sorted(folder for folder in runs.iterdir() if not in_use(folder))
    for reported in (True, False):
        for old in [folder for folder in over if Files(work=folder).report.exists() is reported][: 1 - RUNS_TO_KEEP]:
            shutil.rmtree(old, ignore_errors=True)
    work = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    work.mkdir()
    return work


def use(folder: Path) -> int:
    """Until this process ends *folder* is in use. Raises ``BlockingIOError`` if it is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def in_use(folder: Path) -> bool:
    """Whether a demo that has not ended works in *folder*."""
    try:
        os.close(use(folder))
    except BlockingIOError:
        return True
    return False


def has_run(files: Files) -> bool:
    """Whether an earlier run has left something that a new one would count."""
    return files.ledger.exists() or (files.items.is_dir() and any(files.items.iterdir()))


def main() -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(description="One crawl over a fleet, all of it on this machine.")
    parser.add_argument("--carrier", choices=[SCRAPYD, REDIS], default=SCRAPYD, help="what takes requests to workers")
    parser.add_argument("--properties", type=positive, default=3000, help="size of the site (3000)")
    parser.add_argument("--local", type=count, default=2, help="workers at once on this machine; 0: none (2)")
    parser.add_argument("--nodes", type=count, help="Scrapyd servers; 0: none (2, with a redis 0)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that each page takes (0)")
    parser.add_argument("--batch", type=positive, default=250, help="requests of a batch (250)")
    parser.add_argument("--warm", action="store_true", help="nodes with a warm process, which start workers at once")
    parser.add_argument("--work", type=Path, help="folder for logs, ledger and items (.demo/<time>)")
    arguments = vars(parser.parse_args())
    if arguments["nodes"] is None:
        arguments["nodes"] = 0 if arguments["carrier"] == REDIS else 2
    if arguments["nodes"] and arguments["carrier"] == REDIS:
        parser.error(f"argument --nodes: found {arguments['nodes']} with --carrier {REDIS}, expected 0: workers join")
    if not arguments["local"] and not arguments["nodes"]:
        parser.error("arguments --local and --nodes: both are 0, expected somebody who crawls")
    work = arguments.pop("work")
    if work and has_run(Files(work=work)):  # its items would be counted as this run's
        parser.error(f"argument --work: {work} has the ledger or items of an earlier run, expected a new folder")
    work = work or make_work_folder(RUNS)
    work.mkdir(parents=True, exist_ok=True)
    try:
        use(work)
    except BlockingIOError:
        parser.error(f"argument --work: another demo is at work in {work}, expected a new folder")
    options, files = Options(**arguments), Files(work=work.resolve())
    os.environ["XDG_STATE_HOME"] = str(files.work / "state")  # there the fleet leaves its password for all that need it
    try:
        with outlasting_workers(files), Session(files.work) as session:
            servers = start_servers(session, options, files)
            progress = crawl(session, options, files, servers)
            result = examine(session, options, files, servers, progress)
            write_report(result, files.report)
    except (DemoError, LedgerError) as error:
        print(f"\n{error}\nEverything that was started has ended; logs: {shown(work)}", file=sys.stderr)
        return 128 + error.signum if isinstance(error, SignalledError) else 1
    summarise(result, files)
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())

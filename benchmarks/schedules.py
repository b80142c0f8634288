"""How close the crawls of this project come to the best schedule that there is. Linux only.

    python benchmarks/schedules.py                                 all workloads, three rounds: an hour or two
    python benchmarks/schedules.py --workloads burst,wide --nodes warm --rounds 1
    python benchmarks/schedules.py --report --write                the table, from what was measured last

The workloads are those of ``optimum``, on nodes of several kinds (``KINDS``), with all settings of this project as they
are by default. Nearly all of them wait for pages, so a small machine can run them; what they need is computed from the
starts of processes that the same run has measured. It is this checkout that is measured, with the Python that runs
this. Each result is appended to ``schedules.jsonl`` in the work folder.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this project, wherever it is installed
from designs import ScrapydNode, Stage, Workload, make_node, settle
from environments import EXAMPLE, HERE, ROOT, RUNNING
from optimum import SCHEDULES, SECOND_CRAWL_AFTER, Schedule, Starts, even
from processes import COORDINATOR, SITE, Child, MeasurementError, Processes
from side_by_side import WORK, names

from scrapy_distributed.ledger.reader import LedgerReader

RESULTS = "schedules.jsonl"
PROJECT = "sleeping"
CALIBRATIONS = 3
NODE_START = 1.0  # seconds that a Scrapyd takes to be up
STARTUP = re.compile(r"'distributed/workers/distributed/startup_seconds': ([\d.]+)")
JOBS = re.compile(r"'distributed/attempts/accepted': (\d+)")
ONE_PAGE = Schedule(name="one-page", what="", crawl=Workload(properties=1, nodes=1), best=even)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Nodes: *scrapyd*, lines of their ``scrapyd.conf``; *poll*, seconds between two looks of theirs at their queue,
    which they take out of step. Or *hosts*, for ``DISTRIBUTED_TARGET_HOSTS``, with a place for the number of slots:
    then no Scrapyd is started."""

    scrapyd: Mapping[str, str] = field(default_factory=dict)
    poll: float = 0.0
    hosts: str = ""


KINDS = {
    "stock": Kind(poll=5.0),
    "warm": Kind(scrapyd={"launcher": "scrapy_distributed.warm.launcher.WarmLauncher"}),
    "local": Kind(hosts="local:{}"),
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One crawl. *series*: when the run began that it was measured in; *seconds*, *optimum*: of what *figure* tells;
    *requests*: a page; *load*: of the machine, in the minute before its end. *problem*: why there is no result."""

    workload: str
    nodes: str
    series: str
    round: int
    optimum: float
    seconds: float = 0.0
    figure: float = math.inf
    requests: float = 0.0
    load: float = 0.0
    problem: str = ""


class Theatre:
    """Nodes of *kind* under way on *stage*, for *schedule*."""

    def __init__(self, stage: Stage, schedule: Schedule, kind: Kind) -> None:
        self.stage = stage
        self.schedule = schedule
        self.kind = kind
        self.nodes: list[ScrapydNode] = []
        self._running: dict[str, Child] = {}
        self._began: dict[Child, float] = {}  # coordinators, in seconds since 1970

    @property
    def hosts(self) -> str:
        return self.kind.hosts.format(self.schedule.slots) or ",".join(node.host for node in self.nodes)

    def open(self) -> None:
        """Start the nodes that are there from the beginning."""
        self.stage.assemble(PROJECT)
        if not self.kind.hosts:
            numbers = range(1, self.schedule.crawl.nodes + 1)
            self.nodes = [make_node(self.stage, PROJECT, number) for number in numbers]
        first = self.nodes[:-1] if self.schedule.joins else self.nodes
        for node in first:
            self._start(node)
            time.sleep(self.kind.poll / len(self.nodes))
        for node in first:
            node.wait(self.stage, PROJECT)
        settle(self.stage)

    def start_last(self) -> None:
        self._start(self.nodes[-1])

    def kill_last(self) -> None:
        """As where somebody pulls the plug."""
        self.stage.processes.kill(self._running[self.nodes[-1].name])

    def _start(self, node: ScrapydNode) -> None:
        slow = self.schedule.slow if node is self.nodes[-1] else 1.0
        self._running[node.name] = node.start(self.stage, PAGES_TAKE=str(slow))

    def crawl(self, name: str, pages: int) -> Child:
        """Start a coordinator."""
        schedule = self.schedule
        args = {"pages": pages, "crawl": name, "leads_to": schedule.leads_to, "at_once": schedule.at_once}
        settings = {"DISTRIBUTED_TARGET_HOSTS": self.hosts, "DISTRIBUTED_LEDGER": str(self.ledger(name))}
        argv = self.stage.scrapy(
            "pages",
            *(word for key, value in args.items() for word in ("-a", f"{key}={value}")),
            settings=self.stage.crawl_settings() | settings,
        )
        began = time.time()
        coordinator = self.stage.processes.start(name, COORDINATOR, argv, cwd=self.stage.project, env={})
        self._began[coordinator] = began
        return coordinator

    def ledger(self, name: str) -> Path:
        return self.stage.folder / f"{name}.sqlite"

    def starts(self, coordinator: Child) -> Starts:
        """How long it has taken to start, and its workers on average. Raises ``MeasurementError``."""
        log = coordinator.log.read_text(errors="replace")
        startup, jobs = STARTUP.search(log), JOBS.search(log)
        if startup is None or jobs is None:
            raise MeasurementError(f"{coordinator.name} tells no start of a worker:\n{coordinator.tail()}")
        with closing(LedgerReader(self.ledger(coordinator.name))) as reader:
            began = reader.runs()[-1].started - self._began[coordinator]
        return Starts(coordinator=began, worker=float(startup[1]) / int(jobs[1]))

    def check(self) -> float:
        """Requests a page. Raises ``MeasurementError`` where a page was not asked for, or an account does not hold."""
        times = self.stage.times()
        crawls = {"first": self.schedule.pages, "second": self.schedule.besides}
        crawls = {name: pages for name, pages in crawls.items() if pages}
        for name, pages in crawls.items():
            with closing(LedgerReader(self.ledger(name))) as reader:
                balance = reader.balance(reader.runs()[-1].id)
            if not balance.settled or (times[name]["sent"], balance.crawled) != (pages, pages):
                sent = f"{times[name]['sent']} pages were asked for"
                raise MeasurementError(f"{sent}, and the account is {balance}: expected {pages}")
        return float(sum(times[name]["requests"] for name in crawls) / sum(crawls.values()))


@contextmanager
def theatre(schedule: Schedule, kind: Kind, *, work: Path, seconds: float) -> Iterator[Theatre]:
    """The site, and nodes of *kind*, for at most so many *seconds*. Its folder stays if something goes wrong."""
    (work / "runs").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{schedule.name}-", dir=work / "runs"))
    deadline = time.monotonic() + seconds
    with Processes() as processes:
        argv = [sys.executable, HERE / "sleeping_site.py", schedule.crawl.latency, schedule.heavy]
        site = processes.start("site", SITE, argv, cwd=folder, env={"PYTHONPATH": str(EXAMPLE / "site")})
        address = processes.wait_for(site, r"listening at (\S+)\n", deadline)[1]
        # Only this limit holds where there is no delay; where there is one, that of a domain does, as in most projects.
        delay = {"DOWNLOAD_DELAY": schedule.delay, "CONCURRENT_REQUESTS": 16} if schedule.delay else {}
        stage = Stage(
            processes=processes, work=work, folder=folder, workload=schedule.crawl, environment=RUNNING,
            settings=delay, coordinator={}, scrapyd=kind.scrapyd, site=address, deadline=deadline,
        )  # fmt: skip
        found = Theatre(stage, schedule, kind)
        try:
            found.open()
            yield found
        except (MeasurementError, OSError, HTTPException) as error:
            raise MeasurementError(f"{error}\nFiles: {folder}") from error
    shutil.rmtree(folder)


def measure_starts(kind: Kind, *, work: Path) -> Starts:
    """The shortest of some crawls of one page."""
    found = []
    with theatre(ONE_PAGE, kind, work=work, seconds=120) as stand:
        for number in range(CALIBRATIONS):
            coordinator = stand.crawl(f"start{number}", 1)
            stand.stage.processes.finish(coordinator, stand.stage.deadline)
            found.append(stand.starts(coordinator))
    return Starts(coordinator=min(one.coordinator for one in found), worker=min(one.worker for one in found))


class Performance(NamedTuple):
    """Of the crawl that counts, by *coordinator*: *seconds*, and the 95th percentile of those from the discovery of a
    page until it was there (*waited*)."""

    coordinator: Child
    seconds: float
    waited: float


def perform(stand: Theatre) -> Performance:
    """Crawl, while with the nodes happens what the schedule says."""
    schedule, processes, deadline = stand.schedule, stand.stage.processes, stand.stage.deadline
    began = [time.monotonic()]
    crawls = [stand.crawl("first", schedule.pages)]
    if schedule.besides:
        _wait(stand, began[0] + SECOND_CRAWL_AFTER)
        began.append(time.monotonic())
        crawls.append(stand.crawl("second", schedule.besides))
    if schedule.joins:
        _wait(stand, began[0] + schedule.joins - NODE_START)
        stand.start_last()
    if schedule.goes:
        half = schedule.pages / 2
        processes.until(lambda: _sent(stand) >= half or None, deadline, "half of the pages were not asked for")
        stand.kill_last()
    ended = processes.finish_all(crawls, deadline)
    took = sorted(stand.stage.times()[crawls[-1].name]["took"])
    return Performance(crawls[-1], ended[-1] - began[-1], took[math.ceil(0.95 * len(took)) - 1])


def _wait(stand: Theatre, until: float) -> None:
    stand.stage.processes.until(lambda: time.monotonic() >= until or None, stand.stage.deadline, "still waiting")


def _sent(stand: Theatre) -> int:
    return int(stand.stage.times().get("first", {"sent": 0})["sent"])


def measure(schedule: Schedule, nodes: str, starts: Starts, *, series: str, number: int, work: Path) -> Measured:
    """Measure once; what goes wrong is in the result."""
    optimum = schedule.optimum(starts)
    common: dict[str, Any] = {
        "workload": schedule.name, "nodes": nodes, "series": series, "round": number, "optimum": round(optimum, 2),
    }  # fmt: skip
    try:
        with theatre(schedule, KINDS[nodes], work=work, seconds=180 + 10 * optimum) as stand:
            _, seconds, waited = perform(stand)
            requests = stand.check()
    except MeasurementError as error:
        return Measured(**common, problem=str(error))
    figure = waited if schedule.at_once else seconds / optimum
    return Measured(
        **common, seconds=round(seconds, 2), figure=round(figure, 2), requests=round(requests, 2),
        load=round(os.getloadavg()[0], 1),
    )  # fmt: skip


# --- the table ---


def newest(found: Iterable[Measured]) -> dict[tuple[str, str], list[Measured]]:
    """By workload and kind of nodes what was measured in the last run that had them."""
    by_pair: dict[tuple[str, str], list[Measured]] = {}
    for one in found:
        known = by_pair.setdefault((one.workload, one.nodes), [])
        if known and known[0].series != one.series:
            known.clear()
        known.append(one)
    return by_pair


def best(rounds: Sequence[Measured]) -> Measured:
    return min(rounds, key=lambda one: one.figure)


def report(found: Iterable[Measured]) -> str:
    """The table in Markdown."""
    measured = newest(found)
    lines = [
        "# Schedules",
        "",
        f"{os.cpu_count()} cores, Python {platform.python_version()}.",
        "",
        "Made by `python benchmarks/schedules.py --write`. How far crawls are from the best schedule: the time divided "
        "by the optimum, unless the workload says otherwise; the best of some rounds, in brackets all of them. The "
        "*bar* is what the figure may be. *requests*: a page. *load*: of the machine, with all that it had to do "
        "besides; where that is more than it has cores the times are longer than they would be. No crawl comes down to "
        "1.00: the optimum has no wait for the poll of a node in it (5 s between two of a stock one), nothing that is "
        "sent and answered, and no page that is fetched twice.",
        "",
        "| workload | nodes | optimum, s | s | figure | bar | requests | load |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(_row(measured[key]) for name in SCHEDULES for key in measured if key[0] == name),
        "",
        *(f"- *{name}*: {schedule.what}; {schedule.figure}" for name, schedule in SCHEDULES.items()),
        "",
    ]
    return "\n".join(lines)


def _row(rounds: Sequence[Measured]) -> str:
    one, bar = best(rounds), SCHEDULES[rounds[0].workload].bars.get(rounds[0].nodes)
    if one.problem:
        return f"| {one.workload} | {one.nodes} | {one.optimum:.1f} | failed |  |  |  |  |"
    others = ", ".join("failed" if other.problem else f"{other.figure:.2f}" for other in rounds)
    kept = "" if bar is None else f"{bar:.2f}" if one.figure <= bar else f"**{bar:.2f}**"
    return (
        f"| {one.workload} | {one.nodes} | {one.optimum:.1f} | {one.seconds:.1f} | {one.figure:.2f} ({others}) | {kept}"
        f" | {one.requests:.2f} | {one.load:.1f} |"
    )


# --- the command ---


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How close crawls come to the best schedule.")
    parser.add_argument("--workloads", type=names, default=tuple(SCHEDULES), help=f"of {', '.join(SCHEDULES)} (all)")
    parser.add_argument("--nodes", type=names, default=tuple(KINDS), help=f"of {', '.join(KINDS)} (all)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (3)")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for everything that is made (benchmarks/.work)")
    parser.add_argument("--report", action="store_true", help="measure nothing: the table from what is there")
    parser.add_argument("--write", action="store_true", help="write SCHEDULES.md beside this file")
    return parser.parse_args()


def run(options: argparse.Namespace) -> bool:
    """Measure, and keep each result; whether every measurement gave one."""
    work, series, good = options.work.resolve(), time.strftime("%Y-%m-%d %H:%M:%S"), True
    work.mkdir(parents=True, exist_ok=True)
    (work / ".gitignore").write_text("*\n")
    starts = {}
    for nodes in options.nodes:
        starts[nodes] = measure_starts(KINDS[nodes], work=work)
        print(f"{nodes}: {starts[nodes]}", flush=True)
    for number in range(1, options.rounds + 1):
        for name in options.workloads:
            for nodes in options.nodes:
                if KINDS[nodes].hosts and SCHEDULES[name].of_nodes:
                    continue
                result = measure(SCHEDULES[name], nodes, starts[nodes], series=series, number=number, work=work)
                with (work / RESULTS).open("a") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
                print(line(result), flush=True)
                good = good and not result.problem
    return good


def line(result: Measured) -> str:
    """A result as it comes in."""
    head = f"{result.workload} {result.round}, {result.nodes}"
    if result.problem:
        return f"{head}  FAILED: {result.problem}"
    bar = SCHEDULES[result.workload].bars.get(result.nodes)
    said = "" if bar is None else f" (bar {bar:.2f}{'' if result.figure <= bar else ': missed'})"
    return (
        f"{head}  {result.seconds:.1f} s, optimum {result.optimum:.1f} s: {result.figure:.2f}{said},"
        f" {result.requests:.2f} requests a page"
    )


def main() -> int:
    """The exit code: 0 if all that was measured gave a result."""
    options = arguments()
    unknown = (set(options.workloads) - set(SCHEDULES)) | (set(options.nodes) - set(KINDS))
    if unknown:
        print(f"no {', '.join(sorted(unknown))}: there are {', '.join((*SCHEDULES, *KINDS))}", file=sys.stderr)
        return 2
    try:
        good = options.report or run(options)
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nEnded; what was measured is in {options.work / RESULTS}", file=sys.stderr)
        return 130
    with (options.work / RESULTS).open() as file:
        text = report(Measured(**json.loads(one)) for one in file)
    print(text)
    if options.write:
        (HERE / "SCHEDULES.md").write_text(text)
        print(f"written: {(HERE / 'SCHEDULES.md').relative_to(ROOT)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""The same crawl by several designs, side by side and in turn, on one site of this machine. Linux only.

    python benchmarks/side_by_side.py                                  all scenarios, three rounds; hours
    python benchmarks/side_by_side.py --scenario short --rounds 1
    python benchmarks/side_by_side.py --scenario best --properties 1000 --only aio-scrapy,'this project'
    python benchmarks/side_by_side.py --report --write                 tables and plot from what was measured so far

Each round measures every contender once, every second round in reverse order. Each measurement has processes of its
own, checks that every property was delivered exactly once and right, and is appended to ``results.jsonl`` in the work
folder, so that a run that is cut off loses nothing. Peers are installed into environments in the work folder.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this project, wherever it is installed
from contenders import SCENARIOS, Entry
from environments import HERE, ROOT
from measurement import Measurement, measure
from processes import ROLES, MeasurementError
from tables import markdown, svg, tables

WORK = HERE / ".work"
RESULTS = "results.jsonl"
DEFAULT = ("installed", "best", "cores", "short", "scaling", "latency")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Several designs crawl the same site, side by side.")
    parser.add_argument("--scenario", type=names, default=DEFAULT, help=f"of {', '.join(SCENARIOS)} (all but workers)")
    parser.add_argument("--only", type=names, default=(), help="contenders whose title contains one of these")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each contender (3)")
    parser.add_argument("--properties", type=int, help="size of the site, instead of the scenario's")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for everything that is made (benchmarks/.work)")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="measure this project as it is there (here)")
    parser.add_argument("--report", action="store_true", help="measure nothing: tables from what is there")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md and RESULTS.svg beside this file")
    return parser.parse_args()


def names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def time_limit(entry: Entry) -> float:
    """Seconds for one measurement: several times what the slowest contender needs."""
    workload = entry.workload
    in_flight = workload.nodes * workload.workers * workload.concurrency
    return 180 + workload.properties * (0.02 + 3 * workload.latency / in_flight)


def turns(rounds: int, entries: Sequence[Entry]) -> Iterator[tuple[int, Entry]]:
    """Round by round, so that what drifts on this machine meets everybody."""
    for number in range(1, rounds + 1):
        for entry in entries if number % 2 else reversed(entries):
            yield number, entry


def run(options: argparse.Namespace) -> bool:
    """Measure, and keep each result; whether every measurement gave one."""
    good = True
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    (work / ".gitignore").write_text("*\n")
    chosen = {name: list(entries(name, options)) for name in options.scenario}
    for environment in dict.fromkeys(entry.contender.environment for found in chosen.values() for entry in found):
        print(f"environment {environment.name}: {', '.join(environment.requirements)}", flush=True)
        environment.make(work, options.checkout)
    for name, found in chosen.items():
        for number, entry in turns(options.rounds, found):
            print(f"{name} {number}/{options.rounds}  {entry.contender.title}", end="  ", flush=True)
            result = measure(
                entry.contender, entry.workload, scenario=name, number=number, work=work, time_limit=time_limit(entry)
            )
            with (work / RESULTS).open("a") as file:
                file.write(result.to_json() + "\n")
            print(line(result), flush=True)
            good = good and not result.problem
    return good


def entries(name: str, options: argparse.Namespace) -> Iterator[Entry]:
    """Those of a scenario that the command line asks for."""
    for entry in SCENARIOS[name].entries:
        if not options.only or any(part in entry.contender.title for part in options.only):
            size = options.properties or entry.workload.properties
            yield replace(entry, workload=replace(entry.workload, properties=size))


def line(result: Measurement) -> str:
    """A result as it comes in."""
    if result.problem:
        return f"FAILED: {result.problem}"
    properties = result.workload["properties"]
    cpu = ", ".join(f"{role} {result.cpu[role] / properties * 1000:.2f}" for role in ROLES if result.cpu[role])
    total = sum(result.cpu.values())
    return (
        f"{result.seconds:.1f} s, {properties / result.seconds:,.0f} items/s, {total / properties * 1000:.2f} ms/item "
        f"({cpu}), {total / result.seconds:.2f} cores"
    )


def report(work: Path) -> tuple[str, str]:
    """Markdown and SVG of all that was measured."""
    with (work / RESULTS).open() as file:
        measurements = [Measurement.from_json(line) for line in file]
    found = tables(measurements)
    versions = sorted({f"{name} {number}" for result in measurements for name, number in result.versions.items()})
    head = [
        "# Side by side",
        "",
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {', '.join(versions)}; "
        f"measured from {measurements[0].at} to {measurements[-1].at}.",
        "",
        "Made by `python benchmarks/side_by_side.py --write`. Every measurement that is shown has delivered every "
        "property exactly once. Figures are medians, in brackets minimum and maximum. CPU is that of all processes, "
        "in milliseconds for each item, and then by role. *first*: seconds until the first property was asked for; "
        "*reaction*: from the index page that fills the first batch to the first property.",
        "",
        "The clock runs: plain Scrapy, from the start of its process to its end; the tutorial, from the start of the "
        "coordinator until the last job has ended; this project, from the start of the coordinator to its end, when "
        "every URL is accounted for; scrapy-redis and aio-scrapy, from the first page that is asked for until the "
        "last item, so without the start and the end of their workers.",
        "",
        "![items per second](RESULTS.svg)",
        "",
    ]
    questions = {name: scenario.question for name, scenario in SCENARIOS.items()}
    return "\n".join(head) + "\n" + markdown(found, questions), svg(found)


def end(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """The exit code: 0 if all that was measured gave a result."""
    options = arguments()
    if unknown := set(options.scenario) - set(SCENARIOS):
        print(f"no scenario {', '.join(sorted(unknown))}: there are {', '.join(SCENARIOS)}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        good = options.report or run(options)
        text, plot = report(options.work)
    except MeasurementError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nEnded; what was measured is in {options.work / RESULTS}", file=sys.stderr)
        return 130
    print(text)
    if options.write:
        (HERE / "RESULTS.md").write_text(text)
        (HERE / "RESULTS.svg").write_text(plot)
        print(f"written: {(HERE / 'RESULTS.md').relative_to(ROOT)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

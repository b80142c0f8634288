"""One measurement: a contender crawls a site, and what came out is compared with the site."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from contenders import Contender
from designs import Span, Stage, Workload
from environments import EXAMPLE, HERE
from market import make_property
from pages import LINKS_PER_PAGE, property_path
from processes import SITE, MeasurementError, Processes


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What the feeds hold: all *items*, properties *missing*, items that are there *twice*, and *wrong* ones."""

    items: int
    missing: int
    twice: int
    wrong: int

    @property
    def complete(self) -> bool:
        """Every property exactly once, and right."""
        return self.missing == self.twice == self.wrong == 0


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What is kept of a measurement, one line of JSON. *seconds* from the start of the clock to its stop, *first* to
    the first property, *last* to the last; *reaction* from the index page that fills the first batch to the first
    property (``None`` without batches). *cpu* in seconds by role; *again* counts properties that were sent twice.
    *problem*: why there is no result."""

    scenario: str
    round: int
    at: str
    contender: str
    form: str
    workload: Mapping[str, Any]
    versions: Mapping[str, str]
    seconds: float = 0.0
    first: float = 0.0
    last: float = 0.0
    reaction: float | None = None
    cpu: Mapping[str, float]
    again: int = 0
    delivery: Mapping[str, int]
    problem: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Measurement:
        return cls(**json.loads(line))


def measure(
    contender: Contender, workload: Workload, *, scenario: str, number: int, work: Path, time_limit: float
) -> Measurement:
    """Measure once; what goes wrong is in the result. Its folder is removed unless something went wrong."""
    (work / "runs").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{scenario}-{number}-", dir=work / "runs"))
    (folder / "feeds").mkdir()
    versions = contender.environment.versions(work)
    common: dict[str, Any] = {
        "scenario": scenario,
        "round": number,
        "at": time.strftime("%Y-%m-%d %H:%M:%S"),
        "contender": contender.name,
        "form": contender.form,
        "workload": asdict(workload),
        "versions": {name: versions[name] for name in contender.versions},
    }
    try:
        with Processes() as processes:
            stage = _stage(processes, contender, workload, work=work, folder=folder, time_limit=time_limit)
            span = contender.crawl(stage)
            times = stage.times()
        delivery = check(stage.feeds.glob("*.jl"), stage.site, workload.properties)
    except (MeasurementError, OSError, HTTPException) as error:
        return Measurement(**common, cpu={}, delivery={}, problem=f"{error}\nFiles: {folder}")
    if not delivery.complete:
        return Measurement(**common, cpu={}, delivery=asdict(delivery), problem=f"{delivery}\nFiles: {folder}")
    shutil.rmtree(folder)
    return Measurement(
        **common,
        seconds=span.ended - span.started,
        first=times["first"] - span.started,
        last=times["last"] - span.started,
        reaction=_reaction(times, contender.batch),
        cpu=_rounded(span),
        again=times["again"],
        delivery=asdict(delivery),
    )


def check(feeds: Iterable[Path], site: str, properties: int) -> Delivery:
    """Compare the items in files of JSON lines with the site."""
    found: Counter[str] = Counter()
    wrong = 0
    expected = {site + property_path(number): number for number in range(properties)}
    for feed in feeds:
        for line in feed.read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            number = expected.get(item["url"])
            if number is None or item != _item(site, number):
                wrong += 1
            else:
                found[item["url"]] += 1
    return Delivery(
        items=found.total() + wrong,
        missing=len(expected) - len(found),
        wrong=wrong,
        twice=found.total() - len(found),
    )


def _item(site: str, number: int) -> dict[str, Any]:
    made = make_property(number)
    return {
        "url": site + property_path(number),
        "title": made.title,
        "price": made.price,
        "description": made.description,
        "address": made.address,
        "image_urls": [site + made.image],
    }


def _stage(
    processes: Processes, contender: Contender, workload: Workload, *, work: Path, folder: Path, time_limit: float
) -> Stage:
    """Start the site."""
    deadline = time.monotonic() + time_limit
    argv = [sys.executable, HERE / "timed_site.py", str(workload.properties), str(workload.latency)]
    site = processes.start("site", SITE, argv, cwd=folder, env={"PYTHONPATH": str(EXAMPLE / "site")})
    address = processes.wait_for(site, r"listening at (\S+)\n", deadline)[1]
    return Stage(
        processes=processes,
        work=work,
        folder=folder,
        workload=workload,
        environment=contender.environment,
        settings=contender.settings,
        coordinator=contender.coordinator,
        scrapyd=contender.scrapyd,
        site=address,
        deadline=deadline,
    )


def _reaction(times: Mapping[str, Any], batch: int) -> float | None:
    """Seconds from the index page that fills the first batch to the first property."""
    page = -(-batch // LINKS_PER_PAGE) - 1
    if len(times["index"]) <= page or times["first"] < times["index"][page]:
        return None
    return float(times["first"] - times["index"][page])


def _rounded(span: Span) -> dict[str, float]:
    return {role: round(seconds, 2) for role, seconds in span.cpu.items()}

"""What the benchmarks' figures rest on: the check of what was delivered, the tables."""

from __future__ import annotations

import json
import math
import sys
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
import designs
from contenders import SCENARIOS, Entry
from http_messages import Request
from market import make_property
from measurement import Measurement, check
from optimum import SCHEDULES, Starts
from pages import property_path
from schedules import KINDS, Kind, Measured, Theatre, report
from side_by_side import turns
from sleeping_site import SleepingSite
from tables import markdown, svg, tables
from timed_site import TimedSite

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmarks read /proc")

SITE = "http://site.example"


# --- what was delivered ---


def item(number: int) -> dict[str, Any]:
    found = make_property(number)
    fields = {"title": found.title, "price": found.price, "description": found.description, "address": found.address}
    return {"url": SITE + property_path(number), **fields, "image_urls": [SITE + found.image]}


def feed(file: Path, *items: dict[str, Any]) -> Path:
    file.write_text("".join(json.dumps(item) + "\n" for item in items))
    return file


def test_every_property_exactly_once_is_complete(tmp_path: Path) -> None:
    feeds = [feed(tmp_path / "1.jl", item(0), item(2)), feed(tmp_path / "2.jl", item(1))]
    delivery = check(feeds, SITE, 3)
    assert delivery.complete
    assert delivery.items == 3


def test_a_property_that_came_twice_is_found(tmp_path: Path) -> None:
    feeds = [feed(tmp_path / "1.jl", item(0), item(1)), feed(tmp_path / "2.jl", item(1))]
    delivery = check(feeds, SITE, 2)
    assert (delivery.missing, delivery.twice, delivery.wrong, delivery.complete) == (0, 1, 0, False)


def test_a_property_that_is_missing_is_found(tmp_path: Path) -> None:
    delivery = check([feed(tmp_path / "1.jl", item(0))], SITE, 2)
    assert (delivery.missing, delivery.twice, delivery.wrong, delivery.complete) == (1, 0, 0, False)


@pytest.mark.parametrize("other", [{"price": 0.0}, {"url": f"{SITE}/property_000009.html"}])
def test_an_item_that_the_site_does_not_have_is_found(tmp_path: Path, other: dict[str, Any]) -> None:
    delivery = check([feed(tmp_path / "1.jl", item(0) | other)], SITE, 1)
    assert (delivery.missing, delivery.wrong, delivery.complete) == (1, 1, False)


def test_the_site_notes_when_it_sent_what(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr("timed_site.time.monotonic", lambda: next(clock))
    site = TimedSite(properties=2, latency=0.5)
    for path in ("/index_00000.html", "/property_000001.html", "/property_000001.html", "/property_000000.html"):
        site.answer(Request(method="GET", target=path, headers={}, body=b""))
    answer = site.answer(Request(method="GET", target="/times.json", headers={}, body=b""))
    assert json.loads(answer.body) == {"sent": 2, "again": 1, "first": 2.0, "last": 4.5, "index": [1.0]}


# --- rounds and tables ---


def recorded(contender: str, seconds: float, **other: Any) -> Measurement:
    cpu = {"site": 0.5, "coordinator": 1.0, "daemons": 0.0, "workers": seconds, "broker": 0.0}
    workload = asdict(designs.Workload(properties=1000))
    return Measurement(
        **{
            "scenario": "short", "round": 1, "at": "2026-11-21 12:00:00", "contender": contender,
            "form": "as installed", "workload": workload, "versions": {}, "seconds": seconds, "first": 1.5,
            "last": seconds, "cpu": cpu, "delivery": {}, **other,
        }
    )  # fmt: skip


def test_a_table_has_medians_extremes_roles_and_ratios() -> None:
    ours = [recorded("this project", seconds) for seconds in (5.0, 4.0, 10.0)]
    theirs = [recorded("tutorial", seconds, reaction=2.0) for seconds in (10.0, 20.0)]
    text = markdown(tables([*ours, *theirs, recorded("tutorial", 0.0, problem="node ended")]), {"short": "Why?"})
    lines = text.splitlines()
    assert lines[:4] == ["## short: 1,000 properties, 0 s a page", "", "Why?", ""]
    assert "| this project, as installed | 2 | 3 | 5.0 (4.0-10.0) | 200 (100-250) | 1.30 (1.15-1.38) | 1.5 |  |" in text
    assert "| tutorial, as installed | 2 | 2 (1 failed) | 15.0 (10.0-20.0) | 75 (50-100) " in text
    assert "| this project, as installed | 2 | 6.50 (5.50-11.50) | 0.500 (0.500-0.500) | 1.000 " in text
    assert "| this project, as installed, 2 workers | 1.00 | 0.33 |" in lines


def test_sizes_and_latencies_are_not_mixed() -> None:
    large = recorded("tutorial", 9.0, workload=asdict(designs.Workload(properties=2000)))
    slow = recorded("tutorial", 9.0, workload=asdict(designs.Workload(properties=1000, latency=0.25)))
    found = tables([recorded("tutorial", 5.0), large, slow])
    assert [table.title for table in found] == [
        "short: 1,000 properties, 0 s a page",
        "short: 2,000 properties, 0 s a page",
        "short: 1,000 properties, 0.25 s a page",
    ]


def test_the_plot_has_a_bar_for_every_row_with_a_result() -> None:
    failed = recorded("scrapy-redis", 0.0, problem="no Redis")
    plot = ET.fromstring(svg(tables([recorded("this project", 5.0), recorded("a < b", 10.0), failed])))
    bars = plot.findall("{http://www.w3.org/2000/svg}rect")[1:]
    assert [float(bar.attrib["width"]) for bar in bars] == pytest.approx([490.0, 245.0])
    assert "a < b, as installed, 2 workers" in [text.text for text in plot.iter("{http://www.w3.org/2000/svg}text")]


def test_contenders_take_turns_and_every_second_round_is_reversed() -> None:
    one, two, *_ = SCENARIOS["installed"].entries
    order: list[tuple[int, Entry]] = list(turns(3, [one, two]))
    assert order == [(1, one), (1, two), (2, two), (2, one), (3, one), (3, two)]


# --- the best schedule ---


def test_the_best_schedules_are_those_that_were_computed_by_hand() -> None:
    starts = Starts(coordinator=0.48, worker=0.5)
    found = {name: round(schedule.optimum(starts), 1) for name, schedule in SCHEDULES.items()}
    assert found == {
        "polite-small": 18.7, "polite-larger": 22.0, "chain": 5.0, "tree": 2.5, "burst": 1.9, "wide": 24.5,
        "slow-node": 9.5, "slow-walk": 40.6, "heavy-tail": 12.2, "node-joins": 20.8, "node-goes": 12.7,
        "two-crawls": 6.0,
    }  # fmt: skip


def test_each_bar_is_for_a_kind_of_node_that_there_is() -> None:
    assert {kind for schedule in SCHEDULES.values() for kind in schedule.bars} == set(KINDS)


def page(number: int, agent: str = "sleeping times 1.0") -> Request:
    return Request(method="GET", target=f"/page/a/{number}?found=10.0", headers={"user-agent": agent}, body=b"")


def test_pages_sleep_and_it_is_noted_how_long_each_took_since_it_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sleeping_site.time.monotonic", lambda: 12.0)
    site = SleepingSite(properties=0, latency=0.5, heavy=8.0)
    answers = [site.answer(page(0)), site.answer(page(50)), site.answer(page(0)), site.answer(page(1, "times 5"))]
    assert [answer.delay for answer in answers] == [0.5, 8.0, 0.5, 2.5]
    times = site.answer(Request(method="GET", target="/times.json", headers={}, body=b""))
    assert json.loads(times.body) == {"a": {"sent": 3, "requests": 4, "took": [2.5, 10.0, 4.5]}}


def test_where_no_scrapyd_is_started_the_slots_are_those_of_the_workload() -> None:
    kind = Kind(hosts="local:{}")
    assert Theatre(None, SCHEDULES["burst"], kind).hosts == "local:4"


def schedule(figure: float, **other: Any) -> Measured:
    usual = {"workload": "burst", "nodes": "warm", "series": "1", "round": 1, "optimum": 2.0, "seconds": 2 * figure}
    return Measured(**{**usual, "figure": figure, "requests": 1.0, "load": 0.5, **other})


def test_of_some_rounds_the_best_counts_and_of_runs_the_last() -> None:
    found = [schedule(1.0), schedule(3.0, series="2"), schedule(2.5, series="2"), schedule(9.0, nodes="stock")]
    text = report([*found, schedule(math.inf, series="2", problem="no node")])
    assert "| burst | warm | 2.0 | 5.0 | 2.50 (3.00, 2.50, failed) | **1.80** | 1.00 | 0.5 |\n" in text
    assert "| burst | stock | 2.0 | 18.0 | 9.00 (9.00) | **2.70** | 1.00 | 0.5 |\n" in text
    assert "| burst | warm | 2.0 | 3.0 | 1.50 (1.50) | 1.80 | 1.00 | 0.5 |\n" in report([schedule(1.5)])
    assert "| burst | warm | 2.0 | failed |  |  |  |  |\n" in report([schedule(math.inf, problem="no node")])

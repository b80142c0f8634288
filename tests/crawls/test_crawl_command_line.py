"""What the command says holds in the jobs: a crawl of the fleet comes to what the same command comes to locally."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crawling import FAKES, Crawl
from homing import PATIENCE, Home, complaints, content, items
from scrapyd_child import ScrapydChild

SECRET = "s3cret-s3cret"
ADDONS = {"trial.home.told.Adding": 300, "scrapy_distributed.Addon": 500}
ARGUMENTS = {"category": "tea", "label": "a b=c, \u00e9"}
SETTINGS = {
    "DOWNLOAD_DELAY": "0.01",
    "USER_AGENT": "me, and you",
    "OWN": "x,y",
    "JOBDIR": "",
    "LOG_DATEFORMAT": "%Y-%m-%d",
}


def by_command(home: Home, folder: Path, local: bool, **more: str) -> Crawl:
    settings = {**SETTINGS, "ADDONS": json.dumps(ADDONS), **({"DISTRIBUTED_ENABLED": "False"} if local else {})}
    options = [word for name, value in {**ARGUMENTS, **more}.items() for word in ("-a", f"{name}={value}")]
    return home.crawl("told", *options, "-O", str(folder / "out.jl"), folder=folder, settings=settings)


def by_script(process: str) -> Callable[[Home, Path, bool], Crawl]:
    def crawl(home: Home, folder: Path, local: bool) -> Crawl:
        folder.mkdir(exist_ok=True)
        plain = {
            **SETTINGS, "ADDONS": ADDONS, "DISTRIBUTED_LEDGER": str(folder / "ledger.sqlite"),
            "DISTRIBUTED_ENABLED": not local, "FEEDS": {str(folder / "out.jl"): {"format": "jl"}},
        }  # fmt: skip
        settings = {"project": plain, "cmdline": {"DOWNLOAD_DELAY": 0.01, "JOBDIR": ""}}  # the spider has them as well
        arguments = {"site": home.shop.url, **ARGUMENTS}
        program = (str(FAKES / "script_crawl.py"), process, "told", json.dumps(arguments), json.dumps(settings))
        return home.project.scrapy(folder=folder, program=program)

    return crawl


WAYS: dict[str, Callable[[Home, Path, bool], Crawl]] = {
    "scrapy crawl": by_command,
    "CrawlerProcess": by_script("CrawlerProcess"),
    "AsyncCrawlerProcess": by_script("AsyncCrawlerProcess"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_items_are_those_of_the_same_command_without_the_fleet(home: Home, tmp_path: Path, way: str) -> None:
    fleet, local = (WAYS[way](home, tmp_path / name, name == "local") for name in ("fleet", "local"))
    assert local.wait(PATIENCE).process.returncode == fleet.wait(PATIENCE).process.returncode == 0, fleet.log
    here = items(local.folder / "out.jl")
    assert content(fleet.folder / "out.jl") == content(local.folder / "out.jl"), fleet.log
    assert [item["arguments"] for item in here[:1]] == [{"kind": "TEA", "label": ARGUMENTS["label"], "api_key": None}]
    assert [item["settings"] for item in here[:1]] == [
        {"JOBDIR": "", "OWN": "x,y", "OWN_TOKEN": None, "ADDED": "by the add-on"}
    ]  # fmt: skip
    assert {(item["delay"], item["agent"]) for item in here} == {(0.01, SETTINGS["USER_AGENT"])}
    assert fleet.balance()["crawled"] == len(here)
    assert complaints(fleet) == []
    (said,) = re.findall(r"INFO: Command line: (.*)", fleet.log)
    assert fleet.log.index(said) < fleet.log.index("Batch 1 ")
    assert said == (
        "for each job: -a category, -a label, -a site, -s ADDONS, -s DOWNLOAD_DELAY, -s OWN, -s USER_AGENT;"
        " for this crawl alone: -s FEEDS, -s JOBDIR, -s LOG_DATEFORMAT"
    )


def test_a_secret_goes_nowhere_and_is_named(home: Home, nodes: list[ScrapydChild], tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    given: dict[str, Any] = {**SETTINGS, "OWN_TOKEN": SECRET}
    options = ("-a", "category=tea", "-a", f"api_key={SECRET}", "-O", str(folder / "out.jl"))
    crawl = home.crawl("told", *options, folder=folder, settings=given).wait(PATIENCE)
    assert crawl.process.returncode == 0, crawl.log
    (said,) = complaints(crawl)
    assert "-a api_key, -s OWN_TOKEN: not sent to the nodes" in said
    assert crawl.log.index(said) < crawl.log.index("Batch 1 ")
    found = items(folder / "out.jl")
    assert {(item["arguments"]["api_key"], item["settings"]["OWN_TOKEN"]) for item in found} == {(None, None)}
    assert SECRET not in crawl.log
    assert all(SECRET.encode() not in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    kept = [node.dir for node in nodes]
    files = [path for one in kept for path in one.rglob("*") if path.is_file()]
    assert any(b"category=tea" in path.read_bytes() for path in files)
    assert not any(SECRET.encode() in path.read_bytes() for path in files)

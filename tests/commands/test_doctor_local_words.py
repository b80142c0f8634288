"""``scrapy fleet doctor``: what it says of workers on this machine before one is started."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from scrapy import Spider
from scrapy.settings import Settings
from twisted.internet import reactor

from scrapy_distributed.commands.doctor import Subject, all_well, found_here, job_of
from scrapy_distributed.commands.doctor_local import examine_here, worker_command
from scrapy_distributed.commands.probe import Probe
from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.node import NodeAddress
from scrapy_distributed.fleet.preflight import Survey, Verdict
from scrapy_distributed.wire.job_template import JobTemplate

SPIDERS = "import scrapy\nclass Shop(scrapy.Spider):\n    name = 'shop'\n"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Spider]:
    """The spider of a file for ``runspider``."""
    (tmp_path / "shop_of_doctor.py").write_text(SPIDERS)
    monkeypatch.syspath_prepend(tmp_path)
    kind: type[Spider] = import_module("shop_of_doctor").Shop
    return kind


def config_of(**settings: Any) -> Config:
    return Config.from_settings(Settings(settings))


def about(kind: type[Spider] | None) -> Subject:
    return Subject(name="shop", kind=kind, settings=Settings())


def test_the_command_is_that_of_the_crawl(shop: type[Spider], tmp_path: Path) -> None:
    assert worker_command(about(shop), config_of(), []) == ("runspider", str(tmp_path / "shop_of_doctor.py"))


def test_what_a_worker_would_not_find_is_refused_by_name(shop: type[Spider]) -> None:
    refused = worker_command(about(type("Another", (shop,), {})), config_of(), [])
    assert isinstance(refused, ConfigError)
    assert "found workers on this machine, and the spider test_doctor_local_words." in str(refused)
    assert "spider 'shop': found none of that name here" in str(worker_command(about(None), config_of(), []))


def test_what_a_crawl_refuses_of_its_nodes_is_refused(shop: type[Spider]) -> None:
    refused = worker_command(about(shop), config_of(DISTRIBUTED_WAIT=False), [])
    assert "DISTRIBUTED_WAIT: found False, and workers on this machine end with the crawl" in str(refused)
    beside = worker_command(about(shop), config_of(), [NodeAddress(name="one", url="http://one:6800")])
    assert "found one, and a spider that no project has" in str(beside)


@pytest_twisted.ensureDeferred
async def test_without_a_command_no_job_is_started() -> None:
    job = JobTemplate(project="p", spider="s", version="", settings={}, args={})
    probe = Probe(job=job, timeout=1, clock=reactor)
    found = await examine_here(ConfigError("not to be found"), Survey(project="p", spider="s"), probe)
    assert [(one.node, one.check, one.verdict, one.words) for one in found] == [
        ("local", "command", Verdict.FAIL, "not to be found"),
        ("local", "probe", Verdict.SKIPPED, "not checked (no such command)"),
    ]
    assert not all_well(found)


@pytest_twisted.ensureDeferred
async def test_without_a_job_none_is_started() -> None:
    (found,) = await examine_here(("crawl", "s"), Survey(project="p", spider="s"), None)
    assert (found.check, found.verdict, found.words) == ("command", Verdict.OK, "scrapy crawl s")


def test_how_often_a_site_is_asked_by_so_many_workers(shop: type[Spider]) -> None:
    settings = Settings({"ADDONS": {"scrapy_distributed.Addon": 500}, "DOWNLOAD_DELAY": 0.5})
    subject, config = Subject(name="shop", kind=shop, settings=settings), Config.from_settings(settings)
    job = job_of(subject, config, "p", CommandLine())
    told = {one.check: one.words for one in found_here(subject, config, CommandLine(), job, nodes=0, slots=4)}
    assert "With 4 workers on this machine that is 8 a second on average." in told["requests to a site"]

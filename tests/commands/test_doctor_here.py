"""``scrapy fleet doctor``: what it finds without a node, and the job that it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scrapy import Spider
from scrapy.settings import Settings

from scrapy_distributed.addon import Addon
from scrapy_distributed.commands.doctor import Subject, found_here, job_of, subject
from scrapy_distributed.commands.probe import probe_of
from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fleet.preflight import Finding, Verdict
from scrapy_distributed.middleware import DistributedSpiderMiddleware


class Sited(Spider):
    name = "sited"
    custom_settings = {"DISTRIBUTED_TARGET_CALLBACKS": ["parse"]}


def here(settings: dict[str, Any], given: dict[str, str] | None = None, **options: str) -> tuple[list[Finding], Any]:
    """What is found without a node, and the job; *settings*: those of the project, *options*: those of ``-s``."""
    own = Settings()
    own.setdict({"ADDONS": {"scrapy_distributed.Addon": 500}, **settings}, priority="addon")
    own.setdict(options, priority="cmdline")
    Sited.update_settings(own)
    about, config, command = Subject(name="sited", kind=Sited, settings=own), Config.from_settings(own), CommandLine()
    try:
        command = CommandLine.read(own, config, given or {})
        job: Any = job_of(about, config, "p", command)
    except ConfigError as error:
        job = error
    return found_here(about, config, command, job, nodes=3), job


def test_the_job_is_that_of_a_crawl() -> None:
    findings, job = here({"DISTRIBUTED_TARGET_FEED_URL": "file:///%(batch)s.jl"}, {"site": "s", "other": "o"})
    assert {finding.verdict for finding in findings} == {Verdict.OK}
    assert job.args == {"site": "s", "other": "o"}
    assert job.settings["DISTRIBUTED_TARGET_CALLBACKS"] == "parse"
    assert job.settings["FEED_URI"] == "file:///%(batch)s.jl"


def test_what_goes_with_the_jobs_and_what_does_not_is_told() -> None:
    findings, job = here({}, {"site": "s", "api_key": "s3cret"}, USER_AGENT="me", LOG_LEVEL="INFO")
    told, warning = (finding for finding in findings if finding.check == "command line")
    assert told.verdict is Verdict.OK
    assert told.words == "for each job: -a site, -s USER_AGENT; for this crawl alone: -s LOG_LEVEL"
    assert (warning.verdict, warning.words[:30]) == (Verdict.WARN, "-a api_key: not sent to the no")
    assert (job.args, job.settings["USER_AGENT"]) == ({"site": "s"}, "me")
    assert "s3cret" not in f"{findings}{job}"


def test_what_a_crawl_refuses_the_doctor_does() -> None:
    findings, job = here({}, {"batch": "7"})
    assert isinstance(job, ConfigError)
    assert findings[-1].verdict is Verdict.FAIL
    assert findings[-1].words.startswith("spider argument 'batch': found one of yours")


@pytest.mark.parametrize("settings", [{"A": "x" * 131_071}, {f"A{n}": "x" * 100_000 for n in range(9)}])
def test_settings_that_leave_no_room_for_a_batch(settings: dict[str, str]) -> None:
    findings, _ = here({"DISTRIBUTED_WORKER_SETTINGS": settings})
    assert findings[-1].verdict is Verdict.FAIL
    assert "shorten what -a and -s give, and DISTRIBUTED_WORKER_SETTINGS" in findings[-1].words


@pytest.mark.parametrize(
    ("spider", "project", "words"),
    [
        ("shop.com/eu", "p", "spider 'shop.com/eu': found what is a path"),
        ("sited", "a/b", "project 'a/b': found what is"),
    ],
)
def test_names_that_a_node_can_not_run(spider: str, project: str, words: str) -> None:
    """There is no job, so no probe is sent."""
    own = Settings({"ADDONS": {"scrapy_distributed.Addon": 500}})
    about, config = Subject(name=spider, kind=Sited, settings=own), Config.from_settings(own)
    with pytest.raises(ConfigError) as caught:
        job_of(about, config, project, CommandLine())
    finding = found_here(about, config, CommandLine(), caught.value, nodes=3)[-1]
    assert (finding.check, finding.verdict, finding.words[: len(words)]) == ("job", Verdict.FAIL, words)
    assert "shorten" not in finding.words


@pytest.mark.parametrize(
    ("settings", "verdict"),
    [
        ({"ADDONS": {Addon: 500}}, Verdict.OK),
        ({"ADDONS": '{"scrapy_distributed.addon.Addon": 500}'}, Verdict.OK),
        ({"ADDONS": {}, "SPIDER_MIDDLEWARES": {DistributedSpiderMiddleware: 100}}, Verdict.OK),
        (
            {"ADDONS": {}, "SPIDER_MIDDLEWARES": {"scrapy_distributed.middleware.DistributedSpiderMiddleware": 100}},
            Verdict.OK,
        ),
        ({"ADDONS": {"scrapy_distributed.Addon": None}}, Verdict.FAIL),
        ({"ADDONS": {"another.Addon": 500}}, Verdict.FAIL),
    ],
)
def test_whether_the_plugin_is_activated(settings: dict[str, Any], verdict: Verdict) -> None:
    (plugin, *_), _ = here(settings)
    assert (plugin.check, plugin.verdict) == ("plugin", verdict)
    if verdict is Verdict.FAIL:
        assert plugin.words == 'not activated in this project: ADDONS = {"scrapy_distributed.Addon": 500}'


def test_a_probe_has_the_feeds_of_a_crawl_and_leaves_no_file() -> None:
    feeds = {"%(batch)s.jl": {"store_empty": True}, "%(batch)s.csv": {"item_filter": Sited}}
    settings = {"DISTRIBUTED_TARGET_FEEDS": feeds, "DISTRIBUTED_WORKER_SETTINGS": {"FEED_STORE_EMPTY": True, "A": "1"}}
    _, job = here(settings, {"site": "s"})
    probe = probe_of(job, Config.from_settings(Settings(settings)))
    assert (probe.spider, probe.args) == (job.spider, job.args)
    changed = {"URLLENGTH_LIMIT": "1", "FEED_STORE_EMPTY": "False", "FEEDS": probe.settings["FEEDS"]}
    assert probe.settings == {**job.settings, **changed}
    assert json.loads(probe.settings["FEEDS"]) == {
        "%(batch)s.jl": {"format": "jl", "store_empty": False},
        "%(batch)s.csv": {"format": "csv", "item_filter": "test_doctor_here.Sited", "store_empty": False},
    }


def test_a_probe_does_not_have_the_feeds_of_the_project() -> None:
    _, job = here({}, {"site": "s"})
    assert job.settings["FEEDS"] == "{}"  # the items come home
    _, job = here({"FEEDS": {"/items/%(batch)s.jl": {"format": "jsonlines"}}}, {"site": "s"})
    assert "FEEDS" not in job.settings
    assert probe_of(job, Config.from_settings(Settings())).settings["FEEDS"] == "{}"


def test_a_misspelt_setting_is_told() -> None:
    findings, _ = here({"DISTRIBUTED_BACH_SIZE": 3})
    (setting,) = [finding for finding in findings if finding.verdict is not Verdict.OK]
    assert (setting.check, setting.verdict) == ("setting", Verdict.WARN)
    assert setting.words == "DISTRIBUTED_BACH_SIZE is no setting of scrapy_distributed, DISTRIBUTED_BATCH_SIZE is"


def test_the_spider_is_the_first_that_is_distributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spiders_of_doctor.py").write_text(
        "import scrapy\n"
        "class A(scrapy.Spider):\n    name = 'a'\n    custom_settings = {'DISTRIBUTED_ENABLED': False}\n"
        "class C(scrapy.Spider):\n    name = 'c'\n"
        "class B(scrapy.Spider):\n    name = 'b'\n    custom_settings = {'DISTRIBUTED_VERSION': 'r1'}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = Settings({"SPIDER_MODULES": ["spiders_of_doctor"]})
    found = subject(settings, None)
    assert (found.name, found.settings["DISTRIBUTED_VERSION"]) == ("b", "r1")
    assert "the first of 2" in found.note
    assert (subject(settings, "a").name, subject(settings, "a").note) == ("a", "")
    strange = subject(settings, "nope")
    assert strange.kind is None
    config = Config.from_settings(settings)
    finding = found_here(strange, config, CommandLine(), ConfigError("x"), nodes=3)[1]
    assert (finding.check, finding.verdict) == ("spider", Verdict.FAIL)
    assert finding.words == "nope is not in the project of this folder (it has a, b, c)"
    with pytest.raises(ConfigError, match="no spider: expected one"):
        subject(Settings(), None)

"""``scrapy fleet doctor`` says what the crawl would say before its first batch."""

from __future__ import annotations

from typing import Any

from scrapy import Spider
from scrapy.settings import Settings

from scrapy_distributed.commands.doctor import Subject, found_here, job_of
from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.fleet.preflight import Finding, Verdict


class Plain(Spider):
    name = "plain"


def findings(**given: Any) -> list[Finding]:
    settings = Settings(
        {"ADDONS": {"scrapy_distributed.Addon": 500}, "DISTRIBUTED_TARGET_CALLBACKS": ["parse"], **given}
    )
    about = Subject(name="plain", kind=Plain, settings=settings)
    config, command = Config.from_settings(settings), CommandLine()
    return found_here(about, config, command, job_of(about, config, "p", command), nodes=3)


def test_what_a_crawl_would_say_before_its_first_batch() -> None:
    found = findings(FILES_STORE="/files", DISTRIBUTED_WORKER_SETTINGS={"DOWNLOAD_DELAY": "2"})
    assert {finding.verdict for finding in found} == {Verdict.OK}  # a feed may come with -O
    told = {finding.check: finding.words for finding in found}
    assert list(told) == ["plugin", "spider", "requests to a site", "fleet", "items", "FILES_STORE", "job"]
    assert "each node (3) that is 1.5 a second" in told["requests to a site"]
    assert told["fleet"].startswith("it crawls what matches DISTRIBUTED_TARGET_CALLBACKS = ['parse'], meta")


def test_a_pipeline_that_can_not_be_loaded() -> None:
    (fault,) = [one for one in findings(ITEM_PIPELINES={"nothing.of.that_name": 1}) if one.verdict is not Verdict.OK]
    assert (fault.check, fault.verdict) == ("item pipelines", Verdict.FAIL)
    assert "nothing" in fault.words

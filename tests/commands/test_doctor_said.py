"""``scrapy fleet doctor`` says what the crawl would say before its first batch."""

from __future__ import annotations

from typing import Any

from scrapy import Spider
from scrapy.settings import Settings

from scrapy_distributed.commands.doctor import FEW_NODES, Subject, found_here, job_of, plain
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


def test_a_feed_that_each_scrapyd_would_write_elsewhere() -> None:
    (found,) = [one for one in findings(DISTRIBUTED_TARGET_FEED_URL="%(batch)s.jl") if one.verdict is not Verdict.OK]
    assert (found.check, found.verdict) == ("items", Verdict.WARN)
    assert "is a relative path" in found.words


def test_a_pipeline_that_can_not_be_loaded() -> None:
    (fault,) = [one for one in findings(ITEM_PIPELINES={"nothing.of.that_name": 1}) if one.verdict is not Verdict.OK]
    assert (fault.check, fault.verdict) == ("item pipelines", Verdict.FAIL)
    assert "nothing" in fault.words


def finding(node: str, check: str, verdict: Verdict) -> Finding:
    return Finding(node=node, check=check, verdict=verdict, words="x")


def of_nodes(count: int, *others: Finding) -> list[str]:
    """What is printed of so many nodes that are well, and *others*."""
    found = [finding(f"n{number}", check, Verdict.OK) for number in range(count) for check in ("answers", "version")]
    return plain([finding("here", "plugin", Verdict.OK), *found, *others])


def test_of_many_nodes_those_are_shown_that_have_something_to_say() -> None:
    """And how many there are."""
    ill = [finding("bad", "answers", Verdict.FAIL), finding("bad", "version", Verdict.SKIPPED)]
    open_ = [finding("open", "answers", Verdict.OK), finding("open", "credentials", Verdict.RISK)]
    assert of_nodes(18, *ill, *open_) == [
        "here  ok    plugin: x",
        "bad   FAIL  answers: x",
        "bad   -     version: x",
        "open  ok    answers: x",
        "open  risk  credentials: x",
        "20 nodes: 18 ok, 1 risk, 1 FAIL",
    ]
    assert of_nodes(1000)[1:] == ["1000 nodes: 1000 ok"]


def test_of_a_few_nodes_all_is_shown() -> None:
    assert len(of_nodes(FEW_NODES)) == 1 + 2 * FEW_NODES

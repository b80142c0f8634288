"""What is said before the first batch."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from scrapy.settings import Settings

from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import ItemsGo
from scrapy_distributed.config.told import Line, block, tell


class Own:
    """A pipeline of a project."""


OWN = f"{__name__}.Own"
OURS: dict[str, Any] = {"DISTRIBUTED_TARGET_FEED_URL": "ftp://u:secret@h/%(batch)s.jl"}
FILE: dict[str, Any] = {"FEEDS": {"/out.jl": {"format": "jl"}}}
PIPELINES: dict[str, Any] = {"ITEM_PIPELINES": {OWN: 300}}
AT_HOME: dict[str, Any] = {**PIPELINES, "DISTRIBUTED_PIPELINES_AT_HOME": [OWN]}
NONE: dict[str, Any] = {"DISTRIBUTED_ITEMS": "none"}


def of(*given: dict[str, Any]) -> tuple[Config, Settings]:
    settings = Settings({name: value for some in given for name, value in some.items()})
    return Config.from_settings(settings), settings


def said(
    *given: dict[str, Any], go: ItemsGo = ItemsGo.HOME, command: CommandLine | None = None, **there: Any
) -> list[Line]:
    config, settings = of(*given)
    return block(
        config, settings, command=command or CommandLine(), job={}, spider=None,
        targets="DISTRIBUTED_TARGET_RULE = [1]", items_go=go, place="spool/", **{"nodes": 3, **there},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("go", "given", "told"),
    [
        (ItemsGo.FEEDS, [OURS, FILE], ["Items: each job writes its own to 'ftp://u@h/%(batch)s.jl'"]),
        (ItemsGo.FEEDS, [{"FEED_URI": "/%(batch)s.jl"}], ["Items: each job writes its own to '/%(batch)s.jl'"]),
        (
            ItemsGo.NOWHERE,
            [],
            [
                "Items: they go through the pipelines of the workers, and into no feed;"
                ' DISTRIBUTED_ITEMS = "home" or -O FILE brings them home'
            ],
        ),
        (
            ItemsGo.STREAM,
            [],
            [
                "Items: each goes once into the stream spool/ in Redis, as JSON; those of workers as they are settled,"
                " those that are scraped here when this crawl ends; no file is written"
            ],
        ),
        (ItemsGo.NOWHERE, [NONE], ["Items: they go through the pipelines of the workers, and into no feed"]),
        (ItemsGo.HOME, [FILE], ["Items: they come home by way of spool/, and are written here to '/out.jl'"]),
        (
            ItemsGo.HOME,
            [PIPELINES, FILE],
            [
                "Items: they come home by way of spool/, and are written here to '/out.jl'",
                "Item pipelines: each worker has its own of Own",
            ],
        ),
        (
            ItemsGo.HOME,
            [AT_HOME, FILE],
            [
                "Items: they come home by way of spool/, and are written here to '/out.jl'",
                "Item pipelines: each worker has its own of none; all items pass Own on the coordinator",
            ],
        ),
        (
            ItemsGo.FEEDS,
            [{"FEED_URI": "/%(batch)s.jl", "FILES_STORE": "/files"}],
            [
                "Items: each job writes its own to '/%(batch)s.jl'",
                "FILES_STORE: each worker on a node has its own, '/files' as it is there",
            ],
        ),
    ],
)
def test_where_the_items_go(go: ItemsGo, given: list[dict[str, Any]], told: list[str]) -> None:
    _, _, *lines = said(*given, go=go)
    assert list(map(str, lines)) == told


@pytest.mark.parametrize(
    ("url", "there", "told", "wrong"),
    [
        ("items/%(batch)s.jl", {}, "'items/%(batch)s.jl' is a relative path, so the jobs of a Scrapyd write it", True),
        ("%(batch)s.jl", {"elsewhere": ["s1"]}, "'%(batch)s.jl' is a relative path", True),
        ("%(batch)s.jl", {"nodes": 0, "slots": 4}, "", False),  # workers on this machine run in this folder
        ("file:///i/%(batch)s.jl", {}, "", False),  # nodes on this machine
        ("file:///i/%(batch)s.jl", {"elsewhere": ["s1", "s2"]}, "there are several: this one, s1, s2; expected", False),
        ("/i/%(batch)s.jl", {"elsewhere": ["s1"]}, "'/i/%(batch)s.jl' is on the machine where a job runs", False),
        ("ftp://h/%(batch)s.jl", {"elsewhere": ["s1"]}, "", False),
        ("s3://bucket/%(batch)s.jl", {"elsewhere": ["s1"]}, "", False),
        ("stdout:%(batch)s", {"elsewhere": ["s1"]}, "", False),
    ],
)
def test_feeds_that_would_land_in_several_places(url: str, there: dict[str, Any], told: str, wrong: bool) -> None:
    _, _, first, *rest = said({"DISTRIBUTED_TARGET_FEED_URL": url}, go=ItemsGo.FEEDS, **there)
    assert first.words.startswith("each job writes its own to ")
    assert [(told in line.words, line.warning, line.wrong) for line in rest] == ([(True, wrong, wrong)] if told else [])


def test_that_no_feed_is_set_is_a_warning() -> None:
    *_, line = said()
    assert line.warning
    assert "come home to spool/ and are written nowhere else; scrapy batches export" in line.words


class Writes:
    """A pipeline that seems to be for all items."""

    def open_spider(self, spider: Any) -> None:
        with open("items.jl", "w"):
            """It is made anew."""


def test_a_pipeline_that_should_see_all_items_is_a_warning() -> None:
    *_, plain, warning = said(FILE, {"ITEM_PIPELINES": {f"{__name__}.Writes": 300}})
    assert (plain.words, plain.warning) == ("each worker has its own of Writes", False)
    assert warning.warning
    assert warning.words.startswith(f"{__name__}.Writes writes a file")


def test_it_is_one_block(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    command = CommandLine(args={"kind": "tea"}, stay=("FEEDS",), secrets=("-a token",))
    tell(said(FILE, {"IMAGES_STORE": "/images"}, command=command))
    assert [(record.levelname, record.getMessage().partition(": ")[0]) for record in caplog.records] == [
        ("INFO", "Requests to a site"), ("INFO", "Fleet"), ("INFO", "Command line"), ("WARNING", "Command line"),
        ("INFO", "Items"), ("INFO", "IMAGES_STORE"),
    ]  # fmt: skip
    _, fleet, travels, secret, *_ = caplog.messages
    assert fleet == (
        "Fleet: it crawls what matches DISTRIBUTED_TARGET_RULE = [1]; all else, start requests too, is crawled here,"
        " and so is what can't travel"
    )
    assert travels == "Command line: for each job: -a kind; for this crawl alone: -s FEEDS"
    assert secret.startswith("Command line: -a token: not sent to the nodes")


def test_limits_that_can_not_count_what_jobs_do_are_warned_of() -> None:
    assert not [line for line in said() if line.subject.startswith("CLOSESPIDER")]
    (line,) = [line for line in said({"CLOSESPIDER_TIMEOUT_NO_ITEM": 30}) if line.subject.startswith("CLOSESPIDER")]
    assert line.warning
    assert str(line).startswith("CLOSESPIDER_TIMEOUT_NO_ITEM: it may close the crawl too early")

"""What every job of a run gets besides its batch."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import pytest
from scrapy.settings import Settings

from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import ItemsGo
from scrapy_distributed.dispatch.job_template import job_template
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fast import preset as fast
from scrapy_distributed.ledger.states import Attempt, AttemptState
from scrapy_distributed.wire.job_template import JobTemplate, with_token
from scrapy_distributed.wire.payload import MAX_ARGUMENT_BYTES

ADDONS = '{"scrapy_distributed.Addon": 500, "shop.addons.Own": 7}'
FAST_ADDONS = f'{ADDONS[:-1]}, "{fast.ADDON}": {fast.LAST}}}'


KIND = "scrapy_distributed.wire.job_template.JobTemplate"


def template(
    rules: tuple[int, ...] = (), *, items_go: ItemsGo = ItemsGo.FEEDS, command: CommandLine | None = None,
    **settings: Any,
) -> JobTemplate:  # fmt: skip
    given = {f"DISTRIBUTED_{name.upper()}": value for name, value in settings.items()}
    config = Config.from_settings(Settings(given))
    settings_of_crawl = Settings({"ADDONS": {"shop.addons.Own": 7}})
    return job_template(
        config, spider="s", command=command or CommandLine(), settings=settings_of_crawl, project="p", rules=rules,
        version="r1", items_go=items_go,
    )  # fmt: skip


def test_limits_of_the_crawl_are_the_fleets() -> None:
    given = {
        "CLOSESPIDER_ITEMCOUNT": "5", "CLOSESPIDER_ERRORCOUNT": 7, "CLOSESPIDER_PAGECOUNT": 100,
        "CLOSESPIDER_TIMEOUT": 3600.0,
    }  # fmt: skip
    made = job_template(
        Config.from_settings(Settings({"DISTRIBUTED_WORKER_SETTINGS": {"CLOSESPIDER_TIMEOUT": 60}})), spider="s",
        command=CommandLine(), settings=Settings(given), project="p", rules=(), version="", items_go=ItemsGo.HOME,
    )  # fmt: skip
    found = {name: value for name, value in made.settings.items() if name.startswith("CLOSESPIDER_")}
    assert found == {
        "CLOSESPIDER_ITEMCOUNT": "5", "CLOSESPIDER_ERRORCOUNT": "7", "CLOSESPIDER_PAGECOUNT": "0",
        "CLOSESPIDER_TIMEOUT": "60",
    }  # fmt: skip
    assert not [name for name in template().settings if name.startswith("CLOSESPIDER_")]


def test_a_template_that_can_not_travel_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 131071"):
        JobTemplate(project="p", spider="s", version="", settings={"KEY": "x" * MAX_ARGUMENT_BYTES}, args={})
    with pytest.raises(ConfigError, match="at most 131071"):
        template(worker_settings={"KEY": "x" * MAX_ARGUMENT_BYTES})


@pytest.mark.parametrize(
    ("project", "spider", "words"),
    [
        ("p", "shop.com/eu", "spider 'shop.com/eu': found what is a path"), ("p", "..", "spider '..': found what is"),
        ("p", ".", "is a path"), ("p", "a/../b", "is a path"), ("p", "", "is a path"),
        ("p", "a\0b", "a NUL or a line end"),
        ("p", "a\nb", "a NUL or a line end"), ("p", "a\u2028", "a line end"), ("p", "-x", "begins with a -"),
        ("p", "a.receipts", "ends with .receipts"), ("p", "a" * 247, "has 247 bytes, at most 246"),
        ("p", "\u00fc" * 124, "has 248 bytes"), ("p", "\ud800", "can't be encoded"),
        ("a/b", "s", "project 'a/b': found"),
        ("..", "s", "project '..'"), ("p" * 245, "s", "has 245 bytes, at most 244"), ("a\0", "s", "a NUL"),
    ],
)  # fmt: skip
def test_names_that_scrapyd_can_not_run_are_refused(project: str, spider: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        JobTemplate(project=project, spider=spider, version="", settings={}, args={})
    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "name", ["shop.com", "\u00fc" * 122, "a" * 244, ".a", "...", "a b", "a\\b", "a:b", "a%2fb", "a=b"]
)
def test_other_names_are_not_refused(name: str) -> None:
    assert JobTemplate(project=name, spider=name, version="", settings={}, args={}).spider == name


def test_jobs_never_share_a_folder_of_the_project() -> None:
    assert template(worker_settings={"JOBDIR": ""}).settings["JOBDIR"] == ""
    for folder in ("jobs", Path("jobs"), None):
        with pytest.raises(ConfigError, match="DISTRIBUTED_WORKER_SETTINGS: has JOBDIR, and the jobs of a node"):
            template(worker_settings={"JOBDIR": str(folder) if folder else folder})


def test_the_batch_is_the_coordinators_own() -> None:
    with pytest.raises(ConfigError, match="has DISTRIBUTED_START_URL, which is the batch's own"):
        template(worker_settings={"DISTRIBUTED_START_URL": "[]"})


class Level(str, enum.Enum):
    INFO = "INFO"


def test_a_member_of_an_enum_travels_as_its_text() -> None:
    sent = template(worker_settings={"LOG_LEVEL": Level.INFO}).settings["LOG_LEVEL"]
    assert (sent, f"{sent}") == ("INFO", "INFO")  # formatted, a member shows its name


def test_the_label_of_an_attempt_travels_as_argument() -> None:
    job = JobTemplate(project="p", spider="s", version="", settings={"A": "1"}, args={"site": "x"})
    attempt = Attempt(run="r", batch=12, number=2, token="ab", node="n", state=AttemptState.BOUND, positions=1)
    assert job.args_of(attempt.label) == {"site": "x", "batch": "12.2"}
    assert job.settings_of("[]", "ab") == {"A": "1", "DISTRIBUTED_START_URL": "[]"}
    assert job.settings == {"A": "1"}


def test_without_more_a_job_gets_what_it_does_with_targets_alone() -> None:
    job = template()
    assert (job.project, job.spider, job.version, job.args) == ("p", "s", "r1", {})
    assert job.settings == {
        "DISTRIBUTED_WORKER_TARGETS": "report", "DISTRIBUTED_FAILED_FOLLOW_UPS": "count",
        "ADDONS": FAST_ADDONS, "ASYNCIO_EVENT_LOOP": fast.EVENT_LOOP,
        "JOBDIR": "",
    }  # fmt: skip


def test_the_targets_the_feed_and_the_users_settings_travel() -> None:
    job = template(
        rules=(1, 3), target_callbacks=["parse_a", "parse_b"], target_feed_url="ftp://h/%(batch)s.jl",
        worker_settings={"CONCURRENT_REQUESTS": 4, "DISTRIBUTED_WORKER_TARGETS": "whatever"}, worker_targets="follow",
        fast_workers=False, failed_follow_ups="fail",
    )  # fmt: skip
    assert job.settings == {
        "CONCURRENT_REQUESTS": "4", "DISTRIBUTED_TARGET_RULE": "1,3", "DISTRIBUTED_TARGET_CALLBACKS": "parse_a,parse_b",
        "FEED_URI": "ftp://h/%(batch)s.jl", "FEEDS": "{}", "DISTRIBUTED_WORKER_TARGETS": "follow",
        "DISTRIBUTED_FAILED_FOLLOW_UPS": "fail", "ADDONS": ADDONS, "JOBDIR": "",
    }  # fmt: skip


def test_no_two_jobs_write_a_feed_of_the_same_name() -> None:
    assert template(target_feed_url="ftp://h/%(batch)s.jl").settings_of("[]", "ab") | {"ADDONS": ""} == {
        **template(target_feed_url="ftp://h/%(batch)s-ab.jl").settings_of("[]", ""), "ADDONS": "",
        "FEED_URI": "ftp://h/%(batch)s-ab.jl",
    }  # fmt: skip
    feeds = template(target_feeds={"a/%(batch)s.jl": {"fields": ["%(batch)s"]}, "%(batch)s/%(_job)s.csv": {}})
    assert json.loads(feeds.settings_of("[]", "ab")["FEEDS"]) == {
        "a/%(batch)s-ab.jl": {"format": "jl", "fields": ["%(batch)s"]},
        "%(batch)s/%(_job)s.csv": {"format": "csv"},
    }


def test_feeds_travel_in_place_of_those_of_the_project() -> None:
    feeds = {"ftp://h/%(batch)s.jl": {"fields": ["a"]}, "ftp://h/%(batch)s.csv": {"item_filter": JobTemplate}}
    job = template(target_feeds=feeds, worker_settings={"FEED_URI": "x", "FEEDS": "{}"})
    assert job.settings["FEED_URI"] == ""
    assert json.loads(job.settings["FEEDS"]) == {
        "ftp://h/%(batch)s.jl": {"format": "jl", "fields": ["a"]},
        "ftp://h/%(batch)s.csv": {
            "format": "csv",
            "item_filter": KIND,
        },
    }


@pytest.mark.parametrize(("items_go", "told"), [(ItemsGo.HOME, "home"), (ItemsGo.NOWHERE, "none")])
def test_where_items_come_home_or_go_nowhere_a_job_writes_no_feed_of_the_projects(items_go: ItemsGo, told: str) -> None:
    job = template(items_go=items_go, worker_settings={"FEED_URI": "x.jl", "FEEDS": '{"y.jl": {}}'})
    settings = job.settings_of("[]", "ab")
    assert (settings["DISTRIBUTED_ITEMS"], settings["FEEDS"], settings["FEED_URI"]) == (told, "{}", "")
    assert "DISTRIBUTED_ITEMS" not in template(target_feed_url="ftp://h/%(batch)s.jl").settings


def test_a_job_is_told_what_it_is_to_remove_where_items_come_home_alone() -> None:
    home = template(items_go=ItemsGo.HOME)
    told = home.with_done(["r-1-1-ab", "r-2-1-cd"])
    assert told.settings == home.settings | {"DISTRIBUTED_DONE_JOBS": "r-1-1-ab,r-2-1-cd"}
    assert "DISTRIBUTED_DONE_JOBS" not in home.settings
    assert home.with_done([]) == home
    for items_go in (ItemsGo.NOWHERE, ItemsGo.FEEDS):
        assert template(items_go=items_go).with_done(["r-1-1-ab"]) == template(items_go=items_go)


def test_where_nobody_waits_for_receipts_workers_follow_what_they_find() -> None:
    assert template(wait=False).settings["DISTRIBUTED_WORKER_TARGETS"] == "follow"
    assert template(wait=True).settings["DISTRIBUTED_WORKER_TARGETS"] == "report"


def test_the_command_line_travels_and_wins_over_the_preset_and_the_settings_for_workers() -> None:
    settings = {"ASYNCIO_EVENT_LOOP": "a.Loop", "DOWNLOAD_DELAY": "2", "ADDONS": "{}"}
    command = CommandLine(args={"category": "tea"}, settings=settings)
    of_workers = {"DOWNLOAD_DELAY": 1, "ASYNCIO_EVENT_LOOP": "b.Loop", "ADDONS": {"another.Addon": 1}, "A": "1"}
    job = template(command=command, worker_settings=of_workers)
    assert job.args == {"category": "tea"}
    assert {name: job.settings[name] for name in of_workers} == {
        "ASYNCIO_EVENT_LOOP": "a.Loop", "DOWNLOAD_DELAY": "2", "ADDONS": FAST_ADDONS, "A": "1"
    }  # fmt: skip


def test_the_command_line_does_not_win_over_what_is_the_jobs_own() -> None:
    own = {"JOBDIR": "x", "FEEDS": "x", "FEED_URI": "x", "ITEM_PIPELINES": "x"}
    command = CommandLine(settings=own)
    job = template(command=command, items_go=ItemsGo.HOME)
    assert {name: job.settings[name] for name in own} == {
        "JOBDIR": "", "FEEDS": "{}", "FEED_URI": "", "ITEM_PIPELINES": "x"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["FEEDS", "FEED_URI"])
def test_a_feed_of_a_job_on_the_command_line_is_refused(name: str) -> None:
    """The nodes do not have it, and would write nothing."""
    command = CommandLine(stay=(name,))
    with pytest.raises(
        ConfigError, match=r"found one of the command with %\(batch\)s .* expected DISTRIBUTED_TARGET_F"
    ):
        template(command=command)
    template(command=command, items_go=ItemsGo.HOME)
    template(command=command, target_feed_url="file:///%(batch)s.jl")


@pytest.mark.parametrize("name", ["name", "project", "self", "a=b"])
def test_an_argument_whose_name_scrapyd_can_not_take_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"spider argument '{name}'"):
        template(command=CommandLine(args={name: "x"}))


def test_a_command_line_that_leaves_no_room_for_a_batch_is_refused_with_its_size() -> None:
    args = {f"a{number}": "x" * 100_000 for number in range(9)}
    with pytest.raises(ConfigError, match=r"its batch among them: 103\d{4} bytes, at most 1000000 can travel: shorten"):
        template(command=CommandLine(args=args))
    del args["a0"]
    assert template(command=CommandLine(args=args)).args == args


@pytest.mark.parametrize(
    ("feed", "named"),
    [
        ("ftp://u@h/%(batch)s_%(name)s_%(time)s.jl", "ftp://u@h/%(batch)s-ab_%(name)s_%(time)s.jl"),
        ("%(batch)s/%(batch)s.jl", "%(batch)s-ab/%(batch)s-ab.jl"),
        ("100%%(batch)s/%(batch)s.jl", "100%%(batch)s/%(batch)s-ab.jl"),
        ("%%%(batch)s.jl", "%%%(batch)s-ab.jl"),
        ("%(batch)s-%(_job)s.jl", "%(batch)s-%(_job)s.jl"),  # it is unlike all others already
        ("%(batch)s-%%(_job)s.jl", "%(batch)s-ab-%%(_job)s.jl"),
        ("items.jl", "items.jl"),
    ],
)
def test_a_feed_has_the_token_of_its_attempt_in_its_name(feed: str, named: str) -> None:
    assert with_token(feed, "ab") == named

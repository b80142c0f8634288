"""Where the items of a run go, by the settings of its coordinator; what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scrapy.settings import Settings

from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import ItemsGo, pipelines_of_workers, where_items_go
from scrapy_distributed.errors import ConfigError


class Own:
    """A pipeline of a project."""


class Other:
    """Another one."""


OWN = f"{__name__}.Own"
BATCH = "ftp://u:secret@h/%(batch)s.jl"
OURS: dict[str, Any] = {"DISTRIBUTED_TARGET_FEED_URL": BATCH}
OURS_TOO: dict[str, Any] = {"DISTRIBUTED_TARGET_FEEDS": {BATCH: {"format": "jl"}}}
THEIRS: dict[str, Any] = {"FEEDS": {BATCH: {"format": "jl"}}}
FILE: dict[str, Any] = {"FEEDS": {Path("/out.jl"): {"format": "jl"}}}
PIPELINES: dict[str, Any] = {"ITEM_PIPELINES": {OWN: 300}}
HOME, NONE = {"DISTRIBUTED_ITEMS": "home"}, {"DISTRIBUTED_ITEMS": "none"}
AT_HOME: dict[str, Any] = {**PIPELINES, "DISTRIBUTED_PIPELINES_AT_HOME": [OWN]}
NO_WAIT: dict[str, Any] = {"DISTRIBUTED_WAIT": False}
STREAM: dict[str, Any] = {"DISTRIBUTED_RESULTS": "redis"}


def of(*given: dict[str, Any]) -> tuple[Config, Settings]:
    settings = Settings({name: value for some in given for name, value in some.items()})
    return Config.from_settings(settings), settings


@pytest.mark.parametrize(
    ("given", "go"),
    [
        ([], ItemsGo.HOME),
        ([FILE], ItemsGo.HOME),
        ([FILE, PIPELINES], ItemsGo.HOME),
        ([{"FEED_URI": "out.jl"}, PIPELINES], ItemsGo.HOME),
        ([{"FEEDS": {"%(time)s.jl": {}, "%%(_job)s.jl": {}}}], ItemsGo.HOME),
        ([PIPELINES], ItemsGo.NOWHERE),
        ([{"ITEM_PIPELINES": {OWN: None}}], ItemsGo.HOME),
        ([{"ITEM_PIPELINES_BASE": {OWN: 1}}], ItemsGo.NOWHERE),
        ([PIPELINES, HOME], ItemsGo.HOME),
        ([AT_HOME], ItemsGo.HOME),
        ([NONE], ItemsGo.NOWHERE),
        ([NONE, FILE], ItemsGo.NOWHERE),
        ([NONE, OURS], ItemsGo.NOWHERE),
        ([OURS], ItemsGo.FEEDS),
        ([OURS_TOO], ItemsGo.FEEDS),
        ([OURS, FILE], ItemsGo.FEEDS),
        ([THEIRS], ItemsGo.FEEDS),
        ([{"FEED_URI": "%(_job)s.jl"}], ItemsGo.FEEDS),
        ([THEIRS, NO_WAIT], ItemsGo.FEEDS),
        ([OURS, NO_WAIT], ItemsGo.FEEDS),
        ([NO_WAIT], ItemsGo.NOWHERE),
        ([NO_WAIT, PIPELINES], ItemsGo.NOWHERE),
        ([NO_WAIT, NONE, FILE], ItemsGo.NOWHERE),
    ],
)
def test_where_they_go(given: list[dict[str, Any]], go: ItemsGo) -> None:
    assert where_items_go(*of(*given)) is go


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([HOME, OURS], r'^DISTRIBUTED_ITEMS: found "home", and feeds for the workers as well \('),
        ([HOME, OURS_TOO], "^DISTRIBUTED_ITEMS"),
        ([HOME, THEIRS], "^DISTRIBUTED_ITEMS"),
        ([AT_HOME, NONE], "^DISTRIBUTED_PIPELINES_AT_HOME: found pipelines, and items that do not come home"),
        ([AT_HOME, OURS], "^DISTRIBUTED_PIPELINES_AT_HOME"),
        ([AT_HOME, THEIRS], "^DISTRIBUTED_PIPELINES_AT_HOME"),
        ([AT_HOME, NO_WAIT], "^DISTRIBUTED_PIPELINES_AT_HOME"),
        (
            [{"FEEDS": {BATCH: {}, "all.csv": {}}}],
            r"^FEEDS: found .*, of which each job writes its own, and 'all.csv', which all jobs would write over",
        ),
        ([{"FEED_URI": "all.csv"}, THEIRS], "^FEEDS: found .*'all.csv', which all jobs"),
        ([NO_WAIT, FILE], "^DISTRIBUTED_WAIT: found False, so nobody is there when items come home"),
        ([NO_WAIT, HOME], "^DISTRIBUTED_WAIT"),
    ],
)
def test_what_would_be_lost_or_written_over_is_refused(given: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        where_items_go(*of(*given))
    assert "secret" not in str(caught.value)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("given", [[], [PIPELINES]])
def test_results_in_redis_go_into_a_stream(given: list[dict[str, Any]]) -> None:
    assert where_items_go(*of(STREAM, *given), shared=True) is ItemsGo.STREAM


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([FILE], r"^DISTRIBUTED_RESULTS: found .redis., and a feed as well \('/out.jl'\)"),
        ([{"FEED_URI": "out.jl"}], r"^DISTRIBUTED_RESULTS: found .redis., and a feed as well \('out.jl'\)"),
        ([OURS], r"^DISTRIBUTED_RESULTS: found .redis., and a feed as well \('ftp://u@h/"),
        ([THEIRS], r'^DISTRIBUTED_RESULTS: found "redis", and a feed as well'),
        ([HOME], '^DISTRIBUTED_RESULTS: found "redis", and DISTRIBUTED_ITEMS = "home"'),
        ([NONE], '^DISTRIBUTED_RESULTS: found "redis", and DISTRIBUTED_ITEMS = "none"'),
        ([AT_HOME], '^DISTRIBUTED_RESULTS: found "redis", and DISTRIBUTED_PIPELINES_AT_HOME'),
    ],
)
def test_a_stream_and_another_place_for_items_are_refused(given: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        where_items_go(*of(STREAM, *given), shared=True)
    assert "secret" not in str(caught.value)
    assert "expected" in str(caught.value)


def test_results_in_redis_are_for_workers_that_join() -> None:
    with pytest.raises(ConfigError, match=r'^DISTRIBUTED_RESULTS: found "redis", and nodes that are sent'):
        where_items_go(*of(STREAM))


def test_workers_have_the_pipelines_that_do_not_run_at_home() -> None:
    other = f"{__name__}.Other"
    config, settings = of({"ITEM_PIPELINES": {Own: 300, other: 400}, "DISTRIBUTED_PIPELINES_AT_HOME": [OWN]})
    assert pipelines_of_workers(config, settings) == {other: 400}


@pytest.mark.parametrize("pipelines", [{}, {f"{__name__}.Other": 300}, {OWN: None}])
def test_a_pipeline_that_is_none_can_not_run_at_home(pipelines: dict[str, Any]) -> None:
    config, settings = of({"ITEM_PIPELINES": pipelines, "DISTRIBUTED_PIPELINES_AT_HOME": [OWN]})
    with pytest.raises(ConfigError, match=rf"^DISTRIBUTED_PIPELINES_AT_HOME: found {OWN}, expected names"):
        pipelines_of_workers(config, settings)

"""What is said before the first batch."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from scrapy.settings import Settings

from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import ItemsGo
from scrapy_distributed.config.told import tell_where_items_go


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


@pytest.mark.parametrize(
    ("go", "given", "told"),
    [
        (ItemsGo.FEEDS, [OURS, FILE], ["Items: each job writes its own to 'ftp://u@h/%(batch)s.jl'"]),
        (ItemsGo.FEEDS, [{"FEED_URI": "%(batch)s.jl"}], ["Items: each job writes its own to '%(batch)s.jl'"]),
        (
            ItemsGo.NOWHERE,
            [],
            [
                "Items: they go through the pipelines of the workers, and into no feed;"
                ' DISTRIBUTED_ITEMS = "home" or -O FILE brings them home'
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
            [{"FEED_URI": "%(batch)s.jl", "FILES_STORE": "/files"}],
            [
                "Items: each job writes its own to '%(batch)s.jl'",
                "FILES_STORE: each worker has its own, '/files' as it is on its node",
            ],
        ),
    ],
)
def test_it_is_said_before_the_first_batch(
    caplog: pytest.LogCaptureFixture, go: ItemsGo, given: list[dict[str, Any]], told: list[str]
) -> None:
    caplog.set_level(logging.INFO)
    tell_where_items_go(go, *of(*given), "spool/")
    assert caplog.messages == told


def test_that_no_feed_is_set_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    tell_where_items_go(ItemsGo.HOME, *of(), "spool/")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "come home to spool/ and are written nowhere else; scrapy batches export" in record.getMessage()

"""Which versions ``scrapy fleet prune`` lets stay."""

from __future__ import annotations

import pytest
from scrapy.settings import Settings

from scrapy_distributed.commands.versions import prune_versions, show_versions, versions_to_keep
from scrapy_distributed.errors import ConfigError

MANY = {"n0": ["1", "2", "9_0", "10_0", "11"], "n1": ["1", "2", "10_0"]}


@pytest.mark.parametrize(
    ("asked", "keep", "kept"),
    [
        ({""}, 1, {"11", "10_0"}),  # the newest on both is what a crawl uses
        ({""}, 3, {"11", "10_0", "9_0"}),
        ({"2", ""}, 1, {"11", "10_0", "2"}),  # a spider has its own
        ({"9.0", ""}, 1, {"11", "10_0", "9_0"}),  # which does not start just now, as a node lacks it
        ({""}, 100, {"1", "2", "9_0", "10_0", "11"}),
    ],
)
def test_the_newest_and_what_crawls_use(asked: set[str], keep: int, kept: set[str]) -> None:
    assert versions_to_keep(MANY, asked, "p", keep) == kept


@pytest.mark.parametrize("versions", [{"n0": ["1", "2"], "n1": ["3"]}, {"n0": ["1"], "n1": []}])
def test_where_no_crawl_could_use_any_nothing_is_deleted(versions: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError, match="expected one version on every node"):
        versions_to_keep(versions, {""}, "p", 1)


def test_workers_on_this_machine_have_no_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_versions([], "p", "") == prune_versions([], "p", Settings(), [], 1) == 0
    assert capsys.readouterr().out == "no versions: workers on this machine run the project as it lies here\n" * 2

"""The feeds that a run asks for, end to end: what travels, what comes home, and what nobody gets to see."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from crawling import Project, SiteChild
from scrapy.settings import Settings
from scrapyd_child import ScrapydChild

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.feeds.feeds import Feeds

SECRET = "s3cr3t-Pa55"


def test_two_feeds_of_the_same_items_are_merged_one_by_one(
    project: Project, small_site: SiteChild, tmp_path: Path
) -> None:
    items = tmp_path / "items"
    feeds: dict[str, dict[str, Any]] = {
        f"file://{items}/%(batch)s_%(name)s.csv": {"format": "csv", "fields": ["url", "price"]},
        f"file://{items}/%(batch)s_%(name)s.jl": {"item_classes": ["properties.items.PropertyItem"], "overwrite": True},
        f"file://{items}/none_%(batch)s.jl": {"item_classes": ["scrapy.Item"], "store_empty": False},
    }
    settings = {
        "DISTRIBUTED_TARGET_FEED_URL": "",
        "DISTRIBUTED_TARGET_FEEDS": json.dumps(feeds),
        "DISTRIBUTED_BATCH_SIZE": 20,
    }
    crawl = project.crawl("distr", folder=tmp_path, args={"site": small_site.url, "pages": 2}, settings=settings).wait()
    assert crawl.balance() == {"diverted": 60, "crawled": 60}
    warned = [line for line in crawl.log.splitlines() if " WARNING: " in line]
    assert len(warned) == 1
    assert "3 of 3 nodes: credentials: none needed" in warned[0]
    assert {re.sub(r"-\w+?_", "_", path.name) for path in items.iterdir()} == {
        f"{batch}_distr.{end}" for batch in "123" for end in ("csv", "jl")
    }

    def merge(pattern: str, output: str) -> tuple[int, str]:
        words = ["batches", "merge", str(items), "-O", str(tmp_path / output), "--ledger", str(crawl.ledger)]
        command = project.scrapy(*words, "--feeds", pattern, folder=tmp_path).wait()
        return command.process.returncode, command.log

    code, said = merge("*", "all")
    assert code == 1
    assert "too many feeds: batch 1: its job has 3 feeds, found file:///" in said
    assert not (tmp_path / "all").exists()
    truth = small_site.property_urls(range(60))
    assert merge("*.csv", "out.csv")[0] == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["url"] for row in rows) == truth
    assert list(rows[0]) == ["url", "price"]
    assert merge("*_distr.jl", "out.jl")[0] == 0
    assert sorted(json.loads(line)["url"] for line in (tmp_path / "out.jl").read_text().splitlines()) == truth
    assert merge("*/none_*", "none") == (0, f"0 items of 3 feeds in {tmp_path}/none, each start URL in one feed only\n")


def test_the_password_of_a_feed_is_in_nothing_that_a_run_leaves_but_scrapyds_own(
    project: Project, small_site: SiteChild, nodes: list[ScrapydChild], unused_port: int, tmp_path: Path
) -> None:
    """No server is there, so the reason why the feed can't be stored comes home as well."""
    settings = {
        "DISTRIBUTED_TARGET_FEED_URL": f"ftp://user-x:{SECRET}@127.0.0.1:{unused_port}/%(batch)s.jl",
        "DISTRIBUTED_FLEET_TIMEOUT": 1,
    }
    crawl = project.crawl("distr", folder=tmp_path, args={"site": small_site.url, "pages": 1}, settings=settings)
    crawl.wait(240)  # each job asks for the server for nine seconds
    shown = f"ftp://user-x@127.0.0.1:{unused_port}/"
    assert f"DISTRIBUTED_TARGET_FEED_URL: found a password in '{shown}%(batch)s.jl', and ps, Scrapyd's log" in crawl.log
    why = rf"FEED_URI/FEEDS: the feed in {shown[:-1]} can't be written here: ConnectionRefusedError: "
    assert re.search(f"rejected: its feed was not stored: scrapy_distributed.errors.ConfigError: {why}", crawl.log)
    shows = project.scrapy("batches", "show", "1", "--ledger", str(crawl.ledger), folder=tmp_path).wait()
    assert "its feed was not stored" in shows.log
    left = [path for node in nodes for path in (node.dir / "logs").rglob(f"{crawl.run()['name']}*")]
    assert {path.suffix for path in left} == {".log", ".json"}
    assert any(re.search(why, path.read_text()) for path in left)
    for path in [*left, *filter(Path.is_file, tmp_path.rglob("*"))]:
        assert SECRET.encode() not in path.read_bytes(), path
    assert any(SECRET in node.log_text() for node in nodes), "the warning and the README say that it does"


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        (
            {f"ftp://u:{SECRET}@h/%(batch)s.jl": {}},
            "DISTRIBUTED_TARGET_FEED_URL, DISTRIBUTED_TARGET_FEEDS: found both, expected one of them",
        ),
        (
            {f"ftp://u:{SECRET}@h/all.jl": {}},
            "DISTRIBUTED_TARGET_FEEDS: found a value, expected %(batch)s in each feed URL, else the workers overwrite"
            " each other's items; 'ftp://u@h/all.jl' has none",
        ),
        (
            {f"ftp://u:12/{SECRET}@h/%(batch)s.jl": {}},
            "DISTRIBUTED_TARGET_FEEDS: found a value, expected a feed URL whose password, if it has one, can be told",
        ),
    ],
)
def test_feeds_that_no_run_begins_with(project: Project, tmp_path: Path, feeds: dict[str, Any], words: str) -> None:
    crawl = project.crawl("distr", folder=tmp_path, settings={"DISTRIBUTED_TARGET_FEEDS": json.dumps(feeds)}).wait()
    assert f"The crawl does not start: {words}" in crawl.log
    assert SECRET not in crawl.log
    assert not crawl.ledger.exists()


@pytest.mark.parametrize("settings", [{"FEED_URI": Path("/items/a:b@c.jl")}, {"FEEDS": {Path("/a:b@c.jl"): {}}}, {}])
def test_a_path_has_no_password(settings: dict[str, Any]) -> None:
    crawler = cast("Any", SimpleNamespace(settings=Settings(settings), get_extension=lambda cls: None))
    feeds = Feeds(crawler)
    feeds.exporter = cast("Any", "one")
    feeds.check(crawler)


@pytest.mark.parametrize("name", ["FEEDS", "FEED_URI"])
def test_a_feed_of_the_project_whose_password_can_not_be_told_from_its_path_is_refused(name: str) -> None:
    """No coordinator has seen it: it is in the egg alone."""
    url = f"ftp://u:12/{SECRET}@h/%(batch)s.jl"
    settings = Settings({name: url if name == "FEED_URI" else {url: {"format": "jl"}}})
    crawler = cast("Any", SimpleNamespace(settings=settings, get_extension=lambda cls: None))
    with pytest.raises(ConfigError, match="FEED_URI/FEEDS: expected a feed URL whose password") as caught:
        Feeds(crawler).check(crawler)
    assert SECRET not in str(caught.value)

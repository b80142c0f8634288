"""Merging feeds: which files, what is missing, and what can't be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from merging import ITEMS, attempts, export, kinds
from scrapy.exporters import CsvItemExporter, JsonLinesItemExporter

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.ledger.records import AcceptedAttempt
from scrapy_distributed.results.merge import Merged, merge
from scrapy_distributed.wire.receipt import FeedFile

# Which files


def test_feeds_are_found_in_folders_below_and_by_quoted_names(tmp_path: Path, items: Path, output: Path) -> None:
    other = tmp_path / "other" / "below"
    other.mkdir(parents=True)
    export(items / "1 a.jl", JsonLinesItemExporter, ITEMS[:1])  # a file: URL is unquoted
    export(other / "2%20b.jl", JsonLinesItemExporter, ITEMS[1:2])  # an FTP path is not
    export(other / "3?x#y.jl", JsonLinesItemExporter, ITEMS[2:3])  # a path is no URL
    feeds = attempts(("file:///x/1%20a.jl", 1), ("ftp://h/2%20b.jl", 1), ("/x/3?x#y.jl", 1))
    assert merge(feeds, [items, tmp_path / "other"], output).faults == ()
    assert [json.loads(line) for line in output.read_text().splitlines()] == ITEMS[:3]


def test_a_folder_that_is_given_twice_is_one(items: Path, output: Path) -> None:
    (items / "below").mkdir()
    export(items / "below" / "1.jl", JsonLinesItemExporter, ITEMS)
    (items.parent / "link").symlink_to(items)
    folders = [items, items / "below", items.parent / "link"]
    assert merge(attempts(("1.jl", 4)), folders, output).faults == ()


def test_a_name_that_is_found_twice(items: Path, output: Path) -> None:
    for folder in ("a", "b"):
        (items / folder).mkdir()
        export(items / folder / "1.jl", JsonLinesItemExporter, ITEMS)
    merged = merge(attempts(("ftp://h/1.jl", 4)), [items], output)
    assert kinds(merged) == ["found twice"]
    assert f"{items / 'a' / '1.jl'}" in merged.faults[0].message
    assert f"{items / 'b' / '1.jl'}" in merged.faults[0].message


def test_two_feeds_of_one_name_are_not_merged_twice(items: Path, output: Path) -> None:
    export(items / "x.jl", JsonLinesItemExporter, ITEMS)
    merged = merge(attempts(("file:///1/x.jl", 4), ("file:///2/x.jl", 4)), [items], output, partial=True)
    assert kinds(merged) == ["found twice"]
    assert "%(batch)s must be in the name" in merged.faults[0].message
    assert merged.items == 4


def test_no_url_leads_out_of_the_folders(tmp_path: Path, items: Path, output: Path) -> None:
    secret = tmp_path / "secret.jl"
    export(secret, JsonLinesItemExporter, ITEMS[:1])
    (items / "link.jl").symlink_to(secret)
    (items / "down").symlink_to(tmp_path)
    urls = [
        secret.as_uri(), str(secret), "../secret.jl", "file:///..%2Fsecret.jl", "..", ".", "", "file://", "/",
        "file:///items/", "link.jl", "http://[", "items", "a\0b", "stdout:", "down",
    ]  # fmt: skip
    merged = merge(attempts(*((url, 1) for url in urls)), [items], output)
    assert kinds(merged) == ["missing"] * len(urls)
    assert merged.items == 0


# What is missing


def test_missing_feeds_and_counts_that_differ_are_told_at_once(items: Path, output: Path) -> None:
    export(items / "1.jl", JsonLinesItemExporter, ITEMS[:3])
    output.write_text("as it was")
    feeds = attempts(("ftp://h/1.jl", 2), ("ftp://h/2.jl", 5))
    merged = merge(feeds, [items], output, unsettled="the run is not finished")
    assert kinds(merged) == ["unsettled", "missing", "count differs"]
    assert [fault.message for fault in merged.faults] == [
        "the run is not finished",
        "feed ftp://h/2.jl of batch 2: found no file 2.jl, expected 5 items",
        f"{items / '1.jl'}, feed ftp://h/1.jl of batch 1: found 3 items, its receipt says 2",
    ]
    assert (merged.written, output.read_text()) == (False, "as it was")
    merged = merge(feeds, [items], output, unsettled="the run is not finished", partial=True)
    assert (merged.written, merged.items, len(merged.faults)) == (True, 3, 3)
    assert output.read_bytes() == (items / "1.jl").read_bytes()


def test_a_fault_that_shows_late_leaves_the_file_as_it_was(items: Path, output: Path) -> None:
    export(items / "1.jl", JsonLinesItemExporter, ITEMS[:3])
    output.write_text("as it was")
    merged = merge(attempts(("1.jl", 4)), [items], output)
    assert (kinds(merged), merged.written, output.read_text()) == (["count differs"], False, "as it was")
    assert {path.name for path in output.parent.iterdir()} == {"items", "out"}


def test_items_that_no_feed_has(items: Path, output: Path) -> None:
    merged = merge([AcceptedAttempt(batch=7, number=2, items=5, feeds=())], [items], output)
    assert kinds(merged) == ["no feed"]
    assert merged.faults[0].message == "batch 7.2: its job scraped 5 items, found no feed of it"


def test_each_item_in_two_feeds(items: Path, output: Path) -> None:
    export(items / "1.jl", JsonLinesItemExporter, ITEMS)
    export(items / "1.csv", CsvItemExporter, ITEMS)
    both = [AcceptedAttempt(batch=1, number=1, items=4, feeds=(FeedFile("1.jl", 4, 0), FeedFile("1.csv", 4, 1)))]
    merged = merge(both, [items], output)
    assert kinds(merged) == ["too many feeds"]
    assert merged.faults[0].message == (
        "batch 1: its job has 2 feeds, found 1.jl and 1.csv, expected one: choose it with --feeds PATTERN, and merge"
        " the others into files of their own"
    )
    assert merge(both, [items], output, pattern="*.csv").faults == ()
    assert output.read_bytes() == (items / "1.csv").read_bytes()
    assert "no feed of it that fits '*.xml'" in merge(both, [items], output, pattern="*.xml").faults[0].message


def test_two_feeds_of_the_same_half_of_the_items_are_not_the_whole(items: Path, output: Path) -> None:
    """Their counts add up to what the job has scraped, and yet some items are in both and some in none."""
    for name in ("a-1.jl", "b-1.jl"):
        export(items / name, JsonLinesItemExporter, ITEMS[:2])
    both = [AcceptedAttempt(batch=1, number=1, items=4, feeds=(FeedFile("a-1.jl", 2, 0), FeedFile("b-1.jl", 2, 1)))]
    assert kinds(merge(both, [items], output)) == ["too many feeds"]
    assert not output.exists()


def test_a_job_without_items_for_the_feed_that_is_chosen(items: Path, output: Path) -> None:
    """With ``store_empty`` off it has no file."""
    export(items / "1-a.jl", JsonLinesItemExporter, ITEMS[:3])
    export(items / "1-b.jl", JsonLinesItemExporter, ITEMS[3:])
    export(items / "2-a.jl", JsonLinesItemExporter, ITEMS)
    jobs = [
        AcceptedAttempt(batch=1, number=1, items=4, feeds=(FeedFile("1-a.jl", 3, 0), FeedFile("1-b.jl", 1, 1))),
        AcceptedAttempt(batch=2, number=1, items=4, feeds=(FeedFile("2-a.jl", 4, 0), FeedFile("2-b.jl", 0, 1))),
    ]
    assert merge(jobs, [items], output, pattern="*-b.jl") == Merged(items=1, feeds=2, written=True, faults=())
    assert merge(jobs, [items], output, pattern="*-a.jl") == Merged(items=7, feeds=2, written=True, faults=())


def test_a_feed_with_more_items_than_its_job_has_scraped(items: Path, output: Path) -> None:
    export(items / "1.jl", JsonLinesItemExporter, ITEMS)
    merged = merge([AcceptedAttempt(batch=1, number=1, items=3, feeds=(FeedFile("1.jl", 4),))], [items], output)
    assert [fault.message for fault in merged.faults] == ["batch 1: its job scraped 3 items, found 4 in its feed"]


def test_the_parts_of_a_feed(items: Path, output: Path) -> None:
    """``FEED_EXPORT_BATCH_ITEM_COUNT``"""
    export(items / "1-1.jl", JsonLinesItemExporter, ITEMS[:2])
    export(items / "1-2.jl", JsonLinesItemExporter, ITEMS[2:])
    parts = [AcceptedAttempt(batch=1, number=1, items=4, feeds=(FeedFile("1-1.jl", 2), FeedFile("1-2.jl", 2)))]
    assert merge(parts, [items], output) == Merged(items=4, feeds=2, written=True, faults=())


# What can't be used


def test_a_folder_that_is_not_there(items: Path, output: Path) -> None:
    with pytest.raises(ConfigError, match="gone: found no folder there"):
        merge([], [items, items / "gone"], output)


def test_a_file_that_can_not_be_written(items: Path) -> None:
    with pytest.raises(ConfigError, match="gone/out: can't be written: No such file"):
        merge([], [items], items / "gone" / "out")
    with pytest.raises(ConfigError, match="found something that is no file"):
        merge([], [items], items)


def test_a_feed_is_not_written_over(items: Path) -> None:
    export(items / "1.jl", JsonLinesItemExporter, ITEMS)
    before = (items / "1.jl").read_bytes()
    (items.parent / "link").symlink_to(items / "1.jl")
    for place in (items / "1.jl", items.parent / "link"):
        with pytest.raises(ConfigError, match="this is one of the feeds"):
            merge(attempts(("1.jl", 4)), [items], place)
    assert (items / "1.jl").read_bytes() == before

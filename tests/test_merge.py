"""Merging feeds: every item of the feeds that count once, in order, or a fault that says what is wrong."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from scrapy.exporters import BaseItemExporter, CsvItemExporter, JsonItemExporter, JsonLinesItemExporter

from scrapy_distributed import merge as module
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.ledger_reader import AcceptedAttempt
from scrapy_distributed.merge import Merged, merge
from scrapy_distributed.receipt import FeedFile


@pytest.fixture
def items(tmp_path: Path) -> Path:
    folder = tmp_path / "items"
    folder.mkdir()
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def attempts(*feeds: tuple[str, int]) -> list[AcceptedAttempt]:
    """One attempt for each of *feeds*, as URL and items."""
    return [
        AcceptedAttempt(batch=number, number=1, items=count, feeds=(FeedFile(url, count),))
        for number, (url, count) in enumerate(feeds, 1)
    ]


def kinds(merged: Merged) -> list[str]:
    return [fault.kind.value for fault in merged.faults]


def export(path: Path, exporter: type[BaseItemExporter], items: Sequence[dict[str, object]]) -> None:
    """A feed as Scrapy writes it."""
    with path.open("wb") as file:
        writer = exporter(file, indent=0, encoding="utf-8")  # type: ignore[call-arg]
        writer.start_exporting()
        for item in items:
            writer.export_item(item)
        writer.finish_exporting()


ITEMS = [{"url": f"http://a/{number}", "text": 'a "quoted"\nline, and ü'} for number in range(4)]


# The formats


def test_json_lines_in_the_order_of_the_attempts(items: Path, output: Path) -> None:
    export(items / "2.jl", JsonLinesItemExporter, ITEMS[:1])
    export(items / "10.jl", JsonLinesItemExporter, ITEMS[1:3])
    (items / "11.jl").write_bytes(json.dumps(ITEMS[3]).encode())  # its last line has no end
    export(items / "12.jl", JsonLinesItemExporter, [])
    (items / "2.2.jl").write_text('{"url": "of an attempt that does not count"}\n')
    feeds = attempts(("ftp://u@h/2.jl", 1), ("s3://b/10.jl", 2), ("file:///far/11.jl", 1), ("x/12.jl", 0), ("13.jl", 0))
    merged = merge(feeds, [items], output)
    assert merged == Merged(items=4, feeds=5, written=True, faults=())
    assert [json.loads(line) for line in output.read_text().splitlines()] == ITEMS
    assert output.read_bytes().endswith(b"}\n")
    assert [path.name for path in output.parent.iterdir() if path.is_file()] == ["out"]


def test_csv_with_one_header_and_newlines_in_quotes(items: Path, output: Path) -> None:
    export(items / "1.csv", CsvItemExporter, ITEMS[:2])
    export(items / "2.csv", CsvItemExporter, [])
    export(items / "3.csv", CsvItemExporter, ITEMS[2:])
    whole = items.parent / "whole.csv"
    export(whole, CsvItemExporter, ITEMS)
    merged = merge(attempts(("1.csv", 2), ("2.csv", 0), ("3.csv", 2)), [items], output)
    assert (merged.items, merged.faults) == (4, ())
    assert output.read_bytes() == whole.read_bytes()


def test_csv_of_a_spreadsheet(items: Path, output: Path) -> None:
    for name in "12":
        (items / name).write_bytes(b'\xef\xbb\xbfa;b\n"x, y";"1\n2"\n3;4')  # its own delimiter, no end of the last line
    merged = merge(attempts(("1", 2), ("2", 2)), [items], output)
    assert merged.faults == ()
    assert output.read_bytes() == b'\xef\xbb\xbfa;b\r\n"x, y";"1\n2"\n3;4\r\n"x, y";"1\n2"\n3;4\r\n'


def test_json_arrays(items: Path, output: Path) -> None:
    export(items / "1.json", JsonItemExporter, ITEMS[:3])
    export(items / "2.json", JsonItemExporter, [])
    export(items / "3.json", JsonItemExporter, ITEMS[3:])
    merged = merge(attempts(("1.json", 3), ("2.json", 0), ("3.json", 1)), [items], output)
    assert (merged.items, merged.faults) == (4, ())
    assert json.loads(output.read_bytes()) == ITEMS


def test_arrays_without_items_are_an_array(items: Path, output: Path) -> None:
    export(items / "1.json", JsonItemExporter, [])
    assert merge(attempts(("1.json", 0)), [items], output).written
    assert json.loads(output.read_text()) == []


def test_nothing_at_all_is_an_empty_file(items: Path, output: Path) -> None:
    assert merge([], [items], output) == Merged(items=0, feeds=0, written=True, faults=())
    assert output.read_bytes() == b""


@pytest.mark.parametrize("exporter", [JsonLinesItemExporter, CsvItemExporter, JsonItemExporter])
def test_gzip(items: Path, output: Path, exporter: type[BaseItemExporter]) -> None:
    plain = items / "plain"
    export(plain, exporter, ITEMS)
    (items / "1.jl").write_bytes(gzip.compress(plain.read_bytes()))
    assert merge(attempts(("1.jl", 4)), [items], output).faults == ()
    assert output.read_bytes().split() == plain.read_bytes().split()


def test_the_content_decides_and_not_the_name(items: Path, output: Path) -> None:
    export(items / "1.csv", JsonLinesItemExporter, ITEMS)
    assert merge(attempts(("1.csv", 4)), [items], output).faults == ()
    assert output.read_bytes() == (items / "1.csv").read_bytes()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'<?xml version="1.0"?>\n<items></items>', "it is XML"),
        (b"\x80\x04\x95\x10", "it is pickle"),
        (b"\xfb\xda\x03url", "it is marshal"),
        (b"{'url': 'http://a'}\n", "something with braces that is no JSON"),
        (b"BZh91AY", "compressed by bzip2"),
        (b"\xfd7zXZ\x00", "compressed by xz"),
        (b"PAR1\x15", "it is Parquet"),
        ("url,text\n".encode("utf-16"), "it is no text, or of an encoding like UTF-16"),
        (b'{"url": "http://a"}\n{"url": "htt', "line 2 is no JSON object; is the feed cut off?"),
        (b'{"url": "http://a"}\n[1]\n', "line 2 is no JSON object"),
        (b'{"a": ' + b"[" * 100_000 + b"\n", "line 1 is no JSON object"),
        (b'[{"url": "http://a"},\n{"ur', "no JSON array to its end"),
        (b'[{"a": 1}][{"a": 2}]', "no JSON array to its end"),
        (b'a,b\r\n1,"2\r\n', "a quote is not closed at its end"),
        (b"a,b\r\n1,2\r\n3", "its last record has too few columns"),
        (gzip.compress(b'{"url": "http://a"}\n' * 10_000, mtime=0)[:-20], "can't be read"),
        (b"\x1f\x8bno gzip", "can't be read"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else "",
)
def test_what_is_damaged_or_of_another_format(items: Path, output: Path, content: bytes, found: str) -> None:
    (items / "1").write_bytes(content)
    merged = merge(attempts(("1", 1)), [items], output)
    assert kinds(merged) == ["unreadable"]
    assert found in merged.faults[0].message
    assert str(items / "1") in merged.faults[0].message
    assert not merged.written
    assert not output.exists()


def test_feeds_of_two_formats(items: Path, output: Path) -> None:
    export(items / "1", JsonLinesItemExporter, ITEMS)
    export(items / "2", CsvItemExporter, ITEMS)
    merged = merge(attempts(("1", 4), ("2", 4)), [items], output)
    assert kinds(merged) == ["unreadable"]
    assert "it is CSV, the feeds before it are JSON lines" in merged.faults[0].message


def test_csv_feeds_with_other_columns(items: Path, output: Path) -> None:
    export(items / "1", CsvItemExporter, ITEMS)
    export(items / "2", CsvItemExporter, [{"text": "", "url": ""}])
    merged = merge(attempts(("1", 4), ("2", 1)), [items], output, partial=True)
    assert kinds(merged) == ["unreadable"]
    assert (
        "found the columns 'text,url', in the feeds before it 'url,text'; set FEED_EXPORT" in merged.faults[0].message
    )
    assert (merged.items, output.read_bytes()) == (4, (items / "1").read_bytes())


def test_a_quote_that_is_never_closed_does_not_take_all_memory(
    items: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ITEM_BYTES", 1000)
    (items / "1").write_bytes(b'a,b\r\n"1,2\r\n' + b"3,4\r\n" * 1000)
    assert "a record of more than 1,000 bytes" in merge(attempts(("1", 1)), [items], output).faults[0].message


@pytest.mark.parametrize("line", [b'{"url": "http://a/1", "text": "abc"}\n', b'http://a/1,"a\nc"\r\n'])
def test_memory_does_not_grow_with_the_feed(items: Path, output: Path, line: bytes) -> None:
    (items / "1").write_bytes((b"url,text\r\n" if line.startswith(b"h") else b"") + line * 50_000)
    tracemalloc.start()
    try:
        merged = merge(attempts(("1", 50_000)), [items], output)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert merged.faults == ()
    assert output.stat().st_size == (items / "1").stat().st_size
    assert peak < 500_000


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

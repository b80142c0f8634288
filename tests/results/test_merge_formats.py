"""The formats of feeds: each item once, byte by byte, or a fault in words; and no more memory for more items."""

from __future__ import annotations

import gzip
import json
import random
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import settings
from merging import ITEMS, attempts, export, kinds
from scrapy.exporters import BaseItemExporter, CsvItemExporter, JsonItemExporter, JsonLinesItemExporter

from scrapy_distributed.results.merge import Merged, merge

TEXT = b"abc" * 120


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


@pytest.mark.parametrize("last", ["Å,b", f"{'x' * 200_000},b", '"a\nb",c', 'a,"b\nÅ"'])
def test_csv_whose_last_record_has_no_end(items: Path, output: Path, last: str) -> None:
    """Its columns are counted, also of long texts, and of letters that hold what Python takes for the end of a line."""
    (items / "1").write_bytes(f"Å,Ö\r\n{last}".encode())
    merged = merge(attempts(("1", 1)), [items], output)
    assert merged.faults == ()
    assert output.read_bytes() == f"Å,Ö\r\n{last}\r\n".encode()


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


def test_a_feed_of_empty_lines_is_none(items: Path, output: Path) -> None:
    """By gzip a few kilobytes are millions of them."""
    (items / "1.jl").write_bytes(gzip.compress(b'{"a":1}\n' + b"\n" * 10_000 + b'{"a":2}\n'))
    assert merge(attempts(("1.jl", 2)), [items], output).faults == ()
    (items / "1.jl").write_bytes(gzip.compress(b'{"a":1}\n' + b" \n" * 5_000_000))
    began = time.process_time()
    (fault,) = merge(attempts(("1.jl", 1)), [items], output).faults
    assert "more than 10,000 empty lines before line 10002; is it a feed?" in fault.message
    assert time.process_time() - began < 1


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
        (b'[{"a": 1}]\n[{"a": 2}]', "no JSON array to its end"),
        (b'[{"a": 1}] x', "no JSON array to its end"),
        (b'[{"a": 1},]', "no JSON array to its end"),
        (b'[,{"a": 1}]', "no JSON array to its end"),
        (b'[{"a": 1} {"b": 1}]', "no JSON array to its end"),
        (b'[{"a": "]"', "no JSON array to its end"),
        (b'[{"a": 1}', "no JSON array to its end"),
        (b"[1", "no JSON array to its end"),
        (b"[", "no JSON array to its end"),
        (b"[" * 100_000, "no JSON array to its end"),
        (b"[" + b"9" * 5000 + b"]", "no JSON array to its end"),
        (b'a,b\r\n1,"2\r\n', "a quote is not closed at its end"),
        (b"a,b\r\n1,2\r\n3", "its last record has too few columns"),
        ("a,Å\r\n1,2\r\nÅ".encode(), "its last record has too few columns"),
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


def test_a_quote_that_is_never_closed_does_not_take_all_memory(items: Path, output: Path) -> None:
    (items / "1").write_bytes(b'a,b\r\n"1,2\r\n' + b"3,4\r\n" * 1000)
    merged = merge(attempts(("1", 1)), [items], output, max_item_bytes=1000)
    assert "a record, whose quote may not be closed, has more than 1,000 bytes" in merged.faults[0].message


@pytest.mark.parametrize(
    ("begin", "item", "end"),
    [
        (b"", b'{"url": "http://a/1", "text": "%s"}\n' % TEXT, b""),
        (b"url,text\r\n", b'http://a/1,"a\n%s"\r\n' % TEXT, b""),
        (b"[\n", b'{"url": "http://a/1", "text": "%s"},\n' % TEXT, b'{"url": "http://a/1"}\n]\n'),
    ],
    ids=["lines", "CSV", "array"],
)
def test_memory_does_not_grow_with_the_feed(items: Path, output: Path, begin: bytes, item: bytes, end: bytes) -> None:
    count = 15_000 - bool(end)
    (items / "1").write_bytes(begin + item * count + end)
    tracemalloc.start()
    try:
        merged = merge(attempts(("1", 15_000)), [items], output)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert merged.faults == ()
    assert output.stat().st_size == (items / "1").stat().st_size > 5_000_000
    assert peak < 2_000_000


@pytest.mark.parametrize(
    ("form", "what"),
    [
        pytest.param(b"%s\n", "line 1", id="lines"),
        pytest.param(b"[%s]", "item 1, if it is JSON,", id="array"),
        pytest.param(b"{}\n%s", "line 2", id="no end"),
        pytest.param(b"a\n%s\n", "line 2", id="CSV"),
    ],
)
def test_an_item_may_have_so_many_bytes(items: Path, output: Path, form: bytes, what: str) -> None:
    item = b'{"a": "%s"}' % (b"x" * (600_000 - 9))
    count = 1 + form.startswith(b"{")
    for size, limit in ((600_000, 600_000), (600_001, 600_000)):
        (items / "1").write_bytes(form % item.replace(b"x", b"x" * (1 + size - 600_000), 1))
        merged = merge(attempts(("1", count)), [items], output, max_item_bytes=limit)
        if size == limit:
            assert merged == Merged(items=count, feeds=1, written=True, faults=())
        else:
            assert f"{what} has more than 600,000 bytes" in merged.faults[0].message


def random_array(rng: random.Random) -> bytes:
    """A JSON array, or in one case of two what is nearly one."""
    values = [
        None,
        True,
        1.5e300,
        -7,
        "",
        'a"]},[{\\',
        "ü\n",
        [],
        {},
        {"a": [1, {"b": "]"}]},
        [[[]]],
        {"url": "http://a"},
    ]
    text = json.dumps(
        rng.choices(values, k=rng.randrange(6)), indent=rng.choice([None, 0, 3]), ensure_ascii=rng.random() < 0.5
    ).encode()
    for _ in range(rng.choice([0, 0, 1, 2])):
        at = rng.randrange(len(text) + 1)
        text = (
            text[:at]
            + rng.choice([b"", b",", b"]", b"[", b'"', b" ", b"\\", b"1", b"x", b"}"])
            + text[at + rng.randrange(2) :]
        )
    return rng.choice([b"", b"\xef\xbb\xbf", b"\n "]) + text + rng.choice([b"", b"\n", b" "])


def test_arrays_are_read_as_python_does(items: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However their bytes come: what is an array is merged, with all its items, and what is none is refused."""
    rng = random.Random(0)
    good = 0
    examples = 20 * settings.default.max_examples
    for _ in range(examples):
        text = random_array(rng)
        bare = text.removeprefix(b"\xef\xbb\xbf").strip().decode("latin-1")  # half a letter is no matter here
        if not bare.startswith("["):
            continue
        try:
            expected = json.loads(bare)
        except ValueError:
            expected = None
        monkeypatch.setattr("scrapy_distributed.results.formats.CHUNK_BYTES", rng.randrange(3, 12))
        (items / "1").write_bytes(text)
        merged = merge(attempts(("1", len(expected or []))), [items], output)
        if expected is not None:
            good += 1
            assert merged.faults == (), text
            assert json.loads(output.read_bytes().decode("latin-1")) == expected
        else:
            assert "no JSON array" in merged.faults[0].message, text
    assert examples / 4 < good < examples * 3 / 4

"""Merging feeds: every item of the feeds that count once, in order, or a fault that says what is wrong."""

from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from crawling import wait_for
from scrapy.exporters import BaseItemExporter, CsvItemExporter, JsonItemExporter, JsonLinesItemExporter

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.ledger.records import AcceptedAttempt
from scrapy_distributed.results.merge import Merged, merge
from scrapy_distributed.wire.receipt import FeedFile

MIB = 1024 * 1024


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
        (b"", b'{"url": "http://a/1", "text": "abc"}\n', b""),
        (b"url,text\r\n", b'http://a/1,"a\nc"\r\n', b""),
        (b"[\n", b'{"url": "http://a/1", "text": "abc"},\n', b'{"url": "http://a/1"}\n]\n'),
    ],
    ids=["lines", "CSV", "array"],
)
def test_memory_does_not_grow_with_the_feed(items: Path, output: Path, begin: bytes, item: bytes, end: bytes) -> None:
    count = 50_000 - bool(end)
    (items / "1").write_bytes(begin + item * count + end)
    tracemalloc.start()
    try:
        merged = merge(attempts(("1", 50_000)), [items], output)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert merged.faults == ()
    assert output.stat().st_size == (items / "1").stat().st_size
    assert peak < 2_000_000


# What is too large

MEMORY = """
import json, os, resource, sys
from pathlib import Path
from scrapy_distributed.ledger.records import AcceptedAttempt
from scrapy_distributed.results.merge import merge
from scrapy_distributed.wire.receipt import FeedFile

folder, output, count, max_item, memory = sys.argv[1:]
used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + int(memory), used + int(memory)))
attempt = AcceptedAttempt(batch=1, number=1, items=int(count), feeds=(FeedFile("1", int(count)),))
merged = merge([attempt], [Path(folder)], Path(output), max_item_bytes=int(max_item))
print(json.dumps([merged.items, *(fault.message for fault in merged.faults)]))
"""


def merged_in(memory: int, items: Path, output: Path, count: int = 1, max_item: int = 4 * MIB) -> list[object]:
    """Items and faults of a merge that can take so much memory."""
    args = [sys.executable, "-c", MEMORY, items, output, str(count), str(max_item), str(memory)]
    done = subprocess.run(args, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    found: list[object] = json.loads(done.stdout)
    assert {path.name for path in output.parent.iterdir()} - {"items"} == (set() if found[1:] else {"out"})
    return found


EMPTY = b"{}," * (5 * MIB) + b"{}"
"""Takes 15 MB as it is, and 360 MB in Python."""


@pytest.mark.parametrize(
    ("content", "found"),
    [
        pytest.param(b'{"a":[' + EMPTY + b"]}\n", "line 1 has more than 1,048,576 bytes; --max-item", id="lines"),
        pytest.param(b'[{"a":[' + EMPTY + b"]}]", "item 1, if it is JSON, has more than 1,048,576 bytes", id="array"),
        pytest.param(b"[{}, x" + bytes(200 * MIB), "item 2, if it is JSON, has more than 1,048,576", id="no array"),
        pytest.param(b'[{"a":"' + b"x" * 200 * MIB, "item 1, if it is JSON, has more than 1,048,576", id="no end"),
        pytest.param(b'a,b\n1,"2' + b"\n" * 2 * MIB, "quote may not be closed, has more than 1,048,576", id="CSV"),
        pytest.param(b"a,b\n1," + b"2" * 200 * MIB, "line 2 has more than 1,048,576 bytes", id="long CSV"),
    ],
)
def test_what_a_small_file_unpacks_to_does_not_take_all_memory(
    items: Path, output: Path, content: bytes, found: str
) -> None:
    (items / "1").write_bytes(gzip.compress(content, 1))
    _, fault = merged_in(96 * MIB, items, output, max_item=MIB)
    assert found in str(fault)


@pytest.mark.parametrize("form", ["lines", "array"])
def test_any_number_of_items_fits_into_memory(items: Path, output: Path, form: str) -> None:
    """Together they would take more than there is, and so would one that is larger by much."""
    item = b'{"a":[' + b"{}," * (MIB // 3) + b"{}]}"
    many = b"\n".join([item] * 12) if form == "lines" else b"[" + b", ".join([item] * 12) + b"]"
    (items / "1").write_bytes(many)
    assert merged_in(100 * MIB, items, output, count=12) == [12]
    assert output.stat().st_size == len(many) + (1 if form == "lines" else 3)


@pytest.mark.parametrize("form", [b"%s\n", b"[%s]"], ids=["lines", "array"])
def test_less_memory_than_an_item_takes_is_a_fault_in_words(items: Path, output: Path, form: bytes) -> None:
    (items / "1").write_bytes(form % (b'{"a":[' + EMPTY + b"]}"))
    _, fault = merged_in(256 * MIB, items, output, max_item=64 * MIB)
    assert "an item of it takes more memory than there is; a smaller --max-item refuses it at once" in str(fault)


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
    for _ in range(2000):
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
    assert 500 < good < 1500


# What is left

STOPPED = """
import json, os, signal, sys
from pathlib import Path
from scrapy_distributed.ledger.records import AcceptedAttempt
from scrapy_distributed.results.merge import merge
from scrapy_distributed.wire.receipt import FeedFile

def loads(text, loads=json.loads):
    if "stop" in text:
        os.kill(os.getpid(), signal.SIGSTOP)
    return loads(text)

json.loads = loads
folder, output = sys.argv[1:]
attempt = AcceptedAttempt(batch=1, number=1, items=2000, feeds=(FeedFile("1.jl", 2000),))
assert merge([attempt], [Path(folder)], Path(output)).written
"""


@contextmanager
def stopped_in_the_middle(items: Path, output: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A merge of ``1.jl`` that has written some of it, and its draft."""
    lines = [b'{"url": "http://a/1", "text": "abc"}\n'] * 2000
    lines[1000] = b'{"url": "stop"}\n'
    (items / "1.jl").write_bytes(b"".join(lines))
    with subprocess.Popen([sys.executable, "-c", STOPPED, items, output]) as process:
        try:
            wait_for(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
            (draft,) = output.parent.glob(".merge-*.part")
            assert draft.stat().st_size
            yield process, draft
        finally:
            process.kill()


def test_a_merge_that_was_killed_is_tidied_up_by_the_next(items: Path, output: Path) -> None:
    with stopped_in_the_middle(items, output) as (_, draft):
        pass
    assert draft.exists()
    export(items / "2.jl", JsonLinesItemExporter, ITEMS)
    assert merge(attempts(("2.jl", 4)), [items], output.with_name("other")).written
    assert {path.name for path in output.parent.iterdir()} == {"items", "other"}


def test_also_by_one_that_writes_nothing(items: Path, output: Path) -> None:
    with stopped_in_the_middle(items, output) as (_, draft):
        pass
    assert not merge(attempts(("2.jl", 4)), [items], output).written
    assert not draft.exists()


def test_two_merges_at_once(items: Path, output: Path) -> None:
    with stopped_in_the_middle(items, output) as (process, draft):
        export(items / "2.jl", JsonLinesItemExporter, ITEMS)
        assert merge(attempts(("2.jl", 4)), [items], output).written
        assert draft.exists()
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 0
    assert output.read_bytes() == (items / "1.jl").read_bytes()
    assert {path.name for path in output.parent.iterdir()} == {"items", "out"}


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

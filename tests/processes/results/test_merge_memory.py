"""Merges in a child process that has little memory: what a feed unpacks to does not take all of it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1024 * 1024


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

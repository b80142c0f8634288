"""Merges that are killed, and two at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crawling import wait_for
from merging import ITEMS, attempts, export
from scrapy.exporters import JsonLinesItemExporter

from scrapy_distributed.results.merge import merge

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

"""The same answer by Spark: to the last digit, each file counted once over kill -9 and restart."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from shifts_command import EXAMPLE, SHIFTS, feed, land

pytestmark = [
    pytest.mark.skipif(find_spec("pyspark") is None, reason="PySpark is not installed: pip install pyspark"),
    pytest.mark.skipif(
        shutil.which("java") is None, reason="no Java, which Spark runs on: install version 17 or later"
    ),
]

BOOSTWORDS = SHIFTS.with_name("boostwords.py")

SECONDS = 180
"""How long one run may take: on two idle cores 10 seconds."""

ODD = [
    {"title": "İstanbul ISTANBUL \u0131stanbul straße STRASSE ΟΔΟΣ οδός", "price": 0.1},
    {"title": "東京 2 bed, 60m² ﬁ Ⅷ ١٢ naïve nai\u0308ve\u2028line_two", "price": 0.2},
    {"title": "half \ud800 a pair \x00 x", "price": 0.3, "url": "/half\udc00"},
    {"title": "half a pair", "price": 1e3, "url": "/half\udc01"},
    {"title": "", "price": 7},
]
PRICES = [
    "0.1",
    "0.2",
    "1e-12",
    "0.0000000000005",
    "999999999999.999999999999",
    "1E+3",
    '"12.50"',
    "3.14159265358979323846",
]
BAD = ['{"title": "cut', "[]", "7", '{"title": 1, "price": 1}', '{"title": "a", "price": NaN}', "\x00", '{"price": 1}']
DEEP = '{{"title": "deep", "price": 1, "other": {}}}\n'

FEEDS = {
    "1_distr.jl": feed(*EXAMPLE, *ODD),
    "2_odd name %20.jsonl": "".join(
        f'{{"title": "flat {place}", "price": {text}}}\r\n' for place, text in enumerate(PRICES)
    ),
    "3_distr.jl": feed({"url": "/1", "title": "flat", "price": 1.1}, {"url": "/1", "title": "later", "price": 9}),
    "4_bad.jl": "\n \n" + "\n".join(BAD),
    "5_empty.jl": "",
    "_6.jl": feed(*EXAMPLE),
    "_6=6.jl": feed(*EXAMPLE),
    "7.json": feed(*EXAMPLE),
    "7_deep.jl": "".join(DEEP.format("[" * levels + "]" * levels) for levels in (99, 100, *range(960, 1000))),
    "7_signed.jl": "".join(f"\ufeff{line}\n" for line in feed(*EXAMPLE).splitlines()),
}
FOLDERS = ("a=1", "b.jl")
"""In the items folder; what is in them is none of it."""
LATER = {
    "3.2_distr.jl": feed({"url": "/1", "title": "first by name", "price": 2.2}),
    "8_distr.jl": feed({"url": "/1", "title": "too late", "price": 4.4}, {"title": "need a loft", "price": 1 / 3}),
}


def environment() -> Mapping[str, str]:
    """With this Python, and a Java that starts soon: Spark does so little here that compiling it well takes longer. One
    that is killed leaves what it has in the folder for temporary files."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    options = f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData -Djava.io.tmpdir={os.environ['TMPDIR']}"
    return os.environ | {"PATH": path, "JAVA_TOOL_OPTIONS": options}


@pytest.fixture(autouse=True)
def own_temporary_files(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))


def run(*command: str) -> str:
    """What a command prints."""
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def without_spark(items: Path) -> str:
    """The answer that is to come."""
    return run(sys.executable, str(SHIFTS), str(items), "--json")


@contextmanager
def following(items: Path) -> Iterator[subprocess.Popen[str]]:
    """The job with ``--follow``, in a process group of its own, which is killed when the block ends."""
    command = [sys.executable, str(BOOSTWORDS), str(items), "--json", "--follow", "--master", "local[2]"]
    with (
        items.with_name("spark.log").open("a") as log,
        subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        ) as process,
    ):
        try:
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """End the driver and its Java at once."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def printed(process: subprocess.Popen[str]) -> str:
    """The next line that it prints; none if it has ended."""
    assert process.stdout is not None
    return process.stdout.readline()


def test_the_same_answer_as_without_spark_also_after_kill_9(tmp_path: Path) -> None:
    # To Spark, such names are patterns and partitions, if it is not told otherwise.
    items = tmp_path / "day=1" / "items[1]{2}"
    items.mkdir(parents=True)
    for folder in FOLDERS:
        (items / folder).mkdir()
        land(items / folder, "1.jl", feed(*EXAMPLE))
    for name, text in FEEDS.items():
        land(items, name, text)
    checkpoint = items.with_name(f"{items.name}.checkpoint")
    with following(items) as process:
        first = printed(process)
        assert first == without_spark(items)
        land(items, "3.2_distr.jl", LATER["3.2_distr.jl"])
        second = printed(process)
        kill(process)
    assert second == without_spark(items) != first
    # As if it had been killed before Spark noted that the batch is done: it has to be repeated.
    for note in ("1", ".1.crc"):
        (checkpoint / "commits" / note).unlink(missing_ok=True)

    # With a time long past, as a copy that preserves times has: Spark would leave it out, left to itself.
    land(items, "8_distr.jl", LATER["8_distr.jl"])
    os.utime(items / "8_distr.jl", (0, 0))
    third = run("spark-submit", "--master", "local[2]", str(BOOSTWORDS), str(items), "--json")
    assert third == without_spark(items) != second

    aside = tmp_path / "bad.jl"
    run(sys.executable, str(SHIFTS), str(items), "--malformed", str(aside))
    (part,) = (checkpoint / "malformed").glob("part-*")
    assert part.read_text() == aside.read_text()
    assert [json.loads(line)["line"] for line in part.read_text().splitlines()] == [*range(3, 10), *range(2, 43)]

    with following(items) as process:
        assert printed(process) == third
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        assert printed(process) == ""

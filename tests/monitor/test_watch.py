"""What ``scrapy monitor`` prints, and when."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import pytest_twisted
from fake_scrapyd import FakeScrapyd, Fault
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, FirstError
from twisted.internet.task import deferLater

from scrapy_distributed.monitor import watch
from scrapy_distributed.monitor.watch import Watch

LINE = re.compile(r"(.*) \(\d\d:\d\d:\d\d\)")
IDLE = "running: 0, finished: 0, pending: 0"


@pytest.fixture
def fakes() -> Iterator[list[FakeScrapyd]]:
    """Two that answer, and one that hangs between them."""
    fakes = [
        FakeScrapyd(faults={"*": fault} if fault else {}, projects={"p": {"1": ["s"]}}).listen()
        for fault in (None, Fault.HANG, None)
    ]
    yield fakes
    for fake in fakes:
        pytest_twisted.blockon(Deferred.fromCoroutine(fake.close()))


def watching(fakes: list[FakeScrapyd], interval: float | None) -> Watch:
    addresses = [replace(fake.address, name=f"n{number}") for number, fake in enumerate(fakes)]
    return Watch(addresses, local=True, ledgers=list, project="p", interval=interval)


def words(printed: str) -> list[str]:
    """Its lines, each of which ends with the time."""
    found = [LINE.fullmatch(line) for line in printed.splitlines()]
    return [match[1] for match in found if match]


@pytest_twisted.ensureDeferred
async def test_a_node_that_hangs_holds_up_no_line_of_another(
    fakes: list[FakeScrapyd], capsys: pytest.CaptureFixture[str]
) -> None:
    watched = watching(fakes, 0.1)
    whole = Deferred.fromCoroutine(watched.in_lines())
    whole.addErrback(lambda failure: failure.trap(CancelledError, FirstError))
    printed = ""
    began = time.monotonic()
    while time.monotonic() - began < 10 and printed.count("n2 ") < 3:
        await deferLater(reactor, 0.05)  # type: ignore[arg-type]
        printed += capsys.readouterr().out
    watched.interval = None  # not once more
    whole.cancel()
    lines = words(printed)
    assert lines.count(f"n2 {IDLE}") >= 3
    assert {line.split()[0] for line in lines} == {"local", "n0", "n2"}


@pytest_twisted.ensureDeferred
async def test_one_look_waits_for_all(
    fakes: list[FakeScrapyd], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = watch.open_nodes
    monkeypatch.setattr(watch, "open_nodes", lambda addresses: opened(addresses, deadline_seconds=0.5))
    assert not await watching(fakes, None).in_lines()
    *first, last = words(capsys.readouterr().out)
    assert sorted(first) == [f"local {IDLE}", f"n0 {IDLE}", f"n2 {IDLE}"]
    assert last.startswith("n1 failing: no complete answer")
    assert await watching([fakes[0], fakes[2]], None).in_lines()
    assert not await watching(fakes, None).in_json()
    assert [node["name"] for node in json.loads(capsys.readouterr().out.splitlines()[-1])["nodes"]] == [
        "local", "n0", "n1", "n2",
    ]  # fmt: skip


@pytest.mark.parametrize("shown", ["in lines", "in json"])
@pytest_twisted.ensureDeferred
async def test_of_a_hundred_nodes_ten_hang_and_a_look_takes_one_deadline(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shown: str
) -> None:
    deadline = 3.0
    opened = watch.open_nodes
    monkeypatch.setattr(watch, "open_nodes", lambda addresses: opened(addresses, deadline_seconds=deadline))
    hundred = [
        FakeScrapyd(faults={"*": Fault.HANG} if number % 10 == 3 else {}, projects={"p": {"1": ["s"]}}).listen()
        for number in range(100)
    ]
    try:
        watched = watching(hundred, None)
        began = time.monotonic()
        assert not await (watched.in_lines() if shown == "in lines" else watched.in_json())
        assert deadline <= time.monotonic() - began < 2 * deadline
    finally:
        for fake in hundred:
            await fake.close()
    printed = capsys.readouterr().out
    if shown == "in lines":
        *first, _ = [line.split()[0] for line in words(printed)]
        assert len(first) == 100  # with that of this machine
        assert {f"n{number}" for number in range(100) if number % 10 != 3} <= set(first[:91])
    else:
        problems = [node["name"] for node in json.loads(printed)["nodes"] if node["problem"]]
        assert problems == [f"n{number}" for number in range(3, 100, 10)]

"""``scrapy monitor``: workers on this machine, as ledgers and locks tell."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime, timezone
from pathlib import Path

import pytest
from ledgers import IDENTITY, cut, divert, receipt
from shown import plain

from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.monitor.local import local_state
from scrapy_distributed.monitor.node_state import NodeState
from scrapy_distributed.monitor.snapshot import Snapshot
from scrapy_distributed.wire.hold import lock_path

HERE, THERE = ("local", "local"), ("n1", "http://n1:6800")


@pytest.fixture
def workers() -> Iterator[ExitStack]:
    """Those of ``lives`` live until its end."""
    with ExitStack() as stack:
        yield stack


def lives(workers: ExitStack, ledger: Path, job: str) -> None:
    path = lock_path(JobFiles.beside(ledger).receipt(job))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    workers.callback(os.close, descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def attempts(ledger: Ledger, *nodes: tuple[str, str]) -> list[Attempt]:
    """One that was sent, at a batch of its own, for each of *nodes*."""
    assert cut(ledger, *([body] for body in divert(ledger, *range(len(nodes))))) == len(nodes)
    bound = [ledger.bookings.bind(number, *node)[0] for number, node in enumerate(nodes, 1)]
    for attempt in bound:
        ledger.bookings.sent(attempt)
    return bound


def counts(state: NodeState) -> tuple[int | None, int | None, int | None]:
    assert (state.name, state.url, state.problem) == ("local", "local", None)
    return state.running, state.finished, state.pending


def test_without_a_ledger(tmp_path: Path) -> None:
    assert counts(local_state([tmp_path / "gone.sqlite"], "p")) == (0, 0, 0)
    assert counts(local_state([], None)) == (0, 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_running_by_locks_the_rest_by_the_ledger(tmp_path: Path, workers: ExitStack) -> None:
    path = tmp_path / "s.sqlite"
    with closing(Ledger(path)) as ledger:
        ledger.begin(IDENTITY, resume=True)
        done, died, lost, gone, at_work, waits, _, _ = attempts(ledger, *[HERE] * 6, THERE, THERE)
        ledger.verdicts.settle(done, receipt(done), max_attempts=1)
        ledger.verdicts.reject(died, "no receipt: killed", counts=True, max_attempts=3)
        for one in (lost, gone):
            ledger.verdicts.lose(one, "no sign of life", counts=True, max_attempts=3)
        for one in (at_work, lost):
            lives(workers, path, one.job)
        lock_path(JobFiles.beside(path).receipt(done.job)).touch()  # of a worker that is gone
        state = local_state([path], "p")  # while a coordinator is at work
    assert counts(state) == (2, 2, 1)
    assert counts(local_state([path], None)) == (2, 2, 1)
    assert counts(local_state([path], "another")) == (0, 0, 0)
    assert waits.job not in JobFiles.beside(path).running()
    shown = Snapshot(time=datetime.now(timezone.utc), project="p", nodes=(state,))
    assert plain(shown) == ["local running: 2, finished: 2, pending: 1"]


def test_all_ledgers_of_the_project_and_the_last_run_of_each(tmp_path: Path, workers: ExitStack) -> None:
    paths = [tmp_path / f"{name}.sqlite" for name in ("a", "b")]
    for path in paths:
        with closing(Ledger(path)) as ledger:
            ledger.begin(IDENTITY, resume=True)
            attempts(ledger, HERE, HERE)
        with closing(Ledger(path)) as ledger:
            ledger.begin(IDENTITY, resume=False)
            (attempt,) = attempts(ledger, HERE)
            lives(workers, path, attempt.job)
    assert counts(local_state(paths, "p")) == (2, 0, 0)
    with closing(Ledger(tmp_path / "empty.sqlite")):
        assert counts(local_state([*paths, tmp_path / "empty.sqlite"], "p")) == (2, 0, 0)


def test_a_ledger_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "s.sqlite").write_text("a text" * 1000)
    state = local_state([tmp_path / "s.sqlite"], "p")
    assert (state.running, state.kind) == (None, "failing")
    shown = Snapshot(time=datetime.now(timezone.utc), project="p", nodes=(state,))
    assert not shown.healthy
    assert plain(shown)[0].startswith(f"local failing: {tmp_path}/s.sqlite: can't be read as ledger")

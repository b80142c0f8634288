"""The job of a batch, by what it has left on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from scrapy_distributed.agent.agent import Agent
from scrapy_distributed.agent.job_files import JobFiles
from scrapy_distributed.errors import WireError
from scrapy_distributed.joining import own_job as module
from scrapy_distributed.joining.one_batch import FOUND_BYTES, MOST_FOUND, in_parts
from scrapy_distributed.joining.own_job import OwnJob
from scrapy_distributed.ledger.states import Attempt, AttemptState
from scrapy_distributed.shared.address import RedisAddress
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.wire.receipt import ItemsFile, Receipt
from scrapy_distributed.wire.receipt_file import write

ATTEMPT = Attempt(run="r", batch=1, number=1, node="w", token="ab", state=AttemptState.SENT, positions=0b11)


@pytest.fixture
def job(tmp_path: Path) -> OwnJob:
    files = JobFiles(tmp_path)
    files.make()
    files.receipt(ATTEMPT.job).parent.mkdir()
    reactor: Any = None
    return OwnJob(Agent(files, slots=1, reactor=reactor), ATTEMPT)


@pytest.mark.parametrize(
    ("url", "nodes"),
    [("redis://queue:6400/0", "a:1,queue:6400"), ("redis://[::1]/0", "a:1,[::1]:6379"), ("unix:///run/s", "a:1")],
)
def test_a_job_is_told_what_it_must_not_reach(job: OwnJob, url: str, nodes: str) -> None:
    submitted: list[list[str]] = []
    job.agent.submit = lambda _, arguments: submitted.append(list(arguments))  # type: ignore[method-assign]
    template = JobTemplate(project="p", spider="s", version="", settings={"DISTRIBUTED_NODES": "a:1"}, args={"a": "b"})
    job.start(template, "[]", RedisAddress.from_url(url, {}))
    (arguments,) = submitted
    assert arguments[:2] == ["crawl", "s"]
    assert f"DISTRIBUTED_NODES={nodes}" in arguments
    assert arguments[-4:] == ["-a", "a=b", "-a", "batch=1"]


def receipt(job: OwnJob, *, sequence: int = 1, size: int = 2, name: str = ATTEMPT.job) -> Path:
    path = job.agent.files.receipt(job.id)
    write(path, Receipt(job=name, sequence=sequence, final=False, size=size, settled=0))
    return path


def test_a_receipt_is_read_once(job: OwnJob) -> None:
    assert job.receipt() is None
    receipt(job)
    found = job.receipt()
    assert found is not None
    assert found.sequence == 1
    assert job.receipt() is None
    receipt(job, sequence=2)
    found = job.receipt()
    assert found is not None
    assert found.sequence == 2


def test_one_that_makes_no_sense_is_told(job: OwnJob) -> None:
    receipt(job, size=3)
    assert job.receipt() is None
    assert job.unreadable == "no receipt: it speaks of 3 requests, sent were 2"
    receipt(job, name="other")
    assert job.receipt() is None
    assert job.unreadable == "it is of job 'other'"
    receipt(job)
    assert job.receipt() is not None
    assert job.unreadable == ""


def test_items_go_up_in_parts_of_whole_lines(job: OwnJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_BYTES", 10)
    data = b"".join(b"[%d,0,{}]\n" % number for number in range(50)) + b"[50,0,%s]\n" % (b"x" * 100)
    job.agent.files.items(job.id).write_bytes(data)
    parts = list(job.items(ItemsFile(51, len(data), hashlib.sha256(data).hexdigest())))
    assert b"".join(parts) == data
    assert all(part.endswith(b"\n") for part in parts)
    assert len(parts) > 20


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"[1,0,{}]\n", lambda data: b""])
def test_items_that_are_others_than_the_receipt_tells_of_are_refused(job: OwnJob, change: Any) -> None:
    data = b"[0,0,{}]\n" * 3
    job.agent.files.items(job.id).write_bytes(change(data))
    with pytest.raises(WireError, match="its items are not those that its receipt tells of"):
        list(job.items(ItemsFile(3, len(data), hashlib.sha256(data).hexdigest())))


def test_items_that_are_gone_are_told(job: OwnJob) -> None:
    with pytest.raises(WireError, match="its items can't be read"):
        list(job.items(ItemsFile(0, 0, "")))


def test_the_end_of_a_log_has_its_last_lines(job: OwnJob) -> None:
    assert job.log_end() is None
    job.agent.files.log(job.id).write_text("".join(f"line {number}\n" for number in range(100_000)))
    lines = (job.log_end() or "").split("\n")
    assert (len(lines), lines[-1]) == (200, "line 99999")


def test_finds_go_up_in_parts() -> None:
    short = [(b"k" * 12, "x" * 10)] * (2 * MOST_FOUND + 1)
    assert [len(part) for part in in_parts(short)] == [MOST_FOUND, MOST_FOUND, 1]
    long = [(b"k" * 12, "x" * FOUND_BYTES)] * 2
    assert [len(part) for part in in_parts(long)] == [1, 1]
    assert list(in_parts([])) == []

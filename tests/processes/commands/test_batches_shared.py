"""``scrapy batches`` on runs that live in a Valkey: texts, JSON, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from awaiting import run
from batches_command import Said
from ledgers import IDENTITY, receipt, settled, unfinished
from shared_runs import SharedRun
from valkey_child import ValkeyChild

from scrapy_distributed.shared.server import Server

Batches = Callable[..., Said]


@pytest.fixture
def batches(child: ValkeyChild, shared: SharedRun, capsys: pytest.CaptureFixture[str]) -> Batches:
    def call(*words: str) -> Said:
        return Said(capsys, *words, DISTRIBUTED_TARGET_HOSTS=child.url, DISTRIBUTED_PROJECT=shared.project)

    return call


async def some_failed(shared: SharedRun, *, walked: bool = True) -> None:
    """Of 0 to 3: 0 (404, its callback had begun), 1 (dns, it had not), 2 (filtered)."""
    await shared.add(*range(4))
    claimed = await shared.claim()
    report = receipt(
        claimed.attempt, failed={"http 404": [0], "dns": [1]}, filtered={"offsite": [2]}, again=0b10,
        examples={"dns": "no \x1b address"},
    )  # fmt: skip
    await shared.worker().settle(claimed, report)
    if walked:
        await shared.intake.walked()
        await shared.intake.leave_walk()


def head(shared: SharedRun, child: ValkeyChild) -> str:
    return f"run {shared.name}, spider s of p (unix://{child.path}?db=0)"


def test_check_of_a_run_that_is_over_and_stored_is_0(batches: Batches, shared: SharedRun, child: ValkeyChild) -> None:
    run(some_failed(shared))
    run(shared.store())
    said = batches("check")
    assert said.code == 0
    assert said.out.splitlines() == [
        head(shared, child),
        "  4 diverted = 0 queued + 0 in flight + 1 crawled + 2 failed + 1 filtered + 0 dead",
        "  settled",
        "  raised: dns: no \\x1b address, 1 URL",
    ]
    (found,) = batches("check", "--json").lines
    assert (found["settled"], found["good"]) == (True, True)
    assert found["runs"][0]["ledger"] == f"unix://{child.path}?db=0"


@pytest.mark.parametrize(
    ("state", "verdict"),
    [("not walked", "not finished"), ("paused", "not finished"), ("under way", "not finished")],
)
def test_check_of_anything_else_is_1(batches: Batches, shared: SharedRun, state: str, verdict: str) -> None:
    run(some_failed(shared, walked=False))
    if state == "under way":
        run(shared.add(9))
        run(shared.claim())
        run(shared.intake.walked())
    if state == "paused":
        assert batches("pause").code == 0
    said = batches("check")
    assert said.code == 1
    assert said.out.splitlines()[2] == f"  {verdict}"


def test_a_run_whose_result_is_to_come_home_is_not_settled_before_it_has(
    child: ValkeyChild, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = run(SharedRun.begin(server, identity={**IDENTITY, "items": "home"}))
    run(some_failed(shared))
    settings = {"DISTRIBUTED_TARGET_HOSTS": child.url, "DISTRIBUTED_PROJECT": shared.project}
    said = Said(capsys, "check", **settings)
    assert said.code == 1
    assert said.out.splitlines()[2] == "  not stored yet"
    run(shared.store())
    assert Said(capsys, "check", **settings).code == 0


def test_list_and_show(batches: Batches, shared: SharedRun, child: ValkeyChild) -> None:
    run(some_failed(shared))
    said = batches("list")
    assert said.code == 0
    assert said.out.splitlines() == [
        head(shared, child),
        "  4 diverted = 0 queued + 0 in flight + 1 crawled + 2 failed + 1 filtered + 0 dead",
        "  1 batch: settled: 1",
        "  on w1: 1",
        "  batch 1: 4 requests, settled on w1, attempt 1",
        "    1 crawled, 2 failed, 1 filtered",
    ]
    (found,) = batches("list", "--json").lines
    assert found["runs"][0]["batches"][0]["node"] == "w1"
    said = batches("show", "1")
    assert said.code == 0
    assert "attempt 1 (batch=1): 4 requests on w1, accepted (finished)" in said.out
    assert "failed\thttp 404\thttp://a/0" in said.out
    assert json.loads(batches("show", "1", "--json").out)["outcomes"][1]["reason"] == "dns"
    said = batches("show", "7")
    assert (said.code, "found no batch 7" in said.error) == (2, True)


def test_batches_that_were_made_of_another(batches: Batches, shared: SharedRun) -> None:
    async def halved() -> None:
        await shared.add(*range(4))
        for _ in range(2):
            await shared.worker().reject(await shared.claim(), "killed", counts=True)

    run(halved())
    assert "batch 1: 4 requests, given to batches 2 and 3 after attempt 2 on w1 (killed)" in batches("list").out
    assert json.loads(batches("show", "1", "--json").out)["children"] == [2, 3]


def test_failed(batches: Batches, shared: SharedRun) -> None:
    run(some_failed(shared))
    said = batches("failed")
    assert said.out.splitlines() == [
        "failed\thttp 404\thttp://a/0", "failed\tdns\thttp://a/1", "filtered\toffsite\thttp://a/2"
    ]  # fmt: skip
    assert said.error.splitlines() == ["raised: dns: no \\x1b address, 1 URL"]
    assert [one["url"] for one in batches("failed", "--reason", "h*", "--json").lines] == ["http://a/0"]


def test_retry_opens_a_run_that_is_over(batches: Batches, shared: SharedRun, child: ValkeyChild) -> None:
    run(some_failed(shared))
    run(shared.store())
    said = batches("retry")
    assert said.code == 0
    assert said.out.splitlines() == [
        head(shared, child),
        "  1 request to be tried again, 1 left out",
        "    left out: their callback had begun, so items of them may be in a feed (--callback takes these as well)",
        "    workers that have the code of its beginning go on with it; the command that began it has it go on with the"
        " code that is here, and writes the result: scrapy crawl s, with its arguments",
    ]
    assert batches("check").code == 1
    said = batches("retry", "--json")
    assert said.code == 1
    assert said.lines[0]["again"] == 0
    assert said.lines[0]["left_out"] == 1


def test_pause_resume_and_cancel(batches: Batches, shared: SharedRun) -> None:
    run(shared.add(1, 2))
    claimed = run(shared.claim(1))
    assert "paused" in batches("pause").out
    assert run(shared.nothing("w2")).passed_over[0].why == "paused"
    assert "resumed" in batches("resume").out
    said = batches("cancel")
    assert said.code == 0
    assert "jobs at work (1) are told to end" in said.out
    wishes = run(shared.worker().renew(claimed, {}))
    assert wishes is not None
    assert wishes.stopped == "cancelled"
    run(shared.worker().settle(claimed, receipt(claimed.attempt)))
    said = batches("cancel")
    assert (said.code, "is over, so there is nothing to cancel" in said.error) == (2, True)
    assert batches("failed").out == "not crawled\tcancelled\thttp://a/2\n"
    assert "2 diverted = 0 queued + 0 in flight + 1 crawled + 0 failed + 0 filtered + 0 dead + 1 not" in batches().out
    assert "1 request to be tried again" in batches("retry", "--state", "not crawled").out


def test_the_end_of_a_log_that_a_worker_has_sent(batches: Batches, shared: SharedRun) -> None:
    run(shared.add(1))
    run(shared.worker().reject(run(shared.claim()), "killed", counts=True, log_tail="one\ntwo \x1b[1m"))
    said = batches("log", "1")
    assert said.code == 0
    first, *lines = said.out.splitlines()
    assert first.startswith("==> attempt 1 (batch=1) on w1, rejected (killed), log: its end")
    assert lines == ["one", "two \\x1b[1m"]
    assert json.loads(batches("log", "1.1", "--json").out)["attempts"][0]["log_tail"].startswith("one")
    run(shared.claim())
    said = batches("log", "1.2")
    assert (said.code, "in the --logs folder of that worker" in said.out) == (1, True)
    said = batches("log", "1", "-f")
    assert (said.code, "on w1" in said.error) == (2, True)
    said = batches("log", "1.3")
    assert (said.code, "found no attempt 1.3" in said.error) == (2, True)


def test_what_came_home_elsewhere_is_asked_for_there(batches: Batches, shared: SharedRun) -> None:
    run(some_failed(shared))
    run(shared.intake.come_home("0a0b other:/spool"))
    said = batches("export", "-O", "out.jl")
    assert (said.code, "they do to other:/spool; ask there" in said.error) == (2, True)
    said = batches("retry", "--lost-items")
    assert (said.code, "-s DISTRIBUTED_RESUME=False begins a new run" in said.error) == (2, True)


def test_a_stopped_run_that_is_opened_tells_of_items_that_may_come_twice(batches: Batches, shared: SharedRun) -> None:
    run(shared.add(1, 2))
    claimed = run(shared.claim())
    run(shared.control.stop("cancelled"))
    run(shared.worker().settle(claimed, receipt(claimed.attempt, 1, finish_reason="cancelled", clean=False)))
    assert run(shared.ended())
    said = batches("retry", "--state", "not crawled")
    assert "1 job had ended early and count with items" in said.out


def test_forget_takes_a_run_that_is_over(batches: Batches, shared: SharedRun) -> None:
    run(some_failed(shared, walked=False))
    said = batches("forget", shared.name)
    assert (said.code, "it is not over" in said.error) == (2, True)
    said = batches("forget", shared.name, "--force")
    assert (said.code, "has it now: end that one before" in said.error) == (2, True)
    run(shared.intake.leave_walk())
    said = batches("forget", shared.name, "--force")
    assert (said.code, said.out.splitlines()[1:]) == (0, ["  forgotten: nothing of it is left on the server"])
    said = batches("list")
    assert (said.code, "found no run of project" in said.error) == (2, True)


def test_one_run_of_several(
    batches: Batches, shared: SharedRun, server: Server, child: ValkeyChild, capsys: pytest.CaptureFixture[str]
) -> None:
    other = run(SharedRun.begin(server, project=shared.project, identity={**IDENTITY, "spider": "t"}))
    last = run(SharedRun.begin(server, project=shared.project, identity={**IDENTITY, "arguments": "a"}))
    names = [line.split(",")[0].removeprefix("run ") for line in batches("list").out.splitlines() if "spider" in line]
    assert names == [other.name, last.name]
    said = batches("pause")
    assert (said.code, "found runs of t, runs of s, expected one" in said.error) == (2, True)
    assert last.name in batches("pause", "--spider", "s").out
    assert shared.name in batches("pause", "--run", shared.name).out
    assert run(shared.intake.state()).paused
    assert [line for line in batches("check", "--run", shared.name).out.splitlines() if "run" in line][1:] == []
    said = batches("list", "--run", "none")
    assert (said.code, "found no run none" in said.error) == (2, True)
    said = Said(capsys, "list", "--ledger", child.url, DISTRIBUTED_PROJECT=shared.project)
    assert said.out == batches("list").out


def test_a_server_that_is_away_or_refuses_us_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, child: ValkeyChild
) -> None:
    said = Said(capsys, "list", "--ledger", f"unix://{tmp_path}/none", DISTRIBUTED_PROJECT="p")
    assert (said.code, "can't be used now" in said.error) == (2, True)
    said = Said(capsys, "list", "--ledger", "redis://:secret@/", DISTRIBUTED_PROJECT="p")
    assert (said.code, "expected redis://host:6379/0" in said.error, "secret" in said.error) == (2, True, False)


def test_a_ledger_in_a_file_is_not_forgotten_and_of_its_runs_only_the_last_is_changed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = unfinished(tmp_path / "s.sqlite", IDENTITY | {"arguments": "b"})
    last = settled(tmp_path / "s.sqlite")
    given: tuple[Any, ...] = ("--ledger", "s.sqlite")
    said = Said(capsys, "forget", last, *given)
    assert (said.code, "expected a shared run" in said.error) == (2, True)
    said = Said(capsys, "retry", "--run", first, *given)
    assert (said.code, f"found run {first}, expected {last}" in said.error) == (2, True)
    assert first in Said(capsys, "list", "--run", first, *given).out

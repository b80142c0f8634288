"""What comes to a run that is over."""

from __future__ import annotations

from typing import Any

import pytest
from awaiting import awaited
from ledgers import receipt
from shared_runs import SharedRun, found_of

from scrapy_distributed.ledger.rules import Objection
from scrapy_distributed.ledger.states import Blame


@awaited
async def test_a_receipt_that_comes_after_the_end_of_a_stopped_run_counts_no_more(shared: SharedRun) -> None:
    await shared.add(1, 2, 3)
    claimed = await shared.claim()
    await shared.end_lease(claimed)
    await shared.intake.lose_overdue()
    await shared.control.stop("enough")
    assert await shared.ended()
    await shared.intake.stored()
    assert not await shared.worker().stage_items(claimed, 0, b"{}\n")
    found = await shared.worker().settle(claimed, receipt(claimed.attempt, items=1))
    assert found == Objection("it was unknown before", Blame.NOBODY)
    assert await shared.counts() == {"diverted": 3, "not_crawled": 3}
    assert (await shared.intake.state()).home == 0
    assert await shared.staged() == []


@pytest.mark.parametrize("stopped_first", [True, False])
@awaited
async def test_what_an_attempt_has_staged_that_was_lost_goes_with_the_end_of_a_stopped_run(
    shared: SharedRun, stopped_first: bool
) -> None:
    await shared.add(1, 2, 3)
    claimed = await shared.claim()
    await shared.worker().stage_items(claimed, 0, b"{}\n")
    await shared.worker().stage_found(claimed, 0, found_of(4))
    if stopped_first:
        await shared.control.stop("enough")
    await shared.end_lease(claimed)
    await shared.intake.lose_overdue()
    if not stopped_first:
        assert len(await shared.staged()) == 2
        await shared.control.stop("enough")
    assert await shared.ended()
    assert await shared.staged() == []


@awaited
async def test_what_one_has_brought_that_counts_stays_though_its_batch_waits_again(shared: SharedRun) -> None:
    await shared.add(1, 2, 3)
    claimed = await shared.claim()
    await shared.worker().stage_items(claimed, 0, b"{}\n")
    await shared.worker().settle(claimed, receipt(claimed.attempt, 0b001, items=1), lines=1)
    await shared.control.stop("enough")
    assert await shared.counts() == {"diverted": 3, "crawled": 1, "not_crawled": 2}
    home = await shared.harvest.first()
    assert home is not None
    assert await shared.harvest.part(home, 0) == b"{}\n"


@awaited
async def test_what_the_walk_adds_after_a_stop_is_not_crawled_and_told_so(shared: SharedRun) -> None:
    await shared.add(1, 2, 3)
    await shared.control.stop("enough")
    assert await shared.add(4, 3) != []
    assert await shared.ended()
    assert await shared.counts() == {"diverted": 4, "duplicates": 1, "not_crawled": 4}


@pytest.mark.parametrize("told_first", [True, False])
@awaited
async def test_a_walk_that_goes_on_after_all_takes_its_run_along(shared: SharedRun, told_first: bool) -> None:
    await shared.add(1)
    claimed = await shared.claim()
    await shared.worker().settle(claimed, receipt(claimed.attempt))
    await shared.intake.walked()
    assert await shared.ended()
    if told_first:
        await shared.intake.walk_on()
        assert not await shared.ended()
    await shared.add(2)
    assert not await shared.ended()
    claimed = await shared.claim()
    await shared.worker().settle(claimed, receipt(claimed.attempt))
    await shared.intake.walked()
    assert await shared.ended()
    assert await shared.counts() == {"diverted": 2, "crawled": 2}


@awaited
async def test_the_walk_of_a_run_that_was_stopped_does_not_go_on(shared: SharedRun) -> None:
    """Its coordinator has not heard of that yet. While jobs are under way the run is not over."""
    await shared.add(1)
    await shared.claim()
    await shared.intake.walked()
    await shared.control.stop("cancelled")
    walked = (await shared.intake.state()).walked
    assert walked is not None
    await shared.intake.walk_on()
    assert (await shared.intake.state()).walked == walked


@awaited
async def test_a_sign_of_life_while_a_run_is_forgotten_leaves_nothing(
    shared: SharedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shared.add(1)
    claimed = await shared.claim()
    await shared.intake.leave_walk()
    command, heard = shared.server.command, []

    async def then_renewed(*words: Any) -> Any:
        answer = await command(*words)
        if words[0] == "UNLINK":
            heard.append(await shared.worker().renew(claimed, {"settled": 1}))
        return answer

    monkeypatch.setattr(shared.server, "command", then_renewed)
    await shared.control.forget(force=True)
    assert heard == [None] * len(heard) != []
    assert await command("KEYS", f"*{shared.name}*") == []

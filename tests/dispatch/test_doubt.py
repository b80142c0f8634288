"""The dispatcher against nodes on real ports: nodes that fail, and what they must show."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted
from fake_scrapyd import Fault
from rig import LEASE, POLL, Rig, busy

from scrapy_distributed.errors import NodeRefusedError, NodeUnreachableError
from scrapy_distributed.fleet.trust import Proof


@pytest_twisted.ensureDeferred
async def test_a_wedged_node_gives_its_jobs_back_and_is_used_again_when_it_starts_one(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.batches(1, 1, 1, 1)
    await rig.start()
    rig.fakes[1].start_pending(1)  # its only slot: it is never idle
    await busy(rig, 1, LEASE + 3 * POLL)
    assert rig.jobs(0) == []
    assert "restart its Scrapyd" in caplog.text
    assert rig.members[0].trust.needs is Proof.STARTS
    assert rig.attempts(1) == [("n0", "unsent"), ("n1", "sent")]
    assert rig.attempts(3) == [("n0", "unsent"), ("n1", "sent")]
    await rig.send(1, 1, 1)
    assert len(rig.jobs(0)) == 1  # to see
    assert not rig.members[0].trust.well
    rig.fakes[0].start_pending()
    await busy(rig, 1, 10)
    assert rig.members[0].trust.well
    await rig.send(1, 1)
    assert len(rig.jobs(0)) == 2


@pytest_twisted.ensureDeferred
async def test_the_trial_job_does_not_stay_on_a_wedged_node_when_another_has_nothing_to_do(rig: Rig) -> None:
    rig.batches(1, 1)
    await rig.start()
    rig.fakes[1].start_pending()
    await busy(rig, 1, LEASE + 3 * POLL)
    await rig.send(1)
    trial = [job.id for job in rig.jobs(0)]
    assert len(trial) == 1
    for _ in range(40):
        await rig.work(1)
    assert rig.balance() == {"diverted": 3, "crawled": 3}
    assert rig.jobs(0) == []


@pytest_twisted.ensureDeferred
async def test_a_node_whose_jobs_come_to_nothing_gets_one_at_a_time_until_one_is_accepted(rig: Rig) -> None:
    rig.batches(*[1] * 8)
    await rig.start()
    rig.fakes[1].start_pending(1)
    assert len(rig.jobs(0)) == 4
    rig.die(0)
    await rig.look()
    assert (rig.members[0].trust.well, rig.members[0].trust.needs) == (False, Proof.DELIVERS)
    await busy(rig, 1, 4)
    await rig.send(1, 1, 1)
    assert len(rig.jobs(0, "pending")) == 1
    (trial,) = rig.fakes[0].start_pending()
    await busy(rig, 1, 10)
    await rig.send(1, 1)
    assert rig.jobs(0, "pending") == []  # to start is not enough
    rig.report(0, trial)
    rig.fakes[0].finish()
    await busy(rig, 1, 4)
    assert rig.members[0].trust.well
    await rig.send(1, 1)
    assert rig.jobs(0, "pending")


@pytest_twisted.ensureDeferred
async def test_a_job_that_ran_before_the_doubt_does_not_prove_that_jobs_start(rig: Rig) -> None:
    """A Scrapyd that was restarted leaves its jobs alone, and they write receipts."""
    rig.batches(1, 1, 1)
    await rig.start()
    (survivor,) = rig.fakes[0].start_pending(1)
    rig.fakes[1].start_pending()
    await busy(rig, 1, 10)
    rig.fakes[0].forget()
    for tick in range(1, 40):
        rig.report(0, survivor, sequence=tick, final=False, settled=0, activity=tick)
        await busy(rig, 1, POLL)
    assert not rig.members[0].trust.well
    assert rig.members[0].trust.needs is Proof.STARTS
    assert rig.attempts(1) == [("n0", "sent")]  # and it is left alone here as well


@pytest_twisted.ensureDeferred
async def test_a_fleet_that_can_not_be_used_is_told_after_a_while(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(FLEET_TIMEOUT=100)
    for fake in rig.fakes:
        fake.faults["*"] = Fault.DROP
    rig.batches(1)
    await rig.start()
    await rig.look(90)
    assert rig.stranded == 0
    await rig.look(20)
    assert rig.stranded == 1


@pytest_twisted.ensureDeferred
async def test_a_last_batch_that_comes_back_from_each_node_does_not_go_round_for_ever(
    make_rig: Callable[..., Rig],
) -> None:
    """The place of the feeds refuses. It is always under way, so it never waits."""
    rig = make_rig(FLEET_TIMEOUT=100)
    rig.batches(1)
    await rig.start()
    for tick in range(300):
        for number in (0, 1):
            for job in rig.fakes[number].start_pending():
                rig.report(number, job, stored=False)
            if tick % 20 == 0:  # jobs take longer than the pauses of nodes in doubt
                rig.fakes[number].finish()
        await rig.look()
    assert rig.stranded
    assert rig.balance()["diverted"] == 1
    assert "dead" not in rig.balance()


@pytest_twisted.ensureDeferred
async def test_a_node_that_failed_before_the_start_is_not_used_until_it_answers(rig: Rig) -> None:
    rig.dispatcher.leave_out(NodeUnreachableError("n0", "refused"))
    rig.batches(1, 1)
    await rig.start()
    assert [len(rig.jobs(number)) for number in (0, 1)] == [0, 2]
    await rig.look(4)
    await rig.send(1)
    assert len(rig.jobs(0)) == 1
    assert rig.admitted == ["n0"]


@pytest_twisted.ensureDeferred
async def test_a_node_that_failed_the_preflight_must_pass_it_before_it_is_used(rig: Rig) -> None:
    rig.refusal = NodeRefusedError("n0", "no such spider")
    rig.dispatcher.leave_out(rig.refusal)
    rig.batches(1, 1)
    await rig.start()
    await rig.work(1)
    await rig.look(LEASE)
    await rig.send(1)
    assert rig.jobs(0) == []
    assert rig.members[0].trust.trouble == "n0: no such spider"
    rig.refusal = None
    await rig.work(1)
    await rig.look(LEASE)
    await rig.send(1)
    assert len(rig.jobs(0)) == 1
    assert rig.admitted == ["n0"]

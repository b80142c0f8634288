"""Batches of a node where nothing listens any more go to nodes that have nothing to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted
from fake_scrapyd import Fault
from rig import LEASE, POLL, Rig, busy

from scrapy_distributed.dispatch.handover import DOWN_SECONDS
from scrapy_distributed.wire.payload import START_URL, decode_payload

LATE = 3 * POLL  # that it is down is seen with the next look, and acted upon with another


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """Each node starts two jobs at once."""
    rig = make_rig()
    for member in rig.members:
        member.pace.peak_running = 2
    return rig


@pytest_twisted.ensureDeferred
async def test_what_it_had_is_sent_again_in_shares(rig: Rig) -> None:
    rig.batches(5)
    await rig.start()
    rig.fakes[0].start_pending()
    await rig.look()
    rig.down.add("n0")
    await rig.look(DOWN_SECONDS - POLL)
    assert rig.attempts() == [("n0", "sent")]
    await rig.look(LATE)
    assert [rig.attempts(batch) for batch in (1, 2, 3)] == [[("n0", "rejected")], [("n1", "sent")], [("n1", "sent")]]
    await rig.work(1)
    assert rig.balance() == {"diverted": 5, "crawled": 5}


@pytest_twisted.ensureDeferred
async def test_a_share_is_as_large_as_the_others(rig: Rig) -> None:
    """A batch is not divided where there are others that keep the slots busy."""
    rig.batches(6, 1, 2, 1)
    rig.members[1].pace.peak_running = 4
    await rig.start()
    await rig.work(1)
    rig.down.add("n0")
    await rig.look(DOWN_SECONDS + LATE)
    assert [len(decode_payload(job.settings[START_URL])) for job in rig.jobs(1, "pending")] == [2, 2, 2, 2]
    await rig.work(1)
    assert rig.balance() == {"diverted": 10, "crawled": 10}


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.DROP])
@pytest_twisted.ensureDeferred
async def test_one_that_fails_otherwise_is_waited_for(rig: Rig, fault: Fault) -> None:
    rig.batches(5)
    await rig.start()
    rig.fakes[0].start_pending()
    await rig.look()
    rig.fakes[0].faults["*"] = fault
    await rig.look(LEASE - LATE)
    assert rig.attempts() == [("n0", "sent")]
    await rig.look(2 * LATE)
    assert rig.attempts() == [("n0", "unknown"), ("n1", "sent")]


@pytest_twisted.ensureDeferred
async def test_one_that_is_restarted_at_once_keeps_what_it_has(rig: Rig) -> None:
    rig.batches(5)
    await rig.start()
    rig.fakes[0].start_pending()
    await rig.look()
    for _ in range(3):
        rig.down.add("n0")
        await rig.look(DOWN_SECONDS - POLL)
        rig.down.clear()
        await busy(rig, 0, 4 * POLL)
    assert rig.attempts() == [("n0", "sent")]


@pytest_twisted.ensureDeferred
async def test_where_no_slot_is_idle_it_is_waited_for(rig: Rig) -> None:
    rig.batches(5, 1, 5, 1)
    await rig.start()
    for fake in rig.fakes:
        fake.start_pending()
    await rig.look()
    rig.down.add("n0")
    await busy(rig, 1, LEASE / 2)
    assert [rig.attempts(batch) for batch in (1, 3)] == [[("n0", "sent")]] * 2
    rig.report(1, rig.jobs(1, "running")[0])
    rig.fakes[1].finish(rig.jobs(1, "running")[0].id)
    await rig.look(2 * POLL)
    assert [rig.attempts(batch) for batch in (1, 3)] == [[("n0", "unknown"), ("n1", "sent")]] * 2


@pytest_twisted.ensureDeferred
async def test_what_is_ready_comes_first(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.batches(5)
    await rig.start()
    rig.fakes[0].start_pending()
    await rig.look()
    rig.down.add("n0")
    monkeypatch.setattr(rig.dispatcher, "send_ready", lambda: None)
    rig.batches(1)
    await rig.look(DOWN_SECONDS + LATE)
    assert rig.attempts() == [("n0", "sent")]


@pytest_twisted.ensureDeferred
async def test_where_nothing_is_sent_any_more_it_is_waited_for(rig: Rig) -> None:
    """What its jobs have done counts, if it comes back."""
    rig.batches(5)
    await rig.start()
    rig.fakes[0].start_pending()
    await rig.look()
    rig.down.add("n0")
    rig.dispatcher.send_no_more()
    await rig.look(DOWN_SECONDS + LATE)
    assert rig.attempts() == [("n0", "sent")]


@pytest_twisted.ensureDeferred
async def test_what_is_first_counts_if_the_node_comes_back_with_its_job(rig: Rig) -> None:
    rig.batches(1)
    await rig.start()
    (orphan,) = rig.fakes[0].start_pending()
    await rig.look()
    rig.down.add("n0")
    await rig.look(DOWN_SECONDS + LATE)
    assert rig.attempts() == [("n0", "unknown"), ("n1", "sent")]
    (replacement,) = rig.fakes[1].start_pending()
    rig.report(0, orphan)
    rig.down.clear()
    await rig.look(5 * POLL)
    assert rig.attempts() == [("n0", "accepted"), ("n1", "rejected")]
    assert rig.balance() == {"diverted": 1, "crawled": 1}
    assert rig.fakes[1].signals == [(replacement.id, "INT")]


@pytest_twisted.ensureDeferred
async def test_a_job_whose_batch_was_divided_comes_too_late(rig: Rig) -> None:
    rig.batches(4)
    await rig.start()
    (orphan,) = rig.fakes[0].start_pending()
    await rig.look()
    rig.down.add("n0")
    await rig.look(DOWN_SECONDS + LATE)
    rig.fakes[1].start_pending()
    rig.report(0, orphan)
    rig.down.clear()
    await busy(rig, 1, 10 * POLL)
    assert rig.balance() == {"diverted": 4, "in_flight": 4}
    assert not rig.members[0].flights
    await rig.work(1)
    assert rig.balance() == {"diverted": 4, "crawled": 4}
    assert rig.count("attempts/accepted") == 2


async def two_run_and_two_wait(rig: Rig) -> None:
    """On the first node, and on the second."""
    rig.batches(1, 1, 1, 1)
    await rig.start()
    rig.fakes[0].start_pending()
    await rig.look()


@pytest_twisted.ensureDeferred
async def test_while_the_run_is_paused_what_waits_is_taken_back_and_nothing_is_sent(rig: Rig) -> None:
    await two_run_and_two_wait(rig)
    assert (len(rig.jobs(0, "running")), len(rig.jobs(1, "pending"))) == (2, 2)
    rig.dispatcher.handover.paused = True
    await rig.look(LATE)
    assert (len(rig.jobs(0, "running")), len(rig.jobs(1, "pending"))) == (2, 0)
    assert [rig.attempts(batch) for batch in (2, 4)] == [[("n1", "unsent")]] * 2
    await rig.work(0)
    assert rig.posts() == 4
    rig.dispatcher.handover.paused = False
    rig.dispatcher.send_ready()
    for number in (0, 1):
        await rig.look(LATE)
        await rig.work(number)
    assert rig.balance() == {"diverted": 4, "crawled": 4}


@pytest_twisted.ensureDeferred
async def test_what_waits_on_a_node_that_is_drained_goes_to_others(rig: Rig) -> None:
    await two_run_and_two_wait(rig)
    rig.members[1].drained = True
    await rig.look(LATE)
    assert [rig.attempts(batch)[-1][0] for batch in (1, 2, 3, 4)] == ["n0"] * 4
    for _ in range(2):
        await rig.work(0)
    assert rig.balance() == {"diverted": 4, "crawled": 4}

"""The dispatcher against nodes on real ports: what it sends, takes back, takes up, and leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from fake_scrapyd import FakeJob, FakeScrapyd, Fault
from rig import DEADLINE, LEASE, POLL, Rig, busy, until
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from scrapy_distributed.dispatch.dispatcher import LAST_LOOK_SECONDS
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.fleet.trust import Proof
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.wire.payload import SLOT_FREE_SINCE, START_URL

# Sending


@pytest_twisted.ensureDeferred
async def test_batches_go_out_in_turn_and_come_home(rig: Rig) -> None:
    rig.batches(2, 2, 1, 1)
    await rig.start()
    assert [sorted(job.id.rpartition("-")[0][-8:] for job in rig.jobs(number)) for number in (0, 1)] == [
        ["000001-1", "000003-1"],
        ["000002-1", "000004-1"],
    ]
    job = min(rig.jobs(1), key=lambda job: job.id)
    assert (job.project, job.spider, job.version, job.args) == ("p", "s", "1", {"site": "x", "batch": "2"})
    assert job.settings == {"A": "b", START_URL: '["http://a/2","http://a/3"]', SLOT_FREE_SINCE: "1"}
    assert rig.ledger.account.posted()
    changes = rig.changes
    await rig.work(0)
    await rig.work(1)
    assert rig.balance() == {"diverted": 6, "crawled": 6}
    assert rig.changes >= changes + 4
    assert rig.ledger.account.settled()
    assert (rig.count("attempts"), rig.count("attempts/n0"), rig.count("attempts/accepted")) == (4, 2, 4)


@pytest_twisted.ensureDeferred
async def test_a_node_gets_no_more_than_its_backlog(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(NODE_BACKLOG=2)
    rig.batches(*[1] * 7)
    await rig.start()
    assert [len(rig.jobs(number)) for number in (0, 1)] == [2, 2]
    rig.fakes[1].start_pending(1)
    await rig.look(10)  # a job is asked for when something moves there, or now and then
    assert [len(rig.jobs(number)) for number in (0, 1)] == [2, 3]


@pytest_twisted.ensureDeferred
async def test_what_a_node_refuses_goes_to_another_and_nobody_is_blamed(rig: Rig) -> None:
    rig.fakes[0].projects = {}
    rig.batches(2)
    await rig.start()
    assert rig.attempts() == [("n0", "unsent"), ("n1", "sent")]
    assert not rig.members[0].trust.well
    assert rig.count("node_errors/n0") == 1
    rig.fakes[0].projects = {"p": {"1": ["s"]}}
    await rig.look(4)
    await rig.send(1, 1)
    assert rig.members[0].trust.well  # it took one
    assert len(rig.jobs(0)) == 1


@pytest_twisted.ensureDeferred
async def test_a_post_that_may_have_arrived_is_not_sent_again_but_asked_for(rig: Rig) -> None:
    await rig.start()
    rig.fakes[0].faults["schedule.json"] = Fault.DROP_AFTER
    await rig.send(2)
    assert rig.attempts() == [("n0", "bound")]
    del rig.fakes[0].faults["schedule.json"]
    await rig.look(10)
    assert rig.attempts() == [("n0", "sent")]
    assert rig.posts() == 1
    await rig.work(0)
    assert rig.balance() == {"diverted": 2, "crawled": 2}


@pytest_twisted.ensureDeferred
async def test_a_post_that_did_not_arrive_is_sent_again_when_the_lease_is_over_and_cancelled(rig: Rig) -> None:
    rig.fakes[0].faults["schedule.json"] = Fault.HANG
    rig.batches(2)
    await rig.start()
    await rig.look(LEASE - POLL)
    assert rig.attempts() == [("n0", "bound")]
    await rig.look(2 * POLL)
    assert rig.attempts() == [("n0", "unknown"), ("n1", "sent")]
    assert "POST cancel.json" in rig.fakes[0].requests  # it may arrive late
    await rig.work(1)
    assert rig.balance() == {"diverted": 2, "crawled": 2}


@pytest_twisted.ensureDeferred
async def test_the_lease_of_a_post_that_got_no_answer_begins_at_its_deadline(rig: Rig) -> None:
    await rig.start()
    rig.fakes[0].faults["schedule.json"] = Fault.HANG
    rig.batches(2)
    rig.dispatcher.send_ready()
    rig.clock.advance(LEASE / 2)
    await rig.quiet()
    await rig.look(LEASE / 2 + 2 * POLL)
    assert rig.attempts() == [("n0", "bound")]
    await rig.look(LEASE / 2)
    assert rig.attempts() == [("n0", "unknown"), ("n1", "sent")]


@pytest_twisted.ensureDeferred
async def test_a_job_that_arrives_late_is_taken_back(rig: Rig) -> None:
    rig.fakes[0].faults["schedule.json"] = Fault.HANG
    rig.batches(2)
    await rig.start()
    await rig.look(LEASE + POLL)
    first = rig.ledger.bookings.live()[0].job
    rig.fakes[0].jobs.append(FakeJob(first, "p", "s", "1", {}, {}))
    await rig.look(20)
    assert rig.jobs(0) == []
    assert rig.attempts() == [("n0", "unsent"), ("n1", "sent")]


# Taking back


@pytest_twisted.ensureDeferred
async def test_jobs_that_wait_on_a_slow_node_go_to_one_with_nothing_to_do(rig: Rig) -> None:
    rig.batches(*[1] * 6)
    await rig.start()
    (slow,) = rig.fakes[0].start_pending(1)
    await rig.work(1)
    for sequence in range(1, 40):
        rig.report(0, slow, sequence=sequence, final=False, settled=0, activity=sequence)
        for job in rig.jobs(1, "pending"):
            rig.fakes[1].start_pending()
            rig.report(1, job)
        rig.fakes[1].finish()
        await rig.look()
    assert rig.balance() == {"diverted": 6, "in_flight": 1, "crawled": 5}
    assert rig.count("attempts/taken_back") == 2
    assert rig.fakes[0].signals == []  # what runs is left alone
    assert rig.attempts(5) == [("n0", "unsent"), ("n1", "accepted")]


@pytest_twisted.ensureDeferred
async def test_nothing_is_taken_back_for_a_node_where_jobs_wait_as_well(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(NODE_BACKLOG=1)
    rig.batches(1, 1, 1)
    await rig.start()
    await rig.look(LEASE / 2)
    assert rig.count("attempts/taken_back") == 0
    assert [len(rig.jobs(number)) for number in (0, 1)] == [1, 1]


@pytest_twisted.ensureDeferred
async def test_between_nodes_that_start_nothing_jobs_do_not_go_back_and_forth(rig: Rig) -> None:
    """And so both of them are found out."""
    rig.batches(1)
    await rig.start()
    await rig.look(8 * LEASE)
    assert rig.posts() < 6
    assert [member.trust.needs for member in rig.members] == [Proof.STARTS, Proof.STARTS]
    assert not any(member.trust.well for member in rig.members)
    assert rig.balance() == {"diverted": 1, "in_flight": 1}
    holder = next(number for number in (0, 1) if rig.jobs(number))
    await rig.work(holder)  # it was restarted
    assert rig.members[holder].trust.well
    assert rig.balance() == {"diverted": 1, "crawled": 1}


# The ledger


@pytest_twisted.ensureDeferred
async def test_a_ledger_that_can_not_be_written_is_told_and_the_receipt_is_kept_for_later(
    rig: Rig, make_rig: Callable[..., Rig]
) -> None:
    rig.batches(2)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    rig.report(0, job)
    rig.ledger.store.db.execute("CREATE TEMP TRIGGER no BEFORE UPDATE ON batch BEGIN SELECT RAISE(ABORT, 'full'); END")
    await rig.look(3 * POLL)
    assert [str(error) for error in rig.errors] == ["full"]
    assert rig.balance() == {"diverted": 2, "in_flight": 2}
    rig.ledger.store.db.execute("DROP TRIGGER no")
    await rig.end()
    later = make_rig()
    await later.start()
    assert later.balance() == {"diverted": 2, "crawled": 2}


@pytest_twisted.ensureDeferred
async def test_a_batch_that_can_not_be_bound_is_told_and_not_sent(rig: Rig) -> None:
    await rig.start()
    rig.ledger.store.db.execute(
        "CREATE TEMP TRIGGER no BEFORE INSERT ON attempt BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    rig.batches(2)
    await rig.look()
    assert rig.errors
    assert rig.posts() == 0
    rig.ledger.store.db.execute("DROP TRIGGER no")


# An earlier coordinator


async def resumed(make_rig: Callable[..., Rig], **values: Any) -> Rig:
    """A coordinator that takes up what another one had sent to n0."""
    first = make_rig(nodes=1)
    first.batches(2)
    await first.start()
    await first.end()
    return make_rig(**values)


@pytest_twisted.ensureDeferred
async def test_jobs_of_an_earlier_coordinator_are_looked_after_and_not_sent_again(make_rig: Callable[..., Rig]) -> None:
    rig = await resumed(make_rig)
    await rig.start()
    await rig.look(10)
    assert rig.posts() == 1
    await rig.work(0)
    assert rig.attempts() == [("n0", "accepted")]


@pytest_twisted.ensureDeferred
async def test_a_node_may_have_another_name_now(make_rig: Callable[..., Rig], fakes: list[FakeScrapyd]) -> None:
    """Even one that another node had."""
    fakes.reverse()
    first = make_rig(nodes=1)
    first.batches(2)
    await first.start()
    await first.end()
    fakes.reverse()
    rig = make_rig()  # what was called n0 is n1 now
    await rig.start()
    assert [list(member.flights) != [] for member in rig.members] == [False, True]
    await rig.work(1)
    assert rig.attempts() == [("n0", "accepted")]
    assert rig.balance() == {"diverted": 2, "crawled": 2}


@pytest_twisted.ensureDeferred
async def test_jobs_on_a_node_that_is_gone_are_sent_again(
    make_rig: Callable[..., Rig], fakes: list[FakeScrapyd]
) -> None:
    first = make_rig(nodes=1)
    first.batches(2)
    await first.start()
    await first.end()
    fakes.reverse()
    rig = make_rig(nodes=1)
    await rig.start()
    assert rig.attempts() == [("n0", "unknown"), ("n0", "sent")]
    assert json.loads(rig.jobs(0)[0].settings[START_URL]) == ["http://a/0", "http://a/1"]
    await rig.end()
    later = make_rig(nodes=1)
    await later.start()
    with closing(LedgerReader(later.ledger.path)) as reader:
        reasons = [found.reason for found in reader.attempts(reader.runs()[0], 1)]
    assert (reasons[0] or "").count("is no longer in DISTRIBUTED_TARGET_HOSTS") == 1


# The end


@pytest_twisted.ensureDeferred
async def test_what_is_ready_is_sent_before_the_end_and_nothing_after_it(rig: Rig) -> None:
    await rig.start()
    rig.batches(1, 1, 1)
    draining = Deferred.fromCoroutine(rig.dispatcher.drain(20))
    while not draining.called:
        rig.clock.advance(0.05)
        await deferLater(reactor, 0.001)
    assert (rig.posts(), rig.ledger.account.posted()) == (3, True)
    asked = [len(fake.requests) for fake in rig.fakes]
    rig.batches(1)
    rig.dispatcher.send_ready()
    rig.clock.advance(100)
    assert [len(fake.requests) for fake in rig.fakes] == asked
    assert not rig.clock.getDelayedCalls()


@pytest_twisted.ensureDeferred
async def test_what_has_ended_by_the_end_is_taken_and_the_rest_is_left(rig: Rig) -> None:
    rig.batches(1, 1)
    await rig.start()
    hurried: list[bool] = []
    rig.dispatcher.judge.hurry = lambda: hurried.append(True)  # type: ignore[method-assign]
    (done,), (running,) = (fake.start_pending() for fake in rig.fakes)
    rig.report(0, done)
    rig.report(1, running, sequence=1, final=False, settled=0, activity=1)
    await rig.dispatcher.drain(20)
    assert (rig.attempts(1), rig.attempts(2)) == ([("n0", "accepted")], [("n1", "sent")])
    assert (hurried, rig.errors) == ([True], [])


@pytest_twisted.ensureDeferred
async def test_where_the_ledger_can_not_be_written_nobody_looks_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.batches(1, 1)
    await rig.start()
    for facet, name in ((rig.ledger.bookings, "ready"), (rig.ledger.account, "settled")):
        monkeypatch.setattr(facet, name, partial(_unavailable, name))
    with pytest.raises(LedgerUnavailableError, match="ready"):
        await rig.dispatcher.drain(20)
    assert all(watch.called for watch in rig.dispatcher._watches)
    assert not rig.clock.getDelayedCalls()


def _unavailable(name: str) -> bool:
    raise LedgerUnavailableError(name)


@pytest.mark.parametrize("why", ["no time", "it is silent", "it does not answer"])
@pytest_twisted.ensureDeferred
async def test_the_last_look_waits_for_no_node(make_rig: Callable[..., Rig], why: str) -> None:
    rig = make_rig(nodes=1)
    rig.batches(1)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    rig.report(0, job)
    if why == "it is silent":
        rig.members[0].trust.silent = True  # since a while
    elif why == "it does not answer":
        rig.fakes[0].faults = {"*": Fault.HANG}
        carrier: Any = rig.members[0].carrier
        carrier.node._deadline_seconds = 2 * DEADLINE
    rig.fakes[0].requests.clear()
    draining = Deferred.fromCoroutine(rig.dispatcher.drain(0 if why == "no time" else 20))
    if why == "it does not answer":
        await until(lambda: rig.fakes[0].requests)
        rig.clock.advance(LAST_LOOK_SECONDS)
    await until(lambda: draining.called)
    assert rig.attempts() == [("n0", "sent")]
    assert (rig.fakes[0].requests == []) is (why != "it does not answer")


@pytest_twisted.ensureDeferred
async def test_jobs_of_a_crawl_that_ends_are_taken_back_or_report_what_they_have_done(rig: Rig) -> None:
    rig.batches(2, 2, 2)
    await rig.start()
    (running,) = rig.fakes[0].start_pending(1)
    rig.report(0, running, sequence=1, final=False, settled=0, activity=1)
    rig.fakes[0].deaf = True  # it has requests under way
    await rig.look()
    ended: list[bool] = []
    ending = Deferred.fromCoroutine(rig.dispatcher.dismiss(hurried=lambda: False))
    ending.addCallback(lambda _: ended.append(True))
    rig.batches(1)
    await rig.look(2 * POLL)
    await until(lambda: not (rig.jobs(0, "pending") or rig.jobs(1, "pending")))
    assert rig.fakes[0].signals.count((running.id, "INT")) == 1
    assert (ended, rig.attempts(1), rig.attempts(2)) == ([], [("n0", "sent")], [("n1", "unsent")])
    rig.report(0, running, settled=1, finish_reason="shutdown")
    rig.fakes[0].finish()
    await rig.look(2 * POLL)
    await until(lambda: rig.attempts(1) == [("n0", "accepted")])
    rig.clock.advance(POLL)
    assert ended == [True]
    assert (rig.balance(), rig.posts()) == ({"diverted": 7, "queued": 6, "crawled": 1}, 3)
    assert rig.count("attempts/rejected") == 0


@pytest_twisted.ensureDeferred
async def test_a_job_that_ends_without_a_receipt_as_it_was_told_to_is_nobodys_fault(rig: Rig) -> None:
    rig.batches(2)
    await rig.start()
    rig.fakes[0].start_pending()
    await rig.look()
    ending = Deferred.fromCoroutine(rig.dispatcher.dismiss(hurried=lambda: False))
    rig.fakes[0].finish()
    await rig.look(2 * POLL)
    await until(lambda: rig.attempts() == [("n0", "rejected")])
    rig.clock.advance(POLL)
    assert ending.called
    assert rig.members[0].trust.well


@pytest_twisted.ensureDeferred
async def test_a_job_whose_node_does_not_take_the_signal_gets_it_later(rig: Rig) -> None:
    rig.batches(2)
    await rig.start()
    (running,) = rig.fakes[0].start_pending()
    rig.fakes[0].deaf = True
    rig.fakes[0].faults["cancel.json"] = Fault.FORBIDDEN
    ending = Deferred.fromCoroutine(rig.dispatcher.dismiss(hurried=lambda: False))
    await rig.look(2 * POLL)
    assert rig.fakes[0].signals == []
    rig.fakes[0].faults.clear()
    await busy(rig, 0, LEASE)
    assert rig.fakes[0].signals == [(running.id, "INT")]
    rig.report(0, running)
    await rig.look(2 * POLL)
    await until(lambda: rig.attempts() == [("n0", "accepted")])
    rig.clock.advance(POLL)
    assert ending.called


@pytest_twisted.ensureDeferred
async def test_who_is_in_a_hurry_waits_for_no_job(rig: Rig) -> None:
    rig.batches(2)
    await rig.start()
    rig.fakes[0].start_pending()
    rig.fakes[0].deaf = True
    hurried: list[bool] = []
    ending = Deferred.fromCoroutine(rig.dispatcher.dismiss(hurried=lambda: bool(hurried)))
    await rig.look()
    assert not ending.called
    hurried.append(True)
    await rig.look()
    assert (ending.called, rig.attempts()) == (True, [("n0", "sent")])


@pytest_twisted.ensureDeferred
async def test_what_still_runs_when_the_run_is_over_is_killed(rig: Rig) -> None:
    rig.batches(2)
    await rig.start()
    (orphan,) = rig.fakes[0].start_pending()
    rig.fakes[0].deaf = True
    await rig.look(LEASE + POLL)
    for job in rig.fakes[1].start_pending():
        rig.report(1, job)
    await rig.look(2 * POLL)
    assert rig.ledger.account.settled()
    await rig.dispatcher.drain(20)
    assert rig.fakes[0].signals[-1] == (orphan.id, "KILL")

"""The dispatcher against nodes on real ports: how it looks after jobs, whatever their nodes and receipts say."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import pytest
import pytest_twisted
from fake_scrapyd import FakeJob, Fault
from rig import LEASE, PATIENCE, POLL, STALL, Rig, busy

from scrapy_distributed.dispatch import leases
from scrapy_distributed.dispatch.flight import KILL_AFTER
from scrapy_distributed.dispatch.leases import OVERTAKEN
from scrapy_distributed.dispatch.supervisor import GONE_SECONDS
from scrapy_distributed.errors import NodeAmbiguousError, NodeError, NodeRefusedError
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.wire.code import Egg

# Looking after


@pytest_twisted.ensureDeferred
async def test_a_growing_receipt_is_a_sign_of_life_and_running_alone_is_none(rig: Rig) -> None:
    rig.fakes[0].deaf = True
    rig.batches(2)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    for sequence in range(1, 50):
        rig.report(0, job, sequence=sequence, final=False, settled=0, activity=sequence)
        await rig.look()
    assert rig.attempts() == [("n0", "sent")]
    await rig.look(LEASE + PATIENCE)
    assert rig.attempts() == [("n0", "unknown"), ("n1", "sent")]
    assert rig.fakes[0].signals[0] == (job.id, "INT")


@pytest_twisted.ensureDeferred
async def test_what_a_job_tells_of_its_node_is_known_with_its_first_receipt_and_kept(rig: Rig) -> None:
    rig.batches(2, 2)
    await rig.start()
    (first,), (second,) = (fake.start_pending() for fake in rig.fakes)
    rig.report(0, first, sequence=1, final=False, settled=0, slots=4, poll_seconds=5.0)
    rig.report(1, second, slots=3)  # it was over before it was asked
    rig.fakes[1].finish()
    await rig.look()
    assert [(member.pace.slots, member.pace.poll) for member in rig.members] == [(4, 5.0), (3, None)]
    assert rig.ledger.bookings.told() == {rig.fakes[0].url: (4, 5.0), rig.fakes[1].url: (3, None)}
    rig.report(0, first, sequence=2, final=False, settled=0)
    await rig.look(PATIENCE)
    assert rig.members[0].pace.slots == 4


@pytest_twisted.ensureDeferred
async def test_that_a_job_runs_other_code_than_the_crawl_is_said_once_with_its_first_receipt(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.dispatcher.supervisor.eggs.code = here = "0" * 16
    rig.batches(1, 1, 1)
    await rig.start()
    (first, third), (second,) = (fake.start_pending() for fake in rig.fakes)
    for egg, version in ((None, ""), (Egg("r1", here), ""), (Egg("r2", "1" * 16), "r2"), (Egg("r3", "1" * 16), "r3")):
        caplog.clear()
        for sequence in (1, 2):
            for number, job in ((0, first), (0, third), (1, second)):
                rig.report(number, job, sequence=sequence, final=False, settled=0, activity=sequence, egg=egg)
            await rig.look(PATIENCE)
        said = [record.getMessage() for record in caplog.records if "code" in record.getMessage()]
        assert len(said) == bool(version), said
        if version:
            words = f"the code here is not that of version {version}, which runs there: scrapy fleet deploy. This run"
            assert said[0].partition(": ")[2].startswith(words)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        (NodeRefusedError("n0", "version '2' is gone"), "and its node says why: version '2' is gone (job"),
        (NodeAmbiguousError("n0", "no answer"), "no receipt: The end of its log: Spider closed"),
        (None, "no receipt: The end of its log: Spider closed"),
    ],
)
async def test_of_a_job_that_dies_at_its_start_its_node_is_asked_what_it_lacks(
    make_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture, refusal: NodeError | None, why: str
) -> None:
    rig = make_rig(nodes=1)
    rig.batches(1)
    await rig.start()
    rig.refusal = refusal
    rig.die(0)
    await rig.look()
    assert rig.attempts()[0] == ("n0", "rejected")
    assert why in caplog.text


@pytest_twisted.ensureDeferred
async def test_where_nothing_moves_only_heartbeats_are_asked_for(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(nodes=1)
    rig.batches(*[1] * 8)
    await rig.start()
    (job,) = rig.fakes[0].start_pending(1)
    rig.report(0, job, sequence=1, final=False, settled=0, activity=1)
    await rig.look(2 * POLL)
    rig.fakes[0].requests.clear()
    for sequence in range(2, 32):
        rig.report(0, job, sequence=sequence, final=False, settled=0, activity=sequence)
        await rig.look()
    asked = Counter(request.rpartition("/")[0] or request for request in rig.fakes[0].requests)
    assert asked.pop("GET daemonstatus.json") == 30
    assert asked["GET logs/p/s.receipts"] == 30 * POLL / PATIENCE * 8
    assert set(rig.attempts()) == {("n0", "sent")}


@pytest_twisted.ensureDeferred
async def test_no_lease_ends_without_a_question(rig: Rig) -> None:
    rig.batches(1)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    rig.report(0, job, sequence=1, final=False, settled=0, activity=1)
    await rig.look(2 * POLL)
    await rig.look(LEASE - PATIENCE)  # a callback blocks
    rig.fakes[0].jobs.append(FakeJob("other", "q", "s", "1", {}, {}, state="running"))
    await rig.look()  # so it is asked for, in vain
    rig.report(0, job, sequence=2, final=False, settled=0, activity=2)
    await rig.look(2 * PATIENCE)
    assert rig.attempts() == [("n0", "sent")]


@pytest_twisted.ensureDeferred
async def test_jobs_that_need_longer_than_a_lease_to_start_get_more_time(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """Else each would be ended before it begins, on every node, until its requests are dead."""
    caplog.set_level("INFO")
    rig.batches(2, 2)
    await rig.start()
    for fake in rig.fakes:
        fake.start_pending()
    await rig.look(LEASE + 3 * POLL)
    assert rig.count("attempts/lost") == 1  # the other has more time by now
    assert caplog.text.count("no receipt: It was told to end before it had started") == 1
    assert re.findall(r"Jobs get (\d+) s to start", caplog.text) == ["120"]
    for number in (0, 1):
        rig.fakes[number].start_pending()
    await rig.look(LEASE - 4 * POLL)
    for number in (0, 1):
        for job in rig.jobs(number, "running"):
            rig.report(number, job)
    await rig.look(PATIENCE)
    assert rig.balance() == {"diverted": 4, "crawled": 4}
    assert rig.count("attempts/lost") == 1


@pytest_twisted.ensureDeferred
async def test_after_a_slow_start_others_get_more_time_but_not_on_a_node_that_is_silent(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(nodes=1)
    rig.batches(1, 1)
    await rig.start()
    (slow,) = rig.fakes[0].start_pending(1)
    await rig.look(LEASE - PATIENCE)
    rig.report(0, slow, sequence=1, final=False, settled=0, activity=1)
    await rig.look(PATIENCE)
    rig.report(0, slow)
    rig.fakes[0].start_pending()
    await rig.look(2 * LEASE)
    assert rig.attempts(2) == [("n0", "sent")]
    rig.fakes[0].faults["*"] = Fault.SERVER_ERROR
    await rig.look(2 * POLL)
    assert rig.attempts(2) == [("n0", "unknown")]


@pytest_twisted.ensureDeferred
async def test_of_jobs_that_wait_in_turn_only_the_first_is_asked_for_when_something_moves(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(nodes=1)
    rig.batches(*[1] * 8)
    await rig.start()
    await rig.look(2 * POLL)
    first, second = rig.fakes[0].start_pending(2)
    for job in (first, second):
        rig.report(0, job)
    rig.fakes[0].finish()
    rig.fakes[0].requests.clear()
    await rig.look()
    assert rig.balance() == {"diverted": 8, "crawled": 2, "in_flight": 6}
    receipts = [request for request in rig.fakes[0].requests if "receipts" in request]
    in_turn = sorted(job.id for job in rig.jobs(0))
    assert receipts == [f"GET logs/p/s.receipts/{job}.json" for job in in_turn[:3]]


@pytest_twisted.ensureDeferred
async def test_a_job_that_makes_room_for_another_is_seen_by_the_queue(make_rig: Callable[..., Rig]) -> None:
    """Where a node remembers no more finished jobs than it has, and as many run as before."""
    rig = make_rig(nodes=1)
    rig.fakes[0].jobs += [FakeJob(str(number), "q", "s", "1", {}, {}, state="finished") for number in range(100)]
    rig.batches(1, 1, 1)
    await rig.start()
    (first,) = rig.fakes[0].start_pending(1)
    await rig.look(4 * POLL)
    rig.report(0, first)
    rig.fakes[0].finish()
    del rig.fakes[0].jobs[0]
    rig.fakes[0].start_pending(1)
    await rig.look()
    assert rig.balance() == {"diverted": 3, "crawled": 1, "in_flight": 2}


@pytest_twisted.ensureDeferred
async def test_a_job_that_waits_is_alive(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(nodes=1)
    other = FakeJob("other", "q", "s", "1", {}, {}, state="running")  # it has all slots
    rig.fakes[0].jobs.append(other)
    rig.batches(2)
    await rig.start()
    await rig.look(5 * LEASE)
    assert rig.attempts() == [("n0", "sent")]
    assert rig.members[0].trust.well


@pytest_twisted.ensureDeferred
async def test_a_job_that_somebody_takes_out_of_the_queue_is_sent_again_at_once(rig: Rig) -> None:
    rig.batches(1)
    await rig.start()
    await rig.look()
    (job,) = rig.jobs(0, "pending")
    rig.fakes[0].jobs.remove(job)  # an operator, say
    await rig.look()
    assert rig.attempts() == [("n0", "sent")]  # it may just be starting
    await rig.look(GONE_SECONDS + POLL)
    assert rig.attempts()[0] == ("n0", "unknown")
    assert len(rig.attempts()) == 2
    assert not any(member.trust.doubt for member in rig.members)  # nobody is to blame
    for number in (0, 1):
        rig.fakes[number].start_pending()
        await rig.work(number)
    assert rig.balance() == {"diverted": 1, "crawled": 1}


@pytest_twisted.ensureDeferred
async def test_a_job_that_was_just_starting_is_not_sent_again(rig: Rig) -> None:
    rig.batches(1)
    await rig.start()
    await rig.look()
    (job,) = rig.jobs(0, "pending")
    rig.fakes[0].jobs.remove(job)
    await rig.look()
    rig.fakes[0].jobs.append(job)
    rig.fakes[0].start_pending()
    await rig.look(GONE_SECONDS + POLL)
    assert rig.attempts() == [("n0", "sent")]


@pytest_twisted.ensureDeferred
async def test_an_orphan_that_comes_home_first_wins_and_the_replacement_is_ended(rig: Rig) -> None:
    rig.batches(2)
    await rig.start()
    (orphan,) = rig.fakes[0].start_pending()
    await rig.look()
    rig.fakes[0].forget()  # its Scrapyd was restarted; the job lives on
    await rig.look(LEASE + 2 * POLL)
    (replacement,) = rig.fakes[1].start_pending()
    await rig.look(10)
    rig.report(0, orphan)
    await rig.look(10)
    assert rig.attempts() == [("n0", "accepted"), ("n1", "rejected")]
    assert rig.balance() == {"diverted": 2, "crawled": 2}
    assert rig.fakes[1].signals == [(replacement.id, "INT")]
    assert rig.dispatcher.fleet.flights() == []


@pytest_twisted.ensureDeferred
async def test_a_job_that_ends_without_a_receipt_is_sent_again_with_the_cause(rig: Rig) -> None:
    rig.batches(2)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    rig.fakes[0].files[f"p/s/{job.id}.log"] = b"ModuleNotFoundError: No module named 'shop'\n"
    rig.fakes[0].finish()
    await rig.look()
    assert rig.attempts() == [("n0", "rejected"), ("n1", "sent")]
    with closing(LedgerReader(rig.ledger.path)) as reader:
        (first, _) = reader.attempts(reader.runs()[0], 1)
    assert first.reason == "no receipt: Its log says: ModuleNotFoundError: No module named 'shop'"


@pytest_twisted.ensureDeferred
async def test_what_has_ended_all_jobs_before_they_had_done_anything_is_told(rig: Rig) -> None:
    """A pipeline that can't be opened ends a crawl that has begun to Scrapy: there is a final receipt, of nothing."""
    rig.batches(2, 2)
    await rig.start()
    for number, fake in enumerate(rig.fakes):
        (job,) = fake.start_pending()
        error = f"NotADirectoryError: [Errno 20] Not a directory: '/n{number}/eggs/1.egg/towns.csv'\n"
        log = f"2026 [asyncio] ERROR: Task exception was never retrieved\nTraceback (most recent call last):\n{error}"
        fake.files[f"p/s/{job.id}.log"] = log.encode()
        rig.report(number, job, settled=0, finish_reason="shutdown")
        fake.finish()
    await rig.look()
    (why,) = rig.no_job_starts
    assert why.startswith("the first 2 jobs, on n0, n1, died of the same. Its log says: NotADirectoryError: ")
    assert rig.balance() == {"diverted": 4, "in_flight": 4}  # sent again, until it is told not to be
    assert rig.attempts()[0] == ("n0", "rejected")


@pytest_twisted.ensureDeferred
async def test_the_last_receipt_of_a_job_that_has_just_ended_is_not_missed(rig: Rig) -> None:
    rig.batches(2)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    await rig.look(10)
    rig.report(0, job, sequence=3, final=False, settled=0, activity=5)
    rig.fakes[0].finish()
    await rig.look()
    assert rig.attempts() == [("n0", "sent")]
    rig.report(0, job)
    await rig.look()
    assert rig.attempts() == [("n0", "accepted")]


@pytest_twisted.ensureDeferred
async def test_a_node_that_does_not_answer_is_asked_less_and_less_and_used_again_when_it_does(rig: Rig) -> None:
    rig.batches(1, 1)
    await rig.start()
    await rig.work(1)
    rig.fakes[0].faults["*"] = Fault.SERVER_ERROR
    asked = len(rig.fakes[0].requests)
    await rig.look(LEASE)
    assert len(rig.fakes[0].requests) - asked < 8
    assert rig.attempts() == [("n0", "unknown"), ("n1", "sent")]
    await rig.work(1)
    rig.fakes[0].faults.clear()
    await rig.look(LEASE)
    assert rig.members[0].trust.trouble == ""
    await rig.send(1, 1)
    assert rig.members[0].trust.well


# Jobs that are never over


def at_work(rig: Rig, number: int, job: FakeJob) -> None:
    """The job does one thing more."""
    tick = round(rig.clock.seconds())
    rig.report(number, job, sequence=tick, final=False, settled=0, activity=tick)


@pytest_twisted.ensureDeferred
async def test_a_job_may_have_a_longest_time(make_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture) -> None:
    """Whatever its node says: it runs, and does something all the time."""
    rig = make_rig(MAX_JOB_SECONDS=100)
    rig.batches(1)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    for seconds in range(0, 120, 2):
        for number, running in ((0, job), *((1, other) for other in rig.jobs(1, "running"))):
            at_work(rig, number, running)
        await rig.look()
        rig.fakes[1].start_pending()
        if seconds < 96:
            assert rig.attempts() == [("n0", "sent")]
    assert rig.attempts() == [("n0", "unknown"), ("n1", "sent")]
    assert re.search(r"not over on n0 after 1\d\d s \(DISTRIBUTED_MAX_JOB_SECONDS\)", caplog.text)
    assert rig.fakes[0].signals == [(job.id, "INT")]
    rig.fakes[0].finish()
    await rig.work(1)
    assert rig.balance() == {"diverted": 1, "crawled": 1}


@pytest_twisted.ensureDeferred
async def test_a_job_that_waits_for_ever_while_others_jobs_run_is_told(
    make_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "OLD_LEASES", 1)
    rig = make_rig(nodes=1)
    rig.batches(1, 1)
    await rig.start()
    for number in range(40):
        rig.fakes[0].jobs.append(FakeJob(f"other{number}", "q", "s", "1", {}, {}, state="running"))
        rig.fakes[0].finish(f"other{number - 1}")
        await rig.look()
        told = caplog.text.count("DISTRIBUTED_MAX_JOB_SECONDS ends such jobs")
        assert told <= ((number + 1) * POLL >= LEASE)
    assert told == 1  # of the one whose turn it is
    assert "is pending on n0 for" in caplog.text
    assert "and no other of ours runs there" in caplog.text
    assert rig.attempts() == [("n0", "sent")]


@pytest_twisted.ensureDeferred
async def test_a_job_that_others_overtake_is_told_and_one_that_is_only_long_is_not(
    make_rig: Callable[..., Rig], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "OLD_LEASES", 1)
    rig = make_rig(nodes=1, NODE_BACKLOG=20)
    rig.batches(1)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    for _ in range(40):
        at_work(rig, 0, job)
        await rig.look()
    assert "MAX_JOB_SECONDS" not in caplog.text
    await rig.send(*[1] * OVERTAKEN)
    for later in rig.fakes[0].start_pending():
        rig.report(0, later)
        rig.fakes[0].finish(later.id)
    for _ in range(10):
        at_work(rig, 0, job)
        await rig.look()
    assert caplog.text.count("MAX_JOB_SECONDS") == 1
    assert "is running on n0 for" in caplog.text
    assert f"while {OVERTAKEN} that it got later are over" in caplog.text
    assert rig.attempts() == [("n0", "sent")]


# Ending jobs


async def stall(rig: Rig, job: FakeJob, seconds: float, *, sequence: int = 1) -> None:
    for tick in range(round(seconds / POLL)):
        rig.report(0, job, sequence=sequence + tick, final=False, settled=1, activity=7)
        await rig.look()


@pytest_twisted.ensureDeferred
async def test_a_job_that_does_nothing_is_told_to_end_and_then_killed(rig: Rig) -> None:
    rig.fakes[0].deaf = True
    rig.batches(2)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    await stall(rig, job, STALL)
    assert rig.fakes[0].signals == []
    await stall(rig, job, PATIENCE, sequence=100)
    assert rig.fakes[0].signals == [(job.id, "INT")]
    await stall(rig, job, KILL_AFTER - PATIENCE, sequence=200)
    assert rig.fakes[0].signals == [(job.id, "INT")]
    await stall(rig, job, PATIENCE + POLL, sequence=300)
    assert rig.fakes[0].signals == [(job.id, "INT"), (job.id, "KILL")]
    assert rig.attempts()[:1] == [("n0", "rejected")]
    assert rig.balance() == {"diverted": 2, "in_flight": 2}


@pytest_twisted.ensureDeferred
async def test_what_a_stalled_job_has_done_counts_if_it_ends_in_order(rig: Rig) -> None:
    rig.fakes[0].deaf = True
    rig.batches(2)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    await stall(rig, job, STALL + PATIENCE)
    rig.report(0, job, sequence=900, settled=0b01, finish_reason="shutdown")
    await rig.look(2 * POLL)
    assert rig.fakes[0].signals == [(job.id, "INT")]
    assert rig.attempts() == [("n0", "accepted"), ("n1", "sent")]
    assert rig.balance() == {"diverted": 2, "crawled": 1, "in_flight": 1}


@pytest_twisted.ensureDeferred
async def test_a_lost_job_that_still_runs_is_told_to_end_and_then_killed(rig: Rig) -> None:
    rig.fakes[0].deaf = True
    rig.batches(2)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    await rig.look(LEASE + KILL_AFTER + 4 * POLL)
    assert rig.fakes[0].signals == [(job.id, "INT"), (job.id, "KILL")]
    assert rig.attempts()[:1] == [("n0", "rejected")]


@pytest_twisted.ensureDeferred
async def test_an_orphan_that_its_node_has_forgotten_is_not_cancelled_for_ever(rig: Rig) -> None:
    rig.batches(2)
    await rig.start()
    rig.fakes[0].start_pending()
    await rig.look()
    rig.fakes[0].forget()
    await rig.look(LEASE + 2 * POLL)
    rig.fakes[1].start_pending()
    await busy(rig, 1, 3 * LEASE)
    assert rig.attempts() == [("n0", "unknown"), ("n1", "sent")]
    assert rig.fakes[0].requests.count("POST cancel.json") == 2


# What is over while its node is asked


@pytest.mark.parametrize("question", ["receipt", "state", "log", "cancel"])
@pytest_twisted.ensureDeferred
async def test_an_answer_about_what_is_over_changes_nothing(
    rig: Rig, question: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig.fakes[0].faults["schedule.json"] = Fault.DROP_AFTER  # so nobody knows yet whether the node has it
    rig.batches(2)
    await rig.start()
    (job,) = rig.jobs(0)
    (member, flight) = next(iter(rig.dispatcher.fleet.flights()))
    asked: list[str] = []

    def refused() -> None:
        """The answer to its POST comes now."""
        asked.append(question)
        rig.dispatcher.judge.unsent(member, flight, "refused")

    rig.meanwhile[question] = refused
    if question == "receipt":
        rig.report(0, job)
    elif question == "log":
        rig.die(0)
    elif question == "cancel":
        flight.lose()
    await rig.look(2 * PATIENCE)
    assert asked == [question]
    assert flight.over
    assert rig.attempts()[0] == ("n0", "unsent")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert (rig.count("attempts/accepted"), rig.count("attempts/rejected")) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_what_is_over_is_not_asked_for(rig: Rig) -> None:
    rig.fakes[0].deaf = True
    rig.batches(1, 1, 1)
    await rig.start()
    first, second = rig.members[0].flights.values()
    rig.meanwhile["receipt"] = lambda: rig.dispatcher.judge.unsent(rig.members[0], second, "refused")
    rig.fakes[0].requests.clear()
    await rig.look(2 * PATIENCE)
    asked = " ".join(rig.fakes[0].requests)
    assert (first.job in asked, second.job in asked) == (True, False)

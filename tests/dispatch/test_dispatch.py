"""The dispatcher against nodes on real ports: what it sends, takes back, ends, and sends again. Its time is a fake
clock's, so nothing here waits for anything but answers."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from fake_scrapyd import FakeJob, FakeScrapyd, Fault
from ledgers import IDENTITY, cut, divert, states
from scrapy import Spider
from scrapy.settings import Settings
from scrapy.statscollectors import MemoryStatsCollector
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from scrapy_distributed.config.config import Config
from scrapy_distributed.dispatch import dispatcher as dispatch
from scrapy_distributed.dispatch.dispatcher import KILL_AFTER, LAST_LOOKS, LOOKS, OVERTAKEN, Dispatcher
from scrapy_distributed.dispatch.job_template import JobTemplate
from scrapy_distributed.dispatch.judge import Judge
from scrapy_distributed.dispatch.members import Fleet, Member, Proof
from scrapy_distributed.errors import LedgerUnavailableError, NodeError, NodeRefusedError, NodeUnreachableError
from scrapy_distributed.fleet.node import Node, NodeAddress
from scrapy_distributed.ledger.finds import Finds
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.wire.payload import START_URL, decode_payload
from scrapy_distributed.wire.receipt import Receipt

POLL = 2.0
LEASE = 60.0
STALL = 100.0
PATIENCE = 5 * POLL  # for so long a job without news is not asked for
DEADLINE = 20.0  # seconds of the real clock, after which a test fails


class Rig:
    """A dispatcher, its ledger at *path*, and a node for each of *fakes*: n0, n1 ..."""

    def __init__(self, path: Path, fakes: list[FakeScrapyd], *, names: str = "n{}", **settings: Any) -> None:
        self.fakes = fakes
        self.clock = Clock()
        self.clock.advance(1000)
        given = {"POLL_INTERVAL": POLL, "LEASE": LEASE, "STALL": STALL, **settings}
        config = Config.from_settings(Settings({f"DISTRIBUTED_{name}": value for name, value in given.items()}))
        self.ledger = Ledger(path)
        self.ledger.begin(IDENTITY, resume=True)
        self.members = [
            Member(node=Node(address=NodeAddress(name=names.format(number), url=fake.url), deadline_seconds=0.3),
                   fixed_backlog=config.node_backlog)
            for number, fake in enumerate(fakes)
        ]  # fmt: skip
        self.stats = MemoryStatsCollector(SimpleNamespace(settings=Settings()))  # type: ignore[arg-type]
        self.changes = self.stranded = 0
        self.all_cut = False
        self.ended = False
        self.admitted: list[str] = []
        self.refusal: NodeError | None = None
        self.errors: list[LedgerUnavailableError] = []
        spider, fleet = Spider(name="s"), Fleet(self.members)

        async def read_targets(receipt: Receipt) -> list[Finds]:
            return []

        judge = Judge(
            ledger=self.ledger, fleet=fleet, config=config, spider=spider, stats=self.stats,
            read_targets=read_targets, accepted=lambda node, receipt: None,
        )  # fmt: skip
        self.dispatcher = Dispatcher(
            ledger=self.ledger, fleet=fleet, judge=judge, config=config, spider=spider, stats=self.stats,
            clock=self.clock, admit=self._admit, all_cut=lambda: self.all_cut, changed=self._changed,
            stranded=self._stranded, ledger_failed=self.errors.append,
        )  # fmt: skip

    async def _admit(self, node: Node) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.admitted.append(node.name)

    def _changed(self) -> None:
        self.changes += 1

    def _stranded(self) -> None:
        self.stranded += 1

    def batches(self, *sizes: int) -> None:
        """New ready batches."""
        for size in sizes:
            first = self.ledger.account.balance().diverted
            cut(self.ledger, divert(self.ledger, *range(first, first + size)))

    async def start(self) -> None:
        self.dispatcher.start(
            JobTemplate(project="p", spider="s", version="1", settings={"A": "b"}, args={"site": "x"})
        )
        await self.quiet()

    async def send(self, *sizes: int) -> None:
        """New batches, all posted as far as there is room."""
        self.batches(*sizes)
        self.dispatcher.send_ready()
        await self.quiet()

    async def quiet(self) -> None:
        """Every call to a node has been answered, and every member is waiting for the next look."""

        def quiet() -> bool:
            watching = sum(not watch.called for watch in self.dispatcher._watches)
            return not self.dispatcher._posting and len(self.clock.getDelayedCalls()) >= watching

        await until(quiet)

    async def look(self, seconds: float = POLL) -> None:
        """Time passes, with a look at each node every ``POLL`` seconds."""
        for _ in range(round(seconds / POLL)):
            self.clock.advance(POLL)
            await self.quiet()

    def jobs(self, number: int, state: str | None = None) -> list[FakeJob]:
        """The jobs on a node."""
        return [job for job in self.fakes[number].jobs if state in (None, job.state)]

    def report(self, number: int, job: FakeJob, **values: Any) -> None:
        """The worker of *job* has written a receipt; final, and of success, unless *values* say otherwise."""
        size = len(decode_payload(job.settings[START_URL]))
        usual = {"sequence": 9, "final": True, "settled": (1 << size) - 1, "stored": True, "finish_reason": "finished"}
        receipt = Receipt(job=job.id, size=size, **(usual | values))
        self.fakes[number].files[f"p/s.receipts/{job.id}.json"] = receipt.to_json().encode()

    async def work(self, number: int) -> None:
        """All jobs on a node run, and succeed."""
        for job in self.fakes[number].start_pending():
            self.report(number, job)
        for job in self.jobs(number, "running"):
            self.report(number, job)
        self.fakes[number].finish()
        await self.look()

    def die(self, number: int) -> None:
        """All jobs on a node start, and end without a receipt."""
        self.fakes[number].start_pending()
        self.fakes[number].finish()

    def posts(self, number: int | None = None) -> int:
        fakes = self.fakes if number is None else [self.fakes[number]]
        return sum(fake.requests.count("POST schedule.json") for fake in fakes)

    def count(self, stat: str) -> int:
        return int(self.stats.get_value(f"distributed/{stat}", 0))

    def balance(self) -> dict[str, int]:
        """The states that are not empty."""
        return states(self.ledger)

    def attempts(self, batch: int = 1) -> list[tuple[str, str]]:
        """Node and state of the attempts at *batch*."""
        with closing(LedgerReader(self.ledger.path)) as reader:
            return [(found.node, found.state) for found in reader.attempts(reader.runs()[0], batch)]

    async def end(self) -> None:
        if self.ended:
            return
        self.ended = True
        for fake in self.fakes:
            fake.faults = {}
        await self.dispatcher.drain(0)
        self.ledger.close()


async def until(check: Callable[[], Any]) -> None:
    deadline = reactor.seconds() + DEADLINE  # type: ignore[attr-defined]
    while not check():
        assert reactor.seconds() < deadline, "the dispatcher does not come to rest"  # type: ignore[attr-defined]
        await deferLater(reactor, 0.001)


@pytest.fixture
def fakes() -> Iterator[list[FakeScrapyd]]:
    fakes = [FakeScrapyd(projects={"p": {"1": ["s"]}}).listen() for _ in range(2)]
    yield fakes
    for fake in fakes:
        pytest_twisted.blockon(Deferred.fromCoroutine(fake.close()))


@pytest.fixture
def make_rig(tmp_path: Path, fakes: list[FakeScrapyd]) -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(*, nodes: int = 2, **values: Any) -> Rig:
        rigs.append(Rig(tmp_path / "s.sqlite", fakes[:nodes], **values))
        return rigs[-1]

    yield make
    for rig in rigs:
        pytest_twisted.blockon(Deferred.fromCoroutine(rig.end()))


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


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
    assert job.settings == {"A": "b", "DISTRIBUTED_START_URL": '["http://a/2","http://a/3"]'}
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
    assert not rig.members[0].well
    assert rig.count("node_errors/n0") == 1
    rig.fakes[0].projects = {"p": {"1": ["s"]}}
    await rig.look(4)
    await rig.send(1, 1)
    assert rig.members[0].well  # it took one
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
async def test_the_last_batches_are_looked_at_more_often(rig: Rig) -> None:
    rig.batches(1)
    await rig.start()
    rig.all_cut = True
    await rig.look()
    asked = len(rig.fakes[0].requests)
    rig.clock.advance(2 / LAST_LOOKS)
    await rig.quiet()
    assert rig.fakes[0].requests[asked:] == ["GET daemonstatus.json"]
    rig.batches(1)
    rig.dispatcher.send_ready = lambda: None  # type: ignore[method-assign]
    rig.clock.advance(2 / LAST_LOOKS)
    await rig.quiet()
    asked = len(rig.fakes[0].requests)
    rig.clock.advance(POLL / 2)
    await rig.quiet()
    assert len(rig.fakes[0].requests) == asked


def test_a_large_fleet_is_looked_at_less_often_and_always_within_a_lease(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    pauses = []
    for size in (2, 400, 1000, 100_000):
        rig.dispatcher.fleet.members = rig.members[:1] * size
        pauses.append(rig.dispatcher._pause())
    assert pauses == [POLL, POLL, 1000 / LOOKS, LEASE / 4]


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
    assert receipts == [f"GET logs/p/s.receipts/{job.id}.json" for job in rig.jobs(0)[:3]]


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
    assert rig.members[0].well


@pytest_twisted.ensureDeferred
async def test_an_orphan_that_comes_home_first_wins_and_the_replacement_is_ended(rig: Rig) -> None:
    rig.batches(2)
    await rig.start()
    (orphan,) = rig.fakes[0].start_pending()
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
@pytest.mark.parametrize("data", [b"", b"{", b'{"format": 1}'])
async def test_a_receipt_that_can_not_be_read_is_none(rig: Rig, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    rig.batches(2)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    rig.fakes[0].files[f"p/s.receipts/{job.id}.json"] = data
    await rig.look(10)
    assert rig.attempts() == [("n0", "sent")]
    assert caplog.text.count(f"receipt of job {job.id}") == 1
    await rig.look(PATIENCE)  # it is asked for no more often than a quiet one, whatever moves there: it may be huge
    rig.fakes[0].requests.clear()
    for number in range(round(PATIENCE / POLL)):
        rig.fakes[0].jobs.append(FakeJob(f"other{number}", "q", "s", "1", {}, {}, state="running"))
        await rig.look()
    assert sum(".receipts/" in request for request in rig.fakes[0].requests) == 1
    rig.fakes[0].finish()
    await rig.look(PATIENCE)
    assert rig.attempts()[0] == ("n0", "rejected")


@pytest_twisted.ensureDeferred
async def test_a_receipt_that_comes_cut_is_read_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It was replaced by a longer one when the node had said how long it is."""
    rig.batches(2)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    rig.report(0, job)
    path = f"p/s.receipts/{job.id}.json"
    whole = rig.fakes[0].files[path]
    rig.fakes[0].files[path] = whole[:-9]
    await rig.look()
    assert rig.attempts() == [("n0", "sent")]
    rig.fakes[0].files[path] = whole
    await rig.look()
    assert rig.attempts() == [("n0", "accepted")]
    assert "WARNING" not in caplog.text


@pytest_twisted.ensureDeferred
async def test_the_receipt_of_another_job_is_none(rig: Rig) -> None:
    rig.batches(2, 2)
    await rig.start()
    (job,) = rig.fakes[0].start_pending()
    rig.report(0, job)
    files = rig.fakes[0].files
    files[f"p/s.receipts/{job.id}.json"] = files.pop(f"p/s.receipts/{job.id}.json").replace(b"000001-1", b"000002-1")
    await rig.look(10)
    assert rig.attempts() == [("n0", "sent")]
    assert rig.attempts(2) == [("n1", "sent")]


@pytest_twisted.ensureDeferred
async def test_a_question_about_a_job_that_is_refused_is_not_held_against_its_node(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.batches(2, 2)
    await rig.start()
    rig.fakes[0].start_pending()
    rig.fakes[0].faults["logs"] = Fault.FORBIDDEN
    await rig.look(20)
    assert rig.members[0].well
    assert rig.count("node_errors/n0") == 0
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1
    await rig.send(1, 1)
    assert len(rig.jobs(0)) == 2
    await rig.look(LEASE)
    assert rig.attempts()[0] == ("n0", "unknown")  # nobody can see that it lives
    rig.fakes[0].faults.clear()


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
    assert rig.members[0].trouble == ""
    await rig.send(1, 1)
    assert rig.members[0].well


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
    await rig.look(20 * LEASE)
    assert rig.posts() < 8
    assert [member.needs for member in rig.members] == [Proof.STARTS, Proof.STARTS]
    assert not any(member.well for member in rig.members)
    assert rig.balance() == {"diverted": 1, "in_flight": 1}
    holder = next(number for number in (0, 1) if rig.jobs(number))
    await rig.work(holder)  # it was restarted
    assert rig.members[holder].well
    assert rig.balance() == {"diverted": 1, "crawled": 1}


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
    monkeypatch.setattr(dispatch, "OLD_LEASES", 1)
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
    monkeypatch.setattr(dispatch, "OLD_LEASES", 1)
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


# Nodes in doubt


async def busy(rig: Rig, number: int, seconds: float) -> None:
    """Time passes, and the jobs that run on a node are at work."""
    for _ in range(round(seconds / POLL)):
        for job in rig.jobs(number, "running"):
            tick = round(rig.clock.seconds())
            rig.report(number, job, sequence=tick, final=False, settled=0, activity=tick)
        await rig.look()


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
    assert rig.members[0].needs is Proof.STARTS
    assert rig.attempts(1) == [("n0", "unsent"), ("n1", "sent")]
    assert rig.attempts(3) == [("n0", "unsent"), ("n1", "sent")]
    await rig.send(1, 1, 1)
    assert len(rig.jobs(0)) == 1  # to see
    assert not rig.members[0].well
    rig.fakes[0].start_pending()
    await busy(rig, 1, 10)
    assert rig.members[0].well
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
    assert (rig.members[0].well, rig.members[0].needs) == (False, Proof.DELIVERS)
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
    assert rig.members[0].well
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
    assert not rig.members[0].well
    assert rig.members[0].needs is Proof.STARTS
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
    assert rig.members[0].trouble == "n0: no such spider"
    rig.refusal = None
    await rig.work(1)
    await rig.look(LEASE)
    await rig.send(1)
    assert len(rig.jobs(0)) == 1
    assert rig.admitted == ["n0"]


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
    rig.fakes[0].forget()
    await rig.look(LEASE + POLL)
    rig.fakes[1].start_pending()
    await busy(rig, 1, 3 * LEASE)
    assert rig.attempts() == [("n0", "unknown"), ("n1", "sent")]
    assert rig.fakes[0].requests.count("POST cancel.json") == 2


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

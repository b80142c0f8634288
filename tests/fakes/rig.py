"""A dispatcher against nodes on real ports. Its time is a fake clock's, so nothing waits for anything but answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from fake_scrapyd import FakeJob, FakeScrapyd
from ledgers import IDENTITY, cut, divert, states
from scrapy import Spider
from scrapy.settings import Settings
from scrapy.statscollectors import MemoryStatsCollector
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater

from scrapy_distributed.config.config import Config
from scrapy_distributed.dispatch.dispatcher import Dispatcher
from scrapy_distributed.dispatch.flight import Signal
from scrapy_distributed.dispatch.judge import Judge
from scrapy_distributed.dispatch.members import Fleet, Member
from scrapy_distributed.dispatch.scrapyd_carrier import ScrapydCarrier
from scrapy_distributed.errors import LedgerUnavailableError, NodeDownError, NodeError
from scrapy_distributed.fleet.node import DaemonStatus, Node, NodeAddress
from scrapy_distributed.ledger.finds import Finds
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.states import Attempt
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.wire.payload import START_URL, decode_payload
from scrapy_distributed.wire.receipt import Receipt

T = TypeVar("T")

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
            Member(carrier=self._carrier(names.format(number), fake), fixed_backlog=config.node_backlog)
            for number, fake in enumerate(fakes)
        ]
        self.stats = MemoryStatsCollector(SimpleNamespace(settings=Settings()))  # type: ignore[arg-type]
        self.changes = self.stranded = 0
        self.no_job_starts: list[str] = []
        self.all_cut = False
        self.ended = False
        self.admitted: list[str] = []
        self.refusal: NodeError | None = None
        self.down: set[str] = set()  # nodes where nothing listens
        self.news: dict[str, Callable[[], None]] = {}  # of each node, to be called
        self.meanwhile: dict[str, Callable[[], None]] = {}  # what happens before the answer to a question is here
        self.errors: list[LedgerUnavailableError] = []
        spider, fleet = Spider(name="s"), Fleet(self.members)

        async def read_targets(attempt: Attempt, receipt: Receipt) -> list[Finds]:
            return []

        judge = Judge(
            ledger=self.ledger, fleet=fleet, config=config, spider=spider, stats=self.stats,
            read_targets=read_targets, harvest=None, accepted=lambda node, attempt, receipt, trip: None,
            stopped_by=lambda receipt: "", no_job_starts=self.no_job_starts.append,
        )  # fmt: skip
        self.dispatcher = Dispatcher(
            ledger=self.ledger, fleet=fleet, judge=judge, config=config, spider=spider, stats=self.stats,
            clock=self.clock, all_cut=lambda: self.all_cut, changed=self._changed,
            stranded=self._stranded, ledger_failed=self.errors.append,
        )  # fmt: skip

    def _carrier(self, name: str, fake: FakeScrapyd) -> ScrapydCarrier:
        rig = self

        class Carrier(ScrapydCarrier):
            def listen(self, news: Callable[[], None]) -> None:
                rig.news[self.name] = news

            async def look(self) -> DaemonStatus:
                if self.name in rig.down:
                    raise NodeDownError(self.name, "connection refused")
                return await super().look()

            async def admit(self, version: str) -> None:
                if rig.refusal is not None:
                    raise rig.refusal
                rig.admitted.append(self.name)

            async def state(self, attempt: Attempt) -> str | None:
                return await rig.late("state", await super().state(attempt))

            async def receipt(self, attempt: Attempt) -> bytes | None:
                return await rig.late("receipt", await super().receipt(attempt))

            async def log_end(self, attempt: Attempt) -> str | None:
                return await rig.late("log", await super().log_end(attempt))

            async def cancel(self, attempt: Attempt, signal: Signal) -> str | None:
                return await rig.late("cancel", await super().cancel(attempt, signal))

        node = Node(address=NodeAddress(name=name, url=fake.url), deadline_seconds=0.3)
        return Carrier(node, project="p", spider="s", feed=False)

    async def late(self, question: str, answer: T) -> T:
        """*answer*, and first what *meanwhile* has for that question."""
        if meanwhile := self.meanwhile.pop(question, None):
            meanwhile()
        return answer

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


async def busy(rig: Rig, number: int, seconds: float) -> None:
    """Time passes, and the jobs that run on a node are at work."""
    for _ in range(round(seconds / POLL)):
        for job in rig.jobs(number, "running"):
            tick = round(rig.clock.seconds())
            rig.report(number, job, sequence=tick, final=False, settled=0, activity=tick)
        await rig.look()

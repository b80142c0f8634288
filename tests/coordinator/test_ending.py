"""When a coordinator's crawl ends, and why. Its engine and its fleet only note what they are told; the ledger is a real
one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from ledgers import IDENTITY, receipt, states
from scrapy import signals
from scrapy.exceptions import CloseSpider, DontCloseSpider
from scrapy.settings import Settings
from stopped_engine import Stopped, target
from taker import Taker
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from scrapy_distributed.coordinator.closing import END_OF_WALK
from scrapy_distributed.coordinator.limits import most_waiting
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.reader import LedgerReader
from scrapy_distributed.ledger.sqlite import Ledger

Start = Callable[..., Stopped]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[Stopped] = []

    def start(**settings: Any) -> Stopped:
        made.append(Stopped(tmp_path / f"{len(made)}.sqlite", **settings))
        return made[-1]

    yield start
    for stopped in made:
        stopped.ledger.close()


async def told(stopped: Stopped) -> list[str]:
    """The reasons that the engine has heard, once it had time to."""
    await deferLater(reactor, 0)
    return stopped.closed


def find(stopped: Stopped, *numbers: int) -> None:
    """A page yields these for the fleet."""
    for number in numbers:
        assert stopped.coordinator.diversion.takes(target(number))


def sent(stopped: Stopped, *numbers: int) -> Taker:
    """The run begins, and a job has these."""
    taker = stopped.begin()
    taker.room = 1
    find(stopped, *numbers)
    stopped.coordinator.diversion.divert()
    stopped.coordinator.cutter.cut_all()
    return taker


async def close(stopped: Stopped, reason: str) -> None:
    """As Scrapy's extensions do."""
    engine: Any = stopped.crawler.engine
    await engine.close_spider_async(reason=reason)


# What jobs say


@pytest_twisted.ensureDeferred
async def test_items_of_the_fleet_count_for_the_limit_of_the_crawl_also_those_of_earlier_commands(start: Start) -> None:
    stopped = start()
    stopped.crawler.settings.frozen = False
    stopped.crawler.settings.set("CLOSESPIDER_ITEMCOUNT", 5)
    taker = stopped.begin()
    taker.room = 2
    for number in (1, 2):
        assert await told(stopped) == []
        find(stopped, number)
        stopped.coordinator.diversion.divert()
        stopped.coordinator.cutter.cut_all()
        report = receipt(taker.attempts[-1], items=3)
        stopped.ledger.verdicts.settle(taker.attempts[-1], report, max_attempts=1)
        stopped.coordinator.ending.job_counts("n1", report)
    assert await told(stopped) == ["closespider_itemcount"]


@pytest.mark.parametrize(
    ("settings", "waiting"),
    [({}, 0), ({"CLOSESPIDER_TIMEOUT": 9}, 0), ({"CLOSESPIDER_ITEMCOUNT": 9}, 1), ({"CLOSESPIDER_ERRORCOUNT": 9}, 1)],
)
def test_few_jobs_wait_where_what_they_bring_may_end_the_crawl(settings: dict[str, int], waiting: int) -> None:
    assert most_waiting(Settings(settings)) == waiting


@pytest_twisted.ensureDeferred
async def test_errors_of_callbacks_count_for_the_limit_of_the_crawl_whoever_has_them(start: Start) -> None:
    stopped = start()
    stopped.crawler.settings.frozen = False
    stopped.crawler.settings.set("CLOSESPIDER_ERRORCOUNT", 4)
    taker = sent(stopped, 1, 2, 3)
    failed = {"callback ValueError": [0], "http 404": [1]}
    report = receipt(taker.attempts[0], failed=failed, followed={"callback KeyError": 1, "timeout": 9})
    stopped.coordinator.walk.lost.update({"callback TypeError": 1, "http 500": 9})
    stopped.coordinator.ending.job_counts("n1", report)
    assert await told(stopped) == []
    stopped.coordinator.walk.lost["callback TypeError"] += 1
    stopped.coordinator.ending.job_counts("n1", receipt(taker.attempts[0]))
    assert await told(stopped) == ["closespider_errorcount"]


@pytest.mark.parametrize(
    ("limit", "values", "closing", "reason"),
    [
        (5, {"finish_reason": "closespider_itemcount"}, "", "closespider_itemcount"),
        (0, {"finish_reason": "closespider_itemcount"}, "", ""),  # a bound of jobs alone
        (5, {"finish_reason": "closespider_timeout"}, "", ""),
        (0, {"stats": {"distributed/closed_itself": 1}, "finish_reason": "bye"}, "", "bye"),
        (0, {"stats": {"distributed/closed_itself": 1}}, "closespider_pagecount", "closed_itself"),
        (0, {"stats": {"distributed/closed_itself": 1}}, "shutdown", ""),  # then the run goes on later
        (0, {"finish_reason": "shutdown"}, "closespider_timeout", "closespider_timeout"),
    ],
)
def test_a_receipt_stops_the_run_if_its_job_has_ended_by_what_ends_the_crawl_or_that_ends_anyway(
    start: Start, limit: int, values: dict[str, Any], closing: str, reason: str
) -> None:
    stopped = start()
    stopped.crawler.settings.frozen = False
    stopped.crawler.settings.set("CLOSESPIDER_ITEMCOUNT", limit)
    taker = sent(stopped, 1)
    if closing:
        stopped.coordinator.ending.why.asked(closing, idle=False)
    assert stopped.coordinator.ending.stopped_by(receipt(taker.attempts[0], **values)) == reason


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(("said", "reason"), [("seen enough", "seen enough"), ("finished", "closed_itself")])
async def test_a_spider_that_has_closed_itself_in_a_job_closes_the_crawl(start: Start, said: str, reason: str) -> None:
    stopped = start()
    taker = sent(stopped, 1)
    report = receipt(taker.attempts[0], finish_reason=said, stats={"distributed/closed_itself": 1})
    stopped.coordinator.ending.job_counts("n1", report)
    assert await told(stopped) == [reason]


# When all is done


def test_it_stays_open_before_the_run_has_begun(start: Start) -> None:
    stopped = start()
    with pytest.raises(DontCloseSpider):
        stopped.coordinator.ending.idle()
    assert not stopped.coordinator.walk.done


def test_it_stays_open_until_what_was_found_is_settled(start: Start) -> None:
    stopped = start()
    taker = stopped.begin()
    taker.room = 1
    find(stopped, 1, 2)
    stopped.coordinator.walk.lost["http 404"] = 1
    with pytest.raises(DontCloseSpider):
        stopped.coordinator.ending.idle()
    assert stopped.coordinator.walk.done
    assert states(stopped.ledger) == {"diverted": 2, "in_flight": 2}
    assert stopped.ledger.account.losses().own == {"http 404": 1}
    stopped.ledger.verdicts.settle(taker.attempts[0], receipt(taker.attempts[0]), max_attempts=1)
    stopped.coordinator.ending.idle()


def test_the_dispatcher_sees_that_the_walk_is_over_also_where_nothing_is_left_to_cut(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = start()
    taker = sent(stopped, 1, 2, 3)
    seen: list[bool] = []
    monkeypatch.setattr(taker, "send_ready", lambda: seen.append(stopped.coordinator.cutter.all_cut))
    with pytest.raises(DontCloseSpider):
        stopped.coordinator.ending.idle()
    assert seen == [True]


def test_who_does_not_wait_ends_when_all_is_with_the_nodes(start: Start) -> None:
    stopped = start(WAIT=False)
    taker = stopped.begin()
    find(stopped, 1)
    with pytest.raises(DontCloseSpider):
        stopped.coordinator.ending.idle()
    taker.room = 1
    taker.send_ready()
    stopped.ledger.bookings.sent(taker.attempts[0])
    stopped.coordinator.ending.idle()


def test_the_walk_goes_on_where_there_is_more_to_crawl(start: Start) -> None:
    stopped = start()
    stopped.begin()
    stopped.idle = False  # another handler of the signal has seen to that
    stopped.coordinator.ending.idle()
    assert not stopped.coordinator.walk.done
    stopped.idle = True
    stopped.coordinator.ending.idle()
    assert stopped.coordinator.walk.done
    stopped.coordinator.ending.request_scheduled()
    assert not stopped.coordinator.walk.done
    assert not stopped.ledger.account.end()


@pytest.mark.parametrize("full_at_the_end", [False, True])
@pytest_twisted.ensureDeferred
async def test_a_walk_that_goes_on_and_can_not_be_noted_closes_the_crawl_and_walks_again_or_says_what_is_lost(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, full_at_the_end: bool
) -> None:
    def fail() -> None:
        raise LedgerUnavailableError("disk is full")

    stopped = start()
    stopped.begin()
    drained: Any = Drained(stopped)
    stopped.coordinator.dispatcher = stopped.coordinator.ending.dispatcher = drained
    stopped.coordinator.ending.idle()
    assert stopped.coordinator.walk.done
    with monkeypatch.context() as patch:
        patch.setattr(stopped.ledger.intake, "walk_on", fail)
        stopped.coordinator.ending.request_scheduled()
        assert not stopped.coordinator.walk.done
        assert await told(stopped) == ["ledger_failed"]
        if full_at_the_end:
            await stopped.coordinator.ending.shut_down("ledger_failed")
    if not full_at_the_end:
        await stopped.coordinator.ending.shut_down("ledger_failed")
    assert ("what that has found since is lost. Begin a new run" in caplog.text) is full_at_the_end
    with closing(Ledger(stopped.ledger.path)) as later:
        assert later.begin(IDENTITY, resume=True) is not full_at_the_end


def test_it_stays_open_for_a_page_that_is_to_be_tried_again(start: Start) -> None:
    stopped = start()
    stopped.begin()
    stopped.coordinator.walk._held.append((10.0, target(1)))
    with pytest.raises(DontCloseSpider):
        stopped.coordinator.ending.idle()
    assert not stopped.coordinator.walk.done


@pytest.mark.parametrize(
    ("answer", "reasons"),
    [(None, ["finished"]), (DontCloseSpider(), []), (CloseSpider("enough"), ["enough"]), ("more to crawl", [])],
)
@pytest_twisted.ensureDeferred
async def test_with_the_last_receipt_it_closes_at_once_if_nobody_objects(
    start: Start, answer: Exception | str | None, reasons: list[str]
) -> None:
    stopped = start()
    taker = stopped.begin()
    taker.room = 1
    find(stopped, 1)
    with pytest.raises(DontCloseSpider):
        stopped.coordinator.ending.idle()

    def asked() -> None:
        stopped.idle = not isinstance(answer, str)
        if isinstance(answer, Exception):
            raise answer

    stopped.crawler.signals.connect(asked, signals.spider_idle)
    stopped.coordinator.ending.changed()
    assert await told(stopped) == []
    stopped.ledger.verdicts.settle(taker.attempts[0], receipt(taker.attempts[0]), max_attempts=1)
    stopped.idle = False
    stopped.coordinator.ending.changed()
    assert await told(stopped) == []
    stopped.idle = True
    stopped.coordinator.ending.changed()
    assert await told(stopped) == reasons


# Early


@pytest_twisted.ensureDeferred
async def test_the_first_reason_is_the_one(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    stopped = start(FLEET_TIMEOUT=60)
    stopped.coordinator.ending.stranded()
    assert "No node could be used for 60 s" in caplog.text
    stopped.coordinator.ending.ledger_failed(LedgerUnavailableError("disk is full"))
    assert await told(stopped) == ["fleet_unusable"]
    assert stopped.coordinator.walk.failed  # so the same command walks again
    assert stopped.coordinator.discoveries._stopped


# Either way


class Drained:
    """In place of a dispatcher: notes the account as it is when nothing more is to be sent."""

    started = True

    def __init__(self, stopped: Stopped) -> None:
        self.stopped = stopped
        self.fleet = stopped.coordinator.fleet
        self.dismissed = False
        self.sends = True
        self.seen: dict[str, int] = {}
        self.batches = 0

    def send_ready(self) -> None: ...

    def send_no_more(self) -> None:
        self.sends = False

    async def dismiss(self, *, hurried: Callable[[], bool]) -> None:
        self.dismissed = True

    async def recall(self, *, hurried: Callable[[], bool]) -> None: ...

    async def drain(self, deadline: float) -> None:
        self.seen = states(self.stopped.ledger)
        self.batches = len(self.stopped.ledger.bookings.ready())


@pytest_twisted.ensureDeferred
async def test_what_is_not_sent_is_in_the_ledger_before_the_nodes_are_left(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = start()
    stopped.begin()
    drained: Any = Drained(stopped)
    stopped.coordinator.dispatcher = stopped.coordinator.ending.dispatcher = drained
    find(stopped, 1, 2)
    await stopped.coordinator.ending.shut_down("shutdown")
    assert (drained.seen, drained.batches) == ({"diverted": 2, "queued": 2}, 1)
    assert "is not finished (shutdown): 2 requests queued" in caplog.text


@pytest_twisted.ensureDeferred
async def test_that_no_job_can_start_ends_the_wait_for_the_rest_as_well(start: Start) -> None:
    stopped = start()
    stopped.begin()
    ending = stopped.coordinator.ending
    ending.why.asked(END_OF_WALK, idle=False)
    assert ending.why.settles
    ending.no_job_starts("all died of the same")
    assert (ending.why.reason, ending.why.ends_jobs) == ("no_job_starts", True)


@pytest_twisted.ensureDeferred
async def test_where_no_job_can_start_those_on_nodes_are_ended_and_the_run_goes_on_another_time(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = start()
    stopped.begin()
    drained: Any = Drained(stopped)
    stopped.coordinator.dispatcher = stopped.coordinator.ending.dispatcher = drained
    find(stopped, 1, 2)
    for _ in range(2):  # jobs that die meanwhile
        stopped.coordinator.ending.no_job_starts("the first 2 jobs died of the same: TypeError")
    assert await told(stopped) == ["no_job_starts"]
    said = "No job of this run can start: the first 2 jobs died of the same: TypeError. When that"
    assert caplog.text.count(said) == 1
    assert not drained.sends
    await stopped.coordinator.ending.shut_down("no_job_starts")
    assert drained.dismissed
    assert drained.seen == {"diverted": 2, "queued": 2}
    assert "the same command takes it up again" in caplog.text


@pytest.mark.parametrize(
    ("reason", "stops"),
    [("shutdown", False), ("memusage_exceeded", False), ("closespider_timeout", True), ("bye", True)],
)
@pytest_twisted.ensureDeferred
async def test_a_limit_and_the_spider_stop_the_run_and_what_interrupts_it_does_not(
    start: Start, caplog: pytest.LogCaptureFixture, reason: str, stops: bool
) -> None:
    caplog.set_level("INFO")
    stopped = start()
    taker = stopped.begin()
    drained: Any = Drained(stopped)
    taker.room = 1
    find(stopped, 1, 2, 3, 4)
    stopped.coordinator.diversion.divert()
    stopped.coordinator.dispatcher = stopped.coordinator.ending.dispatcher = drained
    stopped.coordinator.ending.connect()
    await close(stopped, reason)
    await stopped.coordinator.ending.shut_down(reason)
    assert (drained.dismissed, drained.sends) == (stops, not stops)
    assert ("4 requests not crawled" in caplog.text) is stops
    assert (f"is not finished ({reason})" in caplog.text) is not stops
    with closing(Ledger(stopped.ledger.path)) as later:
        assert later.begin(IDENTITY, resume=True)
        assert (later.run != stopped.ledger.run) is stops


@pytest.mark.parametrize(
    ("reason", "hurried"),
    [("closespider_pagecount", False), ("closespider_pagecount", True), ("finished", False), ("finished", True)],
)
@pytest_twisted.ensureDeferred
async def test_a_number_of_pages_ends_the_walk_alone_and_what_is_found_until_it_closes_is_waited_for(
    start: Start, reason: str, hurried: bool
) -> None:
    stopped = start()
    taker = stopped.begin()
    taker.room = 1
    find(stopped, 1, 2)
    stopped.coordinator.diversion.divert()
    stopped.crawler.crawling = True
    stopped.coordinator.ending.connect()
    await close(stopped, reason)
    ending = Deferred.fromCoroutine(stopped.coordinator.ending._settle())
    assert not ending.called
    assert walked(stopped)
    if hurried:
        stopped.crawler.crawling = False
    else:
        stopped.ledger.verdicts.settle(taker.attempts[0], receipt(taker.attempts[0]), max_attempts=1)
    stopped.clock.advance(1)
    assert ending.called
    assert stopped.ledger.account.settled() is not hurried


@pytest_twisted.ensureDeferred
async def test_when_all_is_crawled_the_run_is_given_no_more(start: Start) -> None:
    stopped = start()
    stopped.begin()
    ending = stopped.coordinator.ending
    ending.why.asked("finished", idle=True)
    assert ending.why.takes_more
    await ending._wind_up()
    assert not ending.why.takes_more


@pytest.mark.parametrize("began", [False, True])
@pytest_twisted.ensureDeferred
async def test_the_ledger_is_closed_whatever_fails(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, began: bool
) -> None:
    stopped = start()
    if began:
        stopped.begin()

    def fail() -> None:
        raise LedgerUnavailableError("disk is full")

    closed: list[bool] = []
    monkeypatch.setattr(stopped.coordinator.cutter, "cut_all", fail)
    with monkeypatch.context() as patch:
        patch.setattr(stopped.ledger, "close", lambda: closed.append(True))
        await stopped.coordinator.ending.shut_down("finished")
    assert closed == [True]
    assert ("can't be written: disk is full" in caplog.text) == began
    assert getattr(stopped.coordinator.dispatcher, "drained", False) == began


# With items that are to be stored


class Keeper:
    """In place of what keeps items. *told*: what it was asked to do."""

    def __init__(self) -> None:
        self.idle = self.safe = self.stores = True
        self.told: list[str] = []

    def own_is_safe(self) -> bool:
        return self.safe

    async def finish(self) -> None:
        self.told.append("finish")

    async def close(self) -> bool:
        self.told.append("close")
        return self.stores

    def ended(self) -> None:
        self.told.append("ended")


@pytest.fixture
def keeping(start: Start) -> tuple[Stopped, Keeper]:
    """A coordinator whose run has begun, without a request for the fleet."""
    stopped, keeper = start(), Keeper()
    stopped.begin()
    drained: Any = Drained(stopped)
    stopped.coordinator.dispatcher = stopped.coordinator.ending.dispatcher = drained
    stopped.coordinator.ending.keeper = keeper
    return stopped, keeper


def walked(stopped: Stopped) -> bool:
    with closing(LedgerReader(stopped.ledger.path)) as reader:
        return reader.runs()[-1].walked is not None


def test_it_stays_open_while_items_are_on_their_way_into_the_feeds(keeping: tuple[Stopped, Keeper]) -> None:
    stopped, keeper = keeping
    keeper.idle = False
    with pytest.raises(DontCloseSpider):
        stopped.coordinator.ending.idle()
    keeper.idle = True
    stopped.coordinator.ending.idle()


@pytest.mark.parametrize("stores", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_run_whose_feeds_are_not_stored_is_not_over(
    keeping: tuple[Stopped, Keeper], caplog: pytest.LogCaptureFixture, stores: bool
) -> None:
    stopped, keeper = keeping
    keeper.stores = stores
    stopped.coordinator.ending.idle()
    await stopped.coordinator.ending.shut_down("finished")
    assert keeper.told == ["finish", "close", "ended"][: 3 if stores else 2]
    assert ("is not finished: a feed lacks items" in caplog.text) is not stores
    with closing(LedgerReader(stopped.ledger.path)) as reader:
        assert (reader.runs()[-1].ended is not None) is stores


@pytest.mark.parametrize(
    ("reason", "wait", "left", "stores", "well"),
    [
        ("finished", True, 0, True, True),
        ("finished", True, 0, False, False),
        ("closespider_itemcount", True, 2, True, True),  # it is over: what is left is not crawled, by name and reason
        ("shutdown", True, 2, True, False),
        ("fleet_unusable", True, 2, True, False),
        ("finished", False, 0, True, True),
        ("finished", False, 0, False, False),
        ("shutdown", False, 2, True, False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_scrapys_exit_code_tells_whether_the_run_is_settled(
    start: Start, reason: str, wait: bool, left: int, stores: bool, well: bool
) -> None:
    stopped = start(WAIT=wait)
    stopped.begin()
    stopped.coordinator.dispatcher = stopped.coordinator.ending.dispatcher = Drained(stopped)  # type: ignore[assignment]
    keeper = stopped.coordinator.ending.keeper = Keeper()
    keeper.stores = stores
    find(stopped, *range(left))
    if not left:
        stopped.coordinator.ending.idle()
    await stopped.coordinator.ending.shut_down(reason)
    assert stopped.crawler.spider is not None  # as long as there is anybody to ask for it
    stopped.crawler.signals.send_catch_log(signals.engine_stopped)
    assert (stopped.crawler.spider is not None) == well


@pytest.mark.parametrize("stores", [True, False])
@pytest_twisted.ensureDeferred
async def test_own_items_that_are_not_safe_keep_the_walk_from_being_done(
    keeping: tuple[Stopped, Keeper], stores: bool
) -> None:
    """Where the run is over all the same, nobody needs them any more."""
    stopped, keeper = keeping
    keeper.safe, keeper.stores = False, stores
    stopped.coordinator.ending.idle()
    assert stopped.coordinator.walk.done
    assert not walked(stopped)
    await stopped.coordinator.ending.shut_down("finished")
    assert walked(stopped) is stores


@pytest_twisted.ensureDeferred
async def test_where_looking_after_the_run_fails_what_has_come_home_is_stored_all_the_same(
    keeping: tuple[Stopped, Keeper], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stopped, keeper = keeping

    async def fail(seconds: float) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(stopped.coordinator.ending.dispatcher, "drain", fail)
    await stopped.coordinator.ending.shut_down("shutdown")
    assert keeper.told[:2] == ["finish", "close"]
    assert "Looking after the run failed at its end" in caplog.text

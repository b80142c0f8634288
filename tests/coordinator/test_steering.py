"""What operators wish of a crawl that runs, and what it does."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ledgers import IDENTITY, a_batch, receipt, states
from scrapy import Spider

from scrapy_distributed.coordinator.closing import Closing
from scrapy_distributed.coordinator.steering import Steering
from scrapy_distributed.fleet.cancel import KILL_SECONDS
from scrapy_distributed.ledger.answer import Answer
from scrapy_distributed.ledger.sqlite import Ledger
from scrapy_distributed.ledger.wanted import Wanted
from scrapy_distributed.ledger.wishes import Wishes


class Engine:
    paused = False

    def pause(self) -> None:
        self.paused = True

    def unpause(self) -> None:
        self.paused = False


class Dispatcher:
    """With four jobs under way, of which one waits, and one can't count any more."""

    def __init__(self, ledger: Path) -> None:
        self.handover = SimpleNamespace(paused=False)
        self.sent = 0
        states = ((True, True), (True, True), (True, False), (False, True))
        self.dismissed: list[float] = []
        flights = [
            (None, SimpleNamespace(counts=counts, started=started, dismiss=self._dismiss)) for counts, started in states
        ]
        members = {
            name: SimpleNamespace(name=name, drained=False, flights={"j": SimpleNamespace(counts=True, started=True)})
            for name in ("n1", "n2")
        }
        self.fleet = SimpleNamespace(flights=lambda: flights, by_name=members.get, members=list(members.values()))
        self.fleet.slots = lambda: SimpleNamespace(all=4)
        self.looks: list[str] = []
        self.job = SimpleNamespace(version="1764")
        self.ledger: Any = SimpleNamespace(path=ledger, run="r")
        self.pauses = SimpleNamespace(news=lambda: self.looks.append("now"))

    def _dismiss(self, *, kill_after: float) -> None:
        self.dismissed.append(kill_after)

    def send_ready(self) -> None:
        assert not self.handover.paused
        self.sent += 1


class Rig:
    def __init__(self, ledger: Path) -> None:
        self.engine, self.dispatcher = Engine(), Dispatcher(ledger)
        stats: Any = SimpleNamespace(inc_value=lambda name, count: self.counted.append((name, count)))
        crawler: Any = SimpleNamespace(engine=self.engine, spider=Spider("s"), stats=stats)
        self.counted: list[tuple[str, int]] = []
        dispatcher: Any = self.dispatcher
        self.wishes = Wishes(ledger)
        self.closing = Closing()
        self.steering = Steering(crawler, dispatcher=dispatcher, closing=self.closing)

    def wish(self, what: str, about: str = "") -> str:
        number = self.wishes.ask(what, about)
        self.steering.look()
        return self.answer(number).words

    def answer(self, number: int) -> Answer:
        text = self.wishes.answer_of(number)
        assert text is not None
        return Answer.from_text(text)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "s.sqlite")


def test_it_pauses_and_goes_on(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    rig.steering.begin()
    jobs = "2 jobs at work go on, those that wait are taken back"
    paused = f"paused: no page is asked for here, and no batch sent; {jobs}"
    assert rig.wish("pause") == paused
    assert (rig.engine.paused, rig.dispatcher.handover.paused, rig.dispatcher.sent) == (True, True, 0)
    assert rig.wish("pause") == paused
    assert rig.wish("resume") == "it goes on"
    assert (rig.engine.paused, rig.dispatcher.handover.paused, rig.dispatcher.sent) == (False, False, 1)
    assert caplog.messages[0] == f"By an operator's wish: {paused}"


def test_it_cancels_its_jobs(rig: Rig) -> None:
    said = rig.wish("cancel")
    assert said.startswith("paused, and 4 jobs cancelled: ")
    assert (rig.engine.paused, rig.dispatcher.handover.paused, rig.dispatcher.sent) == (True, True, 0)
    assert rig.dispatcher.dismissed == [KILL_SECONDS] * 4
    assert rig.dispatcher.looks == ["now"]


def test_it_drains_nodes_and_uses_them_again(rig: Rig) -> None:
    one, two = rig.dispatcher.fleet.members
    words = "gets no more batches; 1 job at work there, those that wait are taken back"
    assert rig.wish("drain", "n1") == f"n1 {words}"
    assert (one.drained, two.drained, rig.dispatcher.looks) == (True, False, ["now"])
    assert rig.wish("drain", "n2") == f"n2 {words}. It was the last node: nothing is sent until one is undrained"
    assert rig.wish("undrain", "n1") == "n1 gets batches again"
    assert (one.drained, two.drained, rig.dispatcher.sent) == (False, True, 1)
    for what in ("drain", "undrain"):
        assert rig.wish(what, "n3") == "no node 'n3' in this run, only n1, n2"


def test_it_tries_again_what_has_failed(rig: Rig, tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        rig.dispatcher.ledger = ledger
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger, *range(8))
        report = receipt(attempt, failed={"callback ValueError": [0, 1, 2, 3, 4], "dns": [5]}, again=0b100000)
        ledger.verdicts.settle(attempt, report, max_attempts=1)
        left = "left out: their callback had begun, so items of them may be in a feed (--callback takes these as well)"
        assert rig.wish("retry", Wanted().as_text()) == f"1 request to be tried again, 5 left out; {left}"
        assert (rig.dispatcher.sent, rig.counted) == (1, [("distributed/batches", 1)])
        assert rig.wish("retry", Wanted(begun=True).as_text()) == (
            "5 requests to be tried again, 0 left out; of 5 the callback had begun: items that it gave are in the"
            " result already, and come once more; jobs on Scrapyds run egg version 1764, as this crawl began with it:"
            " the next one has what was deployed since"
        )
        assert rig.counted[1:] == [("distributed/batches", 3)]  # of two, two and one: four slots do with three
        assert states(ledger) == {"diverted": 8, "crawled": 2, "queued": 6}
        assert rig.wish("retry", "x") == "found 'x', expected a state, a reason, and whether callbacks may have begun"
        answers = [rig.answer(number) for number in (1, 2, 3)]
        assert [(answer.done, dict(answer.numbers)) for answer in answers] == [
            (True, {"again": 1, "left_out": 5, "begun": 0}), (True, {"again": 5, "left_out": 0, "begun": 5}),
            (False, {}),
        ]  # fmt: skip
        rig.wish("retry", Wanted().as_text())
        assert not rig.answer(4).done


def test_workers_on_this_machine_have_what_was_mended(rig: Rig, tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        rig.dispatcher.ledger = ledger
        rig.dispatcher.job.version = ""  # as where no Scrapyd crawls
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger, 0)
        ledger.verdicts.settle(attempt, receipt(attempt, failed={"callback ValueError": [0]}), max_attempts=1)
        assert rig.wish("retry", Wanted(begun=True).as_text()) == (
            "1 request to be tried again, 0 left out; of 1 the callback had begun: items that it gave are in the result"
            " already, and come once more"
        )


def test_it_tries_nothing_again_while_it_closes(rig: Rig, tmp_path: Path) -> None:
    """Else an attempt that has counted would not any more, when nothing is sent again."""
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        rig.dispatcher.ledger = ledger
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger, *range(4))
        ledger.verdicts.settle(attempt, receipt(attempt, failed={"dns": [0]}, again=1), max_attempts=1)
        rig.closing.asked("closespider_itemcount", idle=False)
        words = "the crawl is closing (closespider_itemcount): ask again when it has ended"
        assert rig.wish("retry", Wanted().as_text()) == words
        assert (rig.dispatcher.sent, rig.counted, states(ledger)["failed"]) == (0, [], 1)
        assert not rig.answer(1).done


def test_what_is_meant_for_another_run_it_does_not_do(rig: Rig, tmp_path: Path) -> None:
    """A ledger may have several that are not over."""
    with closing(Ledger(tmp_path / "s.sqlite")) as ledger:
        rig.dispatcher.ledger = ledger
        ledger.begin(IDENTITY, resume=True)
        attempt = a_batch(ledger, *range(4))
        ledger.verdicts.settle(attempt, receipt(attempt, failed={"dns": [0]}, again=1), max_attempts=1)
        words = f"this crawl is of run {ledger.run}, expected other: the command that began that one goes on with it"
        for number, (what, about) in enumerate([("retry", Wanted(run="other").as_text()), ("cancel", "other")], 1):
            assert rig.wish(what, about) == f"{words}; nothing was changed"
            assert not rig.answer(number).done
        assert (rig.dispatcher.sent, rig.dispatcher.dismissed, states(ledger)["failed"]) == (0, [], 1)
        assert rig.wish("cancel", ledger.run).startswith("paused, and 4 jobs cancelled")
        rig.dispatcher.handover.paused = False
        assert rig.wish("retry", Wanted(run=ledger.run).as_text()).startswith("1 request to be tried again")


def test_what_it_does_not_know(rig: Rig) -> None:
    assert rig.wish("fly") == "this crawl does not know 'fly', only pause, resume, cancel, drain, undrain, retry"
    assert not rig.answer(1).done


def test_what_was_wished_before_it_began_is_not_done(rig: Rig) -> None:
    rig.wishes.ask("pause")
    rig.steering.begin()
    rig.steering.look()
    assert not rig.engine.paused


def test_a_file_that_can_not_be_read_is_told_once_and_holds_up_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.wishes.path.write_text("x" * 1000)
    for _ in range(3):
        rig.steering.look()
    (message,) = caplog.messages
    assert message.startswith("What is wished of the crawl can't be read: ")
    rig.wishes.path.unlink()
    assert rig.wish("pause")

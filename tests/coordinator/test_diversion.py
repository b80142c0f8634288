"""What pages yield for the fleet: taken out of their output, in order, and diverted. The ledger is a real one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ledgers import IDENTITY, states
from scrapy import Request, Spider
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.utils.test import get_crawler

from scrapy_distributed.config.config import Config
from scrapy_distributed.coordinator.cutter import Cutter
from scrapy_distributed.coordinator.diversion import BUFFER, Diversion
from scrapy_distributed.coordinator.sessions import Sessions
from scrapy_distributed.divert.diverter import Diverter
from scrapy_distributed.divert.fingerprint import quick_fingerprint
from scrapy_distributed.divert.jars import Jars
from scrapy_distributed.divert.offsite import Offsite
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.ledger.sqlite import Ledger


class Plain(Spider):
    name = "plain"


class Rig:
    """A diversion and what it works with; the cutter only notes what it is given."""

    def __init__(self, path: Path) -> None:
        crawler = get_crawler(Plain)
        crawler.spider = Plain.from_crawler(crawler)
        self.crawled: list[Request] = []
        crawler.engine = SimpleNamespace(  # type: ignore[assignment]
            crawl=self.crawled.append, downloader=SimpleNamespace(middleware=SimpleNamespace(middlewares=[]))
        )
        assert crawler.stats is not None
        self.stats = crawler.stats
        self.ledger = Ledger(path)
        self.ledger.begin(IDENTITY, resume=True)
        self.begun = True
        self.failures: list[LedgerUnavailableError] = []
        self.queued: list[str] = []
        self.walk = SimpleNamespace(failed=False)
        diverter = Diverter(
            config=Config.from_settings(crawler.settings), spider=crawler.spider, stats=self.stats,
            offsite=Offsite(crawler), fingerprint=quick_fingerprint, occurrence=self.ledger.intake.occurrence,
            filters=True, session_of=lambda request: None,
        )  # fmt: skip
        cutter: Any = SimpleNamespace(
            intake=self.ledger.intake, stats=self.stats, add=self.queued.extend, cut=lambda: None
        )
        walk: Any = self.walk
        self.diversion = Diversion(
            crawler, diverter=diverter, enter=partial(Cutter.divert, cutter), walk=walk,
            sessions=Sessions(Jars(crawler)), begun=lambda: self.begun, ledger_failed=self.failures.append,
        )  # fmt: skip

    def passed(self, *outputs: Any) -> list[Any]:
        return [passed for output in outputs for passed in self.diversion.passed(output)]

    def counted(self, name: str) -> int:
        return int(self.stats.get_value(f"distributed/{name}", 0))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "ledger.sqlite")
    yield rig
    rig.ledger.close()


def target(number: int, **values: Any) -> Request:
    return Request(f"http://a.example/{number}", meta={"distributed": True, **values})


def stuck() -> Request:
    """For the fleet, and can't travel."""
    return Request("http://a.example/stuck", meta={"distributed": True, "open": object()})


def test_what_is_for_the_fleet_is_taken_out_and_all_else_goes_on_in_order(rig: Rig) -> None:
    item, link = {"an": "item"}, Request("http://a.example/next")
    assert rig.passed(item, target(1), link, target(2), None) == [item, link, None]
    assert states(rig.ledger) == {}
    assert rig.diversion.divert() == []
    assert states(rig.ledger) == {"diverted": 2, "queued": 2}
    assert [body.partition("/a.example/")[2][0] for body in rig.queued] == ["1", "2"]
    assert rig.counted("diverted") == 2


def test_a_page_of_very_many_is_diverted_in_parts(rig: Rig) -> None:
    assert rig.passed(stuck(), *map(target, range(BUFFER - 2))) == []
    assert not rig.diversion.full
    assert [request.url for request in rig.passed(target(BUFFER))] == ["http://a.example/stuck"]
    assert states(rig.ledger) == {"diverted": BUFFER - 1, "queued": BUFFER - 1}
    assert not rig.diversion.taken


def test_what_is_known_already_is_counted(rig: Rig) -> None:
    for numbers in ((1, 2, 2, 2), (2, 3)):
        rig.passed(*map(target, numbers))
        rig.diversion.divert()
    assert states(rig.ledger) == {"diverted": 3, "queued": 3, "duplicates": 3}
    assert (rig.counted("diverted"), rig.counted("duplicates"), len(rig.queued)) == (3, 3, 3)


def test_what_can_not_travel_is_crawled_here_also_between_pages(rig: Rig) -> None:
    rig.passed(target(1), stuck())
    assert rig.crawled == []
    rig.diversion.divert_and_crawl()
    assert [request.url for request in rig.crawled] == ["http://a.example/stuck"]
    assert states(rig.ledger) == {"diverted": 1, "queued": 1}


def test_what_a_component_asks_for_before_the_run_has_begun_waits_for_it(rig: Rig) -> None:
    rig.begun = False
    rig.passed(*map(target, range(BUFFER + 1)))
    assert rig.diversion.divert() == []
    assert states(rig.ledger) == {}
    rig.begun = True
    rig.diversion.divert()
    assert states(rig.ledger) == {"diverted": BUFFER + 1, "queued": BUFFER + 1}


def test_where_the_ledger_can_not_be_written_what_can_not_travel_is_crawled_all_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = LedgerUnavailableError("disk is full")

    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(rig.ledger.intake, "divert", fail)
    rig.passed(target(1), stuck())
    assert [request.url for request in rig.diversion.divert()] == ["http://a.example/stuck"]
    assert rig.failures == [error]
    assert not rig.walk.failed  # that is for the one who is told


def test_any_other_error_makes_the_next_run_walk_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("a slip")

    monkeypatch.setattr(rig.diversion, "enter", fail)
    rig.passed(target(1))
    with pytest.raises(RuntimeError, match="a slip"):
        rig.diversion.divert()
    assert rig.walk.failed


# Past the pages


def scheduled(rig: Rig, request: Request) -> bool:
    """Whether *request*, which was given to the engine, goes to the scheduler."""
    try:
        rig.diversion.request_scheduled(request)
    except IgnoreRequest:
        return False
    return True


def test_a_target_that_is_given_to_the_engine_is_diverted(rig: Rig) -> None:
    assert scheduled(rig, Request("http://a/list"))
    assert not scheduled(rig, Request("http://a/1", meta={"distributed": True}))
    rig.diversion.divert_and_crawl()
    assert states(rig.ledger) == {"diverted": 1, "queued": 1}
    assert rig.crawled == []


def test_one_that_can_not_travel_is_crawled_here_and_comes_back_once(rig: Rig) -> None:
    assert not scheduled(rig, Request("http://a/1", meta={"distributed": True, "x": object()}))
    rig.diversion.divert_and_crawl()
    (here,) = rig.crawled
    assert scheduled(rig, here)
    assert scheduled(rig, here.replace(dont_filter=True))  # tried again, or redirected
    assert rig.counted("local/not_serializable") == 1


def test_what_its_page_gives_to_the_engine_with_its_meta_is_diverted_all_the_same(rig: Rig) -> None:
    assert not scheduled(rig, stuck())
    rig.diversion.divert_and_crawl()
    (here,) = rig.crawled
    tried_again = here.replace(dont_filter=True)
    assert scheduled(rig, tried_again)
    response = Response(here.url, request=tried_again)
    rig.diversion.answered(response)
    later = Request("http://a.example/2", meta={**response.meta, "open": None, "distributed": True})
    assert not scheduled(rig, later)
    rig.diversion.divert_and_crawl()
    assert states(rig.ledger) == {"diverted": 1, "queued": 1}


def test_what_a_copy_of_its_meta_is_for_is_diverted_all_the_same(rig: Rig) -> None:
    rig.diversion.taken.append(Request("http://a/1", meta={"distributed": True, "x": object()}))
    (here,) = rig.diversion.divert()
    copy = Request("http://a/2", meta={**here.meta, "x": 1, "distributed": True})
    assert rig.passed(copy) == []
    rig.diversion.divert()
    assert states(rig.ledger) == {"diverted": 1, "queued": 1}

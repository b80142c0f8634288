"""Requests on a worker that no page has yielded."""

from __future__ import annotations

import logging
from contextvars import Context, copy_context
from types import SimpleNamespace
from typing import Any

import pytest
from scrapy import Request, Spider
from scrapy.exceptions import IgnoreRequest
from scrapy.utils.test import get_crawler

from scrapy_distributed.wire.ticket import Ticket
from scrapy_distributed.worker.outcomes import Outcomes
from scrapy_distributed.worker.strays import Strays

REFUSED = "distributed/refused_requests"


class Rig:
    """Strays of a batch of two whose pages make of each request what *passed* makes."""

    def __init__(self) -> None:
        self.outcomes = Outcomes(2)
        self.tickets = [self.outcomes.start(0), self.outcomes.start(1)]
        self.crawled: list[Request] = []
        self.slot = SimpleNamespace(inprogress=set())
        self.crawler: Any = get_crawler(Spider)
        self.crawler.spider = Spider(name="s")
        self.crawler.engine = SimpleNamespace(_slot=self.slot, crawl=self.crawled.append)
        self.asked: list[tuple[Request, Ticket]] = []
        self.answer: Any = lambda request: request
        self.strays = Strays(self.crawler, self.outcomes, self._passed)

    def _passed(self, request: Request, ticket: Ticket) -> Any:
        self.asked.append((request, ticket))
        return self.answer(request)

    def scheduled(self, request: Request) -> bool:
        """Whether *request* goes to the scheduler."""
        try:
            self.strays.scheduled(request)
        except IgnoreRequest:
            return False
        return True

    def page(self, number: int) -> Context:
        """Where the page *number* is parsed."""
        context = copy_context()
        context.run(self.strays.parsing, self.tickets[number])
        return context


@pytest.fixture
def rig() -> Rig:
    return Rig()


ONE = Request("http://a/1")


def test_while_nothing_is_under_way_it_is_refused_counted_and_told_once(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert [rig.scheduled(ONE) for _ in range(3)] == [False] * 3
    assert rig.crawler.stats.get_value(REFUSED) == 3
    assert ["<GET http://a/1>" in record.getMessage() for record in caplog.records] == [True]


def test_the_answer_of_a_downloader_middleware_goes_its_way(rig: Rig) -> None:
    rig.slot.inprogress.add(Request("http://a/0"))
    assert rig.scheduled(ONE)
    assert rig.asked == []


def test_in_a_callback_it_belongs_to_its_page_also_with_another_one_in_between(rig: Rig) -> None:
    first, second = rig.page(0), rig.page(1)
    assert first.run(rig.scheduled, ONE)
    assert second.run(rig.scheduled, ONE)
    assert first.run(rig.scheduled, ONE)
    assert [ticket for _, ticket in rig.asked] == [rig.tickets[number] for number in (0, 1, 0)]


def test_a_page_that_is_over_has_no_more_requests(rig: Rig) -> None:
    page = rig.page(0)
    rig.outcomes.end(rig.tickets[0])
    assert not page.run(rig.scheduled, ONE)  # e.g. spider_idle, in a context that was made while it was parsed
    assert rig.asked == []


def test_a_target_is_reported_and_not_crawled(rig: Rig) -> None:
    rig.answer = lambda request: None
    assert not rig.page(0).run(rig.scheduled, ONE)
    assert rig.crawled == []
    assert rig.crawler.stats.get_value(REFUSED) is None


def test_a_request_that_was_made_anew_is_crawled_in_its_place(rig: Rig) -> None:
    other = Request("http://a/2")
    rig.answer = lambda request: other
    assert not rig.page(0).run(rig.scheduled, ONE)
    assert rig.crawled == [other]


def test_a_handler_that_never_lets_it_close_is_all_that_keeps_it_at_the_second_time(rig: Rig) -> None:
    for ticket in rig.tickets:
        rig.outcomes.end(ticket)
    assert [rig.strays.idle() for _ in range(2)] == [False, True]


def test_what_happens_in_between_begins_the_count_again(rig: Rig) -> None:
    for ticket in rig.tickets:
        rig.outcomes.end(ticket)
    assert not rig.strays.idle()
    rig.outcomes.end(rig.outcomes.follow(0))
    assert [rig.strays.idle() for _ in range(2)] == [False, True]


def test_a_request_that_somebody_holds_back_keeps_it(rig: Rig) -> None:
    rig.outcomes.end(rig.tickets[0])
    assert [rig.strays.idle() for _ in range(3)] == [False] * 3

"""Requests on a worker that no page has yielded: a spider, a pipeline or an extension gives them to the engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest

from scrapy_distributed.wire.ticket import Ticket
from scrapy_distributed.worker.outcomes import Outcomes

logger = logging.getLogger(__name__)

_page: ContextVar[Ticket | None] = ContextVar("page", default=None)


class Strays:
    """What becomes of requests without a ticket.

    One that is made while a page is parsed belongs to that page: *passed* makes of it what it makes of the page's own
    output. One that is made while nothing is under way here, as by a handler of ``spider_idle`` or ``spider_opened``,
    would be made in every job: the coordinator crawls it, so here it is refused. Any other may be the answer of a
    downloader middleware to a request of the batch, and goes its way.
    """

    def __init__(self, crawler: Crawler, outcomes: Outcomes, passed: Callable[[Request, Ticket], Any]) -> None:
        self.crawler = crawler
        self.outcomes = outcomes
        self.passed = passed
        self._idle_at = -1  # the outcomes' steps when the crawl was idle before

    def parsing(self, ticket: Ticket) -> None:
        """The page of *ticket* is parsed from here on, in this context: Scrapy gives each page one of its own."""
        _page.set(ticket)

    def scheduled(self, request: Request) -> None:
        """*request* has no ticket. Raises ``IgnoreRequest`` where it is not to be crawled here."""
        assert self.crawler.engine is not None
        page = _page.get()  # also in a context that was made while that page was parsed
        if page is not None and self.outcomes.is_open(page):
            passed = self.passed(request, page)
            if passed is request:
                return
            if passed is not None:
                self.crawler.engine.crawl(passed)
            raise IgnoreRequest("it is the coordinator's")
        slot = self.crawler.engine._slot
        if slot is None or not slot.inprogress:
            self._refuse(request)

    def _refuse(self, request: Request) -> None:
        assert self.crawler.stats is not None
        if not self.crawler.stats.get_value("distributed/refused_requests"):
            logger.warning(
                "Not crawled in this job: %s. No page of the batch has led to it, so a handler of a signal as"
                " spider_idle asks for it, and would in every job: the coordinator crawls it (the next ones are only"
                " counted)", request, extra={"spider": self.crawler.spider},
            )  # fmt: skip
        self.crawler.stats.inc_value("distributed/refused_requests")
        raise IgnoreRequest("no page of the batch has led to it")

    def idle(self) -> bool:
        """The crawl is idle. Returns whether it is so for the second time with nothing in between and nothing open:
        then a handler that never wants it to close is all that keeps it."""
        before, self._idle_at = self._idle_at, self.outcomes.steps
        return before == self._idle_at and not self.outcomes.open

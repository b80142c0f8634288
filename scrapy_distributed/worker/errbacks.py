"""Failures of a worker's requests: Scrapy tells them to the errback alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from inspect import isasyncgen, isawaitable
from typing import Any

from scrapy import Request, Spider
from scrapy.crawler import Crawler
from scrapy.exceptions import CloseSpider
from scrapy.utils.asyncgen import as_async_generator
from scrapy.utils.spider import iterate_spider_output
from twisted.python.failure import Failure

from scrapy_distributed.wire.reasons import reason_of
from scrapy_distributed.wire.ticket import Ticket, Tickets, ticket_of
from scrapy_distributed.worker.outcomes import Outcomes


class Errbacks:
    """The errback of each request with a ticket: it notes the failure in *outcomes*, and goes on as Scrapy would.

    *passed* makes of what an own errback yields what it makes of a page's output; *parsing* is told whose it is.
    *in_chain*: serials of tickets whose output runs through the spider middlewares just now.
    """

    def __init__(
        self, crawler: Crawler, *, outcomes: Outcomes, passed: Callable[[Any, Ticket], Any],
        parsing: Callable[[Ticket], None],
    ) -> None:  # fmt: skip
        self.crawler = crawler
        self.outcomes = outcomes
        self.passed = passed
        self.parsing = parsing
        self.in_chain: set[int] = set()
        self.tickets = Tickets(crawler.spider, self.called)

    def called(self, spider: Spider, failure: Failure) -> Any:
        """With the request's own errback, or without one."""
        request: Request = failure.request  # type: ignore[attr-defined]
        ticket = ticket_of(request)
        own = self.tickets.own_errback(request)
        if ticket is None:
            return own(failure) if own else failure
        self.outcomes.note(ticket, *reason_of(failure.value), early=True)  # type: ignore[arg-type]
        if own is None:
            self.outcomes.end(ticket)
            return failure
        self.parsing(ticket)
        try:
            with self._closing():
                output = own(failure)
        except Exception:
            self.outcomes.end(ticket)
            raise
        if isinstance(output, Failure) or output is None:
            self.outcomes.end(ticket)
            return output
        if isasyncgen(output) or isawaitable(output):
            return self._output_async(output, ticket)
        return self._output(iterate_spider_output(output), ticket)

    def closes_itself(self) -> None:
        """The spider has raised ``CloseSpider``, or closes for a reason of its own."""
        assert self.crawler.stats is not None
        self.crawler.stats.set_value("distributed/closed_itself", 1)

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """What an errback raises may pass no spider middleware."""
        try:
            yield
        except CloseSpider:
            self.closes_itself()
            raise

    def _output(self, output: Iterable[Any], ticket: Ticket) -> Iterable[Any]:
        if ticket[1] in self.in_chain:  # a failed input (e.g. HttpError): process_spider_output sees this output
            yield from output
            return
        try:  # a failed download: Scrapy takes this output past the spider middlewares
            with self._closing():
                for element in output:
                    if (passed := self.passed(element, ticket)) is not None:
                        yield passed
        finally:
            self.outcomes.end(ticket)

    async def _output_async(self, output: Any, ticket: Ticket) -> AsyncIterator[Any]:
        in_chain = ticket[1] in self.in_chain
        try:
            with self._closing():
                if isawaitable(output):
                    output = iterate_spider_output(await output)
                async for element in as_async_generator(output):
                    passed = element if in_chain else self.passed(element, ticket)
                    if passed is not None:
                        yield passed
        finally:
            if not in_chain:
                self.outcomes.end(ticket)

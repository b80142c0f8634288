"""The ticket: what a request on a worker carries in its meta, so that its end can be told."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from types import MethodType
from typing import Any

from scrapy import Request, Spider
from twisted.python.failure import Failure

Ticket = tuple[int, int]  # position of the start request, serial number

TICKET = "distributed_ticket"  # meta
ERRBACK = "distributed_errback"  # meta: the request's own errback, by name where it is a method of the spider


def ticket_of(source: Any) -> Ticket | None:
    """The ticket of a response, a request, or a failure that names its request."""
    request = source if isinstance(source, Request) else getattr(source, "request", None)
    ticket = None if request is None else request.meta.get(TICKET)
    return None if ticket is None else (ticket[0], ticket[1])


class Tickets:
    """Puts tickets on requests of *spider*, and *errback* in place of their own: Scrapy tells a failure to it alone."""

    def __init__(self, spider: Any, errback: Callable[[Spider, Failure], Any]) -> None:
        self.spider = spider
        self.errback = MethodType(errback, spider)
        spider._distributed_errback = self.errback  # by this name it is written to a queue on disk

    def put(self, request: Request, ticket: Ticket) -> Request:
        """*request*, which has none, with *ticket*."""
        request.meta[TICKET] = ticket
        own = request.errback
        if own is not None:
            name = getattr(own, "__name__", "")
            request.meta[ERRBACK] = name if self._method(name) == own else own
        request.errback = self.errback
        return request

    def without(self, request: Request) -> Request:
        """*request* as the spider means it: it may be a copy of one with a ticket, or of its meta, or that very one."""
        if TICKET not in request.meta and ERRBACK not in request.meta and request.errback != self.errback:
            return request
        request = request.copy()
        own = self.own_errback(request)
        request.meta.pop(TICKET, None)
        request.meta.pop(ERRBACK, None)
        if request.errback == self.errback:
            request.errback = own
        return request

    def own_errback(self, request: Request) -> Callable[[Failure], Any] | None:
        """What ``put`` has put aside. No property is read for it: who copies meta may have put anything there."""
        own = request.meta.get(ERRBACK)
        own = self._method(own) if isinstance(own, str) else own
        return own if callable(own) else None

    def _method(self, name: str) -> Any:
        is_property = isinstance(getattr(type(self.spider), name, None), property | cached_property)
        return None if is_property else getattr(self.spider, name, None)

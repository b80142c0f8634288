"""Tells all who listen of an item that has come home, as Scrapy tells them of one that is scraped.

Scrapy makes a task for each receiver and looks up its arguments, for each item: that costs more than to write the item
into a feed. Here it is done once, until a receiver is connected or gone; where one may wait for something, it is
Scrapy's way.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from inspect import CO_VARKEYWORDS, iscoroutinefunction
from typing import Any

from pydispatch.dispatcher import WEAKREF_TYPES, getAllReceivers, getReceivers
from pydispatch.dispatcher import Any as Anything
from pydispatch.robustapply import function
from scrapy import signals
from scrapy.crawler import Crawler

logger = logging.getLogger("scrapy.utils.signal")

_KNOWN = ("scrapy", "scrapy_distributed")


class ItemSignal:
    """``item_scraped`` of *crawler*, for items without a response."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler
        self._arguments: dict[str, Any] = {
            "signal": signals.item_scraped, "sender": crawler, "response": None, "spider": crawler.spider, "item": None,
        }  # fmt: skip
        self._connected: list[Any] = []  # references to receivers, as pydispatch has them
        self._calls: list[tuple[Callable[[], Any], tuple[str, ...]]] | None = []  # of what is connected, if it is plain

    def send(self, item: Any) -> Awaitable[Any] | None:
        """Tell of *item*. Returns what is to be awaited, if anything is."""
        sender, signal = self._crawler, signals.item_scraped
        connected = [
            *getReceivers(sender, signal), *getReceivers(sender, Anything),
            *getReceivers(Anything, signal), *getReceivers(Anything, Anything),
        ]  # fmt: skip
        if connected != self._connected:
            self._connected, self._calls = connected, self._look_up()
        if self._calls is None:
            return self._crawler.signals.send_catch_log_async(
                signal=signal, item=item, response=None, spider=self._crawler.spider
            )
        arguments = {**self._arguments, "item": item}
        for refer, names in self._calls:
            if (receiver := refer()) is None:
                continue
            try:
                receiver(**{name: arguments[name] for name in names})
            except Exception:
                logger.error(
                    "Error caught on signal handler: %(receiver)s", {"receiver": receiver}, exc_info=True,
                    extra={"spider": self._crawler.spider},
                )  # fmt: skip
        return None

    def _look_up(self) -> list[tuple[Callable[[], Any], tuple[str, ...]]] | None:
        found = []
        for reference in getAllReceivers(self._crawler, signals.item_scraped):
            refer = reference if isinstance(reference, WEAKREF_TYPES) else lambda kept=reference: kept
            if (receiver := refer()) is None:
                continue
            if not _is_plain(receiver):
                return None
            found.append((refer, self._taken(receiver)))
        return found

    def _taken(self, receiver: Any) -> tuple[str, ...]:
        """The names of the arguments that *receiver* takes, as pydispatch finds them."""
        _, code, first = function(receiver)
        if code.co_flags & CO_VARKEYWORDS:
            return tuple(self._arguments)
        return tuple(name for name in code.co_varnames[first : code.co_argcount] if name in self._arguments)


def _is_plain(receiver: Any) -> bool:
    """Whether it is known to wait for nothing."""
    return receiver.__module__.partition(".")[0] in _KNOWN and not iscoroutinefunction(receiver)

"""The pages of the coordinator's own crawl, which workers may come upon as well: each brings its items once, as if the
dupe filter of one crawl had seen all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.http import Response

from scrapy_distributed.coordinator.keeper import HomeLedger
from scrapy_distributed.coordinator.walk import TRIED
from scrapy_distributed.divert.duplicates import are_filtered
from scrapy_distributed.divert.fingerprint import fingerprinter_of
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.items.lines import MAX_PAGE

_RETRIED = ("retry_times", TRIED)  # meta of requests that no dupe filter looks at again


class OwnPages:
    """Those of *crawler* that have items. *ledger* knows those that workers have brought items of, as soon as its run
    has *begun*; *ledger_failed* is called if it can't be written."""

    def __init__(
        self, crawler: Crawler, ledger: HomeLedger, *, begun: Callable[[], bool],
        ledger_failed: Callable[[LedgerUnavailableError], None],
    ) -> None:  # fmt: skip
        self.crawler = crawler
        self.ledger = ledger
        self.begun = begun
        self.ledger_failed = ledger_failed
        self.filters = are_filtered(crawler.settings)
        self._welcome: WeakKeyDictionary[Response, bool] = WeakKeyDictionary()

    def page(self, response: Any) -> str:
        """The key of the request that gave *response*, in hexadecimal digits; '' where there is none, or where no dupe
        filter looks at it."""
        request = getattr(response, "request", None)
        if (
            request is None
            or not self.filters
            or (request.dont_filter and not any(name in request.meta for name in _RETRIED))
        ):
            return ""
        key = fingerprinter_of(self.crawler)(request).hex()
        return key if len(key) <= MAX_PAGE else ""

    def takes(self, output: Any, response: Any) -> bool:
        """Whether *output* of the coordinator's own page goes on: no item of a page that a worker has brought items
        of."""
        if output is None or isinstance(output, Request) or not self.begun():
            return True
        try:
            welcome = self.is_welcome(response)
        except LedgerUnavailableError as error:
            self.ledger_failed(error)
            return True
        if not welcome:
            assert self.crawler.stats is not None
            self.crawler.stats.inc_value("distributed/own_items_twice")
        return welcome

    def is_welcome(self, response: Any) -> bool:
        """Whether the items of *response* count: no worker has brought them before, and none will after."""
        page = self.page(response)
        if not page:
            return True
        if response not in self._welcome:
            self._welcome[response] = self.ledger.enter_pages([bytes.fromhex(page)])
        return self._welcome[response]

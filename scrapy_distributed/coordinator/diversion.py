"""What the coordinator's own pages yield for the fleet: taken out of their output, and diverted into the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response

from scrapy_distributed.coordinator.sessions import Sessions
from scrapy_distributed.coordinator.walk import Walk
from scrapy_distributed.divert.diverter import HERE, Diverter, Entry
from scrapy_distributed.divert.shared import Shared
from scrapy_distributed.errors import LedgerUnavailableError
from scrapy_distributed.wire.session import Session

BUFFER = 200  # requests of one page, or of the start, that are taken away before they are diverted


class Diversion:
    """*taken*: what is still to be diverted, of the pages that are being parsed.

    *enter* is given ledger entries and their sessions; *begun* tells whether the run has begun, *ledger_failed* is
    called if the ledger can't be written.
    """

    def __init__(
        self,
        crawler: Crawler,
        *,
        diverter: Diverter,
        enter: Callable[[list[Entry], Mapping[str, Session]], None],
        walk: Walk,
        sessions: Sessions,
        begun: Callable[[], bool],
        ledger_failed: Callable[[LedgerUnavailableError], None],
    ) -> None:
        self.crawler = crawler
        self.diverter = diverter
        self.enter = enter
        self.walk = walk
        self.sessions = sessions
        self.begun = begun
        self.ledger_failed = ledger_failed
        self.taken: list[Request] = []
        self._shared = Shared(diverter.spider)

    def passed(self, output: Any) -> Iterable[Any]:
        """What goes on now that a page has yielded *output*: that, if it is not for the fleet; else nothing, or what
        is to be crawled here of all that was taken away."""
        if not self.takes(output):
            return (output,)
        return self.divert() if self.full else ()

    def takes(self, output: Any) -> bool:
        """Take *output* away, if it is a request for the fleet. A page's requests are diverted together."""
        if not (isinstance(output, Request) and self.diverter.is_target(output)):
            return False
        self.taken.append(output)
        return True

    @property
    def full(self) -> bool:
        return len(self.taken) >= BUFFER

    def divert(self) -> list[Request]:
        """What was taken away goes into the ledger, before the next page's callback runs. Returns what is to be
        crawled here."""
        if not self.taken or not self.begun():  # the run has not begun, and a component has asked for pages
            return []
        taken, self.taken = self.taken, []
        self._shared.look(taken)
        here: list[Request] = []
        try:
            entries, here = self.diverter.entries(taken)
            self.enter(entries, self.sessions.taken())
        except LedgerUnavailableError as error:
            self.ledger_failed(error)
        except Exception:
            self.walk.failed = True
            raise
        for request in here:
            request.meta[HERE] = True
        return here

    def request_scheduled(self, request: Request) -> None:
        """A target that no page has yielded, but a spider or a component gives to the engine, is for the fleet as well.
        Raises ``IgnoreRequest`` then: it is diverted when the crawl is idle, or with those of a page."""
        if not request.meta.get(HERE) and self.takes(request):
            raise IgnoreRequest("it is diverted")

    def answered(self, response: Response) -> None:
        """Its page is the spider's now: a copy of its ``meta`` keeps no other request here. Until then copies are the
        request itself, tried again or redirected."""
        response.meta.pop(HERE, None)

    def divert_and_crawl(self) -> None:
        """The same between pages."""
        for request in self.divert():
            assert self.crawler.engine is not None
            self.crawler.engine.crawl(request)

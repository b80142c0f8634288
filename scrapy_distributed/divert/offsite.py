"""The project's own off-site rule, asked from where Scrapy does not ask it.

Since Scrapy 2.11.2 the rule is a downloader middleware: a request that a spider middleware takes away never meets it,
and a request that it filters before the scheduler gives no signal.
"""

from __future__ import annotations

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.offsite import OffsiteMiddleware
from scrapy.exceptions import IgnoreRequest

KNOWN_HOSTS = 10_000


class Offsite:
    """Asks the crawl's ``OffsiteMiddleware``, or a subclass of the project; without one everything is on site."""

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler
        self._middleware: OffsiteMiddleware | None = None
        self._looked = False
        self._allowed: list[str] = []
        self._known: dict[str, bool] = {}  # host and port -> whether Scrapy's own rule filters it

    def filters(self, request: Request) -> bool:
        """Whether the rule filters *request*. Leaves no trace in log or stats."""
        excepted = request.dont_filter or request.meta.get("allow_offsite")
        return not excepted and self.forbids(request)

    def forbids(self, request: Request) -> bool:
        """The same for one that can't except itself from the rule."""
        middleware = self._find()
        if middleware is None:
            return False
        spider = self.crawler.spider
        assert spider is not None
        if type(middleware).should_follow is not OffsiteMiddleware.should_follow:
            return not middleware.should_follow(request, spider)
        # Scrapy's rule sees the host alone, and parsing the URL is nearly all of its price.
        allowed = list(getattr(spider, "allowed_domains", None) or ())
        if allowed != self._allowed or len(self._known) >= KNOWN_HOSTS:
            self._allowed = allowed
            self._known.clear()
        host = request.url.partition("://")[2].partition("/")[0]
        if host not in self._known:
            self._known[host] = not middleware.should_follow(request, spider)
        return self._known[host]

    def filter(self, request: Request) -> bool:
        """The same, and the rule logs and counts it as its own (``offsite/filtered``)."""
        if not self.filters(request):
            return False
        assert self._middleware is not None
        try:
            self._middleware.process_request(request)
        except IgnoreRequest:
            return True
        return False

    def _find(self) -> OffsiteMiddleware | None:
        if not self._looked:  # not earlier: the crawler knows its engine only when that is complete
            self._looked = True
            self._middleware = self.crawler.get_downloader_middleware(OffsiteMiddleware)
        return self._middleware

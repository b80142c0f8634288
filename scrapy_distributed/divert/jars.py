"""The jars of cookies of a crawl: what they would send, read on the coordinator and put into those of a worker."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Iterable, MutableMapping, Sequence
from http.cookiejar import Cookie, CookiePolicy, DefaultCookiePolicy
from itertools import islice
from typing import Any

from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.cookies import CookiesMiddleware
from scrapy.http.cookies import CookieJar

logger = logging.getLogger(__name__)

FEW = 100  # cookies of a jar, which are compared to see whether they have changed
MOST_SENT = 1_000  # decisions of a jar that are kept

# Site and path of a URL that is written as ``http.cookiejar`` writes it.
_URL = re.compile(r"([a-z]+://[^/?#]*)(/[A-Za-z0-9/._~-]*)(?:[?#]|$)")


class Jars:
    """Those of the crawl's ``CookiesMiddleware``, or of a subclass of the project, by ``meta["cookiejar"]``.

    Without that middleware there are none. What ``http.cookiejar`` has no public way for is asked here alone.

    It takes 100 us to ask a jar, so it is asked once for all requests that its policy can't tell apart: those to one
    site whose paths are below the same of the paths for which the site has cookies.
    """

    def __init__(self, crawler: Crawler) -> None:
        self.crawler = crawler
        self._jars: MutableMapping[Any, CookieJar] | None = None
        self._looked = False
        self._empty: bool | None = None  # whether no jar has a cookie
        self._known: dict[Any, _Known] = {}  # by key of the jar
        self._valid: dict[Any, _Known] = {}  # of these, what holds until ``forget`` is called

    def sent(self, request: Request) -> tuple[Cookie, ...]:
        """The cookies that *request* would be sent with now, as its jar decides. What it has decided holds until
        ``forget`` is called."""
        jars: Any = self._find() if self._empty is None else self._jars
        if self._empty is None:
            self._empty = not any(jar.jar._cookies for jar in (jars or {}).values())
        if self._empty or request.meta.get("dont_merge_cookies", False):
            return ()
        key = request.meta.get("cookiejar")
        jar = jars.get(key)
        if jar is None:
            return ()
        named = _URL.match(request.url)
        if named is None or type(jar.jar._policy) is not DefaultCookiePolicy:
            return self._ask(jar, request)[0]  # it may look at all of the URL
        site, path = named[1], named[2]
        known = self._valid.get(key)
        if known is None:
            known = self._valid[key] = self._still_known(key, jar)
        paths = known.paths.get(site)
        sent = None if paths is None else known.sent.get((site, *_below(path, paths)))
        if sent is None:
            sent, asked = self._ask(jar, request)
            paths = known.paths[site] = [one for one in asked if one != "/"]
            group = (site, *_below(path, paths))
            known.sent[group] = sent
        return sent

    def forget(self) -> None:
        """Jars may have changed, or time have passed."""
        self._empty = None
        self._valid.clear()

    def _still_known(self, key: Any, jar: Iterable[Cookie]) -> _Known:
        """What *jar* has decided holds as long as it has the very same cookies, if none has expired."""
        cookies = tuple(islice(jar, FEW + 1))
        known = self._known.get(key)
        same = known is not None and known.cookies == cookies and known.ends > time.time()
        if known is None or not same or len(cookies) > FEW or len(known.sent) > MOST_SENT:
            known = self._known[key] = _Known(cookies)
        return known

    def _ask(self, jar: Any, request: Request) -> tuple[tuple[Cookie, ...], list[str]]:
        """What *jar* would send with *request*, and for which paths it has cookies of that site."""
        policy = _Asked(jar.jar._policy)
        had_header = "Cookie" in request.headers
        jar.set_policy(policy)
        try:
            jar.add_cookie_header(request)
        finally:
            jar.jar.set_policy(policy.asked)
            if not had_header:
                request.headers.pop("Cookie", None)
        return tuple(policy.sent), policy.paths

    def now(self, key: Any, cookie: Cookie) -> Cookie:
        """What has become of *cookie* of the jar with *key*: itself, if that has no other of its domain, path, name."""
        jar: Any = (self._find() or {}).get(key)
        paths = jar.jar._cookies.get(cookie.domain, {}) if jar is not None else {}
        found: Cookie = paths.get(cookie.path, {}).get(cookie.name, cookie)
        return found

    def put(self, key: Any, cookies: Iterable[Cookie]) -> None:
        """Into the jar with *key*, in place of others of the same domain, path and name."""
        jars = self._find()
        if jars is not None:
            for cookie in cookies:
                jars[key].set_cookie(cookie)

    def warn(self) -> None:
        """Log that this crawl has no jars, unless its settings say that it wants none."""
        if self._find() is None and self.crawler.settings.getbool("COOKIES_ENABLED"):
            logger.warning(
                "Cookies do not go to the workers: found neither Scrapy's CookiesMiddleware nor a subclass of it with"
                " its jars among the DOWNLOADER_MIDDLEWARES. If the crawl needs none, set COOKIES_ENABLED = False",
                extra={"spider": self.crawler.spider},
            )

    def _find(self) -> MutableMapping[Any, CookieJar] | None:
        if not self._looked:  # not earlier: the crawler knows its engine only when that is complete
            self._looked = True
            self._jars = getattr(self.crawler.get_downloader_middleware(CookiesMiddleware), "jars", None)
        return self._jars


def _below(path: str, paths: Sequence[str]) -> list[bool]:
    """Whether *path* is below each of *paths*, as ``DefaultCookiePolicy`` has it, and RFC 6265 in 5.1.4."""
    return [path.startswith(one) and (one.endswith("/") or path[len(one) : len(one) + 1] in ("", "/")) for one in paths]


class _Known:
    """What a jar with *cookies* has decided: *paths* for which a site has cookies, by site, and what is *sent*, by site
    and which of its paths a request is below."""

    def __init__(self, cookies: tuple[Cookie, ...]) -> None:
        self.cookies = cookies  # equal by identity: a jar replaces what is set anew
        self.ends = min((cookie.expires for cookie in cookies if cookie.expires is not None), default=math.inf)
        self.paths: dict[str, list[str]] = {}
        self.sent: dict[tuple[Any, ...], tuple[Cookie, ...]] = {}


class _Asked(CookiePolicy):
    """The policy *asked*, the paths that it was asked for, and the cookies that it has let pass."""

    def __init__(self, asked: CookiePolicy) -> None:
        self.asked = asked
        self.sent: list[Cookie] = []
        self.paths: list[str] = []

    def domain_return_ok(self, domain: str, request: Any) -> bool:
        return self.asked.domain_return_ok(domain, request)

    def path_return_ok(self, path: str, request: Any) -> bool:
        self.paths.append(path)
        return self.asked.path_return_ok(path, request)

    def return_ok(self, cookie: Cookie, request: Any) -> bool:
        passes = self.asked.return_ok(cookie, request)
        if passes:
            self.sent.append(cookie)
        return passes

"""What of the targets that workers find may go to the fleet: asked by the worker that has found one, and once more by
the coordinator that reads it in a receipt, which any node can write.

A find passes that the project's own rule calls a target, and whose ``meta`` changes neither where it is sent, nor what
is obeyed, nor with whose state. Another is crawled by the worker that has found it, so none is lost; in a receipt it is
proof that no worker of this version has written that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

from scrapy import Request, Spider
from scrapy.utils.httpobj import urlparse_cached

from scrapy_distributed.divert.callbacks import TargetCallbacks

MAX_URL = 32 * 1024  # characters: a fingerprint of one takes up to a tenth of a second
MOST_RETRIES = 10  # of ``max_retry_times``: more would keep a worker busy for ever
LARGEST = 2**31

#: Keys of Scrapy, and of its middlewares for themselves, that a find does not carry.
REFUSED = frozenset((
    # where it is sent, and through what
    "proxy", "_auth_proxy", "_scheme_proxy", "bindaddress", "verbatim_url", "is_secure",
    "ftp_user", "ftp_password", "ftp_passive", "ftp_local_filename",
    # what is obeyed
    "allow_offsite", "dont_obey_robotstxt", "download_maxsize", "download_warnsize", "autothrottle_dont_adjust_delay",
    # with whose state
    "cookiejar", "http_user", "http_pass", "http_auth_domain", "cached_response", "cache_timestamp",
))  # fmt: skip
#: How the keys begin by which download handlers of others are told servers, proxies and scripts; and those of ours.
REFUSED_PREFIXES = (
    "playwright_", "splash", "zyte_api", "crawlera", "zyte_smartproxy", "impersonate_args", "selenium", "distributed_",
)  # fmt: skip


def _counter(value: Any, request: Request) -> bool:
    return type(value) is int and 0 <= value < LARGEST  # below 0 it would take for ever to reach a limit


def _retries(value: Any, request: Request) -> bool:
    return type(value) is int and 0 <= value <= MOST_RETRIES


def _own_slot(value: Any, request: Request) -> bool:
    """What the downloader would take anyway: a copy of a page's meta has it."""
    return bool(value == (urlparse_cached(request).hostname or ""))


def _policy(value: Any, request: Request) -> bool:
    return isinstance(value, str) and "." not in value  # else Scrapy imports what it names


def _host(request: Request) -> str:
    return urlparse_cached(request).netloc.rpartition("@")[2].lower()


#: Keys that pass with some values only.
CHECKED: dict[str, Callable[[Any, Request], bool]] = {
    "depth": _counter, "retry_times": _counter, "redirect_times": _counter, "max_retry_times": _retries,
    "download_slot": _own_slot, "referrer_policy": _policy,
}  # fmt: skip


class FindRule:
    """The rule of *spider*'s project, whose target rules are *rules* and target callbacks *callbacks*. *passing*:
    patterns of further ``meta`` keys that finds may carry."""

    def __init__(
        self, spider: Spider, *, rules: Iterable[int], callbacks: TargetCallbacks, passing: Iterable[str]
    ) -> None:
        self.rules = tuple(rules)
        self.callbacks = callbacks
        self.passing = tuple(passing)
        self._of_rules = getattr(spider, "_callback", None)  # CrawlSpider's own, which looks up that of the rule
        self._known: dict[str, bool] = {}  # key -> whether it passes with any value

    def objection(self, request: Request) -> str:
        """Why *request* may not go from a worker to the fleet; '' if it may. It asks nothing that *request* says of
        itself."""
        if not self._is_target(request):
            name = getattr(request.callback, "__name__", "parse")
            return f"the callback {name} is no target's: DISTRIBUTED_TARGET_CALLBACKS does not name it"
        if len(request.url) > MAX_URL:
            return f"its URL has more than {MAX_URL:,} characters"
        for key, value in request.meta.items():
            if key in CHECKED:
                if not (CHECKED[key](value, request) or self._is_named(key)):
                    return f"meta[{key!r}] with such a value does not go from a worker to the fleet"
            elif isinstance(key, str) and not self._passes(key):  # another key can't travel
                return f"meta[{key!r}] does not go from a worker to the fleet (DISTRIBUTED_FOUND_META lets it)"
        if any(host.decode("latin-1").lower() != _host(request) for host in request.headers.getlist("Host")):
            return "its header Host names another host than its URL"
        return ""

    def _is_target(self, request: Request) -> bool:
        """Of a project that names neither rules nor callbacks only the spider's code knows its targets."""
        if request.callback in self.callbacks:
            return True
        if self.rules:
            return request.meta.get("rule") in self.rules and request.callback == self._of_rules
        return not self.callbacks

    def _passes(self, key: str) -> bool:
        if key not in self._known:
            if len(self._known) > 10_000:  # of a forged receipt
                self._known.clear()
            refused = key in REFUSED or key.startswith(REFUSED_PREFIXES)
            self._known[key] = not refused or self._is_named(key)
        return self._known[key]

    def _is_named(self, key: str) -> bool:
        return any(fnmatchcase(key, pattern) for pattern in self.passing)

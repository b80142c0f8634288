"""Which requests of the coordinator's crawl are the fleet's, and what the ledger gets of them."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from scrapy import Request, Spider
from scrapy.spiders import CrawlSpider

from scrapy_distributed.config.config import Config
from scrapy_distributed.divert.callbacks import TargetCallbacks
from scrapy_distributed.divert.finds import FindRule
from scrapy_distributed.divert.offsite import Offsite
from scrapy_distributed.errors import (
    ConfigError,
    LedgerUnavailableError,
    NotSerializableError,
    TooLargeError,
    WireError,
)
from scrapy_distributed.wire.payload import check_size
from scrapy_distributed.wire.request import encode_request
from scrapy_distributed.wire.session import with_session
from scrapy_distributed.words import shortened

logger = logging.getLogger(__name__)

MARK = "distributed"  # meta: True for a request that is the fleet's; it does not travel
HERE = "distributed_here"  # meta: True for a target that is crawled on the coordinator; it does not travel
STAYED = "distributed/local/"  # stats: how many of a kind were not diverted, and crawled where they were found
Entry = tuple[bytes, str]  # key, encoded request: what the ledger gets


class Diverter:
    """Tells the targets of *config* among the requests of *spider*, and makes ledger entries of them.

    *fingerprint* is the crawl's own; *occurrence* counts the calls for one key; *filters*: whether the crawl has a dupe
    filter; *session_of* gives the id of the session that goes with a request, if any.
    """

    def __init__(
        self,
        *,
        config: Config,
        spider: Spider,
        stats: Any,
        offsite: Offsite,
        fingerprint: Callable[[Request], bytes],
        occurrence: Callable[[bytes], int],
        filters: bool,
        session_of: Callable[[Request], str | None],
    ) -> None:
        self.spider = spider
        self.rules = target_rules(config, rules_of(spider))
        self._target_callbacks = TargetCallbacks(config.target_callbacks, spider)
        self.callbacks = self._target_callbacks.names
        self.find_rule = FindRule(spider, rules=self.rules, callbacks=self._target_callbacks, passing=config.found_meta)
        self.stats = stats
        self.offsite = offsite
        self.fingerprint = fingerprint
        self.occurrence = occurrence
        self.filters = filters
        self.session_of = session_of
        self._logged: set[str] = set()

    def is_target(self, request: Request) -> bool:
        meta = request.meta
        if meta.get("rule") in self.rules or meta.get(MARK) is True:
            return True
        if not self.callbacks:
            return False
        return request.callback in self._target_callbacks or self._target_callbacks.are_called_by(request.callback)

    def entries(self, requests: Iterable[Request], *, data_only: bool = False) -> tuple[list[Entry], list[Request]]:
        """For targets in *requests*: their entries, and those to be crawled here, for they can't travel. *data_only*:
        nor can objects of classes that are not built in.

        What a worker could never fetch or must not is in neither: it is counted, the first of a kind logged.
        """
        entries, here = [], []
        for request in requests:
            if not request.url.startswith(("http://", "https://")):  # a page may link file:///etc/passwd
                self.stats.inc_value("distributed/unsupported_scheme")
                self._log_once("scheme", "Not diverted, only http and https are: %s", request)
                continue
            try:
                if self.offsite.filter(request):
                    self.stats.inc_value("distributed/offsite")
                    continue
                entries.append(self._entry(request, self.session_of(request), data_only=data_only))
            except Exception as error:
                kind = "error"  # a request or a component that fails in Scrapy as well: there this request alone fails
                if isinstance(error, NotSerializableError):
                    kind = "not_serializable"
                elif isinstance(error, TooLargeError):
                    kind = "too_large"
                self.stats.inc_value(f"{STAYED}{kind}")
                self._log_once(kind, "Crawled here, it can't travel: %s: %s", request, error)
                here.append(request)
        return entries, here

    def find(self, request: Request) -> tuple[list[Entry], list[Request]]:
        """``entries`` on a worker that has found the target *request*: it crawls itself also what it may not report."""
        objection = self.find_rule.objection(request)
        if not objection and request.dont_filter and self.offsite.forbids(request):
            objection = "it is off-site"
        request.meta.pop(MARK, None)
        if not (objection and request.url.startswith(("http://", "https://"))):
            return self.entries([request], data_only=True)
        self.stats.inc_value("distributed/local/not_reportable")
        self._log_once("find", "Crawled here, it may not be reported: %s: %s", request, objection)
        return [], [request]

    def found(self, requests: Iterable[Request], source: bytes, session: str | None = None) -> list[Entry]:
        """The entries of *requests*, which stand in a receipt, all of one *session*: *source* tells which, for each is
        read once.

        Nothing of them is ever crawled here. The worker has asked the same of each before it was reported, so one that
        does not pass was not written by it: raises ``WireError``. One that is off-site is left out and counted,
        whatever it says of itself: the spider here may know other domains.
        """
        entries = []
        for request in requests:
            try:
                if objection := self.find_rule.objection(request):
                    raise WireError(objection)
                if self.offsite.forbids(request):
                    self.offsite.filter(request)  # logs and counts it as Scrapy does, but for what excepts itself
                    self.stats.inc_value("distributed/offsite")
                    self._log_once("found_offsite", "Found by a worker, and off-site here: %s", request)
                    continue
                entries.append(self._entry(request, session, source))
            except LedgerUnavailableError:
                raise
            except Exception as error:
                raise WireError(f"{shortened(str(request))}: {shortened(str(error))}") from None
        return entries

    def _entry(self, request: Request, session: str | None, source: bytes = b"", *, data_only: bool = False) -> Entry:
        request.meta.pop(MARK, None)
        request.meta.pop(HERE, None)
        body = encode_request(request, self.spider, data_only=data_only)
        check_size(body, session=session is not None)
        return self._key(request, source), body if session is None else with_session(body, session)

    def can_be_duplicate(self, request: Request) -> bool:
        return self.filters and not request.dont_filter

    def _key(self, request: Request, source: bytes) -> bytes:
        """The fingerprint; for a request that is not to be filtered with the number of its occurrence in its source, so
        that a walk that runs again finds its own again."""
        key = self.fingerprint(request)
        if self.can_be_duplicate(request):
            return key
        key += source
        return key + self.occurrence(key).to_bytes(4, "big")

    def _log_once(self, kind: str, message: str, *values: object) -> None:
        if kind not in self._logged:
            self._logged.add(kind)
            logger.warning(message + " (the next ones are only counted)", *values, extra={"spider": self.spider})

    def __str__(self) -> str:
        return in_words(self.rules, self.callbacks)


def in_words(rules: Sequence[int], callbacks: Iterable[str]) -> str:
    """Which requests the fleet's are."""
    of_rules = f"DISTRIBUTED_TARGET_RULE = {list(rules)}, " if rules else ""
    of_callbacks = f"DISTRIBUTED_TARGET_CALLBACKS = {sorted(callbacks)}, " if callbacks else ""
    return f"{of_rules}{of_callbacks}meta['distributed']"


def is_crawl_spider(spider: Spider | type[Spider] | None) -> bool:
    """Whether *spider*, or that class, follows rules. Any other's attribute ``rules`` is its own affair."""
    return issubclass(spider if isinstance(spider, type) else type(spider), CrawlSpider)


def rules_of(spider: Spider | type[Spider] | None) -> Sequence[Any] | None:
    """The rules of a ``CrawlSpider`` by their index, ``None`` for any other spider. *spider* may be a class."""
    if not is_crawl_spider(spider):
        return None
    rules = spider.rules  # type: ignore[union-attr]
    if isinstance(rules, list | tuple):
        return rules
    # A property of the class says nothing yet. What could be read once only, CrawlSpider has read.
    return list(getattr(spider, "_rules", ()))


def target_rules(config: Config, rules: Sequence[Any] | None) -> tuple[int, ...]:
    """Of *rules*, as of ``rules_of``, those named by index and those whose callback is named: a rule's requests carry
    CrawlSpider's own."""
    if rules is None:
        return ()
    by_name = (index for index, rule in enumerate(rules) if _callback_name(rule) in config.target_callbacks)
    return tuple(sorted({*config.target_rule, *by_name}))


def _callback_name(rule: Any) -> str | None:
    callback = getattr(rule, "callback", None)
    return callback if isinstance(callback, str) else getattr(callback, "__name__", None)


def check_targets(config: Config, spider: Spider) -> None:
    """Refuse what would end as a crawl on this machine alone, which nobody asked for. Raises ``ConfigError``."""
    rules = rules_of(spider)
    if rules and not config.target_rule and not config.target_callbacks:
        raise ConfigError(
            "DISTRIBUTED_TARGET_RULE: found nothing, expected the index of the rule whose requests the fleet is to"
            " crawl, e.g. 1; or name callbacks in DISTRIBUTED_TARGET_CALLBACKS"
        )
    if config.target_rule and rules is not None and max(config.target_rule) >= len(rules):
        raise ConfigError(
            f"DISTRIBUTED_TARGET_RULE: found {max(config.target_rule)}, the spider's rules are 0 to {len(rules) - 1}"
        )
    unknown = [name for name in config.target_callbacks if not callable(getattr(spider, name, None))]
    if unknown:
        own = [name for name in dir(type(spider)) if not name.startswith("_") and not hasattr(Spider, name)]
        close = difflib.get_close_matches(unknown[0], own, n=1)
        raise ConfigError(
            f"DISTRIBUTED_TARGET_CALLBACKS: found {', '.join(unknown)}, expected names of methods of the spider"
            f" {spider.name!r}{f', did you mean {close[0]}?' if close else ''} (one that is to be crawled in one"
            " process sets DISTRIBUTED_ENABLED = False in its custom_settings)"
        )
    _warn_rules(config, spider, rules)


def _warn_rules(config: Config, spider: Spider, rules: Sequence[Any] | None) -> None:
    """Log what Scrapy lets pass, and what would make the fleet's work nothing, as it does a local crawl's."""
    extra = {"spider": spider}
    if config.target_rule and rules is None:
        logger.warning(
            "DISTRIBUTED_TARGET_RULE: found %s, and %s is no CrawlSpider, so it has no rules: requests for the fleet"
            " are those of DISTRIBUTED_TARGET_CALLBACKS, or have meta['distributed'] = True",
            ", ".join(map(str, config.target_rule)), spider.name, extra=extra,
        )  # fmt: skip
    for index, rule in enumerate(rules or ()):
        for attribute in ("callback", "errback"):
            name = getattr(rule, attribute, None)
            if isinstance(name, str) and not callable(getattr(spider, name, None)):
                logger.warning(
                    "rules[%d]: found %s=%r, expected the name of a method of the spider: Scrapy calls none then, here"
                    " and on the fleet", index, attribute, name, extra=extra,
                )  # fmt: skip

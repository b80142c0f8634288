"""Every ``DISTRIBUTED_*`` setting, once: name, default, unit, rule, and what it is for.

``Config.from_settings`` is the only reader of these settings; the README's table is checked against ``SETTINGS``.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scrapy.settings import BaseSettings
from scrapy.settings.default_settings import FEED_EXPORTERS_BASE
from scrapy.utils.misc import load_object

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.password import QUOTE, has_password, is_ambiguous, without_password
from scrapy_distributed.words import shortened

logger = logging.getLogger(__name__)

PREFIX = "DISTRIBUTED_"
AUTO = "auto"
LEASE_INTERVALS = 3  # a lease shorter than so many polls or receipts ends jobs that are well
# A feed URL that may be shown: no @ in it, or one behind a user. Anywhere else, what is before it may be a password.
_NO_PASSWORD = re.compile(r"[^@]*|[^:/?#@]+://[^:/?#@]*@[^@]*")


def _boolean(value: Any) -> bool:
    if value in (True, 1, "1", "True", "true"):
        return True
    if value in (False, 0, "0", "False", "false", "", None):
        return False
    raise ValueError("True or False")


def _number(kind: type, minimum: float) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        rule = f"{'a whole number' if kind is int else 'a number'} of at least {minimum}"
        if isinstance(value, bool):
            raise ValueError(rule)  # True is 1 for Python, and a mistake here
        try:
            number = kind(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(rule) from None
        if not minimum <= number < float("inf") or (isinstance(value, float) and number != value):
            raise ValueError(rule)
        return number

    return read


def _batch_size(value: Any) -> Any:
    if value == AUTO:
        return AUTO
    try:
        return _number(int, 1)(value)
    except ValueError as error:
        raise ValueError(f"{error}, or {AUTO!r}") from None


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise ValueError("a list of strings, or one string with commas between them")
    return tuple(item.strip() for item in value if item.strip())


def _rules(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    elif isinstance(value, int):
        value = [value]
    rule = 'the index of a rule, or several of them: 1, [1, 2] or "1,2"'
    if not isinstance(value, Sequence):
        raise ValueError(rule)
    return tuple(_number_of_rule(item, rule) for item in value)


def _number_of_rule(value: Any, rule: str) -> int:
    try:
        return int(_number(int, 0)(value))
    except ValueError:
        raise ValueError(rule) from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def _feed_url(value: Any) -> str:
    if not isinstance(value, str) or (value and not _has_batch(value)):
        raise ValueError("a feed URL with %(batch)s in it, else the workers overwrite each other's items")
    if is_ambiguous(value):
        raise ValueError(QUOTE)
    return value


def _has_batch(url: str) -> bool:
    return "%(batch)s" in url.replace("%%", "")


def _feeds(value: Any) -> dict[str, dict[str, Any]]:
    """Scrapy's ``FEEDS`` as JSON knows it."""
    feeds = _from_json(value)
    rule = "a dict of feed URLs and their options, as Scrapy's FEEDS, or one as JSON"
    if not isinstance(feeds, Mapping):
        raise ValueError(rule)
    if not all(isinstance(url, str | Path) and isinstance(options, Mapping) for url, options in feeds.items()):
        raise ValueError(f"{rule}; found a URL that is no string, or options that are no dict")
    return dict(_feed(url, options) for url, options in feeds.items())


def _feed(place: str | Path, options: Mapping[Any, Any]) -> tuple[str, dict[str, Any]]:
    url = str(place.absolute()) if isinstance(place, Path) else place
    if is_ambiguous(url):
        raise ValueError(QUOTE)
    shown = _shown(url) or "one feed"
    if not _has_batch(url):
        raise ValueError(f"%(batch)s in each feed URL, else the workers overwrite each other's items; {shown} has none")
    ending = Path(url).suffix.removeprefix(".")
    # Scrapy looks there since 2.19 only.
    feed: dict[str, Any] = {"format": ending if ending in FEED_EXPORTERS_BASE else ""}
    for name, option in options.items():
        try:
            feed[name] = json.loads(json.dumps(option, default=_import_path))
        except (TypeError, ValueError):
            raise ValueError(
                f"options that JSON knows, or classes and functions that can be imported by their name; {shown} has"
                f" another {name!r}"
            ) from None
    if not feed["format"]:
        raise ValueError(
            f"a format for each feed, or a URL that ends with one of {', '.join(FEED_EXPORTERS_BASE)}; {shown} has none"
        )
    if feed.get("batch_item_count") and not re.search(r"%\(batch_time\)s|%\(batch_id\)", url):
        raise ValueError(f"%(batch_id)d or %(batch_time)s in a feed URL with batch_item_count; {shown} has none")
    return url, feed


def _import_path(component: Any) -> str:
    """The name by which a worker imports *component*. Raises ``TypeError`` if there is none."""
    path = f"{getattr(component, '__module__', '')}.{getattr(component, '__qualname__', '')}"
    try:
        if load_object(path) is component:
            return path
    except (ImportError, NameError, ValueError):  # of a function or an object: a lambda has no name
        pass
    raise TypeError(path)


def _from_json(value: Any) -> Any:
    """What a text says as JSON, ``None`` for what is none; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "{}")
    except json.JSONDecodeError:
        return None


def _choice(*choices: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value not in choices:
            raise ValueError(" or ".join(map(repr, choices)))
        return value

    return read


def _mapping(value: Any) -> dict[str, str]:
    value = _from_json(value)
    rule = "a dict of setting names and values, or one as JSON"
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(rule)
    try:
        return {key: item if isinstance(item, str) else json.dumps(item) for key, item in value.items()}
    except TypeError:
        raise ValueError(f"{rule}; values are what JSON knows") from None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting: *read* turns its value into the field's, or raises ``ValueError`` with the rule it breaks."""

    name: str
    field: str
    default: Any
    read: Callable[[Any], Any]
    unit: str = ""
    doc: str


def _setting(
    field: str, default: Any, read: Callable[[Any], Any], doc: str, *, unit: str = "", name: str = ""
) -> Setting:
    return Setting(name=PREFIX + (name or field).upper(), field=field, default=default, read=read, unit=unit, doc=doc)


SETTINGS = (
    _setting(
        "enabled", True, _boolean, "Set to False in a spider's custom_settings to crawl it on this machine alone."
    ),
    _setting("target_rule", (), _rules, 'Which rules of a CrawlSpider are crawled by the fleet: 1, [1, 2] or "1,2".'),
    _setting("target_callbacks", (), _names, "Names of callbacks whose requests are crawled by the fleet."),
    _setting("target_hosts", (), _names, "The nodes: host:port, URLs, names of scrapy.cfg targets, patterns of names."),
    _setting(
        "target_feed_url",
        "",
        _feed_url,
        "Where each worker writes its items; has %(batch)s in it. Empty: FEEDS is left.",
    ),
    _setting(
        "target_feeds",
        {},
        _feeds,
        "In its place: the workers' FEEDS, with format, fields and other options; each URL has %(batch)s in it.",
    ),
    _setting(
        "batch_size",
        AUTO,
        _batch_size,
        '"auto": found out from what jobs report. A number: larger, fewer job starts; smaller, shorter tail.',
        unit="requests",
    ),
    _setting(
        "batch_max_age", 30.0, _number(float, 0), "An open batch is sent after this time, full or not.", unit="seconds"
    ),
    _setting("worker_settings", {}, _mapping, "Settings that every job gets besides the project's own."),
    _setting(
        "fast_workers",
        True,
        _boolean,
        "The jobs get a preset that makes them cheaper, with the same results; False: not.",
    ),
    _setting("worker_args", (), _names, "Names of spider arguments that every job gets as the coordinator has them."),
    _setting(
        "worker_targets",
        "report",
        _choice("report", "follow"),
        "What a worker does with targets that it finds: report them to the coordinator, or follow them itself.",
    ),
    _setting(
        "failed_follow_ups",
        "count",
        _choice("count", "fail"),
        "A page that a worker followed fails: count it (batches check tells), or the request that led to it fails too.",
    ),
    _setting(
        "found_meta",
        (),
        _names,
        "Names of meta keys, or patterns of them, that targets found by workers may carry though others decide by them"
        ' where a request goes: "cookiejar" or "playwright_*".',
    ),
    _setting("project", "", _text, "Name on Scrapyd. Empty: the one in scrapy.cfg, else BOT_NAME."),
    _setting("version", "", _text, "Egg version of the jobs. Empty: the newest that every node has."),
    _setting("ledger", "", _text, "File of the ledger. Empty: .scrapy/distributed/<spider>.sqlite in the project."),
    _setting("resume", True, _boolean, "False starts a new run although an unfinished one is in the ledger."),
    _setting(
        "wait", True, _boolean, "False ends the crawl when every batch is accepted by a node: nobody waits for items."
    ),
    _setting(
        "node_backlog", 0, _number(int, 0), "Unstarted jobs a node may hold. 0: found out from its pace.", unit="jobs"
    ),
    _setting(
        "poll_interval",
        2.0,
        _number(float, 0.05),
        "Time between two looks at a node. Longer in large fleets, shorter at the end.",
        unit="seconds",
    ),
    _setting(
        "lease", 60.0, _number(float, 1), "A job without a sign of life for this long is sent again.", unit="seconds"
    ),
    _setting(
        "max_attempts",
        3,
        _number(int, 1),
        "After so many failed attempts what is left of a batch is dead.",
        unit="attempts",
    ),
    _setting(
        "stall",
        600.0,
        _number(float, 1),
        "A running job whose counters stand still for this long is ended and sent again.",
        unit="seconds",
    ),
    _setting(
        "max_job_seconds",
        0.0,
        _number(float, 0),
        "A job that is not over so long after it was sent is ended and sent again, whatever its node says. 0: never.",
        unit="seconds",
    ),
    _setting(
        "retry_failed",
        ("dns", "timeout", "refused", "connection lost"),
        _names,
        "Reasons, or patterns of them, for which a request that failed before its callback is tried on another node.",
    ),
    _setting(
        "timeout",
        30.0,
        _number(float, 0.1),
        "Deadline of a call of the coordinator to a node, body included.",
        unit="seconds",
    ),
    _setting(
        "fleet_timeout", 300.0, _number(float, 1), "Without a usable node for this long the crawl ends.", unit="seconds"
    ),
    _setting(
        "shutdown_timeout", 20.0, _number(float, 0), "After Ctrl-C, time for sending what is ready.", unit="seconds"
    ),
    _setting(
        "allow_node_requests",
        False,
        _boolean,
        "True: requests of a crawl may go where a Scrapyd of the fleet is, for a site that is to be crawled there.",
    ),
    _setting("start_url", None, lambda value: value, "On a worker: its batch. A JSON list of URLs or requests."),
    _setting("nodes", (), _names, "On a worker: host:port of the nodes, which its requests must not reach."),
    _setting("receipt_interval", 2.0, _number(float, 0.05), "On a worker: time between two receipts.", unit="seconds"),
)


def unknown(settings: BaseSettings) -> list[str]:
    """A sentence on each ``DISTRIBUTED_*`` setting that nothing reads: most often a slip of the pen."""
    known = [setting.name.removeprefix(PREFIX) for setting in SETTINGS]  # else the prefix alone makes any two alike
    names = (name.removeprefix(PREFIX) for name in settings if isinstance(name, str) and name.startswith(PREFIX))
    found = []
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f", {PREFIX}{close[0]} is" if close else ""
            found.append(f"{PREFIX}{name} is no setting of scrapy_distributed{meant}")
    return found


def warn_unknown(settings: BaseSettings) -> None:
    """Log what is ``unknown``."""
    for sentence in unknown(settings):
        logger.warning("%s", sentence)


def warn_lease(config: Config) -> None:
    """Log a lease that a few late answers or receipts would end."""
    longest = max(config.poll_interval, config.receipt_interval)
    if config.lease < LEASE_INTERVALS * longest:
        logger.warning(
            "DISTRIBUTED_LEASE: found %g s, expected at least %g: %d times the longer of DISTRIBUTED_POLL_INTERVAL and"
            " DISTRIBUTED_RECEIPT_INTERVAL; with less, jobs that are well are sent again",
            config.lease, LEASE_INTERVALS * longest, LEASE_INTERVALS,
        )  # fmt: skip


def warn_passwords(config: Config) -> None:
    """Log feed URLs with a password in them: a job's settings can be seen on its node."""
    for url in filter(has_password, config.feed_urls):
        logger.warning(
            "%s: found a password in %s, and ps, Scrapyd's log and its listjobs.json show it on every node. Expected"
            " credentials that the nodes have: a placeholder that FEED_URI_PARAMS fills in there (ftp), AWS_* in their"
            " environment (s3); see Security in the README",
            f"{PREFIX}TARGET_FEED{'_URL' if config.target_feed_url else 'S'}", _shown(url) or "a feed URL",
        )  # fmt: skip


def warn_wait(config: Config) -> None:
    """Log what nobody may have asked for: without receipts each worker has to follow what it finds."""
    if not config.wait and config.worker_targets == "report":
        logger.warning(
            "DISTRIBUTED_WAIT: found False, so nobody takes what workers report: each job follows the requests for the"
            " fleet that it finds itself, and items of pages that several jobs find come several times. Expected True"
            ' where pages on workers have such links; DISTRIBUTED_WORKER_TARGETS = "follow" says that this is meant'
        )


def check_feeds(config: Config) -> None:
    """For a coordinator; a worker is told what was chosen. Raises ``ConfigError`` if feeds are named in both ways."""
    if config.target_feed_url and config.target_feeds:
        raise ConfigError(
            "DISTRIBUTED_TARGET_FEED_URL, DISTRIBUTED_TARGET_FEEDS: found both, expected one of them; to have format,"
            " fields and other options travel keep DISTRIBUTED_TARGET_FEEDS and remove DISTRIBUTED_TARGET_FEED_URL (set"
            ' it to "" where another file sets it), else remove DISTRIBUTED_TARGET_FEEDS'
        )


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a crawl, read and checked. Times in seconds, sizes in requests; see ``SETTINGS``."""

    enabled: bool
    target_rule: tuple[int, ...]
    target_callbacks: tuple[str, ...]
    target_hosts: tuple[str, ...]
    target_feed_url: str
    target_feeds: Mapping[str, Mapping[str, Any]]
    batch_size: int | str
    batch_max_age: float
    worker_settings: Mapping[str, str]
    fast_workers: bool
    worker_args: tuple[str, ...]
    worker_targets: str
    failed_follow_ups: str
    found_meta: tuple[str, ...]
    project: str
    version: str
    ledger: str
    resume: bool
    wait: bool
    node_backlog: int
    poll_interval: float
    lease: float
    max_attempts: int
    stall: float
    max_job_seconds: float
    retry_failed: tuple[str, ...]
    timeout: float
    fleet_timeout: float
    shutdown_timeout: float
    allow_node_requests: bool
    start_url: Any
    nodes: tuple[str, ...]
    receipt_interval: float

    @classmethod
    def from_settings(cls, settings: BaseSettings) -> Config:
        """Read every ``DISTRIBUTED_*`` setting of *settings*.

        Raises ``ConfigError`` with the setting, the value found and the rule that it breaks.
        """
        return cls(**{setting.field: _read(setting, settings) for setting in SETTINGS})

    @property
    def feed_urls(self) -> tuple[str, ...]:
        """Of the feeds that the workers are told to write; none: those of the project."""
        return (self.target_feed_url,) if self.target_feed_url else tuple(self.target_feeds)


def _read(setting: Setting, settings: BaseSettings) -> Any:
    value = settings.get(setting.name)
    if value is None:
        return setting.default
    try:
        return setting.read(value)
    except ValueError as error:
        raise ConfigError(f"{setting.name}: found {_found(setting, value)}, expected {error}") from None


def _found(setting: Setting, value: Any) -> str:
    """*value* without what may be a password in it."""
    if setting.field == "target_feed_url" and isinstance(value, str):
        return _shown(value) or "a value"
    return "a value" if setting.field in ("target_hosts", "target_feeds", "worker_settings") else repr(value)


def _shown(feed_url: str) -> str:
    """For a message; '' if there may be a password in it that can't be told from the rest."""
    shown = without_password(feed_url)
    return repr(shortened(shown)) if _NO_PASSWORD.fullmatch(shown) and not is_ambiguous(feed_url) else ""

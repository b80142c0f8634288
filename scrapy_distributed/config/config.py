"""Every ``DISTRIBUTED_*`` setting, once: name, default, unit, rule, and what it is for.

``Config.from_settings`` is the only reader of these settings; the README's table is checked against ``SETTINGS``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scrapy.settings import BaseSettings

from scrapy_distributed.config.values import (
    AUTO,
    batch_size,
    boolean,
    choice,
    feed_url,
    feeds,
    mapping,
    names,
    number,
    rules,
    shown,
    text,
)
from scrapy_distributed.errors import ConfigError

logger = logging.getLogger(__name__)
PREFIX = "DISTRIBUTED_"


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
    _setting("enabled", True, boolean, "Set to False in a spider's custom_settings to crawl it on this machine alone."),
    _setting("target_rule", (), rules, 'Which rules of a CrawlSpider are crawled by the fleet: 1, [1, 2] or "1,2".'),
    _setting("target_callbacks", (), names, "Names of callbacks whose requests are crawled by the fleet."),
    _setting(
        "target_hosts",
        (),
        names,
        '"local" or "local:4", for workers on this machine; host:port, URLs, names of scrapy.cfg targets, patterns of'
        ' names; or a "redis://" URL, which workers join by themselves.',
    ),
    _setting(
        "target_feed_url",
        "",
        feed_url,
        "Where each worker writes its items; has %(batch)s in it. Empty: FEEDS is left.",
    ),
    _setting(
        "target_feeds",
        {},
        feeds,
        "In its place: the workers' FEEDS, with format, fields and other options; each URL has %(batch)s in it.",
    ),
    _setting(
        "items",
        AUTO,
        choice(AUTO, "home", "none"),
        '"home": the items of workers come home, into the feeds of the coordinator. "none": what pipelines do with them'
        ' is all. "auto": home, unless workers have feeds, or nothing but pipelines is there.',
    ),
    _setting(
        "results",
        AUTO,
        choice(AUTO, "redis"),
        '"redis": the items of a run that workers join go into a stream in its Redis. "auto": as DISTRIBUTED_ITEMS and'
        " feeds say.",
    ),
    _setting(
        "pipelines_at_home",
        (),
        names,
        "Item pipelines, of those in ITEM_PIPELINES, that are left out on workers and run once, on the coordinator.",
    ),
    _setting(
        "batch_size",
        AUTO,
        batch_size,
        '"auto": found out from what jobs report. A number: larger, fewer job starts; smaller, shorter tail.',
        unit="requests",
    ),
    _setting(
        "batch_max_age", 30.0, number(float, 0), "An open batch is sent after this time, full or not.", unit="seconds"
    ),
    _setting("worker_settings", {}, mapping, "Settings that every job gets besides the project's own."),
    _setting(
        "fast_workers",
        True,
        boolean,
        "The jobs get a preset that makes them cheaper, with the same results; False: not.",
    ),
    _setting("worker_args", (), names, "Spider arguments that jobs get although their names look like secrets."),
    _setting(
        "worker_targets",
        "report",
        choice("report", "follow"),
        "What a worker does with targets that it finds: report them to the coordinator, or follow them itself.",
    ),
    _setting(
        "failed_follow_ups",
        "count",
        choice("count", "fail"),
        "A page that a worker followed fails: count it (batches check tells), or the request that led to it fails too.",
    ),
    _setting(
        "found_meta",
        (),
        names,
        "Names of meta keys, or patterns of them, that targets found by workers may carry though others decide by them"
        ' where a request goes: "cookiejar" or "playwright_*".',
    ),
    _setting("project", "", text, "Name on Scrapyd. Empty: the one in scrapy.cfg, else BOT_NAME."),
    _setting("version", "", text, "Egg version of the jobs. Empty: the newest that every node has."),
    _setting("ledger", "", text, "File of the ledger. Empty: .scrapy/distributed/<spider>.sqlite in the project."),
    _setting("resume", True, boolean, "False starts a new run although an unfinished one is in the ledger."),
    _setting(
        "wait", True, boolean, "False ends the crawl when every batch is accepted by a node: nobody waits for items."
    ),
    _setting(
        "node_backlog", 0, number(int, 0), "Unstarted jobs a node may hold. 0: found out from its pace.", unit="jobs"
    ),
    _setting(
        "poll_interval",
        2.0,
        number(float, 0.05),
        "Time between two looks at a node. Longer in large fleets, shorter at the end.",
        unit="seconds",
    ),
    _setting(
        "lease", 60.0, number(float, 1), "A job without a sign of life for this long is sent again.", unit="seconds"
    ),
    _setting(
        "max_attempts",
        3,
        number(int, 1),
        "After so many failed attempts what is left of a batch is dead.",
        unit="attempts",
    ),
    _setting(
        "stall",
        600.0,
        number(float, 1),
        "A running job whose counters stand still for this long is ended and sent again.",
        unit="seconds",
    ),
    _setting(
        "max_job_seconds",
        0.0,
        number(float, 0),
        "A job that is not over so long after it was sent is ended and sent again, whatever its node says. 0: never.",
        unit="seconds",
    ),
    _setting(
        "retry_failed",
        ("dns", "timeout", "refused", "connection lost"),
        names,
        "Reasons, or patterns of them, for which a request that failed before its callback is tried on another node.",
    ),
    _setting(
        "timeout",
        30.0,
        number(float, 0.1),
        "Deadline of a call of the coordinator to a node, body included.",
        unit="seconds",
    ),
    _setting(
        "fleet_timeout", 300.0, number(float, 1), "Without a usable node for this long the crawl ends.", unit="seconds"
    ),
    _setting(
        "shutdown_timeout", 20.0, number(float, 0), "After Ctrl-C, time for what is ready, or done.", unit="seconds"
    ),
    _setting(
        "allow_node_requests",
        False,
        boolean,
        "True: requests of a crawl may go where a Scrapyd of the fleet is, for a site that is to be crawled there.",
    ),
    _setting("start_url", None, lambda value: value, "On a worker: its batch. A JSON list of URLs or requests."),
    _setting("nodes", (), names, "On a worker: host:port of the nodes, which its requests must not reach."),
    _setting("found_keys", False, boolean, "On a worker of a shared run: it tells the keys of what it finds."),
    _setting("done_jobs", (), names, "On a worker: jobs whose items have come home; what they have left is removed."),
    _setting("parent", 0, number(int, 0), "On a worker of this machine: the pid of the process that has started it."),
    _setting(
        "slot_free_since",
        0.0,
        number(float, 0),
        "On a worker: when the job before it in its slot has ended, by time.time(). 1: there was none; 0: not known.",
    ),
    _setting("receipt_interval", 2.0, number(float, 0.05), "On a worker: time between two receipts.", unit="seconds"),
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
    items: str
    results: str
    pipelines_at_home: tuple[str, ...]
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
    found_keys: bool
    done_jobs: tuple[str, ...]
    parent: int
    slot_free_since: float
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
        return shown(value) or "a value"
    return "a value" if setting.field in ("target_hosts", "target_feeds", "worker_settings") else repr(value)

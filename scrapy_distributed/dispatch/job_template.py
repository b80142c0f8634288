"""What every job of a run gets besides its batch, from the settings and the command of the crawl."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from scrapy.settings import BaseSettings, default_settings

from scrapy_distributed.config.command_line import CommandLine
from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import ItemsGo, pipelines_of_workers
from scrapy_distributed.errors import ConfigError
from scrapy_distributed.fast import preset
from scrapy_distributed.guard import guard
from scrapy_distributed.wire.job_template import JobTemplate
from scrapy_distributed.wire.payload import START_URL

if TYPE_CHECKING:
    from scrapy_distributed.fleet.node import NodeAddress


BOUNDS = ("CLOSESPIDER_ITEMCOUNT", "CLOSESPIDER_ERRORCOUNT")
LIMITS = tuple(name for name in dir(default_settings) if name.startswith("CLOSESPIDER_"))


def job_template(
    config: Config, *, spider: str, command: CommandLine, settings: BaseSettings, project: str,
    rules: tuple[int, ...], version: str, items_go: ItemsGo, nodes: Iterable[NodeAddress] = (),
) -> JobTemplate:  # fmt: skip
    """*spider*: its name; *command*: what started the crawl; *settings*: those of the crawl; *rules*: the rules of
    the spider whose requests are the fleet's; *items_go*: where its items go; *nodes*: where no request of a job
    may go."""
    _check_worker_settings(config.worker_settings)
    # Without the plugin a job would crawl the whole site, from the spider's own start.
    addons = {"ADDONS": _with_ours(settings, with_preset=config.fast_workers)}
    sent = {**addons}
    if config.fast_workers:
        sent.update(preset.job_settings(settings))
    if told := guard.told(nodes):
        sent["DISTRIBUTED_NODES"] = told
    if settings.getpriority("DISTRIBUTED_ALLOW_NODE_REQUESTS") is not None:  # by -s, say
        sent["DISTRIBUTED_ALLOW_NODE_REQUESTS"] = str(config.allow_node_requests)
    sent.update(_limits(settings))
    sent.update(config.worker_settings)
    sent.update({**command.settings, **(addons if "ADDONS" in command.settings else {})})
    # A folder of the project's settings would be that of every job of a node: one queue, one list of seen pages.
    sent["JOBDIR"] = ""
    if rules:
        sent["DISTRIBUTED_TARGET_RULE"] = ",".join(map(str, rules))
    if config.target_callbacks:
        sent["DISTRIBUTED_TARGET_CALLBACKS"] = ",".join(config.target_callbacks)
    if config.found_meta:
        sent["DISTRIBUTED_FOUND_META"] = ",".join(config.found_meta)
    sent.update(_feed_settings(config, items_go, command))
    if config.pipelines_at_home:
        sent["ITEM_PIPELINES"] = json.dumps(pipelines_of_workers(config, settings))
    sent["DISTRIBUTED_FAILED_FOLLOW_UPS"] = config.failed_follow_ups
    # Where nobody waits for receipts, what a worker finds must not be left in one.
    sent["DISTRIBUTED_WORKER_TARGETS"] = config.worker_targets if config.wait else "follow"
    sent = {_text(name): _text(value) for name, value in sent.items()}
    return JobTemplate(project=project, spider=spider, version=version, settings=sent, args=command.args)


def _check_worker_settings(given: Mapping[str, str]) -> None:
    if START_URL in given:
        raise ConfigError(f"DISTRIBUTED_WORKER_SETTINGS: has {START_URL}, which is the batch's own: remove it")
    if given.get("JOBDIR"):
        raise ConfigError(
            "DISTRIBUTED_WORKER_SETTINGS: has JOBDIR, and the jobs of a node would share one queue there and leave out"
            " what others have seen: remove it, the ledger keeps what a crawl would lose"
        )


def _limits(settings: BaseSettings) -> dict[str, str]:
    """Of the limits that end a crawl, which are the fleet's: a job has those that count what jobs do as its own bounds,
    and none of the others, as it would end early again and again."""
    return {name: settings[name] if name in BOUNDS else "0" for name in LIMITS if settings[name]}


def _feed_settings(config: Config, items_go: ItemsGo, command: CommandLine) -> dict[str, str]:
    """Both of Scrapy's ways to name feeds: what one does not say the project may say by the other."""
    if items_go is ItemsGo.FEEDS:
        if config.target_feed_url:
            return {"FEED_URI": config.target_feed_url, "FEEDS": "{}"}
        if config.target_feeds:
            return {"FEEDS": json.dumps(dict(config.target_feeds)), "FEED_URI": ""}
        if {"FEEDS", "FEED_URI"} & set(command.stay):
            raise ConfigError(
                "FEEDS, FEED_URI: found one of the command with %(batch)s or %(_job)s in it, and feeds of the command"
                " are written here alone (-o, -O); expected DISTRIBUTED_TARGET_FEED_URL or DISTRIBUTED_TARGET_FEEDS for"
                " those that jobs write"
            )
        return {}
    items = "home" if items_go in (ItemsGo.HOME, ItemsGo.STREAM) else "none"
    return {"DISTRIBUTED_ITEMS": items, "FEEDS": "{}", "FEED_URI": ""}


def _text(value: Any) -> str:
    """*value* as a command line has it. Of a member of a ``(str, Enum)`` that is the text, and not its name."""
    return str.__str__(value) if isinstance(value, str) else str(value)


def _with_ours(settings: BaseSettings, *, with_preset: bool) -> str:
    """The add-ons of the project, and ours, as JSON; *with_preset*: also that of fast workers."""
    addons = {
        addon if isinstance(addon, str) else f"{addon.__module__}.{addon.__qualname__}": order
        for addon, order in settings.getdict("ADDONS").items()
    }
    last = {preset.ADDON: preset.LAST} if with_preset else {}
    return json.dumps({"scrapy_distributed.Addon": 500, **addons, **last})

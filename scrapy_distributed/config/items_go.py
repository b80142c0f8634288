"""Where the items of a run go, by the settings of its coordinator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum

from scrapy.settings import BaseSettings
from scrapy.utils.misc import load_object

from scrapy_distributed.config.config import Config
from scrapy_distributed.config.values import AUTO, has_batch, shown
from scrapy_distributed.errors import ConfigError


class ItemsGo(Enum):
    """Where the items that workers scrape go, besides through their pipelines."""

    HOME = "home"
    """To the coordinator, and into its feeds."""
    FEEDS = "feeds"
    """Into feeds of the workers."""
    STREAM = "stream"
    """Into a stream in the Redis where their run is."""
    NOWHERE = "nowhere"
    """What pipelines do with them is all."""


def where_items_go(config: Config, settings: BaseSettings, *, shared: bool = False) -> ItemsGo:
    """*shared*: of a run that workers join. Raises ``ConfigError`` where they would be lost, or written over each
    other."""
    own = own_feeds(settings)
    if config.results == "redis":
        _check_stream(config, own, shared=shared)
        return ItemsGo.STREAM
    per_batch = [url for url in own if _is_of_a_job(url)]
    _check_home(config, per_batch)
    if config.items == "none":
        return ItemsGo.NOWHERE
    if config.feed_urls:
        return ItemsGo.FEEDS
    if per_batch and len(per_batch) < len(own):
        other = next(url for url in own if url not in per_batch)
        raise ConfigError(
            f"FEEDS: found {shown(per_batch[0]) or 'a URL'}, of which each job writes its own, and"
            f" {shown(other) or 'a URL'}, which all jobs would write over; expected %(batch)s in all of them, or in"
            " none: then the items come home, and the coordinator writes them"
        )
    if per_batch:
        return ItemsGo.FEEDS
    if not config.wait:
        if own or config.items == "home":
            raise ConfigError(
                "DISTRIBUTED_WAIT: found False, so nobody is there when items come home; expected True, or a feed for"
                " the workers (DISTRIBUTED_TARGET_FEED_URL)"
            )
        return ItemsGo.NOWHERE
    if own or config.items == "home" or config.pipelines_at_home or not _has_pipelines(settings):
        return ItemsGo.HOME
    return ItemsGo.NOWHERE


def _check_home(config: Config, per_batch: Sequence[str]) -> None:
    if config.items == "home" and (config.feed_urls or per_batch):
        raise ConfigError(
            'DISTRIBUTED_ITEMS: found "home", and feeds for the workers as well'
            f" ({shown((*config.feed_urls, *per_batch)[0]) or 'a URL'}); expected one of them"
        )
    if config.pipelines_at_home and (config.items == "none" or config.feed_urls or per_batch or not config.wait):
        raise ConfigError(
            "DISTRIBUTED_PIPELINES_AT_HOME: found pipelines, and items that do not come home (DISTRIBUTED_ITEMS,"
            " DISTRIBUTED_TARGET_FEED_URL, DISTRIBUTED_TARGET_FEEDS, FEEDS with %(batch)s, DISTRIBUTED_WAIT); expected"
            " one or the other"
        )


def _check_stream(config: Config, own: Sequence[str], *, shared: bool) -> None:
    if not shared:
        raise ConfigError(
            'DISTRIBUTED_RESULTS: found "redis", and nodes that are sent their batches: the stream is in the Redis of a'
            ' run that workers join; expected DISTRIBUTED_TARGET_HOSTS = ["redis://HOST:6379/0"], or "auto"'
        )
    if feeds := [*config.feed_urls, *own]:
        raise ConfigError(
            f'DISTRIBUTED_RESULTS: found "redis", and a feed as well ({shown(feeds[0]) or "a URL"}): all items go into'
            " a stream, and nobody would write them there; expected one of them: no -O, -o, FEEDS (-s FEEDS={}) and"
            ' feeds of workers, or "auto", with which items come home'
        )
    if config.items != AUTO or config.pipelines_at_home:
        found = "DISTRIBUTED_PIPELINES_AT_HOME" if config.items == AUTO else f'DISTRIBUTED_ITEMS = "{config.items}"'
        raise ConfigError(
            f'DISTRIBUTED_RESULTS: found "redis", and {found}: items that go into a stream do not come home; expected'
            " one of them"
        )


def pipelines_of_workers(config: Config, settings: BaseSettings) -> dict[str, int | None]:
    """The project's ``ITEM_PIPELINES``, without those that are to run at home. Raises ``ConfigError`` for one of these
    that is none of the project's."""
    at_home = {load_object(name): name for name in config.pipelines_at_home}
    found = {load_object(name): (name, order) for name, order in settings.getwithbase("ITEM_PIPELINES").items()}
    if strangers := [name for kind, name in at_home.items() if kind not in found or found[kind][1] is None]:
        raise ConfigError(
            f"DISTRIBUTED_PIPELINES_AT_HOME: found {', '.join(strangers)}, expected names that ITEM_PIPELINES has"
        )
    return {
        f"{kind.__module__}.{kind.__qualname__}": order for kind, (_, order) in found.items() if kind not in at_home
    }


def own_feeds(settings: BaseSettings) -> list[str]:
    """The URLs of the feeds that Scrapy writes in this crawl."""
    uri = settings.get("FEED_URI")
    return [*([str(uri)] if uri else []), *map(str, settings.getdict("FEEDS"))]


def feeds_of_workers(config: Config, settings: BaseSettings) -> list[str]:
    """The URLs of the feeds that each job writes, where items go into these."""
    return list(config.feed_urls) or own_feeds(settings)


def settings_of_workers(settings: BaseSettings) -> BaseSettings:
    """*settings* of a project, with the feeds that it names for workers as theirs."""
    config, own = Config.from_settings(settings), settings.copy()
    if config.target_feeds:
        own.set("FEEDS", json.dumps(dict(config.target_feeds)))
    if config.target_feed_url:
        own.set("FEED_URI", config.target_feed_url)
    return own


def _is_of_a_job(url: str) -> bool:
    return has_batch(url) or "%(_job)s" in url.replace("%%", "")


def _has_pipelines(settings: BaseSettings) -> bool:
    return any(order is not None for order in settings.getwithbase("ITEM_PIPELINES").values())

"""What is said before the first batch."""

from __future__ import annotations

import logging

from scrapy.settings import BaseSettings
from scrapy.utils.misc import load_object

from scrapy_distributed.config.config import Config
from scrapy_distributed.config.items_go import ItemsGo, own_feeds
from scrapy_distributed.config.pipeline_hints import reason_for_home
from scrapy_distributed.config.values import shown

logger = logging.getLogger(__name__)


def tell_where_items_go(go: ItemsGo, config: Config, settings: BaseSettings, spool: str) -> None:
    """Say before the first batch where the items will be. *spool*: the folder for what comes home."""
    own = [shown(url) or "a feed" for url in own_feeds(settings)]
    if go is ItemsGo.FEEDS:
        places = [shown(url) or "a feed" for url in config.feed_urls] or own
        logger.info("Items: each job writes its own to %s", ", ".join(places))
    elif go is ItemsGo.NOWHERE:
        logger.info(
            "Items: they go through the pipelines of the workers, and into no feed%s",
            "" if config.items == "none" else '; DISTRIBUTED_ITEMS = "home" or -O FILE brings them home',
        )  # fmt: skip
    elif own:
        logger.info("Items: they come home by way of %s, and are written here to %s", spool, ", ".join(own))
    else:
        logger.warning(
            "Items: no feed is set (-O FILE, FEEDS), so they come home to %s and are written nowhere else;"
            " scrapy batches export -O FILE writes them to a file, until the next run of this spider ends", spool,
        )  # fmt: skip
    _tell_of_pipelines(config, settings)
    stores = {name: settings.get(name) for name in ("FILES_STORE", "IMAGES_STORE") if settings.get(name)}
    for name, place in stores.items():
        logger.info("%s: each worker has its own, %s as it is on its node", name, shown(str(place)) or "a place")


def _tell_of_pipelines(config: Config, settings: BaseSettings) -> None:
    orders = settings.getwithbase("ITEM_PIPELINES").items()
    kinds = [load_object(name) for name, order in orders if order is not None]
    if not kinds:
        return
    at_home = {load_object(name) for name in config.pipelines_at_home}
    here = ", ".join(kind.__qualname__ for kind in kinds if kind in at_home)
    there = ", ".join(kind.__qualname__ for kind in kinds if kind not in at_home)
    all_pass = f"; all items pass {here} on the coordinator" if here else ""
    logger.info("Item pipelines: each worker has its own of %s%s", there or "none", all_pass)
    for kind in kinds:
        if kind not in at_home and (reason := reason_for_home(kind)):
            logger.warning(
                "The item pipeline %s.%s %s, it seems, and each worker has its own: if it must see all items, name it"
                " in DISTRIBUTED_PIPELINES_AT_HOME", kind.__module__, kind.__qualname__, reason,
            )  # fmt: skip

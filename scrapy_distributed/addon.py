"""One-line activation: ``ADDONS = {"scrapy_distributed.Addon": 500}``.

A spider whose ``custom_settings`` has ``SPIDER_MIDDLEWARES`` of its own never loads a middleware named in the project's
settings; an add-on it does.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from scrapy_distributed.coordinator import warm_start
from scrapy_distributed.guard.guard import LAST, Guard
from scrapy_distributed.middleware import DistributedSpiderMiddleware
from scrapy_distributed.password import hide_in_log

if TYPE_CHECKING:
    from scrapy.settings import Settings

ORDER = 100
"""Nearer to the engine than Scrapy's own, except HttpError: a diverted request has its depth and referer by then, and
has passed UrlLength."""


class Addon:
    """Adds the spider middleware, unless the project has it already, the guard of the nodes, and what lets workers on
    this machine start sooner; hides the passwords of feeds in the log, and there a warning of our own making."""

    def update_settings(self, settings: Settings) -> None:
        if settings.get("DISTRIBUTED_START_URL") is not None:  # a job, whose feed we have named so
            warnings.filterwarnings("ignore", message="The `FEED_URI` and `FEED_FORMAT` settings have been deprecated")
        hide_in_log()  # here, and not on a worker alone: Scrapy logs the settings before it makes a middleware
        settings.setdefault_in_component_priority_dict("SPIDER_MIDDLEWARES", DistributedSpiderMiddleware, ORDER)
        settings.setdefault_in_component_priority_dict("DOWNLOADER_MIDDLEWARES", Guard, LAST)
        settings.setdefault_in_component_priority_dict("EXTENSIONS", warm_start.WarmStart, warm_start.ORDER)

"""What the command has said is in the items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scrapy.settings import BaseSettings

from trial.home.spider import TARGETS, ShopSpider, product


class Adding:
    """Add-on of a command line."""

    def update_settings(self, settings: BaseSettings) -> None:
        settings.set("ADDED", "by the add-on", priority="addon")


class Told(ShopSpider):
    """Keeps its *category* under another name, and the other arguments as Scrapy does."""

    name = "told"
    custom_settings = {**TARGETS, "JOBDIR": "jobs", "DOWNLOAD_DELAY": 0.5, "DISTRIBUTED_BATCH_SIZE": 12}

    def __init__(self, category: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind = category.upper()

    def parse_product(self, response: Any) -> Iterator[Any]:
        names = ("kind", "label", "api_key")
        yield {
            **product(response),
            "arguments": {name: getattr(self, name, None) for name in names},
            "delay": self.settings.getfloat("DOWNLOAD_DELAY"),
            "settings": {name: self.settings.get(name) for name in ("JOBDIR", "OWN", "OWN_TOKEN", "ADDED")},
            "agent": response.request.headers["User-Agent"].decode(),
        }

"""The example's spider with its start in Redis."""

import os
import time
from pathlib import Path

from properties.spiders.easy import EasySpider
from scrapy_redis.spiders import RedisMixin


class SharedSpider(RedisMixin, EasySpider):
    """Start: JSON objects with a ``url`` in the list ``shared:start_urls``. Leaves the time of its last item in the
    folder that the setting FEEDS_FOLDER names."""

    name = "shared"
    last = 0.0

    @classmethod
    def from_crawler(cls, crawler, *args, **kwargs):
        spider = super().from_crawler(crawler, *args, **kwargs)
        spider.start_urls = []
        spider.setup_redis(crawler)
        return spider

    def parse_item(self, response):
        item = super().parse_item(response)
        self.last = time.monotonic()
        return item

    def closed(self, reason):
        Path(self.settings["FEEDS_FOLDER"], f"{os.getpid()}.last").write_text(str(self.last))

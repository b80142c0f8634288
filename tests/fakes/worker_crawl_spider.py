"""A spider with rules for ``worker_crawl.py``, run by a child process with ``runspider``."""

from __future__ import annotations

from scrapy.linkextractors import LinkExtractor
from scrapy.spiders import CrawlSpider, Rule


class Crawling(CrawlSpider):
    name = "s"
    custom_settings = {
        "SPIDER_MIDDLEWARES": {"scrapy_distributed.middleware.DistributedSpiderMiddleware": 100},
        "TELNETCONSOLE_ENABLED": False,
    }
    rules = (
        Rule(LinkExtractor(allow="more")),
        Rule(LinkExtractor(allow="item"), callback="parse_item", follow=True, errback="errback_item"),
    )

    def parse_item(self, response):
        yield {"url": response.url}

    def errback_item(self, failure):
        yield {"failed": failure.request.url}

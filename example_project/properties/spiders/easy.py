"""The plain crawl: one process, the whole site."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from scrapy.http import TextResponse
from scrapy.linkextractors import LinkExtractor
from scrapy.spiders import CrawlSpider, Rule

from properties.items import PropertyItem


class EasySpider(CrawlSpider):
    """Walks from index page to index page and takes every property.

    scrapy crawl easy -a site=http://localhost:9312
    """

    name = "easy"
    custom_settings = {"DISTRIBUTED_ENABLED": False}

    rules = (
        Rule(LinkExtractor(restrict_css="a.next")),
        Rule(LinkExtractor(restrict_css="ul.properties"), callback="parse_item"),
    )

    def __init__(self, site: str = "http://localhost:9312", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.site = site.rstrip("/")
        self.allowed_domains = [urlsplit(self.site).hostname or ""]
        self.start_urls = [f"{self.site}/index_00000.html"]

    def parse_item(self, response: TextResponse) -> PropertyItem:
        """Read one property page."""

        def text(name: str) -> str:
            return response.css(f'[itemprop="{name}"]::text').get(default="").strip()

        return PropertyItem(
            url=response.url,
            title=text("name"),
            price=float(text("price").replace(",", "")),
            description=text("description"),
            address=text("address"),
            image_urls=[response.urljoin(source) for source in response.css('[itemprop="image"]::attr(src)').getall()],
        )

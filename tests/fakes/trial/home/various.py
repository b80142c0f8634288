"""Spiders of every kind that Scrapy has, and settings and habits that many real ones have."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from scrapy import FormRequest, Request
from scrapy.http import JsonRequest
from scrapy.linkextractors import LinkExtractor
from scrapy.spiders import CrawlSpider, CSVFeedSpider, Rule, SitemapSpider, XMLFeedSpider

from trial.home.spider import TARGETS, ShopSpider, number_of, product

PAGES = range(2)


class Api(ShopSpider):
    """Lists and products are JSON."""

    name = "api"

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.site}/api/list/0")

    def parse(self, response: Any) -> Iterator[Any]:
        for path in response.json()["products"]:
            yield Request(f"{self.site}/api{path}", self.parse_product)
        if more := response.json()["more"]:
            yield Request(f"{self.site}/api{more}")

    def parse_product(self, response: Any) -> Any:
        return response.json()


class Posted(ShopSpider):
    """Pages of a list, and products, by POST to one URL."""

    name = "posted"

    async def start(self) -> AsyncIterator[Any]:
        yield JsonRequest(f"{self.site}/api", data={"path": "/list/0"})

    def parse(self, response: Any) -> Iterator[Any]:
        for path in response.json()["products"]:
            yield JsonRequest(f"{self.site}/api", data={"path": path}, callback=self.parse_product)
        if more := response.json()["more"]:
            yield JsonRequest(f"{self.site}/api", data={"path": more})

    def parse_product(self, response: Any) -> Any:
        return {**response.json(), "asked": json.loads(response.request.body)}


class Searched(ShopSpider):
    """A form of the page, with its hidden field."""

    name = "searched"

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.site}/search")

    def parse(self, response: Any) -> Iterator[Any]:
        for number in range(6):
            yield FormRequest.from_response(response, formdata={"q": f"tea {number}"}, callback=self.parse_product)

    def parse_product(self, response: Any) -> Any:
        return {"found": response.css("h1::text").get()}


class Mapped(SitemapSpider):
    name = "mapped"
    custom_settings = TARGETS
    sitemap_rules = [("/p/", "parse_product")]

    def __init__(self, site: str, **kwargs: Any) -> None:
        self.sitemap_urls = [f"{site}/sitemap.xml"]
        super().__init__(**kwargs)

    def parse_product(self, response: Any) -> Any:
        return product(response)


class XmlFeed(XMLFeedSpider):
    name = "xml_feed"
    custom_settings = TARGETS
    itertag = "product"

    def __init__(self, site: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start_urls = [f"{site}/feed.xml"]

    def parse_node(self, response: Any, selector: Any) -> Iterator[Any]:
        yield response.follow(selector.xpath("@href").get(), self.parse_product)

    def parse_product(self, response: Any) -> Any:
        return product(response)


class CsvFeed(CSVFeedSpider):
    name = "csv_feed"
    custom_settings = TARGETS

    def __init__(self, site: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start_urls = [f"{site}/table.csv"]

    def parse_row(self, response: Any, row: dict[str, str]) -> Iterator[Any]:
        yield response.follow(row["href"], self.parse_product, cb_kwargs={"kind": row["kind"]})

    def parse_product(self, response: Any, kind: str) -> Any:
        return {**product(response), "kind": kind}


class Hooks(CrawlSpider):
    """Rules with all their hooks."""

    name = "hooks"
    custom_settings = {"DISTRIBUTED_TARGET_RULE": 1}
    rules = [
        Rule(LinkExtractor(allow="/list/"), process_links="in_order"),
        Rule(
            LinkExtractor(allow="/p/", restrict_css="a.product"), callback="parse_product", cb_kwargs={"of": "rule"},
            follow=True, process_links="even", process_request="marked", errback="failed",
        ),
        Rule(LinkExtractor(allow="/maker/"), callback="parse_maker"),
    ]  # fmt: skip

    def __init__(self, site: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start_urls = [f"{site}/list/0"]

    def in_order(self, links: list[Any]) -> list[Any]:
        return sorted(links, key=lambda link: link.url)

    def even(self, links: list[Any]) -> list[Any]:
        return [link for link in links if int(link.url.rpartition("/")[2]) % 2 == 0]

    def marked(self, request: Request, response: Any) -> Request:
        return request.replace(meta={**request.meta, "from": response.url.rpartition("/")[2]}, headers={"X-Own": "1"})

    def parse_start_url(self, response: Any, **kwargs: Any) -> Any:
        return [{"start": response.css("h1::text").get()}]

    def process_results(self, response: Any, results: Any) -> Any:
        return [{**result, "processed": True} for result in results]

    def parse_product(self, response: Any, of: str) -> Iterator[Any]:
        yield {**product(response), "from": response.meta["from"], "text": response.meta["link_text"], "of": of}

    def parse_maker(self, response: Any) -> Iterator[Any]:
        yield {"maker": response.css("h1::text").get()}

    def failed(self, failure: Any) -> None:
        self.logger.error("no page is missing here")


class Statuses(ShopSpider):
    """Pages that are not there have items, too."""

    name = "statuses"
    handle_httpstatus_list = [404]

    def parse(self, response: Any) -> Iterator[Any]:
        for number in range(8, 16):
            yield Request(f"{self.site}/p/{number}", self.parse_product)

    def parse_product(self, response: Any) -> Any:
        return {"number": number_of(response), "status": response.status}


class StatusesByMeta(Statuses):
    name = "statuses_by_meta"
    handle_httpstatus_list = []

    def parse(self, response: Any) -> Iterator[Any]:
        for request in super().parse(response):
            yield request.replace(meta={"handle_httpstatus_all": True})


class Deep(ShopSpider):
    """What lies too deep is left out, also on workers."""

    name = "deep"
    custom_settings = {**TARGETS, "DEPTH_LIMIT": 3, "DEPTH_STATS_VERBOSE": True}

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield {**product(response), "depth": response.meta["depth"]}
        yield from response.follow_all(css="a.reviews", callback=self.parse_reviews)

    def parse_reviews(self, response: Any) -> Iterator[Any]:
        yield {"reviews": len(response.css("i")), "depth": response.meta["depth"]}
        yield from response.follow_all(css="a.stock", callback=self.parse_stock)

    def parse_stock(self, response: Any) -> Any:
        return {"stock": response.css("b::text").get(), "depth": response.meta["depth"]}


class Headers(ShopSpider):
    """What a request says of itself: headers of its own, where it comes from, who asks, and how important it is."""

    name = "headers"
    http_user, http_pass = "ann", "secret"
    http_auth_domain = None
    custom_settings = {**TARGETS, "USER_AGENT": "own agent", "DEFAULT_REQUEST_HEADERS": {"Accept-Language": "xx"}}

    async def start(self) -> AsyncIterator[Any]:
        for page in PAGES:
            yield Request(f"{self.site}/list/{page}")

    def parse(self, response: Any) -> Iterator[Any]:
        for number in range(3):
            path = f"/said/{3 * number_of(response) + number}"
            yield response.follow(
                path, self.parse_product, headers={"X-Own": path, "Accept": "a/b"}, priority=number, flags=["own"]
            )

    def parse_product(self, response: Any) -> Any:
        request = response.request
        return {**response.json(), "priority": request.priority, "flags": request.flags}


class Awaiting(ShopSpider):
    """Coroutines that wait for other pages in the middle."""

    name = "awaiting"

    async def parse(self, response: Any) -> AsyncIterator[Any]:
        for request in response.follow_all(css="a.product", callback=self.parse_product):
            yield request
        for request in response.follow_all(css="a.next"):
            yield request

    async def parse_product(self, response: Any) -> AsyncIterator[Any]:
        assert self.crawler.engine is not None
        maker = await self.crawler.engine.download_async(response.follow(response.css("a.maker")[0]))
        yield {**product(response), "maker": maker.css("h1::text").get()}  # type: ignore[attr-defined]


class Blobs(ShopSpider):
    """Pages that are no text."""

    name = "blobs"

    def parse(self, response: Any) -> Iterator[Any]:
        for number in range(5):
            yield Request(f"{self.site}/blob/{number}", self.parse_product)

    def parse_product(self, response: Any) -> Any:
        return {"kind": type(response).__name__, "bytes": len(response.body), "last": response.body[-1]}


class WithFiles(ShopSpider):
    """Scrapy's own pipeline downloads a file for each item."""

    name = "with_files"
    custom_settings = {**TARGETS, "ITEM_PIPELINES": {"scrapy.pipelines.files.FilesPipeline": 1}, "FILES_STORE": "."}

    def parse_product(self, response: Any) -> Any:
        return {**product(response), "file_urls": [f"{self.site}/blob/{number_of(response)}"]}


class Listed(ShopSpider):
    """All that it crawls it knows at its start, and none of it names a callback."""

    name = "listed"
    custom_settings = {"DISTRIBUTED_TARGET_CALLBACKS": ["parse"]}

    def __init__(self, site: str, **kwargs: Any) -> None:
        super().__init__(site, **kwargs)
        self.start_urls = [f"{site}/p/{number}" for number in range(10)]

    async def start(self) -> AsyncIterator[Any]:
        for url in self.start_urls:
            yield Request(url, dont_filter=True)

    def parse(self, response: Any) -> Any:
        return product(response)


class Plain(ShopSpider):
    """With whatever settings."""

    name = "plain"

    def parse_product(self, response: Any) -> Any:
        return product(response)


class Imports(ShopSpider):
    """Says at its end what its process has imported."""

    name = "imports"

    def parse_product(self, response: Any) -> Any:
        return product(response)

    def closed(self, reason: str) -> None:
        self.logger.info("Imported: %s", " ".join(sys.modules))

"""Spiders whose requests do not all come out of a page: handlers of signals and callbacks give them to the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import CloseSpider, DontCloseSpider
from scrapy.http import Response
from typing_extensions import Self

from trial.home.spider import ShopSpider, number_of, product


class Handling(ShopSpider):
    """*handler* is told of *signal*."""

    signal: Any = signals.spider_idle

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> Self:
        spider = super().from_crawler(crawler, *args, **kwargs)
        crawler.signals.connect(spider.handler, cls.signal)
        return spider

    def handler(self) -> None:
        raise NotImplementedError

    def crawl(self, path: str, callback: Any) -> None:
        assert self.crawler.engine is not None
        self.crawler.engine.crawl(Request(f"{self.site}{path}", callback))

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)

    def parse_maker(self, response: Any) -> Iterator[Any]:
        yield {"maker": response.css("h1::text").get()}


class IdleTargets(Handling):
    """More products for the fleet when it is idle for the first time."""

    name = "idle_targets"
    more = ("/p/8", "/p/9", "/p/10", "/missing")

    def parse(self, response: Any) -> Iterator[Any]:
        yield from response.follow_all(css="a.product", callback=self.parse_product)

    def handler(self) -> None:
        more, self.more = self.more, ()
        for path in more:
            self.crawl(path, self.parse_product)


class IdleLate(IdleTargets):
    """The same, when all else is over; and it listens only from the start of the crawl on: all others are asked
    before."""

    name = "idle_late"
    signal = signals.spider_opened
    more = ("/p/8", "/p/9", "/p/10")

    def handler(self) -> None:
        self.crawler.signals.connect(self.idle, signals.spider_idle)

    def idle(self) -> None:
        assert self.crawler.stats is not None
        if self.crawler.stats.get_value("item_scraped_count", 0) >= 6:
            IdleTargets.handler(self)


class LatePage(Handling):
    """A page of more products, when it is idle and there is a file *mark*."""

    name = "late_page"

    def __init__(self, *args: Any, mark: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mark = Path(mark)
        self.given = False

    def parse(self, response: Any) -> Iterator[Any]:
        yield from response.follow_all(css="a.product", callback=self.parse_product)

    def handler(self) -> None:
        if self.mark.exists() and not self.given:
            self.given = True
            self.crawl("/list/1", self.parse)
            self.logger.info("The late page is given")


class IdlePages(Handling):
    """More pages that are nobody's targets, one after the other, and each leads to products."""

    name = "idle_pages"
    more = ("/group/0", "/group/1", "/group/5")

    def handler(self) -> None:
        if self.more:
            path, *self.more = self.more  # type: ignore[assignment]
            self.crawl(path, self.parse_group)
            raise DontCloseSpider

    def parse_group(self, response: Any) -> Iterator[Any]:
        yield {"group": response.css("h1::text").get()}
        yield from response.follow_all(css="a.product", callback=self.parse_product)


class Opened(Handling):
    """A target and another page as soon as it is opened."""

    name = "opened"
    signal = signals.spider_opened

    def handler(self) -> None:
        self.crawl("/p/11", self.parse_product)
        self.crawl("/maker/2", self.parse_maker)


class Waits(Handling):
    """It is not to close before all products are there, and none of the jobs sees all of them."""

    name = "waits"
    custom_settings = {**ShopSpider.custom_settings, "DISTRIBUTED_BATCH_SIZE": 3}
    seen = 0

    def handler(self) -> None:
        if self.batch is not None and self.seen < 12:
            raise DontCloseSpider

    def parse_product(self, response: Any) -> Iterator[Any]:
        self.seen += 1
        yield product(response)


class Engine(Handling):
    """Callbacks of every kind give their requests to the engine, and an item waits for what they lead to."""

    name = "engine"

    def handler(self) -> None:
        pass

    def parse_product(self, response: Any) -> Iterator[Any]:
        self.crawl(f"/maker/{100 + number_of(response)}", self.parse_maker)  # is not there
        self.crawl(f"/reviews/{number_of(response)}", self.parse_reviews)
        yield product(response)
        self.crawl(f"/stock/{number_of(response)}", self.parse_stock)

    async def parse_reviews(self, response: Any) -> AsyncIterator[Any]:
        self.crawl(f"/group/{number_of(response)}", self.parse_group)
        yield {"reviews": response.css("i::text").getall()}

    def parse_stock(self, response: Any) -> Iterator[Any]:
        yield {"stock": response.css("b::text").get(), "of": response.url.rpartition("/")[2]}

    def parse_group(self, response: Any) -> Any:
        return {"group": response.css("h1::text").get()}


class EngineTargets(Handling):
    """Products lead to products by the engine: in jobs these are found for the fleet."""

    name = "engine_targets"

    def handler(self) -> None:
        pass

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.site}/p/0", self.parse_product)

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)
        for number in (2 * number_of(response) + 1, 2 * number_of(response) + 2):
            if number < 12:
                self.crawl(f"/p/{number}", self.parse_product)


class Starts(ShopSpider):
    """Which pages are start requests: for the fleet, here, and what they lead to."""

    name = "starts"

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.site}/p/0", self.parse_product)
        yield Request(f"{self.site}/p/1", self.parse_product, meta={"depth": 2})
        yield Request(f"{self.site}/list/1")

    def parse(self, response: Any) -> Iterator[Any]:
        yield self.meta_of(response)
        yield from response.follow_all(css="a.product", callback=self.parse_product)

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield self.meta_of(response)
        yield from response.follow_all(css="a.maker", callback=self.meta_of, dont_filter=True)

    def meta_of(self, response: Response) -> dict[str, Any]:
        start = {key: value for key, value in response.meta.items() if "start" in key}
        return {"path": response.url.removeprefix(self.site), **start}


class EnoughBelow(ShopSpider):
    """It closes itself while what its products lead to is still to come."""

    name = "enough_below"

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)
        yield from response.follow_all(css="a.reviews", callback=self.parse_reviews, priority=-1)
        if number_of(response) == 2:
            raise CloseSpider("seen enough")

    def parse_reviews(self, response: Any) -> Any:
        return {"reviews": len(response.css("i"))}


class Broken(ShopSpider):
    """Its callback raises for each product."""

    name = "broken"

    def parse_product(self, response: Any) -> Any:
        raise ValueError(number_of(response))


class Enough(ShopSpider):
    """It closes itself when it has seen the third product."""

    name = "enough"

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)
        if number_of(response) == 2:
            raise CloseSpider("seen enough")

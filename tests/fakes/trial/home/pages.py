"""Each spider finds its way to its items by other pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from scrapy import Request
from scrapy.linkextractors import LinkExtractor
from scrapy.spiders import CrawlSpider, Rule

from trial.home.spider import TARGETS, ShopSpider, number_of, product


class Chain(ShopSpider):
    """One item of three pages, handed on in ``cb_kwargs``."""

    name = "chain"

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield from response.follow_all(
            css="a.reviews", callback=self.parse_reviews, cb_kwargs={"so": product(response)}
        )

    def parse_reviews(self, response: Any, so: dict[str, Any]) -> Iterator[Any]:
        so["reviews"] = response.css("i::text").getall()
        yield from response.follow_all(css="a.stock", callback=self.parse_stock, cb_kwargs={"so": so})

    def parse_stock(self, response: Any, so: dict[str, Any]) -> Iterator[Any]:
        yield {**so, "stock": int(response.css("b::text").get())}


class MetaChain(ShopSpider):
    """The same in ``meta``, each page with an item of its own besides."""

    name = "meta_chain"
    custom_settings = {**TARGETS, "FEED_EXPORT_FIELDS": ["page", "number", "name", "reviews"]}

    def parse_product(self, response: Any) -> Iterator[Any]:
        found = product(response)
        yield {"page": "product", **found}
        yield from response.follow_all(css="a.reviews", callback=self.parse_reviews, meta={"found": found})

    async def parse_reviews(self, response: Any) -> AsyncIterator[Any]:
        found = response.meta["found"]
        for number, text in enumerate(response.css("i::text").getall()):
            yield {"page": f"review {number}", **found, "reviews": text}


class Errback(ShopSpider):
    """Errbacks yield: of pages that are not there, targets and those after them."""

    name = "errback"

    def parse(self, response: Any) -> Iterator[Any]:
        for number, link in enumerate(response.css("a.product::attr(href)").getall()):
            url = link if number % 3 else f"/missing{link}"
            yield response.follow(url, self.parse_product, errback=self.note)
        yield from response.follow_all(css="a.next")

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield {"url": response.url[len(self.site) :], "status": 200}
        yield response.follow(f"/gone/{number_of(response)}", self.parse_product, errback=self.note)

    def note(self, failure: Any) -> Iterator[Any]:
        yield {"url": failure.value.response.url[len(self.site) :], "status": failure.value.response.status}


class Rules(CrawlSpider):
    """Rules; lists yield items, too, the first by ``parse_start_url``."""

    name = "rules"
    batch: str | None = None
    custom_settings = {"DISTRIBUTED_TARGET_RULE": 1, "FEED_EXPORT_FIELDS": ["list", "number", "name", "price"]}
    rules = (
        Rule(LinkExtractor(restrict_css="a.next"), callback="parse_list", follow=True),
        Rule(LinkExtractor(restrict_css="a.product"), callback="parse_product"),
    )

    def __init__(self, site: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.site = site
        self.start_urls = [f"{site}/list/0"]

    def parse_start_url(self, response: Any, **kwargs: Any) -> Any:
        return {"list": "first", "name": response.css("h1::text").get()}

    def parse_list(self, response: Any) -> Iterator[Any]:
        yield {"list": "later", "name": response.css("h1::text").get()}

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)


class FollowingRules(Rules):
    """Products lead back to lists that yield items: each has been there before."""

    name = "following_rules"
    rules = (
        Rule(LinkExtractor(restrict_css="a.next, a.back"), callback="parse_list", follow=True),
        Rule(LinkExtractor(restrict_css="a.product"), callback="parse_product", follow=True),
    )

    async def start(self) -> AsyncIterator[Any]:
        yield Request(self.start_urls[0], self.parse_with_rules_of_list)

    async def parse_with_rules_of_list(self, response: Any) -> AsyncIterator[Any]:
        yield {"list": "first", "name": response.css("h1::text").get()}
        for request in self._requests_to_follow(response):
            yield request


class Here(ShopSpider):
    """``start`` and lists yield items of their own."""

    name = "here"
    custom_settings = {**TARGETS, "FEED_EXPORT_FIELDS": ["place", "number", "name"]}

    async def start(self) -> AsyncIterator[Any]:
        yield {"place": "start", "number": 0}
        async for request in super().start():
            yield request
        yield {"place": "end of start", "number": 0}

    def parse(self, response: Any) -> Iterator[Any]:
        yield from super().parse(response)
        yield {"place": "list", "name": response.css("h1::text").get()}

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)


class Back(ShopSpider):
    """Products lead back to their list, by the callback that has seen it."""

    name = "back"
    custom_settings = {**TARGETS, "FEED_EXPORT_FIELDS": ["list", "number", "name"]}

    def parse(self, response: Any) -> Iterator[Any]:
        yield {"list": response.css("h1::text").get()}
        yield from super().parse(response)

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)
        yield from response.follow_all(css="a.back")


class Stuck(ShopSpider):
    """Some requests can't travel."""

    name = "stuck"

    def parse(self, response: Any) -> Iterator[Any]:
        things = [lambda number: number + 1, Path(__file__).open(), None, None]  # noqa: SIM115
        for number, link in enumerate(response.css("a.product::attr(href)").getall()):
            yield response.follow(link, self.parse_product, cb_kwargs={"thing": things[number % 4]})
        yield from response.follow_all(css="a.next")

    def parse_product(self, response: Any, thing: Any) -> Iterator[Any]:
        kind = type(thing).__name__
        if hasattr(thing, "close"):
            thing.close()
        yield {**product(response), "thing": kind}


class Nameless(ShopSpider):
    """Callbacks without a name, of products and of what redirects to them, hand their pages to that of a target; those
    of lists do not."""

    name = "nameless"

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.site}/list/0", lambda response: self.parse(response))

    def parse(self, response: Any) -> Iterator[Any]:
        for number, link in enumerate(response.css("a.product::attr(href)").getall()):
            if number % 2:
                yield response.follow(link, lambda response: self.parse_product(response))
                yield response.follow(f"/to?u={link}?again", lambda response: self.parse_product(response))
            else:
                yield response.follow(link, self.parse_product)
        yield from response.follow_all(css="a.next")

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield {"url": response.url.removeprefix(self.site), "name": response.css("h1::text").get()}


class Shared(ShopSpider):
    """A page below many products, each item of it once."""

    name = "shared"
    custom_settings = {**TARGETS, "FEED_EXPORT_FIELDS": ["maker", "number", "name"]}

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)
        yield from response.follow_all(css="a.maker", callback=self.parse_maker)

    def parse_maker(self, response: Any) -> Iterator[Any]:
        for part in ("first", "second"):
            yield {"maker": part, "number": number_of(response), "name": response.css("h1::text").get()}


class Unfiltered(Shared):
    """Each time anew, as nothing filters these."""

    name = "unfiltered"

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)
        yield from response.follow_all(css="a.maker", callback=self.parse_maker, dont_filter=True)


class EachTime(Shared):
    """Nothing filters any: two links to each product, found on lists, and more to some, found on products."""

    name = "each_time"
    custom_settings = {**Shared.custom_settings, "DUPEFILTER_CLASS": "scrapy.dupefilters.BaseDupeFilter"}

    def parse(self, response: Any) -> Iterator[Any]:
        for _ in range(2):
            yield from response.follow_all(css="a.product", callback=self.parse_product, cb_kwargs={"first": True})
        yield from response.follow_all(css="a.next")

    def parse_product(self, response: Any, first: bool = False) -> Iterator[Any]:
        yield from super().parse_product(response)
        if first and number_of(response) % 5 == 0:
            yield response.follow("/p/1", self.parse_product)
            yield response.follow("/list/1", self.parse_list)

    def parse_list(self, response: Any) -> Iterator[Any]:
        yield {"maker": "list", "number": number_of(response), "name": response.css("h1::text").get()}


class Redirects(ShopSpider):
    """Targets that are redirected: to another target, to none, two to the same; and by way of each other."""

    name = "redirects"
    custom_settings = {**TARGETS, "FEED_EXPORT_FIELDS": ["url", "name"], "DISTRIBUTED_BATCH_SIZE": 3}

    def parse(self, response: Any) -> Iterator[Any]:
        for target in (
            "/to?u=/p/1", "/p/0", "/p/1", "/to?u=/maker/0", "/to?u=/maker/1", "/p/2", "/to?u=%2Fmaker/1",
            "/to?u=/to%3Fu%3D/p/2", "/to?u=/p/5", "/to?u=/none", "/p/4", "/to?u=/missing",
        ):  # fmt: skip
            yield response.follow(target, self.parse_product)

    def parse_product(self, response: Any) -> Iterator[Any]:
        if name := response.css("h1::text").get():
            yield {"url": response.url[len(self.site) :], "name": name}


class Refreshes(Redirects):
    """The same by a meta tag."""

    name = "refreshes"

    def parse(self, response: Any) -> Iterator[Any]:
        for target in (
            "/refresh?u=/p/1", "/p/0", "/p/1", "/refresh?u=/maker/0", "/refresh?u=/maker/1", "/p/2",
            "/refresh?u=%2Fmaker/1", "/to?u=/refresh%3Fu%3D/p/3",
        ):  # fmt: skip
            yield response.follow(target, self.parse_product)


class Groups(ShopSpider):
    """Targets find targets, several levels deep, and some of them twice."""

    name = "groups"
    custom_settings = {
        "DISTRIBUTED_TARGET_CALLBACKS": ["parse_group", "parse_product"],
        "FEED_EXPORT_FIELDS": ["group", "number", "name"],
        "DISTRIBUTED_BATCH_SIZE": 4,
    }

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.site}/group/0", self.parse_group)

    def parse_group(self, response: Any) -> Iterator[Any]:
        yield {"group": response.css("h1::text").get()}
        yield from response.follow_all(css="a.group", callback=self.parse_group)
        yield from response.follow_all(css="a.product", callback=self.parse_product)
        yield response.follow("/p/11", self.parse_product)
        yield response.follow("/group/0", self.parse_group)

    def parse_product(self, response: Any) -> Iterator[Any]:
        yield product(response)


class Nothing(ShopSpider):
    """No items at all."""

    name = "nothing"

    def parse_product(self, response: Any) -> None:
        return None


class Few(ShopSpider):
    """Most pages have none, one has many."""

    name = "few"

    def parse_product(self, response: Any) -> Iterator[Any]:
        if number_of(response) == 8:
            for count in range(300):
                yield {**product(response), "count": count}

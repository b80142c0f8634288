"""Spiders of the members' part of the shop: on workers as well they must be who has logged in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlencode

from scrapy import Request

from trial.home.spider import ShopSpider, number_of

TARGETS = {"DISTRIBUTED_TARGET_CALLBACKS": ["parse_order"]}


class Members(ShopSpider):
    """Logs in by a form, and reads orders, and the paper below each."""

    name = "members"
    custom_settings = {**TARGETS, "FEED_EXPORT_FIELDS": ["number", "said", "seen", "paper"]}

    async def start(self) -> AsyncIterator[Any]:
        yield Request(f"{self.site}/members", self.log_in, cb_kwargs={"user": "ann"})

    def log_in(self, response: Any, user: str) -> Any:
        form = {"user": user, "token": response.css("[name=token]::attr(value)").get()}
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return Request(response.url, self.parse_orders, method="POST", headers=headers, body=urlencode(form))

    def parse_orders(self, response: Any) -> Iterator[Any]:
        yield from response.follow_all(css="a.order", callback=self.parse_order)
        yield from response.follow_all(css="a.next", callback=self.parse_orders)

    def parse_order(self, response: Any) -> Iterator[Any]:
        said = {"said": response.css("h1::text").get(), "seen": response.css("b::text").get()}
        order = {"number": number_of(response), **said}
        yield order
        yield from response.follow_all(css="a.invoice", callback=self.parse_paper, cb_kwargs={"order": order})

    def parse_paper(self, response: Any, order: dict[str, Any]) -> Iterator[Any]:
        yield {**order, "paper": response.css("h1::text").get()}


class TwoMembers(Members):
    """Two who have logged in at once, each with a jar; and each order once more as a guest, without any cookies."""

    name = "two_members"

    async def start(self) -> AsyncIterator[Any]:
        for user in ("ann", "ben"):
            first = Request(f"{self.site}/members", self.log_in, cb_kwargs={"user": user})
            yield first.replace(meta={"cookiejar": user}, dont_filter=True)

    def log_in(self, response: Any, user: str) -> Any:
        return super().log_in(response, user).replace(meta={"cookiejar": user}, dont_filter=True)

    def parse_orders(self, response: Any) -> Iterator[Any]:
        jar = {"cookiejar": response.meta["cookiejar"]}
        for request in super().parse_orders(response):
            yield request.replace(meta=jar, dont_filter=True)
            if request.callback == self.parse_order:
                yield request.replace(meta=jar | {"dont_merge_cookies": True}, dont_filter=True)

    def parse_order(self, response: Any) -> Iterator[Any]:
        for output in super().parse_order(response):
            jar = {"cookiejar": response.meta["cookiejar"]}
            yield output.replace(meta=jar, dont_filter=True) if isinstance(output, Request) else output


class MembersChain(Members):
    """Each order is found by the one before it."""

    name = "members_chain"

    def parse_orders(self, response: Any) -> Iterator[Any]:
        yield from response.follow_all(css="a.order", callback=self.parse_order)

    def parse_order(self, response: Any) -> Iterator[Any]:
        yield from super().parse_order(response)
        yield from response.follow_all(css="a.after", callback=self.parse_order)

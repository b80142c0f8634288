"""Which requests are taken for the fleet, and what the ledger gets of them. Pure: no crawl."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from diverting import Plain, diverter
from scrapy import Request, Spider
from scrapy.downloadermiddlewares.offsite import OffsiteMiddleware
from scrapy.settings import Settings
from scrapy.spiders import CrawlSpider, Rule

from scrapy_distributed.config.config import Config
from scrapy_distributed.divert.diverter import check_targets, rules_of
from scrapy_distributed.divert.fingerprint import quick_fingerprint
from scrapy_distributed.errors import ConfigError, TooLargeError
from scrapy_distributed.wire.request import decode_requests
from scrapy_distributed.wire.session import session_of


class Crawling(CrawlSpider):
    name = "crawling"
    rules = (Rule(), Rule(callback="parse_item"), Rule(callback="parse_other"))

    def parse_item(self, response: Any) -> None:
        """A rule's callback."""

    parse_other = parse_item


class Strict(OffsiteMiddleware):
    """A rule of the project's own: it looks at more than the host."""

    def should_follow(self, request: Request, spider: Spider) -> bool:
        return "secret" not in request.url


def test_by_rule() -> None:
    targets = diverter(Crawling(), target_rule="1,2")
    found = [targets.is_target(Request("http://a/", meta={"rule": rule})) for rule in (0, 1, 2, [1], None)]
    assert found == [False, True, True, False, False]


def test_by_the_callback_of_a_rule() -> None:
    targets = diverter(Crawling(), target_callbacks="parse_item")
    assert targets.rules == (1,)
    assert targets.is_target(Request("http://a/", meta={"rule": 1}))


@pytest.mark.parametrize(("named", "callback", "expected"), [
    ("parse_page", "parse_page", True), ("parse_page", None, False), ("parse", None, True), ("parse", "parse", True),
])  # fmt: skip
def test_by_callback(named: str, callback: str | None, expected: bool) -> None:
    spider = Plain()
    request = Request("http://a.example/", callback=getattr(spider, callback) if callback else None)
    assert diverter(spider, target_callbacks=named).is_target(request) is expected


def test_by_meta_which_does_not_travel() -> None:
    targets = diverter(Plain())
    request = Request("http://a.example/", meta={"distributed": True})
    assert targets.is_target(request)
    ((_, body),), here = targets.entries([request])
    assert (body, here) == ('"http://a.example/"', [])


def test_what_a_worker_must_not_fetch_is_dropped_and_counted() -> None:
    targets = diverter(Plain())
    requests = [Request(url) for url in (
        "file:///etc/passwd", "ftp://a.example/x", "data:,x", "http://b.example/", "http://b.example/2",
        "http://sub.a.example/", "http://a.example:81/", "http://b.example",
    )]  # fmt: skip
    requests += [
        Request("http://b.example/3", dont_filter=True),
        Request("http://b.example/4", meta={"allow_offsite": 1}),
    ]
    entries, here = targets.entries(requests)
    assert len(entries) == 4
    assert here == []
    assert targets.stats.get_value("distributed/unsupported_scheme") == 3
    assert targets.stats.get_value("distributed/offsite") == targets.stats.get_value("offsite/filtered") == 3


def test_allowed_domains_may_change_while_it_crawls() -> None:
    """Scrapy follows that since 2.15; ours says what Scrapy's rule says."""
    spider = Plain()
    targets = diverter(spider)
    assert targets.offsite.filters(Request("http://b.example/"))
    rule = targets.offsite._find()
    assert rule is not None
    for domains in (["b.example"], ["b.example", "c.example"], []):
        spider.allowed_domains = domains
        for url in ("http://a.example/", "http://b.example/", "http://c.example/"):
            assert targets.offsite.filters(Request(url)) is not rule.should_follow(Request(url), spider)


def test_a_rule_of_the_projects_own_is_asked_for_every_request() -> None:
    targets = diverter(Plain(), offsite=Strict)
    assert not targets.offsite.filters(Request("http://b.example/public"))
    assert targets.offsite.filters(Request("http://b.example/secret"))


def test_without_the_middleware_everything_is_on_site() -> None:
    assert not diverter(Plain(), offsite=None).offsite.filter(Request("http://b.example/"))


def test_what_can_not_travel_is_crawled_here_and_counted() -> None:
    targets = diverter(Plain())
    odd = Request("http://a.example/1", meta={"key": object()})
    entries, here = targets.entries([odd, Request("http://a.example/2")])
    assert (len(entries), here) == (1, [odd])
    assert targets.stats.get_value("distributed/local/not_serializable") == 1


def test_a_request_that_fails_in_scrapy_fails_alone() -> None:
    def fingerprint(request: Request) -> bytes:
        return quick_fingerprint(request) if "odd" not in request.url else bytes(1 // 0)

    targets = diverter(Plain())
    targets.fingerprint = fingerprint
    odd = Request("http://a.example/odd")
    entries, here = targets.entries([Request("http://a.example/1"), odd, Request("http://a.example/2")])
    assert (len(entries), here) == (2, [odd])
    assert targets.stats.get_value("distributed/local/error") == 1


def test_requests_that_are_not_to_be_filtered_have_keys_of_their_own() -> None:
    requests = [Request("http://a.example/", dont_filter=dont) for dont in (True, True, False, False)]
    keys = [key for key, _ in diverter(Plain()).entries(requests)[0]]
    assert len(set(keys)) == 3
    again = [key for key, _ in diverter(Plain()).entries(requests)[0]]
    assert again == keys  # a resumed walk finds its own again


def test_where_nothing_filters_all_requests_have_keys_of_their_own() -> None:
    requests = [Request("http://a.example/", dont_filter=dont) for dont in (True, False, False)]
    keys = [key for key, _ in diverter(Plain(), filters=False).entries(requests)[0]]
    assert len(set(keys)) == 3
    assert [key for key, _ in diverter(Plain(), filters=False).entries(requests)[0]] == keys
    finds = [diverter(Plain(), filters=False).found(requests[1:2], source)[0][0] for source in (b"a", b"b")]
    assert finds[0] != finds[1]


class Ruled(Spider):
    """Its rules are its own affair."""

    name = "ruled"
    rules: Any = {"price": "h2"}

    def parse_item(self, response: Any) -> None:
        """A callback."""


class Late(CrawlSpider):
    name = "late"

    @property
    def rules(self) -> Any:
        return (Rule(callback=name) for name in ("parse", "parse_item"))

    def parse_item(self, response: Any) -> None:
        """A rule's callback."""


def check(spider: Spider, **settings: Any) -> None:
    given = {f"DISTRIBUTED_{name.upper()}": value for name, value in settings.items()}
    check_targets(Config.from_settings(Settings(given)), spider)


@pytest.mark.parametrize("rules", [{"price": "h2"}, ["a"], "abc", 7, None, property(lambda self: 1 // 0)])
def test_an_attribute_of_that_name_makes_no_rules(rules: Any, caplog: pytest.LogCaptureFixture) -> None:
    spider = type("Other", (Ruled,), {"rules": rules})()
    check(spider)
    check(spider, target_callbacks="parse_item")
    assert not caplog.records
    targets = diverter(spider, target_callbacks="parse_item", target_rule=1)
    assert (targets.rules, rules_of(type(spider))) == ((), None)
    assert not targets.is_target(Request("http://a/", meta={"rule": 1}))
    assert targets.is_target(Request("http://a/", callback=spider.parse_item))
    check(spider, target_rule=1)
    assert "DISTRIBUTED_TARGET_RULE: found 1, and ruled is no CrawlSpider" in caplog.text


def test_rules_that_are_made_late_count() -> None:
    check(Late(), target_rule=1)
    assert diverter(Late(), target_callbacks="parse_item").rules == (1,)
    with pytest.raises(ConfigError, match="found 2, the spider's rules are 0 to 1"):
        check(Late(), target_rule=2)
    assert rules_of(Late) == []  # nobody knows yet


def test_a_callback_that_a_rule_misspells_is_told(caplog: pytest.LogCaptureFixture) -> None:
    class Misspelt(Crawling):
        rules = (Rule(), Rule(callback="parse_itm", errback="oops"), Rule(callback="parse_item"))

    check(Misspelt(), target_rule=1)
    told = [record.getMessage() for record in caplog.records]
    assert [line[:36] for line in told] == [
        "rules[1]: found callback='parse_itm'",
        "rules[1]: found errback='oops', expe",
    ]


@pytest.mark.parametrize(("spider", "settings", "message"), [
    (Crawling, {}, "DISTRIBUTED_TARGET_RULE: found nothing"),
    (Crawling, {"target_rule": 3}, "found 3, the spider's rules are 0 to 2"),
    (Plain, {"target_callbacks": "parse_page,nope"}, "DISTRIBUTED_TARGET_CALLBACKS: found nope"),
])  # fmt: skip
def test_refusals(spider: type[Spider], settings: dict[str, Any], message: str) -> None:
    config = Config.from_settings(Settings({f"DISTRIBUTED_{name.upper()}": value for name, value in settings.items()}))
    with pytest.raises(ConfigError, match=message):
        check_targets(config, spider())


# A callback by another name


def undecorated_name(function: Any) -> Any:
    def wrapper(self: Any, response: Any, **values: Any) -> Any:
        return function(self, response, **values)

    return wrapper


class Named(Plain):
    @undecorated_name
    def parse_decorated(self, response: Any) -> None:
        """Called ``wrapper``."""

    def __parse_private(self, response: Any) -> None:
        """Called ``_Named__parse_private``."""

    def of_each_kind(self) -> list[Any]:
        return [
            self.parse_decorated, self.__parse_private, partial(self.parse_page, x=1),
            partial(partial(self.parse_decorated, x=1), y=2),
        ]  # fmt: skip


NAMES = ["parse_page", "parse_decorated", "_Named__parse_private"]


@pytest.mark.parametrize("number", range(4))
def test_a_callback_by_another_name_is_a_targets_and_travels(number: int) -> None:
    spider = Named()
    targets = diverter(spider, target_callbacks=NAMES)
    callback = spider.of_each_kind()[number]
    request = Request("http://a.example/", callback, cb_kwargs={"z": 3})
    assert targets.is_target(request)
    ((_, body),), here = targets.entries([request])
    (arrived,) = decode_requests(f"[{body}]", spider)
    method = callback.func if isinstance(callback, partial) else callback
    assert (arrived.callback, here) == (method, [])
    assert arrived.cb_kwargs == {**getattr(callback, "keywords", {}), "z": 3}


def test_a_partial_of_another_callback_is_no_targets() -> None:
    spider = Named()
    targets = diverter(spider, target_callbacks=["parse_page"])
    for callback in (partial(spider.parse), spider.parse_decorated, lambda response: None):
        assert not targets.is_target(Request("http://a.example/", callback))


def test_a_partial_with_a_value_in_front_stays_here() -> None:
    spider = Named()
    targets = diverter(spider, target_callbacks=["parse_page"])
    request = Request("http://a.example/", partial(spider.parse_page, "first"))
    assert targets.is_target(request)
    assert targets.entries([request]) == ([], [request])
    assert targets.stats.get_value("distributed/local/not_serializable") == 1


class Nameless(Plain):
    """Callbacks without a name: those that hand their page to a target's, and others."""

    def parse_item(self, response: Any, number: int = 0) -> None:
        """A target's."""

    def handing_on(self) -> list[Any]:
        item = self.parse_item

        def closure(response: Any) -> Any:
            return [self.parse_item(response, number=number) for number in range(3)]

        return [
            lambda response: self.parse_item(response), lambda response, n=2: self.parse_item(response, n), closure,
            lambda response: item(response), partial(lambda n, response: self.parse_item(response, n), 1),
        ]  # fmt: skip

    def others(self) -> list[Any]:
        def list_page(response: Any) -> Any:
            yield from response.follow_all(css="a", callback=self.parse_item)

        return [
            lambda response: None, lambda response: self.parse_page(response), list_page,
            lambda response: Request("http://a.example/", self.parse_item), print, self.parse_page,
        ]  # fmt: skip


@pytest.mark.parametrize("number", range(5))
def test_a_callback_without_a_name_that_is_meant_for_the_fleet_is_counted_and_told(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    spider = Nameless()
    targets = diverter(spider, target_callbacks="parse_item")
    requests = [Request(f"http://a.example/{n}", spider.handing_on()[number]) for n in range(2)]
    assert all(map(targets.is_target, requests))
    assert targets.entries(requests) == ([], requests)
    assert targets.stats.get_value("distributed/local/not_serializable") == 2
    (told,) = caplog.messages
    assert told.startswith("Crawled here, it can't travel: <GET http://a.example/0>: ")
    assert "is not an instance method in" in told


@pytest.mark.parametrize("number", range(6))
def test_any_other_callback_is_not(number: int) -> None:
    spider = Nameless()
    request = Request("http://a.example/", spider.others()[number])
    assert not diverter(spider, target_callbacks="parse_item").is_target(request)
    assert not diverter(spider).is_target(request)


def test_a_worker_crawls_it_itself(caplog: pytest.LogCaptureFixture) -> None:
    spider = Nameless()
    targets = diverter(spider, target_callbacks="parse_item")
    request = Request("http://a.example/", spider.handing_on()[0])
    assert targets.find(request) == ([], [request])
    assert "the callback <lambda> is no target's: DISTRIBUTED_TARGET_CALLBACKS does not name it" in caplog.text


# Cookies that go with it


def test_an_entry_names_its_session() -> None:
    targets = diverter(Plain())
    targets.session_of = lambda request: "0123456789abcdef" if "cookies" in request.url else None
    entries, here = targets.entries([Request("http://a.example/cookies"), Request("http://a.example/none")])
    assert [session_of(body) for _, body in entries] == ["0123456789abcdef", None]
    assert entries[1][1] == '"http://a.example/none"'
    assert here == []


def test_what_has_too_many_cookies_is_crawled_here() -> None:
    def too_many(request: Request) -> str:
        raise TooLargeError("cookies of 20,000 bytes")

    targets = diverter(Plain())
    targets.session_of = too_many
    request = Request("http://a.example/")
    assert targets.entries([request]) == ([], [request])
    assert targets.stats.get_value("distributed/local/too_large") == 1

"""What workers find, and what a node may say that one has found: nothing of a receipt is crawled by the coordinator, or
sent on, that the project's own rule does not call a target, whatever it says of itself."""

from __future__ import annotations

import json
import random
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from crawling import VERSION, Crawl, Project
from diverting import Plain, diverter
from fake_scrapyd import FakeJob, FakeScrapyd
from hostile import packed
from scrapy import Request, Spider
from scrapy.spiders import CrawlSpider, Rule
from until import until

from scrapy_distributed.divert.diverter import Diverter
from scrapy_distributed.errors import WireError
from scrapy_distributed.wire.payload import START_URL, decode_payload, url_of
from scrapy_distributed.wire.receipt import MAX_TARGETS, Receipt
from scrapy_distributed.wire.request import decode_requests


class Listing(CrawlSpider):
    """Rule 1 is the fleet's."""

    name = "listing"
    allowed_domains = ["a.example"]
    rules = (Rule(callback="parse_list"), Rule(callback="parse_item"))

    def parse_item(self, response: Any) -> None:
        """A target's callback."""

    def parse_list(self, response: Any) -> None:
        """Another."""

    def wipe(self, response: Any) -> None:
        """What no response should reach."""


BY_RULE = diverter(Listing(), target_rule=1)
BY_NAME = diverter(Listing(), target_callbacks="parse_item")
BY_MARK = diverter(Plain())


def of_rule(rule: Any, **values: Any) -> Request:
    spider: Any = BY_RULE.spider
    values.setdefault("callback", spider._callback)
    return Request("http://a.example/1", meta={"rule": rule}, **values)


def named(name: str = "parse_item", spider: Spider = BY_NAME.spider, **values: Any) -> Request:
    return Request(values.pop("url", "http://a.example/1"), callback=getattr(spider, name), **values)


def is_taken(targets: Diverter, request: Request) -> bool:
    """Whether a worker reports *request*, and a coordinator takes it: they must agree, and what a worker does not
    report it crawls itself."""
    entries, here = targets.find(request.copy())
    taken = []
    with suppress(WireError):
        taken = targets.found([request.copy()], b"job")
    assert len(entries) == len(taken) == 1 - len(here)
    return bool(taken)


# Whether the project's rule calls it a target


@pytest.mark.parametrize(
    ("targets", "request_", "taken"),
    [
        (BY_RULE, of_rule(1), True),
        (BY_RULE, of_rule(0), False),
        (BY_RULE, of_rule(2), False),
        (BY_RULE, of_rule(1, callback=BY_RULE.spider.wipe), False),  # type: ignore[attr-defined]
        (BY_RULE, of_rule(1, callback=None), False),
        (BY_RULE, named(), False),
        (BY_NAME, named(), True),
        (BY_NAME, of_rule(1, callback=BY_NAME.spider._callback), True),  # type: ignore[attr-defined]
        (BY_NAME, named("parse_list"), False),
        (BY_NAME, named("wipe"), False),
        (BY_NAME, named("wipe", meta={"rule": 1}), False),
        (BY_NAME, named("wipe", meta={"distributed": True}), False),
        (BY_NAME, named(method="POST", body=b"a=1", headers={"A": "b"}, cookies={"c": "d"}), True),
        (BY_MARK, Request("http://a.example/"), True),
        (BY_MARK, Request("http://a.example/", meta={"distributed": True}), True),
        (BY_MARK, named("parse_page", BY_MARK.spider), True),
        (diverter(Plain(), target_callbacks="parse_page"), Request("http://a.example/"), False),
        (diverter(Plain(), target_callbacks="parse"), Request("http://a.example/"), True),
        (
            diverter(Plain(), target_rule=3),
            Request("http://a.example/", meta={"rule": 3}),
            True,
        ),  # of a rule of its own
    ],
)
def test_a_find_is_a_target_by_the_projects_own_rule(targets: Diverter, request_: Request, taken: bool) -> None:
    assert is_taken(targets, request_) is taken


# What it says of where it goes, of what is obeyed, and of whose state it is


@pytest.mark.parametrize(
    "meta",
    [
        {"proxy": "http://b.example"}, {"proxy": None}, {"bindaddress": "127.0.0.1"}, {"verbatim_url": True},
        {"allow_offsite": True}, {"dont_obey_robotstxt": True}, {"cookiejar": 1}, {"http_user": "a"},
        {"ftp_local_filename": "/tmp/x"}, {"download_maxsize": 0}, {"download_slot": "other"}, {"download_slot": 1},
        {"max_retry_times": 11}, {"max_retry_times": 10**9}, {"max_retry_times": "9"}, {"retry_times": -(10**9)},
        {"redirect_times": -1}, {"redirect_times": 1.5}, {"depth": -1}, {"depth": True}, {"depth": None},
        {"referrer_policy": "os.path"}, {"cached_response": {}}, {"distributed_x": 1},
        {"playwright_page_methods": []}, {"splash": {"splash_url": "http://b.example"}}, {"zyte_api_automap": {}},
    ],
    ids=str,
)  # fmt: skip
def test_a_find_does_not_say_how_it_is_fetched(meta: dict[str, Any]) -> None:
    assert not is_taken(BY_NAME, named(meta=meta))
    (name,) = meta
    if not name.startswith("distributed_"):
        assert is_taken(diverter(Listing(), target_callbacks="parse_item", found_meta=["x", name]), named(meta=meta))
        patterns = f"{name[:3]}*,{name[:3]}?"
        assert is_taken(diverter(Listing(), target_callbacks="parse_item", found_meta=patterns), named(meta=meta))


@pytest.mark.parametrize(
    "meta",
    [
        {"anything": {"of": ["the", "spider's", None]}}, {"proxy_url": "x"}, {"slot": 1}, {"playwright": True},
        {"dont_redirect": True}, {"dont_retry": True}, {"dont_merge_cookies": True}, {"dont_cache": True},
        {"handle_httpstatus_list": [404]}, {"handle_httpstatus_all": True}, {"download_timeout": 5},
        {"download_fail_on_dataloss": False}, {"max_retry_times": 10}, {"referrer_policy": "no-referrer"},
        # A copy of a page's meta has these:
        {"depth": 3, "download_slot": "a.example", "download_latency": 0.1, "download_timeout": 180.0,
         "redirect_times": 1, "redirect_ttl": 19, "redirect_urls": ["http://a.example/"], "redirect_reasons": [302],
         "retry_times": 2, "is_start_request": True, "rule": 0, "link_text": "next"},
    ],
    ids=str,
)  # fmt: skip
def test_a_find_has_the_meta_of_its_spider(meta: dict[str, Any]) -> None:
    assert is_taken(BY_NAME, named(meta=meta))


@pytest.mark.parametrize(
    ("url", "host", "taken"),
    [
        ("http://a.example/", "a.example", True), ("http://a.example:81/", "A.example:81", True),
        ("http://a.example/", "b.example", False), ("http://a.example:81/", "a.example", False),
        ("http://user@a.example/", "a.example", True), ("http://a.example/", ["a.example", "b.example"], False),
    ],
)  # fmt: skip
def test_a_find_names_one_host(url: str, host: Any, taken: bool) -> None:
    assert is_taken(BY_NAME, named(url=url, headers={"Host": host})) is taken


def test_a_find_has_a_url_that_is_read_in_no_time() -> None:
    """A fingerprint of one of a megabyte takes seconds, and the coordinator's event loop waits for it."""
    long = "http://a.example/?" + "a=1&" * 8_000
    assert is_taken(BY_NAME, named(url=long))
    assert not is_taken(BY_NAME, named(url=long + "a=1&" * 200))
    with pytest.raises(WireError, match="a URL of more than 5 characters"):
        decode_requests(["http://a.example/"], BY_NAME.spider, longest=5)


@pytest.mark.parametrize("key", [1, None, ("a",)])
def test_a_key_of_meta_may_be_any_plain_value(key: Any) -> None:
    (entry,), here = BY_NAME.find(named(meta={key: 1}))
    (request,) = decode_requests(f"[{entry[1]}]", BY_NAME.spider, data_only=True)
    assert (request.meta, here) == ({key: 1}, [])
    assert len(BY_NAME.found([request], b"job")) == 1


def test_a_key_of_meta_that_can_not_travel_is_no_error_of_the_page() -> None:
    request = named(meta={object(): 1})
    assert BY_NAME.find(request) == ([], [request])


def test_what_a_node_has_made_long_is_told_in_short() -> None:
    with pytest.raises(WireError) as caught:
        BY_NAME.found([named(url=f"http://a.example/{'x' * 30_000}", meta={"playwright_\n" + "x" * 10**6: 1})], b"job")
    assert len(str(caught.value)) < 700
    assert str(caught.value).isprintable()


def test_off_site_is_the_rule_and_not_what_a_find_says_of_itself() -> None:
    targets = diverter(Plain(), target_callbacks="parse_page")
    near, far = "http://a.example/", "http://b.example/"
    ask = [named("parse_page", targets.spider, url=url, dont_filter=dont) for url in (near, far) for dont in (0, 1)]
    entries = targets.found([request.copy() for request in ask], b"job")
    assert [url_of(json.loads(body)) for _, body in entries] == [near, near]
    assert targets.stats.get_value("distributed/offsite") == 2
    # On the worker: what the rule drops is dropped, what excepts itself is crawled there.
    found = [targets.find(request) for request in ask]
    assert [(len(entries), len(here)) for entries, here in found] == [(1, 0), (1, 0), (0, 0), (0, 1)]
    assert targets.stats.get_value("distributed/local/not_reportable") == 1


def test_a_file_is_not_fetched_by_a_worker_that_may_not_report_it() -> None:
    for url in ("file:///etc/passwd", "ftp://a.example/"):
        assert BY_NAME.find(named(url=url, meta={"ftp_user": "a"})) == ([], [])


def test_what_does_not_encode_again_is_crawled_nowhere() -> None:
    deep: Any = 1
    for _ in range(250):
        deep = [deep]
    for request in (named(meta={"a": deep}), named(body=random.Random(0).randbytes(200_000))):
        with pytest.raises(WireError, match=r"nested too deep|a request of"):
            BY_NAME.found([request], b"job")


def test_a_request_that_is_not_to_be_filtered_has_a_key_of_its_receipt() -> None:
    once, again = named(dont_filter=True), named(dont_filter=True)
    keys = [key for source in (b"a/0", b"a/1") for key, _ in BY_NAME.found([once.copy(), again.copy()], source)]
    assert len(set(keys)) == 4


def test_a_receipt_has_so_many_targets_and_no_more() -> None:
    payload = packed(b"[" + b"0," * 4_999 + b"0]")
    receipt = Receipt(job="j", sequence=1, final=True, size=0, settled=0, targets=(payload,) * (MAX_TARGETS // 5000))
    assert sum(map(len, receipt.found())) == MAX_TARGETS
    with pytest.raises(WireError, match="more than 200,000 of them"):
        list(replace(receipt, targets=(*receipt.targets, payload)).found())


# A real coordinator, and a node that writes what it likes


def page(number: int, **values: Any) -> dict[str, Any]:
    return {"url": f"http://127.0.0.1:1/found?{number}", "callback": "parse_page", **values}


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def forged_targets(third: str) -> list[tuple[list[str], str]]:
    """Payloads of receipts, and why each is refused."""

    def alone(**values: Any) -> list[str]:
        return [json.dumps([page(0, **values)])]

    post = {"url": f"{third}/addversion.json", "method": "POST", "body": "x", "headers": {"A": ["b"]}}
    deep = json.dumps([page(0, **post, meta={"a": 0})])
    return [
        ([deep.replace('"a": 0', f'"a": {nested(250)}')], "nested too deep"),
        (alone(**post, meta={"proxy": third}), r"meta\['proxy'\] does not go"),
        (alone(**(post | {"callback": "wipe"})), "the callback wipe is no target's"),
        (alone(**post, meta={"distributed_errback": "wipe"}), "which are a worker's own"),
        (alone(callback="wipe", meta={"distributed": True}), "the callback wipe is no target's"),
        (alone(meta={"cookiejar": 1}, dont_filter=True), r"meta\['cookiejar'\] does not go"),
        (alone(url="http://127.0.0.1:1/?\u4e00", encoding="punycode"), "found the encoding punycode"),
        (alone(url="http://127.0.0.1:1/?" + "a=1&" * 100_000), "a URL of more than 32,768 characters"),
        ([packed(b"[" + b"0," * 5_999_999 + b"0]")], "more than 200,000 values"),
        ([packed(b"[" + b"0," * 190_000 + b"0]")], "5,000 in a payload"),
        ([json.dumps([page(0)]), "[" * 9999], "expected a JSON list"),
        (['["http://127.0.0.1:1/"]'], "the callback parse is no target's"),
    ]  # fmt: skip


class ForgingNode:
    """A node that answers each job's first attempt with a forged receipt, and is honest in the second."""

    def __init__(self, fake: FakeScrapyd, forged: list[list[str]], last: list[str]) -> None:
        self.fake = fake
        self.forged = forged
        self.last = last  # what the job after all of these has found
        self.done: set[str] = set()

    def work(self) -> None:
        for job in self.fake.start_pending():
            number, _, again = job.args["batch"].partition(".")
            targets: list[str] = []
            if not again:
                targets = (self.forged + [self.last] + [[]] * 100)[int(number) - 1]
            self.report(job, targets)
        self.fake.finish()

    def report(self, job: FakeJob, targets: list[str]) -> None:
        receipt = Receipt(
            job=job.id, sequence=9, final=True, size=1, settled=1, stored=True, finish_reason="finished",
            targets=tuple(targets),
        )  # fmt: skip
        self.fake.files[f"trial/forged.receipts/{job.id}.json"] = receipt.to_json().encode()


@pytest_twisted.ensureDeferred
async def test_a_node_can_not_make_the_coordinator_or_others_fetch_what_it_likes(
    project: Project, tmp_path: Path
) -> None:
    third = FakeScrapyd().listen()  # where nobody has any business
    fake = FakeScrapyd(projects={"trial": {VERSION: ["forged"]}}).listen()
    attacks = forged_targets(third.url)
    offsite = [page(1, url="http://elsewhere.invalid/", dont_filter=True), page(2, url="http://10.0.0.1/")]
    node = ForgingNode(fake, [targets for targets, _ in attacks], [json.dumps([*offsite, page(3), page(4)])])
    crawl = project.crawl(
        "forged",
        folder=tmp_path,
        args={"count": len(attacks) + 1, "mark": tmp_path / "wiped"},
        settings={
            "DISTRIBUTED_TARGET_HOSTS": fake.url.removeprefix("http://"), "DISTRIBUTED_BATCH_SIZE": 1,
            "DISTRIBUTED_NODE_BACKLOG": 1, "DISTRIBUTED_POLL_INTERVAL": 0.05,
        },
    )  # fmt: skip

    async def is_over() -> bool:
        node.work()
        return await crawl.has_ended()

    try:
        await until(is_over, 200)
    finally:
        crawl.end()
        for server in (fake, third):
            await server.close()
    check_that_nothing_came_of_it(crawl, attacks)
    assert third.requests == []
    assert not (tmp_path / "wiped").exists()
    sent = [decode_payload(job.settings[START_URL])[0] for job in fake.jobs]
    assert [one for one in sent if "found" in one["url"]] == [page(3), page(4)]


def check_that_nothing_came_of_it(crawl: Crawl, attacks: list[tuple[list[str], str]]) -> None:
    count = len(attacks) + 3  # two more were found
    assert crawl.balance() == {"diverted": count, "crawled": count}
    rejected = [
        line for line in crawl.log.splitlines() if " rejected: what it has found for the fleet can't be read: " in line
    ]
    assert len(rejected) == len(attacks), crawl.log
    for line, (_, reason) in zip(rejected, attacks, strict=True):
        assert "from 127.0.0.1:" in line
        assert re.search(reason, line), line
    assert crawl.stat("distributed/attempts/rejected") == len(attacks)
    assert crawl.stat("distributed/found_by_workers") == 2
    assert crawl.stat("distributed/offsite") == 2
    assert crawl.stat("downloader/request_count") is None
    assert "Crawled here" not in crawl.log

"""A crawl of the fleet, end to end: real coordinator, nodes, workers and site. Nothing fails here by itself."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import scrapy
from crawling import Crawl, Project, SiteChild, site, wait_for
from market import make_property
from trial.spiders import long_urls

from scrapy_distributed.wire.payload import MAX_ARGUMENT_BYTES


def test_3000_properties_over_3_nodes(stock_project: Project, tmp_path: Path) -> None:
    project = stock_project
    with site(3000) as child:
        args = {"site": child.url, "pages": 100}
        crawl = project.crawl("distr", folder=tmp_path, args=args, settings={"DISTRIBUTED_BATCH_SIZE": 500}).wait()
        stats = child.stats()

    truth = {url: make_property(number) for number, url in enumerate(child.property_urls(range(3000)))}
    items = crawl.items()
    assert sorted(item["url"] for item in items) == sorted(truth)
    for item in items:
        expected = truth[item["url"]]
        assert (item["title"], item["price"]) == (expected.title, expected.price)
        assert (item["description"], item["address"]) == (expected.description, expected.address)
    assert (stats["properties_served"], stats["properties_repeated"]) == (3000, 0)

    assert crawl.balance() == {"diverted": 3000, "crawled": 3000}
    assert project.check(crawl) == 0
    nodes = [batch["node"] for batch in crawl.run()["batches"]]
    assert nodes == ["scrapyd1", "scrapyd2", "scrapyd3"] * 2
    assert crawl.stat("distributed/attempts") == 6
    assert crawl.stat("distributed/crawled") == 3000
    assert crawl.stat("distributed/workers/item_scraped_count") == 3000
    assert "ERROR" not in crawl.log
    assert crawl.log.count("WARNING: ") == crawl.log.count("WARNING: 3 of 3 nodes: credentials: none needed") == 1


def test_it_ends_as_soon_as_the_last_batch_is_settled(project: Project, small_site: SiteChild, tmp_path: Path) -> None:
    crawl = project.crawl("distr", folder=tmp_path, args={"site": small_site.url, "pages": 2})
    wait_for(lambda: "requests settled" in crawl.log)
    settled = time.monotonic()
    crawl.wait()
    assert time.monotonic() - settled < 3
    assert crawl.balance() == {"diverted": 60, "crawled": 60}


def test_5000_long_urls_arrive_whole(stock_project: Project, tmp_path: Path) -> None:
    project = stock_project
    with site(5000) as child:
        settings = {"DISTRIBUTED_BATCH_SIZE": 5000}
        crawl = project.crawl("long", folder=tmp_path, args={"site": child.url}, settings=settings).wait()
    assert crawl.balance() == {"diverted": 5000, "crawled": 5000}
    assert crawl.item_urls() == sorted(long_urls(child.url))
    assert len(crawl.run()["batches"]) > 1
    longest = max(item["longest_argument"] for item in crawl.items())
    assert MAX_ARGUMENT_BYTES / 2 < longest <= MAX_ARGUMENT_BYTES


ECHO: dict[str, Any] = {
    "place": "worker", "class": "Request", "method": "GET", "body": "", "trial": [], "cookie": None, "note": None,
    "kwargs": {}, "priority": 0, "flags": [], "reactor": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def plain(project: Project, small_site: SiteChild, tmp_path_factory: pytest.TempPathFactory) -> Crawl:
    """One crawl that sends out requests of every kind."""
    return project.crawl("plain", folder=tmp_path_factory.mktemp("plain"), args={"site": small_site.url}).wait()


def arrived(crawl: Crawl) -> dict[str, dict[str, Any]]:
    """The items by case, without what is the same in all of them."""
    return {item["case"]: {key: value for key, value in item.items() if key != "case"} for item in crawl.items()}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (
            "post",
            {
                "method": "POST", "body": "ü\0=1", "trial": ["one", "two"], "cookie": "session=abc",
                "note": {"deep": [1, 2.5, None, "é"]}, "kwargs": {"number": 7, "text": "ß"}, "priority": 5,
                "flags": ["flag"],
            },
        ),
        ("json", {"class": "JsonRequest", "method": "POST", "body": '{"a": [1]}'}),
        ("form", {"class": "FormRequest", "method": "POST", "body": "q=a+b"}),
    ],
)  # fmt: skip
def test_a_request_arrives_as_it_left(plain: Crawl, case: str, expected: dict[str, Any]) -> None:
    found = arrived(plain)[case]
    del found["argv"]
    assert found == ECHO | expected


def test_every_callback_of_a_plain_spider_has_run_once(plain: Crawl) -> None:
    cases = Counter(item["case"] for item in plain.items())
    assert cases.pop("again") == 2  # dont_filter
    assert cases.pop("b=1&a=2") == 1  # and neither ?a=2&b=1 nor its #fragment
    once = ["errback", "form", "further", "furthest", "json", "leads", "post"]
    here = {item["case"] for item in plain.items() if item["place"] == "coordinator"}
    assert here == {"large", "object", "unmarked"}  # in a feed beside those of the workers
    assert cases == dict.fromkeys([*once, *here], 1)
    assert plain.balance() == {"diverted": 8, "duplicates": 2, "crawled": 7, "failed": 1}
    assert plain.stat("distributed/duplicates") == 2
    (failed,) = plain.run()["outcomes"]
    assert (failed["state"], failed["reason"], failed["url"][-11:]) == ("failed", "http 404", "/status/404")


def test_what_can_not_travel_is_crawled_here_and_counted(plain: Crawl) -> None:
    assert plain.stat("distributed/local/too_large") == 1
    assert plain.stat("distributed/local/not_serializable") == 1
    assert plain.log.count("Crawled here, it can't travel") == 2
    # The index page, and what is not marked, besides.
    assert plain.stat("response_received_count") == 4
    assert plain.stat("item_scraped_count") == 3


def test_off_site_and_file_links_are_neither_diverted_nor_crawled(plain: Crawl, small_site: SiteChild) -> None:
    assert plain.stat("distributed/offsite") == 1
    assert plain.stat("distributed/unsupported_scheme") == 1
    assert plain.log.count("file:///etc/hostname") == 1


def test_several_rules_and_only_these(project: Project, tmp_path: Path) -> None:
    with site(60) as child:
        crawl = project.crawl("rules", folder=tmp_path, args={"site": child.url}).wait()
        assert child.stats()["requests"]["index"] == 2
        assert child.stats()["properties_repeated"] == 0
    found = {item["url"]: (item["kind"], item["batch"], item["text"]) for item in crawl.items()}
    assert found == {
        url: ("odd" if number % 2 else "even", "1", f"Property {number}")
        for number, url in enumerate(child.property_urls(range(60)))
    }
    assert crawl.balance() == {"diverted": 60, "crawled": 60}


def test_what_is_a_spiders_own_affair(project: Project, small_site: SiteChild, tmp_path: Path) -> None:
    """Jobs get no JOBDIR, so a second run of the same spider finds no queue of the first."""
    for number in (1, 2):
        (folder := tmp_path / str(number)).mkdir()
        settings = {"DISTRIBUTED_TARGET_HOSTS": "scrapyd1", "JOBDIR": ""}
        crawl = project.crawl("peculiar", folder=folder, args={"site": small_site.url}, settings=settings).wait()
        assert crawl.balance() == {"diverted": 3, "crawled": 3}, crawl.log
        found = sorted((item["kind"], item["place"]) for item in crawl.items())
        assert found == [("SALE", "worker"), ("flat", "worker"), ("house", "worker")]


def test_each_failure_has_its_reason(project: Project, small_site: SiteChild, tmp_path: Path, unused_port: int) -> None:
    crawl = project.crawl("failing", folder=tmp_path, args={"site": small_site.url, "closed": unused_port}).wait()
    assert crawl.balance() == {"diverted": 9, "crawled": 2, "failed": 6, "filtered": 1}
    expected = {
        f"failed\thttp 404\t{small_site.url}/status/404",
        f"failed\thttp 500\t{small_site.url}/status/500",
        "failed\tdns\thttp://no-such-host.invalid/",
        f"failed\trefused\thttp://127.0.0.1:{unused_port}/",
        f"failed\tcallback ValueError\t{small_site.url}/echo?callback",
        f"failed\titem KeyError\t{small_site.url}/echo?item",
        f"filtered\toffsite\t{small_site.url}/redirect?to=http://elsewhere.invalid/",
    }
    shown = project.scrapy("batches", "failed", "--ledger", str(crawl.ledger), folder=tmp_path).wait()
    lines = set(shown.log.splitlines())
    raised = {line.removeprefix("raised: ") for line in lines - expected}
    assert lines - expected == {f"raised: {line}" for line in raised}
    price, name = sorted(raised)
    assert re.fullmatch(r"callback ValueError: this page is not as expected \(trial/spiders\.py:[0-9]+\), 1 URL", price)
    assert re.fullmatch(r"item KeyError: '.*/echo\?item' \(trial/pipelines\.py:[0-9]+\), 1 URL", name)
    assert lines >= expected
    assert f"Raised: {price}" in crawl.log
    assert crawl.stat("distributed/workers/distributed/followed/failed/http 410") == 1
    assert project.check(crawl) == 0
    assert crawl.item_urls() == [f"{small_site.url}/echo?{case}" for case in ("callback", "follow", "good")]


def test_a_worker_by_hand(project: Project, small_site: SiteChild, tmp_path: Path) -> None:
    urls = small_site.property_urls(range(3))
    args = {"site": small_site.url}
    bare = project.crawl("distr", folder=tmp_path, args=args, settings={"DISTRIBUTED_START_URL": json.dumps(urls)})
    feed = tmp_path / "%(batch)s.jl"
    settings = {"DISTRIBUTED_START_URL": json.dumps(urls), "FEED_URI": feed}
    crawl = project.crawl("distr", folder=tmp_path, args={**args, "batch": 12}, settings=settings).wait()
    items = [json.loads(line) for line in (tmp_path / "12.jl").read_text().splitlines()]
    assert sorted(item["url"] for item in items) == urls
    assert "Worker of batch 12: 3 requests" in crawl.log
    assert bare.wait().stat("item_scraped_count") == 3
    assert "Worker of batch (by hand): 3 requests" in bare.log


def test_without_waiting_it_ends_when_every_batch_is_taken(project: Project, tmp_path: Path) -> None:
    with site(60, latency=1) as child:
        args = {"site": child.url, "pages": 2}
        settings = {"DISTRIBUTED_BATCH_SIZE": 30}
        crawl = project.crawl(
            "distr", folder=tmp_path, args=args, settings={**settings, "DISTRIBUTED_WAIT": "False"}
        ).wait()
        assert [batch["attempt_state"] for batch in crawl.run()["batches"]] == ["sent", "sent"]
        said = "WARNING: DISTRIBUTED_WAIT: found False, so nobody takes what workers report: each job follows"
        assert crawl.log.count(said) == 1
        assert crawl.log.index(said) < crawl.log.index(" Run ")
        assert crawl.run()["balance"].as_dict()["in_flight"] == 60
        assert (project.check(crawl), crawl.process.returncode) == (1, 0)
        # The same command takes the run up again, and this one waits.
        again = project.crawl("distr", folder=tmp_path, args=args, settings=settings).wait()
        assert again.run()["name"] == crawl.run()["name"]
        assert again.balance() == {"diverted": 60, "crawled": 60}
        assert again.item_urls() == child.property_urls(range(60))
        assert child.stats()["requests"]["index"] == 2
        assert child.stats()["properties_repeated"] == 0


@pytest.mark.skipif(scrapy.version_info < (2, 15), reason="Scrapy has no TWISTED_REACTOR_ENABLED before 2.15")
def test_workers_without_a_twisted_reactor(project: Project, small_site: SiteChild, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="Scrapy's download handler without a reactor needs it")
    settings = {"DISTRIBUTED_WORKER_SETTINGS": json.dumps({"TWISTED_REACTOR_ENABLED": "False"})}
    args = {"site": small_site.url}
    crawl = project.crawl("plain", folder=tmp_path, args=args, settings=settings).wait()
    assert crawl.balance() == {"diverted": 8, "duplicates": 2, "crawled": 7, "failed": 1}
    assert Counter(item["case"] for item in crawl.items())["furthest"] == 1
    assert {item["reactor"] for item in crawl.items() if "reactor" in item and item["place"] == "worker"} == {False}


def test_disabled_it_is_an_ordinary_crawl(project: Project, small_site: SiteChild, tmp_path: Path) -> None:
    settings = {"DISTRIBUTED_ENABLED": "False", "DISTRIBUTED_TARGET_HOSTS": "127.0.0.1:1"}
    args = {"site": small_site.url, "pages": 2}
    crawl = project.crawl("distr", folder=tmp_path, args=args, settings=settings).wait()
    assert crawl.stat("item_scraped_count") == 60
    assert not crawl.ledger.exists()
    assert not re.findall(r"'distributed/|Traceback|ERROR|WARNING", crawl.log)


def test_commands_that_borrow_a_spider_need_no_fleet(
    project: Project, small_site: SiteChild, tmp_path: Path, unused_port: int
) -> None:
    page = f"{small_site.url}/property_000007.html"
    hosts = ["-s", f"DISTRIBUTED_TARGET_HOSTS=127.0.0.1:{unused_port}"]
    title = make_property(7).title
    commands = {
        ("fetch", page): title,
        ("shell", page, "-c", "response.css('h1::text').get()"): title,
        ("shell", page, "--spider", "distr", "-c", "response.css('h1::text').get()"): title,
        ("parse", page, "--spider", "distr", "-a", f"site={small_site.url}", "-c", "parse_item"): title,
        ("check", "distr"): "OK",
        ("list",): "distr\neasy\n",
        ("version",): "Scrapy",
    }
    started = {}
    for number, command in enumerate(commands):
        (tmp_path / str(number)).mkdir()
        started[command] = project.scrapy(*command, *hosts, folder=tmp_path / str(number))
    for command, crawl in started.items():
        crawl.wait()
        assert crawl.process.returncode == 0, crawl.log
        assert commands[command] in crawl.log
        assert not re.findall(r"Traceback|ERROR|DISTRIBUTED_", crawl.log.partition("Enabled addons")[2]), crawl.log

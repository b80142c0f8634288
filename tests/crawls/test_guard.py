"""Requests of a crawl that would go to a node of its fleet: by which spelling, by which way, and who is let through.

The attack is real: a website answers a spider's form with a redirect that makes a Scrapyd store an egg.
"""

from __future__ import annotations

import io
import json
import re
import socket
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote

import pytest
import pytest_twisted
from crawling import Crawl, call
from scrapy import Request, Spider
from scrapy.exceptions import NotConfigured
from scrapy.settings import Settings
from scrapy.statscollectors import MemoryStatsCollector
from scrapy.utils.defer import deferred_from_coro
from scrapy.utils.misc import load_object
from scrapy.utils.test import get_crawler
from scrapyd_child import ScrapydChild, start

from scrapy_distributed import Addon
from scrapy_distributed.errors import ConfigError, NodeRequestError
from scrapy_distributed.fleet.node import NodeAddress
from scrapy_distributed.guard.guard import Guard, nodes_of, told
from scrapy_distributed.guard.hosts import Addresses, is_own, literal, on_one_machine
from scrapy_distributed.ledger.reader import LedgerReader

NODE_PORT = 16_800


class Plain(Spider):
    name = "plain"


class Names(Addresses):
    """Knows names by heart."""

    def __init__(self, **names: str) -> None:
        super().__init__(with_reactor=True)
        self.names = {"localhost": "127.0.0.1", **{name.replace("_", "."): found for name, found in names.items()}}
        self.asked: list[str] = []

    async def _look_up(self, host: str) -> list[str]:
        self.asked.append(host)
        found = self.names.get(host.rstrip("."))
        return [found] if found else []


def guard(*nodes: tuple[str, int], **names: str) -> Guard:
    crawler = get_crawler(Plain)
    return Guard(nodes=nodes, addresses=Names(**names), spider=Plain(), stats=MemoryStatsCollector(crawler))


def refused(guard: Guard, url: str, **meta: Any) -> bool:
    try:
        waiting = guard.process_request(Request(url, meta=meta))
        if waiting is not None:
            with suppress(StopIteration):
                waiting.send(None)  # type: ignore[attr-defined]  # names that are known by heart wait for nothing
    except NodeRequestError:
        return True
    return False


# A port that only nodes have

HOSTS = (
    "127.0.0.1", "127.1", "127.000.000.001", "0.0.0.0", "0", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1",
    "localhost", "LOCALHOST", "localhost.", "x.localhost", "[::1]", "[::ffff:127.0.0.1]", "[::]",
    "user:word@127.0.0.1", "a@b@127.0.0.1", "127。0。0。1", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "127.0.0.1.nip.io", "10.0.0.7", "192.168.1.1",
    "169.254.1.1", "[fe80::1]", "scrapyd1", "anything.example",
)  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("scheme", ["http", "HTTPS"])
def test_nothing_goes_to_a_port_of_a_node(host: str, scheme: str) -> None:
    one = guard(("scrapyd1", NODE_PORT), ("10.0.0.7", NODE_PORT))
    assert refused(one, f"{scheme}://{host}:{NODE_PORT}/addversion.json")
    assert refused(one, f"{scheme}://{host}:0{NODE_PORT}/x?y=http://elsewhere.example/")
    assert not refused(one, f"{scheme}://{host}:{NODE_PORT + 1}/")
    assert not refused(one, f"{scheme}://{host}/")
    assert one._addresses.asked == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("url", [f"http://h:{NODE_PORT + 2**16}/", "http://h:16_800/", "http://h:\uff11\uff16800/"])
def test_a_port_that_only_some_can_read(url: str) -> None:
    """w3lib refuses such a URL; a request class of a project may have another idea."""
    one = Request("http://h/")
    one._url = url  # type: ignore[attr-defined]
    with pytest.raises(NodeRequestError):
        guard(("scrapyd1", NODE_PORT)).process_request(one)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:16800/x", "s3://b/x", "file:///etc/hostname", "data:,x"])
def test_what_is_not_http_is_left(url: str) -> None:
    assert not refused(guard(("scrapyd1", NODE_PORT)), url)


@pytest.mark.parametrize(
    "proxy",
    [
        "http://127.1:16800",
        "localhost:16800",
        "http://u:p@h:16800",
        "HTTPS://[::1]:16800",
        "//127.0.0.1:16800",
    ],
)
def test_a_node_is_no_proxy(proxy: str) -> None:
    assert refused(guard(("scrapyd1", NODE_PORT)), "http://shop.example/", proxy=proxy)
    assert refused(guard(("scrapyd1", NODE_PORT)), f"http://10.0.0.7:{NODE_PORT}/", proxy="http://proxy:3128")
    assert not refused(guard(("scrapyd1", NODE_PORT)), "http://shop.example/", proxy="http://proxy:3128")


# A port that nodes share with sites


@pytest.mark.parametrize("host", ["scrapyd.example", "SCRAPYD.example.", "10.0.0.7", "167772167", "[::ffff:10.0.0.7]"])
def test_a_node_at_a_port_of_sites(host: str) -> None:
    one = guard(("scrapyd.example", 443), scrapyd_example="10.0.0.7", evil_example="10.0.0.7", shop_example="10.0.0.8")
    assert refused(one, f"https://{host}/addversion.json")
    assert refused(one, "https://evil.example/")
    assert refused(one, "http://evil.example:443/")
    assert not refused(one, "https://shop.example/")
    assert not refused(one, "http://evil.example/")  # no node is there
    assert refused(one, "https://shop.example/", proxy="https://evil.example")
    assert refused(one, f"https://{host}/", proxy="http://proxy:3128")
    assert not refused(one, "https://shop.example/", proxy="http://proxy:3128")
    assert "proxy" not in one._addresses.asked  # type: ignore[attr-defined]


@pytest.mark.parametrize("node", ["localhost", "127.0.0.1", "[::1]", "0.0.0.0"])
def test_a_node_of_this_machine_by_all_its_addresses(node: str) -> None:
    one = guard((node.strip("[]"), 80), me_example="127.0.1.1", shop_example="192.0.2.1")
    for host in ("127.0.0.1", "127.8.8.8", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "localhost.", "me.example", OWN):
        assert refused(one, f"http://{host}/"), host
    assert not refused(one, "http://shop.example/")


def _own() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


OWN = _own()


def test_an_unknown_host_at_a_port_of_sites_fails_as_it_would_in_the_download() -> None:
    """Not let through: the next answer of its name server may be a node."""
    with pytest.raises(load_object("scrapy_distributed.fast.http_connection.UnknownHost"), match="DNS lookup of gone"):
        refused(guard(("scrapyd.example", 80), scrapyd_example="10.0.0.7"), "http://gone.example/")


@pytest.mark.parametrize("with_reactor", [True, False])
@pytest.mark.parametrize(("host", "found"), [("localhost", True), ("a" * 70 + ".invalid", False), ("x.invalid", False)])
@pytest_twisted.ensureDeferred
async def test_names_are_asked_of_the_resolver_of_the_crawl(host: str, found: bool, with_reactor: bool) -> None:
    asked = await deferred_from_coro(Addresses(with_reactor=with_reactor).of(host))
    assert (literal("127.0.0.1") in asked) is found
    assert bool(asked) is found


def test_addresses_that_are_one_machine() -> None:
    here, there = literal("127.9.9.9"), literal("192.0.2.1")
    assert here is not None
    assert there is not None
    assert is_own(here)
    assert not is_own(there)
    assert on_one_machine({here}, {literal(OWN)})  # type: ignore[arg-type]
    assert not on_one_machine({here}, {there})
    assert literal("shop.example") is None


# What is told and counted


def test_the_first_is_told_all_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    one = guard(("scrapyd1", NODE_PORT))
    url = f"http://u:s3cr3t@127.1:{NODE_PORT}/x"
    assert refused(one, url, redirect_urls=["http://shop.example/form", "http://b/"])
    assert refused(one, url)
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(
        f"Refused GET http://u@127.1:{NODE_PORT}/x: a node of the fleet is at 127.1:{NODE_PORT}, and"
    )
    assert "it came by a redirect of http://shop.example/form. If it is a site that is to be crawled, set DIST" in said
    assert one._stats.get_value("distributed/requests_to_nodes") == 2


# What a crawl knows


def known(spider: Spider | None = None, **settings: Any) -> list[tuple[str, int]]:
    crawler = get_crawler(Plain, {f"DISTRIBUTED_{name.upper()}": value for name, value in settings.items()})
    crawler.spider = spider or Plain()
    return nodes_of(crawler)


def test_the_coordinator_knows_what_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scrapy.cfg").write_text("[deploy:one]\nurl = https://u:p@one.example/node\npassword = $NOT_SET\n")
    assert known(target_hosts=["one", "two:1", "[::1]:2", "x*", ""]) == [("one.example", 443), ("two", 1), ("::1", 2)]
    assert known(target_hosts=["local", "two"]) == [("two", 6800)]
    assert known(enabled=False, target_hosts="two") == [("two", 6800)]
    assert known(target_hosts="two", allow_node_requests=True) == []
    assert known() == []


def test_a_worker_knows_what_it_is_told_and_its_own_scrapyd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRAPYD_HTTP_PORT", "7000")
    job = Plain(_job="j")
    assert known(job, start_url="[]", nodes="one:1,[::1]:2") == [("one", 1), ("::1", 2), ("localhost", 7000)]
    monkeypatch.delenv("SCRAPYD_HTTP_PORT")
    assert known(job, start_url="[]") == [("localhost", 6800)]
    assert known(Plain(), start_url="[]") == []  # by hand
    assert known(job, start_url="[]", parent=1, target_hosts="two") == []  # of another run; no Scrapyd has started it
    assert known(job, start_url="[]", parent=1, nodes="one:1") == [("one", 1)]
    assert known(job, start_url="[]", nodes="one:1", allow_node_requests="True") == []


def test_the_port_of_the_own_scrapyd_is_read_where_it_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCRAPYD_HTTP_PORT", raising=False)
    Path("scrapyd.conf").write_text("[scrapyd]\nhttp_port = 7001\n")
    assert known(Plain(_job="j"), start_url="[]") == [("localhost", 7001)]


@pytest.mark.parametrize("entry", ["one", "one:x", "u:p@one:1", ":1", "one:0"])
def test_a_worker_that_is_told_nonsense_does_not_start(entry: str) -> None:
    with pytest.raises(ConfigError, match="DISTRIBUTED_NODES: found an entry that is not host:port"):
        known(Plain(_job="j"), start_url="[]", nodes=[entry])


def test_what_a_worker_is_told() -> None:
    urls = ["http://one:6800", "http://two:6800", "http://[::1]:7000", "https://proxy:443/a", "https://proxy:443/b"]
    nodes = [NodeAddress(name="n", url=url, username="u", password="s3cr3t") for url in urls]
    assert told([*nodes, NodeAddress(name="n", url="http://other:80")]) == "one:6800,[::1]:7000,proxy:443,other:80"


def test_no_node_no_guard() -> None:
    crawler = get_crawler(Plain)
    crawler.spider = Plain()
    with pytest.raises(NotConfigured):
        Guard.from_crawler(crawler)


def test_the_add_on_puts_it_last() -> None:
    settings = Settings({"DOWNLOADER_MIDDLEWARES": {"scrapy.downloadermiddlewares.retry.RetryMiddleware": 5000}})
    Addon().update_settings(settings)
    components = settings.getdict("DOWNLOADER_MIDDLEWARES")
    assert max(components, key=components.__getitem__) is Guard


# The attack, with real Scrapyds

SPIDERS = '''
import scrapy
from scrapy import signals
from scrapy.http import FormRequest
from scrapy.pipelines.files import FilesPipeline


class Attacked(scrapy.Spider):
    """Posts a form to each of *urls*, where it is told: on the *place* worker or coordinator."""

    name = "attacked"

    def __init__(self, domains="", **kwargs):
        super().__init__(**kwargs)
        self.domains = domains
        if domains:
            self.allowed_domains = [domains]

    async def start(self):
        here = self.parse_here if self.place == "coordinator" else self.parse_item
        for url in self.urls.split():
            yield FormRequest(url, formdata={"a": "b"}, callback=here)
        yield scrapy.Request(self.site + "/page", callback=self.parse_item)

    def parse_here(self, response):
        pass

    async def parse_item(self, response):
        if response.url.endswith("/page"):
            return self.found(response)
        return [{"url": response.url}]

    def found(self, response):
        return [{"url": response.url}]


class Downloading(Attacked):
    name = "downloading"

    async def parse_item(self, response):
        for url in self.urls.split():
            try:
                answer = await self.crawler.engine.download_async(FormRequest(url, formdata={"a": "b"}))
            except Exception as error:
                self.logger.info("download: %r", error)
            else:
                self.logger.info("download: %s", answer)
        return [{"url": response.url}]

    async def start(self):
        yield scrapy.Request(self.site + "/page", callback=self.parse_item)


class Files(Downloading):
    name = "files"
    custom_settings = {"ITEM_PIPELINES": {FilesPipeline: 1}, "MEDIA_ALLOW_REDIRECTS": True}

    async def parse_item(self, response):
        return [{"url": response.url, "file_urls": self.urls.split()}]


class Own(Attacked):
    """Names our spider middleware itself."""

    name = "own"
    custom_settings = {
        "SPIDER_MIDDLEWARES": {"scrapy_distributed.middleware.DistributedSpiderMiddleware": 100}, "ADDONS": {},
    }
'''


class Site(BaseHTTPRequestHandler):
    """A website: ``/to/<URL>`` redirects there, and keeps method and body."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        to = unquote(self.path.removeprefix("/to/"))
        to = self.server.robots if self.path == "/robots.txt" else to  # type: ignore[attr-defined]
        self.send_response(307 if to.startswith("http") else 200)
        if to.startswith("http"):
            self.send_header("Location", to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *args: Any) -> None:
        pass


class WebServer(ThreadingHTTPServer):
    request_queue_size = 100
    daemon_threads = True


@pytest.fixture(scope="module")
def website() -> Iterator[Any]:
    server: Any = WebServer(("127.0.0.1", 0), Site)
    server.robots = ""
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScrapydChild]:
    with start(tmp_path_factory.mktemp("fleet"), warm=True) as node:
        yield node


@pytest.fixture(scope="module")
def shop(node: ScrapydChild, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").write_text("")
    (folder / "shop" / "spiders.py").write_text(SPIDERS)
    (folder / "shop" / "settings.py").write_text(
        'BOT_NAME = "shop"\nSPIDER_MODULES = ["shop.spiders"]\nADDONS = {"scrapy_distributed.Addon": 500}\n'
        'DISTRIBUTED_TARGET_CALLBACKS = ["parse_item"]\nDISTRIBUTED_POLL_INTERVAL = 0.2\n'
        "DISTRIBUTED_RECEIPT_INTERVAL = 0.2\nTELNETCONSOLE_ENABLED = False\nRETRY_ENABLED = False\n"
        'FILES_STORE = "files"\nURLLENGTH_LIMIT = 0\n'
    )
    (folder / "scrapy.cfg").write_text(
        f"[settings]\ndefault = shop.settings\n[deploy:scrapyd1]\nurl = {node.url}\nproject = shop\n"
    )
    deployed = crawled(folder, folder, "fleet", "deploy")
    assert deployed.process.returncode == 0, deployed.log
    return folder


def crawled(project: Path, folder: Path, *args: str) -> Crawl:
    crawl = Crawl(project, folder, args, {})
    try:
        return crawl.wait()
    finally:
        crawl.end()


class Attack:
    """Crawls of the project, and what has come of them at the node."""

    def __init__(self, shop: Path, node: ScrapydChild, site: Any, folder: Path) -> None:
        self.node = node
        self.site = site
        self._shop = shop
        self._folder = folder
        self._before = len(node.log_text())
        self._made = 0

    def crawl(
        self, spider: str, urls: list[str], *, place: str = "worker", domains: str = "", **settings: Any
    ) -> Crawl:
        given = {
            "TARGET_HOSTS": "scrapyd1", "LEDGER": self._folder / "ledger.sqlite", "RESUME": False,
            "TARGET_FEED_URL": f"file://{self._folder}/items/%(batch)s_%(time)s.jl",
            **settings,
        }  # fmt: skip
        options = [part for name, value in given.items() for part in ("-s", f"DISTRIBUTED_{name}={value}")]
        arguments = {"urls": " ".join(urls), "place": place, "site": self.site.url, "domains": domains}
        options += [part for name, value in arguments.items() for part in ("-a", f"{name}={value}")]
        return crawled(self._shop, self._folder, "crawl", spider, *options)

    def install(self, host: str = "127.0.0.1", *, times: int = 1) -> str:
        """A URL of the site that leads, by so many redirects, to one that makes the node store an egg and import it."""
        egg = io.BytesIO()
        with zipfile.ZipFile(egg, "w") as file:
            file.writestr("evil/__init__.py", "")
            file.writestr("evil/settings.py", 'BOT_NAME = "evil"\n')
            file.writestr("EGG-INFO/PKG-INFO", "Metadata-Version: 1.0\nName: evil\nVersion: 1\n")
            file.writestr("EGG-INFO/entry_points.txt", "[scrapy]\nsettings = evil.settings\n")
        self._made += 1  # else the worker drops a second one as a duplicate
        query = f"project=evil&version=r{self._made}&egg={quote(egg.getvalue(), safe='')}"
        url = f"http://{host}:{self.node.port}/addversion.json?{query}"
        for _ in range(times):
            url = f"{self.site.url}/to/{quote(url, safe='')}"
        return url

    def arrived(self) -> list[str]:
        """The requests for that egg that have come to the node."""
        return re.findall(r'"(\w+ /addversion.json)\?project=evil', self.node.log_text()[self._before :])

    def eggs(self) -> list[str]:
        return call(f"{self.node.url}/listversions.json?project=evil")["versions"]  # type: ignore[no-any-return]

    def job_log(self, spider: str) -> str:
        """Of the last job of *spider*."""
        logs = (self.node.dir / "logs" / "shop" / spider).glob("*.log")
        return max(logs, key=lambda log: log.stat().st_mtime).read_text()


@pytest.fixture
def attack(shop: Path, node: ScrapydChild, website: Any, tmp_path: Path) -> Iterator[Attack]:
    yield Attack(shop, node, website, tmp_path)
    website.robots = ""
    with suppress(HTTPError):
        call(f"{node.url}/delproject.json", project="evil")


def reasons(crawl: Crawl) -> Counter[tuple[str, str]]:
    reader = LedgerReader(crawl.ledger)
    try:
        return Counter((one.state, one.reason) for one in reader.outcomes(reader.runs()[-1].id))
    finally:
        reader.close()


TO_A_NODE = ("filtered", "a node of the fleet")
# Those that connect to a Scrapyd at 127.0.0.1, where names are looked up with the C library alone.
CONNECTING = ("127.0.0.1", "127.1", "0.0.0.0", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "LOCALHOST.")


@pytest.mark.parametrize(("spider", "place"), [("attacked", "worker"), ("attacked", "coordinator")])
def test_where_it_is_allowed_a_website_installs_an_egg(attack: Attack, spider: str, place: str) -> None:
    """What the others are compared with: the attack works."""
    attack.crawl(spider, [attack.install()], place=place, ALLOW_NODE_REQUESTS=True)
    assert attack.arrived() == ["POST /addversion.json"]
    assert attack.eggs() == ["r1"]


@pytest.mark.parametrize("domains", ["", "127.0.0.1"])
def test_a_redirected_form_of_a_worker_does_not_reach_a_node(attack: Attack, domains: str) -> None:
    urls = [attack.install(host) for host in CONNECTING]
    urls += [attack.install(times=3), attack.install(times=0), attack.install("u:p@127.0.0.1", times=0)]
    crawl = attack.crawl("attacked", urls, domains=domains)
    assert (attack.arrived(), attack.eggs()) == ([], [])
    found = reasons(crawl)
    if domains:  # the off-site rule is asked first, and the node's host is that of the site
        assert found[TO_A_NODE] == 4
        assert found.total() == len(urls)
    else:
        assert found == {TO_A_NODE: len(urls)}
        assert crawl.balance() == {"diverted": len(urls) + 1, "crawled": 1, "filtered": len(urls)}
        assert f"'distributed/requests_to_nodes': {len(urls)}" in attack.job_log("attacked")
    assert "a node of the fleet is at" in attack.job_log("attacked")


@pytest.mark.parametrize("spider", ["attacked", "own"])
def test_a_redirected_form_of_the_coordinator_does_not_reach_a_node(attack: Attack, spider: str) -> None:
    """Also where the project names our spider middleware, and not the add-on."""
    urls = [attack.install(host) for host in CONNECTING] + [attack.install(times=0)]
    crawl = attack.crawl(spider, urls, place="coordinator")
    assert (attack.arrived(), attack.eggs()) == ([], [])
    assert crawl.stat("distributed/requests_to_nodes") == len(urls)
    assert crawl.balance() == {"diverted": 1, "crawled": 1}


@pytest.mark.parametrize("spider", ["downloading", "files"])
def test_what_a_callback_or_a_pipeline_downloads_does_not_reach_a_node(attack: Attack, spider: str) -> None:
    urls = [attack.install(), attack.install(times=0)]
    crawl = attack.crawl(spider, urls)
    assert (attack.arrived(), attack.eggs()) == ([], [])
    assert "'distributed/requests_to_nodes': 2" in attack.job_log(spider)
    assert crawl.balance() == {"diverted": 1, "crawled": 1}


def test_a_robots_txt_does_not_lead_to_a_node(attack: Attack) -> None:
    attack.site.robots = attack.install(times=0)
    crawl = attack.crawl("downloading", [], WORKER_SETTINGS=json.dumps({"ROBOTSTXT_OBEY": True}))
    assert attack.arrived() == []
    assert "'distributed/requests_to_nodes': 1" in attack.job_log("downloading")
    assert crawl.balance() == {"diverted": 1, "crawled": 1}

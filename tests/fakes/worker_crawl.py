"""A worker in a child process, the pages that it crawls, and what its receipt says of them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import scrapy
from forked import Forked

from scrapy_distributed.wire.receipt import Receipt
from scrapy_distributed.worker.outcomes import LOST

SPIDERS = Path(__file__).with_name("worker_spiders.py")
CRAWL_SPIDER = Path(__file__).with_name("worker_crawl_spider.py")
SECONDS = 30


# The site


@dataclass
class Site:
    """Pages by path: ``/404`` and the like answer so, ``/hold`` when *release* is set; *asked* is what was asked."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    crawls: list[Forked] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site = self.site
        path, _, query = self.path.partition("?")
        site.asked.append(self.path)
        links = "".join(f"<a href='{to}'>{to}</a>" for to in query.split(",")) if path == "/links" else ""
        status, headers, body = 200, {}, f"<html>hello{links}</html>".encode()
        if path == "/robots.txt":
            body = b"User-agent: *\nDisallow: /private\n"
        elif path.strip("/").isdigit():
            status = int(path.strip("/"))
        elif path == "/hold":
            site.held.set()
            site.release.wait(SECONDS)
        elif path == "/silent":
            site.over.wait(SECONDS)
        elif path == "/drop":
            self.close_connection = True
            return
        elif path == "/redirect":
            status, headers = 302, {"Location": "/ok?redirected"}
        elif path == "/redirect_offsite":
            status, headers = 302, {"Location": "http://elsewhere.invalid/"}
        elif path == "/redirect_loop":
            status, headers = 302, {"Location": self.path + "?x"}
        with contextlib.suppress(OSError):  # the crawl may be gone
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), "Content-Type": "text/html", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a killed crawl drops its connections


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    with Server(("127.0.0.1", 0), type("SiteHandler", (Handler,), {"site": site})) as server:
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield site
        for crawl in site.crawls:
            crawl.kill()
            crawl.wait()
        site.over.set()
        site.release.set()
        server.shutdown()
        thread.join()


# The crawl


@dataclass(frozen=True, kw_only=True)
class Crawl:
    """A crawl that has ended: *receipt* (``None``: it wrote none), its log, what it said, and its items."""

    code: int
    receipt: Receipt | None
    log: str
    said: str
    items: list[dict[str, Any]]
    command: list[str]


class Running:
    """A worker in a child process, started as Scrapyd does."""

    def __init__(
        self, folder: Path, site: Site, requests: Any, *, spiders: Path = SPIDERS, job: str = "job", **settings: str
    ) -> None:
        self.log = folder / "logs" / "p" / "s" / "job.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.receipt_file = folder / "logs" / "p" / "s.receipts" / f"{job or 'job'}.json"
        self.feed = folder / "items.jl"
        self.said = folder / "said"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.refused = f"http://127.0.0.1:{probe.getsockname()[1]}/"
        value = requests if isinstance(requests, str) else json.dumps(requests).replace("REFUSED", self.refused)
        settings = {
            "LOG_FILE": str(self.log), "DISTRIBUTED_START_URL": value, "FEED_URI": f"file://{self.feed}", "FEEDS": "{}",
        } | settings  # fmt: skip
        command = ["runspider", str(spiders)]
        for name, text in settings.items():
            command += ["-s", f"{name}={text}"]
        for name, text in {"_job": job, "batch": "7", "refused": self.refused, "ok": f"{site.url}/ok"}.items():
            command += ["-a", f"{name}={text}"] if text else []
        environment = {name: text for name, text in os.environ.items() if not name.startswith("SCRAPY")}
        self.command = command
        with self.said.open("wb") as output:
            self.process = Forked(command, folder=folder, environment=environment, output=output.fileno())
        site.crawls.append(self.process)

    def read(self) -> Receipt | None:
        return Receipt.from_json(self.receipt_file.read_bytes()) if self.receipt_file.is_file() else None

    def when(self, condition: Any) -> Receipt:
        """The first receipt of which *condition* is true."""
        deadline = time.monotonic() + SECONDS
        tick = threading.Event()
        while True:
            ended = self.process.poll() is not None
            receipt = self.read()
            if receipt is not None and condition(receipt):
                return receipt
            assert time.monotonic() < deadline, receipt
            assert not ended, self.said.read_text()
            tick.wait(0.02)

    def end(self) -> Crawl:
        code = self.process.wait(SECONDS)
        items = [json.loads(line) for line in self.feed.read_text().splitlines()] if self.feed.exists() else []
        log = self.log.read_text() if self.log.exists() else ""
        said = self.said.read_text()
        return Crawl(code=code, receipt=self.read(), log=log, said=said, items=items, command=self.command)


def outcome_of(receipt: Receipt) -> list[str]:
    """``crawled``, a reason, or ``open``, by position."""
    outcomes = ["crawled" if receipt.settled >> position & 1 else "open" for position in range(receipt.size)]
    for state in ("failed", "filtered"):
        for reason, positions in getattr(receipt, state).items():
            for position in positions:
                outcomes[position] = f"{state}: {reason}"
    return outcomes


NO_REACTOR = pytest.param(
    {"TWISTED_REACTOR_ENABLED": "False"},
    id="without a reactor",
    marks=pytest.mark.skipif(
        scrapy.version_info < (2, 15), reason="TWISTED_REACTOR_ENABLED is a setting of Scrapy 2.15 and later"
    ),
)
MODES = pytest.mark.parametrize("mode", [pytest.param({}, id="with a reactor"), NO_REACTOR])

ENDINGS = [  # path (or URL), callback, errback, meta -> outcome
    ("/ok?0", None, None, {}, "crawled"),
    ("/ok?0", None, None, {}, "filtered: duplicate"),
    ("/ok?1", "nothing", None, {}, "crawled"),
    ("/ok?2", "a_list", None, {}, "crawled"),
    ("/ok?3", "parse_async", None, {}, "crawled"),
    ("/ok?4", "coroutine", None, {}, "crawled"),
    ("/ok?5", "raises", None, {}, "failed: callback ValueError"),
    ("/ok?6", "item_then_raises", "errback_item", {}, "failed: callback ValueError"),
    ("/ok?7", "raises_async", None, {}, "failed: callback LookupError"),
    ("/ok?8", "bad_item", None, {}, "failed: item KeyError"),
    ("/redirect", None, None, {}, "crawled"),
    ("/redirect_offsite", None, None, {}, "filtered: offsite"),
    ("/redirect_loop", None, None, {}, "failed: too many redirects"),
    ("/404?0", None, None, {}, "failed: http 404"),
    ("/404?1", None, "errback_none", {}, "failed: http 404"),
    ("/404?2", None, "errback_raises", {}, "failed: http 404"),
    ("/404?3", None, "errback_failure", {}, "failed: http 404"),
    ("/404?4", None, "errback_item", {"ok": "/ok?from404"}, "failed: http 404"),
    ("/404?5", None, "errback_async", {}, "failed: http 404"),
    ("/404?6", None, "errback_coroutine", {}, "failed: http 404"),
    ("/404?7", None, "errback_async_raises", {}, "failed: http 404"),
    ("/404?8", None, None, {"handle_httpstatus_list": [404]}, "crawled"),
    ("/500", None, None, {}, "failed: http 500"),
    ("REFUSED?0", None, None, {}, "failed: refused"),
    ("REFUSED?1", None, "errback_none", {}, "failed: refused"),
    ("REFUSED?2", None, "errback_raises", {}, "failed: refused"),
    ("REFUSED?3", None, "errback_failure", {}, "failed: refused"),
    ("REFUSED?4", None, "errback_item", {}, "failed: refused"),
    ("REFUSED?5", None, "errback_async", {}, "failed: refused"),
    ("REFUSED?6", None, "errback_coroutine", {}, "failed: refused"),
    ("REFUSED?7", None, "errback_async_raises", {}, "failed: refused"),
    ("/silent", None, None, {"download_timeout": 0.3, "dont_retry": True}, "failed: timeout"),
    ("/drop", None, None, {"dont_retry": True}, "failed: connection lost"),
    ("/other_scheme", None, None, {}, "failed: unsupported scheme"),
    ("http://elsewhere.invalid/start", None, None, {}, "filtered: offsite"),
    ("/private", None, "errback_none", {}, "filtered: robots.txt"),
    ("/ignored", None, None, {}, "filtered: ignored"),
    ("/swapped", "nothing", None, {}, f"failed: {LOST}"),
    ("/ok?10", "follow_refused", None, {}, "crawled"),
    ("/ok?11", "follow_refused_errback", None, {}, "crawled"),
    ("/ok?12", "follow_404", None, {}, "crawled"),
    ("/ok?13", "follow_offsite", None, {}, "crawled"),
    ("/ok?14", "follow_raises", None, {}, "crawled"),
    ("/ok?15", "follow_down", None, {}, "crawled"),
    ("/ok?16", "follow_twice", None, {}, "crawled"),
    ("/ok?farextra", None, None, {}, "crawled"),
    ("/ok?nearextra", None, None, {}, "crawled"),
    ("/ok?farrecovered", "raises", None, {}, "crawled"),
    ("/ok?nearrecovered", "raises", None, {}, "failed: callback ValueError"),
    ("/ok?farrecovered_async", "raises_async", None, {}, "crawled"),
    ("/ok?farrecovered_late", "item_then_raises", None, {}, "crawled"),
    ("/404?farrecovered", None, None, {}, "failed: http 404"),
    ("/404?nearrecovered", None, None, {}, "failed: http 404"),
]


ERRBACKS_WITH_OUTPUT = ("errback_item", "errback_async", "errback_coroutine", "errback_async_raises")


def again_of(receipt: Receipt) -> list[bool]:
    return [bool(receipt.again >> position & 1) for position in range(receipt.size)]


def requests_of(site: Site) -> list[Any]:
    requests = []
    for path, callback, errback, meta, _ in ENDINGS:
        url = site.url + path if path.startswith("/") else path
        meta = {name: site.url + value if name == "ok" else value for name, value in meta.items()}
        request = {"url": url, "callback": callback, "errback": errback, "meta": meta}
        requests.append({name: value for name, value in request.items() if value})
    return requests

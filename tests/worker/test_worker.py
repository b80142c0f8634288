"""Outcomes as a pure class; then real crawls of a worker in a child process, with every ending that a request can have,
and what the receipt says of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import scrapy
from ftp_child import ftp_server
from hypothesis import given
from hypothesis import strategies as st
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.spidermiddlewares.httperror import HttpError
from twisted.internet import error as network

from scrapy_distributed.fleet.post_mortem import last_error
from scrapy_distributed.wire.bitmap import bits
from scrapy_distributed.wire.payload import url_of
from scrapy_distributed.wire.reasons import reason_of
from scrapy_distributed.wire.receipt import Receipt
from scrapy_distributed.worker.outcomes import LOST, Outcomes

SPIDERS = Path(__file__).with_name("worker_spiders.py")
CRAWL_SPIDER = Path(__file__).with_name("worker_crawl_spider.py")
SECONDS = 30


# Outcomes


def test_a_start_request_is_settled_when_nothing_that_it_led_to_is_open() -> None:
    outcomes = Outcomes(2)
    first, second = outcomes.start(0), outcomes.start(1)
    below = outcomes.follow(0)
    outcomes.end(first)
    assert outcomes.settled == 0b00
    further = outcomes.follow(0)
    outcomes.end(below)
    outcomes.end(second)
    assert outcomes.settled == 0b10
    outcomes.end(further)
    assert outcomes.settled == 0b11
    assert outcomes.noted == {}


def test_a_request_that_follows_late_opens_its_start_request_again() -> None:
    outcomes = Outcomes(1)
    start = outcomes.start(0)
    outcomes.end(start)
    late = outcomes.follow(0)
    assert outcomes.settled == 0
    outcomes.end(late)
    assert outcomes.settled == 1


def test_nothing_is_settled_before_it_has_begun() -> None:
    outcomes = Outcomes(3)
    outcomes.end(outcomes.start(1))
    assert outcomes.settled == 0b010


def test_the_end_may_be_told_any_number_of_times() -> None:
    outcomes = Outcomes(1)
    start = outcomes.start(0)
    below = outcomes.follow(0)
    for _ in range(3):
        outcomes.end(start)
    assert outcomes.settled == 0
    outcomes.end(below)
    assert outcomes.settled == 1


def test_the_first_note_wins() -> None:
    outcomes = Outcomes(1)
    start = outcomes.start(0)
    outcomes.note(start, "failed", "http 404")
    outcomes.note(start, "failed", "errback ValueError")
    outcomes.end(start)
    assert outcomes.by_reason("failed") == {"http 404": [0]}
    assert outcomes.by_reason("filtered") == {}


def test_an_item_error_after_the_end_of_its_request_is_still_noted() -> None:
    outcomes = Outcomes(1)
    start = outcomes.start(0)
    outcomes.end(start)
    outcomes.note(start, "failed", "item KeyError")
    assert outcomes.by_reason("failed") == {"item KeyError": [0]}


def test_a_note_further_down_is_counted_and_does_not_fail_the_start_request() -> None:
    outcomes = Outcomes(1)
    start = outcomes.start(0)
    below = outcomes.follow(0)
    outcomes.note(below, "failed", "http 404")
    outcomes.end(below)
    outcomes.note(below, "failed", "late")
    outcomes.end(start)
    assert outcomes.failed_follow_ups() == {"http 404": 1}
    assert outcomes.by_reason("failed") == {}


def test_a_note_of_an_unsettled_request_is_not_reported() -> None:
    outcomes = Outcomes(1)
    outcomes.note(outcomes.start(0), "failed", "http 404")
    assert outcomes.by_reason("failed") == {}


def test_a_feed_is_clean_while_all_its_items_are_of_settled_requests() -> None:
    outcomes = Outcomes(2)
    first = outcomes.start(0)
    outcomes.start(1)
    assert outcomes.clean
    outcomes.item(0)
    assert not outcomes.clean
    outcomes.end(first)
    assert outcomes.clean
    outcomes.item(1)
    assert not outcomes.clean


def test_what_is_open_at_the_end_is_lost_and_named() -> None:
    outcomes = Outcomes(3)
    outcomes.end(outcomes.start(0))
    outcomes.note(outcomes.start(1), "failed", "http 404")
    outcomes.item(2)
    outcomes.lose_open()
    assert outcomes.settled == 0b111
    assert outcomes.by_reason("failed") == {"http 404": [1], LOST: [2]}
    assert outcomes.clean


def test_what_failed_before_its_callback_and_put_out_nothing_may_be_tried_again() -> None:
    outcomes = Outcomes(7)
    tickets = [outcomes.start(position) for position in range(7)]
    outcomes.note(tickets[0], "failed", "refused", early=True)
    outcomes.note(tickets[1], "failed", "callback ValueError")
    outcomes.note(tickets[1], "failed", "refused", early=True)  # the first note wins
    outcomes.note(tickets[2], "filtered", "robots.txt", early=True)
    for position in (3, 4, 5, 6):
        outcomes.note(tickets[position], "failed", "refused", early=True)
    outcomes.item(3)
    outcomes.found(4)
    below = outcomes.follow(5)
    outcomes.note(below, "failed", "refused", early=True)
    outcomes.end(below)
    for ticket in tickets[:6]:
        outcomes.end(ticket)
    assert outcomes.settled == 0b0111111
    assert outcomes.again == 0b0000001
    outcomes.end(tickets[6])
    assert outcomes.again == 0b1000001
    outcomes.item(0)
    assert outcomes.again == 0b1000000


def test_what_is_lost_is_not_tried_again() -> None:
    outcomes = Outcomes(2)
    outcomes.start(0)
    outcomes.lose_open()
    assert outcomes.again == 0


@given(data=st.data())
def test_again_is_what_a_plain_model_says(data: st.DataObject) -> None:
    """A model of one start request: it may be tried again if its first note was an early failure, and that is all."""
    outcomes = Outcomes(3)
    start = outcomes.start(1)
    tickets, noted, gave = [start], "", False
    steps = st.sampled_from(["follow", "item", "found", "end", "early", "late", "filtered"])
    for step in data.draw(st.lists(steps, max_size=12)):
        before = outcomes.steps
        ticket = data.draw(st.sampled_from(tickets))
        if step == "follow":
            tickets.append(outcomes.follow(1))
        elif step == "end":
            outcomes.end(ticket)
        elif step in ("item", "found"):
            getattr(outcomes, step)(1)
        else:
            outcomes.note(ticket, "filtered" if step == "filtered" else "failed", step, early=step != "late")
            noted = noted or (step if ticket == start else "")
        if step in ("follow", "item", "found"):
            gave = True
            assert outcomes.steps > before
        assert outcomes.steps >= before
        assert bool(outcomes.again) == (noted == "early" and not gave and outcomes.settled == 0b010)
        assert outcomes.again in (0, 0b010)
        if outcomes.again:
            assert outcomes.by_reason("failed") == {"early": [1]}


@given(data=st.data())
def test_settled_is_what_a_plain_model_says(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 6))
    outcomes = Outcomes(size)
    begun: set[int] = set()
    live: list[tuple[int, int]] = []
    for _ in range(data.draw(st.integers(0, 40))):
        step = data.draw(st.sampled_from(["start", "follow", "end"]))
        if step == "start" and len(begun) < size:
            live.append(outcomes.start(len(begun)))
            begun.add(len(begun))
        elif step == "follow" and live:
            live.append(outcomes.follow(data.draw(st.sampled_from(live))[0]))
        elif step == "end" and live:
            ticket = data.draw(st.sampled_from(live))
            live.remove(ticket)
            outcomes.end(ticket)
        assert set(bits(outcomes.settled)) == begun - {position for position, _ in live}
    assert len({serial for _, serial in live}) == len(live)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (HttpError(Response("http://a/", status=404)), ("failed", "http 404")),
        (IgnoreRequest("Forbidden by robots.txt"), ("filtered", "robots.txt")),
        (IgnoreRequest("Filtered offsite request to 'b'"), ("filtered", "offsite")),
        (IgnoreRequest("max redirections reached"), ("failed", "too many redirects")),
        (IgnoreRequest(), ("filtered", "ignored")),
        (network.DNSLookupError(), ("failed", "dns")),
        (network.TimeoutError(), ("failed", "timeout")),
        (network.TCPTimedOutError(), ("failed", "timeout")),
        (network.ConnectionRefusedError(), ("failed", "refused")),
        (network.ConnectionLost(), ("failed", "connection lost")),
        (OSError(), ("failed", "download OSError")),
    ],
)
def test_reasons_have_stable_names(error: Exception, expected: tuple[str, str]) -> None:
    assert reason_of(error) == expected


# The site


@dataclass
class Site:
    """Pages by path: ``/404`` and the like answer so, ``/hold`` when *release* is set; *asked* is what was asked."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    crawls: list[subprocess.Popen[bytes]] = field(default_factory=list)


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
        command = [sys.executable, "-W", "ignore", "-m", "scrapy", "runspider", str(spiders)]
        for name, text in settings.items():
            command += ["-s", f"{name}={text}"]
        for name, text in {"_job": job, "batch": "7", "refused": self.refused, "ok": f"{site.url}/ok"}.items():
            command += ["-a", f"{name}={text}"] if text else []
        environment = {name: text for name, text in os.environ.items() if not name.startswith("SCRAPY")}
        self.command = command
        with self.said.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
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


@MODES
def test_every_ending_has_its_name(tmp_path: Path, site: Site, mode: dict[str, str]) -> None:
    crawl = Running(tmp_path, site, requests_of(site), **mode).end()
    receipt = crawl.receipt
    assert receipt is not None, crawl.said + crawl.log
    found = list(zip([ending[:3] for ending in ENDINGS], outcome_of(receipt), strict=True))
    expected = [(ending[:3], ending[4]) for ending in ENDINGS]
    assert found == expected
    assert (crawl.code, receipt.final, receipt.finish_reason) == (0, True, "finished")
    assert receipt.stored
    assert receipt.clean
    assert receipt.settled == (1 << len(ENDINGS)) - 1
    assert receipt.items == len(crawl.items)
    assert receipt.feeds == ((f"file://{tmp_path}/items.jl", len(crawl.items), 0),)
    assert receipt.targets == ()
    expected_again = [
        outcome.startswith("failed: ") and callback is None and errback not in ERRBACKS_WITH_OUTPUT
        and "item" not in outcome and "recovered" not in path
        for path, callback, errback, _, outcome in ENDINGS
    ]  # fmt: skip
    assert again_of(receipt) == expected_again
    assert 10 < sum(expected_again) < 20
    urls = [item["url"].removeprefix(site.url) for item in crawl.items if "url" in item]
    expected_urls = ["/ok?0", "/ok?2", "/ok?3", "/ok?4", "/ok?6", "/ok?7", "/ok?8", "/ok?redirected", "/404?8",
                     "/ok?from404", "/ok?errback_item", "/ok?errback_async",
                     "/ok?15", "/ok?down0", "/ok?down1", "/ok?down2", "/ok?twice",
                     "/ok?farextra", "/ok?nearextra"]  # fmt: skip
    assert sorted(set(urls)) == sorted({*expected_urls, "/ok?farrecovered_async", "/ok?farrecovered_late"})
    failures = [item["failed"] for item in crawl.items if "failed" in item]
    assert len(failures) == 9  # errback_item, errback_async, errback_coroutine, errback_async_raises; one followed
    assert {"from": "near"} in crawl.items
    assert {"from": "far"} in crawl.items
    recovered = [item["recovered"] for item in crawl.items if "recovered" in item]
    assert sorted(recovered) == ["far"] * 4 + ["near"] * 2

    followed = {name: value for name, value in receipt.stats.items() if name.startswith("distributed/followed/")}
    assert followed == {
        "distributed/followed/failed/refused": 2,
        "distributed/followed/failed/http 404": 1,
        "distributed/followed/filtered/offsite": 1,
        "distributed/followed/filtered/duplicate": 3,  # two errbacks of the same name lead to one page each; twice
        "distributed/followed/failed/callback ValueError": 1,
    }
    assert receipt.pages == receipt.stats["response_received_count"] > 20
    assert site.asked.count("/500") == 2  # the retry is the same request


@MODES
def test_interrupted_it_reports_what_is_done_and_whether_its_feed_is_clean(
    tmp_path: Path, site: Site, mode: dict[str, str]
) -> None:
    requests = [
        {"url": f"{site.url}/ok?1"},
        {"url": f"{site.url}/hold?own", "callback": "nothing"},
        {"url": f"{site.url}/ok?2", "callback": "raises"},
        {"url": f"{site.url}/ok?3", "callback": "follow_to_hold"},
        {"url": f"{site.url}/404?4", "errback": "errback_item", "meta": {"ok": f"{site.url}/ok?4"}},
        {"url": f"{site.url}/404?5", "errback": "errback_async"},
    ]
    mode = mode | {"DISTRIBUTED_RECEIPT_INTERVAL": "0.05", "DOWNLOAD_DELAY": "0"}
    running = Running(tmp_path, site, requests, **mode)
    first = running.when(lambda receipt: receipt.items == 6 and receipt.settled == 0b110101)
    later = running.when(lambda receipt: receipt.sequence > first.sequence + 2)
    assert (first.final, first.stored, first.finish_reason, later.final) == (False, False, "", False)
    failed = {reason: sorted(positions) for reason, positions in first.failed.items()}
    assert (first.size, failed, first.clean) == (6, {"callback ValueError": [2], "http 404": [4, 5]}, False)
    running.process.send_signal(signal.SIGINT)
    running.when(lambda receipt: "Received SIGINT" in running.log.read_text())
    site.release.set()
    crawl = running.end()
    receipt = crawl.receipt
    assert receipt is not None
    assert (receipt.final, receipt.stored, receipt.finish_reason) == (True, True, "shutdown")
    assert receipt.sequence > later.sequence
    assert receipt.activity > later.activity >= first.activity > 0
    assert receipt.items == len(crawl.items)
    # What had been asked for is answered and taken to its end; nothing is lost without a name.
    for position, outcome in enumerate(outcome_of(receipt)):
        assert outcome in ("crawled", "open", "failed: callback ValueError", "failed: http 404"), position
    assert receipt.clean == (outcome_of(receipt)[3] != "open")


def test_interrupted_with_follow_up_requests_queued_the_feed_is_not_clean(tmp_path: Path, site: Site) -> None:
    requests = [{"url": f"{site.url}/ok", "callback": "follow_to_hold"},
                *({"url": f"{site.url}/hold?{n}", "callback": "nothing", "priority": 1} for n in range(2))]  # fmt: skip
    running = Running(tmp_path, site, requests, DISTRIBUTED_RECEIPT_INTERVAL="0.05", CONCURRENT_REQUESTS="1",
                      ROBOTSTXT_OBEY="False")  # fmt: skip
    running.when(lambda receipt: receipt.items == 1)
    assert site.held.wait(SECONDS)
    running.process.send_signal(signal.SIGINT)
    running.when(lambda receipt: "Received SIGINT" in running.log.read_text())
    site.release.set()
    crawl = running.end()
    receipt = crawl.receipt
    assert receipt is not None
    assert receipt.final
    assert outcome_of(receipt)[0] == "open"
    assert "/hold?followed" not in site.asked
    assert not receipt.clean


def test_a_killed_worker_leaves_a_receipt_that_is_not_final(tmp_path: Path, site: Site) -> None:
    requests = [f"{site.url}/ok", f"{site.url}/hold"]
    running = Running(tmp_path, site, requests, DISTRIBUTED_RECEIPT_INTERVAL="0.05")
    running.when(lambda receipt: receipt.settled == 0b01 and receipt.items == 1)
    running.process.kill()
    crawl = running.end()
    assert crawl.receipt is not None
    assert not crawl.receipt.final
    assert crawl.items == []  # buffered: what a running receipt says is no proof


def test_a_spider_that_closes_itself_leaves_the_rest(tmp_path: Path, site: Site) -> None:
    requests = [{"url": f"{site.url}/ok?0", "priority": 1}, {"url": f"{site.url}/ok?1", "callback": "closes"},
                *(f"{site.url}/hold?{n}" for n in range(4))]  # fmt: skip
    running = Running(tmp_path, site, requests, CONCURRENT_REQUESTS="1", DISTRIBUTED_RECEIPT_INTERVAL="0.05")
    running.when(lambda receipt: "Closing spider (enough)" in running.log.read_text())
    site.release.set()
    receipt = running.end().receipt
    assert receipt is not None
    assert (receipt.final, receipt.stored, receipt.clean, receipt.finish_reason) == (True, True, True, "enough")
    outcomes = outcome_of(receipt)
    assert outcomes[:2] == ["crawled", "crawled"]
    assert outcomes[2:].count("open") >= 3
    assert set(outcomes) <= {"crawled", "open"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"FEED_URI": "gopher://user:s3cret@host/%(batch)s.jl"}, "FEED_URI/FEEDS: Scrapy has disabled the feed"),
        ({"DISTRIBUTED_START_URL": "zb85:nonsense"}, "DISTRIBUTED_START_URL: found 'zb85:nonsense', expected"),
        ({"DISTRIBUTED_START_URL": '["http://a/", {"url": "x://b", "callback": "gone"}]'}, "element 1 is no request"),
        ({"DISTRIBUTED_RECEIPT_INTERVAL": "often"}, "DISTRIBUTED_RECEIPT_INTERVAL: found 'often'"),
    ],
    ids=["feed", "payload", "callback", "setting"],
)  # fmt: skip
def test_what_would_lose_items_or_requests_does_not_start(
    tmp_path: Path, site: Site, settings: dict[str, str], message: str
) -> None:
    crawl = Running(tmp_path, site, [f"{site.url}/ok"], **settings).end()
    assert crawl.receipt is None
    assert site.asked == []
    assert message in crawl.log
    assert "Error: " + message.partition(" found")[0] in crawl.log or "WireError" in crawl.log
    error = "\n".join(line for line in crawl.log.splitlines() if "ConfigError: " in line)
    assert "s3cret" not in error


def test_a_feed_that_was_not_stored_is_said_so(tmp_path: Path, site: Site) -> None:
    crawl = Running(tmp_path, site, [f"{site.url}/ok"], FEED_URI="nostore://u:s3cret@host/7.jl").end()
    receipt = crawl.receipt
    assert receipt is not None
    assert (receipt.final, receipt.stored) == (True, False)
    (before,) = [line.partition("At store: ")[2] for line in crawl.log.splitlines() if "At store: " in line]
    assert not Receipt.from_json(before).final
    assert receipt.settled == 1


# Several feeds


def test_each_feed_is_counted_by_itself(tmp_path: Path, site: Site) -> None:
    feeds = {
        f"file://{tmp_path}/%(batch)s.csv": {"format": "csv", "fields": ["url"]},
        f"file://{tmp_path}/first-%(batch)s.jl": {"format": "jl", "item_filter": "worker_spiders.FirstOnly"},
        f"file://{tmp_path}/part-%(batch_id)d-%(batch)s.jl": {"format": "jl", "batch_item_count": 2},
        f"file://{tmp_path}/none-%(batch)s.jl": {
            "format": "jl", "item_filter": "worker_spiders.NoneOf", "store_empty": False,
        },
    }  # fmt: skip
    urls = [{"url": f"{site.url}/ok", "dont_filter": True} for _ in range(3)]
    receipt = Running(tmp_path, site, urls, FEED_URI="", FEEDS=json.dumps(feeds)).end().receipt
    assert receipt is not None
    assert (receipt.stored, receipt.items, receipt.unexported) == (True, 3, 0)
    names = {(file.url.removeprefix(f"file://{tmp_path}/"), file.items, file.feed) for file in receipt.feeds}
    assert names == {
        ("7.csv", 3, 0), ("first-7.jl", 1, 1), ("part-1-7.jl", 2, 2), ("part-2-7.jl", 1, 2), ("none-7.jl", 0, 3),
    }  # fmt: skip
    assert (tmp_path / "7.csv").read_text().split() == ["url", *[f"{site.url}/ok"] * 3]
    assert len((tmp_path / "first-7.jl").read_text().splitlines()) == 1
    assert not (tmp_path / "none-7.jl").exists()


def test_an_item_that_one_feed_can_not_express_is_missing_in_both(tmp_path: Path, site: Site) -> None:
    """Scrapy does not come to the second feed then."""
    feeds = {
        f"file://{tmp_path}/%(batch)s.jl": {"format": "jl"},
        f"file://{tmp_path}/%(batch)s.csv": {"format": "csv", "item_filter": "worker_spiders.FirstOnly"},
    }
    request = {"url": f"{site.url}/ok", "callback": "not_for_json"}
    receipt = Running(tmp_path, site, [request], FEED_URI="", FEEDS=json.dumps(feeds)).end().receipt
    assert receipt is not None
    assert (receipt.stored, receipt.items, receipt.unexported) == (True, 2, 2)
    assert [file.items for file in sorted(receipt.feeds, key=lambda file: file.feed)] == [1, 1]


# Passwords


ACTIVE = {"ADDONS": '{"scrapy_distributed.Addon": 500}'}  # as each job has it


@pytest.mark.parametrize("settings", [{"FEED_URI": "%s"}, {"FEED_URI": "", "FEEDS": '{"%s": {"format": "jl"}}'}])
@pytest.mark.parametrize("stored", [True, False])
def test_nothing_that_a_job_leaves_has_the_password_of_its_feed(
    tmp_path: Path, site: Site, settings: dict[str, str], stored: bool
) -> None:
    uri = "nostore://u:s3cret@host/7.jl" if not stored else "keep://u:s3cret@host/7.jl"
    settings = {name: text.replace("%s", uri) for name, text in settings.items()}
    crawl = Running(tmp_path, site, [f"{site.url}/ok"], **ACTIVE, **settings).end()
    assert crawl.receipt is not None
    assert crawl.receipt.stored is stored
    assert [file.url for file in crawl.receipt.feeds] == [uri.replace(":s3cret", "")]
    assert f"{'Stored' if stored else 'Error storing'} jl" in crawl.log.replace("jsonlines", "jl")
    assert "s3cret" not in crawl.log + crawl.said + crawl.receipt.to_json()
    assert stored or "OSError: disk full at nostore://u@host/7.jl" in crawl.log


def test_a_password_that_the_node_fills_in(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "s3cret")
    uri = "nostore://u:%(word)s@host/%(batch)s.jl"
    crawl = Running(
        tmp_path, site, [f"{site.url}/ok"], **ACTIVE, FEED_URI=uri, FEED_URI_PARAMS="worker_spiders.with_password"
    ).end()
    assert crawl.receipt is not None
    assert [file.url for file in crawl.receipt.feeds] == ["nostore://u@host/7.jl"]
    assert "s3cret" not in crawl.log + crawl.said + crawl.receipt.to_json()
    assert "s3cret" not in " ".join(crawl.command)
    assert (tmp_path / "uri").read_text() == "nostore://u:s3cret@host/7.jl"


# Places that refuse


@pytest.mark.parametrize(
    ("uri", "options", "words"),
    [
        ("file:///proc/nope/%(batch)s.jl", {}, "can't be written here: FileNotFoundError: [Errno 2]"),
        ("file://FOLDER/in_the_way/%(batch)s.jl", {}, "in_the_way"),
        ("ftp://SERVER/folder/%(batch)s.jl", {}, "can't be written here: error_perm: 550 No folders here"),
        ("file://FOLDER/%(nobody)s/%(batch)s.jl", {}, "it has a placeholder that nothing fills in"),
        ("file://FOLDER/%(batch)s.jl", {"item_export_kwargs": {"nope": 1}}, "TypeError: "),
        ("file://FOLDER/%(batch)s.jl", {"postprocessing": ["nope.Plugin"]}, "ModuleNotFoundError: No module named"),
    ],
)
def test_a_feed_that_can_not_be_opened_ends_its_job_before_the_first_page(
    tmp_path: Path, site: Site, uri: str, options: dict[str, Any], words: str
) -> None:
    (tmp_path / "in_the_way").write_text("no folder")
    with ftp_server(tmp_path) if "SERVER" in uri else contextlib.nullcontext() as server:
        uri = uri.replace("FOLDER", str(tmp_path)).replace("ftp://SERVER", server.url if server else "")
        feeds = json.dumps({f"file://{tmp_path}/good.jl": {"format": "jl"}, uri: {"format": "jl", **options}})
        crawl = Running(tmp_path, site, [f"{site.url}/ok"], FEED_URI="", FEEDS=feeds).end()
    receipt = crawl.receipt
    assert receipt is not None
    assert (receipt.final, receipt.stored, receipt.finish_reason) == (True, False, "feed_refused")
    assert site.asked == []
    said = last_error(crawl.log)
    assert said.startswith("scrapy_distributed.errors.ConfigError: FEED_URI/FEEDS: the feed in ")
    assert words in said
    assert not list(tmp_path.glob("*.jl")) + list(tmp_path.glob(".probe-*"))


def let_in(door: socket.socket, port: int) -> None:
    """Connect all who come to *door* with *port* of this machine, until it is closed."""

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        while True:
            client = stack.enter_context(door.accept()[0])
            server = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pass_on, args=pair, daemon=True).start()


def test_an_ftp_server_that_is_away_for_a_moment(tmp_path: Path, site: Site) -> None:
    with ftp_server(tmp_path) as server, socket.socket() as door:
        door.bind(("127.0.0.1", 0))  # and nobody listens: refused
        uri = f"ftp://127.0.0.1:{door.getsockname()[1]}/%(batch)s.jl"
        running = Running(tmp_path, site, [f"{site.url}/ok"], FEED_URI=uri)
        running.when(lambda receipt: "ConnectionRefusedError" in running.log.read_text())
        door.listen()
        threading.Thread(target=let_in, args=(door, server.port), daemon=True).start()
        receipt = running.end().receipt
        with contextlib.suppress(OSError):  # a Mac knows no such thing of a socket that listens
            door.shutdown(socket.SHUT_RDWR)  # ends accept, which a close does not
        assert server.landed() == ["7.jl"]
    assert receipt is not None
    assert (receipt.stored, receipt.items) == (True, 1)


@pytest.mark.parametrize("scheme", ["file", "ftp"])
def test_a_place_that_refuses_for_a_while(tmp_path: Path, site: Site, scheme: str) -> None:
    """Once the job has begun: the folder of the feed, or that of the temporary file which FTP sends at the end."""
    folder, moved = tmp_path / "folder", tmp_path / "moved"
    folder.mkdir()
    urls = [f"{site.url}/hold", *(f"{site.url}/ok?{number}" for number in range(30))]
    with ftp_server(tmp_path) if scheme == "ftp" else contextlib.nullcontext() as server:
        uri = f"{server.url}/%(batch)s.jl" if server else f"file://{folder}/%(batch)s.jl"
        running = Running(
            tmp_path, site, urls, FEED_URI=uri, FEED_TEMPDIR=str(folder),
            CONCURRENT_REQUESTS="1", DOWNLOAD_DELAY="0.2", RANDOMIZE_DOWNLOAD_DELAY="False",
        )  # fmt: skip
        assert site.held.wait(SECONDS)
        folder.rename(moved)
        folder.write_text("in the way")
        site.release.set()
        running.when(lambda receipt: "Error caught on signal handler" in running.log.read_text())
        folder.unlink()
        moved.rename(folder)
        receipt = running.end().receipt
    assert receipt is not None
    assert (receipt.final, receipt.items, receipt.finish_reason) == (True, 31, "finished")
    assert 0 < receipt.feeds[0].items < 31, "Scrapy has stored a part"
    assert not receipt.stored


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_disk_that_is_full_in_the_middle(tmp_path: Path, site: Site) -> None:
    """The kernel says so when the buffer goes there, and part of a line may be on the disk."""
    (tmp_path / "7.jl").symlink_to("/dev/full")
    urls = [f"{site.url}/ok?{number}{'x' * 2000}" for number in range(9)]
    crawl = Running(tmp_path, site, urls, FEED_URI=f"file://{tmp_path}/%(batch)s.jl").end()
    assert "OSError: [Errno 28] No space left on device" in crawl.log
    assert crawl.receipt is not None
    assert (crawl.receipt.final, crawl.receipt.stored, crawl.receipt.items) == (True, False, 9)


def test_stats_that_are_not_kept_are_refused(tmp_path: Path, site: Site) -> None:
    crawl = Running(tmp_path, site, [f"{site.url}/ok"], STATS_CLASS="scrapy.statscollectors.DummyStatsCollector").end()
    assert crawl.receipt is None
    assert "ConfigError: STATS_CLASS: found one that keeps nothing" in crawl.log


def test_without_a_feed_the_receipt_is_final_and_stored(tmp_path: Path, site: Site) -> None:
    crawl = Running(tmp_path, site, [f"{site.url}/ok"], FEED_URI="").end()
    receipt = crawl.receipt
    assert receipt is not None
    assert (receipt.final, receipt.stored, receipt.items, receipt.feeds) == (True, True, 1, ())


def test_an_empty_batch_is_a_probe_that_comes_home(tmp_path: Path, site: Site) -> None:
    receipt = Running(tmp_path, site, [], FEED_URI="").end().receipt
    assert receipt is not None
    assert (receipt.final, receipt.size, receipt.settled, receipt.finish_reason) == (True, 0, 0, "finished")


def test_a_receipt_that_cannot_be_written_does_not_stop_the_crawl(tmp_path: Path, site: Site) -> None:
    folder = tmp_path / "logs" / "p" / "s.receipts"
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder should be")
    running = Running(tmp_path, site, [f"{site.url}/ok"])
    crawl = running.end()
    assert (crawl.code, crawl.receipt) == (0, None)
    assert crawl.items == [{"url": f"{site.url}/ok"}]
    assert "Can't write the receipt" in crawl.log


# Activity


def test_activity_stands_while_nothing_happens_and_never_falls(tmp_path: Path, site: Site) -> None:
    requests = [f"{site.url}/ok?1", {"url": f"{site.url}/hold", "callback": "follow_down"}]
    running = Running(tmp_path, site, requests, DISTRIBUTED_RECEIPT_INTERVAL="0.05")
    since: dict[int, int] = {}  # activity -> the first sequence with it
    standing = running.when(
        lambda receipt: receipt.sequence >= since.setdefault(receipt.activity, receipt.sequence) + 5
    )
    assert site.held.is_set()
    assert standing.activity == max(since)
    assert sorted(since, key=since.__getitem__) == sorted(since)
    site.release.set()
    receipt = running.end().receipt
    assert receipt is not None
    assert receipt.activity > standing.activity


# Targets that a worker finds


def elements_of(receipt: Receipt) -> list[Any]:
    return [element for elements in receipt.found() for element in elements]


def found_in(receipt: Receipt, site: Site) -> list[str]:
    """The targets in *receipt*, without the site's address, sorted."""
    return sorted(url_of(element).removeprefix(site.url) for element in elements_of(receipt))


TARGETS = {"DISTRIBUTED_TARGET_RULE": "1", "DISTRIBUTED_TARGET_CALLBACKS": "target"}


def target_requests(site: Site) -> list[Any]:
    return [
        {"url": f"{site.url}/target?own", "callback": "target", "priority": 9},  # its own start matches, and is crawled
        {"url": f"{site.url}/ok?1,2,3", "callback": "targets"},
        {"url": f"{site.url}/ok?2,3,4,own", "callback": "targets", "meta": {"depth": 5}},
        {"url": f"{site.url}/ok?a", "callback": "targets_by_meta"},
        {"url": f"{site.url}/ok?b", "callback": "targets_of_all_kinds"},
        {"url": f"{site.url}/ok?c", "callback": "targets_by_copies", "errback": "errback_item"},
        {"url": f"{site.url}/404?0", "errback": "errback_target", "meta": {"page": "404"}},
        {"url": f"{site.url}/404?1", "errback": "errback_target_async", "meta": {"page": "404_async"}},
        {"url": "REFUSED?0", "errback": "errback_target", "meta": {"page": "refused"}},
        {"url": "REFUSED?1", "errback": "errback_target_async", "meta": {"page": "refused_async"}},
        {"url": f"{site.url}/redirect", "callback": "target", "meta": {"rule": 1}},
        {"url": f"{site.url}/500", "callback": "target", "meta": {"rule": 1}},
    ]


def check_that_targets_are_as_the_spider_meant_them(receipt: Receipt, site: Site) -> None:
    found = {url_of(element).removeprefix(site.url): element for element in elements_of(receipt)}
    assert "distributed_" not in json.dumps(found)
    assert found["/target?1"]["meta"] == {"page": "1", "depth": 1}
    assert found["/target?4"]["meta"] == {"page": "4", "depth": 6}  # as deep as on the coordinator
    assert found["/target?1"]["headers"] == {"Referer": [f"{site.url}/ok?1,2,3"]}
    assert found["/target?rule"]["errback"] == "errback_item"
    assert found["/target?copy"]["errback"] == "errback_item"
    assert "errback" not in found["/target?copied_meta"]
    assert found["/target?refused"] == {"url": f"{site.url}/target?refused", "callback": "target"}
    assert {found[name]["callback"] for name in ("/target?1", "/target?copy", "/target?copied_meta")} == {"target"}


@MODES
def test_targets_that_it_finds_are_reported_and_not_crawled(tmp_path: Path, site: Site, mode: dict[str, str]) -> None:
    crawl = Running(tmp_path, site, target_requests(site), **TARGETS, **mode).end()
    receipt = crawl.receipt
    assert receipt is not None, crawl.said + crawl.log
    assert found_in(receipt, site) == [
        "/target?1", "/target?2", "/target?3", "/target?4", "/target?404", "/target?404_async", "/target?again",
        "/target?again", "/target?copied_meta", "/target?copy", "/target?refused",
        "/target?refused_async", "/target?rule",
    ]  # fmt: skip
    check_that_targets_are_as_the_spider_meant_them(receipt, site)
    asked = sorted(path for path in site.asked if path.startswith("/target"))
    # The second can't travel. Of the first nobody but the worker says that it is a target: its callback is not named.
    assert asked == ["/target?meta", "/target?own", "/target?tuple"]
    items = [item for item in crawl.items if "target" in item]
    urls = sorted(item["target"].removeprefix(site.url) for item in items)
    assert urls == ["/ok?redirected", "/target?own", "/target?tuple"]

    failed, refused = "failed: http 404", "failed: refused"
    assert outcome_of(receipt) == [*["crawled"] * 6, failed, failed, refused, refused, "crawled", "failed: http 500"]
    assert (receipt.final, receipt.stored, receipt.clean) == (True, True, True)
    assert again_of(receipt) == [False] * 11 + [True]  # the others have led to requests, which the receipt reports
    stats = {name: value for name, value in receipt.stats.items() if name.startswith("distributed/")}
    assert 0 < stats.pop("distributed/startup_seconds") < stats.pop("distributed/job_seconds") < SECONDS
    assert stats == {
        "distributed/requests": 12,
        "distributed/targets_reported": 13,
        "distributed/targets_duplicates": 4,  # 2, 3, and the batch's own page twice
        "distributed/offsite": 1,
        "distributed/unsupported_scheme": 1,
        "distributed/local/not_serializable": 1,
        "distributed/local/not_reportable": 1,
    }


def test_a_spider_that_marks_its_targets_reports_them(tmp_path: Path, site: Site) -> None:
    requests = [{"url": f"{site.url}/ok?a", "callback": "targets_by_meta"}]
    receipt = Running(tmp_path, site, requests).end().receipt
    assert receipt is not None
    (element,) = elements_of(receipt)
    assert element["url"] == f"{site.url}/target?meta"
    assert (element["meta"], element["cb_kwargs"]) == ({"depth": 1}, {"a": 1})


@pytest.mark.parametrize(
    ("job", "settings"),
    [("job", {"DISTRIBUTED_WORKER_TARGETS": "follow"}), ("", {})],
    ids=["if it is told so", "if nobody takes its receipt"],
)
def test_targets_that_it_finds_are_crawled(tmp_path: Path, site: Site, job: str, settings: dict[str, str]) -> None:
    crawl = Running(tmp_path, site, target_requests(site), job=job, **TARGETS, **settings).end()
    asked = {path for path in site.asked if path.startswith("/target")}
    pages = ["1", "2", "3", "4", "404", "404_async", "again", "copied_meta", "copy", "meta", "own", "refused",
             "refused_async", "rule", "tuple"]  # fmt: skip
    assert asked == {f"/target?{page}" for page in pages}
    assert len([item for item in crawl.items if "target" in item]) >= len(asked)
    if job:
        assert crawl.receipt is not None
        assert crawl.receipt.targets == ()
        assert not [name for name in crawl.receipt.stats if "targets" in name]
    else:
        assert crawl.receipt is None


def test_targets_are_in_the_final_receipt_alone_also_of_a_crawl_that_ends_early(tmp_path: Path, site: Site) -> None:
    requests = [{"url": f"{site.url}/ok?1", "callback": "targets"}, *(f"{site.url}/hold?{n}" for n in range(4))]
    running = Running(tmp_path, site, requests, DISTRIBUTED_RECEIPT_INTERVAL="0.05", CONCURRENT_REQUESTS="2", **TARGETS)
    first = running.when(lambda receipt: receipt.settled == 0b00001)
    assert first.targets == ()
    assert site.held.wait(SECONDS)
    running.process.send_signal(signal.SIGINT)
    running.when(lambda receipt: "Received SIGINT" in running.log.read_text())
    site.release.set()
    receipt = running.end().receipt
    assert receipt is not None
    assert (receipt.final, receipt.finish_reason, found_in(receipt, site)) == (True, "shutdown", ["/target?1"])


@MODES
def test_rules_find_targets_on_a_worker(tmp_path: Path, site: Site, mode: dict[str, str]) -> None:
    """What another rule finds is crawled on the worker, and the targets on those pages are reported as well."""
    requests = [{"url": f"{site.url}/links?item1,item2,more1,links%3Fmore,item4", "meta": {"rule": 1}}]
    crawl = Running(tmp_path, site, requests, spiders=CRAWL_SPIDER, DISTRIBUTED_TARGET_RULE="1", **mode).end()
    receipt = crawl.receipt
    assert receipt is not None, crawl.said + crawl.log
    assert found_in(receipt, site) == ["/item1", "/item2", "/item4"]
    assert {path for path in site.asked if path != "/robots.txt"} >= {"/more1"}
    assert not [path for path in site.asked if path.startswith("/item")]
    (element, *_) = elements_of(receipt)
    assert element["meta"] == {"rule": 1, "link_text": "item1", "depth": 1}
    assert not {"callback", "errback"} & set(element)  # CrawlSpider's own
    assert outcome_of(receipt) == ["crawled"]


# One job, one worker


def test_a_second_worker_of_the_same_job_is_refused_and_touches_nothing(tmp_path: Path, site: Site) -> None:
    """Scrapyd runs a job twice that it is told twice."""
    requests = [f"{site.url}/ok", f"{site.url}/hold"]
    first = Running(tmp_path, site, requests, DISTRIBUTED_RECEIPT_INTERVAL="600")
    claimed = first.when(lambda receipt: receipt.sequence == 3)  # claimed, opened, its first request sent
    assert site.held.wait(SECONDS)
    asked = list(site.asked)
    written = first.receipt_file.read_bytes()
    second = Running(tmp_path, site, requests, LOG_FILE=str(first.log.with_name("second.log"))).end()
    assert "ConfigError: _job: found 'job', whose receipt" in first.log.with_name("second.log").read_text()
    assert site.asked == asked
    assert first.receipt_file.read_bytes() == written
    assert [file.name for file in first.receipt_file.parent.iterdir()] == ["job.json"]
    assert second.items == []
    site.release.set()
    crawl = first.end()
    receipt = crawl.receipt
    assert receipt is not None
    assert (receipt.final, receipt.settled, receipt.items, len(crawl.items)) == (True, 0b11, 2, 2)
    assert receipt.sequence > claimed.sequence

    third = Running(tmp_path, site, requests).end()  # and when the first has ended
    assert third.receipt == receipt
    assert third.items == crawl.items


def test_a_worker_that_is_refused_for_another_reason_claims_nothing(tmp_path: Path, site: Site) -> None:
    Running(tmp_path, site, [f"{site.url}/ok"], FEED_URI="gopher://host/7.jl").end()
    assert not (tmp_path / "logs" / "p" / "s.receipts").exists()
    receipt = Running(tmp_path, site, [f"{site.url}/ok"]).end().receipt
    assert receipt is not None
    assert receipt.final

"""A small shop for crawls to compare, served by a thread of the test, which counts requests and may hold them back.

=====================  ===============================================================================================
``/list/0`` ...        links to ten products each, to the next list, and a heading
``/p/0`` ...           a product: name and price, links to its reviews, its maker, and its list
``/reviews/0`` ...     two reviews of a product, and a link to its stock
``/stock/0`` ...       how many there are
``/maker/0`` ...       one of three, shared by many products
``/to?u=/p/1``         a redirect; ``/refresh?u=`` by a meta tag
``/group/0`` ...       links to five products and to two groups below; seven there are
``/none``              a page without anything
``/members`` ...       what needs a log-in: see ``members``
``/api`` ...           what is no page: see ``shop_formats``
=====================  ===============================================================================================
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import members
import shop_formats

PRODUCTS = 12
ON_A_LIST = 6
MAKERS = 3
GROUPS = 7
IN_A_GROUP = 3
NAMES = ("Tea, green", 'Cup "blue"', "Löffel", "茶壶 \U0001fad6", "Tray & <cloth>", "Jar;lid")


class Shop:
    """*url*, the *visits* of each path, when the products were asked for (*times*), the requests of each user agent
    (*agents*), and how it is held back: paths that begin with what is in *held* wait until ``release``."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.visits: Counter[str] = Counter()
        self.times: list[float] = []  # seconds of ``time.monotonic``
        self.agents: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._held: tuple[str, ...] = ()
        self._open = threading.Event()
        self._open.set()

    def hold(self, *paths: str) -> None:
        self._held = paths
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def asked(self, target: str, agent: str) -> None:
        """A request of *agent* for *target* has come; returns when it may be answered."""
        with self._lock:
            self.visits[target] += 1
            self.agents[agent] += 1
            if target.startswith("/p/"):
                self.times.append(time.monotonic())
        if target.startswith(self._held):
            self._open.wait(60)

    @property
    def requests(self) -> int:
        with self._lock:
            return self.visits.total()


def links(css_class: str, *targets: str) -> str:
    return "".join(f'<li><a class="{css_class}" href="{target}">{target}</a></li>' for target in targets)


def page(path: str, query: dict[str, list[str]]) -> str | None:
    """The body of a page, ``None`` for one that is not there."""
    kind, _, rest = path[1:].partition("/")
    number = int(rest) if rest.isdigit() else 0
    make: dict[str, Any] = {
        "list": _list, "p": _product, "reviews": _reviews, "stock": _stock, "maker": _maker, "group": _group
    }  # fmt: skip
    if kind == "none":
        return "<p>Nothing</p>"
    if kind == "refresh":
        return f'<head><meta http-equiv="refresh" content="0; url={query["u"][0]}"></head>'
    return make[kind](number) if kind in make else None


def _list(number: int) -> str | None:
    first = number * ON_A_LIST
    if first >= PRODUCTS:
        return None
    more = links("next", f"/list/{number + 1}") if first + ON_A_LIST < PRODUCTS else ""
    products = links("product", *(f"/p/{one}" for one in range(first, first + ON_A_LIST)))
    return f"<h1>List {number}</h1>{products}{more}"


def _product(number: int) -> str | None:
    if number >= PRODUCTS:
        return None
    name = NAMES[number % len(NAMES)].replace("&", "&amp;").replace("<", "&lt;")
    more = links("reviews", f"/reviews/{number}") + links("maker", f"/maker/{number % MAKERS}")
    more += links("back", f"/list/{number // ON_A_LIST}")
    return f'<h1>{name}</h1><b class="price">{number * 5 + 0.25:.2f}</b>{more}'


def _reviews(number: int) -> str:
    return f"<i>good {number}</i><i>bad {number}</i>{links('stock', f'/stock/{number}')}"


def _stock(number: int) -> str:
    return f"<b>{number * 7}</b>"


def _maker(number: int) -> str | None:
    return f"<h1>Maker {number}</h1>" if number < MAKERS else None


def _group(number: int) -> str:
    below = links("group", *(f"/group/{one}" for one in (2 * number + 1, 2 * number + 2) if one < GROUPS))
    first = number * IN_A_GROUP
    there = [one for one in range(first, first + IN_A_GROUP) if one < PRODUCTS]
    return f"<h1>Group {number}</h1>{below}{links('product', *(f'/p/{one}' for one in there))}"


Headers = Iterable[tuple[str, str]]
Answer = tuple[int, Headers, bytes]


def _got(target: str, headers: Any) -> Answer:
    split = urlsplit(target)
    query = parse_qs(split.query)
    if split.path.startswith("/members"):
        return _html(*members.page(split.path, headers.get("Cookie", "")))
    if other := shop_formats.got(split.path, headers):
        return 200, [("Content-Type", other[0])], other[1]
    if split.path == "/to":
        return _html(302, "", [("Location", query["u"][0])])
    body = page(split.path, query)
    return _html(404, "Not there") if body is None else _html(200, body)


def _posted(target: str, headers: Any, content: bytes) -> Answer:
    if other := shop_formats.posted(target, content):
        return 200, [("Content-Type", other[0])], other[1]
    return _html(*members.log_in(parse_qs(content.decode()), headers.get("Cookie", "")))


def _html(status: int, body: str, headers: Headers = ()) -> Answer:
    kind = ("Content-Type", "text/html; charset=utf-8")
    return status, [*headers, kind], f"<!DOCTYPE html><html>{body}</html>".encode()


@contextmanager
def shop() -> Iterator[Shop]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            child.asked(self.path, self.headers.get("User-Agent", ""))
            self.send(*_got(self.path, self.headers))

        def do_POST(self) -> None:
            child.asked(self.path, self.headers.get("User-Agent", ""))
            self.send(*_posted(self.path, self.headers, self.rfile.read(int(self.headers.get("Content-Length", 0)))))

        def send(self, status: int, headers: Headers, content: bytes) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            """Nobody reads it."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128  # all crawls of a module at once, with no connection refused

        def handle_error(self, *args: Any) -> None:
            """A crawl that was killed has gone away."""

    with Server(("127.0.0.1", 0), Handler) as server:
        child = Shop(server)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield child
        finally:
            child.release()
            server.shutdown()
            thread.join()

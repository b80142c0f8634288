"""The real-estate site that the example crawls: any number of properties, made from their numbers alone.

    python site_server.py --properties 3000 --latency 0.1 --port 9312

=============================  ==========================================================================
``/index_00000.html`` ...      30 links to properties each, and a link to the next index page
``/property_000000.html`` ...  title, price, description, address, image
``/truth.json``                which words of a title move the price: by which factor, and by which shift
``/stats.json``                what was asked for, and how many properties more than once
``/status/404``                an empty answer with that status
``/redirect?to=/echo``         a redirect
``/echo``                      method, path, headers and body of the request, as JSON
=============================  ==========================================================================
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
from array import array
from base64 import b64decode
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, quote

LINKS_PER_PAGE = 30

FACTORS: dict[str, float] = {
    "jacuzzi": 1.25,
    "pool": 1.20,
    "garden": 1.10,
    "renovated": 1.05,
    "furnished": 1.00,
    "quiet": 1.00,
    "discount": 0.90,
    "basement": 0.80,
}
"""The truth about prices: each word in a title multiplies the price by its factor. Words are drawn
independently of each other and of everything else, each into a title with `WORD_PROBABILITY`."""

WORD_PROBABILITY = 0.25

BEDS = (1, 2, 3, 4, 5)
KINDS = ("flat", "house", "studio", "maisonette", "cottage", "loft")
STREETS = ("Angel Road", "Baker Street", "Church Lane", "Dean Street", "Elm Grove", "Fleet Street")
DISTRICTS = ("Angel", "Brixton", "Camden", "Dalston", "Ealing", "Finchley", "Greenwich", "Hackney")

PIXEL = b64decode("R0lGODlhAQABAIAAAP///wAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==")
"""The smallest GIF: every property's picture."""


@dataclass(frozen=True, kw_only=True)
class Property:
    """What one property page says. ``price`` is in pounds a month, ``image`` a path on the site."""

    title: str
    price: float
    description: str
    address: str
    image: str


def make_property(number: int, seed: int = 0) -> Property:
    """The property with this number: the same in every process, whatever was asked for before."""
    rng = random.Random(seed << 32 | number)
    words = [word for word in FACTORS if rng.random() < WORD_PROBABILITY]
    kind, district = rng.choice(KINDS), rng.choice(DISTRICTS)
    beds = rng.choice(BEDS)
    price = rng.uniform(800, 1200)
    for word in words:
        price *= FACTORS[word]
    return Property(
        title=", ".join([f"{beds} bed {kind} in {district}", *words]),
        price=round(price, 2),
        description=f"Property {number}: a {kind} with {beds} bedrooms, ten minutes from {district} station.",
        address=f"{rng.randint(1, 200)} {rng.choice(STREETS)}, {district}, London",
        image=f"/image_{number:06d}.gif",
    )


def true_shifts() -> dict[str, float]:
    """The shift of every word of the titles, as `words.py` defines it, in an endless site of this kind.

    A word that moves nothing is a little below 0: the means run over words, so titles with many words weigh more,
    and those are dearer.
    """
    even = {str(beds): 1 / len(BEDS) for beds in BEDS}
    even |= {kind: 1 / len(KINDS) for kind in KINDS} | {name.lower(): 1 / len(DISTRICTS) for name in DISTRICTS}
    share = {"bed": 1.0, "in": 1.0} | even | dict.fromkeys(FACTORS, WORD_PROBABILITY)  # of the titles that have it
    # Mean price of the titles with the word, if that of all titles is 1: the factors of other words cancel out.
    price = {word: factor / (1 + WORD_PROBABILITY * (factor - 1)) for word, factor in FACTORS.items()}
    words = sum(share.values())  # in a title
    total = sum(share[word] * price.get(word, 1.0) for word in share)  # of their prices
    shifts = {}
    for word, p in share.items():
        own = price.get(word, 1.0)
        shifts[word] = (own - (total - p * own) / (words - p)) / (total / words)
    return shifts


def index_path(page: int) -> str:
    """Path of the index page with this number, counted from 0."""
    return f"/index_{page:05d}.html"


def property_path(number: int) -> str:
    """Path of the property with this number, counted from 0."""
    return f"/property_{number:06d}.html"


def index_pages(properties: int) -> int:
    """How many index pages so many properties make; an empty site has one as well."""
    return max(1, -(-properties // LINKS_PER_PAGE))


def render_property(item: Property) -> str:
    """The page of one property, marked up with schema.org's names."""
    return f"""<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>{item.title}</title></head>
<body itemscope itemtype="http://schema.org/Product">
<h1 itemprop="name">{item.title}</h1>
<p class="price">£<span itemprop="price">{item.price:,.2f}</span> a month</p>
<p itemprop="description">{item.description}</p>
<p itemprop="address">{item.address}</p>
<img itemprop="image" src="{item.image}" alt="">
<p><a class="home" href="{index_path(0)}">All properties</a></p>
</body></html>
"""


def render_index(page: int, properties: int) -> str:
    """Index page ``page`` of a site with so many properties."""
    first = page * LINKS_PER_PAGE
    numbers = range(first, min(first + LINKS_PER_PAGE, properties))
    links = "\n".join(f'<li><a href="{property_path(n)}">Property {n}</a></li>' for n in numbers)
    last = page + 1 == index_pages(properties)
    following = "" if last else f'<a class="next" href="{index_path(page + 1)}">next</a>'
    return f"""<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>Properties, page {page}</title></head>
<body>
<ul class="properties">
{links}
</ul>
{following}
</body></html>
"""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True, kw_only=True)
class Response:
    """One HTTP answer; ``delay`` in seconds. ``close``: the connection ends with it."""

    body: bytes = b""
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/html; charset=utf-8"
    location: str | None = None
    delay: float = 0.0
    close: bool = False

    def encode(self, *, with_body: bool = True) -> bytes:
        """The bytes on the wire; ``with_body=False`` answers HEAD."""
        location = f"Location: {self.location}\r\n" if self.location is not None else ""
        close = "Connection: close\r\n" if self.close else ""
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
            f"Content-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            f"{location}{close}\r\n"
        )
        return head.encode("latin-1") + (self.body if with_body else b"")


def as_json(value: object) -> Response:
    """``value`` as a JSON answer."""
    return Response(body=json.dumps(value).encode(), content_type="application/json")


NOT_FOUND = Response(body=b"Not found\n", status=HTTPStatus.NOT_FOUND)

PAGE = re.compile(r"/(index|property|image)_(\d{1,20})\.(?:html|gif)")
LENGTH = re.compile(r"[0-9]{1,8}")
END_OF_HEAD = b"\r\n\r\n"
MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 1024 * 1024
LINGER_SECONDS = 1.0
URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"


@dataclass(kw_only=True)
class Site:
    """The whole site: a request in, an answer out. ``latency`` is in seconds for each page."""

    properties: int
    latency: float = 0.0
    seed: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    visits: array[int] = field(init=False)

    def __post_init__(self) -> None:
        self.visits = array("L", bytes(self.properties * array("L").itemsize))

    def answer(self, request: Request) -> Response:
        """The answer to any request; counts it."""
        if match := PAGE.fullmatch(request.path):
            kind, number = match[1], int(match[2])
            self.requests[kind] += 1
            return self.page(kind, number)
        if request.path == "/stats.json":
            return as_json(self.stats())
        if request.path == "/truth.json":
            return as_json(self.truth())
        self.requests["other"] += 1
        return self.special(request)

    def page(self, kind: str, number: int) -> Response:
        """An index page, a property or its picture."""
        total = index_pages(self.properties) if kind == "index" else self.properties
        if number >= total:
            return NOT_FOUND
        if kind == "image":
            return Response(body=PIXEL, content_type="image/gif", delay=self.latency)
        if kind == "index":
            text = render_index(number, self.properties)
        else:
            self.visits[number] += 1
            text = render_property(make_property(number, self.seed))
        return Response(body=text.encode(), delay=self.latency)

    def special(self, request: Request) -> Response:
        """Pages that test a crawler: any status, a redirect, an echo."""
        query = parse_qs(request.target.partition("?")[2])
        if match := re.fullmatch(r"/status/([2-5]\d\d)", request.path):
            known = {status.value: status for status in HTTPStatus}
            return Response(status=known.get(int(match[1]), HTTPStatus.NOT_FOUND))
        if request.path == "/redirect" and "to" in query:
            return Response(status=HTTPStatus.FOUND, location=quote(query["to"][0], safe=URL_CHARACTERS))
        if request.path == "/echo":
            return as_json(
                {
                    "method": request.method,
                    "path": request.target,
                    "headers": request.headers,
                    "body": request.body.decode("utf-8", "replace"),
                }
            )
        return NOT_FOUND

    def stats(self) -> dict[str, object]:
        """Requests by kind of page, properties served at least once, and those served more than once."""
        return {
            "requests": dict(self.requests),
            "properties_total": self.properties,
            "properties_served": sum(count > 0 for count in self.visits),
            "properties_repeated": sum(count > 1 for count in self.visits),
        }

    def truth(self) -> dict[str, object]:
        """What an analysis of the titles should find."""
        return {
            "properties": self.properties,
            "index_pages": index_pages(self.properties),
            "factors": FACTORS,
            "shifts": true_shifts(),
        }


class BadRequestError(Exception):
    """What came over the wire is not an HTTP/1.1 request that this server takes. *status*: that of the answer."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, target and headers of a request."""
    first, *lines = head.decode("latin-1").split("\r\n")
    match first.split(" "):
        case [method, target, "HTTP/1.1" | "HTTP/1.0"]:
            pairs = (line.partition(":") for line in lines)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
        case _:
            raise BadRequestError(HTTPStatus.BAD_REQUEST, f"found the request line {first[:100]!a}")
    if len(headers) < len(lines) and sum(line.lower().startswith("content-length:") for line in lines) > 1:
        raise BadRequestError(HTTPStatus.BAD_REQUEST, "found Content-Length more than once")
    return method, target, headers


def body_length(headers: dict[str, str]) -> int:
    """How many bytes come after a head with these headers."""
    if "transfer-encoding" in headers:
        raise BadRequestError(HTTPStatus.LENGTH_REQUIRED, "found Transfer-Encoding, expected a Content-Length")
    length = headers.get("content-length")
    if length is None:
        return 0
    if not LENGTH.fullmatch(length):
        raise BadRequestError(HTTPStatus.BAD_REQUEST, f"found Content-Length {length[:100]!a}, expected 1 to 8 digits")
    if int(length) > MAX_BODY_BYTES:
        raise BadRequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"found a body of {length} bytes, expected {MAX_BODY_BYTES} at most"
        )
    return int(length)


class Reader:
    """The requests in the bytes of one connection, however these are cut into pieces. What it keeps is bounded by the
    limits of head and body, and by what comes in one piece."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._searched = 0  # so far there is no end of the head
        self._head: tuple[str, str, dict[str, str]] | None = None
        self._length = 0  # of the body of that head

    def __len__(self) -> int:
        """Bytes that are kept."""
        return len(self._received)

    def add(self, data: bytes) -> None:
        self._received += data

    def next(self) -> Request | None:
        """The next request, if all of it is here. Raises ``BadRequestError``."""
        if self._head is None and not self._take_head():
            return None
        assert self._head is not None
        if len(self._received) < self._length:
            return None
        method, target, headers = self._head
        body = bytes(self._received[: self._length])
        del self._received[: self._length]
        self._head = None
        return Request(method=method, target=target, headers=headers, body=body)

    def _take_head(self) -> bool:
        end = self._received.find(END_OF_HEAD, self._searched)
        self._searched = max(0, len(self._received) - len(END_OF_HEAD) + 1) if end < 0 else 0
        if max(end, self._searched) > MAX_HEAD_BYTES:
            message = f"found a head of more than {MAX_HEAD_BYTES} bytes"
            raise BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)
        if end < 0:
            return False
        self._head = parse_head(bytes(self._received[:end]))
        self._length = body_length(self._head[2])
        del self._received[: end + len(END_OF_HEAD)]
        return True


class Connection(asyncio.Protocol):
    """One keep-alive connection: requests are answered one after the other, and one in each turn of the event loop,
    so that a client that sends many at once does not keep others waiting. Nothing is read from a client that sends
    more than is answered, and nothing is answered to one that does not read."""

    def __init__(self, site: Site, connections: set[Connection]) -> None:
        self._site = site
        self._connections = connections
        self._reader = Reader()
        self._busy = False  # an answer or the next turn is to come
        self._choked = False  # the client does not read its answers
        self._paused = False  # we do not read its requests
        self._refused = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            self._reader.add(data)
            self._next()

    def pause_writing(self) -> None:
        self._choked = True

    def resume_writing(self) -> None:
        self._choked = False
        self._next()

    def close(self) -> None:
        """Drop the line, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> None:
        """Answer the next request that has come in whole, unless an answer is under way."""
        if self._transport is None or self._refused:
            return
        try:
            if not self._busy and not self._choked and (request := self._reader.next()) is not None:
                self._answer(request)
        except BadRequestError as error:
            self._refuse(error)
        else:
            ahead = (self._busy or self._choked) and len(self._reader) > MAX_HEAD_BYTES
            if ahead != self._paused:
                self._pause(ahead)

    def _pause(self, wanted: bool) -> None:
        assert self._transport is not None
        self._paused = wanted
        (self._transport.pause_reading if wanted else self._transport.resume_reading)()

    def _answer(self, request: Request) -> None:
        assert self._transport is not None
        response = self._site.answer(request)
        encoded = response.encode(with_body=request.method != "HEAD")
        if response.delay:
            self._busy = True
            asyncio.get_running_loop().call_later(response.delay, self._go_on, encoded)
            return
        self._transport.write(encoded)
        if self._reader:
            self._busy = True
            asyncio.get_running_loop().call_soon(self._go_on, b"")

    def _go_on(self, answer: bytes) -> None:
        self._busy = False
        if self._transport is not None:
            self._transport.write(answer)
            self._next()

    def _refuse(self, error: BadRequestError) -> None:
        """Say why, and close: nobody knows where the next request would begin. What still comes is read for a moment,
        else the client would meet a reset before it has read the answer."""
        assert self._transport is not None
        self._refused = True
        if self._paused:
            self._pause(False)
        refusal = Response(status=error.status, body=f"{error}\n".encode(), content_type="text/plain", close=True)
        self._transport.write(refusal.encode())
        self._transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self.close)


async def serve(site: Site, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; the address is printed once connections are taken."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopped.set)
    connections: set[Connection] = set()
    server = await loop.create_server(lambda: Connection(site, connections), host, port, backlog=1024)
    address = server.sockets[0].getsockname()
    print(f"listening at http://{host}:{address[1]}", flush=True)
    await stopped.wait()
    server.close()
    for connection in list(connections):
        connection.close()
    await server.wait_closed()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="The real-estate site of the example.")
    parser.add_argument("--properties", type=int, default=3000, help="how many there are (3000)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that each page takes (0)")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other properties (0)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=9312, help="0 takes a free one (9312)")
    options = parser.parse_args()
    site = Site(properties=options.properties, latency=options.latency, seed=options.seed)
    asyncio.run(serve(site, options.host, options.port))


if __name__ == "__main__":
    main()

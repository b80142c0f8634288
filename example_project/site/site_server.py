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
import re
import signal
from array import array
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, quote

from http_messages import MAX_HEAD_BYTES, BadRequestError, Reader, Request, Response, as_json
from market import FACTORS, make_property, true_shifts
from pages import PIXEL, index_pages, render_index, render_property

NOT_FOUND = Response(body=b"Not found\n", status=HTTPStatus.NOT_FOUND)

PAGE = re.compile(r"/(index|property|image)_(\d{1,20})\.(?:html|gif)")
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

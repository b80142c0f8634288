"""A gate before a node, at a port of its own: it passes on what it hears, or does not."""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG_SECONDS = 30  # longer than anybody waits


class Weather(enum.Enum):
    """How the gate behaves."""

    FAIR = "fair"
    HANGS = "hangs"
    """It takes a request and never answers; the node hears nothing of it."""
    ERROR = "answers 500"
    HTML = "answers HTML"
    LOSES = "loses answers"
    """The node hears a request, and its answer is lost together with the line."""
    CUTS = "cuts answers"
    """The line breaks in the middle of an answer."""
    STALLS = "stalls"
    """Half of an answer comes, and then nothing, for as long as it lasts."""
    GARBLES = "garbles"
    """A byte of the file with a job's items is another one; no other answer has a digest that would tell."""


class Gate(ThreadingHTTPServer):
    """Before the node at *node_port*. *twice*: so many of the next POSTs to ``schedule.json`` are delivered twice."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, node_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.node_port = node_port
        self.weather = Weather.FAIR
        self.doubled = 0  # POSTs that were delivered twice
        self._twice = 0
        self._cleared = threading.Event()
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def turn(self, weather: Weather) -> None:
        self._cleared.set()  # those that hang are let go
        self._cleared = threading.Event()
        self.weather = weather

    def deliver_twice(self, posts: int) -> None:
        self._twice = posts

    def takes_twice(self) -> bool:
        with self._lock:
            if self._twice > 0:
                self._twice -= 1
                self.doubled += 1
                return True
            return False

    def hang(self) -> None:
        self._cleared.wait(HANG_SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Lines that break are what it is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: Gate

    def do_GET(self) -> None:  # http.server's name
        self._pass()

    do_POST = do_GET  # noqa: N815

    def _pass(self) -> None:
        gate = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        weather = gate.weather
        if weather is Weather.HANGS:
            gate.hang()
            self.close_connection = True
        elif weather is Weather.ERROR:
            self._answer(500, "text/html", b"<html><body>Internal Server Error</body></html>")
        elif weather is Weather.HTML:
            self._answer(200, "text/html", b"<!DOCTYPE html><html><body>Welcome to nginx!</body></html>")
        else:
            self._ask_node(body, weather)

    def _ask_node(self, body: bytes, weather: Weather) -> None:
        try:
            answer = self._forward(body)
            if self.command == "POST" and self.path == "/schedule.json" and self.server.takes_twice():
                answer = self._forward(body)
        except (OSError, HTTPException):
            self.close_connection = True
            return
        status, kind, content = answer
        middle = len(content) // 2
        self.close_connection = weather in (Weather.LOSES, Weather.CUTS, Weather.STALLS)
        if weather is Weather.GARBLES and self.path.endswith(".items") and content:
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        if weather in (Weather.CUTS, Weather.STALLS):
            self._answer(status, kind, content, sent=middle)
        elif weather is not Weather.LOSES:
            self._answer(status, kind, content)
        if weather is Weather.STALLS:
            self.wfile.flush()
            self.server.hang()

    def _forward(self, body: bytes) -> tuple[int, str, bytes]:
        connection = HTTPConnection("127.0.0.1", self.server.node_port, timeout=30)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type") or "", answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, kind: str, body: bytes, *, sent: int | None = None) -> None:
        """*sent*: bytes of *body* that really are, if not all."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:sent])

    def log_message(self, *args: Any) -> None:
        """Not to the test's output."""


@contextmanager
def gate(node_port: int) -> Iterator[Gate]:
    server = Gate(node_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.turn(Weather.FAIR)
        server.shutdown()
        server.server_close()
        thread.join()

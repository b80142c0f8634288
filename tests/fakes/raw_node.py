"""A node that breaks every rule, as a process of its own, so that all sockets of the test are the client's.

The first part of a path says what is done to who asks: ``http://127.0.0.1:1/drip/daemonstatus.json``. It prints its
port, and ends when its standard input does. With a file (certificate and key) it speaks TLS, and never ends that.
"""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

HEAD = b"HTTP/1.1 200 OK\r\n"
GOOD = json.dumps(
    {"status": "ok", "pending": 1, "running": 2, "finished": 3, "node_name": "raw", "jobid": "j", "prevstate": None,
     "currstate": None, "spiders": 1, "projects": [], "versions": []}
).encode()  # fmt: skip
SENT: Counter[str] = Counter()  # pieces, by what was asked for


def whole(body: bytes, *headers: bytes) -> bytes:
    return HEAD + b"".join(b"%b\r\n" % one for one in headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


@cache
def bomb(layers: int) -> bytes:
    """A gigabyte of it in two layers would be 2 KB."""
    data = gzip.compress(b"{" + b" " * 2**26)
    for _ in range(layers - 1):
        data = gzip.compress(data)
    return data


def forever(*pieces: bytes) -> Iterator[bytes]:
    return itertools.cycle(pieces)


def slowly(start: bytes, seconds: float = 0.05) -> Iterator[bytes]:
    yield start
    while True:
        time.sleep(seconds)
        yield b" "


def then(start: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield start
    yield from rest


def _jobs(count: int) -> bytes:
    job = {"id": "j", "project": "p", "spider": "s"}
    return json.dumps({"status": "ok", "pending": [job] * count, "running": [], "finished": []}).encode()


def _asked(request: bytes) -> bytes:
    names = [line for line in request.split(b"\r\n") if line.lower().startswith((b"accept-encoding", b"cookie"))]
    return GOOD.replace(b"raw", b"; ".join(names))


#: What is sent, by name. After a ``:`` in it follows a number, or text.
ANSWERS: dict[str, Callable[[str, bytes], Iterator[bytes]]] = {
    "good": lambda arg, request: iter([whole(GOOD)]),
    "asked": lambda arg, request: iter([whole(_asked(request), b"Set-Cookie: a=b", b"content-encoding: Identity")]),
    "last": lambda arg, request: then(whole(GOOD, b"Connection: close"), slowly(b"", 3600)),  # and stays open
    "silent": lambda arg, request: slowly(b"", 3600),
    "drip": lambda arg, request: slowly(HEAD + b"Content-Length: 1000000\r\n\r\n{"),
    "flood": lambda arg, request: then(HEAD + b"\r\n{", forever(b" " * 2**16)),
    "chunks": lambda arg, request: then(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", forever(b"1\r\n \r\n" * 9999)),
    "headers": lambda arg, request: then(HEAD, (b"X-%d: y\r\n" % number * 999 for number in itertools.count())),
    "status line": lambda arg, request: then(HEAD[:-2], forever(b"x" * 2**16)),
    "early": lambda arg, request: forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 999),
    "code": lambda arg, request: then(b"HTTP/1.1 %b No\r\n\r\n" % arg.encode(), forever(b"<html>" * 9999)),
    "encoded": lambda arg, request: iter([whole(gzip.compress(GOOD), b"Content-Encoding: " + arg.encode())]),
    "bomb": lambda arg, request: iter([whole(bomb(int(arg)), b"Content-Encoding: gzip, gzip")]),
    "deep": lambda arg, request: iter([whole(b'{"status":"ok","pending":' + b"[" * 30_000)]),
    "lists": lambda arg, request: iter([whole(b'{"status":"ok","x":[' + b"[]," * (int(arg) // 3) + b"[]]}")]),
    "lines": lambda arg, request: iter([whole(b'{"status":"error","message":"' + b"\\n" * int(arg) + b'"}')]),
    "long": lambda arg, request: iter([whole(GOOD + b" " * (int(arg) - len(GOOD)))]),
    "jobs": lambda arg, request: iter([whole(GOOD if b"daemonstatus" in request else _jobs(int(arg)))]),
    "all": lambda arg, request: then(HEAD + b"\r\n", iter([b"0123456789" * (int(arg) // 10) + b"the end"])),
    "promise": lambda arg, request: iter([HEAD + b"Content-Length: 1000\r\n\r\n" + GOOD]),
    "more": lambda arg, request: iter([whole(GOOD) + b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]),
    "cut head": lambda arg, request: iter([HEAD + b"Content-"]),
    "nothing": lambda arg, request: iter([]),
}
KEPT = ("good", "asked", "long", "more", "encoded", "lists", "lines")  # after these the next request is awaited


class Raw:
    """What one connection is told."""

    def __init__(self, line: socket.socket, context: ssl.SSLContext | None) -> None:
        self.line, self.context, self.count = line, context, 0

    def run(self) -> None:
        try:
            if self.context:
                self.line = self.context.wrap_socket(self.line, server_side=True)
            while self._answered():
                pass
        except OSError:
            pass
        finally:
            socket.socket.close(self.line)  # without an end of TLS

    def _answered(self) -> bool:
        request = b""
        while b"\r\n\r\n" not in request:
            data = self.line.recv(65536)
            if not data:
                return False
            request += data
        name, _, arg = urllib.request.unquote(request.split(b" ")[1].split(b"/")[1].decode()).partition(":")
        if name == "sent":
            self.line.sendall(whole(str(SENT[arg]).encode()))
            return False
        if name == "fourth":  # request of a connection
            self.count += 1
            name = "good" if self.count < 4 else "drip"
        if name == "unread":  # and leaves the rest of the request in the line
            name = "drip"
        else:
            self._read_rest(request)
        for piece in ANSWERS[name](arg, request):
            self.line.sendall(piece)
            SENT[name] += 1
        return name in KEPT

    def _read_rest(self, request: bytes) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        lengths = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        left = int(lengths[0]) - len(body) if lengths else 0
        while left > 0:
            left -= len(self.line.recv(65536)) or left


def serve(certificate: str = "") -> None:
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # for who does not read
        port.bind(("127.0.0.1", 0))
        port.listen(100)
        threading.Thread(target=lambda: [accepted(port, context) for _ in itertools.count()], daemon=True).start()
        print(port.getsockname()[1], flush=True)
        sys.stdin.read()


def accepted(port: socket.socket, context: ssl.SSLContext | None) -> None:
    threading.Thread(target=Raw(port.accept()[0], context).run, daemon=True).start()


class RawNode:
    """The address of the running server."""

    def __init__(self, port: int, scheme: str, host: str) -> None:
        self.port, self.scheme, self.host = port, scheme, host

    def url(self, name: str) -> str:
        return f"{self.scheme}://{self.host}:{self.port}/{name.replace(' ', '%20')}"

    def sent(self, name: str) -> int:
        """How many pieces of that answer have been sent."""
        with urllib.request.urlopen(self.url(f"sent:{name}")) as answer:
            return int(answer.read())


@contextmanager
def raw_node(certificate: Path | None = None) -> Iterator[RawNode]:
    command = [sys.executable, __file__, *([str(certificate)] if certificate else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        try:
            yield RawNode(port, *(("https", "localhost") if certificate else ("http", "127.0.0.1")))
        finally:
            child.communicate()


if __name__ == "__main__":
    serve(*sys.argv[1:])

"""TLS before a server on a socket that may have none of its own."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def tls_proxy(server: Path, certificate: Path, *, known: Path | None = None) -> Iterator[int]:
    """Its port on ``localhost``. *certificate*: the file of its own, with the key; *known*: that of those whom it lets
    in, ``None``: everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if known is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(known)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy = _Proxy(server, context, listening)
        try:
            yield listening.getsockname()[1]
        finally:
            proxy.close()


class _Proxy:
    def __init__(self, server: Path, context: ssl.SSLContext, listening: socket.socket) -> None:
        self.server = server
        self.context = context
        self.listening = listening
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._go(self._accept)

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _go(self, what: Callable[..., None], *args: socket.socket) -> None:
        self._threads.append(threading.Thread(target=what, args=args))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                self._go(self._serve, self.listening.accept()[0])

    def _serve(self, raw: socket.socket) -> None:
        with suppress(OSError):  # who is not let in, or has gone
            self._pass_on(raw)

    def _pass_on(self, raw: socket.socket) -> None:
        own: socket.socket = raw  # until it is wrapped
        try:
            self._open.add(own)
            wrapped = self.context.wrap_socket(raw, server_side=True)
            self._open.discard(own)
            own = wrapped
            self._open.add(own)
            with socket.socket(socket.AF_UNIX) as ours:
                ours.connect(str(self.server))
                _pass(wrapped, ours)
        finally:
            self._open.discard(own)
            own.close()


def _pass(theirs: ssl.SSLSocket, ours: socket.socket) -> None:
    """Both ways, until one of them ends."""
    while True:
        readable = [theirs] if theirs.pending() else select.select([theirs, ours], [], [])[0]
        for one in readable:
            data = one.recv(65536)
            if not data:
                return
            (ours if one is theirs else theirs).sendall(data)

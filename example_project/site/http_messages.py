"""HTTP/1.1 as the site speaks it: requests out of the bytes of a connection, and answers as bytes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http import HTTPStatus

LENGTH = re.compile(r"[0-9]{1,8}")
END_OF_HEAD = b"\r\n\r\n"
MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 1024 * 1024


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

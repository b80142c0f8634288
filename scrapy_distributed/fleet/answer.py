"""What came back from a node: a value of the right shape, or the reason in words and what to do about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from twisted.internet import error as net
from twisted.web.client import RequestNotSent  # type: ignore[attr-defined]  # named in its documentation
from twisted.web.error import SchemeNotSupported

from scrapy_distributed.errors import (
    NodeAmbiguousError,
    NodeDownError,
    NodeError,
    NodeItemsError,
    NodeRefusedError,
    NodeTooLongError,
    NodeUnauthorizedError,
    NodeUnreachableError,
    ScrapydRefusedError,
)
from scrapy_distributed.fleet.connection import EncodedError, HeadTooLongError, OtherBytesError, TooLongError
from scrapy_distributed.wire.payload import values_in
from scrapy_distributed.words import last_line, shortened

MAX_VALUES = 600_000  # of JSON: parsed, each may take 64 bytes

#: What mends a "no" of Scrapyd, by what stands in its message.
_REMEDIES = (
    (r"project '.*' not found", "deploy it: scrapy fleet deploy"),
    (r"version '.*' not found", "deploy that version to every node: scrapy fleet deploy"),
    (r"spider '.*' not found", "the deployed version does not have it, deploy again: scrapy fleet deploy"),
    (r"ModuleNotFoundError|ImportError", "install on this node what the project imports and does not contain"),
    (r"egg is not a ZIP file|BadEggError", "build it with: scrapy fleet deploy"),
)
#: What OpenSSL and its wrappers say when the handshake fails, that is before any of the request was sent. Everything
#: else of TLS counts as ambiguous.
_HANDSHAKE = re.compile(
    r"certificate|handshake|wrong version number|packet length too long|record layer failure|unknown protocol"
    r"|unsupported protocol|http request|VerificationError|no ciphers|unrecognized name|internal error"
)
_TRACEBACK = b"Traceback (most recent call last):"
_LARGEST = 10**9  # of what a Scrapyd counts


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An ``{"status": "ok"}`` of one endpoint. Each accessor raises ``NodeAmbiguousError`` for another shape."""

    node: str
    endpoint: str
    values: dict[str, Any]

    def integer(self, key: str) -> int:
        value = self.values.get(key)
        return value if type(value) is int and 0 <= value <= _LARGEST else self._wrong(key, "a number")

    def text(self, key: str) -> str:
        value = self.values.get(key)
        return value if isinstance(value, str) else self._wrong(key, "a string")

    def text_or_none(self, key: str) -> str | None:
        value = self.values.get(key, self)
        return value if value is None or isinstance(value, str) else self._wrong(key, "a string or null")

    def texts(self, key: str) -> list[str]:
        value = self.values.get(key)
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return value
        return self._wrong(key, "a list of strings")

    def objects(self, key: str) -> Iterator[Answer]:
        """The objects of a list, each an ``Answer`` of its own."""
        value = self.values.get(key)
        if isinstance(value, list) and all(isinstance(one, dict) for one in value):
            endpoint = f"{self.endpoint} {key}"
            return (Answer(node=self.node, endpoint=endpoint, values=one) for one in value)
        return self._wrong(key, "a list of objects")

    def _wrong(self, key: str, expected: str) -> NoReturn:
        found = _kind(self.values[key]) if key in self.values else "nothing"
        raise NodeAmbiguousError(
            self.node,
            f"{self.endpoint} answered {found} for {key!r}, expected {expected}: is this a Scrapyd?",
        )


def parsed(node: str, url: str, endpoint: str, code: int, body: bytes) -> Answer:
    """The answer of an API endpoint. Only 200, JSON and ``status: ok`` is success.

    Raises ``NodeRefusedError`` where nothing was done, ``NodeAmbiguousError`` where that is not known."""
    check_code(node, url, endpoint, code)
    if body.lstrip().startswith(_TRACEBACK):  # debug = on; nothing is done after what raises
        raise ScrapydRefusedError(node, _with_remedy(last_line(body.decode("utf-8", "replace"))))
    if len(body) > MAX_VALUES and values_in(body.decode("latin-1")) > MAX_VALUES:
        raise NodeAmbiguousError(node, f"{endpoint} answered more than {MAX_VALUES:,} values: {_is_this(url)}")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        found = "HTML" if body.lstrip()[:1] == b"<" else f"{len(body)} bytes that are no JSON"
        raise NodeAmbiguousError(node, f"{endpoint} answered {found}, expected JSON: {_is_this(url)}") from None
    status = values.get("status") if isinstance(values, dict) else None
    if status == "error":
        message = values.get("message")
        said = last_line(message) if isinstance(message, str) else "an error without a message"
        raise ScrapydRefusedError(node, _with_remedy(said))
    if status != "ok":
        raise NodeAmbiguousError(node, f"{endpoint} answered JSON without a status of Scrapyd: {_is_this(url)}")
    return Answer(node=node, endpoint=endpoint, values=values)


def check_code(node: str, url: str, endpoint: str, code: int) -> None:
    """Raise ``NodeRefusedError`` or ``NodeAmbiguousError`` for every HTTP status but a success."""
    if code == 401:
        advice = "set username and password for this node in scrapy.cfg, .netrc or its URL"
        raise NodeUnauthorizedError(node, f"wrong or missing credentials (HTTP 401): {advice}")
    if code == 404:
        raise NodeRefusedError(node, f"no {endpoint} there (HTTP 404): {_is_this(url)}")
    if 300 <= code < 400:
        advice = "give the node by the URL that it leads to"
        raise NodeRefusedError(node, f"{endpoint} answered with a redirect (HTTP {code}): {advice}")
    if 400 <= code < 500:
        advice = f"ask whoever runs {url} why this was refused (a proxy's rule or size limit?)"
        raise NodeRefusedError(node, f"{endpoint} answered HTTP {code}: {advice}")
    if not 200 <= code < 300:
        raise NodeAmbiguousError(node, f"{endpoint} answered HTTP {code}, expected 200: see the log of {url}")


def failed(node: str, url: str, error: Exception, after_seconds: float | None) -> NodeError:
    """The ``NodeError`` for what Twisted raised; *after_seconds* is the deadline if that ended the call."""
    within = "" if after_seconds is None else f" within {after_seconds:g} s"
    unsent = _why_unsent(error, url, within)
    if unsent:
        refused = isinstance(error, net.ConnectionRefusedError)
        return NodeDownError(node, unsent) if refused else NodeUnreachableError(node, unsent)
    if isinstance(error, TooLongError) and error.limit.words:
        return NodeTooLongError(node, f"{error.limit.words} ({error})")
    if isinstance(error, OtherBytesError):
        return other_items(node, str(error))
    if isinstance(error, TooLongError | HeadTooLongError):
        return NodeAmbiguousError(node, f"{url} answered more than any Scrapyd would ({error}): {_is_this(url)}")
    if isinstance(error, EncodedError):
        advice = "is there a proxy in between that compresses? It must not do so for what asks for identity"
        return NodeAmbiguousError(node, f"{url} gave a compressed answer ({error}), which is not read: {advice}")
    reasons, tls = _reasons(error), url.startswith("https:")
    if within:
        advice = "is it overloaded or stopped?" if not tls else "is it overloaded or stopped, and does it speak https?"
        return NodeAmbiguousError(node, f"no complete answer from {url}{within}: {advice}")
    words = " ".join(f"{type(reason).__name__} {reason}" for reason in reasons)
    if tls and _HANDSHAKE.search(words):
        return NodeUnreachableError(node, f"TLS with {url} failed ({shortened(words)}): {_of_tls(words)}")
    names = ", ".join(dict.fromkeys(type(reason).__name__ for reason in reasons))
    return NodeAmbiguousError(node, f"the connection to {url} broke before a complete answer ({names})")


def other_items(node: str, found: str) -> NodeItemsError:
    """What was *found* is not the file of items that a receipt tells of."""
    advice = "has its disk been full, or has somebody changed or removed it?"
    return NodeItemsError(node, f"the file of its items is not the one that its receipt tells of ({found}): {advice}")


def _why_unsent(error: Exception, url: str, within: str) -> str:
    """Why nothing was sent, in words; empty if something may have been."""
    # A look-up of the name that is cancelled fails as if there were no such name.
    if isinstance(error, net.ConnectingCancelledError | net.TimeoutError) or (
        within and isinstance(error, net.DNSLookupError)
    ):
        return f"no connection to {url}{within}: is the host up, and its port open to us?"
    if isinstance(error, net.ConnectionRefusedError):
        return f"connection refused at {url}: is Scrapyd running there, and its bind_address open to us?"
    if isinstance(error, net.DNSLookupError | net.UnknownHostError):
        return f"no such host in {url}: check its spelling"
    if isinstance(error, net.ConnectError | RequestNotSent):
        return f"no connection to {url} ({type(error).__name__}): check the network"
    if isinstance(error, ValueError | SchemeNotSupported):  # raised while the request was put together
        return f"{url} can't be used ({type(error).__name__}): expected http://host:port or https://host:port"
    return ""


def _of_tls(words: str) -> str:
    """What to do where OpenSSL says *words*."""
    if "certificate verify failed" in words:
        return (
            "check its certificate; where an authority of your own has signed it, or it itself, name the file of that"
            " certificate in the environment: SSL_CERT_FILE=/path/ca.pem"
        )
    return "check its certificate, or use http if it has none"


def _reasons(error: BaseException) -> list[BaseException]:
    """*error* or, where Twisted wraps several failures in one, the innermost ones."""
    inner = [failure.value for failure in getattr(error, "reasons", None) or [] if hasattr(failure, "value")]
    return [leaf for one in inner for leaf in _reasons(one)] if inner else [error]


def _with_remedy(message: str) -> str:
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, message):
            return f"{message}: {remedy}"
    return message


def _is_this(url: str) -> str:
    return f"is this a Scrapyd? Check host, port and path of {url}"


def _kind(value: Any) -> str:
    """*value* in words: what may be large, or nested too deep to be shown, only by its kind."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return shortened(repr(value))

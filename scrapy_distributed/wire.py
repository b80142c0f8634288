"""Request <-> JSON, batch <-> setting value, and the byte ceiling. The only file that knows the format.

A batch is a JSON array. An element is a URL (a plain GET), or an object with ``url`` and whatever else the request
has, under the names of ``scrapy.Request``'s arguments. Bytes (headers, body) are written as Latin-1, which maps every
byte to one character and back. Pickle is never used: the value comes from a command line.

As a setting value the array is plain JSON while it is short, else ``zb85:`` and base85 of the zlib-compressed JSON.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from scrapy import Request, Spider

from scrapy_distributed.errors import NotSerializableError, TooLargeError, WireError

START_URL = "DISTRIBUTED_START_URL"
# Linux refuses a command with a longer argument (MAX_ARG_STRLEN, 32 pages, less the final NUL), and a Scrapyd that
# tries to start one loses that process slot until it is restarted.
MAX_ARGUMENT_BYTES = 131_071
MAX_VALUE_BYTES = MAX_ARGUMENT_BYTES - len(START_URL) - 1
PLAIN_BYTES = 2_048
MAX_JSON_BYTES = 64 * 1024 * 1024  # of one batch, unpacked: a worker does not unpack more than this
PREFIX = "zb85:"

_dumps = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode
_DEFAULTS = {"method": "GET", "encoding": "utf-8"}  # those of all others are empty or zero
_HANDLED = {"url", "callback", "errback", "headers", "meta"}


def encode_request(request: Request, spider: Spider) -> str:
    """*request* as a JSON text in ASCII.

    Raises ``NotSerializableError`` for what would not arrive as it left: values that JSON does not know or changes
    (a tuple, a key that is no string), and callbacks that are no methods of *spider*.
    """
    data: dict[str, Any] = {"url": request.url}
    if request.headers:
        data["headers"] = {
            name.decode("latin-1"): [value.decode("latin-1") for value in values]
            for name, values in dict.items(request.headers)  # without Headers' own, which copies every list
        }
    if request.meta:
        data["meta"] = _faithful(request.meta, "meta")
    kind: Any = type(request)
    if kind is not Request:
        data["_class"] = f"{kind.__module__}.{kind.__qualname__}"
    for attribute, default in _defaults(kind):
        value = getattr(request, attribute)
        if value != default and (value or attribute not in Request.attributes):  # a subclass may default to True
            value = value.decode("latin-1") if isinstance(value, bytes) else value
            data[attribute] = _faithful(value, attribute)
    _encode_callbacks(request, spider, data)
    try:
        return _dumps(data if len(data) > 1 else request.url)
    except (ValueError, RecursionError) as error:
        raise NotSerializableError(f"{request}: {error}") from None


def decode_requests(
    value: Any, spider: Spider, *, rule: int | None = None, callback: str | None = None
) -> list[Request]:
    """The requests in *value*, the setting ``DISTRIBUTED_START_URL``, in order.

    A bare URL becomes a request of CrawlSpider's rule *rule*, or of the method named *callback*.
    Raises ``WireError`` that says what was found.
    """
    elements = decode_payload(value)
    requests = []
    for position, element in enumerate(elements):
        if isinstance(element, str):
            element = {"url": element} | ({"meta": {"rule": rule}} if rule is not None else {})
            if callback and rule is None:
                element["callback"] = callback
        try:
            requests.append(_decode_request(element, spider))
        except (LookupError, TypeError, ValueError, AttributeError, NameError, ImportError) as error:
            raise WireError(f"{START_URL}: element {position} is no request: {type(error).__name__}: {error}") from None
    return requests


def encode_payload(bodies: Sequence[str]) -> str:
    """The setting value of a batch of encoded requests. ASCII, without NUL; its length in bytes is its length."""
    text = f"[{','.join(bodies)}]"
    if len(text) <= PLAIN_BYTES:
        return text
    return PREFIX + base64.b85encode(zlib.compress(text.encode("ascii"))).decode("ascii")


def decode_payload(value: Any) -> list[Any]:
    """The elements of a batch. Raises ``WireError``."""
    if isinstance(value, list | tuple):
        return list(value)  # set in Python, by hand
    if not isinstance(value, str):
        raise WireError(f"{START_URL}: found {type(value).__name__}, expected a JSON list of URLs or requests")
    try:
        elements = json.loads(_unpack(value) if value.startswith(PREFIX) else value)
    except (ValueError, zlib.error, RecursionError) as error:
        found = value if len(value) <= 60 else value[:60] + "..."
        raise WireError(f"{START_URL}: found {found!r}, expected a JSON list of URLs or requests ({error})") from None
    if not isinstance(elements, list):
        raise WireError(f"{START_URL}: found a JSON {type(elements).__name__}, expected a list of URLs or requests")
    return elements


def fits(value: str) -> bool:
    """Whether *value* may travel to a node as ``DISTRIBUTED_START_URL``."""
    return len(value) <= MAX_VALUE_BYTES


def check_size(body: str) -> None:
    """Raises ``TooLargeError`` for an encoded request that is over the ceiling even alone in its batch."""
    if len(body) + 2 > MAX_VALUE_BYTES and (len(body) + 2 > MAX_JSON_BYTES or not fits(encode_payload([body]))):
        raise TooLargeError(f"a request of {len(body):,} bytes; alone in a batch it may have {MAX_VALUE_BYTES:,}")


def split(bodies: Sequence[str]) -> Iterator[tuple[Sequence[str], str]]:
    """Cut *bodies* into runs whose payload is under the ceiling; yields (bodies, payload), none of them empty.

    Every one of *bodies* must have passed ``check_size``.
    """
    if not bodies:
        return
    if len(bodies) == 1 or sum(map(len, bodies)) + len(bodies) < MAX_JSON_BYTES:
        payload = encode_payload(bodies)
        if fits(payload):
            yield bodies, payload
            return
    middle = len(bodies) // 2
    if not middle:
        raise TooLargeError(f"a request of {len(bodies[0]):,} bytes")
    yield from split(bodies[:middle])
    yield from split(bodies[middle:])


def url_of(element: Any) -> str:
    """The URL of one element of a batch."""
    return element if isinstance(element, str) else str(element["url"])


def _unpack(value: str) -> bytes:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(base64.b85decode(value[len(PREFIX) :]), MAX_JSON_BYTES + 1024)
    if not unpacker.eof:
        raise ValueError("cut off, or larger than 64 MiB")
    return text


def _faithful(value: Any, where: str, depth: int = 200) -> Any:
    """*value*, if JSON brings it back as it is."""
    if not depth:  # the worker's parser would give up
        raise NotSerializableError(f"{where} is nested too deep")
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise NotSerializableError(f"{where} has the key {key!r}; only strings can travel")
            _faithful(item, where, depth - 1)
    elif kind is list:
        for item in value:
            _faithful(item, where, depth - 1)
    elif kind not in (int, bool, float, type(None)) and not isinstance(
        value, str
    ):  # LinkExtractor's texts are a subclass
        raise NotSerializableError(f"{where} holds a {kind.__name__}; only what JSON knows can travel")
    return value


@cache
def _defaults(kind: type[Request]) -> tuple[tuple[str, Any], ...]:
    """The attributes of a request class that travel without special care, and their defaults."""
    return tuple((name, _DEFAULTS.get(name)) for name in kind.attributes if name not in _HANDLED)


def _encode_callbacks(request: Request, spider: Spider, data: dict[str, Any]) -> None:
    follows_rule = "rule" in request.meta
    for attribute in ("callback", "errback"):
        function = getattr(request, attribute)
        if follows_rule and function is not None and function == getattr(spider, f"_{attribute}", None):
            continue  # CrawlSpider's own, which ``_decode_request`` puts back: their names may change
        if function is not None:
            data[attribute] = _name_of(function, spider)
        elif follows_rule:
            data[attribute] = None


def _name_of(function: Any, spider: Spider) -> str:
    name = getattr(function, "__name__", "")
    if getattr(spider, name, None) == function:
        return str(name)
    try:  # a name that Python mangled, or another name of the same method
        return str(Request("data:,", callback=function).to_dict(spider=spider)["callback"])
    except ValueError as error:
        raise NotSerializableError(str(error)) from None


def _request_class(name: str | None) -> type[Request]:
    """The request class of that name among those that the spider has imported: nothing is imported for a payload."""
    if name is None:
        return Request
    classes = [Request]
    for kind in classes:
        if f"{kind.__module__}.{kind.__qualname__}" == name:
            return kind
        classes.extend(kind.__subclasses__())
    raise TypeError(f"{name!r} is no Request class that the spider imports")


def _decode_request(element: dict[str, Any], spider: Spider) -> Request:
    if not isinstance(element, dict):
        raise TypeError(f"found {type(element).__name__}, expected a URL or an object")
    data = dict(element)
    kind = _request_class(data.pop("_class", None))
    unknown = set(data) - set(kind.attributes)
    if unknown:
        raise TypeError(f"unknown {', '.join(sorted(unknown))}")
    for attribute in ("callback", "errback"):
        name = data.get(attribute)
        if name is None and attribute not in element and "rule" in data.get("meta", {}):
            data[attribute] = getattr(spider, f"_{attribute}", None)
        elif name is not None:
            data[attribute] = getattr(spider, name)
            if not callable(data[attribute]) or isinstance(data[attribute], type):
                raise TypeError(f"{name!r} is no method of the spider")
    if isinstance(data.get("body"), str):
        data["body"] = data["body"].encode("latin-1")
    if "headers" in data:
        data["headers"] = {
            name.encode("latin-1"): [value.encode("latin-1") for value in values]
            for name, values in data["headers"].items()
        }
    return kind(**data)

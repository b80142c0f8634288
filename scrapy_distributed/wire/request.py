"""Request <-> JSON. The only file that knows the format.

An element of a batch is a URL (a plain GET), or an object with ``url`` and whatever else the request has, under the
names of ``scrapy.Request``'s arguments. Bytes (headers, body) are written as Latin-1, which maps every byte to one
character and back. Where ``meta`` or ``cb_kwargs`` hold more than JSON knows, both are written as items are
(``wire.values``), and ``_classes`` lists the classes among their values. Pickle is never used: the value comes from a
command line.
"""

from __future__ import annotations

import codecs
import json
from functools import cache, cached_property, partial
from math import isfinite
from typing import Any
from urllib.parse import urlsplit

from lxml.etree import _ElementUnicodeResult  # type: ignore[import-untyped]
from scrapy import Request, Spider

from scrapy_distributed.errors import NotSerializableError, WireError
from scrapy_distributed.wire.classes import Classes, Shapes
from scrapy_distributed.wire.leaves import StuckError
from scrapy_distributed.wire.payload import START_URL, decode_payload, found_text, loads
from scrapy_distributed.wire.session import SESSION
from scrapy_distributed.wire.ticket import ERRBACK, TICKET
from scrapy_distributed.wire.values import Decoder, Encoder
from scrapy_distributed.words import shortened

MAX_HOST = 300  # characters of a host that is not ASCII: the time to encode one grows with the square of its length
_SCRAPYS_OWN = frozenset(getattr(Request("data:,"), "__dict__", ()))  # where Scrapy's class has no slots
_dumps = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode
_DEFAULTS = {"method": "GET", "encoding": "utf-8"}  # those of all others are empty or zero
IS_START = "is_start_request"  # meta: Scrapy's, True in what ``start()`` yields
_HANDLED = {"url", "callback", "errback", "headers", "meta", "cb_kwargs"}
_HOLDERS = ("meta", "cb_kwargs")  # of values of the spider's own
MAX_TYPED_DEPTH = 60  # values in one another: each may be three levels of JSON
_SLOW_ENCODINGS = {"idna", "punycode"}  # a query of 100 kB takes them minutes
_OURS = {TICKET, ERRBACK}  # in ``meta``, on a worker alone
# What ``Request`` does not check, and would fail with much later, or take for something else.
_TYPES: dict[str, tuple[type, ...]] = {
    "url": (str,),
    "method": (str,),
    "encoding": (str,),
    "body": (str,),
    "headers": (dict,),
    "meta": (dict,),
    "cb_kwargs": (dict,),
    "cookies": (dict, list),
    "flags": (list,),
}
# What JSON brings back as it is. The text of a link, as LinkExtractor finds it, is lxml's own kind, and nothing more
# than a text; what else derives from one (a member of an Enum, a Markup) means more.
_PLAIN = frozenset({str, int, bool, float, type(None), _ElementUnicodeResult})
_USUAL = frozenset({str, int, bool, bytes, dict, list, tuple})  # the kinds of Scrapy's defaults
# Scrapy calls these itself, and none of them takes a response.
_NO_CALLBACKS = frozenset(dir(Spider)) - {"parse", "_parse"} | {"closed"}


def encode_request(request: Request, spider: Spider, *, data_only: bool = False) -> str:
    """*request* as a JSON text in ASCII. *data_only*: without objects of classes that are not built in.

    Raises ``NotSerializableError`` for what would not arrive as it left: values that ``wire.values`` does not know,
    callbacks that are no methods of *spider*, and classes that could not be made again. A worker refuses a batch as a
    whole, so one such request would take the others with it.
    """
    data: dict[str, Any] = {"url": _url_to_send(request)}
    if request.headers:
        data["headers"] = {
            name.decode("latin-1"): [value.decode("latin-1") for value in values]
            for name, values in dict.items(request.headers)  # without Headers' own, which copies every list
        }
    callback, cb_kwargs = _callback_of(request)
    values = {"meta": _meta_to_send(request), "cb_kwargs": cb_kwargs}
    _encode_values(values, data, package=_package_of(spider), data_only=data_only)
    kind: Any = type(request)
    if kind is not Request:
        data["_class"] = f"{kind.__module__}.{kind.__qualname__}"
    for attribute, default, of_scrapy in _defaults(kind):
        value = getattr(request, attribute)
        # An empty one is Scrapy's default, but that of a method or an encoding; a subclass may default to True. What
        # only equals the default may be of another kind.
        usual = of_scrapy and (value == default if default else not value) and type(value) in _USUAL
        if not (value is None or usual):
            value = value.decode("latin-1") if type(value) is bytes else value
            data[attribute] = _faithful(value, attribute)
    _encode_callbacks(request, callback, spider, data)
    try:
        if "cookies" in data:  # the only one of Scrapy's own attributes that may be of any type
            _check_types(data)
        body = _dumps(data if len(data) > 1 else request.url)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotSerializableError(f"{request}: {error}") from None
    if "_class" in data or "encoding" in data:
        _check_arrival(request, body, spider)
    return body


def decode_requests(
    value: Any, spider: Spider, *, rule: int | None = None, callback: str | None = None, longest: int | None = None,
    data_only: bool = False,
) -> list[Request]:  # fmt: skip
    """The requests in *value*, the setting ``DISTRIBUTED_START_URL``, in order.

    *longest*: characters that a URL may have. *data_only*: an object of a class that is not built in is refused. A bare
    URL becomes a request of CrawlSpider's rule *rule*, or of the method named *callback*.
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
            if longest is not None and len(element["url"]) > longest:
                raise ValueError(f"a URL of more than {longest:,} characters")
            requests.append(_decode_request(element, spider, data_only=data_only))
        except Exception as error:  # a project's own class may raise anything
            found = found_text(f"{type(error).__name__}: {error}")
            raise WireError(f"{START_URL}: element {position} is no request: {found}") from None
    return requests


def _package_of(spider: Spider) -> str:
    return type(spider).__module__.split(".")[0]


def _encode_values(values: dict[str, dict[str, Any]], data: dict[str, Any], *, package: str, data_only: bool) -> None:
    try:
        data.update({name: _faithful(value, name) for name, value in values.items() if value})
    except NotSerializableError:
        data.update(_typed(values, package=package, data_only=data_only))


def _typed(values: dict[str, dict[str, Any]], *, package: str, data_only: bool) -> dict[str, Any]:
    """What *values* are written as with all that items may hold. Raises ``NotSerializableError``."""
    classes = Classes(package)
    encoder = Encoder(classes.of, depth=MAX_TYPED_DEPTH, whole=True)
    found: dict[str, Any] = {}
    for name, value in values.items():
        try:
            (found[name],) = encoder.encode_parts([value])
        except StuckError as stuck:
            where = shortened("".join(f"[{key!r}]" for key in reversed(stuck.names)))
            raise NotSerializableError(f"{name}{where} holds what can't travel: {stuck.words}") from None
        except Exception as error:  # an object of the project may do as it likes
            raise NotSerializableError(f"{name} can't be written: {found_text(repr(error))}") from None
    if data_only and len(classes):
        names = ", ".join(kind.__name__ for kind in classes)
        raise NotSerializableError(f"it holds objects of {names}, and only data go from a worker to the fleet")
    return found | {"_classes": [[kind.__module__, kind.__qualname__] for kind in classes]}


def _decode_values(data: dict[str, Any], spider: Spider, *, data_only: bool) -> None:
    """Puts the values in place of what they were written as. Raises anything for what is forged."""
    names = data.pop("_classes")
    if data_only and names:
        raise ValueError("found objects of classes, expected data alone")
    shapes = Shapes(_package_of(spider))
    for module, qualname in names:
        shapes.name(module, qualname)
    decoder = Decoder(shapes.of)
    for name in _HOLDERS:
        data[name], _ = decoder.decode(_dumps(data[name]))


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
    elif kind not in _PLAIN or (kind is float and not isfinite(value)):
        raise NotSerializableError(f"{where} holds a {kind.__name__}; only what JSON knows can travel")
    return value


def _url_to_send(request: Request) -> str:
    if not request.url.isascii() and len(urlsplit(request.url).netloc) > MAX_HOST:
        raise NotSerializableError(f"the host in its URL has more than {MAX_HOST} characters")
    return request.url


def _meta_to_send(request: Request) -> dict[str, Any]:
    if not _OURS.isdisjoint(request.meta):
        raise NotSerializableError(f"meta has {' or '.join(sorted(_OURS))}, which are a worker's own")
    return request.meta


@cache
def _defaults(kind: type[Request]) -> tuple[tuple[str, Any, bool], ...]:
    """The attributes of a request class that travel without special care, their defaults, and whether each is one of
    Scrapy's own requests."""
    names = (name for name in kind.attributes if name not in _HANDLED)
    return tuple((name, _DEFAULTS.get(name), name in Request.attributes) for name in names)


def _callback_of(request: Request) -> tuple[Any, dict[str, Any]]:
    """The callback and its keyword arguments; those of a ``partial`` are among them."""
    callback = request.callback
    if isinstance(callback, partial) and not callback.args:
        return callback.func, {**callback.keywords, **request.cb_kwargs}
    return callback, request.cb_kwargs


def _encode_callbacks(request: Request, callback: Any, spider: Spider, data: dict[str, Any]) -> None:
    follows_rule = "rule" in request.meta
    for attribute in ("callback", "errback"):
        function = callback if attribute == "callback" else request.errback
        if follows_rule and function is not None and function == getattr(spider, f"_{attribute}", None):
            continue  # CrawlSpider's own, which ``_decode_request`` puts back: their names may change
        if function is not None:
            data[attribute] = _name_of(function, spider)
        elif follows_rule:
            data[attribute] = None


def _name_of(function: Any, spider: Spider) -> str:
    name = str(getattr(function, "__name__", ""))
    try:
        if getattr(spider, name, None) != function:  # a name that Python mangled, or another name of the same method
            name = str(Request("data:,", callback=function).to_dict(spider=spider)["callback"])
        method_of(name, spider)
    except (TypeError, ValueError) as error:
        raise NotSerializableError(str(error)) from None
    return name


def method_of(name: Any, spider: Spider) -> Any:
    """The method *name* of *spider* that may be the callback or errback of a request. No property is read for it.

    Raises ``TypeError`` or ``AttributeError``."""
    if not isinstance(name, str) or name in _NO_CALLBACKS:
        raise TypeError(f"{name!r} is no callback")
    if isinstance(getattr(type(spider), name, None), property | cached_property):
        raise TypeError(f"{name!r} is a property of the spider, expected a method")
    method = getattr(spider, name)
    if not callable(method) or isinstance(method, type):
        raise TypeError(f"{name!r} is no method of the spider")
    return method


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


def _check_types(data: dict[str, Any]) -> None:
    for name, value in data.items():
        if name in _TYPES and not isinstance(value, _TYPES[name]):
            expected = " or ".join(kind.__name__ for kind in _TYPES[name])
            raise TypeError(f"{name}: found {type(value).__name__}, expected {expected}")


def _check_cheap(data: dict[str, Any]) -> None:
    """Refuse what no coordinator sends: our own keys, and what would take a ``Request`` minutes to be made of."""
    if not _OURS.isdisjoint(data.get("meta", ())):
        raise ValueError(f"meta has {' or '.join(sorted(_OURS))}, which are a worker's own")
    url = data.get("url", "")
    if not url.isascii() and len(urlsplit(url.strip()).netloc) > MAX_HOST:
        raise ValueError(f"a host of more than {MAX_HOST} characters")
    if "encoding" in data and codecs.lookup(data["encoding"]).name in _SLOW_ENCODINGS:
        raise ValueError(f"found the encoding {data['encoding']}, expected one of texts")


def _check_arrival(request: Request, body: str, spider: Spider) -> None:
    """Raises ``NotSerializableError`` where a worker could not make *request* of its *body*, or would make another, or
    one without what the project has put on it besides its ``attributes``."""
    kind: Any = type(request)
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        raise NotSerializableError(f"{kind.__qualname__} of {kind.__module__} can't be found by its name on a worker")
    element = loads(body)
    try:
        arrived = _decode_request(element, spider)
    except Exception as error:
        name = type(error).__name__
        raise NotSerializableError(f"{request}: a {kind.__qualname__} can't be made again: {name}: {error}") from None
    typed = _HOLDERS if "_classes" in element else ()  # as what they were, and not each class tells equal objects
    names = [name for name in kind.attributes if name not in typed]
    pairs = [(name, getattr(request, name), getattr(arrived, name)) for name in names]
    there = _besides(arrived)
    pairs += [(name, value, there.get(name)) for name, value in _besides(request).items()]
    changed = [name for name, sent, came in pairs if sent != came and (sent or came)]
    if changed:
        raise NotSerializableError(f"{request}: {', '.join(changed)} of a {kind.__qualname__} would change on its way")


def _besides(request: Request) -> dict[str, Any]:
    """What a request of the project's class holds that Scrapy's does not."""
    found = {name: value for name, value in getattr(request, "__dict__", {}).items() if name not in _SCRAPYS_OWN}
    for kind in type(request).__mro__[: -len(Request.__mro__)]:
        slots = vars(kind).get("__slots__", ())
        for name in [slots] if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(request, name):
                found[name] = getattr(request, name)
    return found


def _decode_request(element: dict[str, Any], spider: Spider, *, data_only: bool = False) -> Request:
    if not isinstance(element, dict):
        raise TypeError(f"found {type(element).__name__}, expected a URL or an object")
    data = dict(element)
    kind = _request_class(data.pop("_class", None))
    data.pop(SESSION, None)  # of the batch, not of the request
    if "_classes" in data:
        _decode_values(data, spider, data_only=data_only)
    unknown = set(data) - set(kind.attributes)
    if unknown:
        raise TypeError(f"unknown {', '.join(sorted(unknown))}")
    _check_types(data)
    _check_cheap(data)
    for attribute in ("callback", "errback"):
        name = data.get(attribute)
        if name is None and attribute not in element and "rule" in data.get("meta", {}):
            data[attribute] = getattr(spider, f"_{attribute}", None)
        elif name is not None:
            data[attribute] = method_of(name, spider)
    if isinstance(data.get("body"), str):
        data["body"] = data["body"].encode("latin-1")
    if "headers" in data:
        data["headers"] = {name.encode("latin-1"): _values(name, found) for name, found in data["headers"].items()}
    request = kind(**data)
    if not request.url.startswith(("http://", "https://")):  # what no coordinator sends: file:///etc/passwd
        raise ValueError(f"found the URL {request.url}, expected http or https")
    return request


def _values(name: str, found: Any) -> list[bytes]:
    if not isinstance(found, list):  # a string would become a header for each of its characters
        raise TypeError(f"header {name!r}: found {type(found).__name__}, expected a list of strings")
    return [value.encode("latin-1") for value in found]

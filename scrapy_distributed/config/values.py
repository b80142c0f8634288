"""What the values of settings may be: each returns what it has read, or raises ``ValueError`` with the rule."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scrapy.settings.default_settings import FEED_EXPORTERS_BASE
from scrapy.utils.misc import load_object

from scrapy_distributed.password import QUOTE, is_ambiguous, without_password
from scrapy_distributed.words import shortened

AUTO = "auto"
# A feed URL that may be shown: no @ in it, or one behind a user. Anywhere else, what is before it may be a password.
_NO_PASSWORD = re.compile(r"[^@]*|[^:/?#@]+://[^:/?#@]*@[^@]*")


def boolean(value: Any) -> bool:
    if value in (True, 1, "1", "True", "true"):
        return True
    if value in (False, 0, "0", "False", "false", "", None):
        return False
    raise ValueError("True or False")


def number(kind: type, minimum: float) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        rule = f"{'a whole number' if kind is int else 'a number'} of at least {minimum}"
        if isinstance(value, bool):
            raise ValueError(rule)  # True is 1 for Python, and a mistake here
        try:
            found = kind(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(rule) from None
        if not minimum <= found < float("inf") or (isinstance(value, float) and found != value):
            raise ValueError(rule)
        return found

    return read


def batch_size(value: Any) -> Any:
    if value == AUTO:
        return AUTO
    try:
        return number(int, 1)(value)
    except ValueError as error:
        raise ValueError(f"{error}, or {AUTO!r}") from None


def names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise ValueError("a list of strings, or one string with commas between them")
    return tuple(item.strip() for item in value if item.strip())


def rules(value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    elif isinstance(value, int):
        value = [value]
    rule = 'the index of a rule, or several of them: 1, [1, 2] or "1,2"'
    if not isinstance(value, Sequence):
        raise ValueError(rule)
    return tuple(_number_of_rule(item, rule) for item in value)


def _number_of_rule(value: Any, rule: str) -> int:
    try:
        return int(number(int, 0)(value))
    except ValueError:
        raise ValueError(rule) from None


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def feed_url(value: Any) -> str:
    if not isinstance(value, str) or (value and not has_batch(value)):
        raise ValueError("a feed URL with %(batch)s in it, else the workers overwrite each other's items")
    if is_ambiguous(value):
        raise ValueError(QUOTE)
    return value


def has_batch(url: str) -> bool:
    return "%(batch)s" in url.replace("%%", "")


def feeds(value: Any) -> dict[str, dict[str, Any]]:
    """Scrapy's ``FEEDS`` as JSON knows it."""
    feeds = from_json(value)
    rule = "a dict of feed URLs and their options, as Scrapy's FEEDS, or one as JSON"
    if not isinstance(feeds, Mapping):
        raise ValueError(rule)
    if not all(isinstance(url, str | Path) and isinstance(options, Mapping) for url, options in feeds.items()):
        raise ValueError(f"{rule}; found a URL that is no string, or options that are no dict")
    return dict(_feed(url, options) for url, options in feeds.items())


def _feed(place: str | Path, options: Mapping[Any, Any]) -> tuple[str, dict[str, Any]]:
    url = str(place.absolute()) if isinstance(place, Path) else place
    if is_ambiguous(url):
        raise ValueError(QUOTE)
    named = shown(url) or "one feed"
    if not has_batch(url):
        raise ValueError(f"%(batch)s in each feed URL, else the workers overwrite each other's items; {named} has none")
    ending = Path(url).suffix.removeprefix(".")
    # Scrapy looks there since 2.19 only.
    feed: dict[str, Any] = {"format": ending if ending in FEED_EXPORTERS_BASE else ""}
    for name, option in options.items():
        try:
            feed[name] = json.loads(json.dumps(option, default=import_path))
        except (TypeError, ValueError):
            raise ValueError(
                f"options that JSON knows, or classes and functions that can be imported by their name; {named} has"
                f" another {name!r}"
            ) from None
    if not feed["format"]:
        raise ValueError(
            f"a format for each feed, or a URL that ends with one of {', '.join(FEED_EXPORTERS_BASE)}; {named} has none"
        )
    if feed.get("batch_item_count") and not re.search(r"%\(batch_time\)s|%\(batch_id\)", url):
        raise ValueError(f"%(batch_id)d or %(batch_time)s in a feed URL with batch_item_count; {named} has none")
    return url, feed


def import_path(component: Any) -> str:
    """The name by which a worker imports *component*. Raises ``TypeError`` if there is none."""
    path = f"{getattr(component, '__module__', '')}.{getattr(component, '__qualname__', '')}"
    try:
        if load_object(path) is component:
            return path
    except (ImportError, NameError, ValueError):  # of a function or an object: a lambda has no name
        pass
    raise TypeError(path)


def from_json(value: Any) -> Any:
    """What a text says as JSON, ``None`` for what is none; other values as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "{}")
    except json.JSONDecodeError:
        return None


def choice(*choices: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value not in choices:
            raise ValueError(" or ".join(map(repr, choices)))
        return value

    return read


def mapping(value: Any) -> dict[str, str]:
    value = from_json(value)
    rule = "a dict of setting names and values, or one as JSON"
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(rule)
    try:
        return {key: item if isinstance(item, str) else json.dumps(item) for key, item in value.items()}
    except TypeError:
        raise ValueError(f"{rule}; values are what JSON knows") from None


def shown(feed_url: str) -> str:
    """For a message; '' if there may be a password in it that can't be told from the rest."""
    url = without_password(feed_url)
    return repr(shortened(url)) if _NO_PASSWORD.fullmatch(url) and not is_ambiguous(feed_url) else ""

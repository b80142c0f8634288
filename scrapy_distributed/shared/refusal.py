"""Which settings of a run this worker does not take from the queue: those that name code, or files of its machine,
unless its own project says the same. Who can write to the queue can have any page fetched; not any code run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scrapy.settings import BaseSettings, default_settings
from scrapy.utils.misc import load_object

from scrapy_distributed.password import is_secret, without_passwords
from scrapy_distributed.words import shortened

#: Settings of Scrapy whose values are texts, lists or dicts, and name neither.
_PLAIN = (
    "AWS_*", "BOT_NAME", "DEFAULT_DROPITEM_LOG_LEVEL", "DEFAULT_REQUEST_HEADERS", "DOWNLOADER_CLIENT_TLS_*",
    "DOWNLOAD_BIND_ADDRESS", "DOWNLOAD_SLOTS", "DOWNLOAD_TLS_*", "FEED_EXPORT_*", "*_ACL", "FTP_*", "GCS_PROJECT_ID",
    "HTTPAUTH_*", "HTTPCACHE_IGNORE_*", "HTTPERROR_ALLOWED_CODES", "HTTPPROXY_AUTH_ENCODING", "LOG_DATEFORMAT",
    "LOG_ENCODING", "LOG_FORMAT", "LOG_LEVEL", "LOG_VERSIONS", "MAIL_*", "MEMUSAGE_NOTIFY_MAIL",
    "METAREFRESH_IGNORE_TAGS", "PERIODIC_LOG_*", "RETRY_GIVE_UP_LOG_LEVEL", "RETRY_HTTP_CODES", "*USER_AGENT",
)  # fmt: skip
#: Dicts of components. What is left out of the project's own does no harm.
_COMPONENTS = ("ADDONS", "ITEM_PIPELINES")
_FEEDS = ("FEEDS", "FEED_URI")
_REMOTE = ("ftp", "ftps", "s3", "gs")
_FEED_OPTIONS = {"format", "fields", "encoding", "indent", "overwrite", "batch_item_count", "store_empty"}
#: Parts of the names of settings of others that name code or files.
_WORDS = frozenset((
    "CLASS", "COMMAND", "COMMANDS", "DIR", "DIRECTORY", "EXECUTABLE", "EXTENSIONS", "FILE", "FOLDER", "HANDLER",
    "HANDLERS", "LAUNCH", "MIDDLEWARES", "MODULE", "MODULES", "PATH", "PIPELINES", "STORAGE", "STORAGES", "STORE",
))  # fmt: skip
_OURS = "scrapy_distributed."
_CODE = re.compile(r"([A-Za-z_]\w*)(?:\.[A-Za-z_]\w*)+")


def refusal(settings: Mapping[str, str], own: BaseSettings, of_workers: Mapping[str, str]) -> str:
    """Why a job with *settings* is not started here; '' if it may be. *own*: the settings of the project here, and
    *of_workers* its ``DISTRIBUTED_WORKER_SETTINGS``."""
    for name, value in settings.items():
        here = [_text(own[name])] if own.getpriority(name) is not None else []
        here += [of_workers[name]] if name in of_workers else []
        if not (_is_harmless(name, value) or value in here or _is_part(name, value, own)):
            return (
                f"setting {shortened(name, 100)}: found {_shown(name, value)}, which names code or files of this"
                f" machine, and the project here {_says(name, here)}; expected the same in both. Put it into the"
                " settings of the project, or into its DISTRIBUTED_WORKER_SETTINGS, on this machine as well"
            )
    return ""


def _says(name: str, here: Sequence[str]) -> str:
    return f"has {_shown(name, here[-1])}" if here else "does not have it"


def _shown(name: str, value: str) -> str:
    """The reason of a refusal is logged, and told to the queue: not what only the project here may know."""
    return "(hidden)" if is_secret(name) else repr(shortened(without_passwords(value), 100))


def _is_harmless(name: str, value: str) -> bool:
    if value in ("", "{}") or name.startswith("DISTRIBUTED_"):
        return True
    if name in _FEEDS:
        return _go_elsewhere(name, value)
    if hasattr(default_settings, name):
        of_number = isinstance(getattr(default_settings, name), int | float)
        return of_number or any(fnmatchcase(name, one) for one in _PLAIN) or value.startswith(_OURS)
    return not _WORDS & set(name.upper().split("_")) and not any(map(_names_something, _texts(value)))


def _go_elsewhere(name: str, value: str) -> bool:
    """Whether feeds are written to servers, by nothing but Scrapy's own code."""
    feeds = _parsed(value) if name == "FEEDS" else {value: {}}
    return isinstance(feeds, dict) and all(
        urlsplit(url).scheme in _REMOTE and isinstance(options, dict) and options.keys() <= _FEED_OPTIONS
        for url, options in feeds.items()
    )


def _is_part(name: str, value: str, own: BaseSettings) -> bool:
    """Whether *value* is a dict of components that the project has here as well, or that are of this package."""
    if name not in _COMPONENTS:
        return False
    known = {path for one in own.getwithbase(name) for path in _paths(one)}
    named = _parsed(value)
    return isinstance(named, dict) and all(one in known or one.startswith(_OURS) for one in named)


def _names_something(text: str) -> bool:
    """Whether *text* is the name of code that can be imported here, or of a place in the file system."""
    code = _CODE.fullmatch(text)
    if code is not None:
        return not text.startswith(_OURS) and _can_be_imported(code[1])
    path = text.removeprefix("file://")
    if path != text or path.startswith(("~", "./", "../")):
        return True
    return path.startswith("/") and (len(Path(path).parts) < 2 or Path(*Path(path).parts[:2]).exists())


def _can_be_imported(root: str) -> bool:
    try:
        return find_spec(root) is not None
    except (ImportError, ValueError):  # it is there, in its own way
        return True


def _texts(value: str) -> Iterator[str]:
    """All that is in *value*: the whole, what is between commas, and what is in it as JSON."""
    yield value.strip()
    yield from (part.strip() for part in value.split(","))
    yield from _texts_in(_parsed(value))


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from _texts_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts_in(one)


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _text(value: Any) -> str:
    """*value* as a coordinator would send it."""
    if isinstance(value, Mapping):
        return json.dumps({_path(name): one for name, one in value.items()}, default=_path)
    if isinstance(value, list | tuple):
        return ",".join(map(_path, value))
    return _path(value)


def _paths(component: Any) -> Iterator[str]:
    """All names of a *component* of the project here: its settings may call it by another than its own."""
    yield _path(component)
    with suppress(Exception):  # whatever the project's modules raise: a job would say so
        yield _path(load_object(component))


def _path(component: Any) -> str:
    name = getattr(component, "__qualname__", None)
    return str(component) if name is None else f"{component.__module__}.{name}"

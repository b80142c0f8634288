"""Where on this machine the feeds of a run are, by the URLs that its coordinator has told the workers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from scrapy_distributed.errors import ConfigError

FILE = "file://"


class Folders(NamedTuple):
    """Those that are *here*, and the URLs of feeds that are *elsewhere*."""

    here: list[Path]
    elsewhere: list[str]


def folders_of(urls: Iterable[str]) -> Folders:
    """Of feeds with these *urls*, templates of Scrapy's. Raises ``ConfigError`` where there are some, and none of them
    is here."""
    here: dict[Path, None] = {}
    elsewhere = []
    for url in urls:
        folder = _folder(url)
        if folder is not None and folder.is_dir():
            here[folder] = None
        else:
            elsewhere.append(url)
    if elsewhere and not here:
        raise ConfigError(
            f"found no folder here with the feeds that workers write to {' and '.join(elsewhere)}: fetch them, if they"
            " are on another machine, and name the folder that they are in: scrapy batches merge DIR -O FILE"
        )
    return Folders(list(here), elsewhere)


def _folder(url: str) -> Path | None:
    """The innermost one that all files of the feed are below; ``None``: none of this machine, or all of it."""
    place = url.partition("%(")[0]
    if place.lower().startswith(FILE):
        host, slash, path = place[len(FILE) :].partition("/")
        if host.lower() not in ("", "localhost"):
            return None
        place = slash + unquote(path.replace("%%", "%"))
    elif "://" in url:
        return None
    else:
        place = place.replace("%%", "%")
    folder = Path(place.rpartition("/")[0] or ("/" if place.startswith("/") else "."))
    return None if folder == Path("/") else folder

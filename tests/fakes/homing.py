"""Crawls of the shop whose items come home, and the local ones whose feeds theirs must equal."""

from __future__ import annotations

import gzip
import json
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from crawling import FAKES, Crawl, Project
from shop import Shop

FORMATS = ("jl", "json", "csv", "xml")
AT_ONCE = 3
PATIENCE = 300  # seconds: many crawls share the machine
NO_PASSWORDS = "credentials: none needed"
CHAIN = "Three batches in a row hold only what the one before has found"


def _lines(path: Path) -> Any:
    return sorted(path.read_bytes().splitlines())


def _rows(path: Path) -> Any:
    head, *rows = path.read_bytes().split(b"\r\n")
    return head, sorted(rows)


def _objects(path: Path) -> Any:
    text = path.read_bytes()
    return [text[:2], *sorted(json.dumps(item) for item in json.loads(text or b"[]"))]


def _elements(path: Path) -> Any:
    text = path.read_bytes()
    return text[:50], sorted(ElementTree.tostring(item) for item in ElementTree.fromstring(text)) if text else []


def _pickled(path: Path) -> Any:
    found = []
    with path.open("rb") as file:
        while file.peek():
            found.append(repr(pickle.load(file)))
    return sorted(found)


def _unzipped(path: Path) -> Any:
    return sorted(gzip.decompress(path.read_bytes()).splitlines())


CONTENT: dict[str, Callable[[Path], Any]] = {
    ".jl": _lines, ".json": _objects, ".csv": _rows, ".xml": _elements, ".pickle": _pickled,
    ".gz": _unzipped, ".kept": _lines,
}  # fmt: skip
"""What a file holds, without the order of its items, by the ending of its name."""


def content(path: Path) -> Any:
    """``None`` if there is no such file."""
    return CONTENT[path.suffix](path) if path.exists() else None


def items(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def complaints(crawl: Crawl) -> list[str]:
    """The warnings and errors in its log, without that on the passwords that test nodes do not have, and that on pages
    which lead to one another: some of these spiders go that way."""
    found = re.findall(r"^.* (?:WARNING|ERROR|CRITICAL): .*$", crawl.log, re.MULTILINE)
    return [line for line in found if NO_PASSWORDS not in line and CHAIN not in line]


class Case:
    """A *spider* with *settings*, and *feeds*: name of a file -> options. *ending*: what its storage puts behind.
    ``{folder}`` in a setting is where the crawl's files are."""

    def __init__(
        self, spider: str, feeds: Mapping[str, Mapping[str, Any]] | Iterable[str] = FORMATS,
        settings: Mapping[str, Any] | None = None, args: Mapping[str, str] | None = None, scheme: str = "",
    ) -> None:  # fmt: skip
        named = feeds if isinstance(feeds, Mapping) else {f"out.{name}": {"format": name} for name in feeds}
        self.spider = spider
        self.feeds = named
        self.settings = dict(settings or {})
        self.args = dict(args or {})
        self.scheme = scheme

    def settings_in(self, folder: Path) -> dict[str, Any]:
        given = {
            name: value.replace("{folder}", str(folder)) if isinstance(value, str) else value
            for name, value in self.settings.items()
        }
        return {**given, "FEEDS": {f"{self.scheme}{folder}/{name}": own for name, own in self.feeds.items()}}


class Home:
    """*project* and the *shop* that it crawls."""

    def __init__(self, project: Project, shop: Shop) -> None:
        self.project = project
        self.shop = shop

    def crawl(self, spider: str, *options: str, folder: Path, settings: Mapping[str, Any] | None = None) -> Crawl:
        """``scrapy crawl`` with its ledger in *folder*."""
        folder.mkdir(exist_ok=True)
        given = {"DISTRIBUTED_LEDGER": folder / "ledger.sqlite", **(settings or {})}
        texts = {name: json.dumps(one) if isinstance(one, dict | list) else str(one) for name, one in given.items()}
        words = [word for name, text in texts.items() for word in ("-s", f"{name}={text}")]
        return self.project.scrapy("crawl", spider, "-a", f"site={self.shop.url}", *words, *options, folder=folder)

    def of(self, case: Case, folder: Path, hosts: str | None = None) -> Crawl:
        """The crawl of a *case*, in *folder*, by the nodes *hosts*."""
        args = [word for name, value in case.args.items() for word in ("-a", f"{name}={value}")]
        nodes = {} if hosts is None else {"DISTRIBUTED_TARGET_HOSTS": hosts}
        return self.crawl(case.spider, *args, folder=folder, settings={**nodes, **case.settings_in(folder)})

    def locally(self, cases: Mapping[str, Case], folder: Path) -> Crawl:
        """All *cases* in one process, each into a folder of its name in *folder*."""
        told = []
        for name, case in cases.items():
            (folder / name).mkdir(parents=True)
            told.append((case.spider, {"site": self.shop.url, **case.args}, case.settings_in(folder / name)))
        program = (str(FAKES / "local_crawls.py"), json.dumps(told))
        return self.project.scrapy(folder=folder, program=program)


class Compared:
    """*cases*, crawled by the fleet, some at a time, and without one. *hosts*: the fleet's nodes, if not the
    project's."""

    def __init__(self, home: Home, cases: Mapping[str, Case], folder: Path, hosts: str | None = None) -> None:
        self._folder = folder
        self._local = home.locally(cases, folder / "local")
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._crawls: dict[str, Future[Crawl]] = {}
        for name, case in cases.items():
            (own := folder / "fleet" / name).mkdir(parents=True)
            self._crawls[name] = self._pool.submit(lambda *given: home.of(*given).wait(PATIENCE), case, own, hosts)

    def __enter__(self) -> Compared:
        return self

    def __exit__(self, *args: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def crawl(self, name: str) -> Crawl:
        """The fleet's, when it is over."""
        return self._crawls[name].result()

    def files(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What files the fleet's crawl has left and the local one, and what is in each."""
        crawl = self.crawl(name)
        self._local.wait(PATIENCE)
        local = self._folder / "local" / name
        made = [
            {path.name: content(path) for path in sorted(folder.iterdir()) if path.suffix in CONTENT}
            for folder in (crawl.folder, local)
        ]
        return made[0], made[1]

"""Which run is this? A run is taken up again by the crawl that has its identity, from the ledger of its spider."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scrapy.exceptions import NotConfigured
from scrapy.utils.project import data_path


def identity_of(
    spider: str, project: str, *, args: Mapping[str, str], rules: Iterable[int], callbacks: Iterable[str], items: str
) -> dict[str, Any]:  # fmt: skip
    """What makes two crawls the same run; *items*: where its items go; *args*: the spider arguments of its jobs, of
    which only a digest is kept: they may hold a password. One that looks like a secret is not among them, and does not
    count: it says who asks and not what for, and a run goes on with a token that has been renewed."""
    digest = hashlib.sha256(json.dumps(dict(args), sort_keys=True).encode()).hexdigest()[:16]
    targets = [sorted(rules), sorted(callbacks)]
    return {"project": project, "spider": spider, "arguments": digest, "targets": targets, "items": items}


def ledger_of(spider: str) -> Path:
    """Where the ledger of *spider* is, in its project, unless a setting says another place."""
    return ledgers_folder() / f"{file_name(spider)}.sqlite"


def ledgers_folder() -> Path:
    try:
        return Path(data_path("distributed"))
    except NotConfigured:  # there is no scrapy.cfg, as for a job of a Scrapyd: below the folder where that was started
        return Path(".scrapy", "distributed").absolute()


def file_name(spider: str) -> str:
    """A name for a file of *spider*, in its folder and unlike that of another spider."""
    plain = "".join(letter if (letter.isascii() and letter.isalnum()) or letter in "._-" else "_" for letter in spider)
    plain = plain.lstrip(".")[:100]
    return plain if plain == spider else f"{plain}-{hashlib.sha256(spider.encode('utf-8', 'replace')).hexdigest()[:8]}"

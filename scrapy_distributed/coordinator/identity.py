"""Which run is this? A run is taken up again by the crawl that has its identity, from the ledger of its spider."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from scrapy import Spider


def identity_of(
    spider: Spider, project: str, *, rules: Iterable[int], callbacks: Iterable[str], items: str
) -> dict[str, Any]:  # fmt: skip
    """What makes two crawls the same run; *items*: where its items go. Spider arguments only as a digest: they may hold
    a password."""
    arguments = {
        name: value for name, value in vars(spider).items() if isinstance(value, str | int) and not name.startswith("_")
    }
    digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:16]
    targets = [sorted(rules), sorted(callbacks)]
    return {"project": project, "spider": spider.name, "arguments": digest, "targets": targets, "items": items}


def file_name(spider: str) -> str:
    """A name for a file of *spider*, in its folder and unlike that of another spider."""
    plain = "".join(letter if (letter.isascii() and letter.isalnum()) or letter in "._-" else "_" for letter in spider)
    plain = plain.lstrip(".")[:100]
    return plain if plain == spider else f"{plain}-{hashlib.sha256(spider.encode('utf-8', 'replace')).hexdigest()[:8]}"

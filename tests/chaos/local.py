"""What a local crawl gives: the same spider with the same arguments, in one process, in peace."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from arena import slowness
from crawling import DEADLINE_SECONDS, Project, SiteChild, site

SITE = "http://site"
# What an item can only say of its worker: no local crawl has batches.
FLEET_FIELDS = ("batch", "place")


def canonical(items: Iterable[dict[str, Any]], of: SiteChild) -> Counter[str]:
    """*items* as text that can be compared with that of another crawl, of a site at another port."""
    return Counter(
        json.dumps({name: value for name, value in item.items() if name not in FLEET_FIELDS}, sort_keys=True).replace(
            of.url, SITE
        )
        for item in items
    )


def read(path: Path) -> list[dict[str, Any]]:
    """The items of a file of JSON lines; none, if there is no file. The last line may be cut off."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


@cache
def local_items(project: Project, spider: str, args: tuple[tuple[str, Any], ...], properties: int) -> Counter[str]:
    """In canonical form, of a site of its own with so many properties; once in a session."""
    with site(properties) as child, tempfile.TemporaryDirectory() as folder:
        crawl = project.crawl(
            spider,
            folder=Path(folder),
            args={**dict(args), "site": child.url},
            settings={"DISTRIBUTED_ENABLED": False, "FEEDS": json.dumps({f"{folder}/local.jl": {"format": "jl"}})},
        ).wait(DEADLINE_SECONDS * slowness())
        assert crawl.process.returncode == 0, crawl.log
        return canonical(read(Path(folder) / "local.jl"), child)

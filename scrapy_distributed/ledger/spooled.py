"""The files that should be in the spool of a run: their names, and what is said of those that are not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scrapy_distributed.wire.receipt import ItemsFile

_OWN = re.compile(r"own-([1-9][0-9]{0,8})\.jl").fullmatch


def spool_name(batch: int, attempt: int, token: str) -> str:
    """Of what has come home from an attempt: sorted, these are in the order of the batches."""
    return f"{batch:06d}-{attempt}-{token}.jl"


def next_own(names: Iterable[str]) -> str:
    """Of what the next command of a coordinator scrapes itself, after those called *names*."""
    numbers = [int(found[1]) for found in map(_OWN, names) if found]
    return f"own-{max(numbers, default=0) + 1}.jl"


def own_to_json(files: Mapping[str, ItemsFile]) -> str:
    return json.dumps(files)


def own_from_json(text: str) -> dict[str, ItemsFile]:
    """Raises ``ValueError``, ``TypeError`` or ``LookupError`` for what ``own_to_json`` has not made."""
    files = {name: spooled(*file) for name, file in json.loads(text).items()}
    if strange := [name for name in files if not _OWN(name)]:
        raise ValueError(f"found the file {strange[0]!r:.60}, expected own-1.jl and the like")
    return files


def spooled(items: Any, size: Any, digest: Any) -> ItemsFile:
    """Raises ``ValueError`` for what can't be told of a file."""
    if not (type(items) is type(size) is int and items >= 0 and size >= 0 and isinstance(digest, str)):
        raise ValueError(f"found {(items, size, digest)!r:.100}, expected items, bytes and a digest")
    return ItemsFile(items, size, digest)


NOT_KEPT = (  # of a shared run
    "Put back what is missing: the server keeps no request that was crawled, the same command with -s"
    " DISTRIBUTED_RESUME=False begins a new run, which crawls all of it"
)


def whose(name: str) -> str:
    """Of whom the items in the file *name* are."""
    return "what the coordinator has scraped" if _OWN(name) else f"batch {int(name.partition('-')[0])}"


def lost_words(folder: Path, faults: Mapping[str, str], advice: str) -> str:
    """What is wrong with the spool in *folder*, and what to do. *faults*: name to what was found and expected."""
    name, fault = next(iter(faults.items()))
    more = f" ({len(faults):,} such files)" if len(faults) > 1 else ""
    return f"{folder / name}: items that have come home are lost, those of {whose(name)}: {fault}{more}. {advice}"


def crawled_again(ledger: Path) -> str:
    """How what is lost is."""
    return (
        "Put back what is missing, or let it be crawled again: scrapy batches retry --lost-items --ledger"
        f" {ledger}, then the same crawl command"
    )

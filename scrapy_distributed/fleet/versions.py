"""The versions of a project's egg: what Scrapyd makes of their names, and which is the newest."""

from __future__ import annotations

import re

from scrapy_distributed.errors import ConfigError
from scrapy_distributed.words import listed


def stored_as(version: str) -> str:
    """*version* in the form in which Scrapyd stores and lists it."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", version)


def order_of(version: str) -> list[tuple[int, str]]:
    """A key by which the newest is the last: numbers in a version are compared as numbers (Scrapyd's own idea puts 9_0
    after 10_0). A number is its length and its digits: Python makes no number of more than 4,300 of them."""
    parts = re.findall(r"[0-9]+|[^0-9]+", version)
    numbers = (part.lstrip("0") if part[0] in "0123456789" else None for part in parts)
    return [
        (-1, part) if number is None else (len(number), number) for part, number in zip(parts, numbers, strict=True)
    ]


def choose_version(versions: dict[str, list[str]], asked: str, project: str) -> str:
    """The newest version that every node has, *asked* if that is not empty; '' where no node has any.
    *versions*: those of each node, by its name. Raises ``ConfigError``."""
    if not any(versions.values()):
        return ""  # a project of scrapyd.conf's [settings]
    common = set.intersection(*(set(found) for found in versions.values()))
    if asked:
        asked = stored_as(asked)
        common &= {asked}
    if not common:
        found = "; ".join(f"{name} has {listed(found)}" for name, found in versions.items())
        wanted = f"version {asked!r}" if asked else "one version on every node"
        raise ConfigError(f"project {project!r}: expected {wanted}, {found}: scrapy fleet deploy")
    return max(common, key=order_of)

"""The scripts of the server as they are sent: each with what it needs of the parts that several share."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha1
from importlib import resources
from typing import NamedTuple

_NEEDS = re.compile(r"^-- needs: (.*)$", re.MULTILINE)


class Script(NamedTuple):
    text: str
    digest: str


@cache
def script(name: str) -> Script:
    """The script *name*.lua."""
    own = _read(name)
    needs = _NEEDS.search(own)
    parts = ["common", *(needs[1].split() if needs else [])]
    text = "\n".join([*map(_read, parts), own])
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _read(name: str) -> str:
    return (resources.files("scrapy_distributed.shared") / "scripts" / f"{name}.lua").read_text()

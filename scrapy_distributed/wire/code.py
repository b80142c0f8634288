"""The code of a project as one short digest: the same for its folder here and for an egg on a node, whoever packed it.

It is of the sources in the top-level packages of the settings and of the spider. Of these only folders with an
``__init__.py`` count: an egg by ``setup.py`` has no others. Of an egg only the list of its files is read, which has the
length and the CRC-32 of each one, so a job pays next to nothing for it.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

from scrapy_distributed.words import shortened

MAX_VERSION = 251  # characters: it is the name of a file, with .egg behind it
_VERSION = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_VERSION}}}")
_CODE = re.compile(r"[0-9a-f]{16}")


class Egg(NamedTuple):
    """What a job runs: the *version* of its project, and the digest of its *code*."""

    version: str
    code: str

    def differs(self, code: str) -> str:
        """That the *code* here is another, and what mends it; '' if it is not, or is not known."""
        if code in ("", self.code):
            return ""
        return f"the code here is not that of version {shortened(self.version)}, which runs there: scrapy fleet deploy"

    @property
    def is_well(self) -> bool:
        """Whether it is what a worker writes."""
        pairs = ((self.version, _VERSION), (self.code, _CODE))
        return all(isinstance(text, str) and pattern.fullmatch(text) for text, pattern in pairs)


def egg_of(spider: type) -> Egg | None:
    """What this process runs, which a Scrapyd has started; ``None`` where that is no version of an egg."""
    version = os.environ.get("SCRAPYD_EGG_VERSION")
    if version is None:
        return None
    egg = Egg(version, code_of(spider))
    return egg if egg.is_well else None


def code_of(spider: type) -> str:
    """The digest of the code that this process has loaded *spider* and its settings from; '' where it can't be told."""
    return code_in((os.environ.get("SCRAPY_SETTINGS_MODULE", ""), spider.__module__))


def code_in(modules: Iterable[str]) -> str:
    """The digest of the top-level packages of *modules*, which this process has loaded, as they lie there now; ''
    where it can't be told."""
    files: dict[str, tuple[int, int]] = {}
    for root in dict.fromkeys(name.partition(".")[0] for name in modules):
        try:
            found = _files_of(root, sys.modules.get(root))
        except (OSError, BadZipFile):
            return ""
        if not found:
            return ""
        files |= found
    return digest(files)


def digest(files: Mapping[str, tuple[int, int]]) -> str:
    """Of files by their names, as in an egg: the length and the CRC-32 of each."""
    lines = (f"{name} {length} {crc}" for name, (length, crc) in sorted(files.items()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _files_of(root: str, module: Any) -> dict[str, tuple[int, int]]:
    """The sources of the top-level *module* called *root*. Raises ``OSError`` or ``BadZipFile``."""
    file = getattr(module, "__file__", None)
    if not file:
        return {}
    archive = getattr(getattr(module, "__loader__", None), "archive", None)
    if archive is not None:
        return _in_egg(root, archive)
    return _in_folder(Path(file).parent) if hasattr(module, "__path__") else {f"{root}.py": _read(Path(file))}


def _in_egg(root: str, archive: str) -> dict[str, tuple[int, int]]:
    with ZipFile(archive) as egg:
        sources = {info.filename: (info.file_size, info.CRC) for info in egg.infolist()
                   if info.filename.endswith(".py")}  # fmt: skip
    packages = {name.removesuffix("/__init__.py") for name in sources if name.endswith("/__init__.py")}

    def counts(name: str) -> bool:
        folders = name.split("/")[:-1]
        paths = {"/".join(folders[:depth]) for depth in range(1, len(folders) + 1)}
        return name == f"{root}.py" or (folders[:1] == [root] and paths <= packages)

    return {name: found for name, found in sources.items() if counts(name)}


def _in_folder(package: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for folder, folders, names in os.walk(package):
        if "__init__.py" not in names:
            folders.clear()
            continue
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            found[path.relative_to(package.parent).as_posix()] = _read(path)
    return found


def _read(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    return len(data), zlib.crc32(data)

"""The code of the project on this machine: workers load it anew, so an edit in mid-run makes later jobs others."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from pathlib import Path

logger = logging.getLogger(__name__)


class Sources:
    """The files of the modules that this process has loaded, but for those of installed packages."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, bytes]] = {}  # -> when it was changed last, and its digest
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if file is not None and file.endswith(".py") and not _is_installed(Path(file)):
                self._note(Path(file))

    def tell(self, job: str) -> None:
        """To be called before *job* starts. Says which files are others than before."""
        changed = [path for path in self._known if self._has_changed(path)]
        if changed:
            logger.warning(
                "%s changed while the run goes on: job %s and those after it run the new code, this crawl and the jobs"
                " before it the old one. Begin a new run where all items are to be of one code: the same command with"
                " -s DISTRIBUTED_RESUME=False",
                ", ".join(map(str, changed)), job,
            )  # fmt: skip

    def _has_changed(self, path: Path) -> bool:
        before = self._known[path]
        if _changed_at(path) == before[0]:
            return False
        self._note(path)
        return self._known[path][1] != before[1]

    def _note(self, path: Path) -> None:
        try:
            self._known[path] = _changed_at(path), hashlib.sha256(path.read_bytes()).digest()
        except OSError:
            self._known[path] = 0, b""  # it is gone


def _changed_at(path: Path) -> int:
    """In nanoseconds; 0 if it is gone."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _is_installed(path: Path) -> bool:
    """Also what is of Python itself, or of this package."""
    places = (Path(os.__file__).parent, Path(__file__).parents[1])
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or any(map(path.is_relative_to, places))

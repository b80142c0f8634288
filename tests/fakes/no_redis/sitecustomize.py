"""An environment without the package redis, for every process that has this folder in its PYTHONPATH."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any


class Missing(MetaPathFinder):
    def find_spec(self, name: str, *args: Any) -> None:
        if name.partition(".")[0] == "redis":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())

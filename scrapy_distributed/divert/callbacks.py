"""The callbacks that the project has named as those of requests for the fleet."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from scrapy import Spider


class TargetCallbacks:
    """Those named *names* among the methods of *spider*."""

    def __init__(self, names: Iterable[str], spider: Spider) -> None:
        self.names = frozenset(names)
        self._methods = [getattr(spider, name, None) for name in self.names]

    def __bool__(self) -> bool:
        return bool(self.names)

    def __contains__(self, callback: Any) -> bool:
        """Whether *callback* (``None`` is ``parse``) has one of the names, or is that method by another name: of a
        decorator, or one that Python has mangled; or a ``partial`` of one."""
        while isinstance(callback, partial):
            callback = callback.func
        name = "parse" if callback is None else getattr(callback, "__name__", None)
        return name in self.names or callback in self._methods

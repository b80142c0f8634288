"""The callbacks that the project has named as those of requests for the fleet."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from scrapy import Spider

#: Names by which code asks for further pages.
_ASKS = re.compile("follow(_all)?|from_(response|curl)|crawl|([A-Z].*)?Request")


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
        callback = _without_arguments(callback)
        name = "parse" if callback is None else getattr(callback, "__name__", None)
        return name in self.names or callback in self._methods

    def are_called_by(self, callback: Any) -> bool:
        """Whether *callback* is a function without a name of its own, a ``lambda`` or a closure, that hands its page to
        one of these methods: its request is meant for the fleet, and can't travel. One that asks for further pages may
        well name them for those."""
        callback = _without_arguments(callback)
        if not isinstance(callback, FunctionType) or "<" not in callback.__qualname__:
            return False
        names = set(_names_in(callback.__code__))
        if any(map(_ASKS.fullmatch, names)):
            return False
        return bool(names & self.names) or any(method in self._methods for method in _methods_held_by(callback))


def _without_arguments(callback: Any) -> Any:
    while isinstance(callback, partial):
        callback = callback.func
    return callback


def _names_in(code: CodeType) -> Iterator[str]:
    """All attributes and globals that *code* names, that of functions in it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _methods_held_by(closure: FunctionType) -> Iterator[MethodType]:
    for cell in closure.__closure__ or ():
        with contextlib.suppress(ValueError):  # nothing is in it yet
            if isinstance(cell.cell_contents, MethodType):
                yield cell.cell_contents

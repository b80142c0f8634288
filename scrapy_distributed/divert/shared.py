"""Objects that several requests share on one machine, and that each has for itself on the fleet."""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping, MutableSequence, MutableSet, Sequence
from dataclasses import is_dataclass
from typing import Any

from scrapy import Request, Spider

logger = logging.getLogger(__name__)

LOOKED_AT = 2_000  # requests: a spider that does so does it soon
_OF_SCRAPY = frozenset({"redirect_urls", "redirect_reasons"})  # meta: lists that every copy of a meta has
_MUTABLE = (MutableMapping, MutableSequence, MutableSet)


class Shared:
    """Looks for such an object among the first requests of *spider* for the fleet, and warns of the first."""

    def __init__(self, spider: Spider) -> None:
        self.spider = spider
        self._left = LOOKED_AT

    def look(self, requests: Sequence[Request]) -> None:
        """*requests*: those of one page."""
        if self._left <= 0:
            return
        self._left -= len(requests)
        holders: dict[int, Request] = {}
        for request in requests:
            for where, value in _values(request):
                other = holders.setdefault(id(value), request)
                if other is not request:
                    self._warn(other, request, where, type(value).__name__)
                    return

    def _warn(self, one: Request, other: Request, where: str, kind: str) -> None:
        self._left = 0
        logger.warning(
            "Requests share an object: the same %s is in %s of %s and %s. On the fleet each has a copy of its own, and"
            " what a callback puts into one the others do not see. If none does so, all is well (others are not told)",
            kind, where, one, other, extra={"spider": self.spider},
        )  # fmt: skip


def _values(request: Request) -> Iterator[tuple[str, Any]]:
    for name, values in (("meta", request.meta), ("cb_kwargs", request.cb_kwargs)):
        for key, value in values.items():
            if (
                isinstance(value, _MUTABLE) or (is_dataclass(value) and not isinstance(value, type))
            ) and key not in _OF_SCRAPY:
                yield f"{name}[{key!r}]", value

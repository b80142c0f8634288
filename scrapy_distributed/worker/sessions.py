"""The sessions of a batch, on the worker that crawls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scrapy import Request

from scrapy_distributed.divert.jars import Jars
from scrapy_distributed.errors import WireError
from scrapy_distributed.wire.session import SESSION, decode_session


class Sessions:
    """*found*: the sessions of the batch with *elements*, as their JSON, by id. Raises ``WireError``."""

    def __init__(self, elements: Sequence[Any], found: Mapping[str, Any]) -> None:
        self._sessions = {session: decode_session(value) for session, value in found.items()}
        self._of: dict[int, str] = {}  # position -> id
        for position, element in enumerate(elements):
            session = element.get(SESSION) if isinstance(element, dict) else None
            if session is not None:
                if not (isinstance(session, str) and session in found):
                    raise WireError(f"element {position} of the batch names cookies that are not in it")
                self._of[position] = session

    def put(self, jars: Jars) -> None:
        """All at once, those of later requests last: what a page sets afterwards is newer than any of them."""
        for jar, cookies in self._sessions.values():
            jars.put(jar, cookies)

    def passed_on(self, position: int, request: Request) -> str | None:
        """The session of the start request at *position*, if *request*, to which it has led, has the same jar."""
        session = self._of.get(position)
        if session is None or request.meta.get("dont_merge_cookies", False):
            return None
        same = self._sessions[session][0] == request.meta.get("cookiejar")
        return session if same else None
